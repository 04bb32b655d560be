//! A program that a test started: its output is kept, and it is gone when its owner is gone, however that ends.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::mpsc, time::timeout};

/// The program under test.
pub(crate) const NOTIFYX: &str = env!("CARGO_BIN_EXE_notifyx");

/// Lines of output that are kept of one process: what a failed test shows.
const LINES_MAX: usize = 200;

/// Waits for the end of its standard input, which the kernel closes with the tests, and ends what they left behind:
/// `$1` a process, `$2` its folder. Signals meant for the tests must not end it first.
const WATCHDOG: &str = r#"trap '' INT TERM HUP; read -r _; kill -9 "$1" 2>/dev/null; [ -z "$2" ] || rm -rf -- "$2""#;

pub(crate) struct Process {
    pub(crate) name: String,
    child: Child,
    watchdog: Child,
    lines: mpsc::UnboundedReceiver<String>,
    /// Standard error's: only its end is waited for.
    remarks: mpsc::UnboundedReceiver<String>,
    kept: Arc<Mutex<VecDeque<String>>>,
}

/// `notifyx` with nothing of the surrounding environment that could change what it does.
pub(crate) fn notifyx() -> Command {
    let mut command = Command::new(NOTIFYX);
    command.env_clear();
    for name in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

impl Process {
    /// `folder` is removed too if the tests end without dropping this.
    pub(crate) fn spawn(name: &str, command: &mut Command, folder: Option<&Path>) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog", &child.id().to_string()])
            .arg(folder.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("sh");
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let (line, lines) = mpsc::unbounded_channel();
        let (remark, remarks) = mpsc::unbounded_channel();
        follow(child.stdout.take().expect("piped"), kept.clone(), line);
        follow(child.stderr.take().expect("piped"), kept.clone(), remark);
        Self { name: name.to_owned(), child, watchdog, lines, remarks, kept }
    }

    /// The next line of standard output; `None` at its end.
    pub(crate) async fn line(&mut self, within: Duration) -> Option<String> {
        let next = timeout(within, self.lines.recv()).await;
        next.unwrap_or_else(|_| panic!("{} said nothing for {within:?}\n{}", self.name, self.log()))
    }

    /// Asks it to stop, as an operator or a container runtime does.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill").success(), "{} is no longer there\n{}", self.name, self.log());
    }

    /// As a crash or the out-of-memory killer would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }

    /// Waits for its end, which closes its standard output and error: the log is then whole.
    pub(crate) async fn exited(&mut self, within: Duration) -> ExitStatus {
        let end = async {
            while self.lines.recv().await.is_some() {}
            while self.remarks.recv().await.is_some() {}
        };
        let ended = timeout(within, end).await.is_ok();
        assert!(ended, "{} has not ended after {within:?}\n{}", self.name, self.log());
        self.child.wait().expect("a child of ours")
    }

    /// The last that it said.
    pub(crate) fn log(&self) -> String {
        let kept = self.kept.lock().expect("nobody panics while writing a line");
        kept.iter().fold(format!("--- {}\n", self.name), |mut text, line| {
            let _ = writeln!(text, "    {line}");
            text
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The watchdog first: once the child is waited for, its number may be another's.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the end, so that the process never waits for a reader.
fn follow(
    output: impl Read + Send + 'static,
    kept: Arc<Mutex<VecDeque<String>>>,
    lines: mpsc::UnboundedSender<String>,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            {
                let mut kept = kept.lock().expect("nobody panics while reading the log");
                if kept.len() == LINES_MAX {
                    kept.pop_front();
                }
                kept.push_back(line.clone());
            }
            // Whoever listened may be gone.
            let _ = lines.send(line);
        }
    });
}
