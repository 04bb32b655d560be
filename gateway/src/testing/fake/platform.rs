//! What the gateway asks of the fake, and what it answers.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use notifyx_chassis::reply;
use notifyx_model::{
    Category, EventId, GivenTime, Notification, NotificationId, TokenHash, TopicId, TopicName, UserId,
};
use notifyx_wire::rest::{
    Problem,
    gateway::{ScheduledNotification, ScheduledState},
    persist::{Head, InboxItem, Log, SeenStatus, Topic, TopicStatus, Unread, UnreadInTopic},
};

use super::{Away, Fake};
use crate::{
    platform::{
        CategoryHead, EventLog, NewPublish, Peer, Platform, Published, SocketCredentials, SocketKey, SocketUser,
    },
    testing::{subscribe, user_of},
};

#[async_trait]
impl Platform for Fake {
    async fn authenticate(&self, credentials: SocketCredentials, _: &str) -> Result<Peer, Problem> {
        self.check()?;
        // The token is the user's id, then one digit that tells its sessions apart; an API key's is `nxk_`, the id, the digit,
        // and what it may subscribe to. It is good for an hour.
        let token = match credentials {
            SocketCredentials::Token(token) => token,
            SocketCredentials::EmailPassword { .. } => return Ok(Peer::User(user_of(UserId::new(&self.clock)))),
        };
        let (key, text) = token.as_str().strip_prefix("nxk_").map_or((false, token.as_str()), |key| (true, key));
        let Some(id) = text.get(..36).and_then(|id| id.parse().ok()) else {
            return Err(Problem { status: 401, ..reply::problem(&Away) });
        };
        let token_hash = TokenHash([text.as_bytes().get(36).copied().unwrap_or_default(); 32]);
        let expires_at = Some(self.clock.now() + Duration::from_secs(3_600));
        Ok(if key {
            Peer::Key(SocketKey { owner: id, token_hash, scopes: subscribe(&text[37..]), expires_at })
        } else {
            let user = SocketUser::clone(&user_of(id));
            Peer::User(Arc::new(SocketUser { token_hash: Some(token_hash), expires_at, ..user }))
        })
    }

    async fn join(&self, name: &TopicName, user: UserId) -> Result<Topic, Problem> {
        self.joins.pass().await;
        self.check()?;
        self.create(name.as_str(), user);
        let mut store = self.store();
        let found = store.topics.get_mut(name).unwrap();
        found.subscribers.insert(user);
        Ok(Topic {
            id: found.id,
            name: name.clone(),
            creator_id: found.creator,
            status: TopicStatus::Active,
            longevity: None,
            offset: found.offset(),
            broadcast_no: found.broadcast_no(),
            trimmed: found.trimmed,
            created_at: self.clock.now(),
        })
    }

    async fn heads(&self, topics: Vec<TopicName>) -> Result<Vec<Head>, Problem> {
        self.check()?;
        let store = self.store();
        let head = |name: &TopicName| {
            store.topics.get(name).map(|found| Head {
                topic: name.clone(),
                topic_id: found.id,
                offset: found.offset(),
                broadcast_no: found.broadcast_no(),
                trimmed: found.trimmed,
            })
        };
        Ok(topics.iter().filter_map(head).collect())
    }

    async fn log(&self, topic_id: TopicId, after: u64, limit: u32) -> Result<Log, Problem> {
        self.logs.pass().await;
        self.check_read()?;
        let store = self.store();
        let found = store.topics.values().find(|t| t.id == topic_id).unwrap();
        let kept = found.log.iter().filter(|n| n.offset > after.max(found.trimmed));
        Ok(Log {
            notifications: kept.take(limit as usize).cloned().collect(),
            offset: found.offset(),
            trimmed: found.trimmed,
        })
    }

    async fn category_head(&self, name: &Category) -> Result<CategoryHead, Problem> {
        self.joins.pass().await;
        self.store().categories.entry(name.clone()).or_default().asked += 1;
        Ok(self.category_heads(vec![name.clone()]).await?.remove(0))
    }

    async fn category_heads(&self, categories: Vec<Category>) -> Result<Vec<CategoryHead>, Problem> {
        self.check()?;
        let store = self.store();
        let head = |category: Category| {
            let (offset, trimmed) =
                store.categories.get(&category).map_or((0, 0), |found| (found.log.len() as u64, found.trimmed));
            CategoryHead { category, offset, trimmed }
        };
        Ok(categories.into_iter().map(head).collect())
    }

    async fn events(&self, name: &Category, after: u64, limit: u32) -> Result<EventLog, Problem> {
        self.logs.pass().await;
        self.check_read()?;
        let store = self.store();
        let Some(found) = store.categories.get(name) else {
            return Ok(EventLog { events: vec![], offset: 0, trimmed: 0 });
        };
        let kept = found.log.iter().filter(|event| event.offset > Some(after.max(found.trimmed)));
        Ok(EventLog {
            events: kept.take(limit as usize).cloned().collect(),
            offset: found.log.len() as u64,
            trimmed: found.trimmed,
        })
    }

    async fn publish(&self, _: &SocketUser, new: NewPublish) -> Result<Published, Problem> {
        self.publishes.pass().await;
        self.check()?;
        let to: Vec<UserId> = new.to.iter().map(|to| to.parse().unwrap()).collect();
        let made = self.commit(new.topic.as_str(), new.message.as_str(), &to);
        self.store().published.push(new.message.as_str().to_owned());
        self.bus.publish(made.clone());
        Ok(Published { id: made.id, offset: Some(made.offset) })
    }

    async fn schedule(
        &self,
        _: &SocketUser,
        new: NewPublish,
        fire_at: GivenTime,
    ) -> Result<ScheduledNotification, Problem> {
        self.check()?;
        let at = fire_at.timestamp("fire_at").unwrap();
        Ok(ScheduledNotification {
            success: true,
            id: EventId::parse("a-scheduled-one").unwrap(),
            topic: new.topic,
            message: new.message,
            to: new.to,
            priority: new.priority,
            key: new.key,
            created_at: self.clock.now(),
            fire_at: at,
            state: ScheduledState::Scheduled,
        })
    }

    async fn inbox(&self, _: &SocketUser, name: &TopicName) -> Result<Vec<InboxItem>, Problem> {
        self.check()?;
        let store = self.store();
        let log = store.topics.get(name).unwrap().log.iter().rev();
        Ok(log.map(|n| InboxItem { notification: n.clone(), status: SeenStatus::Unread }).collect())
    }

    async fn seen(&self, user: &SocketUser, id: NotificationId) -> Result<Unread, Problem> {
        self.store().seen.insert((user.id, id));
        self.unread(user).await
    }

    async fn unread(&self, user: &SocketUser) -> Result<Unread, Problem> {
        self.check()?;
        let store = self.store();
        let mine =
            |n: &&Notification| (n.to.is_empty() || n.to.contains(&user.id)) && !store.seen.contains(&(user.id, n.id));
        let mut topics: Vec<UnreadInTopic> = store
            .topics
            .iter()
            .filter(|(_, t)| t.subscribers.contains(&user.id))
            .map(|(name, t)| UnreadInTopic {
                topic_id: t.id,
                topic: name.clone(),
                unread: t.log.iter().filter(mine).count() as u64,
                broadcast_no: t.broadcast_no(),
                own: t.creator == user.id,
            })
            .collect();
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        Ok(Unread { total: topics.iter().map(|t| t.unread).sum(), topics })
    }

    async fn unsubscribe(&self, user: &SocketUser, name: &TopicName) -> Result<(), Problem> {
        self.check()?;
        self.store().topics.get_mut(name).unwrap().subscribers.remove(&user.id);
        Ok(())
    }
}
