//! TCPRoutes, with applications that say their name.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;

use super::fixture::{SHARED, conditions, expect_shares_of, replace};
use super::report::judging;
use crate::harness::{Mesh, Origin, Sidecar, connect, eventually, pause};

/// Ports of `t`. The last is not of TCP.
const PORTS: &str = "[ { name: one, port: 9301, protocol: tcp }, { name: two, port: 9302, protocol: tcp }, \
                     { name: three, port: 9303, protocol: tcp }, { name: four, port: 9304, protocol: tcp }, \
                     { name: web, port: 80, protocol: http } ]";

/// Those to which the client connects.
const CALLED: [u16; 4] = [9301, 9302, 9303, 9304];

/// `t`, which no workload serves, the backends `b1` and `b2` in its namespace, `b3` in another, and a client.
struct Connections {
    mesh: Mesh,
    client: Sidecar,
    _served: Vec<Sidecar>,
    _applications: Vec<Origin>,
}

impl Connections {
    fn start() -> Self {
        let mesh = Mesh::start();
        mesh.apply(&services());
        let (mut served, mut applications) = (Vec::new(), Vec::new());
        for (name, namespace) in [("b1", "shop"), ("b2", "shop"), ("b3", "web")] {
            let application = Origin::raw(mesh.address(), move |mut tap| {
                tap.write_all(format!("{name}\n").as_bytes())?;
                // The client ends the connection.
                tap.read(&mut [0]).map(drop)
            });
            let plan = mesh.sidecar_of(namespace, name);
            let plan = plan.serves(&format!("{name}:9000"), application.address);
            served.push(plan.start());
            applications.push(application);
        }
        let client = CALLED
            .iter()
            .fold(mesh.sidecar("client"), |plan, port| {
                plan.calls(&format!("t:{port}"))
            })
            .start();
        Self {
            mesh,
            client,
            _served: served,
            _applications: applications,
        }
    }

    /// Puts these beside the Services, in place of those of the case before.
    #[track_caller]
    fn apply(&self, resources: &[String]) -> String {
        replace(&self.mesh, &(services() + &resources.concat()))
    }

    /// The backend that a connection to a port of `t` reaches; `refused` if it ends without a byte.
    fn reached(&self, port: u16) -> String {
        let address: SocketAddr = self.client.listener(&format!("t:{port}"));
        let mut text = String::new();
        let mut bytes = [0; 16];
        if let Ok(mut stream) = connect(address) {
            while let Ok(read @ 1..) = stream.read(&mut bytes) {
                text += &String::from_utf8_lossy(&bytes[..read]);
                if text.ends_with('\n') {
                    return text.trim_end().to_owned();
                }
            }
        }
        assert_eq!(text, "", "part of a name");
        "refused".to_owned()
    }

    /// Waits until the endpoints of a backend are known to the client.
    #[track_caller]
    fn soon(&self, case: &str, port: u16, wanted: &str) {
        eventually(&format!("{case}: port {port} leads to {wanted}"), || {
            self.reached(port) == wanted
        });
    }

    #[track_caller]
    fn expect(&self, case: &str, rows: &[(u16, &str)]) {
        for (port, wanted) in rows {
            self.soon(case, *port, wanted);
        }
        for (port, wanted) in rows {
            for _ in 0..5 {
                assert_eq!(self.reached(*port), *wanted, "{case}: port {port}");
            }
        }
    }

    #[track_caller]
    fn expect_conditions(&self, case: &str, name: &str, accepted: &str, resolved: &str) {
        let found = conditions(&self.mesh, "tcproute", name, "shop");
        let shown = |kind: &str| found.get(kind).map(String::as_str);
        assert_eq!(shown("Accepted"), Some(accepted), "{case}: {found:?}");
        assert_eq!(shown("ResolvedRefs"), Some(resolved), "{case}: {found:?}");
    }
}

const ACCEPTED: &str = "True Accepted";
const RESOLVED: &str = "True ResolvedRefs";

fn services() -> String {
    let service = |name: &str, namespace: &str, ports: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{ name: {name}, namespace: {namespace} }}\n\
             spec: {{ ports: {ports} }}\n"
        )
    };
    let port = "[ { port: 9000, protocol: tcp } ]";
    [
        service("t", "shop", PORTS),
        service("b1", "shop", port),
        service("b2", "shop", port),
        service("b3", "web", port),
    ]
    .concat()
}

/// A TCPRoute for what `parent` says of `t`.
fn route(name: &str, parent: &str, backends: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {{ name: {name}, namespace: shop }}\n\
         spec:\n  parentRefs: [ {{ group: \"\", kind: Service, name: t{parent} }} ]\n  \
         rules: [ {{ backendRefs: [ {backends} ] }} ]\n"
    )
}

fn to(name: &str) -> String {
    format!("{{ name: {name}, port: 9000 }}")
}

#[test]
fn t1_connections_are_shared_by_weight() {
    let _judging = judging();
    let connections = Connections::start();
    // T1.
    let weighed =
        |name: &str, weight: u32| format!("{{ name: {name}, port: 9000, weight: {weight} }}");
    let backends = [weighed("b1", 70), weighed("b2", 30), weighed("b4", 0)].join(", ");
    // First each alone, until its endpoint is known.
    for name in ["b1", "b2"] {
        connections.apply(&[route("r", ", port: 9301", &to(name))]);
        connections.soon("T1", 9301, name);
    }
    connections.apply(&[route("r", ", port: 9301", &backends)]);
    let round = || {
        let mut found = BTreeMap::new();
        for _ in 0..SHARED {
            *found.entry(connections.reached(9301)).or_default() += 1;
        }
        found
    };
    expect_shares_of("T1", &[("b1", 0.7), ("b2", 0.3)], round);
    connections.expect_conditions("T1", "r", ACCEPTED, "False BackendNotFound");
}

#[test]
fn t2_t3_t4_t8_a_route_acts_on_the_ports_that_it_names_and_of_several_the_oldest_acts() {
    let _judging = judging();
    let connections = Connections::start();
    // T2.
    connections.apply(&[route("r", "", &to("b1"))]);
    connections.expect("T2", &CALLED.map(|port| (port, "b1")));
    connections.expect_conditions("T2", "r", ACCEPTED, RESOLVED);
    // T3: by port, by name, and by both. The fourth port has no route and no endpoint.
    let three = "{ name: b3, namespace: web, port: 9000 }";
    connections.apply(&[
        route("a", ", port: 9301", &to("b1")),
        route("b", ", sectionName: two", &to("b2")),
        route("c", ", sectionName: three, port: 9303", three),
    ]);
    let rows = [(9301, "b1"), (9302, "b2"), (9303, "b3"), (9304, "refused")];
    connections.expect("T3", &rows);
    // T4: the older one acts, whatever its name is. Ages are in whole seconds.
    let older = route("z", ", port: 9301", &to("b1"));
    connections.apply(std::slice::from_ref(&older));
    connections.expect("T4", &[(9301, "b1")]);
    pause(std::time::Duration::from_millis(1100));
    connections.apply(&[older, route("a", ", port: 9301", &to("b2"))]);
    for _ in 0..100 {
        assert_eq!(connections.reached(9301), "b1", "T4");
    }
    for name in ["z", "a"] {
        connections.expect_conditions("T4", name, ACCEPTED, RESOLVED);
    }
    // T8: on a port of another protocol.
    connections.apply(&[route("r", ", sectionName: web", &to("b1"))]);
    connections.expect_conditions("T8", "r", "False NoMatchingParent", RESOLVED);
}

#[test]
fn t5_t6_t7_a_backend_that_leads_nowhere_is_refused_and_one_of_another_namespace_needs_a_grant_where_asked()
 {
    let _judging = judging();
    let connections = Connections::start();
    // T5.
    connections.apply(&[route("r", ", port: 9301", &to("nonexistent"))]);
    connections.expect("T5", &[(9301, "refused")]);
    connections.expect_conditions("T5", "r", ACCEPTED, "False BackendNotFound");
    // T6: in a mesh no grant is needed.
    let across = route(
        "r",
        ", port: 9301",
        "{ name: b3, namespace: web, port: 9000 }",
    );
    connections.apply(std::slice::from_ref(&across));
    connections.expect("T6", &[(9301, "b3")]);
    connections.expect_conditions("T6", "r", ACCEPTED, RESOLVED);
    // T7: unless the mesh asks for one.
    connections.mesh.apply(
        "---\napiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: { name: mesh }\n\
         spec: { requireReferenceGrants: true }\n",
    );
    connections.expect("T7", &[(9301, "refused")]);
    connections.expect_conditions("T7", "r", ACCEPTED, "False RefNotPermitted");
    let grant = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: { name: g, namespace: web }\n\
                 spec:\n  from: [ { group: gateway.networking.k8s.io, kind: TCPRoute, namespace: shop } ]\n  \
                 to: [ { group: \"\", kind: Service } ]\n";
    connections.apply(&[across.clone(), grant.to_owned()]);
    connections.expect("T7", &[(9301, "b3")]);
    connections.expect_conditions("T7", "r", ACCEPTED, RESOLVED);
    connections.apply(&[across]);
    connections.expect("T7", &[(9301, "refused")]);
    connections.expect_conditions("T7", "r", ACCEPTED, "False RefNotPermitted");
}
