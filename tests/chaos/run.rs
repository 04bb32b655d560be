//! One run: set up, load and faults, heal, wait, reckon.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    io::Write as _,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use notifyx_database::testing::Server;
use rand::Rng;
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{
    books::{Books, Snapshot},
    harness::{Api, Form, Options, Person, Platform, fixed_port, unique},
    invariants,
    ledger::{End, Entry},
    member::Member,
    plan::{Fault, Nature, Plan},
    publisher::{Load, Publisher, Topic, ask_again, topics_of},
    recovered::Recovered,
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

/// The protocol's bound: with everything reachable again, no transaction is open after 45 s.
const BOUND: Duration = Duration::from_secs(45);

/// Ten times what a run takes on a busy machine, per 1,000 notifications: it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(900);

/// For what takes a moment on an idle machine.
const MOMENT: Duration = Duration::from_secs(60);

pub(crate) async fn run(form: Form) {
    let seed = setting("NOTIFYX_CHAOS_SEED").unwrap_or_else(|| rand::rng().random());
    let size = setting("NOTIFYX_CHAOS_NOTIFICATIONS").map_or(NOTIFICATIONS, |n| usize::try_from(n).expect("a count"));
    eprintln!("NOTIFYX_CHAOS_SEED={seed} NOTIFYX_CHAOS_NOTIFICATIONS={size} ({form:?})");
    let began = Instant::now();
    let mut scene = Scene::set_up(form, seed).await;
    let publishers: Vec<Publisher> = std::mem::take(&mut scene.publishers);
    let topics = topics_of(&publishers);
    let mut publishing = JoinSet::new();
    for publisher in publishers {
        publishing.spawn(publisher.run());
    }

    let faults = scene.strike(seed, size).await;

    scene.healed().await;
    let healed = Instant::now();
    *scene.load.give_up_at.lock().unwrap() = Some(healed + BOUND);
    scene.load.stop.store(true, Ordering::SeqCst);
    let ledger: Vec<Entry> = publishing.join_all().await.into_iter().flatten().collect();
    scene.all_is_closed(healed + BOUND).await;
    let settled = healed.elapsed();

    scene.keys_answer_as_before(&ledger).await;
    let books = scene.books.read().await;
    let mut violations = invariants::check(&books, &ledger, &topics).0;
    violations.extend(scene.everybody_saw_everything(&books, &topics).await);
    assert!(violations.is_empty(), "seed {seed}: {} violations\n{}", violations.len(), some(&violations));
    let committed = ledger.iter().filter(|entry| matches!(entry.end, End::Committed(_))).count();
    assert!(committed >= size, "only {committed} were committed");
    scene.figures(form, &ledger, &faults, settled, began.elapsed());
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

fn some(violations: &[String]) -> String {
    violations.iter().take(20).fold(String::new(), |text, one| text + one + "\n")
}

/// Everything and everybody in a run.
struct Scene {
    seed: u64,
    members: Vec<Arc<Mutex<Member>>>,
    gateways: Vec<String>,
    books: Books,
    load: Arc<Load>,
    publishers: Vec<Publisher>,
    /// The publishing accounts at every gateway.
    doors: HashMap<Uuid, Vec<Api>>,
    /// Who listens: name, id, topics, what was seen.
    audience: Vec<(String, Uuid, Vec<String>, Arc<Seen>)>,
    /// Listening, and counting what recovery does.
    background: JoinSet<()>,
    recovered: Recovered,
    /// What is not struck, and the folder of what is.
    #[expect(dead_code, reason = "it is kept for what its end ends")]
    platform: Platform,
}

impl Scene {
    async fn set_up(form: Form, seed: u64) -> Self {
        let server = (form == Form::Separate).then(|| Server::start_at(fixed_port()));
        let options = Options {
            processes: if form == Form::Separate { &PROCESSES } else { &["up"] },
            server: server.as_ref().map(|server| server.base.clone()),
            ..Options::default()
        };
        let mut platform = Platform::start_with(form, options).await;
        let gateways: Vec<String> = platform.instances("gateway").into_iter().map(str::to_owned).collect();
        let (victims, books, folder) = match form {
            Form::Separate => (&PROCESSES[2..], of_postgres(&platform), None),
            Form::Up => (&["up"][..], Books::Sqlite(platform.folder()), Some(platform.folder())),
        };
        let anonymous = platform.anonymous();
        let members = victims.iter().map(|name| {
            let command = platform.command(name);
            Member::process(platform.hand_over(name), command, folder.clone())
        });
        let members: Vec<Member> = members.collect();
        let members = members.into_iter().chain(server.map(Member::postgres));
        let mut scene = Self {
            seed,
            members: members.map(|member| Arc::new(Mutex::new(member))).collect(),
            gateways,
            books,
            load: Arc::default(),
            publishers: Vec::new(),
            doors: HashMap::new(),
            audience: Vec::new(),
            background: JoinSet::new(),
            recovered: Recovered::default(),
            platform,
        };
        scene.recovered.watch(&scene.gateways, &mut scene.background);
        scene.people(&anonymous).await;
        scene
    }

    /// Everybody registers, makes topics, and joins them.
    async fn people(&mut self, anonymous: &Api) {
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
            let mut gateways = self.gateways.clone();
            gateways.rotate_left(number % self.gateways.len());
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
            let doors = self.gateways.iter().map(|gateway| person.at(gateway).api).collect();
            self.doors.insert(person.id.parse().expect("an id"), doors);
            let stranger = &accounts[(number + 1) % ACCOUNTS].id;
            for task in 0..TASKS_PER_ACCOUNT {
                let seed = self.seed.wrapping_add((1 + number * TASKS_PER_ACCOUNT + task) as u64);
                self.publishers.push(Publisher::new(
                    format!("{number}.{task}"),
                    person,
                    topics[number].clone(),
                    stranger.clone(),
                    &self.gateways,
                    self.load.clone(),
                    seed,
                ));
            }
        }
    }

    /// Strikes, round after round, until enough was committed; everybody struck is there again at the end. Gives what was
    /// done, by kind.
    async fn strike(&self, seed: u64, size: usize) -> BTreeMap<&'static str, usize> {
        let mut natures = Vec::new();
        for member in &self.members {
            natures.push(member.lock().await.nature());
        }
        let hangs_at = Instant::now() + HANGS_AFTER.mul_f64(1.0 + size as f64 / 1_000.0);
        let began = Instant::now();
        let mut faults = BTreeMap::new();
        let mut suffering = JoinSet::new();
        for (number, round) in Plan::new(seed, natures.clone()).enumerate() {
            let committed = self.load.committed.load(Ordering::SeqCst);
            if number >= ROUNDS && committed >= size {
                break;
            }
            assert!(Instant::now() < hangs_at, "only {committed} of {size} were committed after {number} rounds");
            sleep(round.after).await;
            for (victim, fault) in round.strikes {
                // Whoever suffers already is left alone.
                let Ok(mut member) = self.members[victim].clone().try_lock_owned() else { continue };
                eprintln!(
                    "{:6.1} s {committed:6} committed, {}: {fault:?}",
                    began.elapsed().as_secs_f64(),
                    member.name()
                );
                *faults.entry(kind(natures[victim], fault)).or_default() += 1;
                suffering.spawn(async move { member.suffer(fault).await });
            }
            while let Some(ended) = suffering.try_join_next() {
                ended.expect("a member is there again");
            }
        }
        suffering.join_all().await;
        faults
    }

    /// Everything is reachable again, as far as the gateways can see.
    async fn healed(&self) {
        until(MOMENT, "every gateway is ready", async || {
            let ready = self.gateways.iter().map(|gateway| async move {
                let request = Api::new(gateway).request(reqwest::Method::GET, "/ready").timeout(MOMENT / 10);
                crate::harness::try_send(request).await.is_ok_and(|answer| answer.status == 200)
            });
            join_all(ready).await.into_iter().all(|ready| ready)
        })
        .await;
    }

    async fn all_is_closed(&self, by: Instant) {
        let mut open = self.books.open().await;
        while open > 0 {
            assert!(Instant::now() < by, "{open} transactions are open {BOUND:?} after everything was healed");
            sleep(Duration::from_millis(100)).await;
            open = self.books.open().await;
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
    fn figures(
        &self,
        form: Form,
        ledger: &[Entry],
        faults: &BTreeMap<&'static str, usize>,
        settled: Duration,
        took: Duration,
    ) {
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

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("NOTIFYX_CHAOS_SEED={}", self.seed);
            for member in &self.members {
                if let Ok(member) = member.try_lock() {
                    eprintln!("{}", member.log());
                }
            }
        }
    }
}

fn of_postgres(platform: &Platform) -> Books {
    Books::Postgres {
        gateway: platform.database("gateway"),
        persist: platform.database("persist"),
        counter: platform.database("counter-2pc"),
    }
}

fn kind(victim: Nature, fault: Fault) -> &'static str {
    match (victim, fault) {
        (Nature::Postgres, _) => "postgres",
        (Nature::Process, Fault::Kill { .. }) => "kill",
        (Nature::Process, Fault::Pause { .. }) => "pause",
    }
}

/// Waits for something, at most so long.
async fn until(within: Duration, what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + within;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        // A pause between looks, not a wait for something known to take this long.
        sleep(Duration::from_millis(25)).await;
    }
}
