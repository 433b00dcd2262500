//! Builds the table of a reference page from the types of a kind. Pure; `resources.rs` says which pages there
//! are.

use std::collections::BTreeMap;
use std::fmt::Write;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// One field of a kind.
#[derive(Debug)]
pub(crate) struct Row {
    /// As findings name it, without the numbers of items: `spec.ports[].port`.
    pub(crate) path: String,
    pub(crate) kind: String,
    pub(crate) range: String,
    default: String,
    meaning: String,
}

impl Row {
    /// Whether it is complete: a type, a meaning, and a default unless the field is a mapping.
    pub(crate) fn is_whole(&self) -> bool {
        let ends_well = self.meaning.ends_with(['.', ')']);
        !self.kind.is_empty() && ends_well && (!self.default.is_empty() || self.kind == "mapping")
    }
}

/// The fields of `T` in the order in which a page lists them: first those that must be there, then by name.
/// `defaults` knows those that the types do not.
pub(crate) fn rows<T: JsonSchema>(defaults: &BTreeMap<String, String>) -> Vec<Row> {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let mut rows = Vec::new();
    fields("", schema.as_value(), defaults, &mut rows);
    rows
}

/// The rows as Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table =
        "| field | type | range | default | meaning |\n|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let (path, kind, range) = (&row.path, &row.kind, &row.range);
        let (default, meaning) = (&row.default, &row.meaning);
        writeln!(
            table,
            "| `{path}` | {kind} | {range} | {default} | {meaning} |"
        )
        .unwrap();
    }
    table
}

fn fields(prefix: &str, schema: &Value, defaults: &BTreeMap<String, String>, rows: &mut Vec<Row>) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    let is_required = |name: &str| {
        let mut required = schema["required"].as_array().into_iter().flatten();
        required.any(|one| one == name)
    };
    let mut names: Vec<&String> = properties.keys().collect();
    names.sort_by_key(|name| (!is_required(name), (*name).clone()));
    for name in names {
        let field = without_null(&properties[name]);
        let path = format!("{prefix}{name}");
        let default = if is_required(name) {
            "required".to_owned()
        } else {
            default(&field, defaults.get(&path))
        };
        rows.push(Row {
            kind: kind(&field),
            range: range(&field),
            default,
            meaning: meaning(&field),
            path: path.clone(),
        });
        fields(&format!("{path}."), &field, defaults, rows);
        fields(&format!("{path}[]."), &field["items"], defaults, rows);
    }
}

/// The value of an optional field when it is present.
fn without_null(schema: &Value) -> Value {
    let mut field = schema.clone();
    let Some(map) = field.as_object_mut() else {
        return field;
    };
    if let Some(Value::Array(variants)) = map.remove("anyOf") {
        let present = variants.iter().find(|one| one["type"] != "null");
        // The field's own description comes before that of its type.
        let mut merged: Map<String, Value> = present
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        merged.extend(std::mem::take(map));
        *map = merged;
    }
    if let Some(Value::Array(types)) = map.get("type") {
        let present = types.iter().find(|one| *one != "null").cloned();
        map.insert("type".to_owned(), present.unwrap_or_default());
    }
    field
}

fn kind(field: &Value) -> String {
    if let Some(kind) = field["x-type"].as_str() {
        return kind.to_owned();
    }
    if !words(field).is_empty() {
        return "word".to_owned();
    }
    match field["type"].as_str() {
        Some("string") => "text".to_owned(),
        Some("integer") => "number".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("array") => format!("list of {}", plural(&kind(&field["items"]))),
        Some("object") => "mapping".to_owned(),
        other => panic!("a field of type {other:?}: {field}"),
    }
}

fn plural(kind: &str) -> String {
    match kind {
        "identity" => "identities".to_owned(),
        "gRPC status" => "gRPC statuses".to_owned(),
        _ => format!("{kind}s"),
    }
}

fn range(field: &Value) -> String {
    let own = field["x-range"].as_str().unwrap_or_default();
    let words = words(field);
    if !words.is_empty() {
        return words
            .iter()
            .map(|(word, _)| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    match field["items"]["x-range"].as_str() {
        Some(item) if !item.is_empty() && own.is_empty() => item.to_owned(),
        Some(item) if !item.is_empty() && field["x-type"].is_null() => {
            format!("{own}; each {item}")
        }
        Some(_) | None => own.to_owned(),
    }
}

fn default(field: &Value, known: Option<&String>) -> String {
    if let Some(text) = known {
        return text.clone();
    }
    if let Some(text) = field["x-default"].as_str() {
        return text.to_owned();
    }
    match &field["default"] {
        Value::String(text) => format!("`{text}`"),
        value @ (Value::Number(_) | Value::Bool(_)) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) if field["properties"].is_object() => {
            String::new()
        }
        Value::Null | Value::Array(_) | Value::Object(_) => "none".to_owned(),
    }
}

fn meaning(field: &Value) -> String {
    let mut text = in_one_line(&field["description"]);
    for (word, meaning) in words(field) {
        if !meaning.is_empty() {
            write!(text, " `{word}`: {meaning}").unwrap();
        }
    }
    text
}

/// The words that a field may be, with their meanings.
fn words(field: &Value) -> Vec<(String, String)> {
    let variants = field["oneOf"].as_array().into_iter().flatten();
    let described = variants.map(|one| (&one["const"], in_one_line(&one["description"])));
    let bare = field["enum"].as_array().into_iter().flatten();
    described
        .chain(bare.map(|word| (word, String::new())))
        .filter_map(|(word, meaning)| Some((word.as_str()?.to_owned(), meaning)))
        .collect()
}

fn in_one_line(text: &Value) -> String {
    let text = text.as_str().unwrap_or_default();
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}
