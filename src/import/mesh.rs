//! The Services, identities and subsets that the files name: what other kinds refer to.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};
use weft_transport::identity::SpiffeId;

use super::external::Externals;
use super::mutual_tls::{MutualTls, Policy, Standing};
use super::output::Output;
use super::reader::{Document, Place};

/// A Service by its namespace and name.
pub(super) type ServiceKey = (String, String);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Mesh {
    services: BTreeMap<ServiceKey, Known>,
    /// Service accounts by namespace.
    accounts: BTreeMap<String, BTreeSet<String>>,
    /// What policies of Linkerd name, by kind, namespace and name.
    named: BTreeMap<(String, String, String), Named>,
    mutual_tls: MutualTls,
    externals: Externals,
}

/// A resource that policies of Linkerd name: a Server, a route of one, or an authentication.
#[derive(Debug, Default)]
pub(super) struct Named {
    namespace: String,
    labels: BTreeMap<String, String>,
    parent: Option<String>,
    requests: Option<Vec<Requests>>,
    identities: Vec<String>,
    identity_refs: Vec<(String, String, String)>,
}

/// Methods and paths of a policy.
pub(super) type Requests = (Option<Vec<String>>, Option<Vec<String>>);

impl Named {
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Those of the workloads that a Server selects.
    pub(super) fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// The Server of a route.
    pub(super) fn parent(&self) -> Option<&str> {
        self.parent.as_deref()
    }

    /// The requests of a route; none if a policy cannot say them.
    pub(super) fn requests(&self) -> Option<&Vec<Requests>> {
        self.requests.as_ref()
    }

    pub(super) fn identities(&self) -> &[String] {
        &self.identities
    }

    /// Kind, namespace and name of each.
    pub(super) fn identity_refs(&self) -> &[(String, String, String)] {
        &self.identity_refs
    }

    fn of(document: &Document<'_>) -> Self {
        let spec = document.spec();
        let field = |name: &str| spec.as_ref().and_then(|spec| spec.field(name));
        let labels = field("podSelector").and_then(|one| one.field("matchLabels"));
        let labels = labels.iter().flat_map(Place::entries);
        let parents = field("parentRefs");
        let mut parents = parents.iter().flat_map(Place::items);
        let refs = field("identityRefs");
        let refs = refs.iter().flat_map(Place::items).map(|at| {
            let text = |name: &str| at.field(name).and_then(|one| one.text());
            let namespace = text("namespace").unwrap_or_else(|| document.namespace.clone());
            (
                text("kind").unwrap_or_default(),
                namespace,
                text("name").unwrap_or_default(),
            )
        });
        Self {
            namespace: document.namespace.clone(),
            labels: labels
                .filter_map(|(name, value)| Some((name.to_owned(), value.text()?)))
                .collect(),
            parent: parents.find_map(|at| at.field("name")?.text()),
            requests: requests(field("rules").as_ref()),
            identities: field("identities")
                .map(|one| one.texts())
                .unwrap_or_default(),
            identity_refs: refs.collect(),
        }
    }
}

/// The requests of the rules of a route; none if a policy cannot say them.
fn requests(rules: Option<&Place<'_>>) -> Option<Vec<Requests>> {
    let mut all = Vec::new();
    for rule in rules?.items() {
        let Some(matches) = rule.field("matches") else {
            all.push((None, None));
            continue;
        };
        for one in matches.items() {
            let mut fields = one.fields();
            let method = fields.take("method").and_then(|at| at.text());
            let mut paths = None;
            if let Some(path) = fields.take("path") {
                let value = path.field("value")?.text()?;
                let kind = path.field("type").and_then(|at| at.text());
                let folder = value.trim_end_matches('/').to_owned();
                paths = match kind.as_deref() {
                    Some("Exact") => Some(vec![value]),
                    Some("PathPrefix") | None if folder.is_empty() => None,
                    Some("PathPrefix") | None => Some(vec![folder.clone(), format!("{folder}/*")]),
                    Some(_) => return None,
                };
            }
            if !fields.left().is_empty() {
                return None;
            }
            all.push((method.map(|one| vec![one]), paths));
        }
    }
    Some(all)
}

#[derive(Debug, Default)]
struct Known {
    ports: Vec<Port>,
    selector: BTreeMap<String, String>,
}

/// A port of a Service.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) number: u16,
    pub(super) name: Option<String>,
    /// As weft says it.
    pub(super) protocol: &'static str,
    /// Whether that is said in the source.
    is_said: bool,
}

impl Port {
    pub(super) fn has_requests(&self) -> bool {
        self.protocol != "tcp"
    }

    fn json(&self) -> Json {
        match &self.name {
            Some(name) => json!({ "port": self.number, "name": name, "protocol": self.protocol }),
            None => json!({ "port": self.number, "protocol": self.protocol }),
        }
    }
}

/// Services whose workloads a policy selects.
#[derive(Debug, Default)]
pub(super) struct Selected {
    /// All workloads of these.
    pub(super) whole: Vec<ServiceKey>,
    /// Some workloads of these, as far as can be told.
    pub(super) part: Vec<ServiceKey>,
}

/// Groups of Kubernetes that say nothing about the traffic between workloads.
pub(super) fn is_of_no_concern(group: &str) -> bool {
    matches!(
        group,
        "apps" | "batch" | "autoscaling" | "policy" | "networking.k8s.io"
    ) || ["k8s.io", "cert-manager.io", "monitoring.coreos.com"]
        .iter()
        .any(|one| group == *one || group.ends_with(&format!(".{one}")))
}

impl Mesh {
    pub(super) fn of(documents: &[Document<'_>]) -> Self {
        let mut mesh = Self::default();
        for document in documents {
            let spec = document.spec();
            if (document.group(), document.kind.as_str()) == ("", "Service") {
                let key = (document.namespace.clone(), document.name.clone());
                mesh.services.insert(key, Known::of(spec.as_ref()));
            }
            if (document.group(), document.kind.as_str())
                == ("security.istio.io", "PeerAuthentication")
            {
                mesh.mutual_tls.note(document);
            }
            if document.group() == "networking.istio.io"
                && ["ServiceEntry", "DestinationRule"].contains(&document.kind.as_str())
            {
                mesh.externals.note(document);
            }
            let is_policy = document.group() == "policy.linkerd.io";
            if is_policy
                && ["Server", "HTTPRoute", "MeshTLSAuthentication"]
                    .contains(&document.kind.as_str())
            {
                let key = (
                    document.kind.clone(),
                    document.namespace.clone(),
                    document.name.clone(),
                );
                mesh.named.insert(key, Named::of(document));
            }
            let account = match (document.group(), document.kind.as_str()) {
                ("", "ServiceAccount") => Some(document.name.clone()),
                ("apps" | "batch", _) | ("", "Pod") => account_of(spec.as_ref()),
                _ => None,
            };
            if let Some(account) = account {
                let of_namespace = mesh.accounts.entry(document.namespace.clone());
                of_namespace.or_default().insert(account);
            }
        }
        mesh
    }

    /// The Service of a host, as `reviews`, `reviews.shop` or `reviews.shop.svc.cluster.local`.
    pub(super) fn service(&self, host: &str, namespace: &str) -> Option<ServiceKey> {
        let short = host.split_once(".svc").map_or(host, |(short, rest)| {
            match rest.is_empty() || rest.starts_with('.') {
                true => short,
                false => host,
            }
        });
        let key = match short.split('.').collect::<Vec<_>>().as_slice() {
            [name] => (namespace.to_owned(), (*name).to_owned()),
            [name, other] => ((*other).to_owned(), (*name).to_owned()),
            _ => return None,
        };
        let is_label = |text: &str| weft_config::table::check_label(text).is_ok();
        let is_sure = short != host || !short.contains('.') || self.services.contains_key(&key);
        (is_sure && is_label(&key.0) && is_label(&key.1)).then_some(key)
    }

    /// What a policy of Linkerd names.
    pub(super) fn document(&self, kind: &str, namespace: &str, name: &str) -> Option<&Named> {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        self.named.get(&key)
    }

    pub(super) fn ports(&self, service: &ServiceKey) -> &[Port] {
        self.services.get(service).map_or(&[], |known| &known.ports)
    }

    /// Whether any port of it is of TCP: rules on methods and paths cannot hold for it.
    pub(super) fn has_tcp(&self, service: &ServiceKey) -> bool {
        self.ports(service).iter().any(|port| !port.has_requests())
    }

    /// The only port that takes requests; 80 for a Service that is not in the files.
    pub(super) fn only_port(&self, service: &ServiceKey) -> Option<u16> {
        if !self.services.contains_key(service) {
            return Some(80);
        }
        let mut ports = self
            .ports(service)
            .iter()
            .filter(|port| port.has_requests());
        match (ports.next(), ports.next()) {
            (Some(only), None) => Some(only.number),
            (_, _) => None,
        }
    }

    /// The Services that a PeerAuthentication is about, and what holds for each by all of them.
    pub(super) fn concerned_by(&self, document: &Document<'_>) -> Vec<(ServiceKey, Standing)> {
        let policy = Policy::of(document);
        let services = self.services.iter();
        services
            .filter(|(key, known)| policy.concerns(key, &known.selector))
            .map(|(key, known)| (key.clone(), self.mutual_tls.of(key, &known.selector)))
            .collect()
    }

    /// Hosts outside of the mesh.
    pub(super) fn externals(&self) -> &Externals {
        &self.externals
    }

    pub(super) fn knows(&self, service: &ServiceKey) -> bool {
        self.services.contains_key(service)
    }

    /// Identities of the workloads of a namespace, as far as the files name them.
    pub(super) fn identities(&self, namespace: &str, output: &Output) -> Vec<String> {
        let accounts = self.accounts.get(namespace).into_iter().flatten();
        accounts
            .filter_map(|account| identity(namespace, account, output))
            .collect()
    }

    /// Services whose workloads have these labels; in every namespace without one.
    pub(super) fn selected(
        &self,
        namespace: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Selected {
        let mut selected = Selected::default();
        for (key, known) in &self.services {
            if namespace.is_some_and(|one| one != key.0) {
                continue;
            }
            let clashes = |(name, value): (&String, &String)| {
                known.selector.get(name).is_some_and(|own| own != value)
            };
            if labels
                .iter()
                .all(|(name, value)| known.selector.get(name) == Some(value))
            {
                selected.whole.push(key.clone());
            } else if !labels.iter().any(clashes) {
                selected.part.push(key.clone());
            }
        }
        selected
    }

    /// The Service of a subset, which is one of its own in weft.
    pub(super) fn subset(
        &self,
        of: &Document<'_>,
        at: &Place<'_>,
        (namespace, name): &ServiceKey,
        subset: &str,
        output: &mut Output,
    ) -> ServiceKey {
        let own = format!("{name}-{}", subset.replace('.', "-")).to_ascii_lowercase();
        let key = (namespace.clone(), own.clone());
        if !output.has("Service", namespace, &own) && !self.knows(&key) {
            let ports = self.ports(&(namespace.clone(), name.clone()));
            let ports: Vec<Json> = match ports.is_empty() {
                true => vec![json!({ "port": 80, "protocol": "http" })],
                false => ports.iter().map(Port::json).collect(),
            };
            let mut spec = json!({ "ports": ports });
            if let Some(identity) = identity(namespace, name, output) {
                spec["identities"] = json!([identity]);
            }
            output.add("Service", namespace, &own, spec);
            let message = format!("the subset {subset} is the Service {own} in weft");
            let hint = format!(
                "let the sidecars of its workloads serve {own} beside {name}, and check its identities"
            );
            output.told(of, at, &message, &hint);
        }
        key
    }
}

impl Known {
    fn of(spec: Option<&Place<'_>>) -> Self {
        let selector = spec.and_then(|spec| spec.field("selector"));
        let selector = selector.iter().flat_map(Place::entries);
        let ports = spec.and_then(|spec| spec.field("ports"));
        Self {
            ports: ports
                .iter()
                .flat_map(Place::items)
                .filter_map(|at| port(&at))
                .collect(),
            selector: selector
                .filter_map(|(name, value)| Some((name.to_owned(), value.text()?)))
                .collect(),
        }
    }
}

fn port(at: &Place<'_>) -> Option<Port> {
    let text = |name: &str| at.field(name)?.text();
    if text("protocol").is_some_and(|protocol| protocol != "TCP") {
        return None;
    }
    let number: u16 = text("port")?.parse().ok()?;
    let name = text("name");
    let app = text("appProtocol").map(|app| app.rsplit('/').next().unwrap_or_default().to_owned());
    let prefix = name.as_deref().and_then(|name| name.split('-').next());
    let said = app.as_deref().or(prefix).and_then(|said| match said {
        "http" | "http2" | "h2c" | "ws" => Some("http"),
        "grpc" | "grpc-web" => Some("grpc"),
        "tcp" | "tls" | "https" | "mongo" | "mysql" | "redis" | "postgres" | "postgresql"
        | "amqp" | "kafka" => Some("tcp"),
        _ => None,
    });
    let guessed = match number {
        80 | 3000 | 8000 | 8080 | 8888 | 9080 => "http",
        50051 => "grpc",
        _ => "tcp",
    };
    Some(Port {
        number,
        name: name.filter(|name| weft_config::table::check_label(name).is_ok()),
        protocol: said.unwrap_or(guessed),
        is_said: said.is_some(),
    })
}

fn account_of(spec: Option<&Place<'_>>) -> Option<String> {
    let spec = spec?.clone();
    let inner = spec.field("jobTemplate").and_then(|one| one.field("spec"));
    let spec = inner.unwrap_or(spec);
    let pod = spec.field("template").and_then(|one| one.field("spec"));
    let account = pod.unwrap_or(spec).field("serviceAccountName");
    Some(
        account
            .and_then(|one| one.text())
            .unwrap_or_else(|| "default".to_owned()),
    )
}

/// `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, if the names are valid.
pub(super) fn identity(namespace: &str, account: &str, output: &Output) -> Option<String> {
    let id = SpiffeId::for_workload(&output.trust_domain, namespace, account);
    id.ok().map(|id| id.to_string())
}

/// A Service of Kubernetes; other kinds of its group say nothing about traffic.
pub(super) fn import(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    if document.kind != "Service" {
        return;
    }
    let Some(spec) = document.spec() else {
        return;
    };
    let is = |name: &str, value: &str| {
        spec.field(name).and_then(|one| one.text()).as_deref() == Some(value)
    };
    if is("type", "ExternalName") {
        let hint = "let callers reach it without the mesh";
        let message = "a name outside of the mesh is no Service of weft";
        return output.dropped(document, &spec, message, hint);
    }
    let known = Known::of(Some(&spec));
    for at in spec.field("ports").iter().flat_map(Place::items) {
        match port(&at) {
            None => {
                let message = "only ports of TCP cross the mesh; this one is left out";
                output.dropped(document, &at, message, "");
            }
            Some(port) if !port.is_said => {
                let message = format!(
                    "is taken as protocol {}: the source does not say",
                    port.protocol
                );
                let hint = "write another protocol (http, grpc, tcp) if it is not that";
                output.told(document, &at, &message, hint);
            }
            Some(_) => {}
        }
    }
    if known.ports.is_empty() {
        return output.dropped(document, &spec, "has no port of TCP and is left out", "");
    }
    let ports: Vec<Json> = known.ports.iter().map(Port::json).collect();
    let mut service = json!({ "ports": ports });
    let key = (document.namespace.clone(), document.name.clone());
    if mesh.mutual_tls.of(&key, &known.selector) == Standing::Permissive {
        service["mutualTls"] = json!("Permissive");
    }
    output.add("Service", &document.namespace, &document.name, service);
    let message = format!(
        "its workloads register with the identity ns/{}/sa/{}",
        document.namespace, document.name
    );
    let hint = "write spec.identities where their service account has another name";
    output.told(document, &spec, &message, hint);
}
