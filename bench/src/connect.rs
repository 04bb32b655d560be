//! Opens sockets until they only listen: connect, handshake, join. Blocking, on a handful of threads, before any measuring.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::{error::Error, frame};

/// A server that does not answer a handshake or a join within this time is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// As many handshakes and joins wait for the server at once: enough for it to batch the joins.
const THREADS: u32 = 16;
/// Linux has 28,232 ports for one pair of addresses; beyond this the next loopback address calls.
const SOCKETS_PER_ADDRESS: u32 = 25_000;
/// A constant key and its answer (RFC 6455 §1.3): the server has to know how to compute it, we do not.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How a socket becomes a subscriber.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    /// Target of the upgrade request; `None` where there is no handshake.
    pub(crate) path: Option<String>,
    /// The first frame to send.
    pub(crate) join: Option<Vec<u8>>,
    /// What the first frame of the server must hold; `None` where it sends none.
    pub(crate) joined: Option<&'static str>,
}

/// A subscriber, and what has arrived for it already.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    pub(crate) arrived: Vec<u8>,
}

/// Opens `count` sockets, greets with `greeting(number)`, and hands each to `on_connected`.
pub(crate) fn connect_all(
    server: SocketAddr,
    count: u32,
    greeting: impl Fn(u32) -> Greeting + Sync,
    on_connected: impl Fn(Connected) + Sync,
) -> Result<(), Error> {
    let next = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let connectors: Vec<_> = (0..THREADS.min(count))
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return Ok(());
                        }
                        let connected = connect(server, number, &greeting(number)).inspect_err(|_| {
                            // The others need not go on.
                            next.store(count, Ordering::Relaxed);
                        });
                        on_connected(connected?);
                    }
                })
            })
            .collect();
        connectors.into_iter().try_for_each(|connector| connector.join().expect("a connector does not panic"))
    })
}

fn connect(server: SocketAddr, number: u32, greeting: &Greeting) -> Result<Connected, Error> {
    let mut stream = open(server, number).map_err(Error::io(format!("socket {number} to {server}")))?;
    let mut arrived = Vec::new();
    if let Some(path) = &greeting.path {
        upgrade(&mut stream, server, path, &mut arrived)?;
    }
    if let Some(join) = &greeting.join {
        stream.write_all(join).map_err(Error::io("joining"))?;
    }
    if let Some(expected) = greeting.joined {
        first_frame(&mut stream, &mut arrived, expected)?;
    }
    stream.set_read_timeout(None).and_then(|()| stream.set_nonblocking(true)).map_err(Error::io("a joined socket"))?;
    Ok(Connected { stream, arrived })
}

fn open(server: SocketAddr, number: u32) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    let address = number / SOCKETS_PER_ADDRESS;
    if server.is_ipv4() && server.ip().is_loopback() && address > 0 {
        let last = u8::try_from(address + 1).unwrap_or(u8::MAX);
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
    }
    socket.connect_timeout(&server.into(), ANSWER_TIMEOUT)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(socket.into())
}

fn upgrade(stream: &mut TcpStream, server: SocketAddr, path: &str, arrived: &mut Vec<u8>) -> Result<(), Error> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(Error::io("sending a handshake"))?;
    let end = loop {
        if let Some(place) = arrived.windows(4).position(|four| four == b"\r\n\r\n") {
            break place + 4;
        }
        more(stream, arrived, "a handshake")?;
    };
    let head = String::from_utf8_lossy(&arrived[..end]).into_owned();
    if !head.starts_with("HTTP/1.1 101") || !head.contains(ACCEPT) {
        return Err(Error::failed(format!("the handshake was refused: {}", head.lines().next().unwrap_or_default())));
    }
    arrived.drain(..end);
    Ok(())
}

fn first_frame(stream: &mut TcpStream, arrived: &mut Vec<u8>, expected: &str) -> Result<(), Error> {
    loop {
        let mut answer = None;
        // Only the first: others that came with it are for the reader.
        let mut first_end = 0;
        frame::scan(arrived, |_, payload| {
            if answer.is_none() {
                answer = Some(String::from_utf8_lossy(payload).into_owned());
                first_end = payload.as_ptr() as usize - arrived.as_ptr() as usize + payload.len();
            }
        })
        .map_err(Error::failed)?;
        match answer {
            Some(answer) if answer.contains(expected) => {
                arrived.drain(..first_end);
                return Ok(());
            }
            Some(answer) => return Err(Error::failed(format!("the join was answered: {answer}"))),
            None => more(stream, arrived, "a join")?,
        }
    }
}

fn more(stream: &mut TcpStream, arrived: &mut Vec<u8>, awaited: &str) -> Result<(), Error> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer).map_err(Error::io(format!("waiting for the answer to {awaited}")))? {
        0 => Err(Error::failed(format!("the server closed the connection instead of answering {awaited}"))),
        read => {
            arrived.extend_from_slice(&buffer[..read]);
            Ok(())
        }
    }
}
