//! The methods that are known here, and how they do. Only these become labels, whatever paths callers make up.

use std::{collections::HashMap, sync::Arc};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

use super::Refused;
use crate::reply;

/// Calls answered at a time, without streams. Each waits for the store; more would only wait longer.
const CALLS_MAX: usize = 2_048;
/// Streams open at a time: a few per service that watches.
const STREAMS_MAX: usize = 1_024;
/// Probes at a time, calls and streams. They are answered without a secret, so they take no place from those who have it.
const PROBES_MAX: usize = 64;

/// `grpc.health.v1`: for probes, that have no secret.
const OPEN: &str = "/grpc.health.v1.Health/";

#[derive(Clone, Debug)]
pub(super) struct Method {
    /// `/package.Service/Method`.
    path: Arc<str>,
    pub(super) streams: bool,
    /// Takes anybody.
    pub(super) open: bool,
}

pub(super) struct Methods {
    known: HashMap<Arc<str>, Method>,
    unknown: Method,
    count: IntCounterVec,
    seconds: HistogramVec,
    calls: (Arc<Semaphore>, IntGauge),
    streams: (Arc<Semaphore>, IntGauge),
    probes: (Arc<Semaphore>, IntGauge),
}

/// A call's right to be answered; given back when dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    gauge: IntGauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Methods {
    pub(super) fn new(registry: &Registry, descriptors: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        let mut known = HashMap::new();
        for encoded in descriptors {
            for file in FileDescriptorSet::decode(*encoded)?.file {
                for service in &file.service {
                    for method in &service.method {
                        let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                        let (path, open) = (Arc::<str>::from(path.as_str()), path.starts_with(OPEN));
                        let streams = method.client_streaming() || method.server_streaming();
                        known.insert(path.clone(), Method { path, streams, open });
                    }
                }
            }
        }
        let unknown = Method { path: "unmatched".into(), streams: false, open: false };
        let count = IntCounterVec::new(Opts::new("notifyx_grpc_calls_total", "calls answered"), &["method", "code"]);
        // From a look-up in memory to a batch that waits for its deadline.
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let seconds = HistogramVec::new(
            HistogramOpts::new("notifyx_grpc_call_seconds", "time to answer; of a stream, to begin").buckets(buckets),
            &["method"],
        );
        let calls = IntGauge::new("notifyx_grpc_calls_in_flight", "calls being answered");
        let streams = IntGauge::new("notifyx_grpc_streams", "streams that are open");
        let (count, seconds) = (count.expect("valid name"), seconds.expect("valid name"));
        let probes = IntGauge::new("notifyx_grpc_probes", "probes being answered, or that watch");
        let (calls, streams) = (calls.expect("valid name"), streams.expect("valid name"));
        let probes = probes.expect("valid name");
        registry.register(Box::new(count.clone())).expect("one door per registry");
        registry.register(Box::new(seconds.clone())).expect("one door per registry");
        registry.register(Box::new(calls.clone())).expect("one door per registry");
        registry.register(Box::new(streams.clone())).expect("one door per registry");
        registry.register(Box::new(probes.clone())).expect("one door per registry");
        let calls = (Arc::new(Semaphore::new(CALLS_MAX)), calls);
        let streams = (Arc::new(Semaphore::new(STREAMS_MAX)), streams);
        let probes = (Arc::new(Semaphore::new(PROBES_MAX)), probes);
        Ok(Self { known, unknown, count, seconds, calls, streams, probes })
    }

    pub(super) fn find(&self, path: &str) -> Method {
        self.known.get(path).unwrap_or(&self.unknown).clone()
    }

    /// Room for one more call, at once or not at all.
    pub(super) fn place(&self, method: &Method) -> Result<Place, Status> {
        let ((places, gauge), max) = match method {
            Method { open: true, .. } => (&self.probes, PROBES_MAX),
            Method { streams: true, .. } => (&self.streams, STREAMS_MAX),
            _ => (&self.calls, CALLS_MAX),
        };
        let permit = places.clone().try_acquire_owned().map_err(|_| reply::grpc(&Refused::TooMany { max }))?;
        gauge.inc();
        Ok(Place { _permit: permit, gauge: gauge.clone() })
    }

    /// Calls whose answers have not gone out, without streams and probes.
    pub(super) fn unanswered(&self) -> i64 {
        self.calls.1.get()
    }

    pub(super) fn answered(&self, method: &Method, code: Code, seconds: f64) {
        self.count.with_label_values(&[&*method.path, name(code)]).inc();
        self.seconds.with_label_values(&[&*method.path]).observe(seconds);
    }
}

/// As the specification writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use notifyx_wire::grpc;

    use super::*;

    #[test]
    fn a_call_is_missed_where_it_is_cut_and_a_stream_is_not() {
        let methods = Methods::new(&Registry::new(), &[grpc::DESCRIPTORS]).unwrap();
        let find = |name| methods.find(&format!("/notifyx.events.v1.Events/{name}"));
        let _stream = methods.place(&find("Watch")).unwrap();
        assert_eq!(methods.unanswered(), 0);
        let call = methods.place(&find("Append")).unwrap();
        assert_eq!(methods.unanswered(), 1);
        drop(call);
        assert_eq!(methods.unanswered(), 0);
    }
}
