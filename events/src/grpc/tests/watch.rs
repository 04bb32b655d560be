//! What a watcher sees that was away, that does not read, and whose instance is not the only one that appends.

use notifyx_database::testing;

use super::*;
use crate::store::MIGRATIONS;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_was_away_gets_what_it_lacks_or_learns_that_it_is_too_much() {
    let mut service = open().await;
    service.append((1..=1_200).map(|n| format!("e{n}"))).await;
    let (change, changes) = mpsc::channel(4);
    let changes = stream::unfold(changes, async |mut changes| Some((changes.recv().await?, changes)));
    let mut watching = service.watch(changes).await;
    change.send(follow(Some(1_000))).await.unwrap();
    assert_eq!(watching.followed().await, (1_200, true));
    assert_eq!(offsets(&watching.events(200).await), (1_001..=1_200).collect::<Vec<_>>());
    for (after, recovered) in [(Some(0), false), (Some(1_201), false), (Some(1_200), true), (None, true)] {
        change.send(follow(after)).await.unwrap();
        assert_eq!(watching.followed().await, (1_200, recovered), "{after:?}");
    }
    service.append(std::iter::once("live".to_owned())).await;
    assert_eq!(offsets(&watching.events(1).await), [1_201]);

    let bad = wire::Follow { category: "a/b".into(), after: None };
    change.send(wire::WatchRequest { follow: vec![bad], unfollow: vec!["orders".into()] }).await.unwrap();
    let watch_reply::News::NotFollowed(refused) = watching.next().await else { panic!("it is no name") };
    assert_eq!((refused.category.as_str(), refused.problem.unwrap().code.as_str()), ("a/b", "event_invalid"));
    service.append(std::iter::once("unseen".to_owned())).await;
    change.send(follow(None)).await.unwrap();
    assert_eq!(watching.followed().await, (1_202, true), "what came meanwhile was not watched");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_learns_where_the_category_stands_and_goes_on() {
    let config = Config { feed_bytes: std::num::NonZero::new(1 << 20).unwrap(), ..Config::default() };
    let mut service = open_as(TempDir::new().unwrap(), config).await;
    let mut watching = service.watch(only(follow(None))).await;
    watching.followed().await;
    // Far more than the feed and the connection hold, and more than is read again from the store.
    let data = format!("\"{}\"", "x".repeat(20_000));
    for hundred in 0..20 {
        let large = |n| wire::NewEvent { data: data.clone().into(), ..event(&format!("{hundred}-{n}"), 0) };
        let events = (0..100).map(large).collect();
        let results = service.events.append_many(wire::AppendManyRequest { events }).await.unwrap().into_inner();
        assert!(told(results).iter().all(|word| word == "stored"));
    }
    let mut last = 0;
    let head = loop {
        match watching.next().await {
            watch_reply::News::Appended(appended) => {
                assert_eq!(offsets(&appended.events)[0], last + 1, "no gap that a head does not speak of");
                last += appended.events.len() as u64;
            }
            watch_reply::News::Heads(heads) => break heads.heads[0].offset,
            other => panic!("neither: {other:?}"),
        }
    };
    assert!(last < head && head <= 2_000, "{last} of {head}");
    service.append(std::iter::once("after".to_owned())).await;
    let mut seen = head;
    while seen < 2_001 {
        match watching.next().await {
            watch_reply::News::Appended(appended) => {
                assert_eq!(offsets(&appended.events)[0], seen + 1, "goes on where the head was");
                seen += appended.events.len() as u64;
            }
            watch_reply::News::Heads(heads) => seen = heads.heads[0].offset,
            other => panic!("neither: {other:?}"),
        }
    }
    assert_eq!(seen, 2_001);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_instance_appended_comes_before_the_next_of_this_one() {
    let kept = testing::sqlite(&MIGRATIONS).await;
    let (here, _, _work) = instance(&kept.database, None).await;
    let (there, _, _work) = instance(&kept.database, None).await;
    let client = async |of: &Running| {
        let channel = Channel::from_shared(format!("http://{}", of.address())).unwrap().connect().await.unwrap();
        EventsClient::with_interceptor(channel, Ours)
    };
    let (mut near, mut far) = (client(&here).await, client(&there).await);
    let mut watching = Watching(near.watch(only(follow(None))).await.unwrap().into_inner());
    watching.followed().await;
    for id in ["a", "b", "c"] {
        far.append(wire::AppendRequest { event: Some(event(id, 0)) }).await.unwrap();
    }
    near.append(wire::AppendRequest { event: Some(event("d", 0)) }).await.unwrap();
    let seen = watching.events(4).await;
    assert_eq!((ids(&seen), offsets(&seen)), (vec!["a", "b", "c", "d"], vec![1, 2, 3, 4]));
    // More than is read again: the watcher is told, and reads.
    let many = (0..1_001).map(|n| event(&n.to_string(), 0)).collect();
    far.append_many(wire::AppendManyRequest { events: many }).await.unwrap();
    near.append(wire::AppendRequest { event: Some(event("e", 0)) }).await.unwrap();
    let watch_reply::News::Heads(heads) = watching.next().await else { panic!("too much to come") };
    assert_eq!(heads.heads[0].offset, 1_006);
    drop((near, far, watching));
    here.stop().await;
    there.stop().await;
}
