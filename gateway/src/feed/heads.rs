//! The look at the heads: where the followed streams stand in the store, whoever committed to them. It also tells where the store was put
//! back to an older state: such a stream is begun anew.

use std::collections::HashSet;

use notifyx_wire::{rest::Problem, trace::TraceContext};

use super::{Feed, Followed, GAP_WAIT, Hints, Source};

/// What a look at the heads brought.
pub(super) struct Looked<S: Source> {
    heads: Vec<(S::Name, u64)>,
    failed: Option<Problem>,
}

impl<S: Source, H: Hints<S>> Feed<S, H> {
    /// Asks where all followed streams stand, unless the last look is still on its way.
    pub(super) fn look(&mut self) {
        if !self.looks.is_empty() {
            return;
        }
        let started = self.streams.iter_mut().filter(|(_, followed)| followed.order.is_started());
        let look = |(name, followed): (&S::Name, &mut Followed<S>)| {
            followed.order.look_begins();
            name.clone()
        };
        let names: Vec<S::Name> = started.map(look).collect();
        if names.is_empty() {
            return;
        }
        let platform = self.platform.clone();
        self.looks.spawn(TraceContext::begin().scope(async move {
            let mut looked = Looked { heads: Vec::with_capacity(names.len()), failed: None };
            for chunk in names.chunks(S::HEADS_MAX) {
                match S::heads(platform.clone(), chunk.to_vec()).await {
                    Ok(some) => looked.heads.extend(with_unknown::<S>(chunk, some)),
                    Err(problem) => looked.failed = Some(problem),
                }
            }
            looked
        }));
    }

    pub(super) async fn looked(&mut self, looked: Looked<S>) {
        match &looked.failed {
            Some(problem) => {
                self.metrics.failures.inc();
                if !self.blind {
                    tracing::warn!(
                        "the heads of {} cannot be read, what no hint tells of waits: {}",
                        S::KIND,
                        problem.detail
                    );
                }
            }
            None if self.blind => tracing::info!("the heads of {} are read again", S::KIND),
            None => {}
        }
        self.blind = looked.failed.is_some();
        for (name, offset) in looked.heads {
            self.heard(&name, offset, GAP_WAIT);
            let followed = self.streams.get_mut(&name);
            if followed.is_some_and(|followed| followed.order.is_put_back(offset)) {
                let stream = S::stream(&name);
                tracing::error!(
                    %stream,
                    "the log of {stream} ends at {offset}, before what was delivered: it was put back to an older state, and \
                     who listens begins anew"
                );
                self.begin_anew(&name).await;
            }
        }
    }
}

/// A stream that the store does not know, though it is followed, stands at 0: it was put back to before the stream's beginning.
fn with_unknown<S: Source>(asked: &[S::Name], mut heads: Vec<(S::Name, u64)>) -> Vec<(S::Name, u64)> {
    if heads.len() < asked.len() {
        let known: HashSet<&S::Name> = heads.iter().map(|(name, _)| name).collect();
        let unknown: Vec<_> = asked.iter().filter(|name| !known.contains(name)).map(|name| (name.clone(), 0)).collect();
        heads.extend(unknown);
    }
    heads
}
