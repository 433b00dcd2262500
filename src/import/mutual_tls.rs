//! Which Services of Istio take callers without mutual TLS, by the PeerAuthentications of the files. The most
//! specific one that says something decides: for workloads, for a namespace, for the mesh.

use std::collections::BTreeMap;

use super::mesh::ServiceKey;
use super::reader::{Document, Place};

/// The namespace whose policies hold in all.
const ROOT: &str = "istio-system";

/// All PeerAuthentications of the files.
#[derive(Debug, Default)]
pub(super) struct MutualTls(Vec<Policy>);

/// One of them.
#[derive(Debug)]
pub(super) struct Policy {
    namespace: String,
    labels: BTreeMap<String, String>,
    mode: Option<Mode>,
    /// Modes of single ports.
    ports: Vec<Mode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Strict,
    Permissive,
    Disable,
}

/// What comes of them for a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Only callers of the mesh.
    Strict,
    /// Others as well.
    Permissive,
    /// Its workloads or ports differ, or it cannot be told.
    Mixed,
}

impl MutualTls {
    pub(super) fn note(&mut self, document: &Document<'_>) {
        self.0.push(Policy::of(document));
    }

    /// What holds for a Service whose workloads have these labels.
    pub(super) fn of(
        &self,
        (namespace, _): &ServiceKey,
        selector: &BTreeMap<String, String>,
    ) -> Standing {
        let has = |(name, value): (&String, &String)| selector.get(name) == Some(value);
        let clashes =
            |(name, value): (&String, &String)| selector.get(name).is_some_and(|own| own != value);
        let here = || self.0.iter().filter(|one| one.namespace == *namespace);
        let of_workloads = here().filter(|one| !one.labels.is_empty());
        let whole: Vec<&Policy> = of_workloads
            .clone()
            .filter(|one| one.labels.iter().all(has))
            .collect();
        let part = of_workloads
            .filter(|one| !one.labels.iter().all(has) && !one.labels.iter().any(clashes));
        let of_namespace: Vec<&Policy> = here().filter(|one| one.labels.is_empty()).collect();
        let root = self
            .0
            .iter()
            .filter(|one| one.namespace == ROOT && one.labels.is_empty());
        let of_mesh: Vec<&Policy> = root.collect();
        let mut standing = Standing::Strict;
        for level in [&whole, &of_namespace, &of_mesh] {
            let mut modes = level.iter().filter_map(|one| one.mode);
            if let Some(first) = modes.next() {
                standing = match (first, modes.all(|other| other == first)) {
                    (Mode::Permissive, true) => Standing::Permissive,
                    (Mode::Strict | Mode::Disable, true) => Standing::Strict,
                    (_, false) => Standing::Mixed,
                };
                break;
            }
        }
        let is_other =
            |mode: &Mode| (*mode == Mode::Permissive) != (standing == Standing::Permissive);
        let differs = |one: &Policy| one.mode.iter().chain(&one.ports).any(is_other);
        let ports_differ = whole.iter().any(|one| one.ports.iter().any(is_other));
        match ports_differ || part.into_iter().any(differs) {
            true => Standing::Mixed,
            false => standing,
        }
    }
}

impl Policy {
    pub(super) fn of(document: &Document<'_>) -> Self {
        let spec = document.spec();
        let field = |name: &str| spec.as_ref()?.field(name);
        let labels = field("selector").and_then(|one| one.field("matchLabels"));
        let labels = labels.iter().flat_map(Place::entries);
        let ports = field("portLevelMtls");
        Self {
            namespace: document.namespace.clone(),
            labels: labels
                .filter_map(|(name, value)| Some((name.to_owned(), value.text()?)))
                .collect(),
            mode: field("mtls").as_ref().and_then(mode),
            ports: ports
                .iter()
                .flat_map(Place::entries)
                .filter_map(|(_, at)| mode(&at))
                .collect(),
        }
    }

    /// Whether it is about the workloads of a Service, as far as can be told.
    pub(super) fn concerns(
        &self,
        (namespace, _): &ServiceKey,
        selector: &BTreeMap<String, String>,
    ) -> bool {
        let clashes =
            |(name, value): (&String, &String)| selector.get(name).is_some_and(|own| own != value);
        let is_of_mesh = self.namespace == ROOT && self.labels.is_empty();
        (is_of_mesh || self.namespace == *namespace) && !self.labels.iter().any(clashes)
    }
}

fn mode(at: &Place<'_>) -> Option<Mode> {
    match at.field("mode")?.text()?.as_str() {
        "STRICT" => Some(Mode::Strict),
        "PERMISSIVE" => Some(Mode::Permissive),
        "DISABLE" => Some(Mode::Disable),
        _ => None,
    }
}
