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
