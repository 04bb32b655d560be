//! Bodies of API keys: what auth and the gateway take and give.

use std::borrow::Borrow;

use notifyx_model::{Email, KeyId, KeyName, OutOfScope, Scopes, Timestamp, Token, UserId, Verb};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Identity;

/// `POST /api/keys`. At most one of `expires_at` and `ttl_s`; without either the key lasts until it is revoked.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// For you, to tell keys apart: what it is used by.
    pub name: KeyName,
    /// `publish:PATTERN` and `subscribe:PATTERN`, 1 to 32; a pattern is a category, the beginning of one and `*`, or `*`.
    pub scopes: Scopes,
    /// In the future, at most ten years ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Seconds that the key lasts, at most ten years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
}

/// `201` of `POST /api/keys`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreatedKey {
    pub success: bool,
    /// The key itself, sent as `Authorization: Bearer <key>`. It is shown this once and kept nowhere.
    pub key: Token,
    #[serde(flatten)]
    pub about: Key,
}

/// What is known of a key; never the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    pub id: KeyId,
    pub name: KeyName,
    /// How the key begins.
    pub prefix: String,
    pub scopes: Scopes,
    pub created_at: Timestamp,
    /// When it was last used, some minutes more or less; null where it never was.
    pub last_used_at: Option<Timestamp>,
    /// Null: lasts until it is revoked. One that has expired is listed for a while.
    pub expires_at: Option<Timestamp>,
}

/// `GET /api/keys`: the caller's, newest first. There are at most 100.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    pub keys: Vec<Key>,
}

/// Which key a token is: `GET /api/keys/self` (API key as bearer token).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyIdentity {
    pub key_id: KeyId,
    pub name: KeyName,
    /// The user whose key it is.
    pub id: UserId,
    pub email: Email,
    pub scopes: Scopes,
    pub expires_at: Option<Timestamp>,
}

/// Whom a token stands for. A user may do what a user may; a key only what its scopes say, and only at doors that ask
/// [`Principal::check`]: what wants a user matches for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    User(Identity),
    Key(KeyIdentity),
}

impl Principal {
    /// The user, or the user whose key it is.
    pub fn user_id(&self) -> UserId {
        match self {
            Self::User(identity) => identity.id,
            Self::Key(key) => key.id,
        }
    }

    pub fn email(&self) -> &Email {
        match self {
            Self::User(identity) => &identity.email,
            Self::Key(key) => &key.email,
        }
    }

    /// When it ends by itself.
    pub fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::User(identity) => Some(identity.expires_at),
            Self::Key(key) => key.expires_at,
        }
    }

    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at().is_none_or(|at| now < at)
    }

    /// What a key may do with categories; `None` is everything.
    pub fn scopes(&self) -> Option<&Scopes> {
        match self {
            Self::User(_) => None,
            Self::Key(key) => Some(&key.scopes),
        }
    }

    /// Whether it may publish or subscribe to a category: `principal.check(Verb::Subscribe, &category)?`.
    pub fn check<N: Borrow<str> + ?Sized>(&self, verb: Verb, category: &N) -> Result<(), OutOfScope> {
        self.scopes().map_or(Ok(()), |scopes| scopes.check(verb, category))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_with_bad_scopes_is_told_why() {
        let body = |scopes: serde_json::Value| {
            serde_json::from_value::<NewKey>(json!({ "name": "shop", "scopes": scopes })).map_err(|e| e.to_string())
        };
        assert_eq!(body(json!(["publish:orders.*"])).unwrap().scopes.to_string(), "publish:orders.*");
        assert!(body(json!(["publish:a*b"])).unwrap_err().contains("at its end"));
        assert!(body(json!([])).unwrap_err().contains("is empty"));
        assert!(body(json!("publish:*")).is_err());
    }

    #[test]
    fn a_created_key_is_one_flat_object() {
        let clock = notifyx_model::Clock::system();
        let created = CreatedKey {
            success: true,
            key: Token::parse(&format!("nxk_{}", "a".repeat(43))).unwrap(),
            about: Key {
                id: KeyId::new(&clock),
                name: KeyName::parse("shop").unwrap(),
                prefix: "nxk_aaaaaaaa".into(),
                scopes: serde_json::from_value(json!(["publish:*"])).unwrap(),
                created_at: Timestamp::from_micros(0),
                last_used_at: None,
                expires_at: None,
            },
        };
        let text = serde_json::to_value(&created).unwrap();
        assert_eq!(
            text,
            json!({
                "success": true,
                "key": created.key,
                "id": created.about.id,
                "name": "shop",
                "prefix": "nxk_aaaaaaaa",
                "scopes": ["publish:*"],
                "created_at": "1970-01-01T00:00:00Z",
                "last_used_at": null,
                "expires_at": null,
            })
        );
    }
}
