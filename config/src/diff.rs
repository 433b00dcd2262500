//! The differences between two sets of resources, field by field. Pure; apply, diff and rollback show them.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::resources::{Key, Resource, Set};

/// One resource that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Such as `HTTPRoute/shop/orders-split`.
    pub resource: String,
    /// How it differs.
    pub what: Difference,
}

/// How a resource differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// These fields differ.
    Changed(Vec<FieldChange>),
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Such as `spec.rules[0].backendRefs[1].weight`.
    pub field: String,
    /// The value before, as JSON; absent if the field was.
    pub before: Option<Value>,
    /// The value after, as JSON; absent if the field is.
    pub after: Option<Value>,
}

impl fmt::Display for Change {
    /// `+ added`, `- removed`, `~ changed` with a line for each field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Difference::Added => write!(f, "+ {}", self.resource),
            Difference::Removed => write!(f, "- {}", self.resource),
            Difference::Changed(fields) => {
                write!(f, "~ {}", self.resource)?;
                fields
                    .iter()
                    .try_for_each(|field| write!(f, "\n    {field}"))
            }
        }
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = &self.field;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{field}: {before} -> {after}"),
            (None, Some(after)) => write!(f, "{field}: added {after}"),
            (Some(before), None) => write!(f, "{field}: removed {before}"),
            (None, None) => f.write_str(field),
        }
    }
}

/// All resources that differ, in the order of their keys.
pub fn diff(before: &Set, after: &Set) -> Vec<Change> {
    let keys: BTreeSet<_> = before
        .resources
        .keys()
        .chain(after.resources.keys())
        .collect();
    keys.into_iter()
        .filter_map(|key| {
            let what = match (before.resources.get(key), after.resources.get(key)) {
                (None, Some(_)) => Difference::Added,
                (Some(_), None) => Difference::Removed,
                (Some(before), Some(after)) if before != after => {
                    let mut fields = Vec::new();
                    compare("", &value(before), &value(after), &mut fields);
                    Difference::Changed(fields)
                }
                (Some(_), Some(_)) | (None, None) => return None,
            };
            Some(Change {
                resource: key.to_string(),
                what,
            })
        })
        .collect()
}

/// The keys of all resources that differ, in order.
pub(crate) fn changed_keys<'a>(before: &'a Set, after: &'a Set) -> Vec<&'a Key> {
    let keys: BTreeSet<&Key> = before
        .resources
        .keys()
        .chain(after.resources.keys())
        .collect();
    keys.into_iter()
        .filter(|key| before.resources.get(*key) != after.resources.get(*key))
        .collect()
}

/// What an operator wrote of it: its age and generation follow from that.
fn value(resource: &Resource) -> Value {
    // Resources have text keys and finite numbers only, which is all that JSON asks for.
    let mut value = serde_json::to_value(resource).unwrap_or(Value::Null);
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for kept in ["uid", "creationTimestamp", "generation"] {
            metadata.remove(kept);
        }
    }
    value
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<FieldChange>) {
    let mut push = |field: String, before: Option<&Value>, after: Option<&Value>| {
        found.push(FieldChange {
            field,
            before: before.cloned(),
            after: after.cloned(),
        });
    };
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let field = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                match (old.get(name), new.get(name)) {
                    (Some(old), Some(new)) => compare(&field, old, new, found),
                    (old, new) => {
                        let (before, after) = (old.cloned(), new.cloned());
                        found.push(FieldChange {
                            field,
                            before,
                            after,
                        });
                    }
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for i in 0..old.len().max(new.len()) {
                let field = format!("{path}[{i}]");
                match (old.get(i), new.get(i)) {
                    (Some(old), Some(new)) => compare(&field, old, new, found),
                    (old, new) => {
                        let (before, after) = (old.cloned(), new.cloned());
                        found.push(FieldChange {
                            field,
                            before,
                            after,
                        });
                    }
                }
            }
        }
        (before, after) if before != after => push(path.to_owned(), Some(before), Some(after)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{SourceFile, parse};

    fn set(text: &str) -> Set {
        let parsed = parse(&[SourceFile {
            name: "t.yaml".into(),
            text: text.into(),
        }]);
        assert!(!parsed.findings.has_errors(), "{:?}", parsed.findings);
        let mut set = Set::default();
        parsed
            .resources
            .into_iter()
            .for_each(|resource| set.insert(resource));
        set
    }

    fn service(name: &str, ports: &str) -> String {
        format!(
            "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{ports: [{ports}]}}\n---\n"
        )
    }

    #[test]
    fn a_diff_names_each_changed_field_with_both_values() {
        let http = "{port: 80, protocol: http}";
        let before = set(&(service("a", http) + &service("b", http)));
        let after = set(
            &(service("b", "{port: 80, protocol: grpc}, {port: 81, protocol: tcp}")
                + &service("c", http)),
        );
        let text: Vec<String> = diff(&before, &after)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            text,
            [
                "- Service/shop/a",
                "~ Service/shop/b\n    spec.ports[0].protocol: \"http\" -> \"grpc\"\n    \
                 spec.ports[1]: added {\"port\":81,\"protocol\":\"tcp\"}",
                "+ Service/shop/c",
            ]
        );
        assert!(diff(&after, &after).is_empty());
    }
}
