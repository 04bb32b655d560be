//! A transaction that gave way is counted, and tried again.

use std::future::Future;

use crate::{Error, metrics::Metrics};

pub(crate) async fn again<T, Fut>(metrics: &Metrics, transaction: impl Fn() -> Fut) -> Result<T, Error>
where
    Fut: Future<Output = Result<T, Error>>,
{
    let gave_way = |error: &Error| {
        let it_did = matches!(error, Error::Database(notifyx_database::Error::GaveWay(_)));
        if it_did {
            metrics.transactions.gave_way();
        }
        it_did
    };
    notifyx_database::again(transaction, gave_way).await
}
