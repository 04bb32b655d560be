//! What a request was, in 32 bytes: tells a repetition from another request under the same id or key.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256 over a route and the canonical JSON of a body.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestHash(pub [u8; 32]);

impl RequestHash {
    /// Of `body` sent to `route`. Object keys are sorted, so that neither the order of fields nor white space matters.
    pub fn of(route: &str, body: &impl Serialize) -> Self {
        let value = serde_json::to_value(body).expect("a request that was parsed from JSON is JSON again");
        let mut hasher = Sha256::new();
        hasher.update(route.as_bytes());
        // No route and no JSON text holds this byte: the two cannot run into each other.
        hasher.update([0]);
        feed(&value, &mut hasher);
        Self(hasher.finalize().into())
    }

    /// As a database gave it back; `None` if it has not 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// 64 digits.
impl fmt::LowerHex for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Enough to tell two apart.
impl fmt::Debug for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…")
    }
}

fn feed(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            hasher.update(b"{");
            for (name, value) in fields {
                hasher.update(quoted(name));
                hasher.update(b":");
                feed(value, hasher);
                hasher.update(b",");
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            for item in items {
                feed(item, hasher);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        Value::String(text) => hasher.update(quoted(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => hasher.update(value.to_string()),
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let one: Value = serde_json::from_str(r#"{"a": 1, "b": {"x": [1, 2], "y": null}}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"b":{"y":null,"x":[1,2]},"a":1}"#).unwrap();
        assert_eq!(RequestHash::of("/r", &one), RequestHash::of("/r", &two));
    }

    #[test]
    fn route_and_body_both_count() {
        let hash = RequestHash::of("/r", &json!({"a": "1"}));
        assert_ne!(hash, RequestHash::of("/s", &json!({"a": "1"})));
        assert_ne!(hash, RequestHash::of("/r", &json!({"a": 1})));
        assert_ne!(RequestHash::of("/r", &json!(["a", "b"])), RequestHash::of("/r", &json!(["a\",\"b"])));
        assert_ne!(RequestHash::of("/r", &json!([[1], 2])), RequestHash::of("/r", &json!([[1, 2]])));
    }

    #[test]
    fn a_stored_hash_reads_back_equal() {
        let hash = RequestHash::of("/r", &1);
        assert_eq!(RequestHash::from_slice(hash.as_slice()), Some(hash));
        assert_eq!(RequestHash::from_slice(&[0; 31]), None);
        assert_eq!(
            format!("{:x} {:?}", RequestHash([10; 32]), RequestHash([10; 32])),
            format!("{} 0a0a0a0a…", "0a".repeat(32))
        );
    }
}
