//! What is followed, and what each stream has yet to tell its instance of that.
//!
//! A change that is not told yet is one entry per category, whatever happens to it meanwhile: following never waits, and what waits is
//! bounded by what is followed.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{Stream, stream};
use notifyx_model::Category;
use notifyx_wire::grpc::events as wire;
use tokio::sync::Notify;

/// Categories of one message, as the events service allows.
const CHANGES_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Followed(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    categories: HashSet<Category>,
    streams: Vec<Untold>,
    /// The name of the next stream.
    next: u64,
}

/// What one stream has to tell: follow, or follow no more.
#[derive(Debug)]
struct Untold {
    stream: u64,
    changes: HashMap<Category, bool>,
    wake: Arc<Notify>,
}

impl Followed {
    pub(super) fn follow(&self, category: &Category) {
        let mut inner = self.inner();
        inner.categories.insert(category.clone());
        inner.tell(category, true);
    }

    pub(super) fn unfollow(&self, category: &Category) {
        let mut inner = self.inner();
        inner.categories.remove(category);
        inner.tell(category, false);
    }

    /// For a new stream: all that is followed, then each change.
    pub(super) fn changes(self: &Arc<Self>) -> Changes {
        let mut inner = self.inner();
        let stream = inner.next;
        inner.next += 1;
        let wake = Arc::new(Notify::new());
        let changes = inner.categories.iter().map(|category| (category.clone(), true)).collect();
        inner.streams.push(Untold { stream, changes, wake: wake.clone() });
        Changes { followed: self.clone(), stream, wake }
    }

    /// What this guards is whole at every step: a panic elsewhere leaves nothing half done.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell(&mut self, category: &Category, follow: bool) {
        for untold in &mut self.streams {
            untold.changes.insert(category.clone(), follow);
            untold.wake.notify_one();
        }
    }
}

/// What one stream says; it ends with it.
pub(super) struct Changes {
    followed: Arc<Followed>,
    stream: u64,
    wake: Arc<Notify>,
}

impl Changes {
    /// As the connection has room for them.
    pub(super) fn requests(self) -> impl Stream<Item = wire::WatchRequest> + Send + 'static {
        stream::unfold(self, async |changes| {
            let request = changes.next().await;
            Some((request, changes))
        })
    }

    async fn next(&self) -> wire::WatchRequest {
        loop {
            if let Some(changes) = self.take() {
                return request(changes);
            }
            self.wake.notified().await;
        }
    }

    fn take(&self) -> Option<HashMap<Category, bool>> {
        let mut inner = self.followed.inner();
        let untold = inner.streams.iter_mut().find(|untold| untold.stream == self.stream)?;
        if untold.changes.is_empty() {
            return None;
        }
        if untold.changes.len() <= CHANGES_MAX {
            return Some(mem::take(&mut untold.changes));
        }
        Some(untold.changes.extract_if(|_, _| true).take(CHANGES_MAX).collect())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.followed.inner().streams.retain(|untold| untold.stream != self.stream);
    }
}

fn request(changes: HashMap<Category, bool>) -> wire::WatchRequest {
    let mut request = wire::WatchRequest::default();
    for (category, follow) in changes {
        let category = String::from(category);
        if follow {
            // From now on: what was missed before is seen by the head that is answered.
            request.follow.push(wire::Follow { category, after: None });
        } else {
            request.unfollow.push(category);
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;
    use crate::testing::category;

    /// What a stream has to say now.
    fn told(requests: &mut (impl Stream<Item = wire::WatchRequest> + Unpin)) -> (Vec<String>, Vec<String>) {
        let request = requests.next().now_or_never().expect("it has something to say").unwrap();
        let mut follow: Vec<String> = request.follow.into_iter().map(|follow| follow.category).collect();
        follow.sort();
        (follow, request.unfollow)
    }

    #[test]
    fn a_new_stream_says_all_and_then_what_changes() {
        let followed = Arc::<Followed>::default();
        for name in ["a", "b", "c"] {
            followed.follow(&category(name));
        }
        followed.unfollow(&category("c"));
        let mut requests = Box::pin(followed.changes().requests());
        assert_eq!(told(&mut requests), (vec!["a".into(), "b".into()], vec![]));
        assert!(requests.next().now_or_never().is_none(), "nothing more to say");
        followed.unfollow(&category("a"));
        followed.follow(&category("d"));
        assert_eq!(told(&mut requests), (vec!["d".into()], vec!["a".into()]));
    }

    #[test]
    fn what_changes_back_before_it_is_told_is_told_once() {
        let followed = Arc::<Followed>::default();
        let mut requests = Box::pin(followed.changes().requests());
        for _ in 0..3 {
            followed.follow(&category("a"));
            followed.unfollow(&category("a"));
        }
        followed.follow(&category("a"));
        assert_eq!(told(&mut requests), (vec!["a".into()], vec![]));
    }

    #[test]
    fn much_is_said_in_several_messages_and_a_stream_that_ended_costs_nothing() {
        let followed = Arc::<Followed>::default();
        for number in 0..CHANGES_MAX + 5 {
            followed.follow(&category(&number.to_string()));
        }
        let mut requests = Box::pin(followed.changes().requests());
        let mut sizes = Vec::new();
        let mut names = HashSet::new();
        for _ in 0..2 {
            let (follow, _) = told(&mut requests);
            sizes.push(follow.len());
            names.extend(follow);
        }
        assert_eq!((sizes, names.len()), (vec![CHANGES_MAX, 5], CHANGES_MAX + 5));
        drop(requests);
        assert!(followed.inner().streams.is_empty());
    }
}
