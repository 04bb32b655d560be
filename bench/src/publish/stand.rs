//! A backend, with all that is measured on it: the platform with its accounts, and the yardsticks.

use std::sync::Arc;

use notifyx_wire::rest::persist::Topic;
use serde::Serialize;
use tokio::{runtime::Handle, task::JoinSet};

use super::{Groups, Point, Publish, load::Worker};
use crate::{
    error::Error,
    notifyx::{Account, Notifyx},
    postgres::Postgres,
    process::Process,
    yardstick::Yardsticks,
};

/// Accounts are made this many at a time: hashing a password takes a core for a while, and the service bounds the queue.
const ACCOUNTS_AT_ONCE: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Backend {
    Sqlite,
    Postgres,
    /// Whatever the platform at `--server` keeps its data in.
    Unknown,
}

impl Backend {
    pub(super) const ALL: [Self; 3] = [Self::Sqlite, Self::Postgres, Self::Unknown];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "Postgres",
            Self::Unknown => "its databases",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Subject {
    Notifyx,
    /// One plain local transaction for each notification.
    Local,
    /// One plain local transaction for all that wait, at most 256.
    Grouped,
    /// PREPARE TRANSACTION in two databases for each notification.
    Prepared,
}

impl Subject {
    pub(super) const YARDSTICKS: [Self; 3] = [Self::Local, Self::Grouped, Self::Prepared];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Notifyx => "notifyx",
            Self::Local => "local transactions",
            Self::Grouped => "grouped local transactions",
            Self::Prepared => "PREPARE TRANSACTION",
        }
    }
}

pub(super) struct Stand {
    pub(super) backend: Backend,
    platform: Arc<Notifyx>,
    owners: Vec<(Account, Topic)>,
    yardsticks: Option<Yardsticks>,
    database: Served,
}

/// By which process the databases are served.
#[derive(Clone, Copy, Debug)]
enum Served {
    /// By the platform's own, or nobody knows.
    Within,
    By(Process),
    /// By one elsewhere: how much CPU it takes is not known.
    Elsewhere,
}

/// What there is to measure.
pub(super) async fn all(args: &Publish, postgres: Option<&Postgres>) -> Result<Vec<Stand>, Error> {
    let (data, core) = (args.measured.data.as_deref(), args.measured.pin.then_some(0));
    let owners = args.publishers.iter().copied().max().unwrap_or(1);
    let platform = args.measured.find(core)?;
    let platform = platform.ok_or_else(|| Error::failed("nothing to measure: --notifyx PROGRAM or --server ADDR"))?;
    let Some(program) = &args.measured.notifyx else {
        return Ok(vec![Stand::new(Backend::Unknown, platform, owners, None, Served::Within).await?]);
    };
    let yardsticks = if args.yardstick { Some(Yardsticks::sqlite(data, owners).await?) } else { None };
    let mut stands = vec![Stand::new(Backend::Sqlite, platform, owners, yardsticks, Served::Within).await?];
    if let Some(postgres) = postgres {
        let platform = Notifyx::start(program, core, data, Some(&postgres.text("up")))?;
        let yardsticks = if args.yardstick { Some(Yardsticks::postgres(postgres, owners).await?) } else { None };
        let database = postgres.process().map_or(Served::Elsewhere, Served::By);
        stands.push(Stand::new(Backend::Postgres, platform, owners, yardsticks, database).await?);
    }
    Ok(stands)
}

impl Stand {
    async fn new(
        backend: Backend,
        platform: Notifyx,
        owners: u32,
        yardsticks: Option<Yardsticks>,
        database: Served,
    ) -> Result<Self, Error> {
        let platform = Arc::new(platform);
        let owners = self::owners(&platform, owners).await?;
        Ok(Self { backend, platform, owners, yardsticks, database })
    }

    /// What can be measured here at this point.
    pub(super) fn subjects(&self, point: Point) -> Vec<Subject> {
        let mut subjects = vec![Subject::Notifyx];
        if let Some(yardsticks) = &self.yardsticks {
            subjects.push(Subject::Local);
            // A group of one is a local transaction.
            if point.publishers > 1 {
                subjects.push(Subject::Grouped);
            }
            // Two transactions of one topic would each hold the lock that the other waits for, in two databases, which
            // neither server would see.
            if yardsticks.prepared(0).is_some() && !point.shared {
                subjects.push(Subject::Prepared);
            }
        }
        subjects
    }

    /// Connected and waiting, and where they are to run if not here.
    pub(super) async fn workers(
        &self,
        subject: Subject,
        point: Point,
    ) -> Result<(Vec<Worker>, Option<&Handle>), Error> {
        let owner = |number: u32| if point.shared { 0 } else { number as usize };
        let mut workers = Vec::new();
        for number in 0..point.publishers {
            workers.push(match (subject, &self.yardsticks) {
                (Subject::Notifyx, _) | (_, None) => {
                    let (account, topic) = &self.owners[owner(number)];
                    Worker::Publisher(self.platform.publisher(account, topic).await?)
                }
                (Subject::Local, Some(yardsticks)) => Worker::Writer(yardsticks.local(owner(number))),
                (Subject::Grouped, Some(yardsticks)) => Worker::Writer(yardsticks.grouped(owner(number))),
                (Subject::Prepared, Some(yardsticks)) => {
                    let writer = yardsticks.prepared(owner(number));
                    Worker::Writer(writer.ok_or_else(|| Error::failed("there is no PREPARE TRANSACTION here"))?)
                }
            });
        }
        let elsewhere = self.yardsticks.as_ref().filter(|_| subject != Subject::Notifyx);
        Ok((workers, elsewhere.map(Yardsticks::handle)))
    }

    /// Seconds of CPU of the platform, or of the yardsticks in this process, and of their Postgres.
    pub(super) fn cpu_s(&self, subject: Subject) -> Result<Option<f64>, Error> {
        let own = match subject {
            Subject::Notifyx => self.platform.process.map(Process::cpu_s).transpose()?,
            Subject::Local | Subject::Grouped | Subject::Prepared => Some(Process::this().cpu_s()?),
        };
        let database = match self.database {
            Served::Within => Some(0.0),
            Served::By(process) => Some(process.family_cpu_s()?),
            Served::Elsewhere => None,
        };
        Ok(own.zip(database).map(|(own, database)| own + database))
    }

    pub(super) async fn groups(&self, subject: Subject) -> Result<Option<Groups>, Error> {
        match subject {
            Subject::Notifyx => Ok(Some(Groups::parse(&self.platform.metrics().await?))),
            Subject::Local | Subject::Grouped | Subject::Prepared => Ok(None),
        }
    }
}

/// Accounts with a topic each.
async fn owners(platform: &Arc<Notifyx>, count: u32) -> Result<Vec<(Account, Topic)>, Error> {
    eprintln!("registering {count} accounts at {}", platform.gateway);
    let (mut making, mut made) = (JoinSet::new(), Vec::new());
    for number in 0..count {
        let platform = platform.clone();
        making.spawn(async move {
            let account = platform.account(&format!("publisher{number}")).await?;
            let topic = platform.topic(&account, &format!("publish{number}")).await?;
            Ok::<_, Error>((account, topic))
        });
        if making.len() >= ACCOUNTS_AT_ONCE
            && let Some(one) = making.join_next().await
        {
            made.push(one.expect("making an account does not panic")?);
        }
    }
    while let Some(one) = making.join_next().await {
        made.push(one.expect("making an account does not panic")?);
    }
    Ok(made)
}
