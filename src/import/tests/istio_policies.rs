//! Policies of authorisation of Istio.

use super::*;

fn istio_policy(spec: &str) -> Imported {
    imported(
        From::Istio,
        &format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: p, namespace: shop }}\nspec: {spec}\n"
        ),
    )
}

#[test]
fn policies_of_istio_are_never_wider_in_weft() {
    let closed = "Allow reviews weft-import.no-caller";
    let of = "selector: { matchLabels: { app: reviews } }";
    let rows: &[(&str, &[&str], bool)] = &[
        // What can be said.
        (
            "{ OF, rules: [ { from: [ { source: { principals: [ cluster.local/ns/shop/sa/frontend ] } } ], to: [ { operation: { methods: [ GET ], paths: [ /a, '/b/*' ] } } ] } ] }",
            &["Allow reviews shop.frontend {\"methods\":[\"GET\"],\"paths\":[\"/a\",\"/b/*\"]}"],
            false,
        ),
        (
            "{ OF, action: DENY, rules: [ { to: [ { operation: { paths: [ '/admin/*' ] } } ] } ] }",
            &["Deny reviews any {\"paths\":[\"/admin/*\"]}"],
            false,
        ),
        ("{ OF, rules: [ {} ] }", &["Allow reviews any"], false),
        ("{ OF }", &[closed], false),
        ("{ OF, action: DENY }", &[], false),
        // Callers of a namespace are those that are known.
        (
            "{ OF, rules: [ { from: [ { source: { namespaces: [ jobs ] } } ] } ] }",
            &["Allow reviews jobs.batch"],
            false,
        ),
        (
            "{ OF, rules: [ { from: [ { source: { namespaces: [ unknown ] } } ] } ] }",
            &[closed],
            true,
        ),
        // What allows and cannot be said allows nothing.
        (
            "{ OF, rules: [ { from: [ { source: { notPrincipals: [ cluster.local/ns/shop/sa/frontend ] } } ] } ] }",
            &[closed],
            true,
        ),
        (
            "{ OF, rules: [ { from: [ { source: { ipBlocks: [ 10.0.0.0/8 ] } } ] } ] }",
            &[closed],
            true,
        ),
        (
            "{ OF, rules: [ { when: [ { key: 'request.headers[x]', values: [ a ] } ] } ] }",
            &[closed],
            true,
        ),
        (
            "{ OF, rules: [ { to: [ { operation: { hosts: [ a ] } } ] } ] }",
            &[closed],
            true,
        ),
        (
            "{ OF, rules: [ { to: [ { operation: { paths: [ '*/x' ] } } ] } ] }",
            &[closed],
            true,
        ),
        (
            "{ OF, rules: [ { to: [ { operation: { methods: [ GET ], notPaths: [ /a ] } } ] } ] }",
            &[closed],
            true,
        ),
        (
            "{ OF, rules: [ { to: [ { operation: { paths: [ '/a*' ] } } ] } ] }",
            &["Allow reviews any {\"paths\":[\"/a\",\"/a/*\"]}"],
            false,
        ),
        // What denies and cannot be said denies more.
        (
            "{ OF, action: DENY, rules: [ { from: [ { source: { notPrincipals: [ cluster.local/ns/shop/sa/frontend ] } } ] } ] }",
            &["Deny reviews any"],
            true,
        ),
        (
            "{ OF, action: DENY, rules: [ { from: [ { source: { namespaces: [ jobs ] } } ] } ] }",
            &["Deny reviews any"],
            true,
        ),
        (
            "{ OF, action: DENY, rules: [ { to: [ { operation: { methods: [ GET ], paths: [ '/a*' ] } } ] } ] }",
            &["Deny reviews any {\"methods\":[\"GET\"]}"],
            true,
        ),
        (
            "{ OF, action: DENY, rules: [ { when: [ { key: source.ip, values: [ 10.0.0.1 ] } ], to: [ { operation: { paths: [ /a ] } } ] } ] }",
            &["Deny reviews any {\"paths\":[\"/a\"]}"],
            true,
        ),
        (
            "{ OF, action: CUSTOM, provider: { name: x }, rules: [ {} ] }",
            &["Deny reviews any"],
            true,
        ),
        // A Service of TCP has no requests to judge.
        (
            "{ selector: { matchLabels: { app: db } }, rules: [ { to: [ { operation: { methods: [ GET ] } } ] } ] }",
            &["Allow db weft-import.no-caller"],
            true,
        ),
        (
            "{ selector: { matchLabels: { app: db } }, action: DENY, rules: [ { to: [ { operation: { methods: [ GET ] } } ] } ] }",
            &["Deny db any"],
            true,
        ),
        // A part of a Service.
        (
            "{ selector: { matchLabels: { app: reviews, version: v1 } }, rules: [ {} ] }",
            &["Deny reviews any"],
            true,
        ),
        (
            "{ selector: { matchLabels: { app: reviews, version: v1 } }, action: DENY, rules: [ {} ] }",
            &["Deny reviews any"],
            false,
        ),
        // The whole namespace.
        (
            "{ rules: [ { from: [ { source: { principals: [ '*' ] } } ] } ] }",
            &["Allow db+ratings+reviews any"],
            false,
        ),
    ];
    for (spec, expected, has_errors) in rows {
        let imported = istio_policy(&spec.replace("OF", of));
        assert_eq!(
            policies(&imported),
            *expected,
            "{spec}: {:#?}",
            errors(&imported)
        );
        assert_eq!(
            imported.findings.has_errors(),
            *has_errors,
            "{spec}: {:#?}",
            errors(&imported)
        );
        assert!(of_kind(&imported, "MeshConfig").is_empty(), "{spec}");
    }
}

#[test]
fn a_restriction_that_has_no_place_closes_the_mesh() {
    for text in [
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: p, namespace: elsewhere }\nspec: { rules: [ {} ] }\n",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: p, namespace: shop }\nspec: { targetRefs: [ { kind: Gateway, name: x } ] }\n",
        "kind: AuthorizationPolicy\n",
        "a: [\n",
    ] {
        let imported = imported(From::Istio, text);
        let closed = of_kind(&imported, "MeshConfig");
        assert_eq!(closed[0]["spec"]["defaultAuthorization"], "Deny", "{text}");
        assert!(imported.findings.has_errors());
    }
}

#[test]
fn a_permissive_peer_authentication_opens_the_services_that_it_selects_and_no_others() {
    let peers = |list: &[(&str, &str, &str)]| {
        let texts = list.iter().enumerate().map(|(number, (namespace, labels, spec))| {
            let selector = match *labels {
                "" => String::new(),
                app => format!("selector: {{ matchLabels: {{ app: {app} }} }}, "),
            };
            format!(
                "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{ name: p{number}, namespace: {namespace} }}\nspec: {{ {selector}{spec} }}\n"
            )
        });
        imported(From::Istio, &texts.collect::<Vec<_>>().join("---\n"))
    };
    let open = |imported: &Imported| {
        let services = of_kind(imported, "Service").into_iter();
        let open = services.filter(|one| one["spec"]["mutualTls"] == "Permissive");
        let names = open.map(|one| one["metadata"]["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    let (permissive, strict) = ("mtls: { mode: PERMISSIVE }", "mtls: { mode: STRICT }");
    let all = "reviews ratings db";
    for (list, expected) in [
        (&[("shop", "", permissive)][..], all),
        (&[("istio-system", "", permissive)], all),
        (
            &[("istio-system", "", permissive), ("shop", "", strict)],
            "",
        ),
        (
            &[("istio-system", "", strict), ("shop", "", permissive)],
            all,
        ),
        (&[("shop", "reviews", permissive)], "reviews"),
        (
            &[("shop", "", permissive), ("shop", "db", strict)],
            "reviews ratings",
        ),
        (
            &[
                ("shop", "", permissive),
                ("shop", "db", "mtls: { mode: UNSET }"),
            ],
            all,
        ),
        (&[("other", "", permissive)], ""),
        (&[("shop", "", "mtls: { mode: DISABLE }")], ""),
        // It cannot be told, so they stay closed.
        (&[("shop", "", permissive), ("shop", "", strict)], ""),
        (
            &[(
                "shop",
                "reviews",
                "mtls: { mode: PERMISSIVE }, portLevelMtls: { 9080: { mode: STRICT } }",
            )],
            "",
        ),
    ] {
        let imported = peers(list);
        assert_eq!(open(&imported), expected, "{list:?}");
        let is_permissive = |(_, _, spec): &(&str, &str, &str)| *spec == permissive;
        if expected.is_empty() && list.len() == 1 && list.iter().any(is_permissive) {
            has(&errors(&imported), "spec.mtls", "is about no Service");
        }
    }
    let imported = peers(&[("shop", "reviews", permissive)]);
    assert!(errors(&imported).is_empty(), "{:?}", errors(&imported));
    let told = &imported.findings.listed;
    assert!(
        told.iter()
            .any(|one| one.message == "is mutualTls: Permissive of reviews.shop")
    );
}

#[test]
fn a_service_that_a_policy_opens_to_every_identity_stays_closed_to_callers_without_one() {
    let text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: { name: p, namespace: shop }\nspec: { mtls: { mode: PERMISSIVE } }\n---\n";
    let policy = |from: &str| {
        let text = format!(
            "{text}apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: a, namespace: shop }}\nspec: {{ selector: {{ matchLabels: {{ app: reviews }} }}, rules: [ {{ {from} }} ] }}\n"
        );
        let imported = imported(From::Istio, &text);
        let services = of_kind(&imported, "Service");
        let reviews = services
            .iter()
            .find(|one| one["metadata"]["name"] == "reviews");
        let is_open = reviews.unwrap()["spec"]["mutualTls"] == "Permissive";
        (is_open, errors(&imported))
    };
    let (open, found) = policy("from: [ { source: { principals: [ '*' ] } } ]");
    assert!(!open);
    has(
        &found,
        "spec.mutualTls",
        "AuthorizationPolicy/shop/a allows every identity",
    );
    for from in [
        "",
        "from: [ { source: { principals: [ c/ns/shop/sa/frontend ] } } ]",
    ] {
        let (open, found) = policy(from);
        assert!(open, "{from}");
        assert!(found.is_empty(), "{found:?}");
    }
}
