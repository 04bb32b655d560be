//! What is measured with the same subscribers: Notifyx, the plain server, and Nchan.

use std::net::SocketAddr;

use notifyx_model::{Clock, NotificationId, TopicName};
use notifyx_wire::phoenix::{
    CONTROL_TOPIC, HEARTBEAT, JOIN,
    channel::{NEW_NOTIFICATION, NOTIFICATION_PREFIX, NotificationPushed},
    text,
};
use serde::Serialize;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    connect::Greeting,
    error::Error,
    frame,
    http::{Connection, Post},
    notifyx::{self, Account, Notifyx},
    payload,
    plain::{Plain, WELCOME},
    process::Process,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Name {
    Notifyx,
    /// `send()` of the same bytes to as many sockets.
    Plain,
    Nchan,
}

impl Name {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Notifyx => "notifyx",
            Self::Plain => "plain send",
            Self::Nchan => "nchan",
        }
    }
}

#[derive(Debug)]
pub(crate) enum Target {
    Notifyx {
        platform: Box<Notifyx>,
        creator: Account,
        /// The accounts behind the sockets, each of many.
        listeners: Vec<Account>,
        topic: Box<notifyx_wire::rest::persist::Topic>,
        /// Nobody has joined it: what a publish costs without a fan-out.
        quiet: Box<notifyx_wire::rest::persist::Topic>,
    },
    Plain(Plain),
    Nchan {
        server: SocketAddr,
        process: Option<Process>,
    },
}

impl Target {
    pub(crate) async fn notifyx(platform: Notifyx, accounts: u32) -> Result<Self, Error> {
        let creator = platform.account("creator").await?;
        let mut listeners = Vec::new();
        for number in 0..accounts {
            listeners.push(platform.account(&format!("listener{number}")).await?);
        }
        let topic = Box::new(platform.topic(&creator, "fanout").await?);
        let quiet = Box::new(platform.topic(&creator, "quiet").await?);
        Ok(Self::Notifyx { platform: Box::new(platform), creator, listeners, topic, quiet })
    }

    pub(crate) const fn name(&self) -> Name {
        match self {
            Self::Notifyx { .. } => Name::Notifyx,
            Self::Plain(_) => Name::Plain,
            Self::Nchan { .. } => Name::Nchan,
        }
    }

    pub(crate) fn process(&self) -> Option<Process> {
        match self {
            Self::Notifyx { platform, .. } => platform.process,
            Self::Plain(plain) => Some(plain.process),
            Self::Nchan { process, .. } => *process,
        }
    }

    /// Where subscribers connect.
    pub(crate) fn server(&self) -> SocketAddr {
        match self {
            Self::Notifyx { platform, .. } => platform.gateway,
            Self::Plain(plain) => plain.subscribe,
            Self::Nchan { server, .. } => *server,
        }
    }

    pub(crate) fn greeting(&self, number: u32) -> Greeting {
        match self {
            Self::Notifyx { listeners, topic, .. } => {
                let token = listeners[number as usize % listeners.len()].token.as_str();
                let channel = format!("{NOTIFICATION_PREFIX}{}", topic.name);
                Greeting {
                    path: Some(format!("/socket/websocket?vsn=2.0.0&token={token}")),
                    join: Some(frame::from_client(&text::encode(Some("1"), Some("1"), &channel, JOIN, &json!({})))),
                    joined: Some(r#""status":"ok""#),
                }
            }
            Self::Plain(_) => Greeting { path: None, join: None, joined: Some(WELCOME) },
            Self::Nchan { .. } => Greeting { path: Some("/sub/fanout".into()), join: None, joined: None },
        }
    }

    pub(crate) fn heartbeat(&self) -> Option<Vec<u8>> {
        let beat = || text::encode(None, Some("heartbeat"), CONTROL_TOPIC, HEARTBEAT, &json!({}));
        matches!(self, Self::Notifyx { .. }).then(|| frame::from_client(&beat()))
    }

    pub(crate) async fn publisher(&self, payload_bytes: usize) -> Result<Publisher, Error> {
        let to = match self {
            Self::Notifyx { platform, creator, topic, .. } => To::Notifyx(platform.publisher(creator, topic).await?),
            Self::Plain(plain) => {
                let stream = TcpStream::connect(plain.publish).await.map_err(Error::io("the plain server"))?;
                stream.set_nodelay(true).map_err(Error::io("the plain server"))?;
                To::Plain(stream, SameText::new()?)
            }
            Self::Nchan { server, .. } => {
                let post = Post::new(*server, "/pub/fanout", "text/plain", None);
                To::Nchan(Connection::open(*server).await?, post, SameText::new()?)
            }
        };
        Ok(Publisher { payload_bytes, to })
    }

    /// Publishes where nobody listens; `None` where that would measure nothing.
    pub(crate) async fn quiet_publisher(&self, payload_bytes: usize) -> Result<Option<Publisher>, Error> {
        let Self::Notifyx { platform, creator, quiet, .. } = self else { return Ok(None) };
        Ok(Some(Publisher { payload_bytes, to: To::Notifyx(platform.publisher(creator, quiet).await?) }))
    }
}

/// One connection that publishes numbered messages.
#[derive(Debug)]
pub(crate) struct Publisher {
    payload_bytes: usize,
    to: To,
}

#[derive(Debug)]
enum To {
    Notifyx(notifyx::Publisher),
    Plain(TcpStream, SameText),
    Nchan(Connection, Post, SameText),
}

impl Publisher {
    /// Returns when the server has taken the message; an answer that is no success ends the measurement.
    pub(crate) async fn publish(&mut self, seq: u32) -> Result<(), Error> {
        let message = payload::text(seq, self.payload_bytes);
        match &mut self.to {
            To::Notifyx(publisher) => match publisher.publish(&message).await? {
                201 | 202 => Ok(()),
                status => Err(Error::failed(format!("a publish was answered {status}"))),
            },
            To::Plain(stream, same) => {
                let exchange = async {
                    stream.write_all(&frame::from_server(&same.with(&message))).await?;
                    stream.read_u8().await
                };
                exchange.await.map(drop).map_err(Error::io("publishing to the plain server"))
            }
            To::Nchan(connection, post, same) => {
                let answer = connection.post(post, same.with(&message).as_bytes()).await?;
                if matches!(answer.status, 200..=202) { Ok(()) } else { Err(answer.refused("a publish to Nchan")) }
            }
        }
    }
}

/// The text that Notifyx' gateway makes of a message, byte for byte as long: what the others are given to send.
#[derive(Debug)]
struct SameText {
    before: String,
    after: String,
}

impl SameText {
    fn new() -> Result<Self, Error> {
        let id = NotificationId::new(&Clock::system()).uuid().simple();
        let name: TopicName = format!("fanout-{id}").parse().map_err(Error::failed)?;
        let pushed = NotificationPushed {
            id: NotificationId::new(&Clock::system()),
            from: format!("creator.{id}@bench.example").parse().map_err(Error::failed)?,
            message: "|".to_owned().try_into().map_err(Error::failed)?,
            to: Vec::new(),
            topic: name.clone(),
            offset: 100,
            inserted_at: Clock::system().now(),
        };
        let text = text::broadcast(&format!("{NOTIFICATION_PREFIX}{name}"), NEW_NOTIFICATION, &pushed);
        let (before, after) = text.split_once('|').expect("no other part of the frame holds it");
        Ok(Self { before: before.into(), after: after.into() })
    }

    fn with(&self, message: &str) -> String {
        [&self.before, message, &self.after].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_send_a_frame_of_the_same_kind() {
        let text = SameText::new().unwrap().with(&payload::text(7, 200));
        let frame = notifyx_wire::phoenix::Frame::parse_text(&text).unwrap();
        assert_eq!(frame.event, NEW_NOTIFICATION);
        assert_eq!(payload::Finder::default().seq(text.as_bytes()), Some(7));
    }
}
