//! What an API key may do: verbs on patterns of categories. The one rule every door asks is [`Scopes::check`].

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Category, Fault, Invalid, Kind};

/// What is done with a category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Publish,
    Subscribe,
}

impl Verb {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One verb on one pattern, written `publish:orders.*`. A pattern is a category's name, the beginning of one followed by
/// `*`, or `*` alone for all.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope {
    verb: Verb,
    /// Without the `*`.
    name: Arc<str>,
    /// What begins with the name is meant, not the name alone.
    prefix: bool,
}

impl Scope {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: String| Err(Invalid::new("scope", why));
        let (verb, pattern) = match text.split_once(':') {
            Some(("publish", pattern)) => (Verb::Publish, pattern),
            Some(("subscribe", pattern)) => (Verb::Subscribe, pattern),
            Some(_) | None => return refuse("is neither `publish:PATTERN` nor `subscribe:PATTERN`".into()),
        };
        let (name, prefix) = match pattern.strip_suffix('*') {
            Some(name) => (name, true),
            None => (pattern, false),
        };
        if name.contains('*') {
            return refuse("may hold one `*`, at its end".into());
        }
        // A beginning is good where some category begins so: with what stands for the rest, it is held to a category's rules.
        let possible = if prefix { Category::parse(&format!("{name}-")) } else { Category::parse(name) };
        possible.map_err(|error| Invalid::new("scope", format!("names no category: {error}")))?;
        Ok(Self { verb, name: name.into(), prefix })
    }

    pub fn allows<N: Borrow<str> + ?Sized>(&self, verb: Verb, category: &N) -> bool {
        let category = category.borrow();
        self.verb == verb && if self.prefix { category.starts_with(&*self.name) } else { category == &*self.name }
    }
}

impl FromStr for Scope {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Scope {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> String {
        scope.to_string()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}{}", self.verb, self.name, if self.prefix { "*" } else { "" })
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// All that one key may do: 1 to [`Scopes::MAX`] scopes, each once. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "Vec<Scope>", into = "Vec<Scope>")]
#[schema(value_type = Vec<String>)]
pub struct Scopes(Arc<[Scope]>);

impl Scopes {
    /// Each is looked at for every event; who needs more names their categories with a common beginning.
    pub const MAX: usize = 32;

    pub fn new(scopes: Vec<Scope>) -> Result<Self, Invalid> {
        let refuse = |why: String| Err(Invalid::new("list of scopes", why));
        match scopes.len() {
            0 => return refuse("is empty: a key without a scope could do nothing".into()),
            count if count > Self::MAX => return refuse(format!("has {count} entries, more than {}", Self::MAX)),
            _ => {}
        }
        let mut once: Vec<Scope> = Vec::with_capacity(scopes.len());
        for scope in scopes {
            if !once.contains(&scope) {
                once.push(scope);
            }
        }
        Ok(Self(once.into()))
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Scope> {
        self.0.iter()
    }

    /// Whether one of them does: `scopes.allows(Verb::Publish, &category)`.
    pub fn allows<N: Borrow<str> + ?Sized>(&self, verb: Verb, category: &N) -> bool {
        self.iter().any(|scope| scope.allows(verb, category))
    }

    /// [`Self::allows`], as a refusal that says which scope is lacking.
    pub fn check<N: Borrow<str> + ?Sized>(&self, verb: Verb, category: &N) -> Result<(), OutOfScope> {
        if self.allows(verb, category) {
            Ok(())
        } else {
            Err(OutOfScope { verb, category: category.borrow().to_owned() })
        }
    }
}

impl<'a> IntoIterator for &'a Scopes {
    type Item = &'a Scope;
    type IntoIter = std::slice::Iter<'a, Scope>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl TryFrom<Vec<Scope>> for Scopes {
    type Error = Invalid;

    fn try_from(scopes: Vec<Scope>) -> Result<Self, Invalid> {
        Self::new(scopes)
    }
}

impl From<Scopes> for Vec<Scope> {
    fn from(scopes: Scopes) -> Self {
        scopes.0.to_vec()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, scope) in self.iter().enumerate() {
            write!(f, "{}{scope}", if place == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A key was used for what none of its scopes allows. The same at every door.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this API key may not {verb} to `{category}`: none of its scopes covers `{verb}:{category}`")]
pub struct OutOfScope {
    pub verb: Verb,
    pub category: String,
}

impl Fault for OutOfScope {
    fn kind(&self) -> Kind {
        Kind::Forbidden
    }

    fn code(&self) -> &'static str {
        "out_of_scope"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(texts: &[&str]) -> Result<Scopes, Invalid> {
        Scopes::new(texts.iter().map(|text| Scope::parse(text)).collect::<Result<_, _>>()?)
    }

    #[test]
    fn a_pattern_is_a_name_a_beginning_or_everything() {
        let key = scopes(&["publish:orders.*", "subscribe:invoices", "subscribe:a b*"]).unwrap();
        for name in ["orders.", "orders.new", "orders.new.eu"] {
            assert!(key.allows(Verb::Publish, name), "{name}");
        }
        for name in ["orders", "order", "invoices", "my.orders.new"] {
            assert!(!key.allows(Verb::Publish, name), "{name}");
        }
        assert!(key.allows(Verb::Subscribe, "invoices") && key.allows(Verb::Subscribe, "a bc"));
        assert!(!key.allows(Verb::Subscribe, "invoices.new") && !key.allows(Verb::Subscribe, "orders.new"));
        let all = scopes(&["subscribe:*"]).unwrap();
        assert!(all.allows(Verb::Subscribe, &Category::parse("whatever").unwrap()));
        assert!(!all.allows(Verb::Publish, "whatever"));
    }

    #[test]
    fn bad_scopes_are_refused_with_the_reason() {
        for (bad, why) in [
            ("", "neither"),
            ("publish", "neither"),
            ("delete:orders", "neither"),
            ("Publish:orders", "neither"),
            (" publish:orders", "neither"),
            ("publish:", "is empty"),
            ("publish:or*ders", "at its end"),
            ("publish:**", "at its end"),
            ("publish:*.new", "at its end"),
            ("publish:a/b", "holds a /"),
            ("publish:a/*", "holds a /"),
            ("publish:a\0*", "control character"),
            ("publish: a", "white space"),
            ("publish: *", "white space"),
            (&format!("publish:{}", "c".repeat(201)), "more than 200"),
            (&format!("publish:{}*", "c".repeat(200)), "more than 200"),
        ] {
            let error = Scope::parse(bad).unwrap_err().to_string();
            assert!(error.starts_with("scope ") && error.contains(why), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_list_is_bounded_and_names_each_once() {
        let many = |count: usize| (0..count).map(|n| Scope::parse(&format!("publish:c{n}")).unwrap()).collect();
        assert!(Scopes::new(Vec::new()).unwrap_err().to_string().contains("is empty"));
        assert_eq!(Scopes::new(many(Scopes::MAX)).unwrap().iter().count(), Scopes::MAX);
        let error = Scopes::new(many(Scopes::MAX + 1)).unwrap_err().to_string();
        assert_eq!(error, "list of scopes has 33 entries, more than 32");
        assert_eq!(scopes(&["publish:a", "publish:a", "subscribe:a"]).unwrap().to_string(), "publish:a subscribe:a");
    }

    #[test]
    fn what_is_lacking_is_said() {
        let refused = scopes(&["publish:a"]).unwrap().check(Verb::Subscribe, "a").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "this API key may not subscribe to `a`: none of its scopes covers `subscribe:a`"
        );
        assert_eq!((refused.kind(), refused.code()), (Kind::Forbidden, "out_of_scope"));
    }

    #[test]
    fn what_was_accepted_is_accepted_again() {
        for text in ["publish:*", "subscribe:orders.*", "publish:a:b", "publish:orders"] {
            assert_eq!(Scope::parse(text).unwrap().to_string(), text);
        }
    }
}
