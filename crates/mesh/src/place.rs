//! A service's place in the registry, from before its door is open to after it has left.

use std::{
    collections::BTreeMap,
    fmt,
    future::{Ready, ready},
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use tokio_util::sync::CancellationToken;

use crate::{Lease, Mesh};

/// Made before the door, so that readiness can ask about it; taken once the door's address is known. Cheap to clone.
#[derive(Clone)]
pub struct Place {
    mesh: Mesh,
    service: &'static str,
    lease: Arc<OnceLock<Lease>>,
}

impl Place {
    pub fn new(mesh: &Mesh, service: &'static str) -> Self {
        Self { mesh: mesh.clone(), service, lease: Arc::default() }
    }

    /// Enters the registry, if there is one. `advertise` is `host:port` as the others reach it; empty: where it listens.
    /// Needs the shared runtime.
    pub fn take(&self, advertise: &str, bound: SocketAddr, shutdown: &CancellationToken) {
        if self.mesh.registry().bases.is_empty() {
            return;
        }
        let address = if advertise.is_empty() { bound.to_string() } else { advertise.to_owned() };
        let keep = || Lease::keep(&self.mesh, self.service, address, BTreeMap::new(), shutdown.child_token());
        self.lease.get_or_init(keep);
    }

    /// Being found by the others is a condition of being ready: `door.ready("registry", place.readiness())`. Without a registry
    /// there is nothing to wait for.
    pub fn readiness(&self) -> impl Fn() -> Ready<Result<(), String>> + Send + Sync + 'static {
        let place = self.clone();
        move || {
            let found = place.mesh.registry().bases.is_empty() || place.lease.get().is_some_and(Lease::is_held);
            ready(if found { Ok(()) } else { Err("not in the registry yet".to_owned()) })
        }
    }

    /// Leaves at once, in bounded time.
    pub async fn leave(&self) {
        if let Some(lease) = self.lease.get() {
            lease.release().await;
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("service", &self.service).finish_non_exhaustive()
    }
}
