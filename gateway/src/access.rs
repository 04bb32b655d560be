//! Who may publish and listen to events: the one rule that every door of events asks.

use notifyx_model::{Category, Fault, Kind, OutOfScope, Scopes, Verb};

/// Why somebody may not touch a category.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    #[error("category `{0}` begins with `$`: such names are the platform's own, choose another")]
    Reserved(Category),
    #[error(transparent)]
    OutOfScope(#[from] OutOfScope),
}

impl Fault for Barred {
    fn kind(&self) -> Kind {
        match self {
            Self::Reserved(_) => Kind::Forbidden,
            Self::OutOfScope(refused) => refused.kind(),
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Reserved(_) => "category_reserved",
            Self::OutOfScope(refused) => refused.code(),
        }
    }
}

/// `scopes` are those of a key; a user, and whoever needs no credentials, has none and may do all that is open to anybody.
pub(crate) fn check(scopes: Option<&Scopes>, verb: Verb, category: &Category) -> Result<(), Barred> {
    if category.as_str().starts_with('$') {
        return Err(Barred::Reserved(category.clone()));
    }
    scopes.map_or(Ok(()), |scopes| scopes.check(verb, category).map_err(Barred::from))
}

#[cfg(test)]
mod tests {
    use notifyx_model::Scope;

    use super::*;

    #[test]
    fn a_key_is_held_to_its_scopes_and_nobody_touches_what_is_the_platforms_own() {
        let key = Scopes::new(vec![Scope::parse("subscribe:orders.*").unwrap()]).unwrap();
        let all = Scopes::new(vec![Scope::parse("subscribe:*").unwrap()]).unwrap();
        let told = |scopes: Option<&Scopes>, verb, category: &str| {
            let told = check(scopes, verb, &Category::parse(category).unwrap());
            told.map_err(|barred| barred.code().to_owned())
        };
        assert_eq!(told(None, Verb::Publish, "orders.new"), Ok(()));
        assert_eq!(told(Some(&key), Verb::Subscribe, "orders.new"), Ok(()));
        assert_eq!(told(Some(&key), Verb::Publish, "orders.new"), Err("out_of_scope".into()));
        assert_eq!(told(Some(&key), Verb::Subscribe, "payments"), Err("out_of_scope".into()));
        for scopes in [None, Some(&all)] {
            assert_eq!(told(scopes, Verb::Subscribe, "$notifications"), Err("category_reserved".into()));
        }
    }
}
