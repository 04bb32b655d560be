//! What users ask on the command line about their API keys.

use clap::{Args, Subcommand};
use notifyx_model::{KeyId, KeyName, Scope};

#[derive(Clone, Debug, Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    pub(crate) action: KeysAction,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KeysAction {
    /// Make a key and print it, this once
    Create {
        /// What uses it: 1 to 64 bytes
        #[arg(long, value_parser = name)]
        name: KeyName,
        /// What it may do: `publish:PATTERN` or `subscribe:PATTERN`, a pattern being a category, the beginning of one and `*`, or `*`
        #[arg(long = "scope", required = true, num_args = 1.., value_name = "SCOPE", value_parser = scope)]
        scopes: Vec<Scope>,
        /// How long it lasts, such as 90d, 12h, 30m or 45s [default: until it is revoked]
        #[arg(long, value_name = "SPAN", value_parser = seconds)]
        expires: Option<u64>,
    },
    /// List your keys, newest first; never the keys themselves
    Ls,
    /// Show which key you hold: whose it is, what it may do, until when
    #[command(
        name = "self",
        after_help = "\
Examples:
  notifyx keys self --api-key-file /run/secrets/shop
  NOTIFYX_API_KEY=$KEY notifyx keys self"
    )]
    Own,
    /// End keys: what was opened with them is closed within a second
    Revoke {
        /// As `notifyx keys ls` shows them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<KeyId>,
    },
}

fn name(text: &str) -> Result<KeyName, String> {
    KeyName::parse(text).map_err(|error| error.to_string())
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).map_err(|error| error.to_string())
}

/// A number and its unit, in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let refuse = || format!("`{text}` is no span: write a number and one of w, d, h, m, s, such as 90d");
    let unit = text.chars().next_back().ok_or_else(refuse)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(refuse()),
    };
    let number = &text[..text.len() - unit.len_utf8()];
    if !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(refuse());
    }
    let count: u64 = number.parse().map_err(|_| refuse())?;
    count.checked_mul(factor).filter(|seconds| *seconds > 0).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        for (text, expected) in [("90d", 7_776_000), ("12h", 43_200), ("30m", 1_800), ("45s", 45), ("2w", 1_209_600)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for bad in
            ["", "d", "90", "0d", "-1d", "+1d", "1.5h", "90 d", "90é", "99999999999999999999d", "9999999999999999999d"]
        {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
