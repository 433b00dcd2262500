//! `weft explain` says what the mesh then does.

use serde_json::Value;

use super::fixture::{Fixture, expect, route};
use super::report::judging;

/// The answer of `weft explain` for a request of the client to `echo:80`.
#[track_caller]
fn explained(fixture: &Fixture, arguments: &[&str]) -> Value {
    let fixed = [
        "explain", "--from", "client", "--to", "echo:80", "-n", "shop", "-o", "json",
    ];
    let text = fixture.mesh.weft(&[&fixed, arguments].concat()).ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn m9_g24_explain_names_the_rule_the_backend_and_the_status_that_a_request_then_gets() {
    let _judging = judging();
    let fixture = Fixture::start();
    let rules = "- { name: second, matches: [ { path: { type: PathPrefix, value: /v2 }, method: GET } ], backendRefs: [ { name: v2, port: 80 } ] }\n\
        - { name: moved, matches: [ { path: { type: Exact, value: /old } } ], filters: [ { type: RequestRedirect, requestRedirect: { hostname: example.org } } ] }\n\
        - { name: header, matches: [ { headers: [ { name: version, value: one } ] } ], backendRefs: [ { name: v1, port: 80 } ] }\n\
        - { name: broken, matches: [ { path: { type: PathPrefix, value: /nope } } ], backendRefs: [ { name: nope, port: 80 } ] }\n";
    fixture.apply(&route("explained", rules));
    let second = explained(&fixture, &["--path", "/v2/x?q=1"]);
    assert_eq!(second["route"], "HTTPRoute/shop/explained");
    assert_eq!(second["rule"], "second");
    assert_eq!(second["backend"], "v2.shop:80");
    assert_eq!(second["authorized"], true);
    assert_eq!(second["sources"], serde_json::json!([]));
    assert_eq!(second["status"], Value::Null);
    let header = explained(&fixture, &["--path", "/", "--header", "version=one"]);
    assert_eq!(header["rule"], "header");
    let none = explained(&fixture, &["--path", "/v2", "--method", "POST"]);
    assert_eq!(none["status"], 404);
    assert!(
        none["passed_over"]
            .to_string()
            .contains("the method is not GET"),
        "{none}"
    );
    let moved = explained(&fixture, &["--path", "/old"]);
    let source = &moved["sources"][0];
    assert_eq!(source["field"], "filters.requestRedirect", "{moved}");
    let place = "HTTPRoute/shop/explained spec.rules[1]";
    assert_eq!(source["from"]["rule"], place, "{moved}");
    assert_eq!(
        (&moved["status"], moved["answer"].as_str()),
        (&302.into(), Some("http://example.org/old"))
    );
    let broken = explained(&fixture, &["--path", "/nope"]);
    assert_eq!(broken["status"], 500);
    assert!(broken.to_string().contains("BackendNotFound"), "{broken}");
    let rows = [
        ("GET /v2/x?q=1", "v2"),
        ("GET / {version: one}", "v1"),
        ("POST /v2 {content-length: 0}", "404"),
        ("GET /old", "302"),
        ("GET /nope", "500"),
    ];
    expect(&fixture, "as explained", &rows);
    // A policy that refuses the call, and files instead of what is in force.
    fixture.apply(
        &(route("explained", rules)
            + "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: { name: no-v2, namespace: shop }\n\
               spec: { targetRefs: [ { kind: Service, name: v2 } ], action: Deny, to: [ { paths: [\"/v2/*\"] } ] }\n"),
    );
    let denied = explained(&fixture, &["--path", "/v2/x"]);
    assert_eq!(denied["authorized"], false, "{denied}");
    assert!(
        denied["decisions"]
            .to_string()
            .contains("AuthorizationPolicy/shop/no-v2"),
        "{denied}"
    );
    let file = fixture.mesh.folder().join("case.yaml");
    let offline = explained(&fixture, &["--path", "/v2/x", "-f", file.to_str().unwrap()]);
    assert_eq!(offline["backend"], "v2.shop:80");
    assert_eq!(offline["authorized"], false);
    expect(&fixture, "as explained", &[("GET /v2/x", "403")]);
}
