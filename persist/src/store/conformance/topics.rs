//! Topics.

use notifyx_wire::rest::persist::TopicStatus;

use super::{Fixture, MIGRATIONS, name, open};
use crate::Error;

notifyx_database::conformance!(open, &MIGRATIONS;
    a_name_is_taken_once, a_creator_has_a_bound, topics_are_listed_by_id, a_status_is_kept, heads_leave_out_unknown_names);

async fn a_name_is_taken_once(f: Fixture) {
    let (ann, bob) = (f.user(), f.user());
    let mut creation = f.creation("billing", ann);
    creation.longevity = Some(3600);
    let topic = f.store.create_topic(&creation, 10).await.unwrap();
    assert_eq!((topic.creator_id, topic.longevity, topic.offset), (ann, Some(3600), 0));
    assert_eq!(f.store.find_topic(topic.id).await.unwrap(), Some(topic.clone()));
    assert_eq!(f.store.find_topic_named(&name("billing")).await.unwrap(), Some(topic));
    let taken = f.store.create_topic(&f.creation("billing", bob), 10).await;
    assert!(matches!(taken, Err(Error::NameTaken(_))), "{taken:?}");
    assert_eq!(f.store.find_topic_named(&name("Billing")).await.unwrap(), None);
}

async fn a_creator_has_a_bound(f: Fixture) {
    let (ann, bob) = (f.user(), f.user());
    f.store.create_topic(&f.creation("a", ann), 1).await.unwrap();
    let refused = f.store.create_topic(&f.creation("b", ann), 1).await;
    assert!(matches!(refused, Err(Error::TooManyTopics(1))), "{refused:?}");
    f.store.create_topic(&f.creation("b", bob), 1).await.unwrap();
}

async fn topics_are_listed_by_id(f: Fixture) {
    let ann = f.user();
    let mut ids = Vec::new();
    for i in 0..5 {
        ids.push(f.topic(&format!("t{i}"), ann).await);
    }
    ids.sort();
    let first = f.store.list_topics(None, 3).await.unwrap();
    assert_eq!(first.iter().map(|topic| topic.id).collect::<Vec<_>>(), ids[..3]);
    let rest = f.store.list_topics(Some(ids[2]), 10).await.unwrap();
    assert_eq!(rest.iter().map(|topic| topic.id).collect::<Vec<_>>(), ids[3..]);
}

async fn a_status_is_kept(f: Fixture) {
    let ann = f.user();
    let id = f.topic("a", ann).await;
    let topic = f.store.set_topic_status(id, TopicStatus::Inactive).await.unwrap().unwrap();
    assert_eq!(topic.status, TopicStatus::Inactive);
    assert_eq!(f.store.gates(&[id]).await.unwrap()[0].status, TopicStatus::Inactive);
    let unknown = notifyx_model::TopicId::new(&f.clock);
    assert_eq!(f.store.set_topic_status(unknown, TopicStatus::Active).await.unwrap(), None);
}

async fn heads_leave_out_unknown_names(f: Fixture) {
    let ann = f.user();
    let id = f.topic("a'\"\u{1F600}", ann).await;
    f.publish(id, ann, &[]).await;
    f.publish(id, ann, &[ann]).await;
    let heads = f.store.heads(&[name("nowhere"), name("a'\"\u{1F600}")]).await.unwrap();
    assert_eq!(heads.len(), 1);
    assert_eq!((heads[0].topic_id, heads[0].offset, heads[0].broadcast_no, heads[0].trimmed), (id, 2, 1, 0));
}
