//! A stream: what it is called, and its members on one worker thread.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
};

use notifyx_model::{Category, TopicName};
use slab::Slab;
use tokio::time::Instant;

use super::{
    outlet::{Audience, Ending},
    run::Run,
    watch::Watcher,
};

/// What a stream is called. A topic and a category of one name are two streams.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StreamName {
    /// Notifications, of which persist has the log.
    Topic(TopicName),
    /// Events, of which the events service has the log.
    Category(Category),
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic `{name}`"),
            Self::Category(name) => write!(f, "category `{name}`"),
        }
    }
}

/// What is kept for a member that is still reading what it missed. Beyond it the member reads on in the store.
const BACKLOG_BYTES_MAX: usize = 128 * 1024;
const BACKLOG_FRAMES_MAX: usize = 512;

pub(crate) struct Stream {
    pub(crate) name: StreamName,
    pub(super) members: RefCell<Slab<Member>>,
    pub(super) watchers: RefCell<Slab<Watcher>>,
    /// The last offset handed to the members.
    handed: Cell<u64>,
    /// The feed has said from where on it delivers. That something was handed over does not say it: what the feed sent before
    /// it let go of a stream may arrive when somebody has entered it anew.
    begun: Cell<bool>,
    /// How often it was begun anew.
    beginnings: Cell<u64>,
    /// Since when nobody has been here.
    pub(super) vacant_since: Cell<Option<Instant>>,
}

impl Stream {
    pub(super) fn new(name: StreamName) -> Self {
        Self {
            name,
            members: RefCell::default(),
            watchers: RefCell::default(),
            handed: Cell::new(0),
            begun: Cell::new(false),
            beginnings: Cell::new(0),
            vacant_since: Cell::new(None),
        }
    }

    /// Who enters now gets all above this offset; `None` where the feed must be asked.
    pub(crate) fn covered(&self) -> Option<u64> {
        self.begun.get().then(|| self.handed.get())
    }

    pub(super) fn handed(&self) -> u64 {
        self.handed.get()
    }

    pub(super) fn hands_up_to(&self, offset: u64) {
        self.handed.set(self.handed.get().max(offset));
    }

    /// The feed delivers all from `first` on.
    pub(super) fn feed_begins(&self, first: u64) {
        self.hands_up_to(first.saturating_sub(1));
        self.begun.set(true);
    }

    /// Where it stands must be asked anew. Who is live is ended; who still reads what it missed finds out when it is to turn live;
    /// who watches asks again by itself.
    pub(super) fn begins_anew(&self) {
        self.begun.set(false);
        self.handed.set(0);
        self.beginnings.set(self.beginnings.get() + 1);
        for (_, member) in self.members.borrow().iter() {
            if let Stage::Live { .. } = member.stage {
                member.audience.outlet().end(Ending::Unavailable);
            }
        }
        if let StreamName::Topic(topic) = &self.name {
            self.watchers.borrow_mut().drain().for_each(|watcher| watcher.watch_anew(topic));
        }
    }

    pub(super) fn beginnings(&self) -> u64 {
        self.beginnings.get()
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.members.borrow().is_empty() && self.watchers.borrow().is_empty()
    }
}

pub(super) struct Member {
    audience: Rc<dyn Audience>,
    stage: Stage,
}

enum Stage {
    /// Reads what it missed; what comes meanwhile waits.
    Catching(Box<Backlog>),
    /// Gets all above `after` as it comes.
    Live { after: u64 },
}

#[derive(Default)]
struct Backlog {
    runs: Vec<Rc<Run>>,
    bytes: usize,
    frames: usize,
    overflowed: bool,
}

/// More came than is kept: what is missing must be read from the store.
#[derive(Debug)]
pub(crate) struct Overflowed;

impl Member {
    pub(super) fn new(audience: Rc<dyn Audience>) -> Self {
        Self { audience, stage: Stage::Catching(Box::default()) }
    }

    /// Answers how many messages were sent.
    pub(super) fn deliver(&mut self, run: &Rc<Run>) -> usize {
        match &mut self.stage {
            Stage::Live { after } => self.audience.deliver(run, *after),
            Stage::Catching(backlog) => {
                backlog.keep(run);
                0
            }
        }
    }

    /// Sends what waited above `after`, and from now on everything as it comes. After an overflow nothing is sent and
    /// the member begins to keep anew.
    pub(super) fn go_live(&mut self, after: u64) -> Result<usize, Overflowed> {
        let Stage::Catching(backlog) = &mut self.stage else { return Ok(0) };
        let backlog = std::mem::take(&mut **backlog);
        if backlog.overflowed {
            return Err(Overflowed);
        }
        let last = backlog.runs.last().map_or(after, |run| run.last().max(after));
        let sent = backlog.runs.iter().map(|run| self.audience.deliver(run, after)).sum();
        self.stage = Stage::Live { after: last };
        Ok(sent)
    }
}

impl Backlog {
    fn keep(&mut self, run: &Rc<Run>) {
        if self.overflowed {
            return;
        }
        self.bytes += run.bytes();
        self.frames += run.frames();
        if self.bytes > BACKLOG_BYTES_MAX || self.frames > BACKLOG_FRAMES_MAX {
            *self = Self { overflowed: true, ..Self::default() };
        } else {
            self.runs.push(run.clone());
        }
    }
}
