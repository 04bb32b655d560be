//! Bodies of the registry.

use std::collections::BTreeMap;

use notifyx_model::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /api/register`. The same instance again renews the lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    pub service: ServiceName,
    /// `host:port` of its HTTP door.
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// At most 16 pairs of at most 256 bytes each.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
}

/// The answer: renew well before `lease_ms` has passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    pub instance: InstanceId,
    pub lease_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    pub instance: InstanceId,
    pub service: ServiceName,
    pub address: String,
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// Since the last renewal.
    pub age_ms: u64,
}

/// `GET /api/services` and `GET /api/watch?after=VERSION&wait_ms=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Services {
    /// Grows with every change of who is there (renewals change nothing).
    pub version: u64,
    pub instances: Vec<Instance>,
}

/// `GET /api/service_address/{service}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceAddress {
    pub address: String,
    pub instance: InstanceId,
}

/// One entry of `GET /prometheus/targets`: Prometheus' HTTP service discovery format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetGroup {
    pub targets: Vec<String>,
    pub labels: BTreeMap<String, String>,
}
