//! Compiling, seen through the tables that come out: routes, policies, endpoints, visibility.

use super::*;
use crate::resources::{SourceFile, parse};
use crate::table::{Details, Table};

const MESH: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: orders, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: orders-v1, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: open, namespace: shop }
spec: { ports: [ { port: 5432, protocol: tcp } ] }
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: callers, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: orders }, { kind: Service, name: orders-v1 } ]
  action: Allow
  from: [ { principals: ["spiffe://demo.test/ns/shop/sa/frontend"] } ]
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: banned, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: open } ]
  action: Deny
  from: [ { principals: ["spiffe://demo.test/ns/shop/sa/banned"] } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [ { group: '', kind: Service, name: orders } ]
  rules:
    - backendRefs: [ { name: orders-v1, port: 80 } ]
"#;

pub(super) fn set(text: &str) -> Set {
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

fn plan(text: &str) -> Plan {
    let revision = Revision {
        store: "s".into(),
        number: 1,
    };
    Plan::new(revision, "demo.test".parse().unwrap(), &set(text))
}

fn id(account: &str) -> SpiffeId {
    format!("spiffe://demo.test/ns/shop/sa/{account}")
        .parse()
        .unwrap()
}

fn name(text: &str) -> ServiceName {
    ServiceName::parse_in("shop", text).unwrap()
}

fn sidecar(account: &str, listens_for: &[&str], serves: &[&str]) -> Sidecar {
    Sidecar {
        identity: id(account),
        listens_for: listens_for.iter().map(|text| name(text)).collect(),
        serves: serves.iter().map(|text| name(text)).collect(),
        features: Features::all(),
    }
}

fn names(table: &Table) -> Vec<String> {
    table.services.keys().map(ToString::to_string).collect()
}

fn endpoints() -> Endpoints {
    let endpoint = Endpoint {
        workload: "w1".into(),
        address: "10.0.0.1:6143".parse().unwrap(),
        identity: id("orders-v1"),
        locality: None,
        details: Details::default(),
    };
    Endpoints::from([((name("orders-v1"), 80), vec![endpoint].into())])
}

#[test]
fn a_caller_sees_what_it_may_call_with_endpoints_and_without_policies() {
    let table = plan(MESH).table(&sidecar("frontend", &["orders"], &[]), &endpoints());
    assert_eq!(
        names(&table),
        ["open.shop", "orders.shop", "orders-v1.shop"]
    );
    let port = &table.services[&name("orders-v1")].ports[&80];
    assert_eq!(port.endpoints.len(), 1);
    assert!(
        table
            .services
            .values()
            .all(|service| service.authorization.is_none())
    );
    assert!(table.forbidden.is_empty());
}

#[test]
fn a_service_that_may_not_be_called_is_forbidden_if_a_listener_names_it_else_unknown() {
    let plan = plan(MESH);
    let table = plan.table(&sidecar("other", &["orders", "missing"], &[]), &endpoints());
    assert_eq!(names(&table), ["open.shop"]);
    let forbidden = &table.forbidden[&name("orders")];
    let policy = "AuthorizationPolicy/shop/callers".to_owned();
    assert_eq!(forbidden.ban, Ban::AllowedByNoneOf(vec![policy]));
    assert_eq!(forbidden.ports, [(80, table::Protocol::Http)].into());
    assert_eq!(table.forbidden.len(), 1);
    let table = plan.table(&sidecar("other", &[], &[]), &endpoints());
    assert!(table.forbidden.is_empty());
}

#[test]
fn a_deny_of_the_whole_service_hides_it() {
    let table = plan(MESH).table(&sidecar("banned", &["open"], &[]), &endpoints());
    assert!(names(&table).is_empty());
    let forbidden = &table.forbidden[&name("open")];
    let policy = "AuthorizationPolicy/shop/banned".to_owned();
    assert_eq!(forbidden.ban, Ban::DeniedBy(policy));
    // Its client gets a refusal that it can read.
    assert_eq!(forbidden.ports, [(5432, table::Protocol::Tcp)].into());
}

#[test]
fn a_serving_sidecar_gets_its_policies_and_those_of_the_routes_parents_but_no_endpoints() {
    let table = plan(MESH).table(&sidecar("orders-v1", &[], &["orders-v1"]), &endpoints());
    assert_eq!(
        names(&table),
        ["open.shop", "orders.shop", "orders-v1.shop"]
    );
    for service in ["orders", "orders-v1"] {
        let service = &table.services[&name(service)];
        let authorization = service.authorization.as_ref().unwrap();
        assert_eq!(authorization.default, table::Default::Deny);
        assert_eq!(
            authorization.rules[0].policy,
            "AuthorizationPolicy/shop/callers"
        );
        assert!(service.ports[&80].endpoints.is_empty() && service.ports[&80].routes.is_empty());
    }
    assert!(table.services[&name("open")].authorization.is_none());
}

#[test]
fn the_mesh_default_closes_services_without_policy() {
    let closed = MESH.to_owned()
        + "---\napiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\n\
           spec: {defaultAuthorization: Deny}\n";
    let table = plan(&closed).table(&sidecar("frontend", &[], &[]), &endpoints());
    assert_eq!(names(&table), ["orders.shop", "orders-v1.shop"]);
}

#[test]
fn an_audit_policy_opens_and_closes_nothing() {
    let audited = MESH.to_owned()
        + "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
           metadata: {name: audit, namespace: shop}\n\
           spec: {targetRefs: [{kind: Service, name: orders}], action: Audit}\n";
    let table = plan(&audited).table(&sidecar("other", &[], &[]), &endpoints());
    assert_eq!(names(&table), ["open.shop"]);
}

#[test]
fn routes_are_tried_in_the_order_of_gateway_api() {
    let text = MESH.split("---").take(3).collect::<Vec<_>>().join("---")
        + r"---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: b, namespace: shop }
spec:
  parentRefs: [ { group: '', kind: Service, name: orders, port: 80 } ]
  rules:
    - { name: all, backendRefs: [ { name: orders, port: 80 } ] }
    - name: many
      matches:
        - { path: { value: /v2 } }
        - { path: { value: /v2/deep } }
        - { path: { value: /v2 }, headers: [ { name: Version, value: two } ] }
        - { path: { value: /v2 }, method: GET }
        - { path: { type: Exact, value: /v2 } }
      backendRefs: [ { name: orders-v1, port: 80 } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: a, namespace: shop }
spec:
  parentRefs: [ { group: '', kind: Service, name: orders, port: 80 } ]
  rules:
    - { matches: [ { path: { value: /v2 } } ], backendRefs: [ { name: orders, port: 80 } ] }
";
    let table = plan(&text).table(&sidecar("frontend", &[], &[]), &Endpoints::new());
    let order: Vec<String> = table.services[&name("orders")].ports[&80]
        .routes
        .iter()
        .map(|rule| match rule.matches.first() {
            None => format!("{} any", rule.route),
            Some(one) => format!(
                "{} {:?} {:?} {}",
                rule.route,
                one.path,
                one.method,
                one.headers.len()
            ),
        })
        .collect();
    assert_eq!(
        order,
        [
            "HTTPRoute/shop/b/many Some(Exact(\"/v2\")) None 0",
            "HTTPRoute/shop/b/many Some(Prefix(\"/v2/deep\")) None 0",
            "HTTPRoute/shop/b/many Some(Prefix(\"/v2\")) Some(\"GET\") 0",
            "HTTPRoute/shop/b/many Some(Prefix(\"/v2\")) None 1",
            "HTTPRoute/shop/a Some(Prefix(\"/v2\")) None 0",
            "HTTPRoute/shop/b/many Some(Prefix(\"/v2\")) None 0",
            "HTTPRoute/shop/b/all any",
        ]
    );
}

#[test]
fn a_table_survives_json_and_refuses_what_it_does_not_know() {
    let table = plan(MESH).table(
        &sidecar("orders-v1", &["orders"], &["orders-v1"]),
        &endpoints(),
    );
    let text = serde_json::to_string(&table).unwrap();
    assert_eq!(serde_json::from_str::<Table>(&text).unwrap(), table);
    let newer = text.replacen("\"action\":\"Allow\"", "\"action\":\"RateLimit\"", 1);
    assert_ne!(newer, text);
    assert!(serde_json::from_str::<Table>(&newer).is_err());
    let newer = text.replacen("\"policy\":", "\"when\":1,\"policy\":", 1);
    assert!(serde_json::from_str::<Table>(&newer).is_err());
}

#[test]
fn an_identity_may_serve_its_own_service_only() {
    let plan = plan(MESH);
    assert_eq!(plan.may_serve(&id("orders"), &name("orders")), Some(true));
    assert_eq!(plan.may_serve(&id("open"), &name("orders")), Some(false));
    assert_eq!(plan.may_serve(&id("open"), &name("missing")), None);
}

#[test]
fn a_service_that_only_routes_lead_to_knows_their_parents_and_every_service_how_it_takes_case() {
    let mesh = MESH.replace(
        "metadata: { name: orders-v1, namespace: shop }\nspec: {",
        "metadata: { name: orders-v1, namespace: shop }\nspec: { callers: RouteOnly, pathCase: insensitive,",
    );
    let plan = plan(&mesh);
    let serving = plan.table(
        &sidecar("orders-v1", &[], &["orders-v1"]),
        &Endpoints::new(),
    );
    let authorization = |service| {
        let service = &serving.services[&name(service)];
        service.authorization.clone().unwrap()
    };
    let backend = authorization("orders-v1");
    assert_eq!(backend.parents, Some(BTreeSet::from([name("orders")])));
    assert_eq!(backend.path_case, table::PathCase::Insensitive);
    let parent = authorization("orders");
    assert_eq!(parent.parents, None);
    assert_eq!(parent.path_case, table::PathCase::Sensitive);
}

#[test]
fn workloads_are_endpoints_of_services_that_their_identity_may_serve_and_of_no_others() {
    let workload = |name: &str, account: &str, service: &str, port: u16| {
        format!(
            "\n---\napiVersion: weft.dev/v1alpha1\nkind: Workload\n\
             metadata: {{name: {name}, namespace: shop}}\nspec:\n  address: \"10.0.0.7:6143\"\n  \
             identity: spiffe://demo.test/ns/shop/sa/{account}\n  \
             services: [{{name: {service}, port: {port}}}]\n  weight: 50\n  locality: eu/a\n"
        )
    };
    let text = MESH.to_owned()
        + &workload("one", "orders-v1", "orders-v1", 80)
        + &workload("stranger", "orders", "orders-v1", 80)
        + &workload("no-port", "orders-v1", "orders-v1", 81)
        + &workload("no-service", "orders-v1", "missing", 80);
    let plan = plan(&text);
    let found: Vec<_> = plan.workloads().collect();
    let [((service, port), endpoint)] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!((service, *port), (&name("orders-v1"), 80));
    assert_eq!(endpoint.workload, "Workload/shop/one");
    assert_eq!(endpoint.identity, id("orders-v1"));
    assert_eq!(endpoint.details.weight.get(), 50);
    assert!(endpoint.locality.is_some());
}
