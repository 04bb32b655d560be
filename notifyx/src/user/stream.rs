//! `notifyx events stream`: prints the events of a category as they fire, over restarts of the server.
//!
//! It listens over the plain WebSocket. The last offset that was printed is remembered, and a lost connection goes on from there, so
//! that nothing is missed and nothing printed twice.

use std::{convert::Infallible, time::Duration};

use futures_util::StreamExt;
use notifyx_model::Category;
use notifyx_wire::rest::{Problem, events::Event};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::Instant};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::header::{AUTHORIZATION, HeaderValue},
        protocol::WebSocketConfig,
    },
};

use super::{
    client::{Client, root_cause, segment},
    live::{ANSWER_TIMEOUT, closed},
    pause::Pauses,
    print::{self, Output, Style, clean, moment},
};
use crate::{args::Stream, exit::Failure};

/// The server pings well within it.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The largest event with every character escaped.
const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Above every offset there is: the server answers where the category stands.
const STANDING: u64 = u64::MAX;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) async fn run(client: &Client, output: Output, wish: Stream) -> Result<(), Failure> {
    let last = wish.from.map(|from| from.saturating_sub(1));
    let mut streaming = Streaming { client, output, category: wish.category, last, known: false };
    tokio::select! {
        ended = streaming.follow() => ended.map(|never| match never {}),
        // The way to end it, not a mishap.
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

struct Streaming<'a> {
    client: &'a Client,
    output: Output,
    category: Category,
    /// What was printed, or lies behind us for another reason.
    last: Option<u64>,
    /// Was listened to at least once: what fails now may pass.
    known: bool,
}

enum End {
    Final(Failure),
    Again(String),
}

/// What every message says, and what only some do.
#[derive(Deserialize)]
struct Said {
    offset: u64,
    recovered: Option<bool>,
}

impl Streaming<'_> {
    async fn follow(&mut self) -> Result<Infallible, Failure> {
        let mut pauses = Pauses::default();
        loop {
            let since = Instant::now();
            let why = match self.connection().await {
                Err(End::Final(failure)) => return Err(failure),
                Err(End::Again(why)) => why,
                Ok(never) => match never {},
            };
            let server = self.client.server();
            if !self.known {
                return Err(Failure::Unreachable { server: server.to_string(), why });
            }
            self.output.remark(&format!("-- lost {server}: {}; connecting again", clean(&why)));
            self.record(&json!({ "event": "disconnected", "why": why }))?;
            pauses.wait(since).await;
        }
    }

    /// One connection, to its end.
    async fn connection(&mut self) -> Result<Infallible, End> {
        let mut socket = self.connect().await?;
        if self.last.is_some() {
            self.listening().map_err(End::Final)?;
        }
        loop {
            let text = match tokio::time::timeout(SILENCE_MAX, socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => text,
                Ok(Some(Ok(Message::Close(frame)))) => return Err(End::Again(closed(frame))),
                // A ping is answered by the library.
                Ok(Some(Ok(_))) => continue,
                Ok(Some(Err(error))) => return Err(End::Again(root_cause(&error))),
                Ok(None) => return Err(End::Again("the connection has ended".into())),
                Err(_) => return Err(End::Again("nothing was heard of it".into())),
            };
            self.take(&text)?;
        }
    }

    async fn connect(&self) -> Result<Socket, End> {
        let address = self.client.server().as_str().replacen("http", "ws", 1);
        let from = self.last.unwrap_or(STANDING);
        let url = format!("{address}/ws/events/{}?from={from}", segment(self.category.as_str()));
        let mut request = url.into_client_request().map_err(|error| End::Again(root_cause(&error)))?;
        if let Some(token) = self.client.bearer().map_err(End::Final)? {
            let bearer = HeaderValue::from_str(&format!("Bearer {}", token.as_str())).expect("a token is visible text");
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let config =
            WebSocketConfig::default().max_message_size(Some(FRAME_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
        let connecting = connect_async_with_config(request, Some(config), true);
        match tokio::time::timeout(ANSWER_TIMEOUT, connecting).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(tungstenite::Error::Http(answer))) => {
                Err(match refused(answer.status().as_u16(), answer.body().as_deref()) {
                    End::Final(failure) => End::Final(self.client.explain(failure)),
                    again @ End::Again(_) => again,
                })
            }
            Ok(Err(error)) => Err(End::Again(root_cause(&error))),
            Err(_) => Err(End::Again("it does not answer in time".into())),
        }
    }

    fn take(&mut self, text: &str) -> Result<(), End> {
        let said: Said = serde_json::from_str(text).map_err(|error| strange(&error))?;
        if said.recovered == Some(false) {
            let missed = self.last.replace(said.offset);
            return match missed {
                None => self.listening(),
                Some(last) => self.gap(last, said.offset),
            }
            .map_err(End::Final);
        }
        // What was printed before the connection was lost does not come again; if it does, it is not printed again.
        if self.last.is_some_and(|last| said.offset <= last) {
            return Ok(());
        }
        self.last = Some(said.offset);
        self.show(text)
    }

    fn listening(&mut self) -> Result<(), Failure> {
        let again = std::mem::replace(&mut self.known, true);
        let how = if again { "again; Ctrl-C ends it" } else { "as it fires; Ctrl-C ends it" };
        self.output.remark(&format!("-- listening to {} {how}", self.category));
        self.record(&json!({ "event": "listening", "category": self.category, "offset": self.last }))
    }

    fn gap(&self, last: u64, head: u64) -> Result<(), Failure> {
        // A category whose offsets begin anew has nothing in between.
        let (from, to) = if last < head { (last + 1, head) } else { (1, head) };
        self.output.remark(&format!(
            "-- {}: number {from} to {to} are not replayed; see `notifyx events ls {:?} --fired`",
            self.category,
            self.category.as_str()
        ));
        self.record(&json!({ "event": "gap", "category": self.category, "from": from, "to": to }))
    }

    fn show(&self, text: &str) -> Result<(), End> {
        if self.output.json() {
            // As it came, with its kind before it.
            let record = format!("{{\"event\":\"fired\",{}", text.trim_start().trim_start_matches('{'));
            return print::line(&record).map_err(End::Final);
        }
        let event: Event = serde_json::from_str(text).map_err(|error| strange(&error))?;
        print::line(&format!(
            "{} {} {} {}: {}",
            moment(event.fired_at.unwrap_or(event.fire_at)),
            self.output.paint(Style::Strong, &event.category),
            self.output.paint(Style::Faint, format!("#{}", event.offset.unwrap_or_default())),
            self.output.paint(Style::Faint, &event.id),
            clean(event.data.get()),
        ))
        .map_err(End::Final)
    }

    /// For scripts only; people are told by remarks.
    fn record(&self, record: &Value) -> Result<(), Failure> {
        if self.output.json() { print::record(record) } else { Ok(()) }
    }
}

/// The server and this program do not understand each other; another version of it may answer next time.
fn strange(error: &serde_json::Error) -> End {
    End::Again(format!("it sends what this version of notifyx does not read: {error}"))
}

/// What is refused is refused again, unless it passes by itself.
fn refused(status: u16, body: Option<&[u8]>) -> End {
    let problem = body.and_then(|body| serde_json::from_slice::<Problem>(body).ok());
    match problem.map(|problem| Failure::from_problem(problem, None)) {
        Some(failure @ (Failure::Refused(_) | Failure::Credentials(_))) => End::Final(failure),
        Some(failure) => End::Again(failure.to_string()),
        None => End::Again(format!("it answers {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_not_pass_is_final() {
        let told = |status: u16| {
            let body =
                json!({ "success": false, "status": status, "title": "", "code": "c", "detail": "d" }).to_string();
            match refused(status, Some(body.as_bytes())) {
                End::Final(failure) => Some(failure.code()),
                End::Again(_) => None,
            }
        };
        assert_eq!([401, 403, 400, 503, 429].map(told), [Some(4), Some(1), Some(1), None, None]);
        assert!(matches!(refused(502, Some(b"<html>")), End::Again(why) if why == "it answers 502"));
    }
}
