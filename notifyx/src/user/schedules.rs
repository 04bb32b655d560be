//! `notifyx schedules create`, `ls`, `get`, `pause`, `resume`, `run` and `rm`.

use std::{fmt::Write, io};

use notifyx_model::{Category, Clock, EventId, Timestamp};
use notifyx_wire::rest::events::{
    Event,
    schedules::{NewSchedule, Schedule, SchedulePage, ScheduleState},
};

use super::{
    client::{Call, Client},
    events::data,
    print::{self, Output, Style, clean, moment},
};
use crate::{
    args::{CreateSchedule, SchedulesAction},
    exit::Failure,
};

/// Schedules asked for at once.
const PAGE: u32 = 500;

pub(crate) async fn run(client: &Client, output: Output, action: SchedulesAction) -> Result<(), Failure> {
    match action {
        SchedulesAction::Create(wish) => create(client, output, wish).await,
        SchedulesAction::Ls { category, limit } => list(client, output, category.as_ref(), limit).await,
        SchedulesAction::Get { id } => {
            let schedule: Schedule = client.read(Call::get(format!("/schedules/{id}"))).await?;
            output.answer(&schedule, || describe(output, &schedule))
        }
        SchedulesAction::Pause { id } => {
            let schedule = change(client, &id, "pause").await?;
            output.answer(&schedule, || format!("{id} is paused: `notifyx schedules resume {id}` goes on"))
        }
        SchedulesAction::Resume { id } => {
            let schedule = change(client, &id, "resume").await?;
            output.answer(&schedule, || format!("{id} goes on{}", next(&schedule)))
        }
        SchedulesAction::Run { id } => fire(client, output, &id).await,
        SchedulesAction::Rm { ids } => remove(client, output, &ids).await,
    }
}

async fn create(client: &Client, output: Output, wish: CreateSchedule) -> Result<(), Failure> {
    let new = NewSchedule {
        category: wish.category,
        data: data(wish.data.as_deref().unwrap_or("null"), io::stdin().lock())?,
        // With an id the request can be sent again without making a second schedule.
        id: Some(wish.id.unwrap_or_else(|| EventId::new(&Clock::system()))),
        every: wish.every,
        cron: wish.cron,
        time_zone: wish.time_zone,
        start_at: wish.start,
        end_at: wish.end,
        count: wish.count,
        on_missed: wish.on_missed,
        priority: wish.priority,
        key: wish.key,
    };
    let schedule: Schedule = client.insist(&Call::post("/schedules").json(&new)).await?.json()?;
    output.answer(&schedule, || {
        let id = output.paint(Style::Faint, &schedule.id);
        format!(
            "{} recurs {}{} ({id})",
            output.paint(Style::Strong, &schedule.category),
            clean(&rule(&schedule)),
            next(&schedule)
        )
    })
}

async fn change(client: &Client, id: &EventId, what: &str) -> Result<Schedule, Failure> {
    client.insist(&Call::post(format!("/schedules/{id}/{what}"))).await?.json()
}

async fn fire(client: &Client, output: Output, id: &EventId) -> Result<(), Failure> {
    // Named here, so that asking again after a lost answer fires nothing twice.
    let event = EventId::new(&Clock::system());
    let call = Call::post(format!("/schedules/{id}/run")).query("eventId", &event);
    let mut stored: Event = client.insist(&call).await?.json()?;
    stored.duplicate = false;
    output.answer(&stored, || format!("fired {event} in {}", clean(stored.category.as_str())))
}

async fn remove(client: &Client, output: Output, ids: &[EventId]) -> Result<(), Failure> {
    for id in ids {
        let schedule: Schedule = client.read(Call::delete(format!("/schedules/{id}"))).await?;
        output.answer(&schedule, || format!("{id} is gone; what it fired stays in the log"))?;
    }
    Ok(())
}

async fn list(client: &Client, output: Output, category: Option<&Category>, limit: u32) -> Result<(), Failure> {
    let (mut shown, mut after) = (0, None::<String>);
    loop {
        let mut call = Call::get("/schedules").query("limit", &(limit - shown).min(PAGE));
        if let Some(category) = category {
            call = call.query("category", category);
        }
        if let Some(after) = &after {
            call = call.query("after", after);
        }
        let page: SchedulePage = client.read(call).await?;
        for schedule in &page.schedules {
            if shown == 0 && !output.json() {
                print::line(&output.paint(Style::Faint, heading()))?;
            }
            shown += 1;
            output.answer(schedule, || row(output, schedule))?;
        }
        // A server that says the same for ever is not followed.
        if page.next.is_none() || page.next == after {
            break;
        }
        if shown >= limit {
            output.remark(&format!("there are more than {limit}: see --limit"));
            return Ok(());
        }
        after = page.next;
    }
    if shown == 0 {
        output.remark("there are no schedules: `notifyx schedules create CATEGORY --every 1h`");
    }
    Ok(())
}

fn heading() -> String {
    format!("{:<36}  {:<8}  {:<20}  {:>7}  {:>7}  category and rule", "id", "state", "next", "made", "skipped")
}

fn row(output: Output, schedule: &Schedule) -> String {
    format!(
        "{}  {}  {:<20}  {:>7}  {:>7}  {}  {}",
        output.paint(Style::Strong, format!("{:<36}", schedule.id)),
        output.paint(style(schedule.state), format!("{:<8}", schedule.state.as_str())),
        at(schedule.next_at),
        schedule.created,
        schedule.skipped,
        clean(&schedule.category),
        output.paint(Style::Faint, rule(schedule)),
    )
}

fn describe(output: Output, schedule: &Schedule) -> String {
    let mut text = format!(
        "{}  {}",
        output.paint(Style::Strong, &schedule.id),
        output.paint(style(schedule.state), schedule.state.as_str())
    );
    let mut line = |name: &str, value: &str| {
        let _ = write!(text, "\n  {}{}", output.paint(Style::Faint, format!("{name:<10}")), clean(value));
    };
    line("category", &schedule.category);
    if let Some(key) = &schedule.key {
        line("key", key);
    }
    line("priority", &schedule.priority.to_string());
    line("recurs", &rule(schedule));
    for (name, at) in [("start", schedule.start_at), ("end", schedule.end_at)] {
        if let Some(at) = at {
            line(name, &at.to_string());
        }
    }
    if let Some(count) = schedule.count {
        line("in all", &count.to_string());
    }
    line("if missed", &schedule.on_missed.as_str().replace('_', "-"));
    line("next", &schedule.next_at.map_or("none".to_owned(), |at| at.to_string()));
    line("last", &schedule.last_at.map_or("none yet".to_owned(), |at| at.to_string()));
    line("made", &format!("{}, and {} skipped", schedule.created, schedule.skipped));
    line("data", schedule.data.get());
    text
}

fn rule(schedule: &Schedule) -> String {
    match (&schedule.every, &schedule.cron, &schedule.time_zone) {
        (Some(every), ..) => format!("every {every}"),
        (None, Some(cron), Some(zone)) => format!("by `{cron}` in {zone}"),
        (None, Some(cron), None) => format!("by `{cron}`"),
        (None, None, _) => "by a rule that this version does not know".to_owned(),
    }
}

fn next(schedule: &Schedule) -> String {
    schedule.next_at.map(|at| format!(", next at {}", moment(at))).unwrap_or_default()
}

fn at(time: Option<Timestamp>) -> String {
    time.map_or("-".to_owned(), moment)
}

fn style(state: ScheduleState) -> Style {
    match state {
        ScheduleState::Active => Style::Good,
        ScheduleState::Paused => Style::Strong,
        ScheduleState::Finished => Style::Faint,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schedule() -> Schedule {
        serde_json::from_value(json!({
            "id": "daily", "category": "reports", "key": "k", "priority": 4, "data": { "a": 1 }, "cron": "0 9 * * *",
            "timeZone": "Europe/Berlin", "endAt": "2026-02-01T00:00:00Z", "count": 9, "onMissed": "fire_all",
            "createdAt": "2026-01-01T00:00:00Z", "state": "active", "nextAt": "2026-01-02T08:00:00Z", "created": 3,
            "skipped": 1,
        }))
        .unwrap()
    }

    #[test]
    fn a_row_stands_under_its_heading() {
        assert_eq!(
            format!("{}\n{}", heading(), row(Output::new(false, true), &schedule())),
            "id                                    state     next                     made  skipped  category and rule\n\
             daily                                 active    2026-01-02 08:00:00Z        3        1  reports  by `0 9 * * *` in Europe/Berlin"
        );
    }

    #[test]
    fn all_that_is_known_is_shown() {
        assert_eq!(
            describe(Output::new(false, true), &schedule()),
            "daily  active\n\
             \u{20} category  reports\n\
             \u{20} key       k\n\
             \u{20} priority  4\n\
             \u{20} recurs    by `0 9 * * *` in Europe/Berlin\n\
             \u{20} end       2026-02-01T00:00:00Z\n\
             \u{20} in all    9\n\
             \u{20} if missed fire-all\n\
             \u{20} next      2026-01-02T08:00:00Z\n\
             \u{20} last      none yet\n\
             \u{20} made      3, and 1 skipped\n\
             \u{20} data      {\"a\":1}"
        );
    }
}
