//! The command line as a script uses it: arguments, standard input, standard output, exit code.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, time::timeout};

use super::process::{Process, notifyx};

/// Longer than any command may take under the load of these tests.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// A person at a terminal: a configuration folder and a server.
pub(crate) struct Terminal {
    home: TempDir,
    server: String,
    variables: Vec<(&'static str, String)>,
}

pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Terminal {
    pub(crate) fn new(gateway: &str) -> Self {
        Self {
            home: TempDir::with_prefix("notifyx-home-").expect("a temporary folder"),
            server: format!("http://{gateway}"),
            variables: Vec::new(),
        }
    }

    /// With a variable in the environment of every command.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = notifyx();
        command.args(args).env("NOTIFYX_HOME", self.home.path()).env("NOTIFYX_SERVER", &self.server);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, "").await
    }

    /// Runs a command to its end with this on its standard input.
    pub(crate) async fn run_with(&self, args: &[&str], input: &str) -> Said {
        let mut command = tokio::process::Command::from(self.command(args));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("notifyx");
        let mut stdin = child.stdin.take().expect("piped");
        // A command that wants no input may be gone already.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let ended = timeout(ENDS_WITHIN, child.wait_with_output()).await;
        let output =
            ended.unwrap_or_else(|_| panic!("{args:?} did not end within {ENDS_WITHIN:?}")).expect("an output");
        Said {
            code: output.status.code().expect("no signal"),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// Starts a command that goes on until it is ended.
    pub(crate) fn start(&self, args: &[&str]) -> Process {
        Process::spawn(&args.join(" "), &mut self.command(args), None)
    }

    /// Registers and logs in.
    pub(crate) async fn log_in(&self, email: &str) {
        let password = "correct horse battery\n";
        self.run_with(&["register", email, "--password-stdin", "--json"], password).await.records(0);
        self.run_with(&["login", email, "--password-stdin", "--json"], password).await.records(0);
    }
}

impl Said {
    /// That the command ended with this code.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
    }

    /// The lines of a `--json` output of a command that ended with this code.
    #[track_caller]
    pub(crate) fn records(&self, code: i32) -> Vec<Value> {
        self.expect(code);
        self.out.lines().map(|line| serde_json::from_str(line).expect("one JSON object per line")).collect()
    }
}
