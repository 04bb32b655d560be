//! Where fault tests reach in: a named point before and after every durable write of a participant; and what every participant
//! must answer [`by_hand`]. Only with the feature `testing`.
//!
//! The services wrap their stores with it, method by method, so that a write without a point cannot be added unnoticed.

pub mod by_hand;

use std::fmt;

use async_trait::async_trait;

/// What happens at the points. A point is named after its service and its write: `persist.prepare`, `counter.forget`.
#[async_trait]
pub trait Points: Send + Sync + 'static {
    /// Before the write. `Err`: it is not made. Never returning is a crash, or a lost call.
    async fn before(&self, point: &'static str) -> Result<(), Injected>;

    /// After it; `wrote` where it found something to write. `Err`: it was made, and its caller is told that it failed.
    async fn after(&self, point: &'static str, wrote: bool) -> Result<(), Injected>;

    /// Kept while the database works, for a read without a point: a test's clock stands still meanwhile.
    fn working(&self, point: Option<&'static str>) -> Box<dyn Send>;
}

/// A failure that a test wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fault test wished this to fail")]
pub struct Injected;

impl fmt::Debug for dyn Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Points")
    }
}

/// A durable write between its two points.
pub async fn write<T, E: From<Injected>>(
    points: &dyn Points,
    point: &'static str,
    wrote: impl FnOnce(&T) -> bool,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    points.before(point).await?;
    let done = {
        let _working = points.working(Some(point));
        call.await?
    };
    points.after(point, wrote(&done)).await?;
    Ok(done)
}

/// A read: no point, but work of the database all the same.
pub async fn read<T>(points: &dyn Points, call: impl Future<Output = T>) -> T {
    let _working = points.working(None);
    call.await
}
