//! What the feed has to know of a kind of stream: its names, its messages, and the store that has all of them.

use std::{fmt::Display, hash::Hash, sync::Arc};

use notifyx_model::UserId;
use notifyx_wire::rest::Problem;

use crate::{
    hub::{Dispatch, FeedMetrics, Following, Metrics, StreamName, Wishes},
    platform::Platform,
};

/// Where the streams of one kind come from.
pub(crate) trait Source: Sized + 'static {
    type Name: Clone + Eq + Hash + Ord + Display + Send + Sync + 'static;
    /// What the store calls a stream, where that is not its name.
    type Id: Copy + Send + Sync + 'static;
    type Item: Item;

    /// Many of them, in a word.
    const KIND: &'static str;
    /// Messages per read of a gap.
    const READ_MAX: u32;
    /// Streams per look at their heads.
    const HEADS_MAX: usize;

    fn stream(name: &Self::Name) -> StreamName;

    fn wishes(following: &Following) -> &Wishes<Self::Name, Self::Id>;

    fn metrics(metrics: &Metrics) -> &FeedMetrics;

    /// What comes after an offset, in order and without gaps.
    fn read(
        platform: Arc<dyn Platform>,
        name: Self::Name,
        id: Self::Id,
        after: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Page<Self::Item>, Problem>> + Send;

    /// Where streams stand; one that the store does not know is left out.
    fn heads(
        platform: Arc<dyn Platform>,
        names: Vec<Self::Name>,
    ) -> impl Future<Output = Result<Vec<(Self::Name, u64)>, Problem>> + Send;

    /// As it goes out to all sockets.
    fn encode(name: &Self::Name, item: Arc<Self::Item>) -> Dispatch;

    /// Whether a member gets it.
    fn is_for(item: &Self::Item, user: Option<UserId>) -> bool;
}

/// A message of a stream, as its store keeps it.
pub(crate) trait Item: Send + Sync + 'static {
    /// Its place in the stream: 1, 2, 3 … without gaps.
    fn offset(&self) -> u64;

    /// What it holds, about.
    fn bytes(&self) -> usize;
}

/// Part of a stream's log.
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Where the stream stands.
    pub(crate) head: u64,
    /// All up to here is gone.
    pub(crate) trimmed: u64,
}

/// What makes the feed quick. A hint may be lost: the store has what it told of.
pub(crate) trait Hints<S: Source>: Send + 'static {
    /// `None`: none will come any more. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<Hint<S>>> + Send;

    /// Somebody on this node wants the stream.
    fn follow(&mut self, name: &S::Name);

    /// Nobody does any more.
    fn unfollow(&mut self, name: &S::Name);
}

pub(crate) enum Hint<S: Source> {
    /// Came into the log, each with its offset.
    Items(S::Name, Vec<Arc<S::Item>>),
    /// The stream has come this far, and no hint will tell of what lies below.
    Head(S::Name, u64),
}
