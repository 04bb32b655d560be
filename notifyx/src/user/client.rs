//! Calls to the gateway for a user: the session's token or an API key, bounds and deadlines, and what went wrong in words.

use std::time::Duration;

use notifyx_model::{Secret, Token};
use notifyx_wire::{header, rest::Problem};
use reqwest::{
    Method,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

use super::{
    api_key::VARIABLE,
    session::{Session, Store},
};
use crate::{base_url::BaseUrl, exit::Failure};

/// A server that does not take a connection within this is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Above every deadline inside the platform, so that its own answer arrives first.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A page of 500 messages of 64 kB, with room for their envelopes.
const BODY_BYTES_MAX: usize = 48 * 1024 * 1024;

/// How often a call that is safe to repeat is made in all.
const ATTEMPTS: u32 = 4;

/// The longest `Retry-After` that is waited out; a longer one is reported.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Where `notifyx up` listens unless told otherwise.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:4000";

#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: BaseUrl,
    store: Store,
    session: Option<Session>,
    shown: Shown,
}

/// What calls show of who makes them.
#[derive(Debug)]
enum Shown {
    Session,
    /// The session where there is one: perhaps the gateway lets anybody in.
    SessionIfAny,
    Key(Token),
    /// An operator's.
    Secret(Secret),
}

/// One request; repeated as it is where that is safe.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    /// JSON.
    body: Option<Vec<u8>>,
    key: Option<String>,
    anonymous: bool,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), body: None, key: None, anonymous: false }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub(crate) fn patch(path: impl Into<String>) -> Self {
        Self::new(Method::PATCH, path)
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    #[must_use]
    pub(crate) fn query(mut self, name: &'static str, value: &impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    #[must_use]
    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        self.body = Some(serde_json::to_vec(body).expect("bodies are plain data"));
        self
    }

    /// A body that is JSON already.
    #[must_use]
    pub(crate) fn json_text(mut self, body: String) -> Self {
        self.body = Some(body.into_bytes());
        self
    }

    #[must_use]
    pub(crate) fn idempotency_key(mut self, key: String) -> Self {
        self.key = Some(key);
        self
    }

    /// Needs no session: registering, logging in.
    #[must_use]
    pub(crate) fn anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| Failure::Machine {
            what: "the server's answer is not what this version of notifyx reads".into(),
            source: error.into(),
        })
    }
}

impl Client {
    pub(crate) fn new(server: Option<BaseUrl>, store: Store) -> Result<Self, Failure> {
        Self::of_user(server, store, Shown::Session)
    }

    /// For events, which are open to API keys, and to anybody where the gateway says so. A key goes where its user would be logged in.
    pub(crate) fn of_events(server: Option<BaseUrl>, store: Store, key: Option<Token>) -> Result<Self, Failure> {
        Self::of_user(server, store, key.map_or(Shown::SessionIfAny, Shown::Key))
    }

    fn of_user(server: Option<BaseUrl>, store: Store, shown: Shown) -> Result<Self, Failure> {
        let session = store.read()?;
        let server = server.or_else(|| session.as_ref().map(|session| session.server.clone()));
        Self::at(server, store, session, shown)
    }

    /// For operators, who show the cluster's secret. Where to is said by them, or is this machine: never where a session
    /// happens to be.
    pub(crate) fn of_operator(server: Option<BaseUrl>, store: Store, secret: Secret) -> Result<Self, Failure> {
        Self::at(server, store, None, Shown::Secret(secret))
    }

    fn at(server: Option<BaseUrl>, store: Store, session: Option<Session>, shown: Shown) -> Result<Self, Failure> {
        let server = server.unwrap_or_else(|| BaseUrl::parse(DEFAULT_SERVER).expect("a valid URL"));
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .user_agent(concat!("notifyx/", env!("CARGO_PKG_VERSION")))
            // A token goes where the user sent it, and nowhere else.
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&server) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| Failure::Usage(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self { http, server, store, session, shown })
    }

    pub(crate) fn server(&self) -> &BaseUrl {
        &self.server
    }

    /// The session at this server; another server's token is never sent to it.
    pub(crate) fn session(&self) -> Result<&Session, Failure> {
        match &self.session {
            Some(session) if session.server == self.server => Ok(session),
            Some(session) => Err(Failure::Credentials(format!(
                "you are logged in at {}, not at {}: `notifyx login EMAIL --server {2}`",
                session.server, self.server, self.server
            ))),
            None => {
                Err(Failure::Credentials(format!("you are not logged in: `notifyx login EMAIL`{}", self.or_a_key())))
            }
        }
    }

    fn or_a_key(&self) -> String {
        match &self.shown {
            Shown::SessionIfAny => format!(", or show an API key: --api-key-file FILE, or the variable {VARIABLE}"),
            Shown::Session if std::env::var_os(VARIABLE).is_some() => {
                format!(" (the API key in {VARIABLE} is good for `events` and `schedules` only)")
            }
            Shown::Session | Shown::Key(_) | Shown::Secret(_) => String::new(),
        }
    }

    pub(crate) fn token(&self) -> Result<&Token, Failure> {
        self.session().map(|session| &session.token)
    }

    pub(crate) fn shows_key(&self) -> bool {
        matches!(self.shown, Shown::Key(_))
    }

    /// What goes as the bearer; `None`: nothing, and the server says whether it does without.
    pub(crate) fn bearer(&self) -> Result<Option<&Token>, Failure> {
        match &self.shown {
            Shown::Session => self.token().map(Some),
            Shown::SessionIfAny => Ok(self.token().ok()),
            Shown::Key(key) => Ok(Some(key)),
            Shown::Secret(_) => Ok(None),
        }
    }

    /// Where the server asked for credentials and there was nothing to show, how to come by some.
    pub(crate) fn explain(&self, failure: Failure) -> Failure {
        match (&failure, &self.shown) {
            (Failure::Credentials(_), Shown::SessionIfAny) => self.token().err().unwrap_or(failure),
            _ => failure,
        }
    }

    pub(crate) fn keep(&self, session: &Session) -> Result<(), Failure> {
        self.store.write(session)
    }

    pub(crate) fn forget(&self) -> Result<(), Failure> {
        self.store.remove()
    }

    /// Passwords and tokens cross the network in the clear.
    pub(crate) fn is_exposed(&self) -> bool {
        self.server.as_str().starts_with("http://") && !is_loopback(&self.server)
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, call: Call) -> Result<T, Failure> {
        self.send(&call).await?.json()
    }

    /// Makes a call that is safe to repeat, until the server answers or patience ends.
    pub(crate) async fn insist(&self, call: &Call) -> Result<Answer, Failure> {
        let mut pause = Duration::from_millis(200);
        for _ in 1..ATTEMPTS {
            let wait = match self.send(call).await {
                Err(Failure::Unreachable { .. } | Failure::Later(_, None)) => pause,
                Err(Failure::Later(_, Some(wait))) if wait <= WAIT_MAX => wait,
                other => return other,
            };
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
        self.send(call).await
    }

    pub(crate) async fn send(&self, call: &Call) -> Result<Answer, Failure> {
        let mut url = Url::parse(&format!("{}{}", self.server, call.path)).expect("a base URL and a path of ours");
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut request = self.http.request(call.method.clone(), url);
        if let Shown::Secret(secret) = &self.shown {
            request = request.header(header::CLUSTER_SECRET, secret.expose());
        }
        if !call.anonymous
            && let Some(token) = self.bearer()?
        {
            request = request.bearer_auth(token.as_str());
        }
        if let Some(key) = &call.key {
            request = request.header(header::IDEMPOTENCY_KEY, key);
        }
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        self.receive(answer).await.map_err(|failure| self.explain(failure))
    }

    async fn receive(&self, mut answer: reqwest::Response) -> Result<Answer, Failure> {
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(self.no_platform(format!("its answer has more than {BODY_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(Answer { body });
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(Failure::from_problem(Problem { status: status.as_u16(), ..problem }, retry_after)),
            Err(_) => {
                Err(self.no_platform(format!("it answers {status} without saying why; is this a Notifyx server?")))
            }
        }
    }

    fn no_platform(&self, why: String) -> Failure {
        Failure::Unreachable { server: self.server.to_string(), why }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_timeout() { "it does not answer in time".to_owned() } else { root_cause(error) };
        self.no_platform(why)
    }
}

/// A text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut url = Url::parse("http://host").expect("a URL of ours");
    url.path_segments_mut().expect("it has a path").push(text);
    url.path().trim_start_matches('/').to_owned()
}

/// The innermost error says what happened; those around it say where in the library.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn is_loopback(server: &BaseUrl) -> bool {
    match Url::parse(server.as_str()).ok().as_ref().and_then(Url::host) {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use notifyx_model::{Clock, Email, UserId};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A client that is logged in at `session`'s server and talks to `server`; with the folder that holds its session.
    fn client(server: &str, session: &str) -> (Client, tempfile::TempDir) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path().to_owned());
        store
            .write(&Session {
                server: BaseUrl::parse(session).unwrap(),
                token: Token::parse("a-token-of-the-test").unwrap(),
                id: UserId::new(&Clock::system()),
                email: Email::parse("ann@example.org").unwrap(),
                expires_at: Clock::system().now(),
            })
            .unwrap();
        (Client::new(Some(BaseUrl::parse(server).unwrap()), store).unwrap(), home)
    }

    /// A server that gives these answers in turn; its URL.
    async fn answers(with: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for answer in with {
                let (mut peer, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let _ = peer.read(&mut request).await;
                let (head, body) = answer.split_once('|').unwrap();
                let length = body.len();
                let text = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
                let _ = peer.write_all(text.as_bytes()).await;
            }
        });
        url
    }

    const MISSING: &str = "404 Not Found|\
        {\"status\":404,\"title\":\"\",\"code\":\"topic_not_found\",\"detail\":\"topic `a` not found\"}";
    const BUSY: &str = "503 Service Unavailable\r\nretry-after: 0|\
        {\"status\":503,\"title\":\"\",\"code\":\"busy\",\"detail\":\"come back\"}";

    #[test]
    fn a_name_stands_in_a_path_as_it_is() {
        assert_eq!(segment("orders.new"), "orders.new");
        assert_eq!(segment("100% é?#"), "100%25%20%C3%A9%3F%23");
    }

    #[test]
    fn a_token_is_kept_from_other_servers() {
        let (client, _home) = client("http://other.example.org", "http://127.0.0.1:4000");
        let refused = client.token().unwrap_err();
        assert_eq!(refused.code(), 4);
        assert!(refused.to_string().contains("logged in at http://127.0.0.1:4000, not at http://other.example.org"));
        assert!(client.is_exposed());
    }

    #[tokio::test]
    async fn a_problem_is_told_in_the_servers_words() {
        let url = answers(&[MISSING]).await;
        let (client, _home) = client(&url, &url);
        let failure = client.send(&Call::get("/api/topics")).await.unwrap_err();
        assert_eq!((failure.code(), failure.to_string().as_str()), (1, "topic `a` not found"));
    }

    #[tokio::test]
    async fn another_sort_of_server_is_recognised() {
        let url = answers(&["404 Not Found|<html>", "200 OK|<html>"]).await;
        let (client, _home) = client(&url, &url);
        let failure = client.send(&Call::get("/api/topics")).await.unwrap_err();
        assert!(failure.to_string().ends_with("is this a Notifyx server?"), "{failure}");
        assert!(
            client
                .read::<Problem>(Call::get("/api/topics"))
                .await
                .unwrap_err()
                .to_string()
                .contains("not what this version")
        );
    }

    #[tokio::test]
    async fn a_call_that_is_safe_to_repeat_outlasts_a_busy_server() {
        let url = answers(&[BUSY, BUSY, "201 Created|7"]).await;
        let (client, _home) = client(&url, &url);
        assert_eq!(client.insist(&Call::post("/api/notifications")).await.unwrap().json::<u8>().unwrap(), 7);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_exit_code_3() {
        let (client, _home) = client("http://127.0.0.1:1", "http://127.0.0.1:1");
        assert_eq!(client.send(&Call::get("/api/topics")).await.unwrap_err().code(), 3);
    }
}
