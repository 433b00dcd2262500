//! Explanations of requests to the table of the directory's tests.

use std::sync::Arc;

use http::Request;
use weft_config::table::{
    Authorization, Default as Decided, External, MirrorShare, PathMatch, Port, Protocol, Redirect,
    Via,
};

use super::*;
use crate::directory::tests::{name, table};

fn caller() -> SpiffeId {
    "spiffe://demo.test/ns/shop/sa/frontend".parse().unwrap()
}

/// What `change` makes of the rule of `orders.shop:80`, and the explanation of a request to it.
fn explained(target: &str, change: impl FnOnce(&mut RouteRule)) -> Explanation {
    let mut table = table();
    let orders = Arc::make_mut(table.services.get_mut(&name("orders")).unwrap());
    change(&mut orders.ports.get_mut(&80).unwrap().routes[0]);
    let head = Request::builder()
        .uri(target)
        .body(())
        .unwrap()
        .into_parts()
        .0;
    let (caller, service) = (caller(), name("orders"));
    let question = Question {
        caller: &caller,
        table: &table,
        service: &service,
        port: 80,
        head: &head,
        server_name: None,
    };
    explain(&question, |_| {
        let mut served = table.clone();
        for service in served.services.values_mut() {
            let open = Authorization::new(Decided::Allow, Vec::new());
            Arc::make_mut(service).authorization = Some(open);
        }
        served
    })
}

#[test]
fn the_rule_its_backends_and_their_shares_are_told() {
    let found = explained("/v/1?q=1", |_| {});
    assert_eq!(found.route.as_deref(), Some("HTTPRoute/shop/split"));
    let shares: Vec<(&str, f64)> = found
        .backends
        .iter()
        .map(|one| (one.backend.as_str(), one.percent))
        .collect();
    assert_eq!(
        shares,
        [("orders-v1.shop:80", 90.0), ("orders-v2.shop:80", 10.0)]
    );
    assert_eq!((found.backend, found.status), (None, None));
    assert_eq!(found.authorized, Some(true));
    let delivered = found.backends[0].delivered.as_ref().unwrap();
    assert_eq!(
        (delivered.path.as_str(), delivered.host.as_str()),
        ("/v/1?q=1", "orders.shop")
    );
}

#[test]
fn a_request_that_no_rule_takes_is_told_why_not() {
    let found = explained("/other", |_| {});
    assert_eq!(found.status, Some(404));
    assert_eq!(
        found.passed_over[0].because,
        "the path is neither /v nor below it"
    );
    let found = explained("/v", |rule| {
        rule.matches[0].method = Some("POST".into());
    });
    assert_eq!(found.passed_over[0].because, "the method is not POST");
    let found = explained("/v?a=1", |rule| {
        rule.matches[0].queries = vec![("a".into(), "2".into())];
    });
    assert_eq!(
        found.passed_over[0].because,
        "the query parameter a is not \"2\""
    );
}

#[test]
fn answers_of_the_mesh_have_their_status_and_reason() {
    let redirected = explained("/v/1", |rule| {
        let filters = Filters {
            redirect: Some(Redirect {
                scheme: None,
                host: Some("example.org".into()),
                path: None,
                port: None,
                status: 301,
            }),
            ..Filters::default()
        };
        rule.filters = Arc::new(filters);
    });
    assert_eq!(redirected.status, Some(301));
    assert_eq!(redirected.answer.as_deref(), Some("http://example.org/v/1"));
    let none = explained("/v", |rule| rule.backends.clear());
    assert_eq!(none.status, Some(500));
    let unresolved = explained("/v", |rule| {
        let filters = Filters {
            unresolved: Some("Lua script".into()),
            ..Filters::default()
        };
        rule.filters = Arc::new(filters);
    });
    assert_eq!(
        unresolved.answer.as_deref(),
        Some("a filter of the route leads nowhere: Lua script")
    );
}

#[test]
fn filters_are_described_and_a_rewritten_path_is_shown() {
    let found = explained("/v/1?q", |rule| {
        rule.matches[0].path = Some(PathMatch::Prefix("/v".into()));
        let path = weft_config::table::PathChange::Prefix {
            matched: "/v".into(),
            with: "/w".into(),
        };
        let mut filters = Filters::default();
        filters.rewrite.path = Some(path);
        filters.mirrors = vec![weft_config::table::Mirror {
            service: name("solo"),
            port: 8080,
            share: MirrorShare {
                numerator: 1,
                denominator: 4,
            },
        }];
        rule.filters = Arc::new(filters);
    });
    assert_eq!(found.backends[0].delivered.as_ref().unwrap().path, "/w/1?q");
    assert_eq!(
        found.filters,
        [
            "URLRewrite: the path changes",
            "RequestMirror: solo.shop:8080 gets a copy of 25 % of the requests"
        ]
    );
}

#[test]
fn a_service_that_may_not_be_called_is_told_by_its_policy() {
    let table = table();
    let head = Request::new(()).into_parts().0;
    let (caller, service) = (caller(), name("secret"));
    let question = Question {
        caller: &caller,
        table: &table,
        service: &service,
        port: 5432,
        head: &head,
        server_name: None,
    };
    let found = explain(&question, |_| table.clone());
    assert_eq!((found.status, found.authorized), (Some(403), Some(false)));
    let because = found.answer.unwrap();
    assert!(
        because.contains("AuthorizationPolicy/shop/secret denies it"),
        "{because}"
    );
}

#[test]
fn filters_of_a_backend_come_after_those_of_the_rule_and_policies_judge_the_result() {
    let found = explained("/v/1", |rule| {
        let full = |path: &str| {
            let mut filters = Filters::default();
            filters.rewrite.path = Some(weft_config::table::PathChange::Full(path.into()));
            Arc::new(filters)
        };
        rule.filters = full("/of-rule");
        rule.backends[0].filters = full("/of-backend");
    });
    let paths: Vec<&str> = found
        .backends
        .iter()
        .map(|share| share.delivered.as_ref().unwrap().path.as_str())
        .collect();
    assert_eq!(paths, ["/of-backend", "/of-rule"]);
}

#[test]
fn a_connection_of_tls_goes_by_the_host_that_its_client_asks_for() {
    let mut table = table();
    let db = Arc::make_mut(table.services.get_mut(&name("db")).unwrap());
    db.ports.get_mut(&5432).unwrap().routes = [("a", "*.example.com"), ("b", "abc.example.com")]
        .map(|(route, host)| RouteRule {
            route: format!("TLSRoute/shop/{route}"),
            hosts: vec![host.parse().unwrap()],
            backends: vec![Backend::new(name("db"), 5432, 1)],
            ..RouteRule::default()
        })
        .into();
    let head = Request::new(()).into_parts().0;
    let (caller, service) = (caller(), name("db"));
    let asked = |server_name| {
        let question = Question {
            caller: &caller,
            table: &table,
            service: &service,
            port: 5432,
            head: &head,
            server_name,
        };
        explain(&question, |_| table.clone())
    };
    let found = asked(Some("abc.example.com"));
    assert_eq!(found.route.as_deref(), Some("TLSRoute/shop/b"));
    assert_eq!(found.passed_over[0].because, "it takes *.example.com");
    let found = asked(Some("other.test"));
    assert_eq!((found.route, found.status), (None, Some(404)));
    assert_eq!(found.passed_over.len(), 2);
    let found = asked(None);
    assert_eq!(
        found.passed_over[0].because,
        "the client names no host, and it takes *.example.com"
    );
}

/// The table of the tests with `vendor.shop`, outside of the mesh, and the sidecar's decision about it.
fn with_vendor(via: Option<Via>, protocol: Protocol, callers: &[&str]) -> Table {
    let mut table = table();
    let port = Port {
        protocol,
        ..table.services[&name("solo")].ports[&8080].clone()
    };
    let principals = callers.iter().map(|one| {
        format!("spiffe://demo.test/ns/shop/sa/{one}")
            .parse()
            .unwrap()
    });
    let rule = weft_config::table::Rule {
        policy: "AuthorizationPolicy/shop/vendor".into(),
        action: weft_config::table::Action::Allow,
        principals: Some(principals.collect()),
        methods: None,
        paths: None,
    };
    let external = External {
        hosts: vec!["vendor.example".into()],
        addresses: vec!["192.0.2.1".parse().unwrap()],
        via,
        ..External::default()
    };
    let vendor = Service {
        ports: [(443, port)].into(),
        external: Some(Arc::new(external)),
        authorization: Some(Authorization::new(Decided::Deny, vec![rule])),
    };
    table.services.insert(name("vendor"), Arc::new(vendor));
    table
}

fn explained_in(table: &Table, served: impl Fn(&ServiceName) -> Table) -> Explanation {
    let head = Request::new(()).into_parts().0;
    let (caller, service) = (caller(), name("vendor"));
    let question = Question {
        caller: &caller,
        table,
        service: &service,
        port: 443,
        head: &head,
        server_name: None,
    };
    explain(&question, served)
}

#[test]
fn what_is_outside_is_told_with_who_sends_it_and_what_the_sidecar_of_the_caller_decides() {
    let no_other = |_: &ServiceName| -> Table { panic!("no other sidecar decides") };
    let table = with_vendor(None, Protocol::Http, &["frontend"]);
    let found = explained_in(&table, no_other);
    assert_eq!(found.backend.as_deref(), Some("vendor.shop:443"));
    assert_eq!(found.authorized, Some(true));
    let outside = found.backends[0].outside.as_ref().unwrap();
    assert_eq!(outside.hosts, ["vendor.example"]);
    assert_eq!(outside.addresses, ["192.0.2.1"]);
    assert_eq!((&outside.via, &outside.tls), (&None, &None));
    assert!(found.backends[0].delivered.is_some());
    let table = with_vendor(None, Protocol::Http, &["other"]);
    let found = explained_in(&table, no_other);
    assert_eq!(found.authorized, Some(false));
    let decision = &found.decisions[0];
    assert_eq!(decision.service, "vendor.shop");
    assert_eq!(
        decision.policy.as_deref(),
        Some("AuthorizationPolicy/shop/vendor")
    );
}

#[test]
fn the_sidecars_that_it_is_sent_through_decide_about_it() {
    let via = |here| {
        Some(Via {
            service: name("gate"),
            ports: [(443, 15)].into(),
            here,
        })
    };
    let mut own = with_vendor(via(false), Protocol::Http, &["frontend"]);
    let vendor = Arc::make_mut(own.services.get_mut(&name("vendor")).unwrap());
    vendor.authorization = None;
    let found = explained_in(&own, |served| {
        assert_eq!(*served, name("gate"));
        with_vendor(via(true), Protocol::Http, &["other"])
    });
    assert_eq!(found.authorized, Some(false));
    let outside = found.backends[0].outside.as_ref().unwrap();
    assert_eq!(outside.via.as_deref(), Some("gate.shop:15"));
    assert_eq!(outside.addresses, ["192.0.2.1"]);
}

#[test]
fn a_connection_has_a_decision_and_neither_path_nor_host() {
    let table = with_vendor(None, Protocol::Tcp, &["frontend"]);
    let found = explained_in(&table, |_| table.clone());
    assert_eq!(found.backends[0].delivered, None);
    assert_eq!(found.authorized, Some(true));
    assert_eq!((found.status, &found.answer), (None, &None));
}
