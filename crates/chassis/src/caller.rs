//! Who is calling: another service (by the cluster's secret, possibly for a user) or a user (by token).
//!
//! A handler that takes a [`Caller`] takes no API key: one that does asks for [`Scoped`](crate::Scoped) instead, and has to
//! check the key's scopes. So no door takes keys by oversight.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{AUTHORIZATION, HeaderMap, X_FORWARDED_FOR},
    web,
};
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use notifyx_model::{Email, Fault, Kind, Token, UserId};
use notifyx_wire::{header, rest::auth::keys::Principal};
use tokio::runtime::Handle;

use crate::{Cluster, Failure, shared};

/// Entries that are looked at: no client is behind so many proxies of ours.
const PROXIES_MAX: usize = 16;

/// Tells whose a token is. Auth answers from its store; the others ask auth, through a cache that follows its revocations.
#[async_trait]
pub trait Identify: Send + Sync {
    /// `None`: no such session or key, or it has ended.
    async fn identify(&self, token: &Token) -> Result<Option<Principal>, Unavailable>;
}

/// Nobody can say now whose a token is.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot check the token now: {0}")]
pub struct Unavailable(pub String);

impl Fault for Unavailable {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }

    fn code(&self) -> &'static str {
        "auth_unavailable"
    }
}

/// Why a caller may not enter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("credentials are missing: send `Authorization: Bearer <token>` (get one by logging in)")]
    Missing,
    #[error("the token is unknown, has expired or was logged out: log in again")]
    BadToken,
    #[error("the API key is unknown, has expired or was revoked: make a new one")]
    BadKey,
    #[error("an API key cannot do this, it needs the user: log in, and send the session's token")]
    KeyRefused,
    #[error("this is a session's token, not an API key: `/api/users/self` tells whose it is")]
    NoKey,
    #[error("the cluster secret is wrong")]
    BadSecret,
    #[error("this is for services of the cluster only")]
    ClusterOnly,
    #[error("this call needs a user: send a token, or name the user beside the cluster secret")]
    NoUser,
    #[error("the header `{0}` is malformed")]
    BadHeader(&'static str),
}

impl Denied {
    /// What to say of a token that stands for nobody.
    pub fn unknown(token: &Token) -> Self {
        if token.is_key() { Self::BadKey } else { Self::BadToken }
    }
}

impl Fault for Denied {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing | Self::BadToken | Self::BadKey | Self::BadSecret | Self::NoUser => Kind::Unauthenticated,
            Self::KeyRefused | Self::ClusterOnly => Kind::Forbidden,
            Self::NoKey | Self::BadHeader(_) => Kind::Invalid,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Missing => "credentials_missing",
            Self::BadToken => "token_invalid",
            Self::BadKey => "key_invalid",
            Self::KeyRefused => "key_refused",
            Self::NoKey => "no_key",
            Self::BadSecret => "cluster_secret_invalid",
            Self::ClusterOnly => "cluster_only",
            Self::NoUser => "user_missing",
            Self::BadHeader(_) => "header_invalid",
        }
    }
}

/// A known user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub email: Email,
}

impl User {
    /// The value of the header in which a service names a user: `<user id> <e-mail>`.
    pub(crate) fn asserted(value: &[u8]) -> Result<Self, Denied> {
        let bad = || Denied::BadHeader(header::ASSERTED_USER);
        let text = std::str::from_utf8(value).map_err(|_| bad())?;
        let (id, email) = text.split_once(' ').ok_or_else(bad)?;
        Ok(Self { id: id.parse().map_err(|_| bad())?, email: Email::parse(email).map_err(|_| bad())? })
    }
}

/// A caller that proved itself, and is not an API key.
#[derive(Clone, Debug)]
pub struct Caller {
    cluster: bool,
    user: Option<User>,
    token: Option<Token>,
    client_address: String,
}

impl Caller {
    /// Another service, that proved itself.
    pub(crate) fn service(user: Option<User>, client_address: String) -> Self {
        Self { cluster: true, user, token: None, client_address }
    }

    /// The user who calls, or for whom a service calls.
    pub fn user(&self) -> Result<&User, Denied> {
        self.user.as_ref().ok_or(Denied::NoUser)
    }

    /// Passes only services of the cluster.
    pub fn cluster(&self) -> Result<(), Denied> {
        if self.cluster { Ok(()) } else { Err(Denied::ClusterOnly) }
    }

    /// The token that was sent, if it was by token.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// The address at the front door.
    pub fn client_address(&self) -> &str {
        &self.client_address
    }
}

/// A caller that need not prove itself: registering, logging in.
#[derive(Clone, Debug)]
pub struct Anyone {
    pub client_address: String,
    /// It carried the cluster's secret.
    pub cluster: bool,
}

/// What a door needs to know its callers; app data.
#[derive(Clone)]
pub(crate) struct Doorkeeper {
    pub(crate) cluster: Cluster,
    pub(crate) identify: Option<Arc<dyn Identify>>,
    pub(crate) runtime: Handle,
    pub(crate) trusted_proxies: Arc<[IpAddr]>,
}

impl FromRequest for Anyone {
    type Error = Failure;
    type Future = std::future::Ready<Result<Self, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let found = doorkeeper(request);
        std::future::ready(
            claimed_cluster(request, &found)
                .map_err(Failure::from)
                .map(|cluster| Self { client_address: told_address(request, &found, cluster), cluster }),
        )
    }
}

impl FromRequest for Caller {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Failure>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let keeper = doorkeeper(request);
        let request = request.clone();
        Box::pin(async move {
            let Entered { cluster, who, token, client_address } = enter(&request, &keeper).await?;
            let user = match who {
                Some(Who::Token(Principal::Key(_))) => return Err(Denied::KeyRefused.into()),
                Some(Who::Token(Principal::User(identity))) => Some(User { id: identity.id, email: identity.email }),
                Some(Who::Asserted(user)) => Some(user),
                None => None,
            };
            Ok(Self { cluster, user, token, client_address })
        })
    }
}

/// What a request proves; which of it is enough is for the types that handlers take to say.
pub(crate) struct Entered {
    pub(crate) cluster: bool,
    pub(crate) who: Option<Who>,
    /// What was sent, if it was a token or a key.
    pub(crate) token: Option<Token>,
    pub(crate) client_address: String,
}

pub(crate) enum Who {
    Token(Principal),
    /// A service says so.
    Asserted(User),
}

pub(crate) async fn enter(request: &HttpRequest, keeper: &Doorkeeper) -> Result<Entered, Failure> {
    let mut cluster = claimed_cluster(request, keeper)?;
    let mut bearer = bearer(request)?;
    if let Some(Credential::Basic(password)) = &bearer {
        // A browser's prompt on /dashboard: an operator types the cluster secret, a user a token.
        if keeper.cluster.matches(password) {
            cluster = true;
            bearer = None;
        }
    }
    let token = match bearer {
        Some(Credential::Bearer(text) | Credential::Basic(text)) => {
            Some(Token::parse(&text).map_err(|_| Denied::BadToken)?)
        }
        None => None,
    };
    let who = match (&token, cluster) {
        (Some(token), _) => Some(Who::Token(identify(keeper, token.clone()).await?)),
        (None, true) => asserted(request)?.map(Who::Asserted),
        (None, false) => return Err(Denied::Missing.into()),
    };
    Ok(Entered { cluster, who, token, client_address: told_address(request, keeper, cluster) })
}

async fn identify(keeper: &Doorkeeper, token: Token) -> Result<Principal, Failure> {
    let sessions = keeper.identify.clone().ok_or(Denied::ClusterOnly)?;
    let unknown = Denied::unknown(&token);
    let found = shared::on(&keeper.runtime, async move { sessions.identify(&token).await }).await?;
    Ok(found.ok_or(unknown)?)
}

enum Credential {
    Bearer(String),
    Basic(String),
}

fn bearer(request: &HttpRequest) -> Result<Option<Credential>, Denied> {
    if let Some(value) = request.headers().get(AUTHORIZATION) {
        let text = value.to_str().map_err(|_| Denied::BadHeader("authorization"))?;
        let (scheme, rest) = text.split_once(' ').ok_or(Denied::BadHeader("authorization"))?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Some(Credential::Bearer(rest.trim().to_owned())));
        }
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let (_, password) =
                decoded.as_deref().and_then(|pair| pair.split_once(':')).ok_or(Denied::BadHeader("authorization"))?;
            return Ok(Some(Credential::Basic(password.to_owned())));
        }
        return Err(Denied::BadHeader("authorization"));
    }
    match request.headers().get(header::DURIAN_TOKEN) {
        Some(value) => {
            let text = value.to_str().map_err(|_| Denied::BadHeader(header::DURIAN_TOKEN))?;
            Ok(Some(Credential::Bearer(text.to_owned())))
        }
        None => Ok(None),
    }
}

fn claimed_cluster(request: &HttpRequest, keeper: &Doorkeeper) -> Result<bool, Denied> {
    match request.headers().get(header::CLUSTER_SECRET) {
        None => Ok(false),
        Some(value) if value.to_str().is_ok_and(|claimed| keeper.cluster.matches(claimed)) => Ok(true),
        Some(_) => Err(Denied::BadSecret),
    }
}

/// Believed because the secret beside it was right.
fn asserted(request: &HttpRequest) -> Result<Option<User>, Denied> {
    request.headers().get(header::ASSERTED_USER).map(|value| User::asserted(value.as_bytes())).transpose()
}

/// A service tells the address that was seen at the front door.
fn told_address(request: &HttpRequest, keeper: &Doorkeeper, cluster: bool) -> String {
    let told = request.headers().get(header::CLIENT_ADDRESS).filter(|_| cluster).and_then(|value| value.to_str().ok());
    match told {
        Some(address) if address.len() <= 64 => address.to_owned(),
        Some(_) | None => client_address(request.peer_addr(), request.headers(), &keeper.trusted_proxies),
    }
}

/// The address of the client: the peer's, or where that is a trusted proxy, the last of `X-Forwarded-For` that is not one.
/// What stands before it anybody may have written, and a header that cannot be read says nothing.
pub fn client_address(peer: Option<SocketAddr>, headers: &HeaderMap, trusted_proxies: &[IpAddr]) -> String {
    let Some(peer) = peer.map(|peer| peer.ip().to_canonical()) else { return "unknown".to_owned() };
    let trusted = |address: &IpAddr| trusted_proxies.iter().any(|proxy| proxy.to_canonical() == *address);
    let client = if trusted(&peer) { forwarded(headers, trusted) } else { None };
    client.unwrap_or(peer).to_string()
}

fn forwarded(headers: &HeaderMap, trusted: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let lines = headers.get_all(X_FORWARDED_FOR).rev();
    let entries = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    for entry in entries.take(PROXIES_MAX) {
        let address = entry.trim().parse::<IpAddr>().ok()?.to_canonical();
        if !trusted(&address) {
            return Some(address);
        }
    }
    None
}

pub(crate) fn doorkeeper(request: &HttpRequest) -> Doorkeeper {
    let keeper = request.app_data::<web::Data<Doorkeeper>>().expect("every door of chassis has its keeper");
    keeper.as_ref().clone()
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn seen(peer: &str, forwarded: &[&str]) -> String {
        let proxies = ["127.0.0.1", "10.0.0.1"].map(|proxy| proxy.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        client_address(Some(peer.parse().unwrap()), &headers, &proxies)
    }

    #[test]
    fn a_trusted_proxy_names_the_client() {
        assert_eq!(seen("127.0.0.1:9", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(seen("127.0.0.1:9", &["198.51.100.1, 203.0.113.9,10.0.0.1"]), "203.0.113.9");
        assert_eq!(seen("127.0.0.1:9", &["198.51.100.1", "2001:db8::9", "10.0.0.1"]), "2001:db8::9");
        assert_eq!(seen("[::ffff:127.0.0.1]:9", &["::ffff:203.0.113.9"]), "203.0.113.9");
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(seen("198.51.100.7:9", &["203.0.113.9"]), "198.51.100.7");
    }

    #[test]
    fn a_header_that_says_nothing_leaves_the_peer() {
        let endless = format!("203.0.113.9{}", ",10.0.0.1".repeat(PROXIES_MAX));
        for line in ["", "unknown", "203.0.113.9,", "203.0.113.9, <b>", "203.0.113.9, \u{e9}", "10.0.0.1", &endless] {
            assert_eq!(seen("127.0.0.1:9", &[line]), "127.0.0.1", "{line:?}");
        }
        assert_eq!(seen("127.0.0.1:9", &[]), "127.0.0.1");
    }
}
