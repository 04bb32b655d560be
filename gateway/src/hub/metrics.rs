//! What the sockets of this node tell Prometheus.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Shared by the edge, the sessions, the hub and the feed of one gateway.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) sockets: IntGauge,
    pub(crate) handshakes: IntCounterVec,
    pub(crate) endings: IntCounterVec,
    pub(crate) channels: IntGauge,
    pub(crate) joins: IntCounterVec,
    pub(crate) requests: IntCounterVec,
    pub(crate) bad_frames: IntCounter,
    pub(crate) deliveries: IntCounter,
    pub(crate) queued_bytes: IntGauge,
    pub(crate) hints: IntCounterVec,
    pub(crate) followed_topics: IntGauge,
    pub(crate) gaps_filled: IntCounter,
    pub(crate) feed_failures: IntCounter,
}

impl Metrics {
    /// One registry per gateway; a name registered twice is a bug.
    pub(crate) fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("notifyx_gateway_{name}"), help).expect("the name is valid");
            registry.register(Box::new(gauge.clone())).expect("the name is free");
            gauge
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("notifyx_gateway_{name}"), help).expect("the name is valid");
            registry.register(Box::new(counter.clone())).expect("the name is free");
            counter
        };
        let counters = |name: &str, help: &str, label: &str| {
            let options = Opts::new(format!("notifyx_gateway_{name}"), help);
            let counters = IntCounterVec::new(options, &[label]).expect("the name is valid");
            registry.register(Box::new(counters.clone())).expect("the name is free");
            counters
        };
        Self {
            sockets: gauge("sockets", "Open WebSockets."),
            handshakes: counters("handshakes_total", "WebSocket handshakes by HTTP status.", "status"),
            endings: counters("socket_endings_total", "WebSockets the server ended, by reason.", "reason"),
            channels: gauge("channels", "Joined channels."),
            joins: counters("joins_total", "Channel joins by result.", "result"),
            requests: counters("channel_requests_total", "Channel messages by event.", "event"),
            bad_frames: counter("bad_frames_total", "Messages that were no Phoenix frame."),
            deliveries: counter("deliveries_total", "Notification frames handed to sockets."),
            queued_bytes: gauge("queued_bytes", "Bytes that wait for slow sockets."),
            hints: counters("feed_hints_total", "Bus messages by what the feed did with them.", "outcome"),
            followed_topics: gauge("feed_topics", "Topics that this node follows."),
            gaps_filled: counter("feed_gaps_filled_total", "Notifications read from the store because no hint came."),
            feed_failures: counter("feed_failures_total", "Reads of the store that failed and are tried again."),
        }
    }
}
