//! The API key that a command shows instead of the session: from a file or the environment, never from the command line, where
//! others can see it, and never printed.

use std::{
    env::{self, VarError},
    fs,
    path::Path,
};

use notifyx_model::Token;

use crate::exit::Failure;

/// Holds the key itself.
pub(crate) const VARIABLE: &str = "NOTIFYX_API_KEY";

/// The key of a file that is named, else of the environment; `None`: neither is there.
pub(crate) fn find(file: Option<&Path>) -> Result<Option<Token>, Failure> {
    if let Some(path) = file {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(Failure::machine(format!("cannot read {shown}")))?;
        return parse(text.lines().next().unwrap_or_default(), &shown.to_string()).map(Some);
    }
    match env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => parse(&text, VARIABLE).map(Some),
        Ok(_) | Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(no_key(VARIABLE)),
    }
}

fn parse(text: &str, place: &str) -> Result<Token, Failure> {
    let token = Token::parse(text.trim()).ok().filter(Token::is_key);
    token.ok_or_else(|| no_key(place))
}

/// Without what is there: it may be a secret of another kind.
fn no_key(place: &str) -> Failure {
    Failure::Usage(format!(
        "{place} holds no API key: one is `{}` and {} letters and digits, as `notifyx keys create` prints it",
        Token::KEY_PREFIX,
        Token::KEY_CHARS
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_the_key_on_its_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let key = format!("nxk_{}", "aZ9".repeat(15)[..43].to_owned());
        fs::write(&file, format!(" {key}\r\nof the shop\n")).unwrap();
        assert_eq!(find(Some(&file)).unwrap().unwrap().as_str(), key);
        assert_eq!(find(Some(&folder.path().join("none"))).unwrap_err().code(), 6);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for bad in ["", "hunter2hunter2hunter2", "nxk_short", &format!("nxk_{}", "a".repeat(44))] {
            let refused = parse(bad, "the file").unwrap_err();
            assert_eq!(refused.code(), 2);
            let told = refused.to_string();
            assert!(told.starts_with("the file holds no API key"), "{told}");
            assert!(bad.is_empty() || !told.contains(bad), "{told}");
        }
    }
}
