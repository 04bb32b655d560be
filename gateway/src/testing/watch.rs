//! Hints of categories, as a test gives them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use notifyx_model::Category;
use notifyx_wire::grpc::events::Event;
use tokio::sync::broadcast;

use super::category;
use crate::feed::{Categories, Hint, Hints};

/// Hints of categories, as a test gives them.
pub(crate) struct FakeWatch {
    hints: broadcast::Sender<FakeHint>,
    followed: Arc<Mutex<BTreeSet<Category>>>,
}

impl FakeWatch {
    pub(super) fn new() -> Self {
        Self { hints: broadcast::Sender::new(1024), followed: Arc::default() }
    }

    pub(crate) fn tell(&self, hint: FakeHint) {
        let _ = self.hints.send(hint);
    }

    pub(crate) fn hints(&self) -> FakeHints {
        FakeHints { hints: self.hints.subscribe(), followed: self.followed.clone() }
    }

    /// What is followed now.
    pub(crate) fn followed(&self) -> Vec<Category> {
        self.followed.lock().unwrap().iter().cloned().collect()
    }
}

#[derive(Clone)]
pub(crate) enum FakeHint {
    Event(Arc<Event>),
    Head(Category, u64),
    /// Whoever takes it panics.
    Bug,
}

pub(crate) struct FakeHints {
    hints: broadcast::Receiver<FakeHint>,
    followed: Arc<Mutex<BTreeSet<Category>>>,
}

impl Hints<Categories> for FakeHints {
    async fn next(&mut self) -> Option<Hint<Categories>> {
        match self.hints.recv().await.ok()? {
            FakeHint::Event(event) => Some(Hint::Items(category(&event.category), vec![event])),
            FakeHint::Head(category, offset) => Some(Hint::Head(category, offset)),
            FakeHint::Bug => panic!("as the test wants it"),
        }
    }

    fn follow(&mut self, name: &Category) {
        assert!(self.followed.lock().unwrap().insert(name.clone()), "{name} is followed already");
    }

    fn unfollow(&mut self, name: &Category) {
        assert!(self.followed.lock().unwrap().remove(name), "{name} is not followed");
    }
}
