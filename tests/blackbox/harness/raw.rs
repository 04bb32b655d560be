//! A WebSocket made by hand, for frames that no library sends.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::Ending;

/// Longer than any answer may take under the load of these tests.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct RawSocket {
    stream: TcpStream,
}

impl RawSocket {
    /// Connects, upgrades with a token, and leaves the rest to the test.
    pub(crate) async fn open(address: &str, token: &str) -> Self {
        Self::upgrade(TcpStream::connect(address).await.expect("the gateway listens"), address, token).await
    }

    /// The same with as little room for what is not read as the kernel gives.
    pub(crate) async fn open_with_small_buffer(address: &str, token: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a smaller buffer is always granted");
        let stream = socket.connect(address.parse().expect("ip:port")).await.expect("the gateway listens");
        Self::upgrade(stream, address, token).await
    }

    async fn upgrade(mut stream: TcpStream, address: &str, token: &str) -> Self {
        let request = format!(
            "GET /socket/websocket?vsn=2.0.0&token={token} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("an open connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(ANSWER_WITHIN, stream.read_u8()).await.expect("an answer").expect("an open connection"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self { stream }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // The server may have hung up on what came before; how it ended is read afterwards.
        let _ = timeout(ANSWER_WITHIN, self.stream.write_all(bytes)).await.expect("the server reads or hangs up");
    }

    /// Sends a text frame as the protocol wants it.
    pub(crate) async fn text(&mut self, text: &str) {
        self.write(&frame(0x81, text.as_bytes())).await;
    }

    /// Reads on until the server ends the connection.
    pub(crate) async fn ending(&mut self) -> Ending {
        let mut last = None;
        loop {
            match timeout(ANSWER_WITHIN, self.read_frame()).await.expect("the server ends it") {
                Some((0x88, payload)) => {
                    last = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                }
                Some(_) => {}
                None => return last,
            }
        }
    }

    /// The opcode byte and payload of the next frame; `None` at the end of the connection.
    pub(crate) async fn read_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let length = match self.stream.read_u8().await.ok()? {
            126 => u64::from(self.stream.read_u16().await.ok()?),
            127 => self.stream.read_u64().await.ok()?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("a length that was sent")];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((first, payload))
    }
}

/// A client's frame: masked, with a mask that changes nothing.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0xfe);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(0xff);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}
