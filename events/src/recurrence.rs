//! The rule of a recurring schedule: which nominal times it has, and what becomes of those that were missed. Pure: what is kept of
//! a schedule is [`Recurring`], and when it is looked at is the driver's to say.
//!
//! A nominal time is an instant; it is made into an event or skipped, once.

mod cron;
mod every;

use std::{collections::VecDeque, fmt, str::FromStr, time::Duration};

use jiff::tz::{TimeZone, TimeZoneDatabase};
use notifyx_model::{Invalid, Timestamp};

pub use self::{cron::Cron, every::Every};
use crate::recurring::{OnMissed, Recurring};

/// What repeats. As text, `every 15m` or `cron 0 9 * * MON-FRI`: so it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    Every(Every),
    Cron(Cron),
}

impl FromStr for Rule {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.split_once(' ') {
            Some(("every", every)) => Every::parse(every).map(Self::Every),
            Some(("cron", cron)) => Cron::parse(cron).map(Self::Cron),
            _ => Err(Invalid::new("rule", "begins with neither `every ` nor `cron `")),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(every) => write!(f, "every {every}"),
            Self::Cron(cron) => write!(f, "cron {cron}"),
        }
    }
}

/// An IANA time zone, as the binary knows it: every instance counts alike, whatever its machine has installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        let found = TimeZoneDatabase::bundled().get(name).ok().filter(|_| name.len() <= 64);
        found.map(Self).ok_or_else(|| {
            let shown: String = name.chars().take(64).filter(|c| !c.is_control()).collect();
            Invalid::new("time zone", format!("`{shown}` is not an IANA time zone, such as Europe/Berlin or UTC"))
        })
    }

    /// As the database spells it.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }
}

/// When a schedule begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    pub created_at: Timestamp,
    /// The first possible time, and what `every` counts from. Without it, `every` counts from the creation, and its first time is one
    /// span later. Times before the creation are never made.
    pub start: Option<Timestamp>,
    /// The last possible time.
    pub end: Option<Timestamp>,
    /// Nominal times in all, the skipped ones too.
    pub count: Option<u64>,
}

/// A rule with its zone and its term, which comes at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recurrence {
    rule: Rule,
    zone: Zone,
    term: Term,
}

/// What is to be done about the times that have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatchUp {
    /// Nominal times to make into events, oldest first.
    pub make: Vec<Timestamp>,
    pub skipped: u64,
    /// The next nominal time that is neither made nor skipped. If it has come too, there was more than one call looks at:
    /// keep this, and call again. `None`: the schedule has ended.
    pub next: Option<Timestamp>,
}

/// Which times have come, and which of them are late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Times before it were missed.
    pub missed_before: Timestamp,
    /// Times up to it are to be made: now, or a little ahead.
    pub until: Timestamp,
}

impl Look {
    /// A pause of the machine or a slow commit is nobody's downtime.
    pub const GRACE: Duration = Duration::from_secs(5);

    /// So far ahead. `busy`: for how long whoever makes events of them could not look, being at work: what came meanwhile is late, but
    /// somebody was there.
    pub fn new(now: Timestamp, ahead: Duration, busy: Duration) -> Self {
        Self { missed_before: now - busy.max(Self::GRACE), until: now + ahead }
    }
}

/// Events made by one call: one transaction.
pub const MAKE_MAX: usize = 1_000;

/// Times of a pattern that one call skips: a tenth of a second.
pub const SKIP_MAX: u64 = 10_000;

/// Of what was missed, so many fire at most, the newest: a week of a time each minute, and some seconds of firing.
pub const MISSED_MAX: u64 = 10_000;

const INSTANT: Duration = Duration::from_micros(1);

impl Recurrence {
    pub fn new(rule: Rule, zone: Zone, term: Term) -> Result<Self, Invalid> {
        let recurrence = Self { rule, zone, term };
        if term.count == Some(0) {
            return Err(Invalid::new("count", "is 0: at least 1, or none for no end"));
        }
        match (recurrence.rule_after(recurrence.begin()), term.end) {
            (None, _) => Err(match &recurrence.rule {
                Rule::Every(every) => Invalid::new("every", format!("`{every}` has no time before the year 9999")),
                Rule::Cron(cron) => Invalid::new("cron", format!("`{cron}` never comes")),
            }),
            (Some(first), Some(end)) if first > end => {
                Err(Invalid::new("end", format!("is {end}, before the first time ({first})")))
            }
            _ => Ok(recurrence),
        }
    }

    /// As it is kept.
    pub fn of(recurring: &Recurring) -> Result<Self, Invalid> {
        let term = Term {
            created_at: recurring.created_at,
            start: recurring.start_at,
            end: recurring.end_at,
            count: recurring.count,
        };
        Self::new(recurring.rule.parse()?, Zone::parse(&recurring.zone)?, term)
    }

    /// The first nominal time of all.
    pub fn first(&self) -> Timestamp {
        self.rule_after(self.begin()).expect("a recurrence comes at least once")
    }

    /// The nominal time after another, `done` of them being made or skipped; `None`: that was the last.
    pub fn next_after(&self, last: Timestamp, done: u64) -> Option<Timestamp> {
        if self.term.count.is_some_and(|count| done >= count) {
            return None;
        }
        let next = self.rule_after(last.max(self.begin()))?;
        self.term.end.is_none_or(|end| next <= end).then_some(next)
    }

    /// What becomes of the times from `next` on that have come, `done` being made or skipped before it. Those that were not missed are
    /// made. Of those that were, `fire_all` makes the newest [`MISSED_MAX`], `fire_last` the newest, and `skip` none.
    pub fn catch_up(&self, next: Timestamp, done: u64, on_missed: OnMissed, look: Look) -> CatchUp {
        let keep = match on_missed {
            OnMissed::FireAll => MISSED_MAX,
            OnMissed::FireLast => 1,
            OnMissed::Skip => 0,
        };
        let (skipped, mut next, goes_on) = self.skip(next, done, look.missed_before, keep);
        let (mut make, mut done) = (Vec::new(), done + skipped);
        while let Some(at) = next.filter(|at| *at <= look.until && !goes_on) {
            if make.len() == MAKE_MAX {
                break;
            }
            make.push(at);
            done += 1;
            next = self.next_after(at, done);
        }
        CatchUp { make, skipped, next }
    }

    /// Skips times from `next` on until of those before a time only `keep` are left. How many, which is next then, and whether there are
    /// more to skip than one call does.
    fn skip(&self, next: Timestamp, done: u64, before: Timestamp, keep: u64) -> (u64, Option<Timestamp>, bool) {
        // Times lie a second apart at least.
        if before.since(next) <= Duration::from_secs(keep) {
            return (0, Some(next), false);
        }
        match &self.rule {
            Rule::Every(every) => {
                let left = self.term.count.map_or(u64::MAX, |count| count.saturating_sub(done));
                let before = self.term.end.map_or(before, |end| before.min(end + INSTANT));
                let skipped = every.count(next, before).min(left).saturating_sub(keep);
                let next = match skipped.checked_sub(1) {
                    Some(last) => self.next_after(every.later(next, last), done + skipped),
                    None => Some(next),
                };
                (skipped, next, false)
            }
            Rule::Cron(_) => {
                // The newest so far.
                let (mut kept, mut skipped, mut at) = (VecDeque::new(), 0, Some(next));
                while let Some(time) = at.filter(|at| *at < before && skipped < SKIP_MAX) {
                    kept.push_back(time);
                    let looked_at = skipped + kept.len() as u64;
                    if kept.len() as u64 > keep {
                        kept.pop_front();
                        skipped += 1;
                    }
                    at = self.next_after(time, done + looked_at);
                }
                let goes_on = at.is_some_and(|at| at < before);
                (skipped, kept.front().copied().or(at), goes_on)
            }
        }
    }

    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// What the first nominal time is after.
    fn begin(&self) -> Timestamp {
        match self.term.start {
            Some(start) => start.max(self.term.created_at) - INSTANT,
            None => self.term.created_at,
        }
    }

    fn rule_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every(every) => {
                let next = every.next_after(self.term.start.unwrap_or(self.term.created_at), after);
                // At the end of time it stands still.
                Some(next).filter(|next| *next > after)
            }
            Rule::Cron(cron) => cron.next_after(&self.zone.0, after),
        }
    }
}

#[cfg(test)]
mod tests;
