//! Who comes to a door of events: a user, an API key, or nobody in particular where the gateway lets anybody in.

use std::{future::Future, pin::Pin};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use notifyx_chassis::{Denied, Failure, Scoped};
use notifyx_model::Fault;

use super::Gateway;
use crate::events::By;

/// Whoever shows credentials is held to them. Without any, it depends on the gateway.
impl FromRequest for By {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Failure>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let open = request.app_data::<Gateway>().is_some_and(|gateway| gateway.rules().anonymous);
        let known = Scoped::from_request(request, payload);
        Box::pin(async move {
            match known.await {
                Ok(by) => {
                    Ok(Self { user: Some(by.user().clone()), scopes: by.key().ok().map(|key| key.scopes.clone()) })
                }
                Err(failure) if open && failure.problem().code == Denied::Missing.code() => Ok(Self::ANYBODY),
                Err(failure) => Err(failure),
            }
        })
    }
}
