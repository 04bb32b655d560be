//! What is asked of a service, and what it answers.

use std::{fmt, time::Duration};

use bytes::Bytes;
use notifyx_model::{Email, Token, UserId};
use notifyx_wire::header;
use reqwest::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::CallError;

/// A request to a service by name: `Call::post("/api/topics").json(&topic).user(id, &email)`.
#[derive(Clone)]
pub struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    pub(crate) terms: Terms,
}

/// What a call over HTTP and one over gRPC have in common.
#[derive(Clone, Default)]
pub(crate) struct Terms {
    pub(crate) headers: HeaderMap,
    pub(crate) deadline: Option<Duration>,
    pub(crate) idempotent: bool,
    pub(crate) once: bool,
}

impl Terms {
    /// Who is sent with the cluster's secret is believed.
    pub(crate) fn user(&mut self, id: UserId, email: &Email) {
        self.header(header::ASSERTED_USER, &format!("{id} {email}"));
    }

    pub(crate) fn client(&mut self, address: &str) {
        self.header(header::CLIENT_ADDRESS, address);
    }

    fn header(&mut self, name: &'static str, value: &str) {
        if let Ok(mut value) = HeaderValue::from_bytes(value.as_bytes()) {
            value.set_sensitive(name == AUTHORIZATION.as_str());
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }
}

impl Call {
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path.into()).idempotent()
    }

    /// Not taken for idempotent: say so with [`Call::idempotent`] where it is.
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path.into())
    }

    pub fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path.into()).idempotent()
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path.into()).idempotent()
    }

    fn new(method: Method, path: String) -> Self {
        debug_assert!(path.starts_with('/'), "a path begins with a slash: {path}");
        Self { method, path, query: Vec::new(), body: Bytes::new(), terms: Terms::default() }
    }

    /// Adds a pair to the query string, encoded.
    #[must_use]
    pub fn query(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    #[must_use]
    pub fn json(mut self, body: &impl Serialize) -> Self {
        self.body = serde_json::to_vec(body).expect("wire shapes have text keys, so they serialise").into();
        self.header(CONTENT_TYPE.as_str(), "application/json")
    }

    /// Asserts the user for whom the call is made. Believed because of the cluster's secret.
    #[must_use]
    pub fn user(mut self, id: UserId, email: &Email) -> Self {
        self.terms.user(id, email);
        self
    }

    /// The address of the person at the front door.
    #[must_use]
    pub fn client(mut self, address: &str) -> Self {
        self.terms.client(address);
        self
    }

    /// The user's own token.
    #[must_use]
    pub fn bearer(self, token: &Token) -> Self {
        self.header(AUTHORIZATION.as_str(), &format!("Bearer {}", token.as_str()))
    }

    /// A value that no header can hold is left out: the peer then misses it, and says so.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.terms.header(name, value);
        self
    }

    /// All tries together end within this time; two seconds (`call_ms`) where nothing is said.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.terms.deadline = Some(deadline);
        self
    }

    /// Twice does no more than once: the call may be repeated when its outcome is not known.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.terms.idempotent = true;
        self
    }

    /// One try has the whole deadline: for a long poll, which would rather be asked anew.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.terms.once = true;
        self
    }
}

/// Neither headers nor body: they hold tokens and messages.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({} {})", self.method, self.path)
    }
}

/// An answer of success.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
    pub(crate) service: &'static str,
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // serde_json's words quote no more of the body than a value's type and place.
            CallError::Broken { service: self.service, why: error.to_string() }
        })
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({} of `{}`, {} bytes)", self.status, self.service, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let token = Token::parse(&"t".repeat(43)).unwrap();
        let call = Call::post("/api/x").bearer(&token).json(&"salary");
        assert_eq!(format!("{call:?}"), "Call(POST /api/x)");
        assert!(call.terms.headers[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn an_address_beyond_ascii_is_carried() {
        let email = Email::parse("jürgen@example.org").unwrap();
        let id = UserId::from_uuid(uuid::Uuid::nil());
        let call = Call::get("/").user(id, &email);
        let expected = "00000000-0000-0000-0000-000000000000 jürgen@example.org";
        assert_eq!(call.terms.headers[header::ASSERTED_USER].as_bytes(), expected.as_bytes());
    }
}
