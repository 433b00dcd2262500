//! What a sidecar that does not know all of routes is told: never a way to a backend that the resources do
//! not have.

use super::*;
use crate::compile::tests::set;
use crate::compile::{Endpoints, Fitted, Plan, Sidecar};
use crate::table::{Details, Endpoint, Revision};

const MESH: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: front, namespace: shop }
spec: { ports: [ { port: 80, protocol: http }, { port: 9090, protocol: tcp } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: back, namespace: shop }
spec: { ports: [ { port: 80, protocol: http }, { port: 9090, protocol: tcp } ] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r, namespace: shop }
spec:
  parentRefs: [ { group: "", kind: Service, name: front } ]
  rules:
    - matches: [ { path: { value: /plain } } ]
      backendRefs: [ { name: back, port: 80 } ]
    - matches: [ { path: { value: /query }, queryParams: [ { name: a, value: b } ] } ]
      backendRefs: [ { name: back, port: 80 } ]
    - matches: [ { path: { type: RegularExpression, value: "/p.*" }, method: GET } ]
      backendRefs: [ { name: back, port: 80 } ]
    - matches: [ { path: { value: /host }, headers: [ { name: host, value: a }, { name: x, value: y } ] } ]
      backendRefs: [ { name: back, port: 80 } ]
    - matches: [ { path: { value: /filter } } ]
      filters: [ { type: RequestHeaderModifier, requestHeaderModifier: { remove: [ x-admin ] } } ]
      backendRefs: [ { name: back, port: 80 } ]
    - matches: [ { path: { value: /broken } } ]
      backendRefs: [ { name: back, port: 9090 }, { name: back, port: 80 } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: { name: t, namespace: shop }
spec:
  parentRefs: [ { group: "", kind: Service, name: front } ]
  rules: [ { backendRefs: [ { name: back, port: 9090 } ] } ]
"#;

fn told(features: Features) -> Fitted {
    told_of(MESH, features)
}

fn told_of(text: &str, features: Features) -> Fitted {
    let revision = Revision {
        store: "s".into(),
        number: 1,
    };
    let plan = Plan::new(revision, "demo.test".parse().unwrap(), &set(text));
    let sidecar = Sidecar {
        identity: "spiffe://demo.test/ns/shop/sa/caller".parse().unwrap(),
        listens_for: [].into(),
        serves: [].into(),
        features,
    };
    let endpoint = Endpoint {
        workload: "w".into(),
        address: "10.0.0.1:6143".parse().unwrap(),
        identity: "spiffe://demo.test/ns/shop/sa/front".parse().unwrap(),
        locality: None,
        details: Details::default(),
    };
    let endpoints =
        Endpoints::from([(("front.shop".parse().unwrap(), 9090), vec![endpoint].into())]);
    plan.fitted(&plan.scope(&sidecar), &endpoints)
}

fn lacking(feature: Feature) -> Features {
    let others = Feature::ALL.into_iter().filter(|one| *one != feature);
    others.collect()
}

fn rules(fitted: &Fitted) -> Vec<RouteRule> {
    let front = &fitted.table.services[&"front.shop".parse().unwrap()];
    front.ports[&80].routes.clone()
}

/// The rules that lead somewhere, by the end of their names.
fn led(fitted: &Fitted) -> Vec<String> {
    let rules = rules(fitted).into_iter();
    let some = rules.filter(|rule| !rule.backends.is_empty());
    let mut names: Vec<String> = some
        .map(|rule| rule.route.rsplit('/').next().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_rule_whose_conditions_cannot_be_told_keeps_the_others_and_leads_nowhere() {
    let whole = told(Features::all());
    assert_eq!(whole.withheld, []);
    assert_eq!(led(&whole), ["0", "1", "2", "3", "4", "5"]);
    let fitted = told(lacking(Feature::RouteConditions));
    assert_eq!(led(&fitted), ["0", "4", "5"]);
    assert_eq!(
        fitted
            .withheld
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [
            "HTTPRoute/shop/r needs route-conditions, which this sidecar does not know: requests to front.shop:80 that \
          it takes get an error"
        ]
    );
    let (before, after) = (rules(&whole), rules(&fitted));
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.route, after.route);
        assert!(!has_conditions(after));
        // What the rule took, it still takes.
        let (before, after) = (&before.matches[0], &after.matches[0]);
        assert_eq!(before.method, after.method);
        assert!(after.headers.iter().all(|one| before.headers.contains(one)));
        assert!(after.path.is_none() || after.path == before.path);
    }
}

#[test]
fn a_rule_whose_filters_cannot_be_told_leads_nowhere() {
    let fitted = told(lacking(Feature::RouteFilters));
    assert_eq!(led(&fitted), ["0", "1", "2", "3", "5"]);
    assert!(rules(&fitted).iter().all(|rule| !has_filters(rule)));
    assert_eq!(fitted.withheld.len(), 1);
    assert_eq!(fitted.withheld[0].feature, "route-filters");
}

#[test]
fn the_least_wait_of_a_retry_is_not_told_where_it_is_not_known() {
    let text = MESH.replacen("  rules:\n", "  rules:\n    - retry: { attempts: 1, backoff: 200ms }\n      backendRefs: [ { name: back, port: 80 } ]\n", 1);
    let least = |fitted: &Fitted| {
        let waits = rules(fitted)
            .into_iter()
            .map(|rule| rule.traffic.retry.backoff.at_least);
        waits.max().unwrap_or_default()
    };
    let all = told_of(&text, Features::all());
    assert_eq!(least(&all), Duration::from_millis(200));
    let older = told_of(&text, lacking(Feature::LeastBackoff));
    assert_eq!((least(&older), older.withheld), (Duration::ZERO, vec![]));
}

#[test]
fn retries_of_a_rule_are_those_of_a_policy_where_they_are_not_told_apart() {
    let text = MESH.replacen(
        "  rules:\n",
        "  rules:\n    - retry: { attempts: 1 }\n      backendRefs: [ { name: back, port: 80 } ]\n",
        1,
    );
    let told = |features| {
        let fitted = told_of(&text, features);
        let of_rule = rules(&fitted)
            .into_iter()
            .filter(|rule| rule.traffic.retry.of_rule);
        (of_rule.count(), fitted.withheld)
    };
    assert_eq!(told(Features::all()), (1, vec![]));
    assert_eq!(told(lacking(Feature::RuleRetry)), (0, vec![]));
}

#[test]
fn the_share_of_a_broken_backend_goes_nowhere_in_an_older_sidecar_either() {
    let fitted = told(lacking(Feature::BrokenBackends));
    assert_eq!(fitted.withheld, []);
    let rules = rules(&fitted);
    let rule = rules
        .iter()
        .find(|rule| rule.route.ends_with("/5"))
        .unwrap();
    let ports: Vec<u16> = rule.backends.iter().map(|backend| backend.port).collect();
    assert_eq!(ports, [0, 80]);
    assert!(!has_broken(rule));
}

#[test]
fn a_port_whose_tcp_routes_cannot_be_told_takes_no_connection() {
    let port = |fitted: &Fitted| {
        let front = &fitted.table.services[&"front.shop".parse().unwrap()];
        front.ports[&9090].clone()
    };
    let whole = port(&told(Features::all()));
    assert_eq!((whole.routes.len(), whole.endpoints.len()), (1, 1));
    let fitted = told(lacking(Feature::TcpRoutes));
    let lacks = port(&fitted);
    assert_eq!((lacks.routes.len(), lacks.endpoints.len()), (0, 0));
    assert_eq!(fitted.withheld[0].resource, "TCPRoute/shop/t");
}

#[test]
fn a_port_whose_tls_routes_cannot_be_told_takes_no_connection() {
    let text = MESH.replace("kind: TCPRoute", "kind: TLSRoute").replace(
        "  rules: [ { backendRefs",
        "  hostnames: [ \"*.test\" ]\n  rules: [ { backendRefs",
    );
    let lacking = [Feature::TlsRoutes];
    let older: Features = Feature::ALL
        .into_iter()
        .filter(|one| !lacking.contains(one))
        .collect();
    let fitted = told_of(&text, older);
    let front = &fitted.table.services[&"front.shop".parse().unwrap()];
    let port = &front.ports[&9090];
    assert_eq!((port.routes.len(), port.endpoints.len()), (0, 0));
    assert_eq!(fitted.withheld[0].resource, "TLSRoute/shop/t");
    assert_eq!(fitted.withheld[0].feature, "tls-routes");
    let json = String::from_utf8(fitted.json().unwrap()).unwrap();
    assert!(!json.contains("\"hosts"), "{json}");
}

#[test]
fn a_sidecar_that_knows_nothing_of_this_can_read_its_table() {
    let json = String::from_utf8(told(Features::none()).json().unwrap()).unwrap();
    for word in ["query", "pattern", "broken", "filters"] {
        assert!(!json.contains(&format!("\"{word}")), "{word}: {json}");
    }
}
