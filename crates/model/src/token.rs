//! Secrets: a user's token, its hash, the cluster's shared secret. None of them shows itself in a log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Invalid;

/// A bearer token as its owner holds it. Of a session: 256 random bits in URL-safe base64 (43 characters). Of an API key:
/// [`Token::KEY_PREFIX`] and 43 letters and digits, as many bits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Token(String);

impl Token {
    /// Any text of a sane length may claim to be a token; auth decides whether it is one.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let sane = (16..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if sane { Ok(Self(text.to_owned())) } else { Err(Invalid::new("token", "is not 16 to 256 visible characters")) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How an API key begins, so that people and scanners of source code know one when they see it.
    pub const KEY_PREFIX: &str = "nxk_";

    /// Characters of an API key after its prefix: 256 bits in 62 characters.
    pub const KEY_CHARS: usize = 43;

    /// Characters of an API key that may be shown to tell keys apart; 208 bits stay secret.
    pub const KEY_SHOWN: usize = Self::KEY_PREFIX.len() + 8;

    /// Whether this is written as an API key is. A session's token may begin with the same letters, but is shorter.
    pub fn is_key(&self) -> bool {
        let chars = self.0.strip_prefix(Self::KEY_PREFIX).map(str::as_bytes);
        chars.is_some_and(|rest| rest.len() == Self::KEY_CHARS && rest.iter().all(u8::is_ascii_alphanumeric))
    }

    /// What auth keeps and every cache looks it up by. Not salted: 256 random bits cannot be guessed.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(&self.0).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// SHA-256 of a token: all that is kept of it. On the wire 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct TokenHash(pub [u8; 32]);

impl FromStr for TokenHash {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("token hash", "is not 64 hexadecimal digits");
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(refuse());
        }
        let digit = |d: u8| char::from(d).to_digit(16).and_then(|v| u8::try_from(v).ok()).ok_or_else(refuse);
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(hash))
    }
}

impl TryFrom<String> for TokenHash {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<TokenHash> for String {
    fn from(hash: TokenHash) -> String {
        hash.to_string()
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// A secret from configuration, such as the cluster's. Compare it with `subtle`, never with `==`.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A printed configuration shows that a secret is set, not what it is.
impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "********" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_survives_its_text() {
        let hash = TokenHash(std::array::from_fn(|i| u8::try_from(i * 7).unwrap()));
        assert_eq!(hash.to_string().parse::<TokenHash>().unwrap(), hash);
        assert!("zz".parse::<TokenHash>().is_err());
        assert!("é".repeat(32).parse::<TokenHash>().is_err());
    }

    #[test]
    fn a_key_is_told_from_a_sessions_token() {
        let is_key = |text: String| Token::parse(&text).unwrap().is_key();
        assert!(is_key(format!("nxk_{}", "aZ9".repeat(15)[..43].to_owned())));
        assert!(!is_key(format!("nxk_{}", "a".repeat(39))), "a session's token that happens to begin so");
        assert!(!is_key(format!("nxk_{}", "a".repeat(44))));
        assert!(!is_key(format!("nxk_{}-", "a".repeat(42))));
        assert!(!is_key(format!("NXK_{}", "a".repeat(43))));
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(
            format!("{:?} {:?}", Secret::new("s3"), Token::parse(&"t".repeat(43)).unwrap()),
            "Secret(…) Token(…)"
        );
    }
}
