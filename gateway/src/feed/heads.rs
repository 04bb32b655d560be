//! The look at the heads: where the followed streams stand in the store, whoever committed to them.

use notifyx_wire::{rest::Problem, trace::TraceContext};

use super::{Feed, GAP_WAIT, Hints, Source};

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
        let names: Vec<S::Name> =
            self.streams.iter().filter(|(_, f)| f.order.is_started()).map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return;
        }
        let platform = self.platform.clone();
        self.looks.spawn(TraceContext::begin().scope(async move {
            let mut looked = Looked { heads: Vec::with_capacity(names.len()), failed: None };
            for chunk in names.chunks(S::HEADS_MAX) {
                match S::heads(platform.clone(), chunk.to_vec()).await {
                    Ok(some) => looked.heads.extend(some),
                    Err(problem) => looked.failed = Some(problem),
                }
            }
            looked
        }));
    }

    pub(super) fn looked(&mut self, looked: Looked<S>) {
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
        }
    }
}
