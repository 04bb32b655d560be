//! What operators ask on the command line about two-phase commits, and where the secret is that lets them.

use std::path::PathBuf;

use clap::{
    Args, Subcommand, ValueHint,
    builder::{PossibleValuesParser, TypedValueParser},
};
use notifyx_model::{Gid, OperatorName, Remark, Secret};
use notifyx_wire::rest::commit::{Heuristic, Standing};

use super::{Entry, Placement};
use crate::{cluster, exit::Failure, settings::Loaded};

/// Where `notifyx up` keeps its data unless told otherwise.
const DATA: &str = "data";

#[derive(Clone, Debug, Args)]
pub(crate) struct Transactions {
    #[command(subcommand)]
    pub(crate) action: TransactionsAction,
    #[command(flatten)]
    pub(crate) secret: SecretPlace,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum TransactionsAction {
    /// List transactions, oldest first
    Ls {
        /// Which of them
        #[arg(long, default_value = "open", value_parser = standing())]
        state: Standing,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Show all that is known of one
    Show {
        /// The transaction's id, as `notifyx 2pc ls` shows it; a notification has the same
        gid: Gid,
    },
    /// Try an open one again now, out of its pause
    Retry {
        /// The transaction's id
        gid: Gid,
        /// Who asks for it, for the log
        #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, value_parser = operator)]
        operator: Option<OperatorName>,
    },
    /// Close a quarantined one with what you found; nothing is tried any more, and the decision stays
    Resolve {
        /// The transaction's id
        gid: Gid,
        /// Its effect came about at both participants, at neither, or at one of them
        #[arg(long, value_parser = outcome())]
        outcome: Heuristic,
        /// What was found and done: one line, kept with the transaction
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Remark,
        /// Who found it, kept with the transaction
        #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, value_parser = operator)]
        operator: OperatorName,
    },
}

/// Where the cluster's secret is; never on the command line, where others can see it.
#[derive(Clone, Debug, Args)]
pub(crate) struct SecretPlace {
    /// A file whose first line is the cluster's secret
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["config", "data"], value_hint = ValueHint::FilePath)]
    secret_file: Option<PathBuf>,
    /// The platform's configuration, with `secret` under [cluster]
    #[arg(long, global = true, value_name = "FILE", env = "NOTIFYX_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The data folder of a `notifyx up` [default: data]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data: Option<PathBuf>,
}

impl SecretPlace {
    /// What is named here goes before what is in the environment, and that before a folder that happens to be there.
    pub(crate) fn find(&self) -> Result<Secret, Failure> {
        if let Some(file) = &self.secret_file {
            return cluster::read_secret(file);
        }
        let missing = |place: String| {
            Failure::Credentials(format!(
                "{place}: name a --secret-file, set NOTIFYX_CLUSTER__SECRET, or name the --data folder of `notifyx up`"
            ))
        };
        if let Some(folder) = &self.data {
            return cluster::find_secret(folder)?
                .ok_or_else(|| missing(format!("{} keeps no secret of a cluster", folder.display())));
        }
        let placement = Placement { config: self.config.clone(), ..Placement::default() };
        let loaded = Loaded::up(&placement, Entry::default()).map_err(|refused| Failure::Usage(refused.to_string()))?;
        if let Some(secret) = loaded.settings.cluster.secret.set() {
            return Ok(secret.clone());
        }
        cluster::find_secret(DATA.as_ref())?.ok_or_else(|| missing("the secret of the cluster is needed".into()))
    }
}

/// In the command line's spelling.
fn standing() -> impl TypedValueParser<Value = Standing> {
    let words = ["open", "in-doubt", "quarantined", "preparing", "committed", "aborted", "resolved", "all"];
    PossibleValuesParser::new(words).try_map(|word| word.replace('-', "_").parse::<Standing>())
}

fn outcome() -> impl TypedValueParser<Value = Heuristic> {
    PossibleValuesParser::new(["committed", "rolled-back", "mixed"])
        .try_map(|word| word.replace('-', "_").parse::<Heuristic>())
}

fn operator(text: &str) -> Result<OperatorName, String> {
    OperatorName::parse(text).map_err(|error| error.to_string())
}

fn reason(text: &str) -> Result<Remark, String> {
    Remark::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Command, CommandLine};

    fn action(line: &str) -> TransactionsAction {
        match CommandLine::try_parse_from(line.split(' ')).unwrap().command {
            Command::Transactions(wish) => wish.action,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_word_of_the_wire_has_its_spelling_here() {
        for standing in Standing::ALL {
            let line = format!("notifyx 2pc ls --state {}", standing.as_str().replace('_', "-"));
            assert!(matches!(action(&line), TransactionsAction::Ls { state, .. } if state == *standing), "{line}");
        }
        for found in Heuristic::ALL {
            let word = found.as_str().replace('_', "-");
            let gid = "0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40";
            let line = format!("notifyx 2pc resolve {gid} --outcome {word} --reason r --operator o");
            assert!(
                matches!(action(&line), TransactionsAction::Resolve { outcome, .. } if outcome == *found),
                "{line}"
            );
        }
    }

    #[test]
    fn a_named_place_goes_first() {
        let home = tempfile::tempdir().unwrap();
        let place = SecretPlace { secret_file: None, config: None, data: Some(home.path().to_owned()) };
        assert_eq!(place.find().unwrap_err().code(), 4);
        let kept = cluster::kept_secret(home.path()).unwrap();
        assert_eq!(place.find().unwrap().expose(), kept.expose());
        let file = home.path().join("mine");
        std::fs::write(&file, "0123456789abcdef\nmore\n").unwrap();
        let place = SecretPlace { secret_file: Some(file), ..place };
        assert_eq!(place.find().unwrap().expose(), "0123456789abcdef");
    }
}
