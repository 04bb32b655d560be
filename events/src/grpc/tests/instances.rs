//! Two instances on one database.

use std::time::Duration;

use notifyx_database::testing;
use notifyx_mesh::{Mesh, MeshConfig};
use notifyx_model::{Clock, Secret};
use notifyx_wire::grpc::events::{self as wire, events_client::EventsClient};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};

use super::{Ours, PATIENCE, SECOND_US, SECRET, code, event, instance, named, now_us, told};
use crate::{NAME, store::MIGRATIONS};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_instance_without_the_lease_is_given_its_holder_knows_at_once() {
    let kept = testing::sqlite(&MIGRATIONS).await;
    let (holder, driving, work) = instance(&kept.database, None).await;
    let (address, stop) = (holder.address().to_string(), CancellationToken::new());
    let working = tokio::spawn(work.run(address.clone(), stop.clone()));
    let driven = async {
        while !driving.plan.drives() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, driven).await.expect("it drives");

    let metrics = prometheus::Registry::new();
    let mesh = Mesh::fixed(&MeshConfig::default(), &[(NAME, address)], Secret::new(SECRET), Clock::system(), &metrics);
    let (running, given, _work) = instance(&kept.database, Some(mesh)).await;
    let channel = Channel::from_shared(format!("http://{}", running.address())).unwrap().connect().await.unwrap();
    let mut client = EventsClient::with_interceptor(channel, Ours);
    let later = now_us() + 3_600 * SECOND_US;
    let mut schedule = async |ids: &[&str]| {
        let events = ids.iter().map(|id| event(id, later)).collect();
        let results = client.schedule(wire::ScheduleRequest { events, forwarded: false }).await.unwrap().into_inner();
        (told(results), client.clone())
    };
    let (stored, mut client_too) = schedule(&["a", "", "a"]).await;
    assert_eq!(stored, ["stored", "stored", "duplicate"]);
    assert!(!given.plan.drives());
    assert_eq!(driving.plan.held(), 2, "told by the call itself");
    let queues = client_too.queues(wire::QueuesRequest::default()).await.unwrap().into_inner().queues;
    assert_eq!((queues[0].size, queues[0].backlog), (2, 0), "as the holder sees it");
    client_too.cancel(wire::CancelRequest { event: Some(named("a")), forwarded: false }).await.unwrap();
    assert_eq!(driving.plan.held(), 1);
    let again = client_too.cancel(wire::CancelRequest { event: Some(named("a")), forwarded: false }).await.unwrap_err();
    assert_eq!(code(&again), (Code::NotFound, "event_not_found".into()), "the holder's own word");

    // Its door is gone, and its lease is not over: the call is served where it came.
    holder.stop().await;
    assert_eq!(schedule(&["b", ""]).await.0, ["stored", "stored"]);
    drop((client_too, client));
    stop.cancel();
    working.await.unwrap();
    running.stop().await;
}
