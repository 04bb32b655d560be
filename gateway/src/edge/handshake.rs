//! The WebSocket handshake: what a request must bring before a socket is opened for it.
//!
//! Pure: a request's head in, a handshake or a refusal out. Who is refused hears it as HTTP, before any frame.

use actix_http::{RequestHead, header, ws};
use base64::{Engine, alphabet, engine::DecodePaddingMode, engine::GeneralPurpose, engine::GeneralPurposeConfig};
use notifyx_chassis::Denied;
use notifyx_model::{Category, Email, Fault, Invalid, Kind, Token};
use notifyx_wire::phoenix::Version;
use url::{Url, form_urlencoded};

use super::wanted::Wanted;
use crate::{access::Barred, platform::SocketCredentials};

/// The path of Phoenix sockets; clients are given `/socket` and append the rest.
pub(super) const PATH: &str = "/socket/websocket";

/// Below it each category has a plain socket of its own.
pub(super) const EVENTS_PATH: &str = "/ws/events/";

/// What client 1.8 puts before its `authToken` among the protocols it offers.
const TOKEN_PROTOCOL: &str = "base64url.bearer.phx.";
const PHOENIX_PROTOCOL: &str = "phoenix";

/// Who may come in at all.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    /// Pages of other hosts that may connect: `https://app.example.org`; `*` for all.
    pub(super) allowed_origins: Vec<String>,
    /// Also who shows no credentials.
    pub(super) anonymous: bool,
}

/// A request that may become a socket, once its credentials are found good.
#[derive(Debug)]
pub(super) struct Handshake {
    /// `None` where it shows none and needs none.
    pub(super) credentials: Option<SocketCredentials>,
    pub(super) speaks: Speaks,
    accept: String,
    /// The client offered the protocol `phoenix` and wants to see it chosen.
    phoenix: bool,
}

/// What is spoken over a socket.
#[derive(Debug)]
pub(super) enum Speaks {
    Phoenix,
    /// One JSON object per event of a category, above an offset or from now on.
    Events {
        category: Category,
        from: Option<u64>,
    },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is no WebSocket at this path: connect to `{PATH}` or to `{EVENTS_PATH}` and a category")]
    Path,
    #[error("{0}")]
    Category(Invalid),
    #[error("category is not UTF-8")]
    CategoryNotUtf8,
    #[error("`from` is `{0}`, not an offset: send the last one you have, or none")]
    From(String),
    #[error("this is not a WebSocket handshake: {0}")]
    NotWebSocket(String),
    #[error("only version 2 of the Phoenix serializer is spoken: connect with `vsn=2.0.0`")]
    Version,
    #[error("pages of `{0}` may not connect: add the origin to `allowed_origins`")]
    Origin(String),
    #[error("credentials are missing or malformed: connect with `token`, or with `email` and `password`")]
    Credentials,
    #[error("credentials are missing: connect with `?token=`, or send `Authorization: Bearer <token>`")]
    NoToken,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Barred(#[from] Barred),
    #[error("the credentials are wrong or no longer valid")]
    Wrong,
    #[error("this node holds as many sockets as it may")]
    Full,
    #[error("this node is about to stop")]
    Stopping,
    #[error("the credentials could not be checked in time")]
    Late,
}

impl Fault for Refusal {
    fn kind(&self) -> Kind {
        match self {
            Self::Path => Kind::NotFound,
            Self::NotWebSocket(_) | Self::Category(_) | Self::CategoryNotUtf8 | Self::From(_) => Kind::Invalid,
            Self::NoToken => Kind::Unauthenticated,
            Self::Denied(denied) => denied.kind(),
            Self::Barred(barred) => barred.kind(),
            Self::Version | Self::Origin(_) | Self::Credentials | Self::Wrong => Kind::Forbidden,
            Self::Full | Self::Stopping | Self::Late => Kind::Unavailable,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Path => "route_not_found",
            Self::Category(_) | Self::CategoryNotUtf8 => "category_invalid",
            Self::From(_) => "from_invalid",
            Self::Denied(denied) => denied.code(),
            Self::Barred(barred) => barred.code(),
            Self::NotWebSocket(_) => "handshake_invalid",
            Self::Version => "version_not_spoken",
            Self::Origin(_) => "origin_not_allowed",
            Self::Credentials | Self::NoToken => "credentials_missing",
            Self::Wrong => "credentials_invalid",
            Self::Full => "sockets_max_reached",
            Self::Stopping => "stopping",
            Self::Late => "auth_unavailable",
        }
    }
}

impl Handshake {
    pub(super) fn parse(head: &RequestHead, entry: &Entry) -> Result<Self, Refusal> {
        let category = match head.uri.path() {
            PATH => None,
            path => Some(path.strip_prefix(EVENTS_PATH).filter(|rest| !rest.contains('/')).ok_or(Refusal::Path)?),
        };
        ws::verify_handshake(head).map_err(|error| Refusal::NotWebSocket(error.to_string()))?;
        let protocols = Protocols::of(head);
        let phoenix = category.is_none() && protocols.phoenix;
        let (speaks, credentials) = match category {
            None => (Speaks::Phoenix, phoenix_credentials(head, protocols, entry)?),
            Some(category) => {
                check_origin(head, &entry.allowed_origins)?;
                let Wanted { category, from, token } = Wanted::parse(category, head, entry)?;
                (Speaks::Events { category, from }, token.map(SocketCredentials::Token))
            }
        };
        let key = head.headers.get(header::SEC_WEBSOCKET_KEY).expect("a verified handshake has a key");
        let accept = ws::hash_key(key.as_bytes());
        let accept = String::from_utf8_lossy(&accept).into_owned();
        Ok(Self { credentials, speaks, accept, phoenix })
    }

    /// The answer that makes it a WebSocket.
    pub(super) fn response(&self) -> String {
        let protocol = if self.phoenix { "Sec-WebSocket-Protocol: phoenix\r\n" } else { "" };
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{protocol}\r\n",
            self.accept
        )
    }
}

fn phoenix_credentials(
    head: &RequestHead,
    protocols: Protocols,
    entry: &Entry,
) -> Result<Option<SocketCredentials>, Refusal> {
    let query = head.uri.query().unwrap_or_default();
    let param = |name: &str| form_urlencoded::parse(query.as_bytes()).find(|(k, _)| k == name).map(|(_, v)| v);
    if Version::parse(param("vsn").as_deref()).is_none() {
        return Err(Refusal::Version);
    }
    check_origin(head, &entry.allowed_origins)?;
    let token = match (protocols.token, param("token")) {
        (Some(encoded), _) => Some(decode(&encoded).ok_or(Refusal::Credentials)?),
        (None, Some(token)) => Some(Token::parse(&token).map_err(|_| Refusal::Credentials)?),
        (None, None) => None,
    };
    match (token, param("email"), param("password")) {
        (Some(token), _, _) => Ok(Some(SocketCredentials::Token(token))),
        (None, Some(email), Some(password)) => Ok(Some(SocketCredentials::EmailPassword {
            email: Email::parse(&email).map_err(|_| Refusal::Credentials)?,
            password: password.into_owned(),
        })),
        (None, None, None) if entry.anonymous => Ok(None),
        _ => Err(Refusal::Credentials),
    }
}

/// Programs send no origin; pages may come from the host they connect to, on any port, or from one that is listed (`*`:
/// from anywhere). Nothing a browser adds by itself counts as credentials here, so this is a second lock, not the first.
pub(super) fn check_origin(head: &RequestHead, allowed: &[String]) -> Result<(), Refusal> {
    let Some(origin) = head.headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = String::from_utf8_lossy(origin.as_bytes());
    if allowed.iter().any(|a| a == "*" || a.trim_end_matches('/').eq_ignore_ascii_case(&origin)) {
        return Ok(());
    }
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| Url::parse(&format!("http://{host}")).ok());
    let from = Url::parse(&origin).ok();
    match (from.as_ref().and_then(Url::host_str), host.as_ref().and_then(Url::host_str)) {
        (Some(from), Some(host)) if from == host => Ok(()),
        _ => Err(Refusal::Origin(origin.chars().take(100).collect())),
    }
}

#[derive(Default)]
struct Protocols {
    phoenix: bool,
    /// As it was offered.
    token: Option<String>,
}

impl Protocols {
    fn of(head: &RequestHead) -> Self {
        let mut protocols = Self::default();
        let offered = head.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).filter_map(|value| value.to_str().ok());
        for protocol in offered.flat_map(|value| value.split(',')).map(str::trim) {
            if protocol == PHOENIX_PROTOCOL {
                protocols.phoenix = true;
            } else if let Some(encoded) = protocol.strip_prefix(TOKEN_PROTOCOL) {
                protocols.token = Some(encoded.to_owned());
            }
        }
        protocols
    }
}

/// Clients differ in the alphabet, and some pad.
fn decode(encoded: &str) -> Option<Token> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = [alphabet::STANDARD, alphabet::URL_SAFE]
        .iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(encoded).ok())?;
    Token::parse(std::str::from_utf8(&bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use actix_http::test::TestRequest;

    use super::*;

    const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";

    fn request(uri: &str, headers: &[(&'static str, &str)]) -> TestRequest {
        let mut request = TestRequest::default();
        request.uri(uri);
        for (name, value) in [
            ("host", "localhost:4000"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]
        .iter()
        .chain(headers)
        {
            request.insert_header((*name, *value));
        }
        request.set_payload(Vec::new());
        request
    }

    fn parse(uri: &str, headers: &[(&'static str, &str)]) -> Result<Handshake, Refusal> {
        let request = request(uri, headers).finish();
        // `set_payload` adds a length that a handshake does not have, and the test request lacks the upgrade flag.
        let mut head = RequestHead::default();
        head.uri = request.head().uri.clone();
        head.headers = request.head().headers.clone();
        head.set_connection_type(actix_http::ConnectionType::Upgrade);
        let allowed_origins = vec!["http://listed.example:3333".to_owned()];
        Handshake::parse(&head, &Entry { allowed_origins, anonymous: uri.contains("anonymous") })
    }

    fn with(query: &str) -> Result<Handshake, Refusal> {
        parse(&format!("{PATH}?{query}"), &[])
    }

    #[test]
    fn a_handshake_is_answered_as_rfc_6455_says() {
        let handshake = with(&format!("vsn=2.0.0&token={TOKEN}")).unwrap();
        assert!(handshake.response().contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(!handshake.response().contains("Protocol: phoenix"));
        let Some(SocketCredentials::Token(token)) = handshake.credentials else { panic!("a token was sent") };
        assert_eq!(token.as_str(), TOKEN);
    }

    #[test]
    fn params_are_decoded() {
        let handshake = with("email=Ann%2Bx%40example.org&password=p%20w+%26&vsn=2.0.0").unwrap();
        let Some(SocketCredentials::EmailPassword { email, password }) = handshake.credentials else {
            panic!("no token")
        };
        assert_eq!((email.as_str(), password.as_str()), ("ann+x@example.org", "p w &"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(with(&format!("token={TOKEN}")).unwrap_err(), Refusal::Version);
        assert_eq!(with(&format!("vsn=1.0.0&token={TOKEN}")).unwrap_err(), Refusal::Version);
        for query in
            ["vsn=2.0.0", "vsn=2.0.0&email=a@b.c", "vsn=2.0.0&token=short", "vsn=2.0.0&email=a&password=12345678"]
        {
            assert_eq!(with(query).unwrap_err(), Refusal::Credentials, "{query}");
        }
        assert_eq!(parse("/socket/other?vsn=2.0.0", &[]).unwrap_err(), Refusal::Path);
        let refusal = parse(PATH, &[("sec-websocket-version", "8")]).unwrap_err();
        assert!(matches!(refusal, Refusal::NotWebSocket(_)));
    }

    #[test]
    fn where_anybody_may_come_in_credentials_that_are_shown_still_count() {
        assert!(with("vsn=2.0.0&anonymous").unwrap().credentials.is_none());
        let shown = with(&format!("vsn=2.0.0&anonymous&token={TOKEN}")).unwrap();
        assert!(matches!(shown.credentials, Some(SocketCredentials::Token(_))));
        for query in ["vsn=2.0.0&anonymous&token=short", "vsn=2.0.0&anonymous&email=a@b.c"] {
            assert_eq!(with(query).unwrap_err(), Refusal::Credentials, "{query}");
        }
    }

    #[test]
    fn the_clients_auth_token_is_taken_in_both_alphabets() {
        let token = "?>?>?>?>?>?>?>?>?>?~~~";
        let standard = "Pz4/Pj8+Pz4/Pj8+Pz4/Pj8+Pz5+fn4";
        let url_safe = standard.replace('/', "_").replace('+', "-");
        for encoded in [standard.to_owned(), url_safe, format!("{standard}=")] {
            let offered = format!("phoenix, {TOKEN_PROTOCOL}{encoded}");
            let handshake =
                parse(&format!("{PATH}?vsn=2.0.0"), &[("sec-websocket-protocol", &offered)]).expect(&encoded);
            assert!(handshake.response().contains("\r\nSec-WebSocket-Protocol: phoenix\r\n"));
            let Some(SocketCredentials::Token(found)) = handshake.credentials else { panic!("a token was sent") };
            assert!(token.starts_with(&found.as_str()[..16]), "{found:?}");
        }
        let offered = format!("phoenix, {TOKEN_PROTOCOL}%%%");
        let refusal = parse(&format!("{PATH}?vsn=2.0.0"), &[("sec-websocket-protocol", &offered)]).unwrap_err();
        assert_eq!(refusal, Refusal::Credentials);
    }

    #[test]
    fn each_category_has_a_plain_socket_of_its_own() {
        let handshake = parse(&format!("/ws/events/a%20b?token={TOKEN}&from=7"), &[]).unwrap();
        let Speaks::Events { category, from } = handshake.speaks else { panic!("events were asked for") };
        assert_eq!((category.as_str(), from), ("a b", Some(7)));
        assert!(matches!(handshake.credentials, Some(SocketCredentials::Token(_))));
        for path in ["/ws/events", "/ws/events/a/b", "/ws", "/ws/event/a"] {
            assert_eq!(parse(&format!("{path}?token={TOKEN}"), &[]).unwrap_err(), Refusal::Path, "{path}");
        }
        assert_eq!(parse("/ws/events/a", &[]).unwrap_err(), Refusal::NoToken);
        let stranger = parse(&format!("/ws/events/a?token={TOKEN}"), &[("origin", "http://evil.example")]);
        assert!(matches!(stranger, Err(Refusal::Origin(_))));
        let stranger = parse(&format!("/ws/events/a?token={TOKEN}"), &[("sec-websocket-version", "8")]);
        assert!(matches!(stranger, Err(Refusal::NotWebSocket(_))));
    }

    #[test]
    fn pages_of_strangers_may_not_connect() {
        let uri = format!("{PATH}?vsn=2.0.0&token={TOKEN}");
        for origin in ["http://localhost:3333", "https://localhost", "http://listed.example:3333"] {
            assert!(parse(&uri, &[("origin", origin)]).is_ok(), "{origin}");
        }
        for origin in ["http://evil.example", "null", "http://listed.example:1", "http://localhost.evil.example", ""] {
            assert!(matches!(parse(&uri, &[("origin", origin)]), Err(Refusal::Origin(_))), "{origin}");
        }
    }
}
