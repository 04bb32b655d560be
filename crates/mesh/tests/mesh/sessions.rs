//! Whose token it is, while sessions end and auth falters.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, ServiceConfig},
};
use notifyx_mesh::{Mesh, MeshConfig, Sessions};
use notifyx_model::{Email, KeyId, KeyName, ManualClock, Scope, Scopes, Secret, Token, TokenHash, UserId};
use notifyx_wire::rest::auth::{
    Identity, Revocation, Revocations,
    keys::{KeyIdentity, Principal},
};
use serde::Deserialize;
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    watch,
};

use crate::support::{Peer, SECRET, refusal};

/// An auth that knows one user, whose tokens begin with `good`, and whose one API key is [`key`].
#[derive(Clone)]
struct Auth {
    identity: Identity,
    asked: Arc<AtomicUsize>,
    /// Signals each question about a token, which then waits while `holds`.
    arrive: UnboundedSender<()>,
    holds: watch::Sender<bool>,
    log: watch::Sender<Vec<Revocation>>,
    log_broken: Arc<AtomicBool>,
    /// How often it was, since.
    log_refused: watch::Sender<usize>,
}

#[derive(Deserialize)]
struct After {
    after: Option<u64>,
    #[serde(default)]
    wait_ms: u64,
}

async fn whose(auth: web::Data<Auth>, request: HttpRequest) -> HttpResponse {
    auth.asked.fetch_add(1, Ordering::SeqCst);
    let good = request.headers().get("authorization").unwrap().to_str().unwrap().starts_with("Bearer good");
    let _ = auth.arrive.send(());
    auth.holds.subscribe().wait_for(|holds| !holds).await.unwrap();
    if good { HttpResponse::Ok().json(&auth.identity) } else { refusal(401, "token_invalid") }
}

async fn which_key(auth: web::Data<Auth>, request: HttpRequest) -> HttpResponse {
    auth.asked.fetch_add(1, Ordering::SeqCst);
    let sent = request.headers().get("authorization").unwrap().to_str().unwrap();
    if sent.strip_prefix("Bearer ") == Some(key().as_str()) {
        HttpResponse::Ok().json(auth.key())
    } else {
        refusal(401, "key_invalid")
    }
}

async fn revocations(auth: web::Data<Auth>, query: web::Query<After>) -> HttpResponse {
    let mut log = auth.log.subscribe();
    let after = query.after.unwrap_or(u64::MAX);
    let head = |log: &[Revocation]| log.last().map_or(0, |last| last.seq);
    let news = log.wait_for(|log| head(log) > after);
    let _ = tokio::time::timeout(Duration::from_millis(query.wait_ms), news).await;
    if auth.log_broken.load(Ordering::SeqCst) {
        auth.log_refused.send_modify(|refused| *refused += 1);
        return refusal(500, "internal");
    }
    let log = auth.log.borrow().clone();
    HttpResponse::Ok()
        .json(Revocations { head: head(&log), revoked: log.into_iter().filter(|entry| entry.seq > after).collect() })
}

impl Auth {
    fn key(&self) -> KeyIdentity {
        let Identity { id, email, expires_at, .. } = self.identity.clone();
        let scopes = Scopes::new(vec![Scope::parse("publish:orders.*").unwrap()]).unwrap();
        let (key_id, name) = (KeyId::from_uuid(id.uuid()), KeyName::parse("shop").unwrap());
        KeyIdentity { key_id, name, id, email, scopes, expires_at: Some(expires_at) }
    }
}

struct Stage {
    auth: Auth,
    arrived: UnboundedReceiver<()>,
    hand: ManualClock,
    sessions: Arc<Sessions>,
    mesh: Mesh,
    _peer: Peer,
}

async fn stage() -> Stage {
    let (hand, (arrive, arrived)) = (ManualClock::new(), unbounded_channel());
    let now = hand.clock().now();
    let identity = Identity {
        id: UserId::new(&hand.clock()),
        email: Email::parse("ann@example.org").unwrap(),
        created_at: now,
        expires_at: now + Duration::from_secs(60),
    };
    let auth = Auth {
        identity,
        asked: Arc::default(),
        arrive,
        holds: watch::Sender::new(false),
        log: watch::Sender::new(Vec::new()),
        log_broken: Arc::default(),
        log_refused: watch::Sender::new(0),
    };
    let app_data = auth.clone();
    let peer = Peer::start(move |config: &mut ServiceConfig| {
        config
            .app_data(web::Data::new(app_data.clone()))
            .route("/api/users/self", web::get().to(whose))
            .route("/api/keys/self", web::get().to(which_key))
            .route("/api/revocations", web::get().to(revocations));
    });
    let config = MeshConfig { breaker_failures: 1_000_000, ..MeshConfig::default() };
    let peers = [("auth", peer.address.to_string())];
    let mesh = Mesh::fixed(&config, &peers, Secret::new(SECRET), hand.clock(), &prometheus::Registry::new());
    let sessions = Sessions::start(mesh.clone(), hand.clock());
    sessions.followed().await;
    Stage { auth, arrived, hand, sessions, mesh, _peer: peer }
}

fn token(text: &str) -> Token {
    Token::parse(&format!("{text}-and-twenty-more-characters")).unwrap()
}

fn key() -> Token {
    Token::parse(&format!("nxk_{}", "k".repeat(43))).unwrap()
}

impl Stage {
    fn asked(&self) -> usize {
        self.auth.asked.load(Ordering::SeqCst)
    }

    async fn known(&self, token: &Token) -> bool {
        self.sessions.identify(token).await.unwrap().is_some()
    }

    /// Writes to auth's log, and returns once the sessions have met it.
    async fn revoke(&self, token_hash: Option<TokenHash>) {
        let mut told = self.sessions.revocations();
        let user_id = self.auth.identity.id;
        self.auth.log.send_modify(|log| log.push(Revocation { seq: log.len() as u64 + 1, user_id, token_hash }));
        assert_eq!(told.recv().await.unwrap().token_hash, token_hash);
    }
}

#[tokio::test]
async fn auth_is_asked_once_and_again_when_the_session_has_expired() {
    let stage = stage().await;
    for _ in 0..3 {
        let expected = Principal::User(stage.auth.identity.clone());
        assert_eq!(stage.sessions.identify(&token("good")).await.unwrap(), Some(expected));
    }
    assert_eq!(stage.asked(), 1);
    assert!(!stage.known(&token("bad")).await);
    assert_eq!(stage.asked(), 2);
    stage.hand.advance(Duration::from_secs(61));
    assert!(stage.known(&token("good")).await);
    assert_eq!(stage.asked(), 3);
    stage.mesh.stop().await;
}

#[tokio::test]
async fn a_key_is_remembered_until_it_ends_or_is_revoked() {
    let stage = stage().await;
    for _ in 0..3 {
        let expected = Principal::Key(stage.auth.key());
        assert_eq!(stage.sessions.identify(&key()).await.unwrap(), Some(expected));
    }
    assert_eq!(stage.asked(), 1);
    stage.hand.advance(Duration::from_secs(61));
    assert!(stage.known(&key()).await);
    assert_eq!(stage.asked(), 2);
    stage.revoke(Some(key().hash())).await;
    assert!(!stage.known(&key()).await);
    assert_eq!(stage.asked(), 2);
    let other = Token::parse(&format!("nxk_{}", "o".repeat(43))).unwrap();
    assert!(!stage.known(&other).await);
    stage.mesh.stop().await;
}

#[tokio::test]
async fn a_logout_is_followed_without_asking() {
    let stage = stage().await;
    assert!(stage.known(&token("good")).await && stage.known(&token("good-too")).await);
    stage.revoke(Some(token("good").hash())).await;
    assert!(!stage.known(&token("good")).await);
    assert!(stage.known(&token("good-too")).await, "another session of the same user");
    assert_eq!(stage.asked(), 2);
    stage.revoke(None).await;
    assert!(stage.known(&token("good-too")).await);
    assert_eq!(stage.asked(), 3, "all of the user's sessions ended: auth decides anew");
}

#[tokio::test]
async fn an_answer_that_a_logout_overtook_is_neither_given_nor_kept() {
    let mut stage = stage().await;
    stage.auth.holds.send_replace(true);
    let asking = tokio::spawn({
        let sessions = stage.sessions.clone();
        async move { sessions.identify(&token("good")).await }
    });
    stage.arrived.recv().await.unwrap();
    stage.revoke(Some(token("good").hash())).await;
    // Auth had looked before the logout, and answers after it.
    stage.auth.holds.send_replace(false);
    assert_eq!(asking.await.unwrap().unwrap(), None);
    assert!(!stage.known(&token("good")).await);
}

#[tokio::test]
async fn a_cache_that_is_behind_is_bypassed() {
    let stage = stage().await;
    assert!(stage.known(&token("good")).await);
    stage.auth.log_broken.store(true, Ordering::SeqCst);
    // The one that is refused comes after all that were answered.
    stage.auth.log_refused.subscribe().wait_for(|refused| *refused > 0).await.unwrap();
    stage.hand.advance(Duration::from_millis(1_001));
    assert!(!stage.sessions.is_following());
    assert!(stage.known(&token("good")).await && stage.known(&token("good")).await);
    assert_eq!(stage.asked(), 3);
}

#[tokio::test]
async fn a_gap_in_the_log_clears_what_is_remembered_and_is_told() {
    let stage = stage().await;
    let mut gaps = stage.sessions.gaps();
    assert!(stage.known(&token("good")).await);
    let (user_id, token_hash) = (stage.auth.identity.id, None);
    let far = |seq| Revocation { seq, user_id, token_hash };
    stage.auth.log.send_replace(vec![far(8), far(9)]);
    gaps.changed().await.unwrap();
    assert!(stage.known(&token("good")).await);
    assert_eq!(stage.asked(), 2);
}
