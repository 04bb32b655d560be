//! The description of the public API, made from the code, and the page to browse it.

use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    accounts, counter, events, keys, notifications, queues, scheduled, schedules, subscribers, topics, transactions,
};
use crate::edge::sse;

#[derive(OpenApi)]
#[openapi(
    info(title = "Notifyx", description = "Publish once: it reaches every subscriber. Errors are `application/problem+json` (RFC 9457)."),
    paths(
        accounts::register,
        accounts::log_in,
        accounts::log_out,
        accounts::myself,
        keys::create,
        keys::list,
        keys::revoke,
        keys::this,
        topics::list,
        topics::create,
        topics::get,
        topics::set_status,
        topics::seen_up_to,
        subscribers::subscribe,
        subscribers::list,
        subscribers::unsubscribe,
        notifications::publish,
        notifications::inbox,
        notifications::unread,
        notifications::seen,
        scheduled::list,
        scheduled::get,
        scheduled::reschedule,
        scheduled::cancel,
        counter::own,
        counter::of_topic,
        events::post,
        events::list,
        events::get,
        events::reschedule,
        events::cancel,
        sse::stream,
        queues::list,
        queues::get,
        schedules::create,
        schedules::list,
        schedules::get,
        schedules::delete,
        schedules::pause,
        schedules::resume,
        schedules::run,
        transactions::status,
        transactions::list,
        transactions::retry,
        transactions::resolve,
    ),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        let cluster = ApiKey::Header(ApiKeyValue::new(notifyx_wire::header::CLUSTER_SECRET));
        components.add_security_scheme("cluster", SecurityScheme::ApiKey(cluster));
    }
}

pub(crate) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// `/docs/`: reads `/api/openapi.json`, which chassis serves. Its files are compiled in: nothing is fetched from elsewhere.
pub(super) fn browser() -> SwaggerUi {
    SwaggerUi::new("/docs/{_:.*}").config(Config::from("/api/openapi.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_public_path_is_described() {
        let api = serde_json::to_value(description()).unwrap();
        let paths: Vec<_> = api["paths"].as_object().unwrap().keys().cloned().collect();
        for expected in [
            "/api/register_user",
            "/api/login",
            "/api/keys",
            "/api/keys/{id}",
            "/api/keys/self",
            "/api/notifications",
            "/api/notifications/scheduled",
            "/api/notifications/scheduled/{id}",
            "/api/2pc",
            "/api/2pc/{gid}",
            "/api/2pc/{gid}/retry",
            "/api/2pc/{gid}/resolve",
            "/api/topics/{id}/seen",
            "/events",
            "/events/{id}",
            "/events/{category}/stream",
            "/api/queues",
            "/api/queues/{category}",
            "/schedules",
            "/schedules/{id}",
            "/schedules/{id}/pause",
            "/schedules/{id}/resume",
            "/schedules/{id}/run",
        ] {
            assert!(paths.iter().any(|path| path == expected), "{expected} is not among {paths:?}");
        }
    }
}
