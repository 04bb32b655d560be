//! The door: decodes, calls one rule, encodes. One file per noun.

mod by_hand;
mod inbox;
mod notifications;
mod subscribers;
mod topics;
mod transactions;

use actix_web::web::{self, Data, ServiceConfig};
use notifyx_chassis::{Schemes, Shared, batch_bodies};
use utoipa::OpenApi;

use crate::Persist;

type Rules = Data<Shared<Persist>>;

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource("/api/topics").get(topics::list).post(topics::create))
        .service(web::resource("/api/topics/join").app_data(batch_bodies()).post(subscribers::join))
        .service(web::resource("/api/topics/heads").app_data(batch_bodies()).post(topics::heads))
        .service(web::resource("/api/topics/{id}").get(topics::get))
        .service(web::resource("/api/topics/{id}/status").post(topics::set_status))
        .service(web::resource("/api/topics/{id}/seen").post(inbox::mark_seen_up_to))
        .service(web::resource("/api/topics/{id}/log").get(notifications::log))
        .service(
            web::resource("/api/subscribers/{topic_id}")
                .get(subscribers::list)
                .post(subscribers::subscribe)
                .delete(subscribers::unsubscribe),
        )
        .service(web::resource("/api/notifications").get(inbox::list).post(notifications::publish))
        .service(web::resource("/api/notifications/unread").get(inbox::unread))
        .service(web::resource("/api/notifications/commit_2pc").post(by_hand::commit_notification))
        .service(web::resource("/api/notifications/rollback_2pc/{request_id}").delete(by_hand::rollback_notification))
        .service(web::resource("/api/prepare_2pc").post(by_hand::prepare))
        .service(web::resource("/api/commit_2pc").post(by_hand::commit))
        .service(web::resource("/api/rollback_2pc").delete(by_hand::rollback))
        .service(web::resource("/api/notifications/{id}/seen").post(inbox::mark_seen))
        .service(
            web::scope("/api/2pc")
                .app_data(batch_bodies())
                .service(web::resource("/prepare").post(transactions::prepare))
                .service(web::resource("/commit").post(transactions::commit))
                .service(web::resource("/rollback").post(transactions::rollback)),
        );
}

/// The description of this door.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Notifyx persist",
        description = "Topics, subscribers, notifications and inboxes; a participant of two-phase commit."
    ),
    paths(
        topics::list,
        topics::create,
        topics::get,
        topics::set_status,
        topics::heads,
        subscribers::list,
        subscribers::subscribe,
        subscribers::unsubscribe,
        subscribers::join,
        notifications::publish,
        notifications::log,
        inbox::list,
        inbox::mark_seen,
        inbox::mark_seen_up_to,
        inbox::unread,
        by_hand::prepare,
        by_hand::commit,
        by_hand::rollback,
        by_hand::commit_notification,
        by_hand::rollback_notification,
        transactions::prepare,
        transactions::commit,
        transactions::rollback
    ),
    modifiers(&Schemes)
)]
pub(crate) struct ApiDoc;
