//! What the sockets of this node tell Prometheus.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Shared by the edge, the sessions, the hub and the feeds of one gateway.
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
    pub(crate) topics: FeedMetrics,
    pub(crate) categories: FeedMetrics,
}

/// Of one feed.
#[derive(Clone, Debug)]
pub(crate) struct FeedMetrics {
    pub(crate) followed: IntGauge,
    pub(crate) hints: HintMetrics,
    pub(crate) gaps_filled: IntCounter,
    pub(crate) failures: IntCounter,
    pub(crate) begun_anew: IntCounter,
}

/// Messages that hints told of, by what the feed did with them.
#[derive(Clone, Debug)]
pub(crate) struct HintMetrics {
    pub(crate) taken: IntCounter,
    pub(crate) double: IntCounter,
    pub(crate) unfollowed: IntCounter,
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
        let labelled = |name: &str, help: &str, labels: &[&str]| {
            let options = Opts::new(format!("notifyx_gateway_{name}"), help);
            let counters = IntCounterVec::new(options, labels).expect("the name is valid");
            registry.register(Box::new(counters.clone())).expect("the name is free");
            counters
        };
        let counters = |name: &str, help: &str, label: &str| labelled(name, help, &[label]);
        let hints =
            labelled("feed_hints_total", "Hints by stream and by what the feed did with them.", &["stream", "outcome"]);
        let gaps = counters("feed_gaps_filled_total", "Messages read from the store because no hint came.", "stream");
        let failures = counters("feed_failures_total", "Reads of the store that failed and are tried again.", "stream");
        let anew = counters(
            "feed_begun_anew_total",
            "Streams whose log was put back to an older state, or whose feed broke off: who listened begins anew.",
            "stream",
        );
        let feed = |kind: &'static str, followed: IntGauge| FeedMetrics {
            followed,
            hints: HintMetrics {
                taken: hints.with_label_values(&[kind, "taken"]),
                double: hints.with_label_values(&[kind, "double"]),
                unfollowed: hints.with_label_values(&[kind, "unfollowed"]),
            },
            gaps_filled: gaps.with_label_values(&[kind]),
            failures: failures.with_label_values(&[kind]),
            begun_anew: anew.with_label_values(&[kind]),
        };
        Self {
            sockets: gauge("sockets", "Open WebSockets and streams of Server-Sent Events."),
            handshakes: counters("handshakes_total", "WebSocket handshakes by HTTP status.", "status"),
            endings: counters(
                "socket_endings_total",
                "WebSockets and streams that the server ended, by reason.",
                "reason",
            ),
            channels: gauge("channels", "Joined channels."),
            joins: counters("joins_total", "Channel joins by result.", "result"),
            requests: counters("channel_requests_total", "Channel messages by event.", "event"),
            bad_frames: counter("bad_frames_total", "Messages that were no Phoenix frame."),
            deliveries: counter("deliveries_total", "Notifications and events handed to sockets."),
            queued_bytes: gauge("queued_bytes", "Bytes that wait for slow sockets."),
            topics: feed("topic", gauge("feed_topics", "Topics that this node follows.")),
            categories: feed("category", gauge("feed_categories", "Categories of events that this node follows.")),
        }
    }
}
