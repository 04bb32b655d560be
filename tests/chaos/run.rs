//! One run: set up, load and faults, heal, wait, reckon.

use std::{
    collections::{BTreeMap, HashMap},
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
use uuid::Uuid;

use crate::{
    books::Snapshot,
    harness::{Api, Form, Person, unique},
    invariants,
    ledger::{End, Entry},
    publisher::{Load, Publisher, Topic, ask_again, topics_of},
    recovered::Recovered,
    settings,
    stage::{MOMENT, Stage, until},
    storm::{Faults, HANGS_AFTER},
    subscriber::{Seen, Subscriber},
};

/// Discovery and auth are not struck; everything that takes part in a transaction is there twice.
const PROCESSES: [&str; 8] =
    ["discovery", "auth", "persist-1", "persist-2", "counter-2pc-1", "counter-2pc-2", "gateway-1", "gateway-2"];

/// What a run of `make test` publishes at least; half a minute of load.
const NOTIFICATIONS: usize = 600;
/// And the rounds of faults it goes through at least.
const ROUNDS: usize = 12;

/// People who publish, each from several tasks at once to topics of their own.
const ACCOUNTS: usize = 6;
const TASKS_PER_ACCOUNT: usize = 3;
const TOPICS_PER_ACCOUNT: usize = 2;
const SUBSCRIBERS: usize = 4;

/// The protocol's bound is 45 s after everything is reachable again; four times that on a machine that runs all tests at once, which a process
/// that is not struck may take to be reached.
const BOUND: Duration = Duration::from_secs(180);

pub(crate) async fn run(form: Form) {
    let seed = settings::seed();
    let size = settings::size("NOTIFYX_CHAOS_NOTIFICATIONS").unwrap_or(NOTIFICATIONS);
    eprintln!("NOTIFYX_CHAOS_SEED={seed} NOTIFYX_CHAOS_NOTIFICATIONS={size} ({form:?})");
    let began = Instant::now();
    let mut scene = Scene::set_up(form, seed).await;
    let publishers: Vec<Publisher> = std::mem::take(&mut scene.publishers);
    let topics = topics_of(&publishers);
    let mut publishing = JoinSet::new();
    for publisher in publishers {
        publishing.spawn(publisher.run());
    }

    let committed = || scene.load.committed.load(Ordering::SeqCst);
    let faults = scene.stage.storm.rage(ROUNDS, size, committed).await;

    scene.stage.healed().await;
    let healed = Instant::now();
    *scene.load.give_up_at.lock().unwrap() = Some(healed + BOUND);
    scene.load.stop.store(true, Ordering::SeqCst);
    let ledger: Vec<Entry> = publishing.join_all().await.into_iter().flatten().collect();
    scene.stage.all_is_closed(healed + BOUND).await;
    let settled = healed.elapsed();

    scene.keys_answer_as_before(&ledger).await;
    let books = scene.stage.books.read().await;
    let mut violations = invariants::check(&books, &ledger, &topics).0;
    violations.extend(scene.everybody_saw_everything(&books, &topics).await);
    assert!(violations.is_empty(), "seed {seed}: {} violations\n{}", violations.len(), some(&violations));
    let committed = ledger.iter().filter(|entry| matches!(entry.end, End::Committed(_))).count();
    assert!(committed >= size, "only {committed} were committed");
    scene.figures(&ledger, &faults, settled, began.elapsed());
}

fn some(violations: &[String]) -> String {
    violations.iter().take(20).fold(String::new(), |text, one| text + one + "\n")
}

/// Everything and everybody in a run.
struct Scene {
    seed: u64,
    stage: Stage,
    load: Arc<Load>,
    publishers: Vec<Publisher>,
    /// The publishing accounts at every gateway.
    doors: HashMap<Uuid, Vec<Api>>,
    /// Who listens: name, id, topics, what was seen.
    audience: Vec<(String, Uuid, Vec<String>, Arc<Seen>)>,
    /// Listening, and counting what recovery does.
    background: JoinSet<()>,
    recovered: Recovered,
}

impl Scene {
    async fn set_up(form: Form, seed: u64) -> Self {
        let mut scene = Self {
            seed,
            stage: Stage::set(form, seed, &PROCESSES, &[]).await,
            load: Arc::default(),
            publishers: Vec::new(),
            doors: HashMap::new(),
            audience: Vec::new(),
            background: JoinSet::new(),
            recovered: Recovered::default(),
        };
        scene.recovered.watch(&scene.stage.gateways, &mut scene.background);
        scene.people().await;
        scene
    }

    /// Everybody registers, makes topics, and joins them.
    async fn people(&mut self) {
        let anonymous = &self.stage.anonymous.clone();
        let register = |kind: &'static str| move |_| Person::register(anonymous.clone(), kind);
        let accounts = join_all((0..ACCOUNTS).map(register("publisher"))).await;
        let listeners = join_all((0..SUBSCRIBERS).map(register("subscriber"))).await;
        let mut topics: Vec<Vec<Topic>> = Vec::new();
        for person in &accounts {
            let mut own = Vec::new();
            for _ in 0..TOPICS_PER_ACCOUNT {
                let name = unique("chaos");
                let id = person.create_topic(&name).await.parse().expect("an id");
                own.push(Topic { name, id, subscribers: Vec::new() });
            }
            topics.push(own);
        }
        for (number, person) in listeners.into_iter().enumerate() {
            // The first two hear everything, one at each gateway; the others one topic of each account.
            let mut names = Vec::new();
            for own in &mut topics {
                let heard = if number < 2 { 0..own.len() } else { number % own.len()..number % own.len() + 1 };
                for topic in &mut own[heard] {
                    topic.subscribers.push(person.id.clone());
                    names.push(topic.name.clone());
                }
            }
            let mut gateways = self.stage.gateways.clone();
            gateways.rotate_left(number % self.stage.gateways.len());
            let (name, id, seen) = (format!("subscriber {number}"), person.id.parse().expect("an id"), Arc::default());
            self.audience.push((name.clone(), id, names.clone(), Arc::clone(&seen)));
            self.background.spawn(Subscriber { name, person, topics: names, gateways, seen }.run());
        }
        let audience = &self.audience;
        until(MOMENT, "everybody has joined", async || {
            audience.iter().all(|(_, _, topics, seen)| seen.joined.load(Ordering::SeqCst) == topics.len())
        })
        .await;
        for (number, person) in accounts.iter().enumerate() {
            let doors = self.stage.gateways.iter().map(|gateway| person.at(gateway).api).collect();
            self.doors.insert(person.id.parse().expect("an id"), doors);
            let stranger = &accounts[(number + 1) % ACCOUNTS].id;
            for task in 0..TASKS_PER_ACCOUNT {
                let seed = self.seed.wrapping_add((1 + number * TASKS_PER_ACCOUNT + task) as u64);
                self.publishers.push(Publisher::new(
                    format!("{number}.{task}"),
                    person,
                    topics[number].clone(),
                    stranger.clone(),
                    &self.stage.gateways,
                    self.load.clone(),
                    seed,
                ));
            }
        }
    }

    /// Invariant 5: a key that was committed answers with what was committed.
    async fn keys_answer_as_before(&self, ledger: &[Entry]) {
        let until = Instant::now() + HANGS_AFTER;
        for some in ledger.chunks(32) {
            let asked = some.iter().filter_map(|entry| match entry.end {
                End::Committed(gid) => Some(async move {
                    let answer = ask_again(&self.doors[&entry.user], entry, until).await;
                    let again = answer.as_ref().map(|answer| answer["gid"].as_str().map(str::to_owned));
                    assert_eq!(again, Ok(Some(gid.to_string())), "invariant 5: {entry:?}");
                }),
                _ => None,
            });
            join_all(asked).await;
        }
    }

    /// Every subscriber has seen all that it should, once, in order; what was committed last may be on its way.
    async fn everybody_saw_everything(&self, books: &Snapshot, topics: &HashMap<String, Uuid>) -> Vec<String> {
        let by = Instant::now() + BOUND;
        let mut lacking = self.lacking(books, topics);
        while !lacking.is_empty() && Instant::now() < by {
            sleep(Duration::from_millis(100)).await;
            lacking = self.lacking(books, topics);
        }
        let wrongs = self.audience.iter().flat_map(|(_, _, _, seen)| seen.wrongs.lock().unwrap().clone());
        lacking.into_iter().chain(wrongs).collect()
    }

    fn lacking(&self, books: &Snapshot, topics: &HashMap<String, Uuid>) -> Vec<String> {
        let mut lacking = Vec::new();
        for (name, user, names, seen) in &self.audience {
            for topic in names {
                let id = topics[topic];
                let mine = |offset| books.recipients.contains(&(id, offset, *user));
                let of_topic = books.notifications.iter().filter(|n| n.topic == id);
                let expected: Vec<(u64, Uuid)> =
                    of_topic.filter(|n| !n.targeted || mine(n.offset)).map(|n| (n.offset, n.id)).collect();
                let seen = seen.of(topic);
                if seen != expected {
                    let differ = expected.iter().zip(&seen).take_while(|(expected, seen)| expected == seen).count();
                    lacking.push(format!(
                        "{name} saw {} of {} of {topic}; first other: {:?} where {:?} is expected",
                        seen.len(),
                        expected.len(),
                        seen.get(differ),
                        expected.get(differ),
                    ));
                }
            }
        }
        lacking
    }

    /// One line, also where the output of tests that pass is not shown.
    fn figures(&self, ledger: &[Entry], faults: &Faults, settled: Duration, took: Duration) {
        let form = self.stage.form;
        let mut ends = BTreeMap::<&str, usize>::new();
        for entry in ledger {
            *ends.entry(entry.end.name()).or_default() += 1;
        }
        let connections: usize =
            self.audience.iter().map(|(_, _, _, seen)| seen.connections.load(Ordering::SeqCst)).sum();
        let mut line = format!("chaos {form:?}: seed {}, {} notifications {ends:?}", self.seed, ledger.len());
        let _ = write!(line, "; faults {faults:?}; answers {:?}", self.load.answers.lock().unwrap());
        let _ = write!(line, "; recovered {}; {connections} connections", self.recovered.summary());
        let _ = write!(line, "; all closed {:.1} s after healing", settled.as_secs_f64());
        let _ = writeln!(std::io::stderr(), "{line}; {:.0} s in all", took.as_secs_f64());
    }
}
