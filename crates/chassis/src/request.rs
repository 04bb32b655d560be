//! What happens around every request: its trace, its log line, its measure.

use std::time::Instant;

use actix_web::{
    Error, HttpMessage, ResponseError,
    body::{BodySize, BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        ConnectionType, StatusCode,
        header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};
use notifyx_wire::{header, rest::Problem, trace::TraceContext};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};
use tracing::Instrument;

use crate::{Failure, door::BODY_BYTES_MAX, inner::Inner};

/// Requests by route pattern, method and status; app data.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    count: IntCounterVec,
    seconds: HistogramVec,
    in_flight: IntGauge,
}

impl Requests {
    pub(crate) fn new(registry: &Registry) -> Self {
        let count = IntCounterVec::new(
            Opts::new("notifyx_http_requests_total", "requests answered"),
            &["route", "method", "status"],
        );
        // From a cached look-up to a publish that waits for its deadline.
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let seconds = HistogramVec::new(
            HistogramOpts::new("notifyx_http_request_seconds", "time to answer").buckets(buckets),
            &["route"],
        );
        let in_flight = IntGauge::new("notifyx_http_requests_in_flight", "requests being answered");
        let (count, seconds, in_flight) =
            (count.expect("valid name"), seconds.expect("valid name"), in_flight.expect("valid name"));
        registry.register(Box::new(count.clone())).expect("one door per registry");
        registry.register(Box::new(seconds.clone())).expect("one door per registry");
        registry.register(Box::new(in_flight.clone())).expect("one door per registry");
        Self { count, seconds, in_flight }
    }

    pub(crate) fn answered(&self, route: &str, method: &str, status: &str, seconds: f64) {
        self.count.with_label_values(&[route, method, status]).inc();
        self.seconds.with_label_values(&[route]).observe(seconds);
    }
}

/// Middleware of every door: `App::new().wrap(from_fn(observe))`.
pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let told = request.headers().get(header::TRACEPARENT).and_then(|value| value.to_str().ok());
    let trace = told.and_then(TraceContext::parse).map_or_else(TraceContext::begin, TraceContext::child);
    let request_id = trace.request_id();
    let span = tracing::info_span!("request", %request_id, method = %request.method(), path = request.path());
    let requests = request.app_data::<web::Data<Requests>>().cloned();
    let method = request.method().to_string();
    let started = Instant::now();
    request.extensions_mut().insert(trace);
    if let Some(requests) = &requests {
        requests.in_flight.inc();
    }
    let answered = trace.scope(next.call(request).instrument(span.clone())).await;
    if let Some(requests) = &requests {
        requests.in_flight.dec();
    }
    let mut response = answered?.map_into_boxed_body();
    let status = response.status();
    if status == StatusCode::METHOD_NOT_ALLOWED
        && matches!(response.response().body().size(), BodySize::None | BodySize::Sized(0))
    {
        // actix answers a resource's other methods itself, and says nothing.
        let allowed = response.headers().get(ALLOW).cloned();
        let said = trace.scope(async { method_not_allowed().error_response() }).await;
        response = response.into_response(said);
        if let Some(allowed) = allowed {
            response.headers_mut().insert(ALLOW, allowed);
        }
    }
    if status == StatusCode::PAYLOAD_TOO_LARGE && !is_problem(&response) {
        // A handler that takes the raw body: actix counts the bytes and answers in plain text.
        let said = Failure::made(413, "body_too_large", format!("the body has more than {BODY_BYTES_MAX} bytes"));
        response = response.into_response(trace.scope(async { said.error_response() }).await);
    }
    if response.request().app_data::<web::Data<Inner>>().is_some_and(|inner| inner.is_stopping()) {
        // Or a busy client would go on over its connection until the drain's end cuts it in the middle of a request.
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(HeaderName::from_static(header::REQUEST_ID), value);
    }
    let route = response.request().match_pattern().unwrap_or_else(|| "unmatched".to_owned());
    let seconds = started.elapsed().as_secs_f64();
    if let Some(requests) = requests {
        requests.answered(&route, &method, status.as_str(), seconds);
    }
    let _entered = span.enter();
    tracing::debug!(status = status.as_u16(), seconds, "answered");
    Ok(response)
}

fn is_problem(response: &ServiceResponse<BoxBody>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == Problem::MEDIA_TYPE)
}

pub(crate) fn method_not_allowed() -> Failure {
    Failure::made(405, "method_not_allowed", "this path does not take that method")
}
