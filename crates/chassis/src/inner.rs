//! The inner doors that every service has: `/health`, `/ready`, `/metrics`, `/status`, `/dashboard`.
//!
//! The first three are for machines and open; the last two show configuration (without secrets) and need a token or the
//! cluster's secret. A browser sends either as the password of its own prompt.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError,
    http::{StatusCode, header},
    web,
};
use notifyx_model::{Clock, Timestamp};
use prometheus::{Registry, TextEncoder};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{Caller, Context, Failure, shared};

/// A check that takes longer says no: a probe wants an answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// What a browser shows where it asks for the dashboard's credentials.
pub(crate) const PROMPT: &str = "Basic realm=\"notifyx: a token or the cluster secret as password\"";

pub(crate) type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;
pub(crate) type Figures = Arc<dyn Fn() -> Value + Send + Sync>;

/// What the inner doors know; app data.
pub(crate) struct Inner {
    name: &'static str,
    clock: Clock,
    started: Timestamp,
    shutdown: CancellationToken,
    runtime: Handle,
    registry: Registry,
    pub(crate) config: Value,
    pub(crate) checks: Vec<(&'static str, Check)>,
    pub(crate) figures: Option<Figures>,
    pub(crate) openapi: Option<utoipa::openapi::OpenApi>,
}

impl Inner {
    pub(crate) fn new(name: &'static str, context: &Context, registry: Registry) -> Self {
        Self {
            name,
            started: context.clock.now(),
            clock: context.clock.clone(),
            shutdown: context.shutdown.clone(),
            runtime: context.runtime.clone(),
            registry,
            config: Value::Null,
            checks: Vec::new(),
            figures: None,
            openapi: None,
        }
    }

    /// The service is about to stop: what it answers from now on is the last on its connection.
    pub(crate) fn is_stopping(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// The process answers: no more is claimed.
    pub(crate) fn health(&self) -> Page {
        Page::json(200, &json!({ "status": "up", "service": self.name, "version": env!("CARGO_PKG_VERSION") }))
    }

    /// 200 where the service can do its work, 503 with what is lacking where not.
    pub(crate) async fn ready(&self) -> Page {
        let checks = self.checks().await;
        let ready = checks.iter().all(|check| check.ok);
        let status = if ready { 200 } else { 503 };
        Page::json(status, &json!({ "ready": ready, "service": self.name, "checks": checks }))
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.checks().await.iter().all(|check| check.ok)
    }

    pub(crate) fn metrics(&self) -> Result<Page, Failure> {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        let body = text.map_err(|error| Failure::made(500, "metrics_broken", error.to_string()))?;
        Ok(Page { status: 200, media_type: "text/plain; version=0.0.4", policy: None, body })
    }

    /// For callers that proved themselves: it shows the configuration.
    pub(crate) async fn status(&self) -> Page {
        Page::json(200, &self.state().await)
    }

    /// The same for people.
    pub(crate) async fn dashboard(&self) -> Page {
        let body = Dashboard { status: &self.state().await }.to_string();
        let policy = Some("default-src 'none'; style-src 'unsafe-inline'");
        Page { status: 200, media_type: "text/html; charset=utf-8", policy, body }
    }

    async fn checks(&self) -> Vec<Checked> {
        let mut done = Vec::with_capacity(self.checks.len() + 1);
        if self.shutdown.is_cancelled() {
            done.push(Checked { name: "running", ok: false, error: Some("the service is stopping".into()) });
        }
        let running = self.checks.iter().map(|(name, check)| {
            let work = check();
            let bounded = async move { tokio::time::timeout(CHECK_TIMEOUT, work).await };
            async move {
                let error = match shared::on(&self.runtime, bounded).await {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error),
                    Err(_) => Some(format!("no answer within {} ms", CHECK_TIMEOUT.as_millis())),
                };
                Checked { name, ok: error.is_none(), error }
            }
        });
        done.extend(futures_util::future::join_all(running).await);
        done
    }

    async fn state(&self) -> Status<'_> {
        let checks = self.checks().await;
        Status {
            service: self.name,
            version: env!("CARGO_PKG_VERSION"),
            ready: checks.iter().all(|check| check.ok),
            started_at: self.started,
            uptime_s: self.clock.now().since(self.started).as_secs(),
            checks,
            figures: self.figures.as_ref().map(|figures| figures()).unwrap_or_default(),
            config: &self.config,
        }
    }
}

/// What an inner door says, whichever server carries it.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) media_type: &'static str,
    /// Content security policy.
    pub(crate) policy: Option<&'static str>,
    pub(crate) body: String,
}

impl Page {
    fn json(status: u16, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).expect("checks, figures and configuration have text keys");
        Self { status, media_type: "application/json", policy: None, body }
    }
}

impl From<Page> for HttpResponse {
    fn from(page: Page) -> Self {
        let status = StatusCode::from_u16(page.status).expect("inner doors use known ones");
        let mut answer = HttpResponseBuilder::new(status);
        answer.content_type(page.media_type);
        if let Some(policy) = page.policy {
            answer.insert_header((header::CONTENT_SECURITY_POLICY, policy));
        }
        answer.body(page.body)
    }
}

#[derive(Serialize)]
struct Checked {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Status<'a> {
    service: &'static str,
    version: &'static str,
    ready: bool,
    started_at: Timestamp,
    uptime_s: u64,
    checks: Vec<Checked>,
    figures: Value,
    config: &'a Value,
}

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        // Some probes ask for the head only.
        .service(web::resource("/health").get(health).head(health))
        .service(web::resource("/ready").get(ready).head(ready))
        .service(web::resource("/metrics").get(metrics))
        .service(web::resource("/status").get(status))
        .service(web::resource("/dashboard").get(dashboard))
        .service(web::resource("/api/openapi.json").get(openapi));
}

async fn health(inner: web::Data<Inner>) -> HttpResponse {
    inner.health().into()
}

async fn ready(inner: web::Data<Inner>) -> HttpResponse {
    inner.ready().await.into()
}

async fn metrics(inner: web::Data<Inner>) -> Result<HttpResponse, Failure> {
    Ok(inner.metrics()?.into())
}

async fn status(inner: web::Data<Inner>, _caller: Caller) -> HttpResponse {
    inner.status().await.into()
}

/// Without credentials the browser asks for them.
async fn dashboard(inner: web::Data<Inner>, request: HttpRequest, caller: Result<Caller, Failure>) -> HttpResponse {
    if let Err(failure) = caller {
        let mut answer = failure.error_response();
        if answer.status() == 401 && !request.headers().contains_key(notifyx_wire::header::CLUSTER_SECRET) {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static(PROMPT));
        }
        return answer;
    }
    inner.dashboard().await.into()
}

async fn openapi(inner: web::Data<Inner>) -> HttpResponse {
    match &inner.openapi {
        Some(api) => HttpResponse::Ok().json(api),
        None => Failure::made(404, "route_not_found", "this service describes no public API").error_response(),
    }
}

/// The dashboard: no script, nothing fetched.
struct Dashboard<'a> {
    status: &'a Status<'a>,
}

impl std::fmt::Display for Dashboard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.status;
        let state = if status.ready { ("ready", "ready") } else { ("not ready", "bad") };
        let head = include_str!("inner/dashboard.html").replace("{service}", status.service);
        write!(f, "{head}<h1>{} <small class={}>{}</small></h1>", status.service, state.1, state.0)?;
        write!(f, "<p>version {} · up {} since {}</p>", status.version, Span(status.uptime_s), status.started_at)?;
        write!(f, "<h2>Checks</h2><table>")?;
        for check in &status.checks {
            let said = check.error.as_deref().unwrap_or("ok");
            write!(f, "<tr><th>{}<td class={}>{}", check.name, if check.ok { "ready" } else { "bad" }, Escaped(said))?;
        }
        write!(f, "</table><h2>Figures</h2>{}<h2>Configuration</h2>{}", Table(&status.figures), Table(status.config))
    }
}

struct Span(u64);

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (days, hours, minutes, seconds) = (self.0 / 86_400, self.0 / 3_600 % 24, self.0 / 60 % 60, self.0 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, _) => write!(f, "{minutes} min {seconds} s"),
            (0, _, _) => write!(f, "{hours} h {minutes} min"),
            _ => write!(f, "{days} d {hours} h"),
        }
    }
}

/// JSON as nested tables.
struct Table<'a>(&'a Value);

impl std::fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let row = |f: &mut std::fmt::Formatter<'_>, key: &str, value: &Value| {
            write!(f, "<tr><th>{}<td>{}", Escaped(key), Table(value))
        };
        match self.0 {
            Value::Null => f.write_str("–"),
            Value::String(text) => Escaped(text).fmt(f),
            Value::Bool(_) | Value::Number(_) => write!(f, "{}", self.0),
            Value::Array(items) => {
                f.write_str("<table>")?;
                items.iter().enumerate().try_for_each(|(i, item)| row(f, &(i + 1).to_string(), item))?;
                f.write_str("</table>")
            }
            Value::Object(map) => {
                f.write_str("<table>")?;
                map.iter().try_for_each(|(key, value)| row(f, key, value))?;
                f.write_str("</table>")
            }
        }
    }
}

struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            c => write!(f, "{c}"),
        })
    }
}
