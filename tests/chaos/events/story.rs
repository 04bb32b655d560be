//! What was asked about one thing that is to happen at its time, and what was answered. From that follows what may have become of it.
//!
//! Whoever got no answer cannot know whether what was asked for is done, or when: a gateway that was stopped may do it later.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use serde_json::Value;

/// An event, by its category and number; a notification, by its topic and key.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) place: String,
    pub(crate) name: String,
    told: Vec<Told>,
}

/// An order and its answer.
#[derive(Debug)]
struct Told {
    at_us: i64,
    act: Act,
    answer: Answer,
    /// The gateway that was asked.
    door: String,
}

/// What was asked for; times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Give(i64),
    Move(i64),
    Cancel,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// Too late: it has happened.
    Late,
    /// There is no such thing.
    Gone,
    /// Said to be not done.
    Untaken(String),
    /// Perhaps done, perhaps not, perhaps later.
    Unknown(String),
    /// What no client can expect.
    Odd(String),
}

/// That it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Happened {
    /// The time that it had; `None` where that is not told.
    pub(crate) due_us: Option<i64>,
    pub(crate) at_us: i64,
}

impl Answer {
    pub(crate) fn of(status: u16, problem: &Value) -> Self {
        let code = problem["code"].as_str().unwrap_or_default();
        let said = || format!("{status} {code}");
        match (status, code) {
            (200..=299, _) => Self::Done,
            (409, "event_fired" | "scheduled_fired") => Self::Late,
            (404, "event_not_found" | "schedule_not_found" | "scheduled_not_found") => Self::Gone,
            // What the documentation promises of these two, and of no other.
            (503, "queue_full" | "service_unreachable") => Self::Untaken(said()),
            (429 | 503 | 504, _) => Self::Unknown(said()),
            _ => Self::Odd(format!("{status} {problem}")),
        }
    }

    /// Asking again says nothing new.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Done | Self::Late | Self::Gone | Self::Odd(_))
    }
}

impl Story {
    pub(crate) fn new(place: impl Into<String>, name: impl Into<String>) -> Self {
        Self { place: place.into(), name: name.into(), told: Vec::new() }
    }

    pub(crate) fn tell(&mut self, at_us: i64, door: &str, act: Act, answer: Answer) {
        self.told.push(Told { at_us, act, answer, door: door.to_owned() });
    }

    /// Every answer was heard: nothing that was asked for is under way.
    pub(crate) fn is_certain(&self) -> bool {
        !self.told.iter().any(|told| matches!(told.answer, Answer::Unknown(_)))
    }

    /// Whether it was taken, and not taken back, as far as the client knows.
    pub(crate) fn stands(&self) -> bool {
        let done = |told: &&Told| told.answer == Answer::Done && told.act != Act::Cancel;
        self.told.iter().any(|told| done(&told)) && !self.told.iter().any(|told| told.act == Act::Cancel)
    }

    /// Answers that nobody can expect.
    pub(crate) fn odd(&self) -> Vec<String> {
        let odd = self.told.iter().filter_map(|told| match &told.answer {
            Answer::Odd(what) => Some(format!("{}/{} was answered {what}", self.place, self.name)),
            _ => None,
        });
        odd.collect()
    }

    /// What does not hold, given each time that it happened.
    pub(crate) fn violations(&self, happened: &[Happened]) -> Vec<String> {
        let mut wrong = Vec::new();
        let (mut taken, mut gone) = (false, false);
        // What may still come of an order that was not answered.
        let (mut perhaps_taken, mut perhaps_gone) = (false, false);
        let (mut late, mut times) = (false, BTreeSet::new());
        let mut last = None;
        for Told { act, answer, .. } in &self.told {
            match (act, answer) {
                (Act::Give(at), Answer::Done) => (taken, last) = (true, Some(*at)),
                (Act::Move(at), Answer::Done) => last = Some(*at),
                (Act::Cancel, Answer::Done) => gone = true,
                (Act::Give(at), Answer::Unknown(_)) => {
                    perhaps_taken = true;
                    times.insert(*at);
                }
                (Act::Move(at), Answer::Unknown(_)) => _ = times.insert(*at),
                (Act::Cancel, Answer::Unknown(_)) => perhaps_gone = true,
                // Cancelled by one that was not answered.
                (_, Answer::Gone) if perhaps_gone => gone = true,
                (_, Answer::Gone) if gone => {}
                (_, Answer::Gone) => wrong.push("is not found, and nobody cancelled it".to_owned()),
                (_, Answer::Late) => late = true,
                (_, Answer::Untaken(_) | Answer::Odd(_)) => {}
            }
        }
        times.extend(last);
        if happened.len() > 1 {
            wrong.push(format!("happened {} times", happened.len()));
        }
        for one in happened {
            if !taken && !perhaps_taken {
                wrong.push("happened, and nobody took it".to_owned());
            }
            // One that was given and not answered may be done after it was cancelled.
            if gone && !perhaps_taken {
                wrong.push("happened after it was cancelled".to_owned());
            }
            if one.due_us.is_some_and(|due| !times.contains(&due)) {
                wrong.push("happened at a time that nobody gave it last".to_owned());
            }
            if one.due_us.or(times.first().copied()).is_some_and(|due| one.at_us < due) {
                wrong.push("happened early".to_owned());
            }
        }
        if happened.is_empty() && late {
            wrong.push("was said to have happened, and did not".to_owned());
        }
        if happened.is_empty() && taken && !gone && !perhaps_gone {
            wrong.push("is lost".to_owned());
        }
        let wrong = wrong.into_iter().map(|what| format!("{}/{} {what}", self.place, self.name));
        wrong.chain(self.odd()).collect()
    }

    /// For whoever looks into a failure; times in seconds since `began_us`, as in the history of the storm.
    pub(crate) fn text(&self, began_us: i64, happened: &[Happened]) -> String {
        let mut text = String::new();
        let time = |us: i64| format!("{:9.3} s", (us - began_us) as f64 / 1e6);
        let mut say = |line: fmt::Arguments<'_>| _ = writeln!(text, "    {line}");
        for Told { at_us, act, answer, door } in &self.told {
            let act = match act {
                Act::Give(at) => format!("give for {}", time(*at)),
                Act::Move(at) => format!("move to {}", time(*at)),
                Act::Cancel => "cancel".to_owned(),
            };
            say(format_args!("{} {act} at {door}: {answer:?}", time(*at_us)));
        }
        for Happened { due_us, at_us } in happened {
            let due = due_us.map_or("a time that is not told".to_owned(), time);
            say(format_args!("{} it happened, for {due}", time(*at_us)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(told: &[(Act, Answer)]) -> Story {
        let mut story = Story::new("a", "1");
        for (act, answer) in told {
            story.tell(0, "door", *act, answer.clone());
        }
        story
    }

    fn unknown() -> Answer {
        Answer::Unknown("no answer".to_owned())
    }

    fn at(due_us: i64) -> Happened {
        Happened { due_us: Some(due_us), at_us: due_us + 1 }
    }

    #[test]
    fn what_was_taken_happens_once_at_its_last_time() {
        let moved = story(&[(Act::Give(5), Answer::Done), (Act::Move(9), Answer::Done)]);
        assert_eq!(moved.violations(&[at(9)]), [""; 0]);
        assert_eq!(moved.violations(&[at(5)]).len(), 1);
        assert_eq!(moved.violations(&[at(9), at(9)]).len(), 1);
        assert_eq!(moved.violations(&[]), ["a/1 is lost"]);
        assert_eq!(moved.violations(&[Happened { due_us: Some(9), at_us: 8 }]), ["a/1 happened early"]);
    }

    #[test]
    fn an_answer_that_was_lost_leaves_either() {
        let given = story(&[(Act::Give(5), unknown())]);
        assert!(given.violations(&[]).is_empty() && given.violations(&[at(5)]).is_empty());
        let cancelled = story(&[(Act::Give(5), Answer::Done), (Act::Cancel, unknown())]);
        assert!(cancelled.violations(&[]).is_empty() && cancelled.violations(&[at(5)]).is_empty());
        let moved = story(&[(Act::Give(5), Answer::Done), (Act::Move(9), unknown()), (Act::Move(7), Answer::Done)]);
        assert!(moved.violations(&[at(9)]).is_empty() && moved.violations(&[at(7)]).is_empty());
        assert_eq!(moved.violations(&[at(5)]).len(), 1);
    }

    #[test]
    fn what_was_cancelled_does_not_happen() {
        let cancelled = story(&[(Act::Give(5), Answer::Done), (Act::Cancel, Answer::Done)]);
        assert_eq!(cancelled.violations(&[at(5)]), ["a/1 happened after it was cancelled"]);
        let found_gone = story(&[(Act::Give(5), Answer::Done), (Act::Cancel, unknown()), (Act::Cancel, Answer::Gone)]);
        assert_eq!(found_gone.violations(&[at(5)]), ["a/1 happened after it was cancelled"]);
        let late = story(&[(Act::Give(5), Answer::Done), (Act::Cancel, Answer::Late)]);
        assert!(late.violations(&[at(5)]).is_empty() && late.violations(&[]).len() == 2);
    }

    #[test]
    fn nothing_comes_of_what_was_not_taken() {
        let refused = story(&[(Act::Give(5), Answer::Untaken("503".to_owned()))]);
        assert_eq!(
            refused.violations(&[at(5)]),
            ["a/1 happened, and nobody took it", "a/1 happened at a time that nobody gave it last"]
        );
        assert!(refused.violations(&[]).is_empty());
    }
}
