//! Throw-away databases for tests, and the runner that holds a store to the same suite on both backends.

use std::{
    io::{BufRead, BufReader, Write},
    mem,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::{Database, DatabaseUrl, Migrations, Options};

/// Longer than any test waits for its turn on a machine that runs all of them at once.
const PATIENT: Options = Options { connections: 8, acquire_timeout: Duration::from_secs(60) };

/// Keeps a test's files as long as it runs.
#[derive(Debug)]
pub struct TestDatabase {
    pub database: Database,
    _folder: Option<TempDir>,
}

/// An empty SQLite database with the schema in place.
pub async fn sqlite(migrations: &Migrations) -> TestDatabase {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = DatabaseUrl::sqlite(folder.path().join("test.db"));
    let database = Database::open(&url, PATIENT, migrations).await.expect("a new SQLite file");
    TestDatabase { database, _folder: Some(folder) }
}

/// An empty database with the schema in place, on a real PostgreSQL server that this process starts on first use.
pub async fn postgres(migrations: &Migrations) -> TestDatabase {
    let url = postgres_url("test").await;
    let database = Database::open(&url, PATIENT, migrations).await.expect("a new Postgres database");
    TestDatabase { database, _folder: None }
}

/// The URL of a database that does not exist yet. `NOTIFYX_TEST_POSTGRES` names a server to use instead of an own one.
#[expect(clippy::unused_async, reason = "callers are async; a server may one day be awaited here")]
pub async fn postgres_url(name: &str) -> DatabaseUrl {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("{name}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let base = match std::env::var("NOTIFYX_TEST_POSTGRES") {
        Ok(base) => base,
        Err(_) => server().base.clone(),
    };
    DatabaseUrl::parse(&format!("{}/{unique}", base.trim_end_matches('/'))).expect("a Postgres URL")
}

/// A PostgreSQL server of its own in a temporary folder. Its settings are PostgreSQL's defaults: `fsync` and
/// `full_page_writes` are on.
#[derive(Debug)]
pub struct Server {
    /// `postgres://…` without a database.
    pub base: String,
    pub folder: PathBuf,
    watchdog: Child,
    answers: BufReader<ChildStdout>,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A port that is ours until this process ends: nobody else is given it, also while nothing listens there. It is bound and not
/// listened at, which leaves it to whoever sets `SO_REUSEADDR`, as servers do.
pub fn fixed_port() -> u16 {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
    // Not before: it would have let two of us be given the same.
    socket.set_reuseaddr(true).expect("an option that every socket has");
    let port = socket.local_addr().expect("it is bound").port();
    // It is closed with the process, however that ends.
    mem::forget(socket);
    port
}

impl Server {
    /// Starts one at a port of its own. A watchdog shell stops it and removes its folder when this process ends,
    /// however it ends: it waits for the end of its standard input, which the kernel closes with us.
    pub fn start() -> Self {
        Self::start_at(fixed_port())
    }

    /// Starts one that can be started again: the port must stay its own meanwhile.
    pub fn start_at(port: u16) -> Self {
        Self::start_with(port, &std::env::temp_dir(), &[])
    }

    /// Starts one in a folder under `parent`, with settings of its own, each as `name=value`.
    pub fn start_with(port: u16, parent: &Path, settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("notifyx-pg-").tempdir_in(parent).expect("a new folder").keep();
        let script = include_str!("testing/postgres.sh");
        let mut watchdog = Command::new("bash")
            .args(["-c", script, "postgres.sh"])
            .arg(binaries())
            .arg(&folder)
            .arg(port.to_string())
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("bash");
        let answers = BufReader::new(watchdog.stdout.take().expect("piped"));
        let mut server = Self { base: format!("postgres://postgres@127.0.0.1:{port}"), folder, watchdog, answers };
        server.hear("ready");
        server
    }

    /// As a crash of the machine would: no checkpoint, no goodbye.
    pub fn stop_immediately(mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }

    /// The same, but it can be started again. Blocks until its processes are gone.
    pub fn crash(&mut self) {
        self.order("crash");
        self.hear("crashed");
    }

    /// Starts it again after [`Server::crash`], on what it had written; blocks until it has recovered.
    pub fn start_again(&mut self) {
        self.order("start");
        self.hear("ready");
    }

    /// What PostgreSQL said last, for a failed test.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn order(&mut self, order: &str) {
        let orders = self.watchdog.stdin.as_mut().expect("it is taken only by stopping");
        writeln!(orders, "{order}").expect("the watchdog listens");
    }

    fn hear(&mut self, expected: &str) {
        let mut said = String::new();
        self.answers.read_line(&mut said).expect("a line from the watchdog");
        assert_eq!(said.trim(), expected, "PostgreSQL's log is {}/log", self.folder.display());
    }
}

/// Where `initdb` and `postgres` are: on the path, or where Debian keeps them.
fn binaries() -> PathBuf {
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        // A link on the path may stand alone; its neighbours are where it points.
        .find_map(|folder| folder.join("initdb").canonicalize().ok()?.parent().map(Path::to_path_buf));
    let debian = || {
        let mut versions: Vec<_> =
            std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|e| e.path().join("bin")).collect();
        versions.retain(|folder| folder.join("initdb").exists());
        versions.sort();
        versions.pop()
    };
    on_path.or_else(debian).unwrap_or_else(|| {
        panic!(
            "no initdb on the path or under {}: `make setup` installs it",
            Path::new("/usr/lib/postgresql").display()
        )
    })
}

/// Runs each named `async fn(store)` against both backends, as tests of their own: `sqlite::name` and `postgres::name`.
/// The first argument opens the store: an `async fn(&Database) -> impl Store`.
#[macro_export]
macro_rules! conformance {
    ($open:path, $migrations:expr; $($case:ident),+ $(,)?) => {
        mod sqlite {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let kept = $crate::testing::sqlite($migrations).await;
                super::$case($open(&kept.database).await).await;
            })+
        }
        mod postgres {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let kept = $crate::testing::postgres($migrations).await;
                super::$case($open(&kept.database).await).await;
            })+
        }
    };
}
