//! The mesh of the conformance cases: `echo` with the workloads `v1` and `v2`, each of which is a Service of
//! its own, too, `v3`, a client, and a client in another namespace.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use super::application;
use crate::harness::{Mesh, Origin, Output, Response, Sidecar, eventually, exchange, run};

/// The namespaces whose resources a case replaces.
const NAMESPACES: [&str; 3] = ["shop", "cons", "web"];

/// Ports of a Service of the cases.
const PORTS: &str = "[ { name: http, port: 80, protocol: http }, { name: http-alt, port: 8080, protocol: http }, \
                     { name: other, port: 8090, protocol: http } ]";

/// What each listener of the clients leads to.
const CALLED: [&str; 8] = [
    "echo:80",
    "echo:8080",
    "echo:8090",
    "v1:80",
    "v1:8080",
    "v2:80",
    "v2:8080",
    "v3:80",
];

pub(super) struct Fixture {
    pub(super) mesh: Mesh,
    /// Its client is in the namespace of the Services.
    client: Sidecar,
    /// Its client is in a namespace of its own.
    consumer: Sidecar,
    pub(super) applications: BTreeMap<&'static str, Origin>,
    /// By workload.
    served: BTreeMap<&'static str, Sidecar>,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// The namespace of the Services.
    Shop,
    /// Another one.
    Cons,
}

impl Fixture {
    pub(super) fn start() -> Self {
        let mesh = Mesh::start();
        mesh.apply(&services());
        let applications: BTreeMap<_, _> = ["v1", "v2", "v3", "w"]
            .map(|name| (name, application::start(mesh.address(), name)))
            .into();
        let mut served = BTreeMap::new();
        for (name, application) in &applications {
            let address = application.address;
            let plan = match *name {
                "w" => mesh.sidecar_of("web", "w").serves("w:8080", address),
                "v3" => mesh.sidecar("v3").serves("v3:80", address),
                name => ["80", "8080", "8090"]
                    .iter()
                    .fold(mesh.sidecar(name), |plan, port| {
                        plan.serves(&format!("{name}:{port}"), address)
                            .serves(&format!("echo:{port}"), address)
                    }),
            };
            served.insert(*name, plan.start());
        }
        let listening = |namespace: &str, suffix: &str| {
            let plan = mesh
                .sidecar_of(namespace, "client")
                .named(&format!("client-{namespace}"))
                .setting("access_log: all");
            let called = CALLED.iter();
            called
                .fold(plan, |plan, called| {
                    plan.calls(&called.replace(':', &format!("{suffix}:")))
                })
                .start()
        };
        let (client, consumer) = (listening("shop", ""), listening("cons", ".shop"));
        client.wait_endpoints("echo:80", 2);
        client.wait_endpoints("v3:80", 1);
        consumer.wait_endpoints("echo:80", 2);
        Self {
            mesh,
            client,
            consumer,
            applications,
            served,
        }
    }

    /// The sidecar of the client in the namespace of the Services.
    pub(super) fn client(&self) -> &Sidecar {
        &self.client
    }

    pub(super) fn restart_client(&mut self) {
        self.client.process.kill();
        self.client.restart();
        self.client.wait_ready();
        self.client.wait_endpoints("echo:80", 2);
    }

    /// Ends the sidecar of a workload.
    pub(super) fn stop(&self, workload: &str) {
        self.served[workload].terminate();
    }

    /// Puts these resources beside the Services, in place of those of the case before.
    #[track_caller]
    pub(super) fn apply(&self, resources: &str) -> String {
        let output = self.try_apply(resources);
        output.ok()
    }

    pub(super) fn try_apply(&self, resources: &str) -> Output {
        try_replace(&self.mesh, &(services() + resources), &[])
    }

    /// As [`Self::apply`]; rules that are not valid are left out.
    #[track_caller]
    pub(super) fn apply_what_is_valid(&self, resources: &str) -> Output {
        let resources = services() + resources;
        let output = try_replace(&self.mesh, &resources, &["--drop-invalid-rules"]);
        assert_eq!(output.code, 0, "{output:?}");
        output
    }

    /// Where the client of a namespace calls `echo:80`.
    pub(super) fn address(&self, from: From, called: &str) -> SocketAddr {
        match from {
            From::Shop => self.client.listener(called),
            From::Cons => self.consumer.listener(&called.replace(':', ".shop:")),
        }
    }

    /// A request to `echo:80`, as `GET /path {Name: value; Name: value}`.
    #[track_caller]
    pub(super) fn ask(&self, request: &str) -> Answer {
        self.ask_of(From::Shop, "echo:80", request)
    }

    #[track_caller]
    pub(super) fn ask_of(&self, from: From, called: &str, request: &str) -> Answer {
        let (line, headers) = request.split_once(" {").unwrap_or((request, "}"));
        let headers = headers.strip_suffix('}').unwrap();
        let (host, _) = called.split_once(':').unwrap();
        let mut head = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.to_ascii_lowercase().contains("host:") {
            head += &format!("host: {host}\r\n");
        }
        for field in headers.split("; ").filter(|field| !field.is_empty()) {
            head += &format!("{field}\r\n");
        }
        let response = exchange(self.address(from, called), format!("{head}\r\n").as_bytes());
        Answer::of(response.unwrap_or_else(|error| panic!("{request}: {error}")))
    }

    /// The conditions of a route at its first parent, by type: status and reason.
    #[track_caller]
    pub(super) fn conditions(
        &self,
        kind: &str,
        name: &str,
        namespace: &str,
    ) -> BTreeMap<String, String> {
        conditions(&self.mesh, kind, name, namespace)
    }
}

/// A page of the client's admin endpoint.
pub(super) fn page(fixture: &Fixture, path: &str) -> String {
    let response = fixture.client().admin_get(path).unwrap();
    String::from_utf8(response.body).unwrap()
}

/// The sum of a metric of the client, of the samples that have this among their labels.
pub(super) fn metric(fixture: &Fixture, name: &str, label: &str) -> f64 {
    let page = page(fixture, "/metrics");
    let lines = page.lines();
    let ours = lines.filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Makes these the only resources of the namespaces of the cases.
#[track_caller]
pub(super) fn replace(mesh: &Mesh, resources: &str) -> String {
    let output = try_replace(mesh, resources, &[]);
    output.ok()
}

fn try_replace(mesh: &Mesh, resources: &str, more: &[&str]) -> Output {
    let path = mesh.folder().join("case.yaml");
    std::fs::write(&path, resources).unwrap();
    let mut command = mesh.weft_command(&["apply", "--prune"]);
    for namespace in NAMESPACES {
        command.args(["-n", namespace]);
    }
    run(command.args(more).arg("-f").arg(path))
}

/// The conditions of a route at its first parent, by type: status and reason.
#[track_caller]
pub(super) fn conditions(
    mesh: &Mesh,
    kind: &str,
    name: &str,
    namespace: &str,
) -> BTreeMap<String, String> {
    let arguments = ["get", kind, name, "-n", namespace, "-o", "json"];
    let text = mesh.weft(&arguments).ok();
    let found: Value = serde_json::from_str(&text).unwrap();
    let conditions = found.pointer("/0/status/parents/0/conditions");
    let conditions = conditions
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let part = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    conditions
        .iter()
        .map(|one| {
            let says = format!("{} {}", part(one, "status"), part(one, "reason"));
            (part(one, "type"), says)
        })
        .collect()
}

fn services() -> String {
    let service = |name: &str, ports: &str, identities: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\nspec:\n  \
             ports: {ports}\n  identities: [{identities}]\n"
        )
    };
    let id = |name: &str| format!("\"spiffe://{}/ns/shop/sa/{name}\"", Mesh::DOMAIN);
    let (v1, v2, v3) = (id("v1"), id("v2"), id("v3"));
    [
        service("echo", PORTS, &format!("{v1}, {v2}")),
        service("v1", PORTS, &v1),
        service("v2", PORTS, &v2),
        service("v3", "[ { name: http, port: 80, protocol: http } ]", &v3),
        "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: { name: w, namespace: web }\n\
         spec: { ports: [ { port: 8080, protocol: http } ] }\n"
            .to_owned(),
    ]
    .concat()
}

/// An HTTPRoute of namespace `shop` for port 80 of `echo`, with these rules in YAML, one a line.
pub(super) fn route(name: &str, rules: &str) -> String {
    route_for(
        name,
        "shop",
        "{ group: \"\", kind: Service, name: echo, port: 80 }",
        rules,
    )
}

pub(super) fn route_for(name: &str, namespace: &str, parents: &str, rules: &str) -> String {
    let indented: String = rules
        .lines()
        .map(|line| format!("  {}\n", line.trim_start()))
        .collect();
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: {name}, namespace: {namespace} }}\n\
         spec:\n  parentRefs: [ {parents} ]\n  rules:\n{indented}"
    )
}

/// An answer, with what the application says that it saw.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    told: Value,
}

impl Answer {
    fn of(response: Response) -> Self {
        let told = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        Self { response, told }
    }

    /// The workload that answered, or the status where the mesh did.
    pub(super) fn outcome(&self) -> String {
        match self.told["backend"].as_str() {
            Some(backend) if self.response.status == 200 => backend.to_owned(),
            _ => self.response.status.to_string(),
        }
    }

    /// The path that the application saw.
    pub(super) fn path(&self) -> &str {
        self.told["path"].as_str().unwrap_or_default()
    }

    /// A header that the application saw.
    pub(super) fn seen(&self, name: &str) -> Option<&str> {
        self.told["headers"][name.to_ascii_lowercase()].as_str()
    }

    /// A header of the response; several lines are joined with commas.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let headers = self.response.headers.iter();
        let named = headers.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let values: Vec<&str> = named.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(","))
    }
}

/// Asks each request and compares who answered.
#[track_caller]
pub(super) fn expect(fixture: &Fixture, case: &str, rows: &[(&str, &str)]) {
    for (request, outcome) in rows {
        let answer = fixture.ask(request);
        assert_eq!(answer.outcome(), *outcome, "{case}: {request}: {answer:?}");
    }
}

/// Waits until a change of endpoints has come to the client.
#[track_caller]
pub(super) fn expect_soon(fixture: &Fixture, case: &str, request: &str, outcome: &str) {
    eventually(&format!("{case}: {request} -> {outcome}"), || {
        fixture.ask(request).outcome() == outcome
    });
}

/// How many outcomes a share is of.
pub(super) const SHARED: u32 = 500;

/// Rounds of requests, of which one must have the shares: a single one misses them by chance a few times in a
/// hundred.
const ROUNDS: u32 = 5;

/// Each of the outcomes has its share, within 0.05 in one of some rounds, and there is no other in any.
#[track_caller]
pub(super) fn expect_shares(fixture: &Fixture, case: &str, wanted: &[(&str, f64)]) {
    expect_shares_of(case, wanted, || {
        let mut found = BTreeMap::new();
        for _ in 0..SHARED {
            *found.entry(fixture.ask("GET /").outcome()).or_default() += 1;
        }
        found
    });
}

/// The same for anything that a round counts, [`SHARED`] outcomes of it.
#[track_caller]
pub(super) fn expect_shares_of(
    case: &str,
    wanted: &[(&str, f64)],
    round: impl Fn() -> BTreeMap<String, u32>,
) {
    let mut found = BTreeMap::new();
    for _ in 0..ROUNDS {
        found = round();
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        let expected: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, expected, "{case}: {found:?}");
        let is_close = |(name, share): &(&str, f64)| {
            (f64::from(found[*name]) / f64::from(SHARED) - share).abs() <= 0.05
        };
        if wanted.iter().all(is_close) {
            return;
        }
    }
    panic!("{case}: {found:?}");
}
