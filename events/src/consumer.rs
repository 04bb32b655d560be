//! The consumer: who follows a category's log to its end, one holder at a time.
//!
//! Its position and its lease are kept, so that whoever takes it over goes on where the last one came to. What it has not passed is not
//! dropped, however old it is.

use std::{sync::Arc, time::Duration};

use notifyx_model::{Category, Invalid};

use crate::event::text_of;

/// What a consumer is called: 1 to [`ConsumerName::MAX_BYTES`] bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConsumerName(Arc<str>);

impl ConsumerName {
    /// A service's name, and what it does.
    pub const MAX_BYTES: usize = 128;

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text_of("consumer", text, Self::MAX_BYTES).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names an instance that takes a consumer, and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder(Arc<str>);

impl Holder {
    /// A UUID with a word before it.
    pub const MAX_BYTES: usize = 128;

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text_of("holder", text, Self::MAX_BYTES).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    pub name: ConsumerName,
    pub category: Category,
    /// Up to here all is done.
    pub position: u64,
    /// The category's last offset.
    pub head: u64,
    /// Whose it is, or was last; empty: nobody's yet.
    pub holder: String,
    /// Counts the changes of the holder.
    pub term: u64,
    /// Until the lease ends; zero: it is free.
    pub left: Duration,
}
