//! Tries a transaction again that was chosen to give way (a deadlock, a busy file). The one place that does.

use std::{future::Future, time::Duration};

/// Giving way is rare, as locks are taken in one order; five in a row is another trouble, and the caller's to know.
const ATTEMPTS: u32 = 5;

/// Doubles with each attempt: 15 ms in all, well below every caller's deadline.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Every transaction of a store is idempotent or was rolled back whole, so it can begin anew. `gave_way` says whether an error
/// is that one ([`Error::GaveWay`](crate::Error::GaveWay)), and counts it.
pub async fn again<T, E, Fut>(transaction: impl Fn() -> Fut, gave_way: impl Fn(&E) -> bool) -> Result<T, E>
where
    Fut: Future<Output = Result<T, E>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match transaction().await {
            Err(error) if gave_way(&error) => {}
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
    use crate::Error;

    fn busy() -> Error {
        Error::GaveWay(sqlx::Error::PoolClosed)
    }

    fn gave_way(error: &Error) -> bool {
        matches!(error, Error::GaveWay(_))
    }

    #[tokio::test(start_paused = true)]
    async fn what_gave_way_is_tried_again() {
        let tried = AtomicU32::new(0);
        let twice = || async { if tried.fetch_add(1, Ordering::SeqCst) < 2 { Err(busy()) } else { Ok(7) } };
        assert_eq!(again(twice, gave_way).await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn but_not_for_ever_and_nothing_else_is() {
        let tried = AtomicU32::new(0);
        let count = || tried.fetch_add(1, Ordering::SeqCst);
        let outcome: Result<(), _> = again(
            || async {
                count();
                Err(busy())
            },
            gave_way,
        )
        .await;
        assert!(outcome.is_err());
        assert_eq!(tried.swap(0, Ordering::SeqCst), ATTEMPTS);
        let outcome: Result<(), _> = again(
            || async {
                count();
                Err(Error::Refused(sqlx::Error::RowNotFound))
            },
            gave_way,
        )
        .await;
        assert!(outcome.is_err());
        assert_eq!(tried.load(Ordering::SeqCst), 1);
    }
}
