//! Notifications: publish one, read the inbox, mark as seen.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{LOCATION, RETRY_AFTER},
    web,
};
use notifyx_chassis::{Caller, Failure, Json, Query};
use notifyx_model::{NotificationId, TopicName, UserId};
use notifyx_wire::{
    header::IDEMPOTENCY_KEY,
    rest::{
        Problem,
        gateway::{PublishAnswer, PublishRequest},
        persist::{InboxPage, SeenStatus, Unread},
    },
};
use serde::{Deserialize, Serialize};

use super::{Gateway, user};
use crate::{Error, live::Taken};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/notifications").get(inbox).post(publish))
        .service(web::resource("/notifications/unread").get(unread))
        .service(web::resource("/notifications/{id}/seen").post(seen));
}

/// Publishes to every subscriber of a topic, or to some of them.
///
/// With an `Idempotency-Key` the request may be repeated until it is answered: it is published once. With `fire_at` it is published at
/// that time, in the same way and by the same key; until then it can be cancelled.
#[utoipa::path(post, path = "/api/notifications", tag = "notifications", request_body = PublishRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")), responses(
    (status = 201, description = "committed and applied", body = PublishAnswer),
    (status = 202, description = "decided, `Location` tells when it is applied; with `fire_at`: kept for its time, `Location` tells what becomes of it, \
        and the body is a `ScheduledNotification`", body = PublishAnswer),
    (status = 403, description = "only the topic's creator publishes", body = Problem),
    (status = 404, description = "no such topic", body = Problem),
    (status = 409, description = "a final no: the topic is inactive, a recipient is not a subscriber", body = Problem),
    (status = 422, description = "the key was used for another request", body = Problem),
    (status = 429, description = "with `fire_at`: as many events wait as may (`schedule_full`)", body = Problem),
    (status = 503, description = "not published; the same request may be sent again", body = Problem),
))]
pub(crate) async fn publish(
    gateway: Gateway,
    caller: Caller,
    request: HttpRequest,
    body: Json<PublishRequest>,
) -> Result<HttpResponse, Failure> {
    let by = user(&caller)?;
    let key = match request.headers().get(IDEMPOTENCY_KEY) {
        Some(value) => Some(value.to_str().map_err(|_| Error::BadKey)?.to_owned()),
        None => None,
    };
    let taken = gateway.run(|live| async move { live.publish_request(&by, body.into_inner(), key).await }).await?;
    let answer = match taken {
        Taken::Now(answer) => answer,
        Taken::Later(scheduled) => {
            let place = format!("/api/notifications/scheduled/{}", scheduled.id);
            return Ok(HttpResponse::Accepted().insert_header((LOCATION, place)).json(scheduled));
        }
    };
    if answer.offset.is_some() {
        return Ok(HttpResponse::Created().json(answer));
    }
    let place = format!("/api/2pc/{}", answer.gid);
    Ok(HttpResponse::Accepted().insert_header((LOCATION, place)).insert_header((RETRY_AFTER, "1")).json(answer))
}

#[derive(Clone, Debug, Deserialize, Serialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct InboxQuery {
    /// Only of this topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    topic_name: Option<TopicName>,
    /// Only from this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    from_user_id: Option<UserId>,
    /// Only the unread, or only the seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<SeenStatus>,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    after: Option<NotificationId>,
    /// At most 500; 50 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
}

/// The caller's inbox, newest first.
#[utoipa::path(get, path = "/api/notifications", tag = "inbox", params(InboxQuery), responses(
    (status = 200, body = InboxPage), (status = 401, body = Problem),
))]
pub(crate) async fn inbox(
    gateway: Gateway,
    caller: Caller,
    query: Query<InboxQuery>,
) -> Result<web::Json<InboxPage>, Failure> {
    let by = user(&caller)?;
    let page = gateway.run(|live| async move { live.backends.inbox(&by, &query.into_inner()).await }).await?;
    Ok(web::Json(page))
}

/// What the caller has not seen, in total and by topic.
#[utoipa::path(get, path = "/api/notifications/unread", tag = "inbox", responses(
    (status = 200, body = Unread), (status = 401, body = Problem),
))]
pub(crate) async fn unread(gateway: Gateway, caller: Caller) -> Result<web::Json<Unread>, Failure> {
    let by = user(&caller)?;
    Ok(web::Json(gateway.run(|live| async move { live.backends.unread(&by).await }).await?))
}

/// Marks one notification as seen. Idempotent; the answer tells of its topic.
#[utoipa::path(post, path = "/api/notifications/{id}/seen", tag = "inbox", params(("id" = NotificationId, Path)), responses(
    (status = 200, body = Unread), (status = 404, body = Problem),
))]
pub(crate) async fn seen(
    gateway: Gateway,
    caller: Caller,
    id: web::Path<NotificationId>,
) -> Result<web::Json<Unread>, Failure> {
    let by = user(&caller)?;
    Ok(web::Json(gateway.run(|live| async move { live.seen(&by, *id).await }).await?))
}
