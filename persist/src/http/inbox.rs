//! The caller's inbox: listing, unread counts, marking as seen.

#![expect(unused_qualifications, reason = "what utoipa writes for query parameters")]

use std::sync::Arc;

use actix_web::web::{Path, Query};
use notifyx_chassis::{Caller, Failure, Json};
use notifyx_model::{NotificationId, TopicId, TopicName, UserId};
use notifyx_wire::rest::{
    Problem,
    persist::{InboxPage, SeenStatus, Unread},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Rules;
use crate::{Persist, inbox::Filter};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only of this topic.
    #[param(value_type = Option<String>)]
    topic_name: Option<TopicName>,
    /// Only from this user.
    from_user_id: Option<UserId>,
    /// Only unread, or only seen.
    #[param(inline)]
    status: Option<SeenStatus>,
    /// The `next` of the page before.
    after: Option<NotificationId>,
    /// 1 to 500; 50 where nothing is said.
    limit: Option<u32>,
}

/// The caller's inbox, newest first: what was published to its subscriptions since they began, to every subscriber or to the
/// caller. Newest means committed last. A page may be shorter than its limit where messages are long: `next` tells whether
/// there are more.
#[utoipa::path(get, path = "/api/notifications", tag = "inbox", params(ListQuery), security(("token" = [])), responses(
    (status = 200, body = InboxPage),
    (status = 400, body = Problem, description = "`query_invalid`, `limit_invalid`"),
    (status = 404, body = Problem, description = "`topic_not_found`; `notification_not_found`: `after` is gone, begin anew"),
))]
pub(super) async fn list(rules: Rules, caller: Caller, query: Query<ListQuery>) -> Result<Json<InboxPage>, Failure> {
    let user = caller.user()?.id;
    let ListQuery { topic_name, from_user_id, status, after, limit } = query.into_inner();
    let filter = Filter { topic: topic_name, from: from_user_id, status, after, limit };
    Ok(Json(rules.run(|persist| async move { persist.inboxes.list(user, filter).await }).await?))
}

/// Unread, in total and for every topic the caller is subscribed to.
#[utoipa::path(get, path = "/api/notifications/unread", tag = "inbox", security(("token" = [])), responses(
    (status = 200, body = Unread),
))]
pub(super) async fn unread(rules: Rules, caller: Caller) -> Result<Json<Unread>, Failure> {
    let user = caller.user()?.id;
    Ok(Json(rules.run(|persist| async move { persist.inboxes.unread(user).await }).await?))
}

/// Mark one notification as seen. A repetition changes nothing. The answer is of its topic alone.
#[utoipa::path(post, path = "/api/notifications/{id}/seen", tag = "inbox", params(("id" = NotificationId, Path)),
    security(("token" = [])), responses(
    (status = 200, body = Unread),
    (status = 404, body = Problem, description = "`notification_not_found`: there is none, or not for the caller"),
    (status = 409, body = Problem, description = "`too_many_exceptions`: mark all up to an offset instead"),
))]
pub(super) async fn mark_seen(rules: Rules, caller: Caller, id: Path<NotificationId>) -> Result<Json<Unread>, Failure> {
    let user = caller.user()?.id;
    Ok(Json(rules.run(|persist| async move { persist.inboxes.mark_seen(user, *id).await }).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UpTo {
    /// The last offset seen; above the topic's newest it means all.
    up_to: u64,
}

/// Mark everything of a topic up to an offset as seen. A repetition, or a lower offset, changes nothing. The answer is of this
/// topic alone.
#[utoipa::path(post, path = "/api/topics/{id}/seen", tag = "inbox", params(("id" = TopicId, Path), UpTo),
    security(("token" = [])), responses(
    (status = 200, body = Unread),
    (status = 404, body = Problem, description = "`topic_not_found`, `not_subscribed`"),
))]
pub(super) async fn mark_seen_up_to(
    rules: Rules,
    caller: Caller,
    id: Path<TopicId>,
    query: Query<UpTo>,
) -> Result<Json<Unread>, Failure> {
    let user = caller.user()?.id;
    let work = |persist: Arc<Persist>| async move { persist.inboxes.mark_seen_up_to(user, *id, query.up_to).await };
    Ok(Json(rules.run(work).await?))
}
