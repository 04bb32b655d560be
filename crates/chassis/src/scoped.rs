//! Who publishes or listens to events: a user, or a service that shows an API key of a user.

use std::{borrow::Borrow, future::Future, pin::Pin};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use notifyx_model::{OutOfScope, Timestamp, Token, Verb};
use notifyx_wire::rest::auth::keys::{KeyIdentity, Principal};

use crate::{
    Denied, Failure, User,
    caller::{Entered, Who, doorkeeper, enter},
};

/// A caller that is a user or an API key. A handler that takes it asks [`Scoped::check`] before it touches a category.
#[derive(Clone, Debug)]
pub struct Scoped {
    user: User,
    key: Option<KeyIdentity>,
    token: Option<Token>,
    expires_at: Option<Timestamp>,
    client_address: String,
}

impl Scoped {
    /// The user, or the user whose key it is.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// Passes users, and keys of which a scope covers the category: `by.check(Verb::Publish, &event.category)?`.
    pub fn check<N: Borrow<str> + ?Sized>(&self, verb: Verb, category: &N) -> Result<(), OutOfScope> {
        self.key.as_ref().map_or(Ok(()), |key| key.scopes.check(verb, category))
    }

    /// Passes only keys.
    pub fn key(&self) -> Result<&KeyIdentity, Denied> {
        self.key.as_ref().ok_or(Denied::NoKey)
    }

    /// What was sent: a stream that is opened with it ends when it is revoked.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// When the session or the key ends by itself, and with it what was opened.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// The address at the front door.
    pub fn client_address(&self) -> &str {
        &self.client_address
    }
}

impl FromRequest for Scoped {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Failure>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let keeper = doorkeeper(request);
        let request = request.clone();
        Box::pin(async move {
            let Entered { who, token, client_address, cluster: _ } = enter(&request, &keeper).await?;
            let (user, expires_at, key) = match who {
                Some(Who::Token(principal)) => {
                    let user = User { id: principal.user_id(), email: principal.email().clone() };
                    let expires_at = principal.expires_at();
                    let key = match principal {
                        Principal::Key(key) => Some(key),
                        Principal::User(_) => None,
                    };
                    (user, expires_at, key)
                }
                Some(Who::Asserted(user)) => (user, None, None),
                None => return Err(Denied::NoUser.into()),
            };
            Ok(Self { user, key, token, expires_at, client_address })
        })
    }
}
