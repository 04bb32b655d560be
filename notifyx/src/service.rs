//! The services there are. This program alone knows them all.

use std::net::SocketAddr;

use notifyx_chassis::{Context, Running, StartError};
use notifyx_database::DatabaseUrl;

use crate::settings::Settings;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Discovery,
    Auth,
    Persist,
    Counter2pc,
    Events,
    Gateway,
}

impl Service {
    /// In the order of starting: each needs only those before it. They stop the other way round.
    pub(crate) const ALL: [Self; 6] =
        [Self::Discovery, Self::Auth, Self::Persist, Self::Counter2pc, Self::Events, Self::Gateway];

    /// As the registry, the configuration and the command line call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Auth => "auth",
            Self::Persist => "persist",
            Self::Counter2pc => "counter-2pc",
            Self::Events => "events",
            Self::Gateway => "gateway",
        }
    }

    pub(crate) fn listen(self, settings: &mut Settings) -> &mut SocketAddr {
        match self {
            Self::Discovery => &mut settings.discovery.listen,
            Self::Auth => &mut settings.auth.listen,
            Self::Persist => &mut settings.persist.listen,
            Self::Counter2pc => &mut settings.counter_2pc.listen,
            Self::Events => &mut settings.events.listen,
            Self::Gateway => &mut settings.gateway.listen,
        }
    }

    /// The address under which it is registered; empty: where it listens.
    pub(crate) fn advertise(self, settings: &mut Settings) -> &mut String {
        match self {
            Self::Discovery => &mut settings.discovery.advertise,
            Self::Auth => &mut settings.auth.advertise,
            Self::Persist => &mut settings.persist.advertise,
            Self::Counter2pc => &mut settings.counter_2pc.advertise,
            Self::Events => &mut settings.events.advertise,
            Self::Gateway => &mut settings.gateway.advertise,
        }
    }

    /// Where it keeps what it knows; the registry keeps nothing.
    pub(crate) fn database(self, settings: &mut Settings) -> Option<&mut DatabaseUrl> {
        match self {
            Self::Discovery => None,
            Self::Auth => Some(&mut settings.auth.database),
            Self::Persist => Some(&mut settings.persist.database),
            Self::Counter2pc => Some(&mut settings.counter_2pc.database),
            Self::Events => Some(&mut settings.events.database),
            Self::Gateway => Some(&mut settings.gateway.database),
        }
    }

    pub(crate) async fn start(self, settings: &Settings, context: Context) -> Result<Running, StartError> {
        match self {
            Self::Discovery => notifyx_discovery::start(settings.discovery.clone(), context).await,
            Self::Auth => notifyx_auth::start(settings.auth.clone(), context).await,
            Self::Persist => notifyx_persist::start(settings.persist.clone(), context).await,
            Self::Counter2pc => notifyx_counter_2pc::start(settings.counter_2pc.clone(), context).await,
            Self::Events => notifyx_events::start(settings.events.clone(), context).await,
            Self::Gateway => notifyx_gateway::start(settings.gateway.clone(), context).await,
        }
    }
}
