//! Header names that services agree on.

/// The cluster's secret: who sends it is a service and may assert a user.
pub const CLUSTER_SECRET: &str = "x-notifyx-cluster";
/// The user a service acts for: `<user id> <e-mail>`. Believed only beside a valid [`CLUSTER_SECRET`].
pub const ASSERTED_USER: &str = "x-notifyx-user";
/// The address of the person at the front door, for limits per address. Believed likewise.
pub const CLIENT_ADDRESS: &str = "x-notifyx-client";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// The request's id, echoed in every answer: the trace id in hexadecimal.
pub const REQUEST_ID: &str = "x-request-id";
/// The name under which older clients send the bearer token.
pub const DURIAN_TOKEN: &str = "durian-token";
/// Makes a publish safe to repeat: the same key and body are the same notification.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
