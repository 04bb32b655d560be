//! The storm: random faults from a seed, round after round, upon the members of a platform. What was done to whom, and when, is
//! remembered: a run that fails tells it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex as Memory},
    time::Duration,
};

use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    member::Member,
    plan::{Fault, Nature, Plan},
};

/// A storm that has not got where it should after so long hangs: ten times what a run takes on a busy machine, per 1,000 items.
pub(crate) const HANGS_AFTER: Duration = Duration::from_secs(900);

pub(crate) struct Storm {
    seed: u64,
    members: Vec<Arc<Mutex<Member>>>,
    began: Instant,
    history: Memory<Vec<String>>,
}

/// Faults by kind, for the figures.
pub(crate) type Faults = BTreeMap<&'static str, usize>;

impl Storm {
    pub(crate) fn new(seed: u64, members: impl IntoIterator<Item = Member>) -> Self {
        let members = members.into_iter().map(|member| Arc::new(Mutex::new(member))).collect();
        Self { seed, members, began: Instant::now(), history: Memory::default() }
    }

    /// Strikes until `size` of something is `done` and so many `rounds` have passed; everybody struck is there again at the end.
    pub(crate) async fn rage(&self, rounds: usize, size: usize, done: impl Fn() -> usize) -> Faults {
        let mut natures = Vec::new();
        for member in &self.members {
            natures.push(member.lock().await.nature());
        }
        let hangs_at = Instant::now() + HANGS_AFTER.mul_f64(1.0 + size as f64 / 1_000.0);
        let mut faults = Faults::new();
        let mut suffering = JoinSet::new();
        for (number, round) in Plan::new(self.seed, natures.clone()).enumerate() {
            let done = done();
            if number >= rounds && done >= size {
                break;
            }
            assert!(Instant::now() < hangs_at, "only {done} of {size} are done after {number} rounds");
            sleep(round.after).await;
            for (victim, fault) in round.strikes {
                // Whoever suffers already is left alone.
                let Ok(mut member) = self.members[victim].clone().try_lock_owned() else { continue };
                self.note(&format!("{done:6} done, {}: {fault:?}", member.name()));
                *faults.entry(kind(natures[victim], fault)).or_default() += 1;
                suffering.spawn(async move {
                    member.suffer(fault).await;
                    member.name().to_owned()
                });
            }
            while let Some(ended) = suffering.try_join_next() {
                self.note(&format!("{} is there again", ended.expect("a member is there again")));
            }
        }
        for name in suffering.join_all().await {
            self.note(&format!("{name} is there again"));
        }
        faults
    }

    /// Seconds since it began, in which its history is told.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    fn note(&self, what: &str) {
        let line = format!("{:6.1} s {what}", self.began.elapsed().as_secs_f64());
        eprintln!("{line}");
        self.history.lock().unwrap().push(line);
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for member in &self.members {
                if let Ok(member) = member.try_lock() {
                    eprintln!("{}", member.log());
                }
            }
            let history = self.history.lock().map(|history| history.join("\n")).unwrap_or_default();
            eprintln!("NOTIFYX_CHAOS_SEED={}\n{history}", self.seed);
        }
    }
}

fn kind(victim: Nature, fault: Fault) -> &'static str {
    match (victim, fault) {
        (Nature::Postgres, _) => "postgres",
        (Nature::Process, Fault::Kill { .. }) => "kill",
        (Nature::Process, Fault::Pause { .. }) => "pause",
    }
}
