//! The section `[cluster]`: how the services of one platform know and find each other.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use notifyx_model::Secret;
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::{base_url::BaseUrl, exit::Failure};

pub(crate) const DEFAULTS: &str = r#"# The secret by which services know each other: at least 16 characters, the same for every service. Better kept in the
# environment: NOTIFYX_CLUSTER__SECRET. Where none is set `notifyx up` makes one and keeps it beside its databases, in the
# file cluster.secret; without such a folder it makes one for each run.
secret = ""
# Where the registry is; several are tried in turn. `notifyx up` starts its own and uses that.
discovery = ["http://127.0.0.1:8000"]
"#;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) secret: ClusterSecret,
    pub(crate) discovery: Vec<BaseUrl>,
}

/// Empty (not set), or long enough that it cannot be guessed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(crate) struct ClusterSecret(Secret);

impl ClusterSecret {
    const MIN_CHARS: usize = 16;

    /// The secret, if one is set.
    pub(crate) fn set(&self) -> Option<&Secret> {
        (!self.0.is_empty()).then_some(&self.0)
    }
}

impl TryFrom<String> for ClusterSecret {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // It travels in a header.
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the secret may hold only visible ASCII characters without spaces".into());
        }
        if (1..Self::MIN_CHARS).contains(&text.len()) {
            return Err(format!("the secret has {} characters, fewer than {}", text.len(), Self::MIN_CHARS));
        }
        Ok(Self(Secret::new(text)))
    }
}

/// A secret for one run: 256 random bits.
pub(crate) fn random_secret() -> Secret {
    let bytes: [u8; 32] = rand::rng().random();
    Secret::new(bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

/// In the folder of the databases of `notifyx up`, readable by its owner only: whoever can read those needs no secret.
const KEPT: &str = "cluster.secret";

/// The secret that a folder keeps; makes it where there is none. Two that start at once get the same.
pub(crate) fn kept_secret(folder: &Path) -> Result<Secret, Failure> {
    if let Some(secret) = find_secret(folder)? {
        return Ok(secret);
    }
    let beside = folder.join(format!("{KEPT}.{}", std::process::id()));
    let made = (|| {
        fs::create_dir_all(folder)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        writeln!(file, "{}", random_secret().expose())?;
        file.sync_all()?;
        // Unlike a rename it does not replace what another process was quicker to make.
        match fs::hard_link(&beside, folder.join(KEPT)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    })();
    let _ = fs::remove_file(&beside);
    let failed = || Failure::machine(format!("cannot keep a secret in {}", folder.display()));
    made.map_err(failed())?;
    find_secret(folder)?.ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))
}

/// The secret of a folder, if it keeps one.
pub(crate) fn find_secret(folder: &Path) -> Result<Option<Secret>, Failure> {
    let path = folder.join(KEPT);
    if path.try_exists().is_ok_and(|there| !there) {
        return Ok(None);
    }
    read_secret(&path).map(Some)
}

/// The secret that is the first line of a file.
pub(crate) fn read_secret(path: &Path) -> Result<Secret, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(Failure::machine(format!("cannot read {shown}")))?;
    let line = text.lines().next().unwrap_or_default().trim();
    let secret = ClusterSecret::try_from(line.to_owned()).map_err(|why| Failure::Usage(format!("{shown}: {why}")))?;
    secret.set().cloned().ok_or_else(|| Failure::Usage(format!("{shown} holds no secret")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_secret_is_refused_and_not_shown() {
        assert!(ClusterSecret::try_from(String::new()).unwrap().set().is_none());
        let said = ClusterSecret::try_from("hunter2".to_owned()).unwrap_err();
        assert!(said.contains("fewer than 16") && !said.contains("hunter2"), "{said}");
        assert!(ClusterSecret::try_from("with spaces in the middle".to_owned()).is_err());
        assert!(ClusterSecret::try_from(random_secret().expose().to_owned()).unwrap().set().is_some());
    }

    #[test]
    fn a_folder_keeps_its_secret_to_its_owner() {
        use std::os::unix::fs::PermissionsExt;

        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("data");
        assert!(find_secret(&folder).unwrap().is_none());
        let secret = kept_secret(&folder).unwrap();
        assert_eq!(kept_secret(&folder).unwrap().expose(), secret.expose());
        let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files, [folder.join(KEPT)], "and nothing is left beside it");
        assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&files[0], "\n").unwrap();
        assert_eq!(kept_secret(&folder).unwrap_err().code(), 2);
    }
}
