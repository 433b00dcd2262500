//! Tests of `proxy/src/inbound/authorise.rs`.

use weft_config::table::{Revision, Service};

use super::*;
use crate::directory::tests::name;

fn served() -> Arc<ServedService> {
    Arc::new(ServedService::for_tests(name("orders"), 80))
}

fn rule(action: Action, principal: Option<&str>, method: Option<&str>, path: Option<&str>) -> Rule {
    Rule {
        policy: format!("AuthorizationPolicy/shop/{action:?}"),
        action,
        principals: principal.map(|one| vec![id(one)]),
        methods: method.map(|one| vec![one.to_owned()]),
        paths: path.map(|one| vec![one.parse().unwrap()]),
    }
}

fn id(account: &str) -> SpiffeId {
    format!("spiffe://demo.test/ns/shop/sa/{account}")
        .parse()
        .unwrap()
}

fn table(services: &[(&str, Default, Vec<Rule>)]) -> Table {
    let services = services.iter().map(|(service, default, rules)| {
        let authorization = Some(Authorization::new(*default, rules.clone()));
        (
            name(service),
            Arc::new(Service {
                authorization,
                ..Service::default()
            }),
        )
    });
    Table {
        schema: weft_config::table::Schema,
        revision: Revision {
            store: "s".into(),
            number: 1,
        },
        trust_domain: "demo.test".parse().unwrap(),
        services: services.collect(),
        forbidden: std::collections::BTreeMap::new(),
        session_keys: std::collections::BTreeMap::new(),
        egress: weft_config::table::Egress::Deny,
        closed_hosts: std::collections::BTreeSet::new(),
    }
}

fn ask(table: &Table, caller: &str, method: &str, path: &str) -> Result<(), String> {
    let caller = id(caller);
    let call = Call {
        caller: Some(&caller),
        parent: None,
        request: Some((method, path)),
    };
    authorise(Some(table), &Meant::own(&served()), &call)
        .outcome
        .map(|_| ())
        .map_err(|failure| failure.to_string())
}

#[test]
fn without_a_table_or_an_entry_all_is_denied() {
    let caller = id("frontend");
    let call = Call {
        caller: Some(&caller),
        parent: None,
        request: None,
    };
    assert!(
        authorise(None, &Meant::own(&served()), &call)
            .outcome
            .is_err()
    );
    assert!(
        authorise(Some(&table(&[])), &Meant::own(&served()), &call)
            .outcome
            .is_err()
    );
}

#[test]
fn the_default_holds_where_no_rule_matches() {
    assert!(
        ask(
            &table(&[("orders", Default::Allow, vec![])]),
            "x",
            "GET",
            "/"
        )
        .is_ok()
    );
    assert!(
        ask(
            &table(&[("orders", Default::Deny, vec![])]),
            "x",
            "GET",
            "/"
        )
        .is_err()
    );
}

#[test]
fn an_allow_rule_admits_the_identities_that_it_names() {
    let rules = vec![rule(
        Action::Allow,
        Some("frontend"),
        Some("GET"),
        Some("/orders/*"),
    )];
    let table = table(&[("orders", Default::Deny, rules)]);
    assert!(ask(&table, "frontend", "GET", "/orders/1").is_ok());
    assert!(ask(&table, "frontend", "POST", "/orders/1").is_err());
    assert!(ask(&table, "frontend", "GET", "/admin").is_err());
    assert!(ask(&table, "other", "GET", "/orders/1").is_err());
}

#[test]
fn deny_beats_allow_in_any_order() {
    for rules in [
        vec![
            rule(Action::Allow, None, None, None),
            rule(Action::Deny, Some("evil"), None, None),
        ],
        vec![
            rule(Action::Deny, Some("evil"), None, None),
            rule(Action::Allow, None, None, None),
        ],
    ] {
        let table = table(&[("orders", Default::Allow, rules)]);
        assert!(ask(&table, "evil", "GET", "/").is_err());
        assert!(ask(&table, "good", "GET", "/").is_ok());
    }
}

#[test]
fn audit_decides_nothing_and_is_reported() {
    let table = table(&[(
        "orders",
        Default::Deny,
        vec![rule(Action::Audit, None, None, None)],
    )]);
    let caller = id("x");
    let call = Call {
        caller: Some(&caller),
        parent: None,
        request: Some(("GET", "/")),
    };
    let verdict = authorise(Some(&table), &Meant::own(&served()), &call);
    assert!(verdict.outcome.is_err());
    assert_eq!(verdict.audited, ["AuthorizationPolicy/shop/Audit"]);
}

#[test]
fn the_parent_must_allow_too() {
    let closed = table(&[
        ("orders", Default::Allow, vec![]),
        ("shopfront", Default::Deny, vec![]),
    ]);
    let open = table(&[
        ("orders", Default::Allow, vec![]),
        ("shopfront", Default::Allow, vec![]),
    ]);
    let (caller, parent, stranger) = (id("x"), name("shopfront"), name("stranger"));
    let call = |parent| Call {
        caller: Some(&caller),
        parent: Some(parent),
        request: Some(("GET", "/")),
    };
    assert!(
        authorise(Some(&closed), &Meant::own(&served()), &call(&parent))
            .outcome
            .is_err()
    );
    assert!(
        authorise(Some(&open), &Meant::own(&served()), &call(&parent))
            .outcome
            .is_ok()
    );
    assert!(
        authorise(Some(&open), &Meant::own(&served()), &call(&stranger))
            .outcome
            .is_ok()
    );
}

#[test]
fn an_ambiguous_path_is_refused_only_where_paths_are_judged() {
    let rules = vec![rule(Action::Deny, None, None, Some("/admin/*"))];
    let judged = table(&[("orders", Default::Allow, rules)]);
    assert!(ask(&judged, "x", "GET", "/a/%2e%2e/admin/x").is_err());
    assert!(ask(&judged, "x", "GET", "/%61dmin/x").is_err());
    assert!(ask(&judged, "x", "GET", "/a").is_ok());
    let unjudged = table(&[("orders", Default::Allow, vec![])]);
    assert!(ask(&unjudged, "x", "GET", "/a//b/%2e").is_ok());
}

/// The table with another authorization of `orders`.
fn changed(mut table: Table, change: impl FnOnce(&mut Authorization)) -> Table {
    let service = table.services.get_mut(&name("orders")).unwrap();
    change(Arc::make_mut(service).authorization.as_mut().unwrap());
    table
}

#[test]
fn a_method_in_lower_case_is_refused_only_where_methods_are_judged() {
    let rules = vec![rule(Action::Deny, None, Some("DELETE"), None)];
    let judged = table(&[("orders", Default::Allow, rules)]);
    for method in ["delete", "Delete", "dELETE", "get", "x-y"] {
        assert!(ask(&judged, "x", method, "/").is_err(), "{method}");
    }
    for method in ["GET", "M-SEARCH", "PURGE"] {
        assert!(ask(&judged, "x", method, "/").is_ok(), "{method}");
    }
    let rules = vec![rule(Action::Deny, None, None, Some("/admin/*"))];
    let unjudged = table(&[("orders", Default::Allow, rules)]);
    assert!(ask(&unjudged, "x", "delete", "/").is_ok());
}

#[test]
fn where_case_is_ignored_a_path_that_would_match_other_rules_is_refused() {
    let rules = vec![
        rule(Action::Deny, None, None, Some("/admin")),
        rule(Action::Deny, None, None, Some("/Caf%C3%A9/*")),
    ];
    let sensitive = table(&[("orders", Default::Allow, rules)]);
    let insensitive = changed(sensitive.clone(), |all| {
        all.path_case = PathCase::Insensitive
    });
    for path in ["/ADMIN", "/Admin", "/CAF%C3%89/x", "/caf%C3%a9/x"] {
        assert!(ask(&sensitive, "x", "GET", path).is_ok(), "{path}");
        assert!(ask(&insensitive, "x", "GET", path).is_err(), "{path}");
    }
    for path in ["/ADMINS", "/Other", "/other"] {
        assert!(ask(&insensitive, "x", "GET", path).is_ok(), "{path}");
    }
    assert!(ask(&insensitive, "x", "GET", "/admin").is_err());
}

#[test]
fn an_unknown_parent_adds_nothing_unless_only_routes_lead() {
    let (caller, parent) = (id("x"), name("shopfront"));
    let call = Call {
        caller: Some(&caller),
        parent: Some(&parent),
        request: Some(("GET", "/")),
    };
    let passes = |table: Option<&Table>| {
        authorise(table, &Meant::own(&served()), &call)
            .outcome
            .is_ok()
    };

    let routeless = table(&[("orders", Default::Allow, vec![])]);
    assert!(passes(Some(&routeless)));
    let closed = changed(routeless, |all| all.parents = Some(BTreeSet::new()));
    assert!(!passes(Some(&closed)));

    let parent_denies = table(&[
        ("orders", Default::Allow, vec![]),
        ("shopfront", Default::Deny, vec![]),
    ]);
    assert!(!passes(Some(&parent_denies)));
    assert!(!passes(Some(&table(&[("orders", Default::Deny, vec![])]))));
    assert!(!passes(None));
}

#[test]
fn where_only_routes_lead_a_call_must_state_one_of_their_parents() {
    let open = table(&[
        ("orders", Default::Allow, vec![]),
        ("shopfront", Default::Allow, vec![]),
        ("stranger", Default::Allow, vec![]),
    ]);
    let parents = BTreeSet::from([name("shopfront")]);
    let table = changed(open, |all| all.parents = Some(parents));
    let caller = id("x");
    let verdict = |parent: Option<&ServiceName>| {
        let request = Some(("GET", "/"));
        let call = Call {
            caller: Some(&caller),
            parent,
            request,
        };
        authorise(Some(&table), &Meant::own(&served()), &call)
            .outcome
            .is_ok()
    };
    assert!(verdict(Some(&name("shopfront"))));
    assert!(!verdict(Some(&name("stranger"))));
    assert!(!verdict(Some(&name("orders"))));
    assert!(!verdict(None));
}

#[test]
fn a_caller_without_identity_is_judged_only_where_the_service_takes_such_and_by_rules_for_any_caller()
 {
    let unproven = |authorization: Option<Authorization>, request| {
        let mut table = table(&[("orders", Default::Allow, vec![])]);
        let orders = table.services.get_mut(&name("orders")).unwrap();
        Arc::make_mut(orders).authorization = authorization;
        let call = Call {
            caller: None,
            parent: None,
            request,
        };
        let outcome = authorise(Some(&table), &Meant::own(&served()), &call).outcome;
        let takes = takes_plaintext(Some(&table), &name("orders"));
        // What refuses a connection refuses each of its calls, too.
        assert!(takes.is_ok() || outcome.is_err());
        outcome
            .map(drop)
            .map_err(|failure| failure.detail.into_owned())
    };
    let rules = |default, rules| {
        Some(Authorization {
            plaintext: true,
            ..Authorization::new(default, rules)
        })
    };
    let get = Some(("GET", "/"));
    let strict =
        "orders.shop takes only callers of the mesh (mutualTls: Strict): call it through a sidecar";
    let open = Authorization::new(Default::Allow, vec![]);
    assert_eq!(unproven(Some(open), get).unwrap_err(), strict);
    assert_eq!(
        unproven(None, get).unwrap_err(),
        "no policy table for orders.shop here"
    );
    for request in [get, None] {
        assert_eq!(unproven(rules(Default::Allow, vec![]), request), Ok(()));
        let none = "no policy allows the call of a caller that proves no identity to orders.shop";
        assert_eq!(
            unproven(rules(Default::Deny, vec![]), request).unwrap_err(),
            none
        );
        let named = || rule(Action::Allow, Some("frontend"), None, None);
        assert_eq!(
            unproven(rules(Default::Deny, vec![named()]), request).unwrap_err(),
            none
        );
        let any = rule(Action::Allow, None, None, None);
        assert_eq!(
            unproven(rules(Default::Deny, vec![named(), any]), request),
            Ok(())
        );
        let denied = rule(Action::Deny, Some("frontend"), None, None);
        let denied = unproven(rules(Default::Allow, vec![denied]), request).unwrap_err();
        assert!(
            denied.ends_with("denies the call of a caller that proves no identity to orders.shop"),
            "{denied}"
        );
    }
    // No route leads such a caller.
    let behind = Authorization {
        parents: Some([name("front")].into()),
        plaintext: true,
        ..Authorization::new(Default::Allow, vec![])
    };
    assert!(
        unproven(Some(behind), get)
            .unwrap_err()
            .starts_with("only routes lead to")
    );
}

#[test]
fn a_tunnel_is_not_admitted_by_a_rule_about_requests() {
    let table = table(&[(
        "orders",
        Default::Deny,
        vec![rule(Action::Allow, None, Some("GET"), None)],
    )]);
    let caller = id("x");
    let call = Call {
        caller: Some(&caller),
        parent: None,
        request: None,
    };
    assert!(
        authorise(Some(&table), &Meant::own(&served()), &call)
            .outcome
            .is_err()
    );
}

const RESTRICTED: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: front, namespace: shop }
spec: { pathCase: insensitive, ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: orders, namespace: shop }
spec: { callers: RouteOnly, pathCase: insensitive, ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: deny, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: orders }, { kind: Service, name: front } ]
  action: Deny
  to: [ { paths: ["/admin/*"] } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: front, namespace: shop }
spec:
  parentRefs: [ { kind: Service, name: front } ]
  rules: [ { backendRefs: [ { name: orders, port: 80 } ] } ]
"#;

/// A table as a sidecar with these features is told it.
fn told(features: weft_config::table::Features) -> Table {
    let parsed = weft_config::resources::parse(&[weft_config::resources::SourceFile {
        name: "mesh.yaml".into(),
        text: RESTRICTED.into(),
    }]);
    let mut set = weft_config::resources::Set::default();
    parsed.resources.into_iter().for_each(|one| set.insert(one));
    let revision = Revision {
        store: "s".into(),
        number: 1,
    };
    let domain = "demo.test".parse().unwrap();
    let sidecar = weft_config::compile::Sidecar {
        identity: id("orders"),
        listens_for: BTreeSet::new(),
        serves: [name("orders")].into(),
        features,
    };
    weft_config::compile::Plan::new(revision, domain, &set)
        .table(&sidecar, &weft_config::compile::Endpoints::new())
}

#[test]
fn a_sidecar_with_fewer_features_permits_no_call_that_the_others_refuse() {
    use weft_config::table::{Feature, Features};
    let whole = told(Features::all());
    let (mut permitted, mut refused) = (0, 0);
    for lacking in 1..(1 << Feature::ALL.len()) {
        let has = |(bit, _): &(usize, Feature)| lacking & (1 << bit) == 0;
        let features = Feature::ALL.into_iter().enumerate().filter(has);
        let fitted = told(features.map(|(_, feature)| feature).collect());
        for (parent, path) in [None, Some("front"), Some("orders"), Some("gone")]
            .into_iter()
            .flat_map(|parent| {
                ["/", "/admin/x", "/Admin/x", "/a%64min/x"].map(|path| (parent, path))
            })
        {
            let (caller, parent) = (id("frontend"), parent.map(name));
            let call = Call {
                caller: Some(&caller),
                parent: parent.as_ref(),
                request: Some(("GET", path)),
            };
            let permits = |table| {
                authorise(Some(table), &Meant::own(&served()), &call)
                    .outcome
                    .is_ok()
            };
            match (permits(&fitted), permits(&whole)) {
                (true, false) => panic!("{fitted:?} permits {call:?}"),
                (true, true) => permitted += 1,
                (false, _) => refused += 1,
            }
        }
    }
    assert!(permitted > 0 && refused > 0, "{permitted} {refused}");
}
