//! What an import makes: documents of weft, each of which its own reader takes, and findings.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};
use weft_config::findings::{Finding, Findings, Severity};
use weft_config::resources::{Set, SourceFile, parse};
use weft_config::validate::validate;
use weft_config::yaml::{self, Value, YamlError};
use weft_transport::identity::TrustDomain;

use super::Imported;
use super::reader::{Document, Place};

const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const WEFT: &str = "weft.dev/v1alpha1";

/// See the module's documentation.
pub(super) struct Output {
    pub(super) trust_domain: TrustDomain,
    findings: Findings,
    /// By kind, namespace and name, in the order in which they were made.
    documents: Vec<Json>,
    known: BTreeMap<(String, String, String), usize>,
    /// Services that take no callers without an identity, whatever their mode, and the policy that needs it.
    strict: BTreeMap<(String, String), String>,
    /// The mesh refuses what no policy allows: a restriction could not be put where it belongs.
    closed: bool,
}

impl Output {
    pub(super) fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            findings: Findings::default(),
            documents: Vec::new(),
            known: BTreeMap::new(),
            strict: BTreeMap::new(),
            closed: false,
        }
    }

    /// Something was left out, or means something else.
    pub(super) fn dropped(&mut self, of: &Document<'_>, at: &Place<'_>, message: &str, hint: &str) {
        self.note(Severity::Error, of, at, message, hint);
    }

    /// Something is to be known or done.
    pub(super) fn told(&mut self, of: &Document<'_>, at: &Place<'_>, message: &str, hint: &str) {
        self.note(Severity::Warning, of, at, message, hint);
    }

    fn note(
        &mut self,
        severity: Severity,
        of: &Document<'_>,
        at: &Place<'_>,
        message: &str,
        hint: &str,
    ) {
        self.findings.push(Finding {
            severity,
            file: Some(of.file.to_owned()),
            position: Some(at.node.position),
            resource: Some(of.label()),
            field: match at.path.is_empty() {
                true => of.label(),
                false => at.path.clone(),
            },
            message: message.to_owned(),
            hint: (!hint.is_empty()).then(|| hint.to_owned()),
        });
    }

    pub(super) fn unreadable(&mut self, file: &str, error: YamlError) {
        self.findings.push(Finding {
            severity: Severity::Error,
            file: Some(file.to_owned()),
            position: error.position,
            resource: None,
            field: String::new(),
            message: format!(
                "not YAML, and nothing of the file is read: {}",
                error.message
            ),
            hint: None,
        });
        // What it says may be a restriction.
        self.closed = true;
    }

    pub(super) fn nameless(&mut self, file: &str, at: &Place<'_>) {
        self.findings.push(Finding {
            severity: Severity::Error,
            file: Some(file.to_owned()),
            position: Some(at.node.position),
            resource: None,
            field: String::new(),
            message: "a document without apiVersion, kind or metadata.name is left out".to_owned(),
            hint: None,
        });
        self.closed = true;
    }

    /// A policy lets every identity call this Service, which weft can say only as every caller. So it must
    /// take none without an identity.
    pub(super) fn keep_strict(&mut self, of: &Document<'_>, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.strict.entry(key).or_insert_with(|| of.label());
    }

    /// Closes the mesh to all that no policy allows.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Adds a document. One that has the kind and name of an earlier one gets a number behind its name.
    pub(super) fn add(&mut self, kind: &str, namespace: &str, name: &str, spec: Json) {
        let mut free = name.to_owned();
        let mut number = 2;
        let key = |name: &str| (kind.to_owned(), namespace.to_owned(), name.to_owned());
        while self.known.contains_key(&key(&free)) {
            free = format!("{name}-{number}");
            number += 1;
        }
        self.known.insert(key(&free), self.documents.len());
        let version = match kind {
            "HTTPRoute" | "GRPCRoute" | "TCPRoute" => GATEWAY,
            _ => WEFT,
        };
        self.documents.push(json!({
            "apiVersion": version,
            "kind": kind,
            "metadata": { "name": free, "namespace": namespace },
            "spec": spec,
        }));
    }

    /// Whether there is a document of that kind and name.
    pub(super) fn has(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        self.known.contains_key(&key)
    }

    /// The document of a resource that weft knows as it is.
    fn pass(&mut self, of: &Document<'_>, document: Json) {
        let key = (of.kind.clone(), of.namespace.clone(), of.name.clone());
        self.known.insert(key, self.documents.len());
        self.documents.push(document);
    }

    /// Leaves out documents that weft does not take, and says why: no output is invalid.
    pub(super) fn finish(mut self) -> Imported {
        let mut documents = std::mem::take(&mut self.documents);
        self.close_to_plaintext(&mut documents);
        // One that goes may make another invalid, which refers to it.
        for _ in 0..=documents.len() {
            let refused = self.refused(&documents);
            if refused.is_empty() {
                break;
            }
            documents.retain(|document| {
                let is_refused = refused.contains(&name_of(document));
                if is_refused && document["kind"] == "AuthorizationPolicy" {
                    self.closed = true;
                }
                !is_refused
            });
        }
        if self.closed {
            documents.push(json!({
                "apiVersion": WEFT,
                "kind": "MeshConfig",
                "metadata": { "name": "mesh" },
                "spec": { "defaultAuthorization": "Deny" },
            }));
            self.findings.push(Finding {
                severity: Severity::Error,
                file: None,
                position: None,
                resource: Some("MeshConfig/mesh".to_owned()),
                field: "spec.defaultAuthorization".to_owned(),
                message:
                    "is Deny, as a restriction of the source could not be put where it belongs: \
                          calls that no AuthorizationPolicy allows are refused in the whole mesh"
                        .to_owned(),
                hint: Some("mend the findings above, then remove it".to_owned()),
            });
        }
        self.findings.sort();
        Imported {
            documents,
            findings: self.findings,
        }
    }

    /// Makes Services `Strict` whose policies tell callers with an identity from those without.
    fn close_to_plaintext(&mut self, documents: &mut [Json]) {
        for ((namespace, name), policy) in std::mem::take(&mut self.strict) {
            let is_it = |one: &&mut Json| {
                one["kind"] == "Service"
                    && one["metadata"]["namespace"] == *namespace
                    && one["metadata"]["name"] == *name
            };
            let Some(service) = documents.iter_mut().find(is_it) else {
                continue;
            };
            let spec = service["spec"].as_object_mut();
            if spec.and_then(|spec| spec.remove("mutualTls")).is_none() {
                continue;
            }
            self.findings.push(Finding {
                severity: Severity::Error,
                file: None,
                position: None,
                resource: Some(name_of(service)),
                field: "spec.mutualTls".to_owned(),
                message: format!(
                    "stays Strict: {policy} allows every identity, which weft cannot tell from callers without one"
                ),
                hint: Some("write the principals that may call, then mutualTls: Permissive".to_owned()),
            });
        }
    }

    /// The documents that `weft validate` refuses, each reported.
    fn refused(&mut self, documents: &[Json]) -> BTreeSet<String> {
        // One file each, so that a document that cannot even be named is found by its file.
        let files = documents.iter().map(|document| SourceFile {
            name: name_of(document),
            text: yaml::to_string(document).unwrap_or_default(),
        });
        let parsed = parse(&files.collect::<Vec<_>>());
        let mut set = Set::default();
        for resource in parsed.resources.clone() {
            set.insert(resource);
        }
        let mut findings = validate(&set, None, &parsed);
        findings.extend(parsed.findings);
        let mut refused = BTreeSet::new();
        for finding in findings.listed {
            if finding.severity != Severity::Error {
                continue;
            }
            let name = finding.file.clone().or_else(|| finding.resource.clone());
            refused.extend(name.clone());
            self.findings.push(Finding {
                message: format!("left out, as weft refuses it: {}", finding.message),
                file: name,
                position: None,
                ..finding
            });
        }
        refused
    }
}

/// `HTTPRoute/shop/orders`, as findings name it.
fn name_of(document: &Json) -> String {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let metadata = &document["metadata"];
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    format!("{}/{namespace}/{name}", text(&document["kind"]))
}

/// Passes a resource of Gateway API on, if it is of a Service.
pub(super) fn pass(document: &Document<'_>, output: &mut Output) {
    let known = ["HTTPRoute", "GRPCRoute", "TCPRoute", "ReferenceGrant"];
    if !known.contains(&document.kind.as_str()) {
        let hint = "weft routes between Services; a gateway is a program of its own";
        return output.dropped(
            document,
            &document.root(),
            "this kind has no counterpart",
            hint,
        );
    }
    let parents = document.spec().and_then(|spec| spec.field("parentRefs"));
    for parent in parents.iter().flat_map(Place::items) {
        if parent.field("kind").and_then(|kind| kind.text()).as_deref() != Some("Service") {
            let hint = "attach it to a Service: parentRefs: [ { group: \"\", kind: Service, name: NAME } ]";
            return output.dropped(
                document,
                &parent,
                "only a Service is a parent in a mesh",
                hint,
            );
        }
    }
    let mut whole = json_of(&document.root());
    // What a cluster writes.
    if let Json::Object(fields) = &mut whole {
        fields.remove("status");
        fields.insert(
            "metadata".to_owned(),
            json!({ "name": document.name, "namespace": document.namespace }),
        );
        if document.kind != "ReferenceGrant" {
            fields.insert("apiVersion".to_owned(), json!(GATEWAY));
        }
    }
    output.pass(document, whole);
}

/// A node as JSON.
pub(super) fn json_of(place: &Place<'_>) -> Json {
    fn of(value: &Value) -> Json {
        match value {
            Value::Null => Json::Null,
            Value::Bool(truth) => json!(truth),
            Value::Integer(number) => i64::try_from(*number).map_or(Json::Null, |one| json!(one)),
            Value::Float(number) => json!(number),
            Value::Text(text) => json!(text),
            Value::List(items) => items.iter().map(|item| of(&item.value)).collect(),
            Value::Map(entries) => {
                let entries = entries.iter();
                let fields: Map<String, Json> = entries
                    .map(|(name, _, node)| (name.clone(), of(&node.value)))
                    .collect();
                Json::Object(fields)
            }
        }
    }
    of(&place.node.value)
}
