//! Who is struck: a process that somebody supervises, or the PostgreSQL server.

use std::{collections::VecDeque, path::PathBuf, process::Command, time::Duration};

use notifyx_database::testing::Server;
use tokio::{task::block_in_place, time::sleep};

use crate::{
    harness::Process,
    plan::{Fault, Nature},
};

/// A start on a machine that runs all tests at once.
const START_WITHIN: Duration = Duration::from_secs(120);

/// A service that finds no database, because that was struck at the same time, ends and says so. Whoever runs services
/// starts them again.
const STARTS_MAX: usize = 240;
const START_AGAIN: Duration = Duration::from_millis(250);

/// Earlier lives whose last words are kept for a failed run.
const LIVES_KEPT: usize = 3;

pub(crate) struct Member {
    name: String,
    body: Body,
    lives: VecDeque<String>,
}

enum Body {
    Process { process: Process, command: Box<Command>, folder: Option<PathBuf> },
    Postgres(Server),
}

impl Member {
    /// `folder`: of the databases, where they are files.
    pub(crate) fn process(process: Process, command: Command, folder: Option<PathBuf>) -> Self {
        let name = process.name.clone();
        Self { name, body: Body::Process { process, command: Box::new(command), folder }, lives: VecDeque::new() }
    }

    pub(crate) fn postgres(server: Server) -> Self {
        Self { name: "postgres".into(), body: Body::Postgres(server), lives: VecDeque::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn nature(&self) -> Nature {
        match self.body {
            Body::Process { .. } => Nature::Process,
            Body::Postgres(_) => Nature::Postgres,
        }
    }

    /// Suffers a fault and is there again at the end of it.
    pub(crate) async fn suffer(&mut self, fault: Fault) {
        match (&mut self.body, fault) {
            (Body::Process { process, .. }, Fault::Kill { down }) => {
                process.kill();
                sleep(down).await;
                self.start().await;
            }
            (Body::Process { process, .. }, Fault::Pause { length }) => {
                process.signal("STOP");
                sleep(length).await;
                process.signal("CONT");
            }
            (Body::Postgres(server), Fault::Kill { down } | Fault::Pause { length: down }) => {
                block_in_place(|| server.crash());
                sleep(down).await;
                block_in_place(|| server.start_again());
            }
        }
    }

    async fn start(&mut self) {
        let Body::Process { process, command, folder } = &mut self.body else { return };
        for _ in 0..STARTS_MAX {
            if self.lives.len() == LIVES_KEPT {
                self.lives.pop_front();
            }
            self.lives.push_back(process.log());
            *process = Process::spawn(&self.name, command, folder.as_deref());
            if process.line(START_WITHIN).await.is_some() {
                return;
            }
            sleep(START_AGAIN).await;
        }
        panic!("{} does not start any more\n{}", self.name, self.log());
    }

    /// The last words of this life and of some before.
    pub(crate) fn log(&self) -> String {
        let now = match &self.body {
            Body::Process { process, .. } => process.log(),
            Body::Postgres(server) => {
                let log = server.log();
                let from = log.char_indices().rev().nth(20_000).map_or(0, |(at, _)| at);
                format!("--- postgres\n{}", &log[from..])
            }
        };
        self.lives.iter().map(String::as_str).chain([now.as_str()]).collect()
    }
}
