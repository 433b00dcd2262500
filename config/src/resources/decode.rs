//! Reads typed values out of a YAML tree and reports every fault, not only the first: wrong types, missing
//! and unknown fields (with the nearest known one), and fields of Gateway API that weft knows but does not
//! support yet. No field is ever ignored.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;
use weft_transport::units;

use super::traffic::{Size, Span};
use super::{InvalidRules, Key, Kind};
use crate::findings::{Finding, Findings, Position, Severity};
use crate::nearest::nearest;
use crate::table::Percent;
use crate::yaml::{Node, Value};

/// A node and the path that led to it.
#[derive(Clone, Debug)]
pub(super) struct At<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
}

impl<'n> At<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        Self {
            node,
            path: String::new(),
        }
    }

    /// The node's text, if it is one.
    pub(super) fn as_text(&self) -> Option<&'n str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::List(_)
            | Value::Map(_) => None,
        }
    }
}

/// Collects findings while one file is read.
pub(super) struct Decoder<'f> {
    pub(super) file: &'f str,
    /// The kind of the present document, as far as it was read.
    pub(super) kind: Option<Kind>,
    /// The name of the resource, as far as it was read.
    pub(super) resource: Option<Key>,
    pub(super) findings: Findings,
    /// What becomes of rules of routes that are not valid.
    pub(super) invalid_rules: InvalidRules,
}

impl Decoder<'_> {
    pub(super) fn error(&mut self, at: &At<'_>, message: impl Into<String>, hint: Option<String>) {
        self.error_at(at.node.position, at.path.clone(), message.into(), hint);
    }

    pub(super) fn error_at(
        &mut self,
        position: Position,
        field: String,
        message: String,
        hint: Option<String>,
    ) {
        self.note(Severity::Error, position, field, message, hint);
    }

    /// Reports what is accepted and probably not meant.
    pub(super) fn warning(
        &mut self,
        at: &At<'_>,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let (position, field) = (at.node.position, at.path.clone());
        self.note(Severity::Warning, position, field, message.into(), hint);
    }

    fn note(
        &mut self,
        severity: Severity,
        position: Position,
        field: String,
        message: String,
        hint: Option<String>,
    ) {
        self.findings.push(Finding {
            severity,
            file: Some(self.file.to_owned()),
            position: Some(position),
            resource: self.resource.as_ref().map(Key::to_string),
            field,
            message,
            hint,
        });
    }

    /// A text.
    pub(super) fn text(&mut self, at: &At<'_>) -> Option<String> {
        if let Value::Text(text) = &at.node.value {
            return Some(text.clone());
        }
        let hint = match at.node.value {
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                Some("write it in quotes".to_owned())
            }
            Value::Null | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
        };
        self.error(
            at,
            format!("expected a text, found {}", at.node.value.kind()),
            hint,
        );
        None
    }

    /// A text that must parse as `T`.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        at: &At<'_>,
        hint: &str,
    ) -> Option<T> {
        let text = self.text(at)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let hint = (!hint.is_empty()).then(|| hint.to_owned());
                self.error(at, format!("{text:?} is not valid: {error}"), hint);
                None
            }
        }
    }

    /// A whole number in a range.
    pub(super) fn integer(&mut self, at: &At<'_>, least: u32, most: u32) -> Option<u32> {
        let Value::Integer(number) = at.node.value else {
            self.error(
                at,
                format!("expected a number, found {}", at.node.value.kind()),
                None,
            );
            return None;
        };
        match u32::try_from(number) {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            Ok(_) | Err(_) => {
                self.error(
                    at,
                    format!("{number} is not within {least} to {most}"),
                    None,
                );
                None
            }
        }
    }

    /// Yes or no.
    pub(super) fn truth(&mut self, at: &At<'_>) -> Option<bool> {
        if let Value::Bool(truth) = at.node.value {
            return Some(truth);
        }
        let found = at.node.value.kind();
        self.error(at, format!("expected true or false, found {found}"), None);
        None
    }

    /// A share of 0 to 100 %.
    pub(super) fn percent(&mut self, at: &At<'_>) -> Option<Percent> {
        let number = match at.node.value {
            // Whole numbers beyond 2^53 are out of range either way.
            Value::Integer(number) => number as f64,
            Value::Float(number) => number,
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                let found = at.node.value.kind();
                let hint = "write the number without a sign, as 20 or 0.5".to_owned();
                self.error(at, format!("expected a number, found {found}"), Some(hint));
                return None;
            }
        };
        match Percent::new(number) {
            Ok(percent) => Some(percent),
            Err(error) => {
                self.error(at, format!("{number} is not valid: {error}"), None);
                None
            }
        }
    }

    /// A duration in a range.
    pub(super) fn span(&mut self, at: &At<'_>, range: &RangeInclusive<Duration>) -> Option<Span> {
        self.span_within(at, range, false)
    }

    /// A duration in a range, or zero.
    pub(super) fn span_or_zero(
        &mut self,
        at: &At<'_>,
        range: &RangeInclusive<Duration>,
    ) -> Option<Span> {
        self.span_within(at, range, true)
    }

    fn span_within(
        &mut self,
        at: &At<'_>,
        range: &RangeInclusive<Duration>,
        zero: bool,
    ) -> Option<Span> {
        let text = self.quantity(at)?;
        let duration = match units::parse_duration(&text) {
            Ok(duration) => duration,
            Err(error) => {
                self.error(at, error.problem, Some(error.instead));
                return None;
            }
        };
        // Tables carry no less.
        if duration.subsec_nanos() % 1_000_000 > 0 {
            let hint = "write whole milliseconds".to_owned();
            self.error(at, format!("{text} is too fine"), Some(hint));
            return None;
        }
        if range.contains(&duration) || (zero && duration.is_zero()) {
            return Some(Span::written(duration, &text));
        }
        let (least, most) = (range.start(), range.end());
        let (least, most) = (
            units::format_duration(*least),
            units::format_duration(*most),
        );
        let or_zero = if zero { ", or 0s for none" } else { "" };
        self.error(
            at,
            format!("{text} is not within {least} to {most}{or_zero}"),
            None,
        );
        None
    }

    /// A number of bytes in a range.
    pub(super) fn size(&mut self, at: &At<'_>, range: &RangeInclusive<u32>) -> Option<Size> {
        let text = self.quantity(at)?;
        let size = match units::parse_bytes(&text) {
            Ok(size) => u32::try_from(size).ok(),
            Err(error) => {
                self.error(at, error.problem, Some(error.instead));
                return None;
            }
        };
        if let Some(size) = size.filter(|size| range.contains(size)) {
            return Some(Size(size));
        }
        let (least, most) = (
            units::format_bytes((*range.start()).into()),
            units::format_bytes((*range.end()).into()),
        );
        self.error(at, format!("{text} is not within {least} to {most}"), None);
        None
    }

    /// A number with its unit. A number without one is read as a text, too, so that it is refused for that.
    fn quantity(&mut self, at: &At<'_>) -> Option<String> {
        if let Value::Integer(number) = at.node.value {
            return Some(number.to_string());
        }
        self.text(at)
    }

    /// A header's name, in lower case, that is not one of the mesh's own.
    pub(super) fn header_name(&mut self, at: &At<'_>) -> Option<String> {
        let name: http::HeaderName = self.parsed(at, "")?;
        if name.as_str().starts_with("weft-") {
            self.error(at, "headers that begin with weft- are the mesh's own", None);
            return None;
        }
        Some(name.as_str().to_owned())
    }

    /// One of a list of words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        at: &At<'_>,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(at)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let hint = match nearest(&text, &words) {
            Some(word) => format!("did you mean {word}?"),
            None => format!("use {}", words.join(" or ")),
        };
        self.error(at, format!("{text:?} is not known here"), Some(hint));
        None
    }

    /// The items of a list of at most `most`.
    pub(super) fn list<'n>(&mut self, at: &At<'n>, most: usize) -> Vec<At<'n>> {
        let Value::List(items) = &at.node.value else {
            self.error(
                at,
                format!("expected a list, found {}", at.node.value.kind()),
                None,
            );
            return Vec::new();
        };
        if items.len() > most {
            self.error(
                at,
                format!("has {} items, at most {most} are allowed", items.len()),
                None,
            );
            return Vec::new();
        }
        let path = &at.path;
        items
            .iter()
            .enumerate()
            .map(|(i, node)| At {
                node,
                path: format!("{path}[{i}]"),
            })
            .collect()
    }

    /// As [`Self::list`], but an empty one is an error, because "none" and "any" are easily confused.
    pub(super) fn list_of_some<'n>(&mut self, at: &At<'n>, most: usize) -> Vec<At<'n>> {
        self.some(at);
        self.list(at, most)
    }

    /// Reports an empty list.
    pub(super) fn some(&mut self, at: &At<'_>) {
        if matches!(&at.node.value, Value::List(items) if items.is_empty()) {
            let hint = "leave the field out or list at least one".to_owned();
            self.error(at, "an empty list says neither none nor any", Some(hint));
        }
    }

    /// A mapping of texts, such as labels.
    pub(super) fn texts(&mut self, at: &At<'_>) -> BTreeMap<String, String> {
        let Value::Map(entries) = &at.node.value else {
            self.error(
                at,
                format!("expected a mapping, found {}", at.node.value.kind()),
                None,
            );
            return BTreeMap::new();
        };
        entries
            .iter()
            .filter_map(|(key, _, node)| {
                let text = self.text(&At {
                    node,
                    path: format!("{}.{key}", at.path),
                })?;
                Some((key.clone(), text))
            })
            .collect()
    }
}

/// The fields of one mapping. Ask for each known one, then [`Fields::close`], which reports the rest.
pub(super) struct Fields<'n> {
    at: At<'n>,
    entries: &'n [(String, Position, Node)],
    known: Vec<&'static str>,
    /// Those that no hint names.
    unlisted: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    pub(super) fn open(decoder: &mut Decoder<'_>, at: &At<'n>) -> Option<Self> {
        let Value::Map(entries) = &at.node.value else {
            decoder.error(
                at,
                format!("expected a mapping, found {}", at.node.value.kind()),
                None,
            );
            return None;
        };
        Some(Self {
            at: at.clone(),
            entries,
            known: Vec::new(),
            unlisted: Vec::new(),
        })
    }

    /// The field, if it is there and not null.
    pub(super) fn take(&mut self, name: &'static str) -> Option<At<'n>> {
        self.known.push(name);
        let (_, _, node) = self.entries.iter().find(|(key, _, _)| key == name)?;
        (node.value != Value::Null).then(|| At {
            node,
            path: self.path_of(name),
        })
    }

    /// The field, reported if it is not there.
    pub(super) fn require(
        &mut self,
        decoder: &mut Decoder<'_>,
        name: &'static str,
    ) -> Option<At<'n>> {
        let found = self.take(name);
        if found.is_none() {
            let field = self.path_of(name);
            decoder.error_at(self.at.node.position, field, "is missing".to_owned(), None);
        }
        found
    }

    /// Passes over a field that means nothing in files.
    pub(super) fn skip(&mut self, name: &'static str) {
        self.unlisted.push(name);
    }

    /// Reports a field that is known elsewhere but not supported by weft.
    pub(super) fn refuse(&mut self, decoder: &mut Decoder<'_>, name: &'static str, hint: &str) {
        self.unlisted.push(name);
        if let Some((_, position, _)) = self.entries.iter().find(|(key, _, _)| key == name) {
            let message = "is not supported yet".to_owned();
            decoder.error_at(
                *position,
                self.path_of(name),
                message,
                Some(hint.to_owned()),
            );
        }
    }

    /// Whether the mapping has a field of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _, _)| key == name)
    }

    /// Whether the mapping has any field.
    pub(super) fn any(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Reports every field that the reader did not ask for.
    pub(super) fn close(self, decoder: &mut Decoder<'_>) {
        for (key, position, _) in self.entries {
            if self.known.contains(&key.as_str()) || self.unlisted.contains(&key.as_str()) {
                continue;
            }
            let hint = match nearest(key, &self.known) {
                Some(known) => format!("did you mean {known}?"),
                None => format!("known fields are {}", self.known.join(", ")),
            };
            let field = self.path_of(key);
            decoder.error_at(*position, field, "unknown field".to_owned(), Some(hint));
        }
    }

    fn path_of(&self, name: &str) -> String {
        if self.at.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.at.path)
        }
    }
}

/// A field that could not be read must not mean the same as one that is not there.
#[expect(
    clippy::option_option,
    reason = "outside: whether it could be read; inside: whether it is there"
)]
pub(super) fn all_or_none<T>(field: Option<Option<T>>) -> Option<Option<T>> {
    match field {
        Some(None) => None,
        Some(some) => Some(some),
        None => Some(None),
    }
}
