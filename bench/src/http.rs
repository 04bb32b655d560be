//! HTTP/1.1 over one kept connection, as little of it as publishing needs: what a publisher costs is not the server's.

use std::{io, net::SocketAddr, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::error::Error;

/// Longer than any deadline of the gateway, so that its own answer comes first, and than a busy machine delays one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const HEAD_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    host: SocketAddr,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body, if the status says that it was done.
    pub(crate) fn json<T: DeserializeOwned>(&self, what: &str) -> Result<T, Error> {
        if !(200..300).contains(&self.status) {
            return Err(self.refused(what));
        }
        serde_json::from_slice(&self.body).map_err(|error| Error::failed(format!("the answer to {what}: {error}")))
    }

    pub(crate) fn refused(&self, what: &str) -> Error {
        let body = String::from_utf8_lossy(&self.body).into_owned();
        Error::Refused { what: what.to_owned(), status: self.status, body }
    }
}

/// A request to send as often as needed: all but the body is written once.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    head: String,
}

impl Post {
    pub(crate) fn new(host: SocketAddr, path: &str, media_type: &str, bearer: Option<&str>) -> Self {
        let bearer = bearer.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        Self { head: format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{bearer}Content-Type: {media_type}\r\n") }
    }

    fn bytes(&self, body: &[u8]) -> Vec<u8> {
        let mut request = format!("{}Content-Length: {}\r\n\r\n", self.head, body.len()).into_bytes();
        request.extend_from_slice(body);
        request
    }
}

impl Connection {
    pub(crate) async fn open(host: SocketAddr) -> Result<Self, Error> {
        let opening = async {
            let stream = TcpStream::connect(host).await?;
            stream.set_nodelay(true)?;
            Ok(Self { stream, host, buffer: Vec::new() })
        };
        within(opening).await.map_err(Error::io(format!("connecting to {host}")))
    }

    pub(crate) async fn post(&mut self, post: &Post, body: &[u8]) -> Result<Answer, Error> {
        let request = post.bytes(body);
        within(self.exchange(&request)).await.map_err(Error::io(format!("a request to {}", self.host)))
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer, Error> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        within(self.exchange(request.as_bytes())).await.map_err(Error::io(format!("GET {path} of {}", self.host)))
    }

    /// Sends `body` as JSON and takes JSON.
    pub(crate) async fn call<T: DeserializeOwned>(
        &mut self,
        path: &str,
        bearer: Option<&str>,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(Error::failed)?;
        let post = Post::new(self.host, path, "application/json", bearer);
        self.post(&post, &body).await?.json(&format!("POST {path}"))
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let end = loop {
            if let Some(place) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break place + 4;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(broken("an endless head"));
            }
            self.more().await?;
        };
        let head = Head::parse(&self.buffer[..end])?;
        while self.buffer.len() < end + head.length {
            self.more().await?;
        }
        Ok(Answer { status: head.status, body: self.buffer[end..end + head.length].to_vec() })
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(ANSWER_TIMEOUT, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Of the body.
    length: usize,
}

impl Head {
    fn parse(head: &[u8]) -> io::Result<Self> {
        let head = std::str::from_utf8(head).map_err(|_| broken("a head that is no text"))?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| broken("no status line"))?;
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())
        });
        match length {
            Some(Some(length)) => Ok(Self { status, length }),
            // 204 has no body and says no length; chunks are sent by none of the servers that are measured.
            None if status == 204 => Ok(Self { status, length: 0 }),
            _ => Err(broken("an answer without Content-Length")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_status_and_length() {
        let head = Head::parse(b"HTTP/1.1 201 Created\r\ncontent-length: 17\r\nx: y\r\n\r\n").unwrap();
        assert_eq!(head, Head { status: 201, length: 17 });
        assert_eq!(Head::parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Head { status: 204, length: 0 });
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        for head in ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "nonsense\r\n\r\n", "\r\n\r\n"] {
            assert!(Head::parse(head.as_bytes()).is_err(), "{head}");
        }
    }
}
