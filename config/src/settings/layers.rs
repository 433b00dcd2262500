//! Merges the layers: defaults < file < environment < flags. Each file is first parsed strictly by itself,
//! because only then does an error know its line; figment merges the parsed values.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format, Serialized, Toml};
use figment::value::Value;
use serde::Serialize;

use super::error::{Position, Problem, SettingsError};
use super::limits::FILE_BYTES_MAX;
use crate::nearest::{unknown_key, unknown_word};

use super::raw::Layer;

/// Prefix of the environment's layer; `__` separates nested keys: `WEFT_ADMIN__LISTEN`.
const PREFIX: &str = "WEFT_";

/// Variables of the command itself, which are no settings of a process.
const NOT_SETTINGS: [&str; 4] = ["WEFT_LOG", "WEFT_HOME", "WEFT_CONTEXT", "WEFT_SERVER"];

/// The sources of settings, besides the defaults. The environment is an argument so that tests and callers
/// choose it.
#[derive(Debug, Default)]
pub struct Sources<L> {
    /// A YAML file, or TOML if its name ends in `.toml`.
    pub file: Option<PathBuf>,
    /// The process's environment.
    pub environment: Vec<(String, String)>,
    /// The command line, as a layer.
    pub flags: L,
}

impl<L: Serialize> Sources<L> {
    /// Whether there is a file or a flag, so that settings were meant to be given at all.
    pub fn has_settings(&self) -> bool {
        let flags = serde_json::to_value(&self.flags);
        self.file.is_some()
            || flags.is_ok_and(|flags| flags.as_object().is_some_and(|map| !map.is_empty()))
    }
}

/// Complete settings, and warnings for their owner.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The settings.
    pub settings: T,
    /// Each worth one line in the log.
    pub warnings: Vec<String>,
}

/// The merged layers, the layer of each value, and warnings.
pub(super) struct Merged<L> {
    pub(super) raw: L,
    pub(super) origin: Origin,
    pub(super) warnings: Vec<String>,
}

/// The layer of a value, for messages about values that are found wrong only after the merge.
pub(super) struct Origin {
    /// The file, or `settings` if there is none.
    file: String,
    /// Each variable with its layer.
    environment: Vec<(String, serde_json::Value)>,
    flags: serde_json::Value,
}

impl Origin {
    /// The error of the topmost layer that has the problem's field.
    pub(super) fn blame(&self, problem: Problem) -> SettingsError {
        let Problem { field, message } = problem;
        let invalid = |origin: &str, field, message| SettingsError::Invalid {
            origin: origin.to_owned(),
            field,
            message,
        };
        if sets(&self.flags, &field) {
            return invalid("the command line", field, message);
        }
        let mut variables = self.environment.iter();
        match variables.rfind(|(_, layer)| sets(layer, &field)) {
            Some((name, _)) if key(name).as_deref() == Some(&field) => SettingsError::Environment {
                name: name.clone(),
                message,
            },
            Some((name, _)) => SettingsError::Environment {
                name: name.clone(),
                message: format!("{field}: {message}"),
            },
            None => invalid(&self.file, field, message),
        }
    }
}

/// Whether a layer sets a field. Tables are merged key by key; a list is one value.
fn sets(layer: &serde_json::Value, field: &str) -> bool {
    let mut value = layer;
    for segment in field.split(['.', '[']) {
        let Some(table) = value.as_object() else {
            return true;
        };
        match table.get(segment) {
            Some(inner) if !inner.is_null() => value = inner,
            Some(_) | None => return false,
        }
    }
    true
}

pub(super) fn merge<L: Layer>(sources: Sources<L>) -> Result<Merged<L>, SettingsError> {
    let file = sources.file.as_ref();
    let mut origin = Origin {
        file: file.map_or_else(|| "settings".to_owned(), |path| path.display().to_string()),
        environment: Vec::new(),
        flags: serde_json::to_value(&sources.flags).unwrap_or_default(),
    };
    let mut figment = Figment::new();
    if let Some(path) = &sources.file {
        let mut layer: L = parse_file(path, &read(path)?)?;
        layer.resolve_paths(path.parent().unwrap_or(Path::new("")));
        figment = figment.merge(Serialized::defaults(layer));
    }
    let standard = L::standard(&sources.environment);
    for (name, layer) in standard.layers {
        let value = serde_json::to_value(&layer).unwrap_or_default();
        origin.environment.push((name, value));
        figment = figment.merge(Serialized::defaults(layer));
    }
    let mut unknown = Vec::new();
    for (name, text) in sources.environment {
        match variable::<L>(&name, &text)? {
            Variable::Layer(value) => {
                let layer = serde_json::to_value(&value).unwrap_or_default();
                origin.environment.push((name, layer));
                figment = figment.merge(Serialized::defaults(value));
            }
            Variable::Unknown => unknown.push(name),
            Variable::NotOurs => {}
        }
    }
    figment = figment.merge(Serialized::defaults(sources.flags));
    // Each layer was parsed by itself, so their union is valid: this cannot fail for any input.
    let raw = figment.extract().map_err(|error| SettingsError::Invalid {
        origin: origin.file.clone(),
        field: error.path.join("."),
        message: figment_message(&error),
    })?;
    let mut warnings = standard.warnings;
    if !unknown.is_empty() {
        unknown.sort();
        warnings.push(format!(
            "ignored environment variables that name no setting: {}",
            unknown.join(", ")
        ));
    }
    Ok(Merged {
        raw,
        origin,
        warnings,
    })
}

fn read(path: &Path) -> Result<String, SettingsError> {
    use std::io::Read;
    let refuse = |source| SettingsError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(refuse)?;
    let read = file
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(refuse)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(refuse(std::io::Error::other(format!(
            "longer than {FILE_BYTES_MAX} bytes"
        ))));
    }
    Ok(text)
}

fn parse_file<L: Layer>(path: &Path, text: &str) -> Result<L, SettingsError> {
    if path
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        return Figment::from(Toml::string(text))
            .extract()
            .map_err(|error| SettingsError::File {
                path: path.to_owned(),
                position: Position(None),
                message: figment_message(&error),
            });
    }
    // A file of comments only is an empty layer, not an error.
    let options = serde_saphyr::options! { with_snippet: false };
    let parsed: Result<Option<L>, _> = serde_saphyr::from_str_with_options(text, options);
    match parsed {
        Ok(layer) => Ok(layer.unwrap_or_default()),
        Err(error) => Err(SettingsError::File {
            path: path.to_owned(),
            position: Position(
                error
                    .location()
                    .map(|location| (location.line(), location.column())),
            ),
            message: yaml_message(&error),
        }),
    }
}

/// The fault, without the position, which the caller puts in front.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a foreign enum: whatever is not worded better here keeps its own words"
)]
pub fn yaml_message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::SerdeUnknownField {
            field, expected, ..
        } => unknown_key(field, expected),
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => unknown_word(variant, expected),
        Error::InvalidScalar { ty: "u16", .. } => {
            "not a port: write a whole number from 0 to 65535".to_owned()
        }
        Error::InvalidScalar {
            ty: "usize" | "u32" | "u64",
            ..
        } => "not a number: write a whole number".to_owned(),
        // The parser words the other faults well; it repeats a position that the caller has already.
        other => {
            let text = other.to_string();
            let end = text.find(" at line ").unwrap_or(text.len());
            text[..end].to_owned()
        }
    }
}

fn figment_message(error: &figment::Error) -> String {
    let message = kind_message(&error.kind);
    if error.path.is_empty() {
        message
    } else {
        format!("{}: {message}", error.path.join("."))
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a foreign enum: whatever is not worded better here keeps its own words"
)]
fn kind_message(kind: &Kind) -> String {
    match kind {
        Kind::UnknownField(field, known) => unknown_key(field, known),
        Kind::UnknownVariant(word, known) => unknown_word(word, known),
        other => other.to_string(),
    }
}

enum Variable {
    Layer(Value),
    Unknown,
    NotOurs,
}

/// The key of the setting that a variable would set.
fn key(name: &str) -> Option<String> {
    let key = name.strip_prefix(PREFIX)?;
    (!NOT_SETTINGS.contains(&name)).then(|| key.to_ascii_lowercase().replace("__", "."))
}

/// Parses one variable by itself, so that an error can name it.
fn variable<L: Layer>(name: &str, text: &str) -> Result<Variable, SettingsError> {
    let Some(key) = key(name) else {
        return Ok(Variable::NotOurs);
    };
    let understand = |leaf: Value| {
        let nested = figment::util::nest(&key, leaf);
        nested.deserialize::<L>().map(|_| nested).map_err(Box::new)
    };
    // A value that looks like a number may be meant as text ("10" for a duration): try both.
    let typed = match text.parse::<Value>() {
        Ok(value) => understand(value),
        Err(infallible) => match infallible {},
    };
    match typed.or_else(|_| understand(Value::from(text))) {
        Ok(value) => Ok(Variable::Layer(value)),
        Err(error) if matches!(error.kind, Kind::UnknownField(..)) => Ok(Variable::Unknown),
        // WEFT_PORT=tcp://10.0.0.1:80 and the like, which Kubernetes sets for a service named weft-x, have an
        // unknown key and are skipped; a known key with a bad value is an error.
        Err(error) => Err(SettingsError::Environment {
            name: name.to_owned(),
            message: kind_message(&error.kind),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::raw::RawProxy;
    use super::*;

    fn refusal(name: &str, text: &str) -> String {
        match parse_file::<RawProxy>(Path::new(name), text) {
            Ok(layer) => format!("accepted: {layer:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_mistake_in_a_file_is_one_line_with_its_place_and_a_hint() {
        let cases = [
            (
                "workres: 2\n",
                "p.yaml:1:1: unknown key `workres`: did you mean `workers`?",
            ),
            (
                "state_dir: s\ninbound:\n  lisen: \"1.2.3.4:1\"\n",
                "p.yaml:3:3: unknown key `lisen`: did you mean `listen`?",
            ),
            (
                "drain:\n  deadline: 25\n",
                "p.yaml:2:13: \"25\" has no unit; write 25s for seconds, or one of ms, m, h, d",
            ),
            (
                "admin: { listen: \"host:1\" }\n",
                "p.yaml:1:18: `host:1` is not a listen address: write IP:PORT, as 127.0.0.1:6191, 10.9.0.3:6143 or [::]:6143",
            ),
            (
                "access_log: some\n",
                "p.yaml:1:13: unknown value `some`: write one of off, failures, all",
            ),
            (
                "workers: many\n",
                "p.yaml:1:10: not a number: write a whole number",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(refusal("p.yaml", text), expected);
        }
    }

    #[test]
    fn toml_is_read_by_its_name() {
        assert!(refusal("p.toml", "workers = 2\n").starts_with("accepted"));
        assert_eq!(
            refusal("p.toml", "[admin]\nlistne = 1\n"),
            "p.toml: admin.listne: unknown key `listne`: did you mean `listen`?"
        );
    }

    #[test]
    fn later_layers_win_and_strangers_in_the_environment_are_one_warning() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("proxy.yaml");
        std::fs::write(
            &file,
            "state_dir: state\nworkers: 1\ndrain: { accept: 1s, deadline: 9s }\n",
        )
        .unwrap();
        let environment = [
            ("WEFT_DRAIN__ACCEPT", "3s"),
            ("WEFT_WORKERS", "3"),
            ("WEFT_PORT", "tcp://10.0.0.1:80"),
            ("WEFT_LOG", "debug"),
            ("HOME", "/root"),
        ];
        let sources = Sources {
            file: Some(file),
            environment: environment
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .to_vec(),
            flags: RawProxy {
                workers: Some(4),
                ..RawProxy::default()
            },
        };

        let merged = merge(sources).unwrap();

        let drain = merged.raw.drain.unwrap();
        assert_eq!(drain.accept.unwrap().to_string(), "3s");
        assert_eq!(drain.deadline.unwrap().to_string(), "9s");
        assert_eq!(merged.raw.workers, Some(4));
        assert_eq!(merged.raw.state_dir, Some(directory.path().join("state")));
        assert_eq!(
            merged.warnings,
            ["ignored environment variables that name no setting: WEFT_PORT"]
        );
    }

    #[test]
    fn a_bad_value_in_the_environment_names_its_variable() {
        let sources = Sources::<RawProxy> {
            environment: vec![("WEFT_DRAIN__ACCEPT".into(), "3".into())],
            ..Sources::default()
        };
        let error = merge(sources).err().unwrap().to_string();
        assert_eq!(
            error,
            "environment variable WEFT_DRAIN__ACCEPT: \"3\" has no unit; write 3s for seconds, or one of ms, m, h, d"
        );
    }
}
