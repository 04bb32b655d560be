//! The door: decodes, calls one rule, encodes.

#![expect(unused_qualifications, reason = "what utoipa writes for query parameters")]

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpResponse,
    web::{self, Data, Path, Query},
};
use notifyx_chassis::{Anyone, Caller, Denied, Failure, Json, Shared};
use notifyx_model::UserId;
use notifyx_wire::rest::{
    Problem,
    auth::{Credentials, Identity, LoggedIn, LoggedOut, Registered, Resolve, Resolved, Revocations, User, UserPage},
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use utoipa::{
    IntoParams, Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use crate::{accounts::Accounts, sessions::Sessions};

/// What the door calls.
pub(crate) struct Auth {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) sessions: Arc<Sessions>,
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
))]
async fn itself(rules: Rules, caller: Caller) -> Result<Json<Identity>, Failure> {
    let token = caller.token().ok_or(Denied::NoUser)?.clone();
    let found = rules.run(|auth| async move { auth.sessions.identify(&token).await }).await?;
    Ok(Json(found.ok_or(Denied::BadToken)?))
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
    info(title = "Notifyx auth", description = "Accounts, sessions and the log of revocations."),
    paths(register, login, logout, itself, get, list, verify, resolve, revocations, noop),
    modifiers(&Schemes)
)]
pub(crate) struct ApiDoc;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        let secret = ApiKeyValue::new(notifyx_wire::header::CLUSTER_SECRET);
        components.add_security_scheme("cluster", SecurityScheme::ApiKey(ApiKey::Header(secret)));
    }
}

#[cfg(test)]
mod tests;
