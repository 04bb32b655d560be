//! Consumers: who reads a category for others, and how far it came.

use notifyx_wire::grpc::events as wire;
use tonic::Code;

use super::{SECOND_US, code, open};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_is_taken_moved_and_given_back() {
    let mut service = open().await;
    service.append((0..5).map(|n| n.to_string())).await;
    let acquire = |holder: &str, lease_us| wire::AcquireRequest {
        consumer: "mailer".into(),
        category: "orders".into(),
        holder: holder.into(),
        lease_us,
    };
    let taken = service.consumers.acquire(acquire("ann", 60 * SECOND_US)).await.unwrap().into_inner();
    assert_eq!((taken.holder.as_str(), taken.epoch, taken.position, taken.head), ("ann", 1, 0, 5));
    assert!(taken.left_us > 0 && taken.left_us <= 60 * SECOND_US);
    let other = service.consumers.acquire(acquire("bob", SECOND_US)).await.unwrap().into_inner();
    assert_eq!((other.holder.as_str(), other.epoch), ("ann", 1), "another's is no error");

    let commit = |consumer: &str, epoch, position| wire::CommitRequest { consumer: consumer.into(), epoch, position };
    let moved = service.consumers.commit(commit("mailer", 1, 3)).await.unwrap().into_inner();
    assert_eq!((moved.position, moved.head), (3, 5));
    let release = wire::ReleaseRequest { consumer: "mailer".into(), epoch: 1 };
    assert_eq!(service.consumers.release(release).await.unwrap().into_inner().left_us, 0);
    let next = service.consumers.acquire(acquire("bob", SECOND_US)).await.unwrap().into_inner();
    assert_eq!((next.holder.as_str(), next.epoch, next.position), ("bob", 2, 3));

    for (bad, refused) in [
        (commit("mailer", 1, 4), (Code::FailedPrecondition, "consumer_lost")),
        (commit("mailer", 2, 6), (Code::InvalidArgument, "event_invalid")),
        (commit("nobody", 1, 1), (Code::NotFound, "consumer_not_found")),
        (commit("", 1, 1), (Code::InvalidArgument, "event_invalid")),
    ] {
        let status = service.consumers.commit(bad).await.unwrap_err();
        assert_eq!(code(&status), (refused.0, refused.1.into()));
    }
    for (bad, refused) in [
        (acquire("ann", 0), (Code::InvalidArgument, "event_invalid")),
        (acquire("ann", -1), (Code::InvalidArgument, "event_invalid")),
        (acquire("", SECOND_US), (Code::InvalidArgument, "event_invalid")),
        (
            wire::AcquireRequest { category: "b".into(), ..acquire("a", SECOND_US) },
            (Code::FailedPrecondition, "consumer_elsewhere"),
        ),
    ] {
        let status = service.consumers.acquire(bad).await.unwrap_err();
        assert_eq!(code(&status), (refused.0, refused.1.into()));
    }
    service.stop().await;
}
