//! What all kinds have in common beside their spec: name, namespace, notes, and what the config service keeps
//! of a resource's life. Pure: times and ids are arguments.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{At, Decoder, Fields};
use super::{Kind, label};
use crate::table::{check_label, check_subdomain};

/// The namespace of a document that names none, as in Kubernetes.
pub(super) const NAMESPACE_DEFAULT: &str = "default";

/// Name, namespace, notes that weft keeps but does not read, and what the config service says of its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metadata {
    /// Its name, a DNS-1123 label: `a-z`, `0-9` and `-`. The name of a route may be several such labels with
    /// dots between them. No other resource of the same kind in the same namespace has it.
    #[schemars(extend("x-range" = "1 to 63 characters; of a route, 1 to 253"))]
    pub name: String,
    /// Its namespace, a DNS-1123 label. Names in other fields are looked up in it. `weft` is the control
    /// plane's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(extend("x-range" = "1 to 63 characters", "x-default" = NAMESPACE_DEFAULT))]
    pub namespace: String,
    /// Notes for people and tools. weft keeps them and does not read them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Notes for people and tools. weft keeps them and does not read them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Tells it from an earlier resource of the same name. Written by the config service; what a file says is
    /// not read, as for the next two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "a UUID"))]
    pub uid: Option<String>,
    /// When it was applied first. Of two routes that match a request equally, the older one takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("x-range" = "a time in RFC 3339, in whole seconds"))]
    pub creation_timestamp: Option<Timestamp>,
    /// Grows by one with each change of its spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// Fields that Kubernetes writes and that mean nothing outside of it.
const KUBERNETES_OWN: [&str; 8] = [
    "resourceVersion",
    "managedFields",
    "selfLink",
    "ownerReferences",
    "finalizers",
    "generateName",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

impl Metadata {
    /// Begins its life, or goes on with that of the resource that it replaces, which has the same spec or
    /// another.
    pub(crate) fn live(
        &mut self,
        before: Option<&Self>,
        same_spec: bool,
        now: Timestamp,
        uid: impl FnOnce() -> String,
    ) {
        let Some(before) = before else {
            self.uid = Some(uid());
            self.creation_timestamp = Some(now);
            self.generation = Some(1);
            return;
        };
        // One of before these were kept has none: it stays the oldest there is.
        self.uid.clone_from(&before.uid);
        self.creation_timestamp = before.creation_timestamp;
        self.generation = match (before.generation, same_spec) {
            (known, true) => known,
            (known, false) => Some(known.unwrap_or(1).saturating_add(1)),
        };
    }
}

pub(super) fn decode(decoder: &mut Decoder<'_>, at: &At<'_>, kind: Kind) -> Option<Metadata> {
    let mut fields = Fields::open(decoder, at)?;
    let name = fields
        .require(decoder, "name")
        .and_then(|at| name(decoder, &at, kind));
    let namespace = match (fields.take("namespace"), kind) {
        (Some(at), Kind::MeshConfig) => {
            let hint = Some("remove it: a MeshConfig holds for the whole mesh".to_owned());
            decoder.error(&at, "a MeshConfig has no namespace", hint);
            None
        }
        (None, Kind::MeshConfig) => Some(String::new()),
        (Some(at), _) => label(decoder, &at),
        (None, _) => Some(NAMESPACE_DEFAULT.to_owned()),
    };
    let labels = fields
        .take("labels")
        .map(|at| decoder.texts(&at))
        .unwrap_or_default();
    let annotations = fields
        .take("annotations")
        .map(|at| decoder.texts(&at))
        .unwrap_or_default();
    // The config service's own, and Kubernetes' own: a file that was read from either may be applied as it
    // is.
    for kept in ["uid", "creationTimestamp", "generation"] {
        fields.take(kept);
    }
    for foreign in KUBERNETES_OWN {
        fields.take(foreign);
    }
    fields.close(decoder);
    Some(Metadata {
        name: name?,
        namespace: namespace?,
        labels,
        annotations,
        uid: None,
        creation_timestamp: None,
        generation: None,
    })
}

/// A label; of kinds that Kubernetes has as well, what it takes for them.
fn name(decoder: &mut Decoder<'_>, at: &At<'_>, kind: Kind) -> Option<String> {
    let text = decoder.text(at)?;
    let checked = match kind.is_of_gateway_api() {
        true => check_subdomain(&text),
        false => check_label(&text),
    };
    if let Err(error) = checked {
        decoder.error(at, format!("{text:?} is not valid: {error}"), None);
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(generation: Option<i64>) -> Metadata {
        Metadata {
            name: "orders".into(),
            namespace: "shop".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            uid: None,
            creation_timestamp: None,
            generation,
        }
    }

    #[test]
    fn a_resource_keeps_its_age_and_counts_the_changes_of_its_spec() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let later = Timestamp::from_second(1_800_000_100).unwrap();
        let mut first = metadata(None);
        first.live(None, false, now, || "a".into());
        assert_eq!(first.creation_timestamp, Some(now));
        assert_eq!(
            (first.uid.as_deref(), first.generation),
            (Some("a"), Some(1))
        );
        let mut same = metadata(None);
        same.live(Some(&first), true, later, || "b".into());
        assert_eq!(same, first);
        let mut changed = metadata(None);
        changed.live(Some(&first), false, later, || "b".into());
        assert_eq!(
            (changed.uid.as_deref(), changed.generation),
            (Some("a"), Some(2))
        );
        assert_eq!(changed.creation_timestamp, Some(now));
    }

    #[test]
    fn one_of_before_ages_were_kept_stays_the_oldest() {
        let later = Timestamp::from_second(1_800_000_100).unwrap();
        let mut changed = metadata(None);
        changed.live(Some(&metadata(None)), false, later, || "b".into());
        assert_eq!((changed.uid, changed.creation_timestamp), (None, None));
        assert_eq!(changed.generation, Some(2));
    }
}
