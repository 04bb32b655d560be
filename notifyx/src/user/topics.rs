//! `notifyx topics`, `topics create` and `unsubscribe`.

use notifyx_model::TopicName;
use notifyx_wire::rest::persist::{NewTopic, Topic, TopicPage, TopicStatus};

use super::{
    client::{Call, Client},
    print::{Output, Style},
};
use crate::{
    args::{Topics, TopicsAction},
    exit::Failure,
};

/// Topics asked for at once.
const PAGE: u32 = 200;

pub(crate) async fn run(client: &Client, output: Output, topics: Topics) -> Result<(), Failure> {
    match topics.action {
        Some(TopicsAction::Create { topic, longevity }) => create(client, output, topic, longevity).await,
        None => list(client, output, topics.limit).await,
    }
}

async fn create(client: &Client, output: Output, name: TopicName, longevity: Option<u64>) -> Result<(), Failure> {
    let topic: Topic = client.read(Call::post("/api/topics").json(&NewTopic { name, longevity })).await?;
    output.answer(&topic, || format!("created {} ({})", output.paint(Style::Strong, &topic.name), topic.id))
}

async fn list(client: &Client, output: Output, limit: u32) -> Result<(), Failure> {
    let me = client.session()?.id;
    let (mut left, mut after) = (limit, None);
    loop {
        let mut call = Call::get("/api/topics").query("limit", &left.min(PAGE));
        if let Some(after) = after {
            call = call.query("after", &after);
        }
        let page: TopicPage = client.read(call).await?;
        for topic in &page.topics {
            output.answer(topic, || describe(output, topic, topic.creator_id == me))?;
        }
        left = left.saturating_sub(u32::try_from(page.topics.len()).unwrap_or(u32::MAX));
        match page.next {
            Some(_) if left == 0 => {
                output.remark(&format!("there are more than {limit}: see --limit"));
                return Ok(());
            }
            // A page without topics would ask for ever.
            Some(next) if !page.topics.is_empty() => after = Some(next),
            _ if left == limit => {
                output.remark("there are no topics yet: `notifyx topics create NAME`");
                return Ok(());
            }
            _ => return Ok(()),
        }
    }
}

fn describe(output: Output, topic: &Topic, own: bool) -> String {
    let mut notes = vec![match topic.offset {
        0 => "nothing published".to_owned(),
        1 => "1 notification".to_owned(),
        many => format!("{many} notifications"),
    }];
    if own {
        notes.push("yours".into());
    }
    if topic.status == TopicStatus::Inactive {
        notes.push("inactive".into());
    }
    let notes = notes.join(", ");
    format!("{}  {}", output.paint(Style::Strong, &topic.name), output.paint(Style::Faint, notes))
}

pub(crate) async fn unsubscribe(client: &Client, output: Output, name: &TopicName) -> Result<(), Failure> {
    let page: TopicPage = client.read(Call::get("/api/topics").query("name", name)).await?;
    let topic = page.topics.into_iter().find(|topic| topic.name == *name).ok_or_else(|| {
        let detail = format!("topic `{name}` not found: `notifyx topics` lists those there are");
        Failure::refused("topic_not_found", detail)
    })?;
    client.send(&Call::delete(format!("/api/subscribers/{}", topic.id))).await?;
    let record = serde_json::json!({ "topic": name, "topic_id": topic.id, "unsubscribed": true });
    output.answer(&record, || {
        format!("unsubscribed from {}: its inbox no longer fills", output.paint(Style::Strong, name))
    })
}
