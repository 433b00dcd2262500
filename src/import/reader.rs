//! Reads documents of other meshes field by field. A field that the reader did not ask for is a finding, so
//! that nothing is left out in silence.

use weft_config::yaml::{Node, Value};

use super::output::Output;

/// A node, and the path that leads to it.
#[derive(Clone, Debug)]
pub(super) struct Place<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
}

impl<'n> Place<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        Self {
            node,
            path: String::new(),
        }
    }

    /// Its text, also of numbers and truth values, which people write without quotes.
    pub(super) fn text(&self) -> Option<String> {
        match &self.node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        match &self.node.value {
            Value::Integer(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
        }
    }

    pub(super) fn is_true(&self) -> bool {
        self.node.value == Value::Bool(true)
    }

    pub(super) fn items(&self) -> Vec<Self> {
        let Value::List(items) = &self.node.value else {
            return Vec::new();
        };
        let places = items.iter().enumerate().map(|(at, node)| Self {
            node,
            path: format!("{}[{at}]", self.path),
        });
        places.collect()
    }

    /// The texts of a list.
    pub(super) fn texts(&self) -> Vec<String> {
        self.items().iter().filter_map(Self::text).collect()
    }

    /// All entries of a mapping, whose keys are not fields.
    pub(super) fn entries(&self) -> Vec<(&'n str, Self)> {
        let Value::Map(entries) = &self.node.value else {
            return Vec::new();
        };
        let places = entries.iter().map(|(name, _, node)| {
            let path = format!("{}.{name}", self.path);
            (name.as_str(), Self { node, path })
        });
        places.collect()
    }

    /// A field, without keeping account of it.
    pub(super) fn field(&self, name: &str) -> Option<Self> {
        let entries = self.entries().into_iter();
        let found = entries.into_iter().find(|(one, _)| *one == name)?.1;
        let path = match self.path.is_empty() {
            true => name.to_owned(),
            false => found.path,
        };
        (found.node.value != Value::Null).then_some(Self {
            node: found.node,
            path,
        })
    }

    pub(super) fn fields(&self) -> Fields<'n> {
        Fields {
            at: self.clone(),
            known: Vec::new(),
        }
    }
}

/// The fields of one mapping. Ask for each that is understood, then [`Fields::rest`].
pub(super) struct Fields<'n> {
    at: Place<'n>,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    pub(super) fn take(&mut self, name: &'static str) -> Option<Place<'n>> {
        self.known.push(name);
        self.at.field(name)
    }

    /// Fields that were not asked for.
    pub(super) fn left(&self) -> Vec<Place<'n>> {
        let entries = self.at.entries().into_iter();
        let left = entries
            .filter(|(name, place)| !self.known.contains(name) && place.node.value != Value::Null);
        left.map(|(_, place)| place).collect()
    }

    /// Reports the fields that were not asked for.
    pub(super) fn rest(self, document: &Document<'n>, output: &mut Output) {
        for place in self.left() {
            let hint = "see what maps to what in docs/import.md";
            output.dropped(document, &place, "has no counterpart and is left out", hint);
        }
    }
}

/// One resource of the files.
#[derive(Clone, Debug)]
pub(super) struct Document<'n> {
    pub(super) file: &'n str,
    root: Place<'n>,
    api: String,
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl<'n> Document<'n> {
    /// Reads a document, or those of a List, which is what `kubectl get -o yaml` prints.
    pub(super) fn read_all(
        file: &'n str,
        at: &Place<'n>,
        output: &mut Output,
        documents: &mut Vec<Self>,
    ) {
        let text = |name: &str| at.field(name).and_then(|one| one.text());
        if text("kind").is_some_and(|kind| kind.ends_with("List"))
            && let Some(items) = at.field("items")
        {
            for item in items.items() {
                Self::read_all(file, &item, output, documents);
            }
            return;
        }
        let metadata = at.field("metadata");
        let of_metadata = |name: &str| metadata.as_ref()?.field(name)?.text();
        let (Some(api), Some(kind), Some(name)) =
            (text("apiVersion"), text("kind"), of_metadata("name"))
        else {
            output.nameless(file, at);
            return;
        };
        documents.push(Self {
            file,
            root: at.clone(),
            api,
            kind,
            namespace: of_metadata("namespace").unwrap_or_else(|| "default".to_owned()),
            name,
        });
    }

    /// The API group; empty for that of Services.
    pub(super) fn group(&self) -> &str {
        self.api.split_once('/').map_or("", |(group, _)| group)
    }

    pub(super) fn root(&self) -> Place<'n> {
        self.root.clone()
    }

    /// Its spec; an empty one where it has none.
    pub(super) fn spec(&self) -> Option<Place<'n>> {
        self.root.field("spec")
    }

    pub(super) fn annotation(&self, name: &str) -> Option<String> {
        self.root
            .field("metadata")?
            .field("annotations")?
            .field(name)?
            .text()
    }

    /// `VirtualService/shop/orders`.
    pub(super) fn label(&self) -> String {
        format!("{}/{}/{}", self.kind, self.namespace, self.name)
    }
}
