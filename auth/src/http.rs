//! The door: decodes, calls one rule, encodes.

#![expect(unused_qualifications, reason = "what utoipa writes for query parameters")]

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpResponse,
    web::{self, Data, Path, Query},
};
use notifyx_chassis::{Anyone, Caller, Denied, Failure, Json, Schemes, Scoped, Shared};
use notifyx_model::{KeyId, UserId};
use notifyx_wire::rest::{
    Problem,
    auth::{
        Credentials, Identity, LoggedIn, LoggedOut, Registered, Resolve, Resolved, Revocations, User, UserPage,
        keys::{CreatedKey, KeyIdentity, Keys as Listed, NewKey, Principal},
    },
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, OpenApi};

use crate::{accounts::Accounts, keys::Keys, sessions::Sessions};

/// What the door calls.
pub(crate) struct Auth {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) keys: Arc<Keys>,
    /// Ends what waits for news when the service stops.
    pub(crate) stopping: CancellationToken,
}

type Rules = Data<Shared<Auth>>;

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/users").get(list).post(register))
        .service(web::resource("/api/users/login").post(login))
        .service(web::resource("/api/users/logout").delete(logout))
        .service(web::resource("/api/users/self").get(itself))
        .service(web::resource("/api/users/verify").post(verify))
        .service(web::resource("/api/users/resolve").post(resolve))
        .service(web::resource("/api/users/{id}").get(get))
        .service(web::resource("/api/keys").get(list_keys).post(create_key))
        .service(web::resource("/api/keys/self").get(this_key))
        .service(web::resource("/api/keys/{id}").delete(revoke_key))
        .service(web::resource("/api/revocations").get(revocations))
        .service(web::resource("/api/noop").get(noop));
}

/// Make an account.
#[utoipa::path(post, path = "/api/users", tag = "users", request_body = Credentials, responses(
    (status = 201, body = Registered),
    (status = 400, body = Problem, description = "`body_invalid`, `password_invalid`"),
    (status = 409, body = Problem, description = "`email_taken`"),
    (status = 503, body = Problem, description = "`login_busy`: try again after `Retry-After`"),
))]
async fn register(rules: Rules, _: Anyone, body: Json<Credentials>) -> Result<HttpResponse, Failure> {
    let user = rules.run(|auth| async move { auth.accounts.register(body.into_inner()).await }).await?;
    Ok(HttpResponse::Created().json(Registered { success: true, id: user.id, email: user.email }))
}

/// Log in: opens a session and answers with its token.
#[utoipa::path(post, path = "/api/users/login", tag = "users", request_body = Credentials, responses(
    (status = 200, body = LoggedIn),
    (status = 401, body = Problem, description = "`credentials_wrong`, whichever of the two was wrong"),
    (status = 429, body = Problem, description = "`login_limited`: too many failures of the account or address"),
    (status = 503, body = Problem, description = "`login_busy`: try again after `Retry-After`"),
))]
async fn login(rules: Rules, caller: Anyone, body: Json<Credentials>) -> Result<Json<LoggedIn>, Failure> {
    let work = |auth: Arc<Auth>| async move { auth.sessions.login(&body, &caller.client_address).await };
    Ok(Json(rules.run(work).await?))
}

/// Log out: the token ends here at once, everywhere within a second.
#[utoipa::path(delete, path = "/api/users/logout", tag = "users", security(("token" = [])), responses(
    (status = 200, body = LoggedOut),
    (status = 401, body = Problem, description = "`credentials_missing`, `token_invalid`"),
))]
async fn logout(rules: Rules, caller: Caller) -> Result<Json<LoggedOut>, Failure> {
    let token = caller.token().ok_or(Denied::NoUser)?.clone();
    rules.run(|auth| async move { auth.sessions.logout(&token).await }).await?;
    Ok(Json(LoggedOut { success: true }))
}

/// Whose the token is.
#[utoipa::path(get, path = "/api/users/self", tag = "users", security(("token" = [])), responses(
    (status = 200, body = Identity),
    (status = 401, body = Problem, description = "`credentials_missing`, `token_invalid`"),
    (status = 403, body = Problem, description = "`key_refused`: it is an API key"),
))]
async fn itself(rules: Rules, caller: Caller) -> Result<Json<Identity>, Failure> {
    let token = caller.token().ok_or(Denied::NoUser)?.clone();
    match rules.run(|auth| async move { auth.sessions.identify(&token).await }).await? {
        Some(Principal::User(identity)) => Ok(Json(identity)),
        // Ended since the door let it in.
        Some(Principal::Key(_)) | None => Err(Denied::BadToken.into()),
    }
}

/// One user.
#[utoipa::path(get, path = "/api/users/{id}", tag = "users", params(("id" = UserId, Path)),
    security(("token" = []), ("cluster" = [])), responses(
    (status = 200, body = User),
    (status = 404, body = Problem, description = "`user_not_found`"),
))]
async fn get(rules: Rules, _: Caller, id: Path<UserId>) -> Result<Json<User>, Failure> {
    Ok(Json(rules.run(|auth| async move { auth.accounts.get(*id).await }).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// The last id of the page before.
    after: Option<UserId>,
    /// 1 to 500; 50 where nothing is said.
    limit: Option<u32>,
}

/// All users, by id, in pages.
#[utoipa::path(get, path = "/api/users", tag = "users", params(ListQuery),
    security(("token" = []), ("cluster" = [])), responses(
    (status = 200, body = UserPage),
))]
async fn list(rules: Rules, _: Caller, query: Query<ListQuery>) -> Result<Json<UserPage>, Failure> {
    Ok(Json(rules.run(|auth| async move { auth.accounts.list(query.after, query.limit).await }).await?))
}

/// Check credentials without opening a session: for sockets that connect with them. Limited like a login.
#[utoipa::path(post, path = "/api/users/verify", tag = "cluster", request_body = Credentials,
    security(("cluster" = [])), responses(
    (status = 200, body = Identity),
    (status = 401, body = Problem, description = "`credentials_wrong`"),
    (status = 429, body = Problem, description = "`login_limited`"),
    (status = 503, body = Problem, description = "`login_busy`"),
))]
async fn verify(rules: Rules, caller: Caller, body: Json<Credentials>) -> Result<Json<Identity>, Failure> {
    caller.cluster()?;
    let work = |auth: Arc<Auth>| async move { auth.sessions.verify(&body, caller.client_address()).await };
    Ok(Json(rules.run(work).await?))
}

/// People by e-mail address or id, at most 1,000 together; those that do not exist are left out.
#[utoipa::path(post, path = "/api/users/resolve", tag = "cluster", request_body = Resolve,
    security(("cluster" = [])), responses(
    (status = 200, body = Resolved),
    (status = 400, body = Problem, description = "`too_many_people`"),
))]
async fn resolve(rules: Rules, caller: Caller, body: Json<Resolve>) -> Result<Json<Resolved>, Failure> {
    caller.cluster()?;
    let users = rules.run(|auth| async move { auth.accounts.resolve(&body).await }).await?;
    Ok(Json(Resolved { users }))
}

/// Make an API key for the calling user. The answer alone holds it.
#[utoipa::path(post, path = "/api/keys", tag = "keys", request_body = NewKey,
    security(("token" = []), ("cluster" = [])), responses(
    (status = 201, body = CreatedKey),
    (status = 400, body = Problem, description = "`body_invalid`, `key_end_invalid`"),
    (status = 403, body = Problem, description = "`key_refused`: a key makes no keys"),
    (status = 409, body = Problem, description = "`too_many_keys`: 100 that have not expired"),
))]
async fn create_key(rules: Rules, caller: Caller, body: Json<NewKey>) -> Result<HttpResponse, Failure> {
    let user = caller.user()?.id;
    let created = rules.run(|auth| async move { auth.keys.create(user, body.into_inner()).await }).await?;
    Ok(HttpResponse::Created().json(created))
}

/// The calling user's API keys, newest first.
#[utoipa::path(get, path = "/api/keys", tag = "keys", security(("token" = []), ("cluster" = [])), responses(
    (status = 200, body = Listed),
    (status = 403, body = Problem, description = "`key_refused`"),
))]
async fn list_keys(rules: Rules, caller: Caller) -> Result<Json<Listed>, Failure> {
    let user = caller.user()?.id;
    Ok(Json(rules.run(|auth| async move { auth.keys.list(user).await }).await?))
}

/// Revoke one of the calling user's API keys: it ends here at once, everywhere within a second. May be repeated.
#[utoipa::path(delete, path = "/api/keys/{id}", tag = "keys", params(("id" = KeyId, Path)),
    security(("token" = []), ("cluster" = [])), responses(
    (status = 200, body = LoggedOut),
    (status = 403, body = Problem, description = "`key_refused`"),
    (status = 404, body = Problem, description = "`key_not_found`: also where it is another user's"),
))]
async fn revoke_key(rules: Rules, caller: Caller, id: Path<KeyId>) -> Result<Json<LoggedOut>, Failure> {
    let user = caller.user()?.id;
    rules.run(|auth| async move { auth.keys.revoke(user, *id).await }).await?;
    Ok(Json(LoggedOut { success: true }))
}

/// Which API key this is, whose, and what it may do.
#[utoipa::path(get, path = "/api/keys/self", tag = "keys", security(("token" = [])), responses(
    (status = 200, body = KeyIdentity),
    (status = 400, body = Problem, description = "`no_key`: it is a session's token"),
    (status = 401, body = Problem, description = "`credentials_missing`, `key_invalid`"),
))]
async fn this_key(by: Scoped) -> Result<Json<KeyIdentity>, Failure> {
    Ok(Json(by.key()?.clone()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RevocationsQuery {
    /// The last number seen. Absent: answer with the head only.
    after: Option<u64>,
    /// How long to wait for news; at most 30,000.
    #[serde(default)]
    wait_ms: u64,
}

/// The log of revocations, by long-poll. An answer that does not follow on `after` means: clear your cache.
#[utoipa::path(get, path = "/api/revocations", tag = "cluster", params(RevocationsQuery),
    security(("cluster" = [])), responses(
    (status = 200, body = Revocations),
    (status = 503, body = Problem, description = "`revocations_behind`: do not take silence for \"none\""),
))]
async fn revocations(
    rules: Rules,
    caller: Caller,
    query: Query<RevocationsQuery>,
) -> Result<Json<Revocations>, Failure> {
    caller.cluster()?;
    let wait = Duration::from_millis(query.wait_ms);
    let work = |auth: Arc<Auth>| async move { auth.sessions.revoked(query.after, wait, &auth.stopping).await };
    Ok(Json(rules.run(work).await?))
}

/// Does nothing: what the door itself costs.
#[utoipa::path(get, path = "/api/noop", tag = "users", responses((status = 204)))]
async fn noop() -> HttpResponse {
    HttpResponse::NoContent().finish()
}

/// The description of this door.
#[derive(OpenApi)]
#[openapi(
    info(title = "Notifyx auth", description = "Accounts, sessions, API keys and the log of revocations."),
    paths(
        register, login, logout, itself, get, list, verify, resolve, create_key, list_keys, revoke_key, this_key,
        revocations, noop
    ),
    modifiers(&Schemes)
)]
pub(crate) struct ApiDoc;

#[cfg(test)]
mod tests;
