//! `notifyx scheduled ls`, `show`, `move` and `cancel`.

use notifyx_model::EventId;
use notifyx_wire::rest::gateway::{Reschedule, ScheduledNotification, ScheduledPage, ScheduledState};

use super::{
    client::{Call, Client},
    print::{self, Output, Style, moment},
};
use crate::{
    args::{Scheduled, ScheduledAction},
    exit::Failure,
};

const DOOR: &str = "/api/notifications/scheduled";

/// Notifications asked for at once: with the largest messages still a body of a few MiB.
const PAGE: u32 = 50;

pub(crate) async fn run(client: &Client, output: Output, wish: Scheduled) -> Result<(), Failure> {
    match wish.action {
        ScheduledAction::Ls { limit } => list(client, output, limit).await,
        ScheduledAction::Show { id } => {
            let one: ScheduledNotification = client.read(Call::get(format!("{DOOR}/{id}"))).await?;
            output.answer(&one, || describe(output, &one))
        }
        // Safe to repeat: the same time again is the same notification.
        ScheduledAction::Move { id, time } => {
            let call = Call::patch(format!("{DOOR}/{id}")).json(&Reschedule { fire_at: time.given() });
            let moved: ScheduledNotification = client.insist(&call).await?.json()?;
            output.answer(&moved, || describe(output, &moved))
        }
        ScheduledAction::Cancel { ids } => cancel(client, output, &ids).await,
    }
}

async fn list(client: &Client, output: Output, limit: u32) -> Result<(), Failure> {
    let (mut left, mut after) = (limit, None::<String>);
    loop {
        let mut call = Call::get(DOOR).query("limit", &left.min(PAGE));
        if let Some(after) = &after {
            call = call.query("after", after);
        }
        let page: ScheduledPage = client.read(call).await?;
        for one in &page.notifications {
            output.answer(one, || describe(output, one))?;
        }
        left = left.saturating_sub(u32::try_from(page.notifications.len()).unwrap_or(u32::MAX));
        match page.next {
            Some(_) if left == 0 => {
                output.remark(&format!("there are later ones than these {limit}: see --limit"));
                return Ok(());
            }
            // A page without notifications would ask for ever.
            Some(next) if !page.notifications.is_empty() => after = Some(next),
            _ if left == limit => {
                output.remark("nothing waits for its time: `notifyx publish TOPIC MESSAGE --in 10m`");
                return Ok(());
            }
            _ => return Ok(()),
        }
    }
}

async fn cancel(client: &Client, output: Output, ids: &[EventId]) -> Result<(), Failure> {
    for id in ids {
        let was: ScheduledNotification = client.read(Call::delete(format!("{DOOR}/{id}"))).await?;
        let record = serde_json::json!({ "id": id, "cancelled": true, "topic": was.topic, "fire_at": was.fire_at });
        output.answer(&record, || format!("cancelled {id}"))?;
    }
    Ok(())
}

/// In one line, and what became of it.
pub(crate) fn describe(output: Output, one: &ScheduledNotification) -> String {
    let (style, state) = match &one.state {
        ScheduledState::Scheduled => (Style::Faint, "scheduled".to_owned()),
        ScheduledState::Queued => (Style::Strong, "queued".to_owned()),
        ScheduledState::Published { notification_id, offset, .. } => {
            let place = offset.map(|offset| format!(" as number {offset}")).unwrap_or_default();
            (Style::Good, format!("published{place} ({notification_id})"))
        }
        ScheduledState::Refused { reason, .. } => (Style::Bad, format!("refused: {reason}")),
    };
    format!(
        "{}  {}  {}  {}: {}",
        output.paint(Style::Faint, &one.id),
        moment(one.fire_at),
        output.paint(style, state),
        output.paint(Style::Strong, &one.topic),
        print::clean(one.message.as_str()),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_line_says_when_what_and_what_became_of_it() {
        let output = Output::new(false, true);
        let mut shown = json!({
            "success": true, "id": "0199f3a2", "topic": "billing", "message": "paid\u{7}", "to": [], "priority": 4,
            "created_at": "2026-01-01T00:00:00Z", "fire_at": "2026-01-02T03:04:05.678Z", "status": "scheduled",
        });
        let line = |shown: &serde_json::Value| describe(output, &serde_json::from_value(shown.clone()).unwrap());
        assert_eq!(line(&shown), "0199f3a2  2026-01-02 03:04:05Z  scheduled  billing: paid\\u{7}");
        shown["status"] = json!("refused");
        shown["code"] = json!("topic_inactive");
        shown["reason"] = json!("the topic sleeps");
        assert_eq!(line(&shown), "0199f3a2  2026-01-02 03:04:05Z  refused: the topic sleeps  billing: paid\\u{7}");
    }
}
