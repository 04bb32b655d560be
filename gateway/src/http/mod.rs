//! The REST door: decodes, calls one function, encodes. One file per noun.

mod accounts;
mod counter;
mod description;
mod events;
mod keys;
mod notifications;
mod queues;
mod scheduled;
mod schedules;
mod subscribers;
mod topics;
mod transactions;
mod visitor;

pub(crate) use description::description;

use actix_web::web::{self, ServiceConfig};
use notifyx_chassis::{Failure, Shared, User};
use serde::{Deserialize, Serialize};

use crate::live::Live;

pub(crate) type Gateway = web::Data<Shared<Live>>;

/// Every public route: below `/api`, those of events at the root, and the page to browse them at `/docs`.
pub(crate) fn routes(config: &mut ServiceConfig, live: &Gateway) {
    config.app_data(live.clone());
    config.service(
        web::scope("/api")
            .configure(accounts::routes)
            .configure(keys::routes)
            .configure(topics::routes)
            .configure(subscribers::routes)
            .configure(notifications::routes)
            .configure(scheduled::routes)
            .configure(counter::routes)
            .configure(queues::routes)
            .configure(transactions::routes),
    );
    config.configure(events::routes).configure(schedules::routes);
    config.service(web::redirect("/docs", "/docs/")).service(description::browser());
}

/// A page of a list: `after` is the `next` of the page before.
#[derive(Clone, Debug, Deserialize, Serialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// The `next` of the page before; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    /// At most 500; 50 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
}

/// The user who calls.
fn user(caller: &notifyx_chassis::Caller) -> Result<User, Failure> {
    Ok(caller.user()?.clone())
}
