//! One run: set up, load and faults, heal, wait until everything is done, reckon.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    audience::{Ear, Heard},
    client::{Client, Load, now_us},
    log::{Logs, get},
    notifier::{Inbox, Notification, Notifier},
    poster::Poster,
    recurring::{Maker, Recurring},
    story::Story,
};
use crate::{
    harness::{Api, Form, Person, Way, unique},
    settings,
    stage::Stage,
};

/// Discovery and auth are not struck. What publishes notifications is there once: that it is there twice is another run's.
const PROCESSES: [&str; 8] =
    ["discovery", "auth", "persist-1", "counter-2pc-1", "events-1", "events-2", "gateway-1", "gateway-2"];

/// Far fewer than wait in a category: windows overflow and are filled from the store all the time.
const SMALL_WINDOW: [(&str, &str); 1] = [("NOTIFYX_EVENTS__WINDOW_EVENTS", "8")];

/// What a run of `make test` gives at least, and the rounds of faults it goes through: ten seconds of load.
const THINGS: usize = 200;
const ROUNDS: usize = 7;

const CATEGORIES: usize = 2;
const POSTERS: usize = 6;
const NOTIFIERS: usize = 3;

/// With everything reachable again, all that was taken is done within this: what is due last, some seconds; two leases of 3 s;
/// the 45 s in which each transaction is closed; and what a busy machine takes.
pub(super) const BOUND: Duration = Duration::from_secs(240);

/// Violations that a failed run tells.
const TOLD_MAX: usize = 10;

pub(crate) async fn run(form: Form) {
    let seed = settings::seed();
    let size = settings::size("NOTIFYX_CHAOS_EVENTS").unwrap_or(THINGS);
    eprintln!("NOTIFYX_CHAOS_SEED={seed} NOTIFYX_CHAOS_EVENTS={size} ({form:?})");
    let began = Instant::now();
    let stage = Stage::set(form, seed, &PROCESSES, &SMALL_WINDOW).await;
    let cast = Cast::gather(&stage).await;
    let load = Load::default();
    let began_us = now_us() - i64::try_from(stage.storm.began().elapsed().as_micros()).expect("short");

    let storm = async {
        let faults = stage.storm.rage(ROUNDS, size, || load.taken.load(Ordering::SeqCst)).await;
        stage.healed().await;
        let healed = Instant::now();
        *load.give_up_at.lock().unwrap() = Some(healed + BOUND);
        load.stop.store(true, Ordering::SeqCst);
        (faults, healed)
    };
    let client = |task: u64| Client::new(&cast.ann, &stage.gateways, &load, seed.wrapping_add(1 + task));
    let posting = (0..POSTERS)
        .map(|n| Poster { name: format!("p{n}"), client: client(n as u64), categories: &cast.categories }.run());
    let notifying = (0..NOTIFIERS)
        .map(|n| Notifier { name: format!("n{n}"), client: client((POSTERS + n) as u64), topic: &cast.topic }.run());
    let name = unique("r");
    let making = Maker { name, client: client((POSTERS + NOTIFIERS) as u64), category: &cast.recurring }.run();
    let ((faults, healed), posted, notified, recurring) =
        tokio::join!(storm, join_all(posting), join_all(notifying), making);

    let given = Given {
        events: posted.into_iter().flatten().collect(),
        notifications: notified.into_iter().flatten().collect(),
        recurring,
    };
    let mut wrong = given.all_is_done(&stage.gateways, &cast, healed + BOUND, began_us).await;
    stage.all_is_closed(healed + BOUND).await;
    let settled = healed.elapsed();
    wrong.extend(given.reckon(&stage.gateways, &cast, began_us).await);
    let told = wrong.iter().take(TOLD_MAX).fold(String::new(), |text, one| text + one + "\n");
    assert!(wrong.is_empty(), "seed {seed}: {} violations\n{told}", wrong.len());

    let count = (given.events.len(), given.notifications.len(), given.recurring.len());
    let connections: usize = cast.ears.iter().map(|(_, _, heard)| heard.connections.load(Ordering::SeqCst)).sum();
    let mut line = format!("chaos {form:?}: seed {seed}, {} events, {} scheduled notifications", count.0, count.1);
    let _ = write!(line, ", {} schedules; faults {faults:?}; answers {:?}", count.2, load.answers.lock().unwrap());
    let _ = write!(line, "; {connections} connections; all done {:.1} s after healing", settled.as_secs_f64());
    let _ = writeln!(std::io::stderr(), "{line}; {:.0} s in all", began.elapsed().as_secs_f64());
}

/// Who takes part.
struct Cast {
    /// Gives everything.
    ann: Person,
    /// Gets what Ann publishes.
    bob: Person,
    categories: Vec<String>,
    /// The category of what recurs.
    recurring: String,
    topic: String,
    /// Who listens: how, to which category, what was heard.
    ears: Vec<(Way, String, Arc<Heard>)>,
    #[expect(dead_code, reason = "its end ends the listening")]
    listening: JoinSet<()>,
}

impl Cast {
    async fn gather(stage: &Stage) -> Self {
        let person = |name| Person::register(stage.anonymous.clone(), name);
        let (ann, bob) = tokio::join!(person("ann"), person("bob"));
        let topic = unique("chaos");
        let id = ann.create_topic(&topic).await;
        bob.subscribe(&id).await;
        let categories: Vec<String> = (0..CATEGORIES).map(|_| unique("c")).collect();
        let recurring = unique("recurring");
        let (mut ears, mut listening) = (Vec::new(), JoinSet::new());
        for category in categories.iter().chain([&recurring]) {
            for way in [Way::Plain, Way::Sse, Way::Channel] {
                let mut gateways = stage.gateways.clone();
                gateways.rotate_left(ears.len() % stage.gateways.len());
                let heard = Arc::new(Heard::default());
                ears.push((way, category.clone(), heard.clone()));
                listening.spawn(Ear { way, category: category.clone(), person: bob.clone(), gateways, heard }.run());
            }
        }
        Self { ann, bob, categories, recurring, topic, ears, listening }
    }

    fn all_categories(&self) -> Vec<String> {
        self.categories.iter().chain([&self.recurring]).cloned().collect()
    }
}

/// What was given, and what was answered.
struct Given {
    events: Vec<Story>,
    notifications: Vec<Notification>,
    recurring: Vec<Recurring>,
}

impl Given {
    /// Waits until nothing is left to be done; what is left nevertheless.
    async fn all_is_done(&self, gateways: &[String], cast: &Cast, by: Instant, began_us: i64) -> Vec<String> {
        loop {
            let left = self.left(&cast.ann.at(&gateways[0]).api, cast, by, began_us).await;
            if left.is_empty() || Instant::now() > by {
                return left;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// What waits for its time, or was not done at it: the first of each kind.
    async fn left(&self, api: &Api, cast: &Cast, by: Instant, began_us: i64) -> Vec<String> {
        let mut left = Vec::new();
        for category in cast.all_categories() {
            let waiting = get(api, &format!("/events?category={category}&state=scheduled&limit=1"), by + BOUND).await;
            if let Some(event) = waiting["events"].as_array().and_then(|events| events.first()) {
                let story = self.events.iter().find(|story| event["data"]["n"] == story.name.as_str());
                left.push(format!("{event} still waits\n{}", story.map_or(String::new(), |s| s.text(began_us, &[]))));
            }
        }
        let unfinished = self.recurring.iter().filter(|recurring| recurring.story.stands());
        for recurring in unfinished {
            let shown = get(api, &format!("/schedules/{}", recurring.id()), by + BOUND).await;
            if shown["state"] != "finished" {
                left.push(format!("{shown} goes on\n{}", recurring.story.text(began_us, &[])));
                break;
            }
        }
        for Notification { story, id } in self.notifications.iter().filter(|one| one.story.stands()) {
            let Some(id) = id else { continue };
            let shown = get(api, &format!("/api/notifications/scheduled/{id}"), by + BOUND).await;
            if shown["status"] != "published" {
                left.push(format!("{shown}\n{}", story.text(began_us, &[])));
                break;
            }
        }
        left
    }

    /// Everything that does not hold, with its story.
    async fn reckon(&self, gateways: &[String], cast: &Cast, began_us: i64) -> Vec<String> {
        let by = Instant::now() + BOUND;
        let api = cast.ann.at(&gateways[0]).api;
        let logs = Logs::read(&api, &cast.all_categories(), by).await;
        let mut wrong = logs.violations();
        for story in &self.events {
            let happened = logs.happened(&story.place, &story.name);
            wrong.extend(with_story(story.violations(&happened), || story.text(began_us, &happened)));
        }
        let mut strangers: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for category in &cast.categories {
            for event in logs.of(category) {
                *strangers.entry((category, &event.name)).or_default() += 1;
            }
        }
        for story in &self.events {
            strangers.remove(&(story.place.as_str(), story.name.as_str()));
        }
        wrong.extend(strangers.keys().map(|event| format!("{event:?} fired, and nobody gave it")));
        for recurring in &self.recurring {
            let stands = recurring.story.stands();
            let shown =
                if stands { Some(get(&api, &format!("/schedules/{}", recurring.id()), by).await) } else { None };
            let text = || recurring.story.text(began_us, &[]);
            wrong.extend(with_story(recurring.violations(&logs, shown.as_ref()), text));
        }
        let inbox = Inbox::read(&cast.bob.at(&gateways[0]).api, &cast.topic, by).await;
        for Notification { story, .. } in &self.notifications {
            let happened = inbox.of(&story.name);
            wrong.extend(with_story(story.violations(happened), || story.text(began_us, happened)));
        }
        wrong.extend(self.everybody_heard(cast, &logs, by, began_us).await);
        wrong
    }

    /// Everybody has heard all that the log has; the last of it may be on its way.
    async fn everybody_heard(&self, cast: &Cast, logs: &Logs, by: Instant, began_us: i64) -> Vec<String> {
        loop {
            let mut wrong = Vec::new();
            for (way, category, heard) in &cast.ears {
                let of_this = heard.violations(logs.of(category)).into_iter();
                wrong.extend(of_this.map(|what| {
                    let story = self.events.iter().find(|story| what.contains(&format!("\"{}\"", story.name)));
                    let story = story.map_or(String::new(), |s| s.text(began_us, &logs.happened(category, &s.name)));
                    format!("{way:?} listener of {category}: {what}\n{story}")
                }));
            }
            if wrong.is_empty() || Instant::now() > by {
                return wrong;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn with_story(wrong: Vec<String>, story: impl Fn() -> String) -> Vec<String> {
    wrong.into_iter().map(|what| format!("{what}\n{}", story())).collect()
}
