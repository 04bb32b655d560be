//! What can go wrong, by what the caller can do about it.

use notifyx_model::{Fault, InstanceId, Kind, ServiceName};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("the service `{0}` has no instance")]
    ServiceNotFound(ServiceName),
    /// Its lease ran out, or this registry was restarted.
    #[error("the instance {0} is not registered: register it again")]
    InstanceNotFound(InstanceId),
    #[error("the instance {instance} is registered as `{service}`")]
    InstanceTaken { instance: InstanceId, service: ServiceName },
    #[error("address `{address}` {why}")]
    Address { address: String, why: &'static str },
    #[error("meta {0}")]
    Meta(String),
    #[error("the registry holds {max} {what} already")]
    Full { max: usize, what: &'static str },
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::ServiceNotFound(_) | Self::InstanceNotFound(_) => Kind::NotFound,
            Self::InstanceTaken { .. } => Kind::Conflict,
            Self::Address { .. } | Self::Meta(_) => Kind::Invalid,
            Self::Full { .. } => Kind::TooMany,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::ServiceNotFound(_) => "service_not_found",
            Self::InstanceNotFound(_) => "instance_not_found",
            Self::InstanceTaken { .. } => "instance_taken",
            Self::Address { .. } => "address_invalid",
            Self::Meta(_) => "meta_invalid",
            Self::Full { .. } => "registry_full",
        }
    }
}
