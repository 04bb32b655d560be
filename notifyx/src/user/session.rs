//! The session that `notifyx login` keeps: one file in the user's configuration directory, readable by its owner only.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
};

use notifyx_model::{Email, Timestamp, Token, UserId};
use serde::{Deserialize, Serialize};

use crate::{base_url::BaseUrl, exit::Failure};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    /// The only server the token is sent to.
    pub(crate) server: BaseUrl,
    pub(crate) token: Token,
    pub(crate) id: UserId,
    pub(crate) email: Email,
    pub(crate) expires_at: Timestamp,
}

/// Where the session is kept.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    /// `$NOTIFYX_HOME`, else `$XDG_CONFIG_HOME/notifyx`, else `~/.config/notifyx`.
    pub(crate) fn open() -> Result<Self, Failure> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // The XDG specification: a relative path is to be ignored.
        let xdg = || variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).map(|path| path.join("notifyx"));
        let home = || variable("HOME").map(|path| path.join(".config/notifyx"));
        let folder = variable("NOTIFYX_HOME").or_else(xdg).or_else(home).ok_or_else(|| {
            Failure::Usage("there is no place for the session: set HOME, XDG_CONFIG_HOME or NOTIFYX_HOME".into())
        })?;
        Ok(Self::at(folder))
    }

    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("session.json")
    }

    pub(crate) fn read(&self) -> Result<Option<Session>, Failure> {
        let path = self.path();
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|_| {
                Failure::Credentials(format!("{} holds no session: log in again with `notifyx login`", path.display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::machine(format!("cannot read {}", path.display()))(error)),
        }
    }

    /// All of the new session or all of the old one, whatever happens meanwhile.
    pub(crate) fn write(&self, session: &Session) -> Result<(), Failure> {
        let path = self.path();
        let failed = || Failure::machine(format!("cannot write {}", path.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed())?;
        let beside = self.folder.join(format!("session.json.{}", std::process::id()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(serde_json::to_string_pretty(session).expect("a session is plain data").as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        })();
        if written.is_err() {
            // What is left of a failed attempt must not block the next one.
            let _ = fs::remove_file(&beside);
        }
        written.map_err(failed())
    }

    pub(crate) fn remove(&self) -> Result<(), Failure> {
        let path = self.path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::machine(format!("cannot remove {}", path.display()))(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use notifyx_model::Clock;

    use super::*;

    fn session(token: &str) -> Session {
        Session {
            server: BaseUrl::parse("http://127.0.0.1:4000").unwrap(),
            token: Token::parse(token).unwrap(),
            id: UserId::new(&Clock::system()),
            email: Email::parse("ann@example.org").unwrap(),
            expires_at: Clock::system().now(),
        }
    }

    #[test]
    fn only_the_owner_can_read_a_session() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path().join("deep/notifyx"));
        store.write(&session("first-token-0000")).unwrap();
        store.write(&session("second-token-000")).unwrap();
        assert_eq!(fs::metadata(store.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&store.folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(store.read().unwrap().unwrap().token.as_str(), "second-token-000");
        assert_eq!(fs::read_dir(&store.folder).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_removed_session_is_gone_and_removing_again_is_fine() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path().to_owned());
        store.write(&session("first-token-0000")).unwrap();
        store.remove().unwrap();
        store.remove().unwrap();
        assert!(store.read().unwrap().is_none());
    }

    #[test]
    fn a_broken_file_asks_for_a_new_login() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path().to_owned());
        fs::write(store.path(), "{").unwrap();
        assert_eq!(store.read().unwrap_err().code(), 4);
    }
}
