//! What happens around every call: who calls, its trace, its place, its deadline, its measure.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::{
    HeaderMap, Request, Response,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};
use notifyx_wire::{header, trace::TraceContext};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body, codegen::Service, service::Routes};
use tracing::Instrument;

use super::{
    Refused,
    body::Counted,
    methods::{Method, Methods},
    plain, refuse,
};
use crate::{Caller, Cluster, Denied, User, inner::Inner, reply, request::Requests};

/// The most that a call may take, and what it has where it names no deadline: longer than any caller in the house waits.
const CALL_MAX: Duration = Duration::from_secs(30);

const TIMEOUT: &str = "grpc-timeout";

/// What the door knows, for all of its connections.
pub(super) struct Calls {
    pub(super) inner: Arc<Inner>,
    pub(super) cluster: Cluster,
    pub(super) routes: Routes,
    pub(super) methods: Methods,
    pub(super) requests: Requests,
    pub(super) closing: CancellationToken,
}

impl Calls {
    pub(super) async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let told = request.headers().get(header::TRACEPARENT).and_then(|value| value.to_str().ok());
        let trace = told.and_then(TraceContext::parse).map_or_else(TraceContext::begin, TraceContext::child);
        let request_id = trace.request_id();
        let span = tracing::info_span!("request", %request_id, method = %request.method(), path = request.uri().path());
        let answering = async {
            if is_grpc(request.headers()) {
                self.call(request, peer).await
            } else {
                plain::answer(self, &request).await
            }
        };
        let mut response = trace.scope(answering.instrument(span)).await;
        let request_id = HeaderValue::try_from(request_id).expect("digits");
        response.headers_mut().insert(header::REQUEST_ID, request_id);
        response
    }

    async fn call(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let (method, began) = (self.methods.find(request.uri().path()), Instant::now());
        let response = match self.admitted(request, peer, &method).await {
            Ok(response) => response,
            Err(status) => refuse(status),
        };
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
        let seconds = began.elapsed().as_secs_f64();
        self.methods.answered(&method, code, seconds);
        tracing::debug!(code = code as i32, seconds, "answered");
        response
    }

    async fn admitted(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        method: &Method,
    ) -> Result<Response<Body>, Status> {
        if self.closing.is_cancelled() {
            return Err(reply::grpc(&Refused::Stopping));
        }
        if !method.open {
            let caller = self.caller(request.headers(), peer).map_err(|denied| reply::grpc(&denied))?;
            request.extensions_mut().insert(caller);
        }
        let place = self.methods.place(method)?;
        let deadline = deadline(request.headers()).map_err(|denied| reply::grpc(&denied))?;
        // A stream lasts as long as its caller wants; its beginning does not.
        let limit = deadline.map_or(CALL_MAX, |told| told.min(CALL_MAX));
        let response = match timeout(limit, self.routes.clone().call(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => return Err(reply::grpc(&Refused::Late { ms: limit.as_millis() })),
        };
        let closing = method.streams.then_some(&self.closing);
        Ok(response.map(|body| Body::new(Counted::new(body, place, closing))))
    }

    /// A service of the cluster, or nobody.
    fn caller(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<Caller, Denied> {
        let secret = headers.get(header::CLUSTER_SECRET).ok_or(Denied::Missing)?;
        if !secret.to_str().is_ok_and(|claimed| self.cluster.matches(claimed)) {
            return Err(Denied::BadSecret);
        }
        let user = headers.get(header::ASSERTED_USER).map(|value| User::asserted(value.as_bytes())).transpose()?;
        let told = headers.get(header::CLIENT_ADDRESS).and_then(|value| value.to_str().ok());
        let address = told.filter(|address| address.len() <= 64).map(str::to_owned);
        Ok(Caller::service(user, address.unwrap_or_else(|| peer.ip().to_canonical().to_string())))
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// `grpc-timeout`: up to eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Denied> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let parsed = || {
        let text = value.to_str().ok()?;
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let count = digits.parse::<u64>().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(count * 3_600),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return None,
        })
    };
    parsed().map(Some).ok_or(Denied::BadHeader(TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_as_grpc_writes_it() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, text.parse().unwrap());
            deadline(&headers)
        };
        assert_eq!(deadline(&HeaderMap::new()), Ok(None));
        assert_eq!(read("99999999H"), Ok(Some(Duration::from_secs(99_999_999 * 3_600))));
        assert_eq!(read("250m"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(read("0n"), Ok(Some(Duration::ZERO)));
        for bad in ["", "m", "5", "+5m", "999999999m", "5x", "5 m"] {
            assert_eq!(read(bad), Err(Denied::BadHeader(TIMEOUT)), "{bad:?}");
        }
    }
}
