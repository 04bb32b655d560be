//! `notifyx publish`.

use std::{
    io::{self, Read},
    time::Duration,
};

use notifyx_model::{Clock, GivenTime, Message, NotificationId};
use notifyx_wire::rest::{
    commit::{TransactionState, TransactionStatus},
    gateway::{PublishAnswer, PublishRequest, ScheduledNotification},
};

use super::{
    client::{Call, Client},
    print::{Output, Style},
    recipient::Recipient,
    scheduled,
};
use crate::{
    args::{Publish, Text},
    exit::Failure,
};

/// A transaction whose outcome is not known yet is asked about this often …
const OUTCOME_PAUSE: Duration = Duration::from_millis(500);
/// … and this many times: longer than the 5 s in which the coordinator decides.
const OUTCOME_ASKED_MAX: u32 = 16;

pub(crate) async fn run(client: &Client, output: Output, publish: Publish) -> Result<(), Failure> {
    let message = match publish.message {
        Text::Given(message) => message,
        Text::Stdin => from_stdin(io::stdin().lock())?,
    };
    let fire_at = publish.at.or(publish.within);
    let to = publish.to.iter().map(|recipient| match recipient {
        Recipient::Id(id) => id.to_string(),
        Recipient::Email(email) => email.to_string(),
    });
    let body = PublishRequest {
        topic: Some(publish.topic.clone()),
        topic_id: None,
        message,
        to: to.collect(),
        priority: publish.priority.unwrap_or_default(),
        fire_at: fire_at.map(|at| GivenTime::Text(at.to_string())),
    };
    // With a key of its own, a publish whose answer was lost can be asked for again without being made twice.
    let key = publish.key.unwrap_or_else(|| format!("cli-{}", NotificationId::new(&Clock::system())));
    let answer = client.insist(&Call::post("/api/notifications").json(&body).idempotency_key(key)).await?;
    if fire_at.is_some() {
        let kept: ScheduledNotification = answer.json()?;
        return output.answer(&kept, || scheduled::describe(output, &kept));
    }
    let published: PublishAnswer = answer.json()?;
    if published.offset.is_none() {
        confirm(client, &published).await?;
    }
    output.answer(&published, || {
        let place = published.offset.map_or_else(|| "is being applied".into(), |offset| format!("is number {offset}"));
        let topic = output.paint(Style::Strong, &published.topic);
        format!("published: it {place} in {topic} ({})", output.paint(Style::Faint, published.id))
    })
}

/// What was accepted but not applied yet: waits until it is decided, and says so if it was decided against.
async fn confirm(client: &Client, published: &PublishAnswer) -> Result<(), Failure> {
    let gid = published.gid;
    for _ in 0..OUTCOME_ASKED_MAX {
        let status: TransactionStatus = client.insist(&Call::get(format!("/api/2pc/{gid}"))).await?.json()?;
        let (code, why) = match status.state {
            TransactionState::Committed => return Ok(()),
            TransactionState::Preparing => {
                tokio::time::sleep(OUTCOME_PAUSE).await;
                continue;
            }
            TransactionState::Aborted => ("aborted", "was not published"),
            TransactionState::Quarantined => ("quarantined", "must be looked at by an operator"),
            TransactionState::Resolved => {
                ("resolved", "was looked at by an operator, who found it not as it was decided")
            }
        };
        let reason = status.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        return Err(Failure::refused(code, format!("the notification {why}{reason} (transaction {gid})")));
    }
    Err(Failure::Unreachable {
        server: client.server().to_string(),
        why: format!(
            "whether the notification was published is not decided yet; ask again with the same --key (transaction {gid})"
        ),
    })
}

fn from_stdin(input: impl Read) -> Result<Message, Failure> {
    let mut text = String::new();
    let limit = u64::try_from(Message::MAX_BYTES).expect("64 KiB fits") + 2;
    input.take(limit).read_to_string(&mut text).map_err(Failure::machine("cannot read the message"))?;
    // The line end that `echo` adds is not part of what was meant.
    let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    Message::parse(text).map_err(|error| Failure::Usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_from_standard_input_is_bounded_and_loses_its_line_end() {
        assert_eq!(from_stdin("a\nb\n".as_bytes()).unwrap().as_str(), "a\nb");
        assert_eq!(from_stdin("".as_bytes()).unwrap_err().to_string(), "message is empty");
        let full = "m".repeat(Message::MAX_BYTES);
        assert!(from_stdin(format!("{full}\n").as_bytes()).is_ok());
        assert_eq!(from_stdin(format!("{full}{full}").as_bytes()).unwrap_err().code(), 2);
    }
}
