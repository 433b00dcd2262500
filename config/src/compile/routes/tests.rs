//! Routes, seen through the tables that come out.

mod large;

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::super::tests::set;
use crate::compile::{Endpoints, Plan, Sidecar};
use crate::resources::Set;
use crate::table::{
    Asked, Broken, Features, PathChange, PathMatch, Revision, RouteRule, Router, Table,
};

/// Services of these names in a namespace, with ports 80 (http), 7070 (grpc) and 9090 (tcp).
fn services(namespace: &str, names: &[&str]) -> String {
    names.iter().fold(String::new(), |mut text, name| {
        write!(
            text,
            "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec:\n  ports:\n    - {{name: http, port: 80, protocol: http}}\n    \
             - {{name: grpc, port: 7070, protocol: grpc}}\n    - {{name: tcp, port: 9090, protocol: tcp}}\n---\n"
        )
        .unwrap();
        text
    })
}

/// A route; `rules` are lines of YAML below `rules:`.
fn route(kind: &str, namespace: &str, name: &str, parent: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, {parent}}}]\n  rules:\n{rules}---\n"
    )
}

fn mesh() -> String {
    services("mesh", &["echo", "v1", "v2", "v3"]) + &services("web", &["w"])
}

fn plan(set: &Set) -> Plan {
    let revision = Revision {
        store: "s".into(),
        number: 1,
    };
    Plan::new(revision, "demo.test".parse().unwrap(), set)
}

fn sidecar(namespace: &str, serves: &[&str]) -> Sidecar {
    Sidecar {
        identity: format!("spiffe://demo.test/ns/{namespace}/sa/client")
            .parse()
            .unwrap(),
        listens_for: [].into(),
        serves: serves.iter().map(|name| name.parse().unwrap()).collect(),
        features: Features::all(),
    }
}

fn table(text: &str, namespace: &str) -> Table {
    plan(&set(text)).table(&sidecar(namespace, &[]), &Endpoints::new())
}

fn rules(table: &Table, service: &str, port: u16) -> Vec<RouteRule> {
    let service = &table.services[&service.parse().unwrap()];
    service.ports[&port].routes.clone()
}

/// Where a request goes: the first backend of the first rule that takes it.
fn goes(rules: &[RouteRule], method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut fields = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::try_from(*name).unwrap();
        fields.append(name, HeaderValue::try_from(*value).unwrap());
    }
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let asked = Asked {
        method,
        path,
        query,
        authority: None,
        headers: &fields,
    };
    let mut found = rules.iter();
    match found.find(|rule| rule.matches(&asked)) {
        None => "404".to_owned(),
        Some(rule) => match rule.backends.first() {
            None => "500".to_owned(),
            Some(backend) => match backend.broken {
                Some(broken) => broken.as_str().to_owned(),
                None => backend.service.name.clone(),
            },
        },
    }
}

fn http(rules: &str) -> Vec<RouteRule> {
    let text = mesh() + &route("HTTPRoute", "mesh", "r", "name: echo, port: 80", rules);
    self::rules(&table(&text, "mesh"), "echo.mesh", 80)
}

#[test]
fn the_most_specific_match_of_all_rules_takes_a_request() {
    let to = |matches: &str, name: &str| {
        format!("  - matches: [{matches}]\n    backendRefs: [{{name: {name}, port: 80}}]\n")
    };
    // X4: exact beats everything.
    let rules = http(
        &(to(
            "{path: {type: PathPrefix, value: /a}, method: GET, headers: [{name: x, value: '1'}]}",
            "v2",
        ) + &to("{path: {type: Exact, value: /a}}", "v1")),
    );
    assert_eq!(goes(&rules, "GET", "/a", &[("x", "1")]), "v1");
    // X5: the longer prefix beats method and headers.
    let rules = http(
        &(to(
            "{path: {value: /a}, method: GET, headers: [{name: x, value: '1'}]}",
            "v2",
        ) + &to("{path: {value: /aa}}", "v1")),
    );
    assert_eq!(goes(&rules, "GET", "/aa", &[("x", "1")]), "v1");
    // X6: a method beats any number of headers.
    let rules = http(
        &(to(
            "{headers: [{name: x, value: '1'}, {name: y, value: '1'}]}",
            "v2",
        ) + &to("{method: GET}", "v1")),
    );
    assert_eq!(goes(&rules, "GET", "/", &[("x", "1"), ("y", "1")]), "v1");
    // X3: of equals the first rule.
    let rules = http(&(to("{method: GET}", "v1") + &to("{method: GET}", "v2")));
    assert_eq!(goes(&rules, "GET", "/", &[]), "v1");
    // X8: each match ranks alone.
    let rules = http(
        &(to("{path: {type: Exact, value: /a}}, {path: {value: /}}", "v1")
            + &to("{path: {value: /b}}", "v2")),
    );
    assert_eq!(goes(&rules, "GET", "/b", &[]), "v2");
    // An expression ranks between an exact path and a prefix.
    let rules = http(
        &(to("{path: {value: /abc}}", "v3")
            + &to("{path: {type: RegularExpression, value: /ab.*}}", "v2")
            + &to("{path: {type: Exact, value: /abc}}", "v1")),
    );
    let paths: Vec<bool> = rules
        .iter()
        .map(|rule| matches!(rule.matches[0].path, Some(PathMatch::Pattern(_))))
        .collect();
    assert_eq!(paths, [false, true, false]);
    assert_eq!(goes(&rules, "GET", "/abc", &[]), "v1");
}

#[test]
fn headers_rank_before_parameters_and_the_first_of_one_name_counts() {
    let rules = http(
        "  - matches: [{queryParams: [{name: p, value: '1'}, {name: q, value: '1'}, {name: p, value: '2'}]}]\n    \
         backendRefs: [{name: v2, port: 80}]\n  \
         - matches: [{headers: [{name: Foo, value: '1'}, {name: foo, value: '2'}]}]\n    \
         backendRefs: [{name: v1, port: 80}]\n",
    );
    assert_eq!(rules[0].backends[0].service.name, "v1");
    assert_eq!(rules[0].matches[0].headers, [("foo".into(), "1".into())]);
    let queries = &rules[1].matches[0].queries;
    assert_eq!(queries.len(), 2);
    assert_eq!(queries[0], ("p".into(), "1".into()));
}

#[test]
fn routes_of_one_group_merge_and_ties_go_by_the_text_of_their_names() {
    let of = |name: &str, to: &str| {
        let rules = format!("  - backendRefs: [{{name: {to}, port: 80}}]\n");
        route("HTTPRoute", "mesh", name, "name: echo", &rules)
    };
    let text = mesh() + &of("bb", "v2") + &of("aa", "v1");
    let merged = rules(&table(&text, "mesh"), "echo.mesh", 80);
    assert_eq!(merged.len(), 2);
    assert_eq!(goes(&merged, "GET", "/", &[]), "v1");
    assert_eq!(rules(&table(&text, "mesh"), "echo.mesh", 7070).len(), 2);
    assert!(rules(&table(&text, "mesh"), "echo.mesh", 9090).is_empty());
}

#[test]
fn what_leads_nowhere_keeps_its_share_and_says_why() {
    let rules = http(
        "  - backendRefs:\n      - {name: v1, port: 80, weight: 70}\n      - {name: v1, port: 80, weight: 1000000}\n      \
         - {name: nonexistent, port: 80, weight: 1000000}\n      - {name: v2, port: 9090}\n      \
         - {group: x.example.com, kind: NonExistent, name: Some_Thing, port: 1, weight: 0}\n",
    );
    let backends = &rules[0].backends;
    let broken: Vec<Option<Broken>> = backends.iter().map(|one| one.broken).collect();
    assert_eq!(
        broken,
        [
            None,
            None,
            Some(Broken::BackendNotFound),
            Some(Broken::UnsupportedProtocol),
            Some(Broken::InvalidKind)
        ]
    );
    assert_eq!(backends[2].weight, 1_000_000);
    // A sidecar reads the names in it as names of Services.
    let json = serde_json::to_string(&rules).unwrap();
    assert_eq!(
        serde_json::from_str::<Vec<RouteRule>>(&json).unwrap(),
        rules
    );
}

#[test]
fn a_rule_or_route_without_backends_answers_what_it_takes() {
    let rules = http("  - matches: [{path: {type: Exact, value: /empty}}]\n    backendRefs: []\n");
    assert_eq!(goes(&rules, "GET", "/empty", &[]), "500");
    assert_eq!(goes(&rules, "GET", "/", &[]), "404");
    let of = |kind: &str| {
        let text = mesh()
            + &route(kind, "mesh", "r", "name: echo, port: 80", "").replace("  rules:\n", "");
        self::rules(&table(&text, "mesh"), "echo.mesh", 80)
    };
    assert_eq!(goes(&of("HTTPRoute"), "GET", "/x", &[]), "500");
    // A GRPCRoute without rules takes no call, and replaces the default.
    let none = of("GRPCRoute");
    assert_eq!(none.len(), 1);
    assert_eq!(goes(&none, "POST", "/pkg.Echo/Echo", &[]), "404");
}

#[test]
fn a_consumers_route_holds_for_its_namespace_and_replaces_the_producers_there() {
    let producer = "  - backendRefs: [{name: v1, port: 80}]\n";
    let consumer = "  - matches: [{path: {value: /x}}]\n    backendRefs: [{namespace: mesh, name: v2, port: 80}]\n";
    let text = mesh()
        + &route("HTTPRoute", "mesh", "p", "name: echo", producer)
        + &route(
            "HTTPRoute",
            "cons",
            "c",
            "namespace: mesh, name: echo, port: 80",
            consumer,
        );
    let set = set(&text);
    let plan = plan(&set);
    let of = |namespace| {
        let table = plan.table(&sidecar(namespace, &[]), &Endpoints::new());
        (
            rules(&table, "echo.mesh", 80),
            rules(&table, "echo.mesh", 7070),
        )
    };
    let (own, other_port) = of("cons");
    assert_eq!(goes(&own, "GET", "/x", &[]), "v2");
    assert_eq!(goes(&own, "GET", "/y", &[]), "404");
    // Only the port that it names.
    assert_eq!(goes(&other_port, "GET", "/x", &[]), "v1");
    for namespace in ["mesh", "web"] {
        assert_eq!(
            goes(&of(namespace).0, "GET", "/x", &[]),
            "v1",
            "{namespace}"
        );
    }
    // Only sidecars for which something differs have a scope of their own.
    let scope = |namespace| plan.scope(&sidecar(namespace, &[]));
    assert_eq!(scope("mesh"), scope("web"));
    assert_ne!(scope("mesh"), scope("cons"));
}

#[test]
fn only_routes_that_its_owner_wrote_or_permits_open_a_service_to_which_only_routes_lead() {
    let closed = services("mesh", &["secret"]).replace("spec:\n", "spec:\n  callers: RouteOnly\n");
    let to_secret = "  - backendRefs: [{namespace: mesh, name: secret, port: 80}]\n";
    let base = mesh() + &closed;
    let parents = |text: &str| {
        let table = plan(&set(&(base.clone() + text)))
            .table(&sidecar("mesh", &["secret.mesh"]), &Endpoints::new());
        let secret = &table.services[&"secret.mesh".parse().unwrap()];
        let authorization = secret.authorization.clone().unwrap();
        // Of every parent that a call may state, its policies are known.
        let stated = table
            .services
            .values()
            .filter(|one| one.authorization.is_some());
        let names = authorization.parents.unwrap().into_iter();
        (
            names.map(|name| name.to_string()).collect::<Vec<_>>(),
            stated.count(),
        )
    };
    let own = route("HTTPRoute", "mesh", "r", "name: echo", to_secret);
    assert_eq!(parents(&own), (vec!["echo.mesh".to_owned()], 2));
    let consumers = route(
        "HTTPRoute",
        "cons",
        "r",
        "namespace: mesh, name: echo",
        to_secret,
    );
    assert_eq!(parents(&consumers), (vec![], 2));
    let foreign = route("HTTPRoute", "web", "r", "name: w", to_secret);
    assert_eq!(parents(&foreign), (vec![], 2));
    let grant = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\n\
                 metadata: {name: g, namespace: mesh}\n\
                 spec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: web}]\n  \
                 to: [{group: '', kind: Service}]\n---\n";
    let permitted = foreign + grant;
    assert_eq!(parents(&permitted), (vec!["w.web".to_owned()], 2));
}

#[test]
fn grpc_rules_are_tried_by_service_then_method_then_metadata() {
    let text = mesh()
        + &route(
            "GRPCRoute",
            "mesh",
            "r",
            "name: echo, port: 7070",
            "  - matches: [{method: {method: Echo}}]\n    backendRefs: [{name: v3, port: 7070}]\n  \
             - matches: [{method: {service: pkg.Echo}, headers: [{name: a, value: b}]}]\n    \
             backendRefs: [{name: v2, port: 7070}]\n  \
             - matches: [{method: {service: pkg.Echo, method: Echo}}]\n    backendRefs: [{name: v1, port: 7070}]\n",
        );
    let rules = rules(&table(&text, "mesh"), "echo.mesh", 7070);
    assert_eq!(goes(&rules, "POST", "/pkg.Echo/Echo", &[("a", "b")]), "v1");
    assert_eq!(goes(&rules, "POST", "/pkg.Echo/Two", &[("a", "b")]), "v2");
    assert_eq!(goes(&rules, "POST", "/pkg.Other/Echo", &[]), "v3");
    assert_eq!(goes(&rules, "POST", "/pkg.Echo/Two", &[]), "404");
    assert_eq!(goes(&rules, "POST", "/a/b/Echo", &[]), "404");
}

#[test]
fn a_grpc_route_acts_in_place_of_an_http_route_on_the_same_port() {
    let to = |name: &str| format!("  - backendRefs: [{{name: {name}, port: 80}}]\n");
    let text = mesh()
        + &route("HTTPRoute", "mesh", "a", "name: echo", &to("v1"))
        + &route(
            "GRPCRoute",
            "mesh",
            "b",
            "name: echo, port: 7070",
            &to("v2"),
        );
    let table = table(&text, "mesh");
    let of = |port| goes(&rules(&table, "echo.mesh", port), "POST", "/a/B", &[]);
    assert_eq!((of(80), of(7070)), ("v1".into(), "v2".into()));
    assert_eq!(rules(&table, "echo.mesh", 7070).len(), 1);
}

#[test]
fn of_tcp_routes_for_a_port_one_acts() {
    let to = |name: &str| format!("  - backendRefs: [{{name: {name}, port: 9090}}]\n");
    let text = mesh()
        + &route(
            "TCPRoute",
            "mesh",
            "b",
            "name: echo, sectionName: tcp",
            &to("v2"),
        )
        + &route("TCPRoute", "mesh", "a", "name: echo, port: 9090", &to("v1"));
    let table = table(&text, "mesh");
    let tcp = rules(&table, "echo.mesh", 9090);
    assert_eq!(tcp.len(), 1);
    assert_eq!(tcp[0].route, "TCPRoute/mesh/a");
    assert!(tcp[0].matches.is_empty());
    assert!(rules(&table, "echo.mesh", 80).is_empty());
}

#[test]
fn of_tls_routes_for_a_port_each_host_leads_to_its_own_and_tcp_routes_wait() {
    let to = |name: &str, hosts: &str| {
        format!("  - backendRefs: [{{name: {name}, port: 9090}}]\n  hostnames: [{hosts}]\n")
    };
    let parent = "name: echo, port: 9090";
    let of_tls = |name: &str, rules: &str| route("TLSRoute", "mesh", name, parent, rules);
    let tcp = "  - backendRefs: [{name: v3, port: 9090}]\n";
    let text = mesh()
        + &of_tls("a", &to("v1", "'*.example.com', shop.test"))
        + &of_tls("b", &to("v2", "abc.example.com, shop.test"))
        + &route("TCPRoute", "mesh", "a", parent, tcp);
    let table = table(&text, "mesh");
    let rules = rules(&table, "echo.mesh", 9090);
    assert_eq!(rules.len(), 2);
    let router = Router::new(&rules);
    assert!(router.asks_for_hosts());
    let leads = |host: &str| {
        let found = router.find_by_host(host);
        found.map(|place| rules[place].backends[0].service.name.as_str())
    };
    assert_eq!(leads("abc.example.com"), Some("v2"));
    assert_eq!(leads("other.example.com"), Some("v1"));
    assert_eq!(leads("shop.test"), Some("v1"));
    assert_eq!(leads("example.com"), None);
}

#[test]
fn filters_are_told_with_the_prefix_that_they_replace_and_without_mirrors_that_lead_nowhere() {
    let rules = http(
        "  - matches: [{path: {value: /foo}}]\n    filters:\n      \
         - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}\n      \
         - {type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 80}}}\n      \
         - {type: RequestMirror, requestMirror: {backendRef: {name: v3, port: 80}, percent: 20}}\n    \
         backendRefs:\n      - {name: v1, port: 80, filters: [{type: RequestRedirect, requestRedirect: {port: 8083}}]}\n",
    );
    let filters = &rules[0].filters;
    assert_eq!(
        filters.rewrite.path,
        Some(PathChange::Prefix {
            matched: "/foo".into(),
            with: String::new()
        })
    );
    let [mirror] = filters.mirrors.as_slice() else {
        panic!("{filters:?}");
    };
    assert_eq!(mirror.service.name, "v3");
    assert_eq!(
        (mirror.share.numerator, mirror.share.denominator),
        (20, 100)
    );
    let redirect = rules[0].backends[0].filters.redirect.as_ref().unwrap();
    assert_eq!((redirect.port, redirect.status), (Some(8083), 302));
}

#[test]
fn a_retry_stanza_sets_what_is_retried_and_a_policy_the_rest() {
    let policy = "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: t, namespace: mesh}\n\
                  spec: {targetRefs: [{kind: Service, name: echo}], retry: {attempts: 5, codes: [503], \
                  nonIdempotent: true, backoff: {base: 10ms, max: 100ms}}}\n---\n";
    let of = |stanza: &str| {
        let rules = format!("  - backendRefs: [{{name: v1, port: 80}}]\n    retry: {stanza}\n");
        let text = mesh() + policy + &route("HTTPRoute", "mesh", "r", "name: echo", &rules);
        let rules = self::rules(&table(&text, "mesh"), "echo.mesh", 80);
        rules[0].traffic.retry.clone()
    };
    let retry = of("{attempts: 3, backoff: 200ms}");
    assert_eq!(retry.attempts, 3);
    assert!(retry.codes.is_empty() && retry.reset_before_response && retry.non_idempotent);
    assert_eq!(retry.backoff.base.as_millis(), 200);
    assert!(retry.backoff.max >= retry.backoff.base);
    let retry = of("{codes: [500, 502]}");
    assert_eq!((retry.attempts, retry.codes), (5, vec![500, 502]));
}
