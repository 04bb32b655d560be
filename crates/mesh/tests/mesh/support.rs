//! Peers to call: small servers that a test can kill and start again.

use std::{
    mem,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web::ServiceConfig};
use notifyx_mesh::{BreakerState, Mesh, MeshConfig};
use notifyx_model::{Clock, Secret};
use notifyx_wire::rest::Problem;
use tokio::net::TcpSocket;

pub(crate) const SECRET: &str = "the-clusters-secret";

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    handle: ServerHandle,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Peer {
    pub(crate) fn start(routes: impl Fn(&mut ServiceConfig) + Send + Sync + 'static) -> Self {
        Self::start_at(fixed_address(), routes)
    }

    /// At the address of one that was killed.
    pub(crate) fn start_at(address: SocketAddr, routes: impl Fn(&mut ServiceConfig) + Send + Sync + 'static) -> Self {
        let routes = Arc::new(routes);
        let app = move || {
            let routes = routes.clone();
            App::new().configure(move |config| routes(config))
        };
        let server = HttpServer::new(app).workers(1).disable_signals().bind(address).unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        Self { address, handle, ended: tokio::spawn(server) }
    }

    /// At once: what is under way breaks off.
    pub(crate) async fn kill(self) -> SocketAddr {
        self.handle.stop(false).await;
        self.ended.await.unwrap().unwrap();
        self.address
    }
}

/// An address that is this test's until the process ends: nobody else is given it, also while nobody listens there. It is bound and not
/// listened at, which leaves it to whoever sets `SO_REUSEADDR`, as servers do.
pub(crate) fn fixed_address() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    socket.set_reuseaddr(true).unwrap();
    let address = socket.local_addr().unwrap();
    mem::forget(socket);
    address
}

/// A mesh of fixed peers, all of the service `persist`.
pub(crate) fn mesh(config: &MeshConfig, peers: &[SocketAddr]) -> (Mesh, prometheus::Registry) {
    let metrics = prometheus::Registry::new();
    let peers: Vec<_> = peers.iter().map(|address| ("persist", address.to_string())).collect();
    (Mesh::fixed(config, &peers, Secret::new(SECRET), Clock::system(), &metrics), metrics)
}

pub(crate) fn breakers(mesh: &Mesh) -> Vec<BreakerState> {
    mesh.snapshot().services.values().flatten().map(|instance| instance.breaker).collect()
}

pub(crate) fn refusal(status: u16, code: &str) -> HttpResponse {
    let (title, detail) = ("No".to_owned(), format!("no, because of {code}"));
    let problem = Problem { success: false, status, title, code: code.into(), detail, request_id: None };
    HttpResponse::build(status.try_into().unwrap()).json(problem)
}
