//! Tries a transaction again that was chosen to give way (a deadlock, a busy file). The one place that does.

use std::{future::Future, time::Duration};

use crate::{Error, metrics::Metrics};

/// Giving way is rare, as locks are taken in one order; five in a row is another trouble, and the caller's to know.
const ATTEMPTS: u32 = 5;

/// Doubles with each attempt: 31 ms in all, well below every caller's deadline.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Every transaction of the store is idempotent or was rolled back whole, so it can begin anew.
pub(crate) async fn again<T, Fut>(metrics: &Metrics, transaction: impl Fn() -> Fut) -> Result<T, Error>
where
    Fut: Future<Output = Result<T, Error>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match transaction().await {
            Err(Error::Database(notifyx_database::Error::GaveWay(_))) => metrics.gave_way(),
            outcome => return outcome,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    transaction().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn gave_way() -> Error {
        Error::Database(notifyx_database::Error::GaveWay(sqlx::Error::PoolClosed))
    }

    #[tokio::test(start_paused = true)]
    async fn what_gave_way_is_tried_again() {
        let (metrics, tried) = (Metrics::new(&prometheus::Registry::new()), AtomicU32::new(0));
        let outcome = again(&metrics, || async {
            if tried.fetch_add(1, Ordering::SeqCst) < 2 { Err(gave_way()) } else { Ok(7) }
        });
        assert_eq!(outcome.await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn but_not_for_ever_and_nothing_else_is() {
        let (metrics, tried) = (Metrics::new(&prometheus::Registry::new()), AtomicU32::new(0));
        let count = || tried.fetch_add(1, Ordering::SeqCst);
        let outcome: Result<(), _> = again(&metrics, || async {
            count();
            Err(gave_way())
        })
        .await;
        assert!(outcome.is_err());
        assert_eq!(tried.swap(0, Ordering::SeqCst), ATTEMPTS);
        let outcome: Result<(), _> = again(&metrics, || async {
            count();
            Err(Error::TooManyTopics(1))
        })
        .await;
        assert!(outcome.is_err());
        assert_eq!(tried.load(Ordering::SeqCst), 1);
    }
}
