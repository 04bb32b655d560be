//! The rule of a recurring schedule: which nominal times it has, and what becomes of those that were missed. Pure: what is kept of
//! a schedule is [`Recurring`], and when it is looked at is the driver's to say.
//!
//! A nominal time is an instant; it is made into an event or skipped, once. Its name on the wall clock is [`Recurrence::local`].

mod cron;
mod every;

use std::{fmt, str::FromStr, time::Duration};

use jiff::{
    Zoned,
    tz::{TimeZone, TimeZoneDatabase},
};
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

    pub fn at(now: Timestamp) -> Self {
        Self { missed_before: now - Self::GRACE, until: now }
    }
}

/// Events made by one call: one transaction.
pub const MAKE_MAX: usize = 1_000;

/// Times that one call skips: some milliseconds.
pub const SKIP_MAX: u64 = 10_000;

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

    /// What becomes of the times from `next` on that have come, `done` being made or skipped before it. Where nothing was missed, all
    /// of them are made. Of those that were missed, `fire_all` makes each, `skip` none, and `fire_last` only the newest of all that
    /// have come.
    pub fn catch_up(&self, next: Timestamp, done: u64, on_missed: OnMissed, look: Look) -> CatchUp {
        let mut up = CatchUp { next: Some(next), ..CatchUp::default() };
        let last_only = on_missed == OnMissed::FireLast && next < look.missed_before;
        while let Some(at) = up.next.filter(|at| *at <= look.until) {
            // What is not missed is few, and is looked at together with the last that was.
            if up.make.len() == MAKE_MAX || (up.skipped >= SKIP_MAX && at < look.missed_before) {
                break;
            }
            let made = u64::try_from(up.make.len()).expect("at most a thousand");
            up.next = self.next_after(at, done + made + up.skipped + 1);
            let skip = match on_missed {
                OnMissed::FireAll => false,
                OnMissed::FireLast => last_only && up.next.is_some_and(|next| next <= look.until),
                OnMissed::Skip => at < look.missed_before,
            };
            if skip {
                up.skipped += 1;
            } else {
                up.make.push(at);
            }
        }
        up
    }

    /// What the wall clock shows at a nominal time.
    pub fn local(&self, at: Timestamp) -> Zoned {
        let instant = jiff::Timestamp::from_microsecond(at.as_micros()).expect("a timestamp is one of jiff's");
        instant.to_zoned(self.zone.0.clone())
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
