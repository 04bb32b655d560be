//! What the black-box tests stand on: platforms to start and end, people, sockets, terminals. Nothing here knows our types:
//! a change of shape on the wire is to be seen.

mod cli;
mod http;
mod listener;
mod load;
mod platform;
mod process;
mod raw;
mod socket;

use std::{future::Future, time::Duration};

pub(crate) use cli::{Said, Terminal};
pub(crate) use http::{Answer, Api, Person, send, try_send};
pub(crate) use listener::{Listener, Way};
pub(crate) use load::Load;
pub(crate) use notifyx_database::testing::fixed_port;
pub(crate) use platform::{Form, Options, Platform, SERVICES, Timing, figure};
pub(crate) use process::{Process, notifyx};
pub(crate) use raw::{RawSocket, frame};
pub(crate) use socket::{Ending, Socket};

/// A name that no other test has.
pub(crate) fn unique(name: &str) -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("{name}-{}", &id[..12])
}

/// Runs each scenario against both forms of the platform, as tests of their own: `up::name` and `separate::name`.
macro_rules! in_both_forms {
    ($($scenario:ident),+ $(,)?) => {
        mod up {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                let platform = $crate::harness::Platform::shared($crate::harness::Form::Up).await;
                super::$scenario(&platform).await;
            })+
        }
        mod separate {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                let platform = $crate::harness::Platform::shared($crate::harness::Form::Separate).await;
                super::$scenario(&platform).await;
            })+
        }
    };
}
pub(crate) use in_both_forms;

/// Runs `count` things at once and gives their results in order.
pub(crate) async fn at_once<F: Future>(count: usize, make: impl Fn(usize) -> F) -> Vec<F::Output> {
    futures_util::future::join_all((0..count).map(make)).await
}

/// For what takes some milliseconds, on a machine that runs all tests at once.
const SOON: Duration = Duration::from_secs(60);

/// Asks until the answer is there: for what no door tells by itself, or whose telling is looked at elsewhere.
pub(crate) async fn until<T, Fut: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> Fut) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, asked).await.unwrap_or_else(|_| panic!("{what} does not come about"))
}
