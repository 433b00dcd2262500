//! Services outside of the mesh, seen through the tables that come out.

use super::*;
use crate::compile::tests::set;
use crate::table::{Egress, Feature, Table};

const MESH: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: { name: mesh }
spec: { egress: Observe }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: rates, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: ExternalService
metadata: { name: vendor, namespace: shop }
spec:
  hosts: [ rates.vendor.example ]
  allowedRanges: [ 10.20.0.0/16 ]
  ports: [ { port: 443, protocol: http, tls: { caFile: /ca.pem } }, { port: 80, protocol: http } ]
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: vendor, namespace: shop }
spec:
  targetRefs: [ { kind: ExternalService, name: vendor } ]
  action: Allow
  from: [ { principals: ["spiffe://demo.test/ns/shop/sa/frontend"] } ]
  to: [ { methods: [GET] } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: rates, namespace: shop }
spec:
  parentRefs: [ { group: '', kind: Service, name: rates } ]
  rules: [ { backendRefs: [ { group: weft.dev, kind: ExternalService, name: vendor, port: 443 } ] } ]
"#;

fn name(text: &str) -> ServiceName {
    ServiceName::parse_in("shop", text).unwrap()
}

fn plan() -> Plan {
    let revision = Revision {
        store: "s".into(),
        number: 1,
    };
    Plan::new(revision, "demo.test".parse().unwrap(), &set(MESH))
}

fn sidecar(account: &str, features: Features) -> Sidecar {
    Sidecar {
        identity: format!("spiffe://demo.test/ns/shop/sa/{account}")
            .parse()
            .unwrap(),
        listens_for: BTreeSet::new(),
        serves: BTreeSet::new(),
        features,
    }
}

fn table(account: &str) -> Table {
    plan().table(&sidecar(account, Features::all()), &Endpoints::new())
}

#[test]
fn a_caller_learns_how_it_is_reached_and_decides_about_it_and_about_what_leads_there() {
    let table = table("frontend");
    let vendor = &table.services[&name("vendor")];
    let external = vendor.external.as_ref().unwrap();
    assert_eq!(external.hosts, ["rates.vendor.example"]);
    assert_eq!(external.tls.keys().collect::<Vec<_>>(), [&443]);
    assert_eq!(external.tls[&443].server_name, "rates.vendor.example");
    assert_eq!(external.tls[&443].roots.as_deref(), Some("/ca.pem"));
    assert!(vendor.ports.values().all(|port| port.endpoints.is_empty()));
    let rules = &vendor.authorization.as_ref().unwrap().rules;
    assert_eq!(rules[0].methods.as_deref(), Some(&["GET".to_owned()][..]));
    // Its route leads there, and no other sidecar sees the call.
    assert!(table.services[&name("rates")].authorization.is_some());
    assert!(table.services[&name("rates")].external.is_none());
    let rule = &table.services[&name("rates")].ports[&80].routes[0];
    assert_eq!(rule.backends[0].service, name("vendor"));
    assert_eq!(table.egress, Egress::Observe);
}

#[test]
fn one_that_may_not_call_it_is_told_only_that() {
    let table = table("other");
    assert!(!table.services.contains_key(&name("vendor")));
    let ban = &table.forbidden[&name("vendor")].ban;
    assert_eq!(ban.policy(), Some("AuthorizationPolicy/shop/vendor"));
    // What passes without an ExternalService must not pass it by.
    assert!(table.closed_hosts.contains("rates.vendor.example"));
    assert!(self::table("frontend").closed_hosts.is_empty());
}

#[test]
fn no_workload_may_serve_it() {
    let plan = plan();
    let own = "spiffe://demo.test/ns/shop/sa/vendor".parse().unwrap();
    assert_eq!(plan.may_serve(&own, &name("vendor")), Some(false));
    assert!(plan.servers(&name("vendor")).is_empty());
}

#[test]
fn a_sidecar_that_does_not_know_them_refuses_what_leaves_the_mesh_and_operators_see_it() {
    let plan = plan();
    let without = Feature::ALL
        .into_iter()
        .filter(|one| *one != Feature::ExternalServices);
    let old = sidecar("frontend", without.collect());
    let fitted = plan.fitted(&plan.scope(&old), &Endpoints::new());
    assert_eq!(fitted.table.egress, Egress::Deny);
    assert!(!fitted.table.services.contains_key(&name("vendor")));
    let told = String::from_utf8(fitted.json().unwrap()).unwrap();
    assert!(
        !told.contains("external") && !told.contains("egress"),
        "{told}"
    );
    let named: Vec<String> = fitted.withheld.iter().map(ToString::to_string).collect();
    assert_eq!(
        named,
        [
            "ExternalService/shop/vendor needs external-services, which this sidecar does not know: it knows no \
             vendor.shop, and refuses every call to it",
            "MeshConfig needs external-services, which this sidecar does not know: it refuses requests for names \
             outside of the mesh",
        ]
    );
}

/// The vendor, for all workloads, with a port of tcp, through `gate`.
fn mesh_with_gate() -> String {
    let gate = "---\napiVersion: weft.dev/v1alpha1\nkind: Service\n\
                metadata: { name: gate, namespace: shop }\n\
                spec: { ports: [ { port: 15, protocol: http }, { port: 16, protocol: tcp } ] }\n";
    let ports = "ports: [ { port: 443, protocol: http, tls: { caFile: /ca.pem } }, \
                 { port: 80, protocol: http } ]";
    let via = "via: { name: gate }\n  ports: [ { port: 443, protocol: http, tls: { caFile: /ca.pem } }, \
               { port: 5432, protocol: tcp } ]";
    format!("{}{gate}", MESH.replace(ports, via))
}

fn endpoint(number: u8) -> Endpoint {
    Endpoint {
        workload: format!("gate-{number}"),
        address: ([10, 0, 0, number], 1).into(),
        identity: "spiffe://demo.test/ns/shop/sa/gate".parse().unwrap(),
        locality: None,
        details: table::Details::default(),
    }
}

fn gated(account: &str, serves: &[&str], features: Features) -> Fitted {
    let revision = Revision {
        store: "s".into(),
        number: 1,
    };
    let set = set(&mesh_with_gate());
    let plan = Plan::new(revision, "demo.test".parse().unwrap(), &set);
    let endpoints = [(15, 1), (16, 2)]
        .map(|(port, number)| ((name("gate"), port), vec![endpoint(number)].into()));
    let sidecar = Sidecar {
        serves: serves.iter().map(|one| name(one)).collect(),
        ..sidecar(account, features)
    };
    plan.fitted(&plan.scope(&sidecar), &endpoints.into())
}

#[test]
fn a_caller_reaches_the_service_that_it_is_sent_through_and_learns_nothing_to_dial_by_itself() {
    let table = gated("frontend", &[], Features::all()).table;
    let vendor = &table.services[&name("vendor")];
    assert_eq!(vendor.ports[&443].endpoints, [endpoint(1)]);
    assert_eq!(vendor.ports[&5432].endpoints, [endpoint(2)]);
    // The sidecars of the other service decide.
    assert_eq!(vendor.authorization, None);
    let external = vendor.external.as_ref().unwrap();
    assert!(!external.is_sent_from_here());
    assert_eq!(external.hosts, ["rates.vendor.example"]);
    assert!(external.tls.is_empty() && external.allowed_ranges.is_empty());
    // It is no endpoint of its own, and the caller need not know the service.
    let other = gated("other", &[], Features::all()).table;
    assert!(!other.services.contains_key(&name("vendor")));
    assert!(other.forbidden.contains_key(&name("vendor")));
}

#[test]
fn only_the_sidecars_of_that_service_learn_how_it_is_reached_and_decide_about_all_callers() {
    let table = gated("gate", &["gate"], Features::all()).table;
    let vendor = &table.services[&name("vendor")];
    let external = vendor.external.as_ref().unwrap();
    let via = external.via.as_ref().unwrap();
    assert!(external.is_sent_from_here() && via.here);
    assert_eq!(via.ports, [(443, 15), (5432, 16)].into());
    assert_eq!(external.tls[&443].roots.as_deref(), Some("/ca.pem"));
    assert_eq!(external.allowed_ranges.len(), 1);
    assert!(vendor.ports[&443].endpoints.is_empty());
    let rules = &vendor.authorization.as_ref().unwrap().rules;
    assert!(rules[0].principals.is_some());
    // The route of a service leads there, whose policies hold, too.
    assert!(table.services[&name("rates")].authorization.is_some());
    let other = gated("rates", &["rates"], Features::all()).table;
    assert!(!other.services.contains_key(&name("vendor")));
}

#[test]
fn a_sidecar_that_would_send_it_outside_by_itself_is_told_nothing_of_it_and_lets_its_names_not_pass()
 {
    let without = Feature::ALL
        .into_iter()
        .filter(|one| *one != Feature::ExternalVia);
    let features: Features = without.collect();
    for (account, serves) in [("frontend", vec![]), ("gate", vec!["gate"])] {
        let fitted = gated(account, &serves, features);
        assert!(!fitted.table.services.contains_key(&name("vendor")));
        assert!(fitted.table.closed_hosts.contains("rates.vendor.example"));
        let told = String::from_utf8(fitted.json().unwrap()).unwrap();
        assert!(!told.contains("\"via\""), "{told}");
        let named: Vec<String> = fitted.withheld.iter().map(ToString::to_string).collect();
        assert_eq!(
            named,
            [
                "ExternalService/shop/vendor needs external-via, which this sidecar does not know: it knows no \
                 vendor.shop, and refuses every call to it"
            ]
        );
    }
}

#[test]
fn a_reference_that_leads_nowhere_does_not_open_a_way_past_it() {
    let revision = Revision {
        store: "s".into(),
        number: 1,
    };
    let set = set(&mesh_with_gate().replace("via: { name: gate }", "via: { name: gone }"));
    let plan = Plan::new(revision, "demo.test".parse().unwrap(), &set);
    let table = plan.table(&sidecar("frontend", Features::all()), &Endpoints::new());
    let vendor = &table.services[&name("vendor")];
    assert!(vendor.ports.values().all(|port| port.endpoints.is_empty()));
    assert!(!vendor.external.as_ref().unwrap().is_sent_from_here());
}
