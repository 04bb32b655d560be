//! Who listens: each over one of the three ways, to one category, coming back with the offset it has whenever it is cut off.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{
    client::{micros, now_us},
    log::{self, Fired},
};
use crate::harness::{Api, Listener, Person, Way};

/// Nothing heard for so long: it comes back by another gateway, as one whose gateway is stopped has to.
const QUIET: Duration = Duration::from_secs(3);
const CONNECT_WITHIN: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_millis(100);

/// What is missed and too long for a stream is read in pages, from a gateway that may be struck meanwhile.
const PAGES_WITHIN: Duration = Duration::from_secs(120);

/// What one has heard; shared with the reckoning.
#[derive(Default)]
pub(crate) struct Heard {
    /// Offset and id, in order of arrival.
    events: Mutex<Vec<(u64, String)>>,
    /// What nobody may meet.
    wrongs: Mutex<Vec<String>>,
    pub(crate) connections: AtomicUsize,
}

pub(crate) struct Ear {
    pub(crate) way: Way,
    pub(crate) category: String,
    pub(crate) person: Person,
    /// The first is where it likes to be.
    pub(crate) gateways: Vec<String>,
    pub(crate) heard: Arc<Heard>,
}

impl Heard {
    fn last(&self) -> u64 {
        self.events.lock().unwrap().last().map_or(0, |(offset, _)| *offset)
    }

    fn hear(&self, offset: u64, id: String, what: &str) {
        let last = self.last();
        if offset != last + 1 {
            self.wrongs.lock().unwrap().push(format!("heard after offset {last}: {what}"));
        }
        self.events.lock().unwrap().push((offset, id));
    }

    fn wrong(&self, what: String) {
        self.wrongs.lock().unwrap().push(what);
    }

    /// What lacks, or is not as the log has it; and what was wrong on the way. More may have fired since the log was read.
    pub(crate) fn violations(&self, log: &[Fired]) -> Vec<String> {
        let heard = self.events.lock().unwrap();
        let mut wrong = self.wrongs.lock().unwrap().clone();
        if let Some((event, heard)) =
            log.iter().zip(&*heard).find(|(e, (offset, id))| (e.offset, &e.id) != (*offset, id))
        {
            wrong.push(format!("heard {heard:?} where the log has {event:?}"));
        }
        if heard.len() < log.len() {
            wrong.push(format!("heard {} of {} events, not {:?}", heard.len(), log.len(), log[heard.len()]));
        }
        wrong
    }
}

impl Ear {
    /// Listens for as long as it lives.
    pub(crate) async fn run(self) {
        for gateway in self.gateways.iter().cycle() {
            let from = self.heard.last();
            let open =
                Listener::try_open(self.way, gateway, &self.person.token, &self.category, from, CONNECT_WITHIN).await;
            if let Some(listener) = open {
                self.heard.connections.fetch_add(1, Ordering::SeqCst);
                self.listen(listener, &self.person.at(gateway).api).await;
            }
            sleep(AGAIN).await;
        }
    }

    /// Until the connection is of no more use.
    async fn listen(&self, mut listener: Listener, api: &Api) {
        let mut count = 0;
        while let Ok(Ok(event)) = timeout(QUIET, listener.next()).await {
            if event["recovered"] == false {
                self.read_pages(api, &event).await;
                continue;
            }
            count += 1;
            if self.way != Way::Channel && event["count"] != count {
                self.heard.wrong(format!("it is number {count} of the connection: {event}"));
            }
            if now_us() < micros(&event["fireAt"]) {
                self.heard.wrong(format!("it came early: {event}"));
            }
            match (event["offset"].as_u64(), event["id"].as_str()) {
                (Some(offset), Some(id)) => self.heard.hear(offset, id.to_owned(), &event.to_string()),
                _ => self.heard.wrong(format!("no event that has fired: {event}")),
            }
        }
    }

    /// What lies below the offset at which the stream goes on.
    async fn read_pages(&self, api: &Api, gap: &Value) {
        let head = gap["offset"].as_u64().expect("an offset");
        let until = Instant::now() + PAGES_WITHIN;
        for event in log::above(api, &self.category, self.heard.last(), until).await {
            if event.offset <= head {
                self.heard.hear(event.offset, event.id.clone(), &format!("{event:?}"));
            }
        }
    }
}
