//! Recurring schedules as the front door handles them: as with events, who may, and how much is told.

use actix_web::web::Bytes;
use notifyx_model::{Category, EventId, GivenTime, Timestamp, Verb};
use notifyx_wire::{
    grpc::events as wire,
    rest::events::schedules::{NewSchedule, Schedule, SchedulePage},
};

use crate::{
    Error,
    events::{By, Told, page, some},
    live::Live,
};

/// What is done to a schedule that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Pause,
    Resume,
    Delete,
}

impl Live {
    pub(crate) async fn create_schedule(&self, by: &By, new: NewSchedule) -> Result<Schedule, Error> {
        by.check_known()?;
        by.check(Verb::Publish, &new.category)?;
        let created = self.backends.events.create_schedule(by.user.as_ref(), asked(new)?).await?;
        // Its data is what was sent just now.
        Ok(Schedule::told(created, true))
    }

    pub(crate) async fn schedule(&self, by: &By, id: &EventId) -> Result<Schedule, Error> {
        let found = self.backends.events.find_schedule(id).await?;
        if by.may(Verb::Subscribe, category(&found)) {
            Ok(Schedule::told(found, true))
        } else {
            Err(Error::ScheduleNotFound(id.clone()))
        }
    }

    /// Of one category, or of all that `by` may read.
    pub(crate) async fn schedules(
        &self,
        by: &By,
        of: Option<Category>,
        after: Option<String>,
        limit: Option<u32>,
    ) -> Result<SchedulePage, Error> {
        if let Some(category) = &of {
            by.check(Verb::Subscribe, category)?;
        }
        let request = wire::ListSchedulesRequest {
            category: of.map(String::from).unwrap_or_default(),
            cursor: after.unwrap_or_default(),
            limit: page(limit)?,
        };
        let reply = self.backends.events.schedules(request).await.map_err(Error::of_list)?;
        let readable = reply.schedules.into_iter().filter(|found| by.may(Verb::Subscribe, category(found)));
        Ok(SchedulePage {
            schedules: readable.map(|found| Schedule::told(found, true)).collect(),
            next: some(reply.next),
        })
    }

    pub(crate) async fn change_schedule(&self, by: &By, id: &EventId, change: Change) -> Result<Schedule, Error> {
        self.check_schedule(by, id).await?;
        let (events, user) = (&self.backends.events, by.user.as_ref());
        let changed = match change {
            Change::Pause => events.pause(user, id).await?,
            Change::Resume => events.resume(user, id).await?,
            Change::Delete => events.delete_schedule(user, id).await?,
        };
        let may_read = by.may(Verb::Subscribe, category(&changed));
        Ok(Schedule::told(changed, may_read))
    }

    /// Fires one event of it, beside its rule.
    pub(crate) async fn run_schedule(&self, by: &By, id: &EventId, event: Option<&EventId>) -> Result<Told, Error> {
        self.check_schedule(by, id).await?;
        let stored = self.backends.events.run_now(by.user.as_ref(), id, event).await?;
        Ok(Told::ran(stored, by))
    }

    async fn check_schedule(&self, by: &By, id: &EventId) -> Result<(), Error> {
        by.check_known()?;
        let found = self.backends.events.find_schedule(id).await?;
        by.check_found(category(&found), || Error::ScheduleNotFound(id.clone())).map(drop)
    }
}

fn category(schedule: &wire::RecurringSchedule) -> &str {
    schedule.rule.as_ref().map_or("", |rule| &rule.category)
}

/// As the service is asked. What it would refuse by the same words is left to it.
fn asked(new: NewSchedule) -> Result<wire::NewSchedule, Error> {
    use wire::new_schedule::Rule;
    let rule = match (new.every, new.cron, new.time_zone) {
        (Some(every), None, None) => {
            let span = every.duration("every", GivenTime::AHEAD_MAX).map_err(Error::ScheduleInvalid)?;
            Rule::EveryUs(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
        }
        (None, Some(expression), zone) => Rule::Cron(wire::Cron { expression, time_zone: zone.unwrap_or_default() }),
        (Some(_), None, Some(_)) => {
            return Err(Error::WhichRule("`timeZone` goes with `cron`: `every` is the same in each"));
        }
        (Some(_), Some(_), _) => return Err(Error::WhichRule("either `every` or `cron`, not both")),
        (None, None, _) => return Err(Error::WhichRule("say when it recurs: with `every` or with `cron`")),
    };
    let moment = |field: &'static str, given: Option<GivenTime>| {
        let at = given.map(|given| given.timestamp(field)).transpose().map_err(Error::ScheduleInvalid)?;
        Ok::<_, Error>(at.map(Timestamp::as_micros))
    };
    let data: Box<str> = new.data.into();
    Ok(wire::NewSchedule {
        id: new.id.map(String::from).unwrap_or_default(),
        category: new.category.into(),
        key: new.key,
        priority: new.priority.map(|level| u8::from(level).into()),
        data: Bytes::from(String::from(data)),
        rule: Some(rule),
        start_at_us: moment("startAt", new.start_at)?,
        end_at_us: moment("endAt", new.end_at)?,
        count: new.count,
        on_missed: wire::OnMissed::from(new.on_missed).into(),
    })
}

#[cfg(test)]
mod tests {
    use notifyx_model::Fault;
    use serde_json::{Value, json};

    use super::*;

    fn ask(change: &Value) -> Result<wire::NewSchedule, String> {
        let mut body = json!({ "category": "reports", "data": [1] });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let body = body.to_string();
        let new: NewSchedule = notifyx_wire::json::read(&body).map_err(|why| why.to_string())?;
        asked(new).map_err(|error| format!("{}: {error}", error.code()))
    }

    #[test]
    fn a_rule_is_every_or_cron() {
        for every in [json!("90s"), json!("PT1M30S"), json!(90), json!("1m 30s")] {
            let asked = ask(&json!({ "every": every })).unwrap();
            assert_eq!(asked.rule, Some(wire::new_schedule::Rule::EveryUs(90_000_000)), "{every}");
        }
        let asked =
            ask(&json!({ "cron": "0 9 * * *", "timeZone": "Europe/Berlin", "startAt": 1_767_225_600 })).unwrap();
        let cron = wire::Cron { expression: "0 9 * * *".into(), time_zone: "Europe/Berlin".into() };
        assert_eq!(asked.rule, Some(wire::new_schedule::Rule::Cron(cron)));
        assert_eq!((asked.start_at_us, &asked.data[..]), (Some(1_767_225_600_000_000), &b"[1]"[..]));
        assert_eq!(asked.on_missed(), wire::OnMissed::FireLast);
    }

    #[test]
    fn what_is_wrong_is_said_by_its_field() {
        for (change, said) in [
            (json!({}), "schedule_invalid: say when it recurs"),
            (json!({ "every": "1s", "cron": "* * * * *" }), "schedule_invalid: either `every` or `cron`"),
            (json!({ "every": "1s", "timeZone": "UTC" }), "schedule_invalid: `timeZone` goes with `cron`"),
            (json!({ "every": "soon" }), "schedule_invalid: every is not a span of time"),
            (json!({ "every": "1 month" }), "schedule_invalid: every counts months"),
            (json!({ "every": "1s", "endAt": "soon" }), "schedule_invalid: endAt is neither a Unix time"),
            (
                json!({ "every": "1s", "onMissed": "fire" }),
                "onMissed: unknown variant `fire`, expected one of `fire_all`",
            ),
            (json!({ "every": "1s", "onMissed": 7 }), "onMissed: invalid type: integer `7`, expected a text"),
            (json!({ "every": "1s", "category": 7 }), "category: invalid type: integer `7`, expected a text"),
            (json!({ "every": "1s", "category": "a/b" }), "category holds a /"),
            (json!({ "every": "1s", "id": ["a"] }), "id: invalid type: array, expected a text"),
            (json!({ "every": "1s", "id": "a b" }), "id: event id holds"),
            (json!({ "every": "1s", "startAt": true }), "startAt: invalid type: boolean `true`, expected a time"),
            (json!({ "every": "1s", "endAt": {} }), "endAt: invalid type: object, expected a time"),
            (json!({ "every": "1s", "count": "7" }), "count: invalid type: string \"7\", expected a whole number"),
            (
                json!({ "every": "1s", "priority": 4.5 }),
                "priority: invalid type: floating point `4.5`, expected a whole",
            ),
            (json!({ "every": "1s", "priority": 10 }), "priority 10 is not 0 to 9"),
            (json!({ "every": "1s", "key": 7 }), "key: invalid type: integer `7`, expected a text"),
            (json!({ "cron": 7 }), "cron: invalid type: integer `7`, expected a text"),
            (json!({ "cron": "* * * * *", "timeZone": 7 }), "timeZone: invalid type: integer `7`, expected a text"),
            (json!({ "every": "1s", "time_zone": "UTC" }), "unknown field `time_zone`"),
            (json!({ "every": {} }), "every: invalid type: object, expected a span: a number of seconds"),
        ] {
            let told = ask(&change).unwrap_err();
            assert!(told.starts_with(said), "{change}: {told}");
        }
    }
}
