//! Keeps this instance in the registry for as long as it runs.

use std::{collections::BTreeMap, time::Duration};

use notifyx_model::{InstanceId, ServiceName};
use notifyx_wire::rest::discovery::Register;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Mesh, registry};

/// How long leaving may take: an instance that could not leave is forgotten when its lease runs out.
const LEAVE: Duration = Duration::from_secs(1);
/// A registry that grants less than three times this is not renewed faster.
const RENEWAL_MIN: Duration = Duration::from_millis(20);

/// A place in the registry. Dropping it ends the renewals; [`Lease::release`] leaves at once.
#[derive(Debug)]
pub struct Lease {
    instance: InstanceId,
    held: watch::Receiver<bool>,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Lease {
    /// Registers `address` (`host:port`, as the others reach it) with every registry of the mesh, and renews each third of
    /// the lease; a registry that is away is asked again until it is there. Ends, and leaves the registry, when
    /// `shutdown` is cancelled or the mesh stops.
    #[expect(clippy::needless_pass_by_value, reason = "what a service hands over is the lease's")]
    pub fn keep(
        mesh: &Mesh,
        service: &'static str,
        address: impl ToString,
        meta: BTreeMap<String, String>,
        shutdown: CancellationToken,
    ) -> Self {
        let instance = InstanceId::new(mesh.clock());
        let (tell, held) = watch::channel(false);
        let (stop, ended) = (shutdown.child_token(), CancellationToken::new());
        let service = ServiceName::parse(service).expect("services of the house have valid names");
        let register = Register { service, address: address.to_string(), instance: Some(instance), meta };
        let mut keepers = tokio::task::JoinSet::new();
        for base in mesh.registry().bases.iter() {
            let keeper = Keeper {
                registry: mesh.registry().clone(),
                base: base.clone(),
                register: register.clone(),
                held: tell.clone(),
                stop: stop.clone(),
                mesh_stops: mesh.stopping().clone(),
            };
            keepers.spawn(keeper.keep(instance));
        }
        let end = ended.clone().drop_guard();
        mesh.spawn(async move {
            let _ = keepers.join_all().await;
            drop(end);
        });
        Self { instance, held, stop, ended }
    }

    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Whether a registry has taken this instance: a condition of being ready. It stays true while the registry is away,
    /// as the others keep its last list.
    pub fn is_held(&self) -> bool {
        *self.held.borrow()
    }

    /// Waits until a registry has this instance, or the lease has ended.
    pub async fn held(&self) {
        let mut held = self.held.clone();
        // An error: the keepers are gone, so nothing more will come.
        let _ = held.wait_for(|held| *held).await;
    }

    /// Leaves the registry, so that nobody calls any more. Bounded to a second.
    pub async fn release(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Keeps the instance in one registry.
struct Keeper {
    registry: registry::Registry,
    base: String,
    register: Register,
    held: watch::Sender<bool>,
    stop: CancellationToken,
    mesh_stops: CancellationToken,
}

impl Keeper {
    async fn keep(self, instance: InstanceId) {
        tokio::select! {
            () = self.renew() => {}
            () = self.stop.cancelled() => {}
            () = self.mesh_stops.cancelled() => {}
        }
        let left = tokio::time::timeout(LEAVE, self.registry.release(&self.base, instance)).await;
        if !matches!(left, Ok(Ok(()))) {
            info!(
                "{} {instance} could not leave the registry {}: its lease runs out",
                self.register.service, self.base
            );
        }
    }

    /// Registers again and again: to register the same instance is to renew, and a registry that has forgotten it,
    /// because it was restarted, learns of it anew.
    async fn renew(&self) {
        let mut failures = 0_u32;
        loop {
            let wait = match self.registry.register(&self.base, &self.register).await {
                Ok(lease) => {
                    failures = 0;
                    self.held.send_replace(true);
                    (Duration::from_millis(lease.lease_ms) / 3).max(RENEWAL_MIN)
                }
                Err(why) => {
                    if failures == 0 {
                        warn!("{} is not registered with {}: {why}", self.register.service, self.base);
                    }
                    failures = failures.saturating_add(1);
                    registry::pause(failures)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }
}
