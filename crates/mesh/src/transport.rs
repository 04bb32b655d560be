//! One HTTP exchange with one address: what is added to every request, what is bounded in every answer.
//!
//! It tells apart what was never sent from what may have been received; whether to try again is decided elsewhere.

use std::{error::Error, time::Duration};

use bytes::{Bytes, BytesMut};
use notifyx_model::Secret;
use notifyx_wire::{header, rest::Problem, trace::TraceContext};
use reqwest::{
    Client, Method, Response, Url,
    header::{HeaderMap, HeaderValue, RETRY_AFTER},
    redirect,
};

use crate::{Call, call::Terms};

/// Within one data centre a connection takes milliseconds; a lost first packet is repeated after a second.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_200);
/// The doors keep idle connections for 75 s: the side that closes first must be the one that would write next.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A full page of the longest messages; more is a peer gone wrong, and must not fill the memory.
const ANSWER_BYTES_MAX: usize = 96 * 1024 * 1024;

#[derive(Clone, Debug)]
pub(crate) struct Transport {
    client: Client,
    secret: Option<HeaderValue>,
}

pub(crate) struct Received {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

#[derive(Debug)]
pub(crate) enum Failed {
    /// No connection came about: nothing was sent.
    NotSent(String),
    /// It broke off after something may have been sent.
    Cut(String),
    /// The answer was not HTTP, or not bounded.
    Broken(String),
}

impl Failed {
    pub(crate) fn why(self) -> String {
        match self {
            Self::NotSent(why) | Self::Cut(why) | Self::Broken(why) => why,
        }
    }
}

impl Transport {
    pub(crate) fn new(secret: &Secret) -> Self {
        let client = Client::builder()
            // A proxy from the environment is for the outside world.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .user_agent(concat!("notifyx/", env!("CARGO_PKG_VERSION")))
            .build()
            .expect("no setting of the client can fail");
        let secret = HeaderValue::from_bytes(secret.expose().as_bytes()).ok().filter(|value| !value.is_empty());
        let secret = secret.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self { client, secret }
    }

    /// `base` is `http://host:port`. Without a deadline of its own: the caller has one.
    pub(crate) async fn exchange(&self, base: &str, call: &Call) -> Result<Received, Failed> {
        let url = Url::parse(&format!("{base}{}", call.path))
            .map_err(|error| Failed::NotSent(format!("`{base}{}` is not an address: {error}", call.path)))?;
        let mut request = self.client.request(call.method.clone(), url).headers(self.headers(&call.terms));
        if !call.query.is_empty() {
            request = request.query(&call.query);
        }
        if !call.body.is_empty() || call.method == Method::POST || call.method == Method::PUT {
            request = request.body(call.body.clone());
        }
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        Ok(Received { status, retry_after, body: body(response).await? })
    }

    /// What is sent with every call, whatever carries it: its own headers, the cluster's secret, the trace.
    pub(crate) fn headers(&self, terms: &Terms) -> HeaderMap {
        let mut headers = terms.headers.clone();
        if let Some(secret) = &self.secret {
            headers.insert(header::CLUSTER_SECRET, secret.clone());
        }
        let trace = TraceContext::current().map_or_else(TraceContext::begin, TraceContext::child);
        let trace = HeaderValue::try_from(trace.to_string()).expect("digits and dashes");
        headers.insert(header::TRACEPARENT, trace);
        headers
    }
}

async fn body(mut response: Response) -> Result<Bytes, Failed> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Failed::Broken(format!("it has more than {ANSWER_BYTES_MAX} bytes")));
        }
        if body.is_empty() && response.content_length() == Some(chunk.len() as u64) {
            return Ok(chunk);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn failed(error: reqwest::Error) -> Failed {
    let (connect, error) = (error.is_connect(), error.without_url());
    // The last cause says it: "Connection refused (os error 111)".
    let mut why: &dyn Error = &error;
    while let Some(cause) = why.source() {
        why = cause;
    }
    if connect { Failed::NotSent(why.to_string()) } else { Failed::Cut(why.to_string()) }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    // Services of the house send seconds, never a date.
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// The problem in a refusal; where the body holds none, one that says so.
pub(crate) fn problem(service: &str, received: &Received) -> Problem {
    match serde_json::from_slice::<Problem>(&received.body) {
        Ok(told) => Problem { status: received.status, ..told },
        Err(_) => Problem {
            success: false,
            status: received.status,
            title: "Refused".into(),
            code: "refused".into(),
            detail: format!("the service `{service}` answered {} without a reason", received.status),
            request_id: None,
        },
    }
}
