//! Configuration in layers: defaults, a file, the environment, flags; the later layer wins.
//!
//! Each key is tried against the typed settings as it is laid on, so that what is refused is refused with its place: the
//! line of the file, the name of the variable, the flag. Nothing here knows which settings there are.

use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use toml::{Table, Value, de::DeTable};

/// Far more than any configuration needs; a wrong path (a log, a disk) is not read into memory.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is no configuration: it has more than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{origin}: {why}")]
    Syntax { origin: Origin, why: String },
    #[error("{origin}: `{key}`: {why}{}", default.as_ref().map(|d| format!(" (the default is {d})")).unwrap_or_default())]
    Value { origin: Origin, key: String, why: String, default: Option<String> },
    #[error("{name}: sections and keys are separated by two underscores: did you mean {meant}?")]
    OneUnderscore { name: String, meant: String },
}

/// The values so far. `T` is what they must make at every moment.
pub(crate) struct Layers<T> {
    defaults: Table,
    table: Table,
    origins: BTreeMap<Vec<String>, Origin>,
    settings: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Layers<T> {
    /// Begins with the compiled-in defaults.
    pub(crate) fn new(defaults: &str) -> Self {
        let table: Table = defaults.parse().expect("the compiled-in defaults are TOML: a test reads them");
        Self { defaults: table.clone(), table, origins: BTreeMap::new(), settings: PhantomData }
    }

    /// Lays a TOML file on.
    pub(crate) fn file(&mut self, path: &Path) -> Result<(), Refused> {
        let failed = |source| Refused::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(Refused::TooLarge { path: path.to_owned() });
        }
        self.text(path, &std::fs::read_to_string(path).map_err(failed)?)
    }

    fn text(&mut self, path: &Path, text: &str) -> Result<(), Refused> {
        let place = |at: usize| Origin::File { path: path.to_owned(), line: line_of(text, at) };
        // The message alone: the full error quotes the line, which may hold a password.
        let syntax = |error: &toml::de::Error| Refused::Syntax {
            origin: place(error.span().map_or(0, |span| span.start)),
            why: error.message().to_owned(),
        };
        let values: Table = text.parse().map_err(|error| syntax(&error))?;
        let spans = DeTable::parse(text).map_err(|error| syntax(&error))?;
        let mut leaves = Vec::new();
        collect(&values, spans.get_ref(), &mut Vec::new(), &mut leaves);
        // In the order of the file, so that the first mistake is the one reported.
        leaves.sort_by_key(|leaf| leaf.at);
        for leaf in leaves {
            self.set(leaf.key, leaf.value, place(leaf.at))?;
        }
        Ok(())
    }

    /// Lays on the variables named `NOTIFYX_<SECTION>__<KEY>`. Others with the prefix are not settings and are left alone,
    /// unless two underscores were clearly meant.
    pub(crate) fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) -> Result<(), Refused> {
        let mut variables: Vec<_> = variables
            .into_iter()
            .filter_map(|(name, text)| Some((name.strip_prefix("NOTIFYX_")?.to_lowercase(), name, text)))
            .collect();
        variables.sort();
        for (rest, name, text) in variables {
            if rest.contains("__") {
                let mut key: Vec<String> = rest.split("__").map(str::to_owned).collect();
                key[0] = self.section(&key[0]);
                self.set_text(&key, &text, &Origin::Environment(name))?;
            } else if let Some((section, key)) = self.one_underscore(&rest) {
                let meant = format!("NOTIFYX_{}__{}", section.replace('-', "_"), key).to_uppercase();
                return Err(Refused::OneUnderscore { name, meant });
            }
        }
        Ok(())
    }

    /// A shell has no `-` in names: `counter_2pc` is the section `counter-2pc`.
    fn section(&self, name: &str) -> String {
        self.defaults
            .keys()
            .find(|section| section.replace('-', "_") == name)
            .cloned()
            .unwrap_or_else(|| name.to_owned())
    }

    fn one_underscore(&self, rest: &str) -> Option<(String, String)> {
        self.defaults.iter().find_map(|(section, keys)| {
            let key = rest.strip_prefix(&section.replace('-', "_"))?.strip_prefix('_')?;
            keys.as_table()?.contains_key(key).then(|| (section.clone(), key.to_owned()))
        })
    }

    /// Text without a type: read as TOML (`4000`, `true`, `["a"]`), as a list with commas where the key takes a list, or
    /// taken as it is, whichever the key accepts.
    fn set_text(&mut self, key: &[String], text: &str, origin: &Origin) -> Result<(), Refused> {
        let typed = format!("v = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
        let plain = Value::String(text.to_owned());
        let candidates = match (typed, find(&self.defaults, key)) {
            (None, Some(Value::Array(_))) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                vec![Value::Array(items.map(|item| Value::String(item.to_owned())).collect())]
            }
            (Some(typed), Some(Value::String(_))) => vec![plain, typed],
            (Some(typed), _) => vec![typed, plain],
            (None, _) => vec![plain],
        };
        let mut first = None;
        for value in candidates {
            match self.set(key.to_vec(), value, origin.clone()) {
                Ok(()) => return Ok(()),
                Err(refused) => first.get_or_insert(refused),
            };
        }
        Err(first.expect("there is at least one candidate"))
    }

    /// Lays one value on, if the settings accept it there.
    fn set(&mut self, key: Vec<String>, value: Value, origin: Origin) -> Result<(), Refused> {
        let refuse = |why: String, default| Refused::Value { origin: origin.clone(), key: key.join("."), why, default };
        let mut table = self.table.clone();
        insert(&mut table, &key, value).map_err(|why| refuse(why, None))?;
        if let Err(error) = T::deserialize(table.clone()) {
            let default = find(&self.defaults, &key).filter(|value| !value.is_table()).map(ToString::to_string);
            return Err(refuse(error.message().to_owned(), default));
        }
        self.table = table;
        self.origins.insert(key, origin);
        Ok(())
    }

    /// Remembers that the value under `key` was changed after the layers.
    pub(crate) fn note(&mut self, key: Vec<String>, origin: Origin) {
        self.origins.insert(key, origin);
    }

    /// Where the value under `key` came from.
    pub(crate) fn origin(&self, key: &[String]) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// The settings that all layers make together.
    pub(crate) fn settings(&self) -> Result<T, Refused> {
        T::deserialize(self.table.clone()).map_err(|error| Refused::Value {
            origin: Origin::Default,
            key: String::new(),
            why: error.message().to_owned(),
            default: None,
        })
    }
}

struct Leaf {
    key: Vec<String>,
    value: Value,
    /// Byte offset in the file.
    at: usize,
}

/// Every value of the file with its path and place. A section without keys counts as one, so that a wrong name is seen.
fn collect(values: &Table, spans: &DeTable<'_>, path: &mut Vec<String>, leaves: &mut Vec<Leaf>) {
    for (name, span) in spans {
        let Some(value) = values.get(name.get_ref().as_ref()) else { continue };
        path.push(name.get_ref().to_string());
        match (value, span.get_ref()) {
            (Value::Table(values), toml::de::DeValue::Table(spans)) if !values.is_empty() => {
                collect(values, spans, path, leaves);
            }
            (Value::Table(_), _) if path.len() > 1 => {}
            _ => leaves.push(Leaf { key: path.clone(), value: value.clone(), at: name.span().start }),
        }
        path.pop();
    }
}

fn find<'a>(table: &'a Table, key: &[String]) -> Option<&'a Value> {
    let (last, path) = key.split_last()?;
    path.iter().try_fold(table, |table, name| table.get(name)?.as_table())?.get(last)
}

/// An empty table changes nothing where a table is; every other value replaces.
fn insert(table: &mut Table, key: &[String], value: Value) -> Result<(), String> {
    let (last, path) = key.split_last().expect("a key has at least one name");
    let mut table = table;
    for name in path {
        table = table
            .entry(name.clone())
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("`{name}` is a value, not a section"))?;
    }
    match (table.get(last), &value) {
        (Some(Value::Table(_)), Value::Table(new)) if new.is_empty() => {}
        (Some(Value::Table(keys)), _) => {
            let keys: Vec<_> = keys.keys().map(|key| format!("`{key}`")).collect();
            return Err(format!("is a section, not a value; its keys are {}", keys.join(", ")));
        }
        _ => {
            table.insert(last.clone(), value);
        }
    }
    Ok(())
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Toy {
        door: Door,
        #[serde(rename = "counter-2pc")]
        counter: Counter,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Door {
        listen: SocketAddr,
        queue_max: u16,
        format: Format,
        secret: String,
        label: Option<String>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Format {
        Text,
        Json,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Counter {
        lease_ms: u64,
    }

    const DEFAULTS: &str = r#"
[door]
listen = "127.0.0.1:4000"
queue_max = 10
format = "text"
secret = ""
[counter-2pc]
lease_ms = 5
"#;

    fn layers() -> Layers<Toy> {
        Layers::new(DEFAULTS)
    }

    fn refused(text: &str) -> String {
        layers().text(Path::new("n.toml"), text).unwrap_err().to_string()
    }

    fn environment(name: &str, text: &str) -> Result<Toy, Refused> {
        let mut layers = layers();
        layers.environment([(name.to_owned(), text.to_owned())])?;
        layers.settings()
    }

    #[test]
    fn the_later_layer_wins() {
        let mut layers = layers();
        layers.text(Path::new("n.toml"), "[door]\nqueue_max = 1\nformat = \"json\"\nlabel = \"a\"").unwrap();
        layers.environment([("NOTIFYX_DOOR__QUEUE_MAX".into(), "2".into())]).unwrap();
        let toy = layers.settings().unwrap();
        assert_eq!((toy.door.queue_max, toy.door.format, toy.door.label.as_deref()), (2, Format::Json, Some("a")));
        let key = |name: &str| vec!["door".to_owned(), name.to_owned()];
        assert_eq!(layers.origin(&key("queue_max")).to_string(), "NOTIFYX_DOOR__QUEUE_MAX");
        assert_eq!(layers.origin(&key("format")).to_string(), "n.toml:3");
        assert_eq!(layers.origin(&key("listen")), Origin::Default);
    }

    #[test]
    fn a_wrong_key_names_its_line_and_the_keys_there_are() {
        assert_eq!(
            refused("# mine\n[door]\nqueue_max = 3\nlisen = 1\n"),
            "n.toml:4: `door.lisen`: unknown field `lisen`, expected one of `listen`, `queue_max`, `format`, `secret`, `label`"
        );
    }

    #[test]
    fn a_wrong_section_is_refused_even_when_it_is_empty() {
        assert_eq!(refused("[dor]\n"), "n.toml:1: `dor`: unknown field `dor`, expected `door` or `counter-2pc`");
        assert!(
            refused("door = 1\n").starts_with("n.toml:1: `door`: is a section, not a value; its keys are `format`,")
        );
        layers().text(Path::new("n.toml"), "[door]\n").unwrap();
    }

    #[test]
    fn a_wrong_value_names_what_is_allowed() {
        assert_eq!(
            refused("[door]\nformat = \"xml\""),
            "n.toml:2: `door.format`: unknown variant `xml`, expected `text` or `json` (the default is \"text\")"
        );
        assert!(
            refused("[door]\nqueue_max = 70000").contains("n.toml:2: `door.queue_max`: invalid value: integer `70000`")
        );
        assert!(refused("[door]\nlisten = \"here\"").contains("(the default is \"127.0.0.1:4000\")"));
    }

    #[test]
    fn broken_toml_names_its_line_and_quotes_nothing() {
        let said = refused("[door]\nsecret = \"s3cret\n");
        assert!(said.starts_with("n.toml:2: ") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let said = environment("NOTIFYX_DOOR__QUEUE", "1").unwrap_err().to_string();
        assert!(
            said.starts_with("NOTIFYX_DOOR__QUEUE: `door.queue`: unknown field `queue`, expected one of"),
            "{said}"
        );
        let said = environment("NOTIFYX_DOOR__QUEUE_MAX", "many").unwrap_err().to_string();
        assert!(said.starts_with("NOTIFYX_DOOR__QUEUE_MAX: `door.queue_max`: invalid type: string"), "{said}");
    }

    #[test]
    fn one_underscore_where_two_belong_is_pointed_out() {
        let said = environment("NOTIFYX_COUNTER_2PC_LEASE_MS", "1").unwrap_err().to_string();
        assert!(said.ends_with("did you mean NOTIFYX_COUNTER_2PC__LEASE_MS?"), "{said}");
    }

    #[test]
    fn variables_that_are_no_settings_are_left_alone() {
        for name in ["NOTIFYX_SERVER", "NOTIFYX_HOME", "NOTIFYX_PORT", "NOTIFYX_DOOR_SERVICE_HOST", "PATH"] {
            environment(name, "x").unwrap();
        }
    }

    #[test]
    fn a_variable_takes_the_type_of_its_key() {
        assert_eq!(environment("NOTIFYX_DOOR__SECRET", "12345").unwrap().door.secret, "12345");
        assert_eq!(environment("NOTIFYX_DOOR__LABEL", "7").unwrap().door.label.as_deref(), Some("7"));
        assert_eq!(environment("NOTIFYX_DOOR__LISTEN", "0.0.0.0:1").unwrap().door.listen.port(), 1);
        assert_eq!(environment("NOTIFYX_COUNTER_2PC__LEASE_MS", "9").unwrap().counter.lease_ms, 9);
    }
}
