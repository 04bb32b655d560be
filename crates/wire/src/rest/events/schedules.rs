//! Bodies of recurring schedules: `/schedules`.

use std::{fmt, time::Duration};

use notifyx_model::{Category, EventId, GivenSpan, GivenTime, Priority, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{micros, null};
use crate::grpc::events as grpc;

/// What becomes of occurrences whose time passed while nobody was there to fire them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMissed {
    /// Each fires, at once.
    FireAll,
    /// The last of them fires, at once; the others are skipped.
    #[default]
    FireLast,
    /// All are skipped.
    Skip,
}

/// As a text, so that what is none is told so.
impl<'de> Deserialize<'de> for OnMissed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let word = String::deserialize(from)?;
        let known = [Self::FireAll, Self::FireLast, Self::Skip].into_iter().find(|known| known.as_str() == word);
        known.ok_or_else(|| D::Error::unknown_variant(&word, &["fire_all", "fire_last", "skip"]))
    }
}

impl OnMissed {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FireAll => "fire_all",
            Self::FireLast => "fire_last",
            Self::Skip => "skip",
        }
    }
}

impl fmt::Display for OnMissed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<OnMissed> for grpc::OnMissed {
    fn from(on_missed: OnMissed) -> Self {
        match on_missed {
            OnMissed::FireAll => Self::FireAll,
            OnMissed::FireLast => Self::FireLast,
            OnMissed::Skip => Self::Skip,
        }
    }
}

/// `POST /schedules`. Exactly one of `every` and `cron`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewSchedule {
    /// Of its events: 1 to 200 bytes, no `/`, not beginning with `$`.
    pub category: Category,
    /// Of its events: any JSON up to 262,144 bytes; `null` where you say nothing.
    #[serde(default = "null")]
    #[schema(value_type = Value)]
    pub data: Box<RawValue>,
    /// As an event's, unique among schedules: the same again with the same rule is the same schedule. Where you name none a UUID is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<EventId>,
    /// The time between two occurrences, such as `30s`, `1h30m` or `PT30S`, or a number of seconds; 1 s to 3,653 days. The first is at
    /// `startAt`, or one such time from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<GivenSpan>,
    /// 5 fields, or 6 with seconds first: `0 9 * * MON-FRI`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Of `cron`, an IANA name such as `Europe/Berlin`; UTC where you say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// No occurrence before. As an event's `fireAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<GivenTime>,
    /// No occurrence after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_at: Option<GivenTime>,
    /// Occurrences in all, 1 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(default)]
    pub on_missed: OnMissed,
    /// Of its events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Of its events, 1 to 255 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleState {
    Active,
    Paused,
    /// Its end or count was reached.
    Finished,
}

impl ScheduleState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Finished => "finished",
        }
    }
}

/// A recurring schedule, as it stands.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    pub id: String,
    pub category: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub priority: u32,
    #[serde(default = "null")]
    #[schema(value_type = Value)]
    pub data: Box<RawValue>,
    /// In ISO 8601: `PT1H30M`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "micros::optional")]
    pub start_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "micros::optional")]
    pub end_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    pub on_missed: OnMissed,
    #[serde(with = "micros")]
    pub created_at: Timestamp,
    pub state: ScheduleState,
    /// The next occurrence; absent where it is paused or has finished.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "micros::optional")]
    pub next_at: Option<Timestamp>,
    /// The last occurrence that became an event.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "micros::optional")]
    pub last_at: Option<Timestamp>,
    /// Occurrences that became events.
    pub created: u64,
    /// Occurrences that were missed and skipped.
    pub skipped: u64,
    /// `data` is left out here: who asked may not read the category.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub data_omitted: bool,
}

impl Schedule {
    /// Without the data where `may_read` is false.
    pub fn told(schedule: grpc::RecurringSchedule, may_read: bool) -> Self {
        use grpc::new_schedule::Rule;
        let on_missed = schedule.rule.as_ref().map(grpc::NewSchedule::on_missed);
        let rule = schedule.rule.unwrap_or_default();
        let (every, cron, time_zone) = match rule.rule {
            Some(Rule::EveryUs(micros)) => (Some(iso(micros)), None, None),
            Some(Rule::Cron(cron)) => (None, Some(cron.expression), Some(cron.time_zone)),
            None => (None, None, None),
        };
        let data = std::str::from_utf8(&rule.data).ok().filter(|_| may_read);
        Self {
            id: rule.id,
            category: rule.category,
            key: rule.key,
            priority: rule.priority.unwrap_or_default(),
            data: data.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(null),
            every,
            cron,
            time_zone,
            start_at: rule.start_at_us.map(Timestamp::from_micros),
            end_at: rule.end_at_us.map(Timestamp::from_micros),
            count: rule.count,
            on_missed: match on_missed {
                Some(grpc::OnMissed::FireAll) => OnMissed::FireAll,
                Some(grpc::OnMissed::Skip) => OnMissed::Skip,
                Some(grpc::OnMissed::FireLast | grpc::OnMissed::Unspecified) | None => OnMissed::FireLast,
            },
            created_at: Timestamp::from_micros(schedule.created_at_us),
            state: match (schedule.finished, schedule.paused) {
                (true, _) => ScheduleState::Finished,
                (false, true) => ScheduleState::Paused,
                (false, false) => ScheduleState::Active,
            },
            next_at: schedule.next_at_us.map(Timestamp::from_micros),
            last_at: schedule.last_at_us.map(Timestamp::from_micros),
            created: schedule.created,
            skipped: schedule.skipped,
            data_omitted: !may_read,
        }
    }
}

fn iso(micros: i64) -> String {
    let span = Duration::from_micros(micros.unsigned_abs());
    jiff::SignedDuration::try_from(span).unwrap_or(jiff::SignedDuration::MAX).to_string()
}

/// `GET /schedules`, by id. A page may hold fewer than were asked for, and not be the last.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SchedulePage {
    pub schedules: Vec<Schedule>,
    /// `after` of the page that follows, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(rule: grpc::new_schedule::Rule) -> grpc::RecurringSchedule {
        grpc::RecurringSchedule {
            rule: Some(grpc::NewSchedule {
                id: "nightly".into(),
                category: "reports".into(),
                priority: Some(4),
                data: "{\"a\": 1}".into(),
                rule: Some(rule),
                on_missed: grpc::OnMissed::Skip.into(),
                ..grpc::NewSchedule::default()
            }),
            created_at_us: 1_767_225_600_000_000,
            next_at_us: Some(1_767_225_630_000_000),
            ..grpc::RecurringSchedule::default()
        }
    }

    #[test]
    fn every_is_told_as_iso_8601() {
        let told = Schedule::told(kept(grpc::new_schedule::Rule::EveryUs(5_400_500_000)), true);
        assert_eq!(
            serde_json::to_value(told).unwrap(),
            json!({
                "id": "nightly", "category": "reports", "priority": 4, "data": { "a": 1 }, "every": "PT1H30M0.5S",
                "onMissed": "skip", "createdAt": "2026-01-01T00:00:00.000000Z", "state": "active",
                "nextAt": "2026-01-01T00:00:30.000000Z", "created": 0, "skipped": 0,
            })
        );
    }

    #[test]
    fn cron_is_told_with_its_zone_and_data_not_to_everybody() {
        let cron = grpc::Cron { expression: "0 9 * * *".into(), time_zone: "Europe/Berlin".into() };
        let told = Schedule::told(kept(grpc::new_schedule::Rule::Cron(cron)), false);
        assert_eq!((told.cron.as_deref(), told.time_zone.as_deref()), (Some("0 9 * * *"), Some("Europe/Berlin")));
        assert_eq!((told.data.get(), told.data_omitted), ("null", true));
    }
}
