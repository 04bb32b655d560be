//! `notifyx inbox` and `seen`.

use notifyx_model::NotificationId;
use notifyx_wire::rest::persist::{InboxItem, InboxPage, SeenStatus, Unread};

use super::{
    client::{Call, Client},
    print::{Output, Style, moment},
};
use crate::{args::Inbox, exit::Failure};

/// Notifications asked for at once: with the largest messages still a body of a few MiB.
const PAGE: u32 = 50;

pub(crate) async fn list(client: &Client, output: Output, inbox: Inbox) -> Result<(), Failure> {
    let (mut left, mut after) = (inbox.limit, None);
    loop {
        let mut call = Call::get("/api/notifications").query("limit", &left.min(PAGE));
        if inbox.unread {
            call = call.query("status", &"unread");
        }
        if let Some(topic) = &inbox.topic {
            call = call.query("topic_name", topic);
        }
        if let Some(after) = after {
            call = call.query("after", &after);
        }
        let page: InboxPage = client.read(call).await?;
        for item in &page.notifications {
            output.answer(item, || describe(output, item))?;
        }
        left = left.saturating_sub(u32::try_from(page.notifications.len()).unwrap_or(u32::MAX));
        match page.next {
            Some(_) if left == 0 => {
                output.remark(&format!("there are older ones than these {}: see --limit", inbox.limit));
                return Ok(());
            }
            // A page without notifications would ask for ever.
            Some(next) if !page.notifications.is_empty() => after = Some(next),
            _ if left == inbox.limit => {
                output.remark(if inbox.unread { "nothing unread" } else { "the inbox is empty" });
                return Ok(());
            }
            _ => return Ok(()),
        }
    }
}

fn describe(output: Output, item: &InboxItem) -> String {
    let n = &item.notification;
    let (mark, style) = match item.status {
        SeenStatus::Unread => ("●", Style::Good),
        SeenStatus::Seen => (" ", Style::Faint),
    };
    format!(
        "{} {}  {} {} {}: {}",
        output.paint(style, mark),
        output.paint(Style::Faint, n.id),
        moment(n.inserted_at),
        output.paint(Style::Strong, &n.topic),
        output.paint(Style::Faint, &n.from),
        super::print::clean(n.message.as_str()),
    )
}

pub(crate) async fn seen(client: &Client, output: Output, ids: &[NotificationId]) -> Result<(), Failure> {
    for id in ids {
        let unread: Unread = client.read(Call::post(format!("/api/notifications/{id}/seen"))).await?;
        let record = serde_json::json!({ "id": id, "seen": true, "unread": unread });
        output.answer(&record, || {
            let left = unread
                .topics
                .first()
                .map(|t| format!(", {} unread in {}", t.unread, output.paint(Style::Strong, &t.topic)));
            format!("seen {id}{}", left.unwrap_or_default())
        })?;
    }
    Ok(())
}
