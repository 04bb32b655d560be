//! What is scheduled: it fires, moves, is cancelled, and is listed.

use std::time::Duration;

use notifyx_wire::grpc::events as wire;
use tonic::Code;

use super::{SECOND_US, code, event, follow, ids, named, now_us, offsets, only, open, open_in};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_scheduled_fires_once_and_every_watcher_sees_it() {
    let mut service = open().await;
    let mut one = service.watch(only(follow(None))).await;
    let mut other = service.watch(only(follow(Some(0)))).await;
    assert_eq!((one.followed().await, other.followed().await), ((0, true), (0, true)));
    let soon = now_us() + 50_000;
    assert_eq!(service.schedule(vec![event("b", soon + 1), event("a", soon)]).await, ["stored", "stored"]);
    assert_eq!(service.schedule(vec![event("a", soon + 60 * SECOND_US)]).await, ["duplicate"]);
    for watching in [&mut one, &mut other] {
        let seen = watching.events(2).await;
        assert_eq!((ids(&seen), offsets(&seen)), (vec!["a", "b"], vec![1, 2]));
        assert_eq!(seen[0].data, r#"{"of":"a"}"#);
        assert!(seen.iter().all(|event| event.fired_at_us.unwrap() >= event.fire_at_us), "never early");
    }
    assert_eq!(ids(&service.log().await), ["a", "b"]);
    let stored = service.events.append(wire::AppendRequest { event: Some(event("c", 0)) }).await.unwrap().into_inner();
    assert_eq!(stored.event.unwrap().offset, Some(3));
    assert_eq!(ids(&one.events(1).await), ["c"], "a and b came once");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_good_ones_of_a_mixed_batch_are_kept() {
    let mut service = open().await;
    let later = now_us() + 3_600 * SECOND_US;
    let mut bad = [event("", later), event("no time", later), event("x", later), event("y", -1), event("z", i64::MAX)];
    bad[0].category = "a/b".into();
    bad[2].fire_at_us = None;
    let mut batch = vec![event("good", later)];
    batch.extend(bad);
    batch.push(event("good", later));
    let refused = "event_invalid";
    assert_eq!(service.schedule(batch).await, ["stored", refused, refused, refused, refused, refused, "duplicate"]);
    let list = service.events.list(wire::ListRequest::default()).await.unwrap().into_inner();
    assert_eq!((ids(&list.events), list.next.as_str()), (vec!["good"], ""));
    for events in [Vec::new(), vec![event("many", later); 10_001]] {
        let request = wire::ScheduleRequest { events, forwarded: false };
        let refused = service.events.schedule(request).await.unwrap_err();
        assert_eq!(code(&refused), (Code::InvalidArgument, "too_many_events".into()));
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_can_be_moved_and_cancelled_and_what_fired_cannot() {
    let mut service = open().await;
    let later = now_us() + 3_600 * SECOND_US;
    assert_eq!(service.schedule(vec![event("a", later), event("b", later)]).await, ["stored", "stored"]);
    let request = wire::CancelRequest { event: Some(named("b")), forwarded: false };
    assert_eq!(service.events.cancel(request.clone()).await.unwrap().into_inner().fire_at_us, later);
    let gone = service.events.cancel(request).await.unwrap_err();
    assert_eq!(code(&gone), (Code::NotFound, "event_not_found".into()));

    let mut watching = service.watch(only(follow(None))).await;
    watching.followed().await;
    let too_far = wire::RescheduleRequest { event: Some(named("a")), fire_at_us: i64::MAX, forwarded: false };
    let refused = service.events.reschedule(too_far).await.unwrap_err();
    assert_eq!(code(&refused), (Code::InvalidArgument, "event_invalid".into()));
    let now = wire::RescheduleRequest { event: Some(named("a")), fire_at_us: 1, forwarded: false };
    assert_eq!(service.events.reschedule(now).await.unwrap().into_inner().fire_at_us, 1);
    assert_eq!(ids(&watching.events(1).await), ["a"], "a time that has passed fires at once");
    let late = wire::CancelRequest { event: Some(named("a")), forwarded: false };
    let refused = service.events.cancel(late).await.unwrap_err();
    assert_eq!(code(&refused), (Code::FailedPrecondition, "event_fired".into()));
    let fired = service.events.get(named("a")).await.unwrap().into_inner();
    assert_eq!((fired.offset, fired.fired_at_us.is_some()), (Some(1), true));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_fires_what_is_overdue_and_nothing_twice() {
    let mut service = open().await;
    let mut watching = service.watch(only(follow(None))).await;
    watching.followed().await;
    service.append(std::iter::once("before".to_owned())).await;
    assert_eq!(ids(&watching.events(1).await), ["before"]);
    // Far enough that the service has stopped by then, on most machines; where it has not, it fires before it stops.
    let due = now_us() + 2 * SECOND_US;
    service.schedule((0..50).map(|n| event(&format!("e{n}"), due)).collect()).await;
    let folder = service.stop().await;
    while now_us() < due {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut service = open_in(folder).await;
    let mut watching = service.watch(only(follow(Some(1)))).await;
    let (head, recovered) = watching.followed().await;
    assert!(recovered, "at {head}");
    let seen = watching.events(50).await;
    assert_eq!(offsets(&seen), (2..=51).collect::<Vec<_>>());
    assert_eq!(service.log().await.len(), 51);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_in_pages() {
    let mut service = open().await;
    let later = now_us() + 3_600 * SECOND_US;
    service.schedule((0..7).map(|n| event(&format!("e{n}"), later + n % 3)).collect()).await;
    let mut request = wire::ListRequest { category: "orders".into(), limit: 3, ..wire::ListRequest::default() };
    let mut seen = Vec::new();
    for size in [3, 3, 1] {
        let page = service.events.list(request.clone()).await.unwrap().into_inner();
        assert_eq!(page.events.len(), size);
        seen.extend(page.events.into_iter().map(|event| event.id));
        request.cursor = page.next;
    }
    assert_eq!(
        (seen, request.cursor),
        (["e0", "e3", "e6", "e1", "e4", "e2", "e5"].map(str::to_owned).into(), String::new())
    );
    for (cursor, limit, refused) in [("x", 0, "cursor_invalid"), ("", 1_001, "page_invalid")] {
        let request = wire::ListRequest { cursor: cursor.into(), limit, ..wire::ListRequest::default() };
        let status = service.events.list(request).await.unwrap_err();
        assert_eq!(code(&status), (Code::InvalidArgument, refused.into()));
    }
    let queues = service.events.queues(wire::QueuesRequest::default()).await.unwrap().into_inner();
    assert_eq!((queues.queues.len(), queues.next.as_str()), (1, ""));
    let queue = &queues.queues[0];
    assert_eq!((queue.size + queue.backlog, queue.capacity, queue.fired), (7, 1_000, 0));
    let heads = wire::HeadsRequest { categories: vec!["orders".into(), "unused".into()] };
    let heads = service.events.heads(heads).await.unwrap().into_inner().heads;
    assert_eq!(heads.iter().map(|head| (head.offset, head.oldest)).collect::<Vec<_>>(), [(0, 1), (0, 1)]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_listed_by_what_it_is_about() {
    let mut service = open().await;
    let later = now_us() + 3_600 * SECOND_US;
    let about = |id: &str, key: &str, more| wire::NewEvent { key: Some(key.into()), ..event(id, later + more) };
    service.schedule(vec![about("a", "x", 2), about("b", "y", 1), about("c", "x", 1), event("d", later)]).await;
    let (category, key) = ("orders".to_owned(), Some("x".to_owned()));
    let mut request = wire::ListRequest { category, key, limit: 1, ..wire::ListRequest::default() };
    for id in ["c", "a"] {
        let page = service.events.list(request.clone()).await.unwrap().into_inner();
        assert_eq!(ids(&page.events), [id]);
        request.cursor = page.next;
    }
    request.category.clear();
    let status = service.events.list(request).await.unwrap_err();
    assert_eq!(code(&status), (Code::InvalidArgument, "event_invalid".into()), "of which category?");
    service.stop().await;
}
