//! Accounts and sessions: register, log in, log out, who am I.

use actix_web::{HttpResponse, web};
use notifyx_chassis::{Anyone, Caller, Failure, Json};
use notifyx_wire::rest::{
    Problem,
    auth::{Credentials, LoggedIn, Registered},
    gateway::{Done, Myself},
};

use super::{Gateway, user};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/register_user").post(register))
        .service(web::resource("/login").post(log_in))
        .service(web::resource("/logout").post(log_out).delete(log_out))
        .service(web::resource("/users/self").get(myself));
}

/// Registers an account.
#[utoipa::path(post, path = "/api/register_user", tag = "accounts", request_body = Credentials, security(()), responses(
    (status = 201, body = Registered),
    (status = 400, description = "the address or the password is out of bounds", body = Problem),
    (status = 409, description = "the address is taken", body = Problem),
    (status = 429, description = "too many at once", body = Problem),
))]
pub(crate) async fn register(
    gateway: Gateway,
    anyone: Anyone,
    body: Json<Credentials>,
) -> Result<HttpResponse, Failure> {
    let credentials = body.into_inner();
    let registered =
        gateway.run(|live| async move { live.backends.register(&credentials, &anyone.client_address).await }).await?;
    Ok(HttpResponse::Created().json(registered))
}

/// Opens a session: its token goes into `Authorization: Bearer` of every other call.
#[utoipa::path(post, path = "/api/login", tag = "accounts", request_body = Credentials, security(()), responses(
    (status = 200, body = LoggedIn),
    (status = 401, description = "the e-mail address or the password is wrong", body = Problem),
    (status = 429, description = "too many failed logins; `Retry-After` says when to come back", body = Problem),
))]
pub(crate) async fn log_in(
    gateway: Gateway,
    anyone: Anyone,
    body: Json<Credentials>,
) -> Result<web::Json<LoggedIn>, Failure> {
    let credentials = body.into_inner();
    let session =
        gateway.run(|live| async move { live.backends.log_in(&credentials, &anyone.client_address).await }).await?;
    Ok(web::Json(session))
}

/// Ends the session. Sockets opened with its token are closed within a second.
#[utoipa::path(post, path = "/api/logout", tag = "accounts", responses(
    (status = 200, body = Done), (status = 401, body = Problem),
))]
pub(crate) async fn log_out(gateway: Gateway, caller: Caller) -> Result<web::Json<Done>, Failure> {
    if let Some(token) = caller.token().cloned() {
        gateway.run(|live| async move { live.backends.log_out(&token).await }).await?;
    }
    Ok(web::Json(Done::YES))
}

/// Whose token this is.
#[utoipa::path(get, path = "/api/users/self", tag = "accounts", responses(
    (status = 200, body = Myself), (status = 401, body = Problem),
))]
pub(crate) async fn myself(caller: Caller) -> Result<web::Json<Myself>, Failure> {
    let user = user(&caller)?;
    Ok(web::Json(Myself { id: user.id, email: user.email }))
}
