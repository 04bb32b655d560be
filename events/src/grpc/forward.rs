//! To the instance that drives the schedule: it knows at once of what it is told, the others would find it within a second.
//!
//! Handing on is a short cut, never a condition: where the holder is not known, or cannot be reached, the call is served here.

use std::{sync::Arc, time::Duration};

use notifyx_chassis::{User, grpc, reply};
use notifyx_mesh::{CallError, Line, Mesh, Rpc};
use notifyx_model::{Fault, Kind};
use notifyx_wire::grpc::events::events_client::EventsClient;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tracing::warn;

use crate::{Events, NAME};

/// Longer than 10,000 events take, shorter than a caller waits: there has to be time left to do it here.
const HOLDER_MAX: Duration = Duration::from_secs(5);

/// To learn who the holder is: one row. A store that takes longer will be slow in all else.
const LOOK_MAX: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Forward {
    mesh: Mesh,
    rules: Arc<Events>,
}

/// What follows if it is not known whether the holder did it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Doing it here as well changes nothing.
    Harmless,
    /// The second time finds it done and says no: the caller is to know that it is not known.
    Harmful,
}

/// For whom a call is handed on.
pub(super) struct Forwarded(Option<User>);

impl Forwarded {
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        Ok(Self(grpc::caller(request)?.user().ok().cloned()))
    }
}

impl super::Desk {
    /// Who to ask instead, unless the call was handed on already.
    pub(super) fn forwarding(&self, forwarded: bool) -> Option<&Forward> {
        self.forward.as_ref().filter(|forward| !forwarded && !forward.rules.plan.drives())
    }
}

impl Forward {
    pub(super) fn new(mesh: Mesh, rules: Arc<Events>) -> Self {
        Self { mesh, rules }
    }

    /// The holder's answer; `None`: it is for this instance to answer.
    pub(super) async fn ask<R, T, Fut>(
        &self,
        user: Forwarded,
        repeat: Repeat,
        request: R,
        call: impl Fn(EventsClient<Line>, R) -> Fut,
    ) -> Result<Option<T>, Status>
    where
        R: Clone,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let Some(holder) = self.holder().await else { return Ok(None) };
        let mut instances = self.mesh.instances(NAME);
        let Some(peer) = instances.next().await.into_iter().find(|peer| peer.address == holder) else {
            return Ok(None);
        };
        let mut terms = Rpc::new().deadline(HOLDER_MAX);
        if let Some(user) = user.0 {
            terms = terms.user(user.id, &user.email);
        }
        let ask = |line| {
            let client = EventsClient::new(line)
                .max_decoding_message_size(grpc::MESSAGE_BYTES_MAX)
                .max_encoding_message_size(grpc::MESSAGE_BYTES_MAX);
            call(client, request.clone())
        };
        match self.mesh.rpc_at(NAME, peer.instance, terms, ask).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if is_refusal(&error) || (repeat == Repeat::Harmful && !error.is_undelivered()) => {
                Err(reply::grpc(&error))
            }
            Err(error) => {
                warn!(%holder, "the holder of the schedule's lease does not answer, so this instance does: {error}");
                Ok(None)
            }
        }
    }

    /// Where the one listens that drives the schedule.
    async fn holder(&self) -> Option<String> {
        timeout(LOOK_MAX, self.rules.schedule.holder()).await.ok()?.ok()?
    }
}

/// The holder judged the call, and this instance would judge alike.
fn is_refusal(error: &CallError) -> bool {
    matches!(error, CallError::Refused(..)) && error.kind() != Kind::Unavailable
}
