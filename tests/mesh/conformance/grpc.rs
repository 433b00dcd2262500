//! GRPCRoutes, with grpcio on both sides.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::fixture::{SHARED, conditions, expect_shares_of, replace};
use super::report::judging;
use crate::harness::{Mesh, Need, Process, Sidecar, need, python, python_command};

/// Metadata of a call.
type Metadata<'a> = &'a [(&'a str, &'a str)];
/// Metadata that the application saw; none of it under names without a value.
type Seen<'a> = &'a [(&'a str, Option<&'a str>)];

/// `echo` with the workloads `v1` and `v2`, each of which is a Service of its own, too, and a client.
struct Calls {
    mesh: Mesh,
    client: Sidecar,
    _served: Vec<Sidecar>,
    _applications: Vec<Process>,
}

impl Calls {
    fn start() -> Self {
        let mesh = Mesh::start();
        mesh.apply(&services());
        let (mut served, mut applications) = (Vec::new(), Vec::new());
        for name in ["v1", "v2"] {
            let address = SocketAddr::from((mesh.address(), 50051));
            let mut command = python_command("grpc_stub.py");
            command.args(["serve", &address.to_string(), name]);
            let mut application =
                Process::spawn(&format!("stub-{name}"), mesh.folder(), &mut command);
            application.wait_for_line("serving");
            applications.push(application);
            let plan = mesh.sidecar(name).serves(&format!("{name}:7070"), address);
            served.push(plan.serves("echo:7070", address).start());
        }
        let client = mesh.sidecar("client").calls("echo:7070").start();
        client.wait_endpoints("echo:7070", 2);
        Self {
            mesh,
            client,
            _served: served,
            _applications: applications,
        }
    }

    /// Puts a GRPCRoute for port 7070 of `echo` in place of the one before; `rules` in YAML, one a line.
    #[track_caller]
    fn route(&self, rules: &str) {
        let route = format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{ name: r, namespace: shop }}\n\
             spec:\n  parentRefs: [ {{ group: \"\", kind: Service, name: echo, port: 7070 }} ]\n  rules:\n{rules}"
        );
        replace(&self.mesh, &(services() + &route));
    }

    /// Makes calls; each is a method of `pkg.Echo` and its metadata.
    #[track_caller]
    fn call(&self, calls: &[(&str, &[(&str, &str)])]) -> Vec<Called> {
        let calls = calls.iter().map(|(method, metadata)| {
            json!({ "method": format!("/pkg.Echo/{method}"), "metadata": metadata })
        });
        self.make(&calls.collect())
    }

    #[track_caller]
    fn make(&self, calls: &Value) -> Vec<Called> {
        let address = self.client.listener("echo:7070").to_string();
        let found = python("grpc_stub.py", &["calls", &address, &calls.to_string()]);
        let found = found.as_array().unwrap().iter();
        found.map(|one| Called(one.clone())).collect()
    }

    /// How often each outcome came.
    fn share(&self) -> BTreeMap<String, u32> {
        let calls = json!([{ "method": "/pkg.Echo/Echo", "count": SHARED }]);
        let called = self.make(&calls).remove(0);
        serde_json::from_value(called.0["outcomes"].clone()).unwrap()
    }

    #[track_caller]
    fn expect(&self, case: &str, rows: &[(&str, Metadata<'_>, &str)]) {
        let calls: Vec<_> = rows
            .iter()
            .map(|(method, metadata, _)| (*method, *metadata))
            .collect();
        for ((method, metadata, wanted), called) in rows.iter().zip(self.call(&calls)) {
            assert_eq!(
                called.outcome(),
                *wanted,
                "{case}: {method} {metadata:?}: {called:?}"
            );
        }
    }

    #[track_caller]
    fn expect_conditions(&self, case: &str, accepted: &str, resolved: &str) {
        let found = conditions(&self.mesh, "grpcroute", "r", "shop");
        let shown = |kind: &str| found.get(kind).map(String::as_str);
        assert_eq!(shown("Accepted"), Some(accepted), "{case}: {found:?}");
        assert_eq!(shown("ResolvedRefs"), Some(resolved), "{case}: {found:?}");
    }
}

/// What came of calls, as `grpc_stub.py` says it.
#[derive(Debug)]
struct Called(Value);

impl Called {
    /// The application that answered, or the code.
    fn outcome(&self) -> &str {
        let outcomes = self.0["outcomes"].as_object().unwrap();
        assert_eq!(outcomes.len(), 1, "{self:?}");
        outcomes.keys().next().unwrap()
    }

    /// Metadata that the application saw.
    fn seen(&self, name: &str) -> Option<&str> {
        self.0["told"]["metadata"][name].as_str()
    }
}

fn services() -> String {
    let id = |name: &str| format!("\"spiffe://{}/ns/shop/sa/{name}\"", Mesh::DOMAIN);
    let service = |name: &str, identities: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\nspec:\n  \
             ports: [ {{ name: grpc, port: 7070, protocol: grpc }} ]\n  identities: [{identities}]\n"
        )
    };
    [
        service("echo", &format!("{}, {}", id("v1"), id("v2"))),
        service("v1", &id("v1")),
        service("v2", &id("v2")),
    ]
    .concat()
}

/// A rule for calls with these conditions.
fn rule(conditions: &str, to: &str) -> String {
    format!("  - {{ {conditions}backendRefs: [ {{ name: {to}, port: 7070 }} ] }}\n")
}

fn method(name: &str) -> String {
    format!("matches: [ {{ method: {{ service: pkg.Echo, method: {name} }} }} ], ")
}

#[test]
fn r1_r2_r3_x46_calls_are_matched_by_service_method_and_metadata() {
    if !need(&[Need::Python]) {
        return;
    }
    let _judging = judging();
    let calls = Calls::start();
    // R1.
    calls.route(&(rule(&method("Echo"), "v1") + &rule(&method("EchoTwo"), "v2")));
    let rows: [(&str, Metadata<'_>, &str); 3] = [
        ("Echo", &[], "v1"),
        ("EchoTwo", &[], "v2"),
        ("EchoThree", &[], "UNIMPLEMENTED"),
    ];
    calls.expect("R1", &rows);
    calls.expect_conditions("R1", "True Accepted", "True ResolvedRefs");
    // R3: the first rule has a name.
    let named = rule(&format!("name: named-rule, {}", method("Echo")), "v1");
    calls.route(&(named + &rule(&method("EchoTwo"), "v2")));
    calls.expect("R3", &rows[..2]);
    // X46: a longer service comes first, then a longer method, then more metadata.
    let only_service = "matches: [ { method: { service: pkg.Echo } } ], ";
    let only_method = "matches: [ { method: { method: EchoTwo } } ], ";
    let of_version = "matches: [ { method: { service: pkg.Echo, method: Echo }, headers: [ { name: version, value: one } ] } ], ";
    calls.route(
        &[
            rule(only_method, "v1"),
            rule(only_service, "v2"),
            rule(&method("Echo"), "v1"),
            rule(of_version, "v2"),
        ]
        .concat(),
    );
    let rows: [(&str, Metadata<'_>, &str); 3] = [
        ("EchoTwo", &[], "v2"),
        ("Echo", &[], "v1"),
        ("Echo", &[("version", "one")], "v2"),
    ];
    calls.expect("X46", &rows);
    // R2: metadata.
    let header = |name: &str, value: &str| format!("{{ name: {name}, value: {value} }}");
    let with = |headers: &[String]| {
        let each = headers
            .iter()
            .map(|one| format!("{{ headers: [ {one} ] }}"));
        format!("matches: [ {} ], ", each.collect::<Vec<_>>().join(", "))
    };
    let both = format!(
        "{}, {}",
        header("version", "two"),
        header("color", "orange")
    );
    let colors = |one: &str, other: &str| with(&[header("color", one), header("color", other)]);
    calls.route(
        &[
            rule(&with(&[header("version", "one")]), "v1"),
            rule(&with(&[header("version", "two")]), "v2"),
            rule(&with(&[both]), "v1"),
            rule(&colors("blue", "green"), "v1"),
            rule(&colors("red", "yellow"), "v2"),
        ]
        .concat(),
    );
    calls.expect(
        "R2",
        &[
            ("Echo", &[("version", "one")], "v1"),
            ("Echo", &[("version", "two")], "v2"),
            ("Echo", &[("version", "two"), ("color", "orange")], "v1"),
            ("Echo", &[("version", "two"), ("color", "blue")], "v2"),
            ("Echo", &[("color", "orange")], "UNIMPLEMENTED"),
            ("Echo", &[("some-other", "one")], "UNIMPLEMENTED"),
            ("Echo", &[("color", "blue")], "v1"),
            ("Echo", &[("color", "green")], "v1"),
            ("Echo", &[("color", "red")], "v2"),
            ("Echo", &[("color", "yellow")], "v2"),
            ("Echo", &[("color", "purple")], "UNIMPLEMENTED"),
        ],
    );
}

#[test]
fn m22_r4_metadata_is_set_added_and_removed() {
    if !need(&[Need::Python]) {
        return;
    }
    let _judging = judging();
    let calls = Calls::start();
    // M22, and R4 as the suite means it: there its rules have equal matches.
    let modify = |case: &str, says: &str, to: &str| {
        rule(
            &format!(
                "matches: [ {{ headers: [ {{ name: x-test-case, value: {case} }} ] }} ], \
                 filters: [ {{ type: RequestHeaderModifier, requestHeaderModifier: {{ {says} }} }} ], "
            ),
            to,
        )
    };
    let field = |name: &str, value: &str| format!("{{ name: {name}, value: {value} }}");
    let multi = format!(
        "set: [ {}, {} ], add: [ {}, {} ], remove: [ x-rm-1, x-rm-2 ]",
        field("x-set-1", "s1"),
        field("x-set-2", "s2"),
        field("x-add-1", "a1"),
        field("x-add-2", "a2"),
    );
    calls.route(
        &[
            modify("set", &format!("set: [ {} ]", field("x-set", "S")), "v1"),
            modify("add", &format!("add: [ {} ]", field("x-add", "A")), "v1"),
            modify("remove", "remove: [ x-rm ]", "v1"),
            modify("multi", &multi, "v2"),
        ]
        .concat(),
    );
    let case = |name: &'static str| ("x-test-case", name);
    let called = calls.call(&[
        ("Echo", &[case("set"), ("other", "o"), ("x-set", "old")]),
        ("Echo", &[case("add"), ("x-add", "old")]),
        ("Echo", &[case("remove"), ("x-rm", "r")]),
        (
            "Echo",
            &[
                case("multi"),
                ("x-set-2", "q"),
                ("x-add-2", "q"),
                ("x-rm-2", "r"),
            ],
        ),
    ]);
    let wanted: [(&str, Seen<'_>); 4] = [
        (
            "v1",
            &[
                ("x-test-case", Some("set")),
                ("other", Some("o")),
                ("x-set", Some("S")),
            ],
        ),
        ("v1", &[("x-add", Some("old,A"))]),
        ("v1", &[("x-rm", None)]),
        (
            "v2",
            &[
                ("x-set-1", Some("s1")),
                ("x-set-2", Some("s2")),
                ("x-add-1", Some("a1")),
                ("x-add-2", Some("q,a2")),
                ("x-rm-1", None),
                ("x-rm-2", None),
            ],
        ),
    ];
    for (called, (backend, metadata)) in called.iter().zip(wanted) {
        assert_eq!(called.outcome(), backend, "M22: {called:?}");
        for (name, value) in metadata {
            assert_eq!(called.seen(name), *value, "M22: {name}: {called:?}");
        }
    }
}

#[test]
fn m23_r5_r6_calls_are_shared_by_weight_and_a_broken_backend_is_unavailable() {
    if !need(&[Need::Python]) {
        return;
    }
    let _judging = judging();
    let calls = Calls::start();
    let split = |backends: &[(&str, u32)]| {
        let each = backends
            .iter()
            .map(|(name, weight)| format!("{{ name: {name}, port: 7070, weight: {weight} }}"));
        let all = each.collect::<Vec<_>>().join(", ");
        calls.route(&format!("  - {{ backendRefs: [ {all} ] }}\n"));
    };
    let shares = [("v1", 0.7), ("v2", 0.3)];
    // M23, R5: no Service v3 exists, and its weight is 0.
    split(&[("v1", 70), ("v2", 30), ("v3", 0)]);
    expect_shares_of("M23", &shares, || calls.share());
    calls.expect_conditions("M23", "True Accepted", "False BackendNotFound");
    // R6.
    split(&[("nonexistent", 1)]);
    calls.expect("R6", &[("Echo", &[], "UNAVAILABLE")]);
    calls.expect_conditions("R6", "True Accepted", "False BackendNotFound");
    // Its share is refused, and none of it goes to the other.
    split(&[("v1", 1), ("nonexistent", 1)]);
    let halves = [("UNAVAILABLE", 0.5), ("v1", 0.5)];
    expect_shares_of("R6", &halves, || calls.share());
}
