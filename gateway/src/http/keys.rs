//! API keys of the caller: make one, list them, revoke one; and which key a key is.

use actix_web::{HttpResponse, web};
use notifyx_chassis::{Caller, Failure, Json, Scoped};
use notifyx_model::KeyId;
use notifyx_wire::rest::{
    Problem,
    auth::keys::{CreatedKey, KeyIdentity, Keys, NewKey},
    gateway::Done,
};

use super::{Gateway, user};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/keys").get(list).post(create))
        .service(web::resource("/keys/self").get(this))
        .service(web::resource("/keys/{id}").delete(revoke));
}

/// Makes an API key for a service, which may then do what the scopes say and nothing else.
///
/// The answer alone holds the key: it goes into `Authorization: Bearer`, as a session's token does.
#[utoipa::path(post, path = "/api/keys", tag = "keys", request_body = NewKey, responses(
    (status = 201, body = CreatedKey),
    (status = 400, description = "the name, a scope or the end is out of bounds", body = Problem),
    (status = 403, description = "a key makes no keys", body = Problem),
    (status = 409, description = "you have 100 keys that have not expired", body = Problem),
))]
pub(crate) async fn create(gateway: Gateway, caller: Caller, body: Json<NewKey>) -> Result<HttpResponse, Failure> {
    let by = user(&caller)?;
    let created = gateway.run(|live| async move { live.backends.create_key(&by, &body).await }).await?;
    Ok(HttpResponse::Created().json(created))
}

/// The caller's API keys, newest first; never the keys themselves.
#[utoipa::path(get, path = "/api/keys", tag = "keys", responses(
    (status = 200, body = Keys), (status = 401, body = Problem), (status = 403, body = Problem),
))]
pub(crate) async fn list(gateway: Gateway, caller: Caller) -> Result<web::Json<Keys>, Failure> {
    let by = user(&caller)?;
    Ok(web::Json(gateway.run(|live| async move { live.backends.keys(&by).await }).await?))
}

/// Revokes an API key. What was opened with it is closed within a second. It may be repeated.
#[utoipa::path(delete, path = "/api/keys/{id}", tag = "keys", params(("id" = KeyId, Path)), responses(
    (status = 200, body = Done),
    (status = 403, body = Problem),
    (status = 404, description = "you have no such key", body = Problem),
))]
pub(crate) async fn revoke(gateway: Gateway, caller: Caller, id: web::Path<KeyId>) -> Result<web::Json<Done>, Failure> {
    let by = user(&caller)?;
    gateway.run(|live| async move { live.backends.revoke_key(&by, *id).await }).await?;
    Ok(web::Json(Done::YES))
}

/// Which API key calls, whose it is and what it may do: for a service that wants to know what it was given.
#[utoipa::path(get, path = "/api/keys/self", tag = "keys", responses(
    (status = 200, body = KeyIdentity),
    (status = 400, description = "it is a session's token", body = Problem),
    (status = 401, body = Problem),
))]
pub(crate) async fn this(by: Scoped) -> Result<web::Json<KeyIdentity>, Failure> {
    Ok(web::Json(by.key()?.clone()))
}
