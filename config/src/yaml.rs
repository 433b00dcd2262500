//! Only this file names the YAML library: it turns text into trees of documents with positions, and values
//! into text. [`crate::resources`] gives the documents their meaning.
//!
//! Budgets are checked before anything is built: size, nesting, nodes, and the expansion of aliases.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use crate::findings::Position;
use crate::limits;

/// A value with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its first character.
    pub position: Position,
    /// Its value.
    pub value: Value,
}

/// A YAML value of the core schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// In the order of the document; keys are unique.
    Map(Vec<(String, Position, Node)>),
}

impl Node {
    /// The node at a path such as `spec.rules[0].name`, or its nearest parent that is written.
    pub fn nearest(&self, path: &str) -> &Self {
        let mut node = self;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            match node.value.child(step.trim_end_matches(']')) {
                Some(child) => node = child,
                None => break,
            }
        }
        node
    }
}

impl Value {
    fn child(&self, step: &str) -> Option<&Node> {
        match self {
            Self::Map(entries) => {
                let entry = entries.iter().find(|(name, _, _)| name == step);
                entry.map(|(_, _, node)| node)
            }
            Self::List(items) => items.get(step.parse::<usize>().ok()?),
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::Float(_) | Self::Text(_) => None,
        }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a truth value",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Why a text is not YAML that weft accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct YamlError {
    /// Where, if the parser knows.
    pub position: Option<Position>,
    /// The fault, in one line.
    pub message: String,
}

/// Reads all documents of a text; empty ones are skipped.
///
/// # Errors
/// The first place that is not YAML, or that exceeds a budget.
pub fn documents(text: &str) -> Result<Vec<Node>, YamlError> {
    if text.len() > limits::RESOURCE_BYTES_MAX {
        return Err(YamlError {
            position: None,
            message: format!(
                "the file has more than {} MiB",
                limits::RESOURCE_BYTES_MAX >> 20
            ),
        });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: limits::YAML_DEPTH_MAX,
            max_nodes: limits::YAML_NODES_MAX,
            max_events: 2 * limits::YAML_NODES_MAX,
            max_documents: limits::RESOURCES_MAX,
            max_total_scalar_bytes: limits::RESOURCE_BYTES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: limits::YAML_ALIAS_EVENTS_MAX,
        },
        strict_booleans: true,
        with_snippet: false,
    };
    let documents: Vec<Node> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| YamlError::from_library(&error))?;
    Ok(documents)
}

/// Writes a value as one YAML document.
///
/// # Errors
/// When YAML has no form for the value, as a mapping with a list as key.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, YamlError> {
    serde_saphyr::to_string(value).map_err(|error| YamlError {
        position: None,
        message: error.to_string(),
    })
}

impl YamlError {
    fn from_library(error: &serde_saphyr::Error) -> Self {
        let mut message = error.without_snippet().to_string();
        // The place is reported apart from the text.
        if let Some(at) = message.find(" at line ") {
            message.truncate(at);
        }
        if let Some(rest) = message.lines().next() {
            message = rest.trim().to_owned();
        }
        Self {
            position: error.location().and_then(position),
            message: format!("not valid YAML: {message}"),
        }
    }
}

fn position(location: Location) -> Option<Position> {
    let line = u32::try_from(location.line()).ok()?;
    let column = u32::try_from(location.column()).ok()?;
    (line > 0).then_some(Position { line, column })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let place = position(spanned.referenced).unwrap_or(Position { line: 1, column: 1 });
        Ok(Self {
            position: place,
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        i128::try_from(value)
            .map(Value::Integer)
            .map_err(|_| E::custom("the number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(String, Position, Node)> = Vec::new();
        while let Some(key) = access.next_key::<Node>()? {
            let name = match key.value {
                Value::Text(text) => text,
                Value::Integer(number) => number.to_string(),
                Value::Bool(truth) => truth.to_string(),
                Value::Null | Value::Float(_) | Value::List(_) | Value::Map(_) => {
                    return Err(A::Error::custom("a key must be a text"));
                }
            };
            entries.push((name, key.position, access.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_file_across_documents() {
        let nodes = documents("a: 1\n---\nb:\n  - x\n  - {c: true}\n").unwrap();
        assert_eq!(nodes.len(), 2);
        let Value::Map(entries) = &nodes[1].value else {
            panic!("{nodes:?}")
        };
        assert_eq!((entries[0].0.as_str(), entries[0].1.line), ("b", 3));
        let Value::List(items) = &entries[0].2.value else {
            panic!("{nodes:?}")
        };
        assert_eq!(
            (items[0].position.line, &items[0].value),
            (4, &Value::Text("x".into()))
        );
        assert_eq!(items[1].position.line, 5);
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        let error = documents("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.position.is_some_and(|at| at.line >= 2), "{error:?}");
        assert!(error.message.starts_with("not valid YAML: "), "{error}");
        assert!(!error.message.contains('\n'), "{error}");
    }

    #[test]
    fn duplicate_keys_are_refused() {
        let error = documents("a: 1\na: 2\n").unwrap_err();
        assert!(error.message.contains("duplicate"), "{error}");
        assert_eq!(error.position.map(|at| at.line), Some(2));
    }

    #[test]
    fn alias_bombs_nesting_and_size_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..9 {
            let alias = format!("*a{}", i - 1);
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![alias; 10].join(","));
        }
        assert!(documents(&bomb).is_err());
        assert!(documents(&"[".repeat(10_000)).is_err());
        assert!(documents(&"#".repeat(limits::RESOURCE_BYTES_MAX + 1)).is_err());
    }
}
