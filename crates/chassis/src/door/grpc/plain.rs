//! Plain HTTP on the gRPC port: the inner doors of every service.

use std::time::Instant;

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{self, AUTHORIZATION, HeaderName, HeaderValue},
};
use notifyx_wire::{header::CLUSTER_SECRET, rest::Problem};
use tonic::body::Body;

use super::calls::Calls;
use crate::{
    Denied, Failure,
    inner::{PROMPT, Page},
};

pub(super) async fn answer<B>(calls: &Calls, request: &Request<B>) -> Response<Body> {
    let began = Instant::now();
    let path = request.uri().path();
    let (route, answered) = match path {
        "/health" | "/ready" | "/metrics" | "/status" | "/dashboard" => (path, door(calls, request).await),
        _ => {
            let shown: String = path.chars().take(200).collect();
            let nothing = format!("there is nothing at {} {shown}", request.method());
            ("unmatched", Err(Failure::made(404, "route_not_found", nothing)))
        }
    };
    let mut response = match answered {
        Ok(page) => shown(page),
        Err(failure) => refused(&failure, route == "/dashboard"),
    };
    if request.method() == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    let (method, status) = (request.method().as_str(), response.status());
    // A method of the caller's own making is no label.
    let method = if matches!(method, "GET" | "HEAD" | "POST" | "PUT" | "DELETE") { method } else { "other" };
    calls.requests.answered(route, method, status.as_str(), began.elapsed().as_secs_f64());
    response
}

async fn door<B>(calls: &Calls, request: &Request<B>) -> Result<Page, Failure> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Failure::made(405, "method_not_allowed", "this path does not take that method"));
    }
    Ok(match request.uri().path() {
        "/health" => calls.inner.health(),
        "/ready" => calls.inner.ready().await,
        "/metrics" => calls.inner.metrics()?,
        path => {
            enter(calls, request.headers())?;
            if path == "/status" { calls.inner.status().await } else { calls.inner.dashboard().await }
        }
    })
}

/// The cluster's secret: from a service in its header, from an operator's browser as the password of its prompt.
fn enter(calls: &Calls, headers: &HeaderMap) -> Result<(), Denied> {
    if let Some(claimed) = headers.get(CLUSTER_SECRET) {
        let right = claimed.to_str().is_ok_and(|claimed| calls.cluster.matches(claimed));
        return if right { Ok(()) } else { Err(Denied::BadSecret) };
    }
    let Some(value) = headers.get(AUTHORIZATION) else { return Err(Denied::Missing) };
    let password = || {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        let decoded = STANDARD.decode(rest.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        Some(String::from_utf8(decoded).ok()?.split_once(':')?.1.to_owned())
    };
    match password() {
        Some(password) if calls.cluster.matches(&password) => Ok(()),
        Some(_) => Err(Denied::BadSecret),
        None => Err(Denied::ClusterOnly),
    }
}

fn shown(page: Page) -> Response<Body> {
    let mut response = Response::new(Body::new(page.body));
    *response.status_mut() = StatusCode::from_u16(page.status).expect("inner doors use known ones");
    set(&mut response, header::CONTENT_TYPE, page.media_type);
    if let Some(policy) = page.policy {
        set(&mut response, header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn refused(failure: &Failure, prompt: bool) -> Response<Body> {
    let problem = failure.problem();
    let mut response = Response::new(Body::new(serde_json::to_string(problem).expect("a problem is plain data")));
    *response.status_mut() = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    set(&mut response, header::CONTENT_TYPE, Problem::MEDIA_TYPE);
    if problem.status == 401 {
        set(&mut response, header::WWW_AUTHENTICATE, if prompt { PROMPT } else { "Bearer" });
    }
    if problem.status == 405 {
        set(&mut response, header::ALLOW, "GET, HEAD");
    }
    response
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}
