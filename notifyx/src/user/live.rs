//! One connection to the gateway's Phoenix socket: frames out, frames in, heartbeats. Which topics and what to do about a
//! loss is [`super::subscribe`]'s business.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use notifyx_model::Token;
use notifyx_wire::{
    phoenix::{CONTROL_TOPIC, Frame, HEARTBEAT, Payload, REPLY, text},
    rest::Problem,
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, time::Instant};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

use super::client::root_cause;
use crate::base_url::BaseUrl;

/// Half of the silence after which the server closes.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);

/// How long the server may take to connect, and to answer a heartbeat or a join.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest message with every character escaped, and its envelope.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The server refused the token: trying again with it is pointless.
    Credentials(String),
    /// Anything that may pass: the server restarts, the network is away.
    Passing(String),
}

#[derive(Debug)]
pub(crate) struct Live {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_ref: u64,
    heartbeat: Heartbeat,
}

#[derive(Debug)]
enum Heartbeat {
    Due(Instant),
    Sent { reference: String, answer_by: Instant },
}

/// A frame that arrived, on its own.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) join_ref: Option<String>,
    pub(crate) reference: Option<String>,
    pub(crate) topic: String,
    pub(crate) event: String,
    /// JSON as it came.
    pub(crate) payload: String,
}

/// The payload of `phx_reply`.
#[derive(Debug, Deserialize)]
pub(crate) struct Reply {
    pub(crate) status: String,
    pub(crate) response: serde_json::Value,
}

impl Live {
    pub(crate) async fn connect(server: &BaseUrl, token: &Token) -> Result<Self, Lost> {
        let address = server.as_str().replacen("http", "ws", 1);
        let mut url = url::Url::parse(&format!("{address}/socket/websocket")).expect("a base URL and a path of ours");
        url.query_pairs_mut().append_pair("token", token.as_str()).append_pair("vsn", "2.0.0");
        let config =
            WebSocketConfig::default().max_message_size(Some(FRAME_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
        let connecting = connect_async_with_config(url.as_str(), Some(config), true);
        let socket = match tokio::time::timeout(ANSWER_TIMEOUT, connecting).await {
            Ok(Ok((socket, _))) => socket,
            Ok(Err(tungstenite::Error::Http(answer))) => return Err(refused(&answer)),
            Ok(Err(error)) => return Err(Lost::Passing(root_cause(&error))),
            Err(_) => return Err(Lost::Passing("it does not answer in time".into())),
        };
        Ok(Self { socket, next_ref: 1, heartbeat: Heartbeat::Due(Instant::now() + HEARTBEAT_EVERY) })
    }

    /// A ref that this connection has not used.
    pub(crate) fn reference(&mut self) -> String {
        self.next_ref += 1;
        self.next_ref.to_string()
    }

    pub(crate) async fn push(
        &mut self,
        join_ref: Option<&str>,
        reference: &str,
        topic: &str,
        event: &str,
        payload: &impl Serialize,
    ) -> Result<(), Lost> {
        let frame = Message::text(text::encode(join_ref, Some(reference), topic, event, payload));
        match tokio::time::timeout(ANSWER_TIMEOUT, self.socket.send(frame)).await {
            Ok(sent) => sent.map_err(|error| Lost::Passing(root_cause(&error))),
            Err(_) => Err(Lost::Passing("it takes nothing any more".into())),
        }
    }

    /// The next frame; heartbeats are sent and checked meanwhile.
    pub(crate) async fn next(&mut self) -> Result<Arrived, Lost> {
        loop {
            let alarm = match &self.heartbeat {
                Heartbeat::Due(at) => *at,
                Heartbeat::Sent { answer_by, .. } => *answer_by,
            };
            let arrived = match tokio::time::timeout_at(alarm, self.socket.next()).await {
                Ok(Some(Ok(Message::Text(frame)))) => parse(&frame)?,
                Ok(Some(Ok(Message::Close(frame)))) => return Err(Lost::Passing(closed(frame))),
                Ok(Some(Ok(_))) => continue,
                Ok(Some(Err(error))) => return Err(Lost::Passing(root_cause(&error))),
                Ok(None) => return Err(Lost::Passing("the connection has ended".into())),
                Err(_) => {
                    self.beat().await?;
                    continue;
                }
            };
            match &self.heartbeat {
                Heartbeat::Sent { reference, .. }
                    if arrived.reference.as_ref() == Some(reference) && arrived.event == REPLY =>
                {
                    self.heartbeat = Heartbeat::Due(Instant::now() + HEARTBEAT_EVERY);
                }
                _ => return Ok(arrived),
            }
        }
    }

    async fn beat(&mut self) -> Result<(), Lost> {
        if matches!(self.heartbeat, Heartbeat::Sent { .. }) {
            return Err(Lost::Passing("it does not answer a heartbeat".into()));
        }
        let reference = self.reference();
        self.push(None, &reference, CONTROL_TOPIC, HEARTBEAT, &serde_json::json!({})).await?;
        self.heartbeat = Heartbeat::Sent { reference, answer_by: Instant::now() + ANSWER_TIMEOUT };
        Ok(())
    }
}

fn parse(text: &str) -> Result<Arrived, Lost> {
    let frame = Frame::parse_text(text).map_err(|error| Lost::Passing(error.to_string()))?;
    let owned = |text: std::borrow::Cow<'_, str>| text.into_owned();
    let payload = match frame.payload {
        Payload::Json(json) => json.get().to_owned(),
        Payload::Bytes(_) => return Err(Lost::Passing("a text frame without JSON".into())),
    };
    Ok(Arrived {
        join_ref: frame.join_ref.map(owned),
        reference: frame.reference.map(owned),
        topic: owned(frame.topic),
        event: owned(frame.event),
        payload,
    })
}

/// A close frame in words.
pub(crate) fn closed(frame: Option<tungstenite::protocol::CloseFrame>) -> String {
    match frame {
        Some(frame) if frame.reason.is_empty() => format!("it closed the connection (code {})", u16::from(frame.code)),
        Some(frame) => format!("it closed the connection: {} (code {})", frame.reason, u16::from(frame.code)),
        None => "it closed the connection".into(),
    }
}

fn refused(answer: &tungstenite::http::Response<Option<Vec<u8>>>) -> Lost {
    let problem = answer.body().as_deref().and_then(|body| serde_json::from_slice::<Problem>(body).ok());
    let said = problem.map_or_else(|| format!("it answers {}", answer.status()), |problem| problem.detail);
    match answer.status().as_u16() {
        401 | 403 => Lost::Credentials(said),
        _ => Lost::Passing(said),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers every connection with the same bytes; its address.
    async fn answers(with: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = peer.read(&mut request).await;
                let _ = peer.write_all(with).await;
            }
        });
        address.to_string()
    }

    async fn lost(url: String) -> Lost {
        let token = Token::parse(&"t".repeat(43)).unwrap();
        Live::connect(&BaseUrl::parse(&url).unwrap(), &token).await.unwrap_err()
    }

    #[tokio::test]
    async fn refused_credentials_are_told_from_a_passing_trouble() {
        let forbidden = answers(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(lost(format!("http://{forbidden}")).await, Lost::Credentials(_)));
        let busy = answers(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(lost(format!("http://{busy}")).await, Lost::Passing(_)));
        let strange = answers(b"SSH-2.0-OpenSSH\r\n").await;
        assert!(matches!(lost(format!("http://{strange}")).await, Lost::Passing(_)));
    }

    #[tokio::test]
    async fn a_server_without_the_tls_it_was_asked_for_is_a_passing_trouble() {
        let plain = answers(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        assert!(matches!(lost(format!("https://{plain}")).await, Lost::Passing(_)));
    }
}
