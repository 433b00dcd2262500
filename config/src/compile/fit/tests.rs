//! The tables that each kind of sidecar gets for the same resources.

use super::*;
use crate::compile::tests::set;
use crate::compile::{Endpoints, Plan, Served, Sidecar};
use crate::table::{Ban, Endpoint, Revision};

const MESH: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: front, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: behind, namespace: shop }
spec: { callers: RouteOnly, ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: judged, namespace: shop }
spec: { pathCase: insensitive, ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: careless, namespace: shop }
spec: { pathCase: insensitive, ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: dual, namespace: shop }
spec: { ports: [ { port: 80, protocol: http, appProtocol: kubernetes.io/h2c } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: closed, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: moving, namespace: shop }
spec: { mutualTls: Permissive, ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: judged } ]
  action: Deny
  to: [ { paths: ["/admin/*"] } ]
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: closed, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: closed } ]
  action: Deny
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: front, namespace: shop }
spec:
  parentRefs: [ { group: '', kind: Service, name: front } ]
  rules: [ { backendRefs: [ { name: behind, port: 80 } ] } ]
"#;

fn name(text: &str) -> ServiceName {
    ServiceName::parse_in("shop", text).unwrap()
}

fn told(features: Features, serves: &[&str]) -> Fitted {
    let revision = Revision {
        store: "s".into(),
        number: 1,
    };
    let plan = Plan::new(revision, "demo.test".parse().unwrap(), &set(MESH));
    let identity = "spiffe://demo.test/ns/shop/sa/all".parse().unwrap();
    let sidecar = Sidecar {
        identity,
        listens_for: [name("closed")].into(),
        serves: serves.iter().map(|text| name(text)).collect(),
        features,
    };
    let withdrawn = Served {
        absence: Absence::Withdrawn,
        ..Served::default()
    };
    let endpoint = Endpoint {
        workload: "w".into(),
        address: "10.0.0.1:6143".parse().unwrap(),
        identity: "spiffe://demo.test/ns/shop/sa/front".parse().unwrap(),
        locality: None,
        details: Details::default(),
    };
    let endpoints = Endpoints::from([
        ((name("behind"), 80), withdrawn),
        ((name("front"), 80), vec![endpoint].into()),
    ]);
    plan.fitted(&plan.scope(&sidecar), &endpoints)
}

const ALL: [&str; 4] = ["front", "behind", "judged", "careless"];

fn lacking(feature: Feature) -> Features {
    let others = Feature::ALL.into_iter().filter(|one| *one != feature);
    others.collect()
}

fn is_closed(fitted: &Fitted, service: &str) -> bool {
    let service = &fitted.table.services[&name(service)];
    let authorization = service.authorization.as_ref().unwrap();
    let denies_all = |rule: &Rule| {
        let Rule {
            action,
            principals,
            methods,
            paths,
            ..
        } = rule;
        *action == Action::Deny && principals.is_none() && methods.is_none() && paths.is_none()
    };
    authorization.default == Default::Deny && authorization.rules.iter().all(denies_all)
}

fn withheld(fitted: &Fitted) -> Vec<(&str, &str)> {
    let all = fitted.withheld.iter();
    all.map(|one| (one.resource.as_str(), one.feature.as_str()))
        .collect()
}

#[test]
fn a_sidecar_with_all_features_gets_the_whole_table() {
    let fitted = told(Features::all(), &ALL);
    assert_eq!(fitted.withheld, []);
    let of = |service: &str| &fitted.table.services[&name(service)];
    let behind = of("behind").authorization.as_ref().unwrap();
    assert_eq!(behind.parents, Some([name("front")].into()));
    assert_eq!(of("behind").ports[&80].absence, Absence::Withdrawn);
    assert!(
        !of("judged")
            .authorization
            .as_ref()
            .unwrap()
            .path_case
            .is_sensitive()
    );
    assert!(
        !of("careless")
            .authorization
            .as_ref()
            .unwrap()
            .path_case
            .is_sensitive()
    );
    let ban = &fitted.table.forbidden[&name("closed")].ban;
    assert_eq!(
        *ban,
        Ban::DeniedBy("AuthorizationPolicy/shop/closed".into())
    );
}

#[test]
fn an_unsupported_restriction_closes_its_service_and_no_other() {
    let fitted = told(lacking(Feature::RouteOnly), &ALL);
    assert_eq!(withheld(&fitted), [("Service/shop/behind", "route-only")]);
    assert_eq!(
        fitted.withheld[0].to_string(),
        "Service/shop/behind needs route-only, which this sidecar does not know: it refuses every call to behind.shop"
    );
    assert!(is_closed(&fitted, "behind"));
    let whole = told(Features::all(), &ALL);
    for service in ["front", "judged", "careless"] {
        let of = |fitted: &Fitted| fitted.table.services[&name(service)].clone();
        assert_eq!(of(&fitted), of(&whole), "{service}");
    }
}

#[test]
fn the_case_of_paths_closes_a_service_only_where_a_rule_judges_paths() {
    let fitted = told(lacking(Feature::PathCase), &ALL);
    assert_eq!(withheld(&fitted), [("Service/shop/judged", "path-case")]);
    assert!(is_closed(&fitted, "judged"));
    assert!(!is_closed(&fitted, "careless"));
    let careless = &fitted.table.services[&name("careless")];
    assert!(
        careless
            .authorization
            .as_ref()
            .unwrap()
            .path_case
            .is_sensitive()
    );
}

#[test]
fn a_sidecar_that_does_not_decide_about_a_service_lacks_nothing_of_it() {
    assert_eq!(told(Features::none(), &["front"]).withheld, []);
    // It decides about the parents of the services that it serves, too.
    let of_behind = told(Features::none(), &["behind"]);
    assert_eq!(
        withheld(&of_behind),
        [("Service/shop/behind", "route-only")]
    );
}

#[test]
fn explanations_are_left_out_and_not_mentioned() {
    let words = [Feature::Bans, Feature::Absence];
    for feature in words {
        assert_eq!(feature.about().loss, Loss::Words);
        assert_eq!(told(lacking(feature), &ALL).withheld, [], "{feature}");
    }
    let fitted = told(lacking(Feature::Absence), &ALL);
    let mut ports = fitted
        .table
        .services
        .values()
        .flat_map(|one| one.ports.values());
    assert!(ports.all(|port| port.absence.is_never()));
}

#[test]
fn a_table_of_names_only_is_read_back_with_every_service_that_is_forbidden() {
    let fitted = told(Features::none(), &["front"]);
    let json = String::from_utf8(fitted.json().unwrap()).unwrap();
    assert!(json.contains(r#""forbidden":["closed.shop"]"#), "{json}");
    let read: Table = serde_json::from_str(&json).unwrap();
    assert_eq!(read.services, fitted.table.services);
    assert_eq!(read.forbidden[&name("closed")].ban, Ban::Unstated);
    let empty = json.replace(r#""forbidden":["closed.shop"]"#, r#""forbidden":[]"#);
    assert!(
        serde_json::from_str::<Table>(&empty)
            .unwrap()
            .forbidden
            .is_empty()
    );
    let wrong = json.replace(r#""forbidden":["closed.shop"]"#, r#""forbidden":7"#);
    let error = serde_json::from_str::<Table>(&wrong)
        .unwrap_err()
        .to_string();
    assert!(error.contains("as a map or a list of names"), "{error}");
}

#[test]
fn a_sidecar_that_serves_an_application_of_h2c_and_cannot_is_named_and_its_callers_are_not() {
    let fitted = told(Features::all(), &["dual"]);
    assert!(fitted.table.services[&name("dual")].ports[&80].h2c);
    let fitted = told(lacking(Feature::H2c), &["dual"]);
    assert!(!fitted.table.services[&name("dual")].ports[&80].h2c);
    assert_eq!(withheld(&fitted), [("Service/shop/dual", "h2c")]);
    let fitted = told(lacking(Feature::H2c), &[]);
    assert!(!fitted.table.services[&name("dual")].ports[&80].h2c);
    assert_eq!(withheld(&fitted), []);
}

#[test]
fn only_a_sidecar_that_serves_is_told_to_take_callers_without_mutual_tls_and_named_if_it_cannot() {
    let takes = |fitted: &Fitted| {
        let authorization = &fitted.table.services[&name("moving")].authorization;
        authorization.as_ref().map(|one| one.plaintext)
    };
    let fitted = told(Features::all(), &["moving"]);
    assert_eq!(takes(&fitted), Some(true));
    assert_eq!(takes(&told(Features::all(), &[])), None);
    let strict = &told(Features::all(), &["front"]).table.services[&name("front")];
    assert!(!strict.authorization.as_ref().unwrap().plaintext);
    let fitted = told(lacking(Feature::Plaintext), &["moving"]);
    assert_eq!(takes(&fitted), Some(false));
    assert!(!is_closed(&fitted, "moving"), "peers may call it as before");
    assert_eq!(withheld(&fitted), [("Service/shop/moving", "plaintext")]);
    assert!(
        !String::from_utf8(fitted.json().unwrap())
            .unwrap()
            .contains("plaintext")
    );
    assert_eq!(told(lacking(Feature::Plaintext), &[]).withheld, []);
}

#[test]
fn details_of_endpoints_are_left_out_for_sidecars_that_do_not_know_them() {
    let with = |features| {
        let revision = Revision {
            store: "s".into(),
            number: 1,
        };
        let plan = Plan::new(revision, "demo.test".parse().unwrap(), &set(MESH));
        let sidecar = Sidecar {
            identity: "spiffe://demo.test/ns/shop/sa/all".parse().unwrap(),
            listens_for: [].into(),
            serves: [].into(),
            features,
        };
        let details = serde_json::from_str(r#"{"weight":7,"metadata":{"a":"b"}}"#).unwrap();
        let endpoint = Endpoint {
            workload: "w".into(),
            address: "10.0.0.1:6143".parse().unwrap(),
            identity: "spiffe://demo.test/ns/shop/sa/front".parse().unwrap(),
            locality: None,
            details,
        };
        let endpoints = Endpoints::from([((name("front"), 80), vec![endpoint].into())]);
        let fitted = plan.fitted(&plan.scope(&sidecar), &endpoints);
        assert_eq!(fitted.withheld, []);
        fitted.table.services[&name("front")].ports[&80].endpoints[0]
            .details
            .clone()
    };
    assert_eq!(with(Features::all()).weight.get(), 7);
    let lacking = with(lacking(Feature::EndpointDetails));
    assert_eq!(lacking, Details::default());
}
