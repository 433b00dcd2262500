//! Cookies of sessions that get in each other's way.

use super::*;

/// The findings of a route with a rule for each of these, which are `/path of requests: cookie`.
fn rules(cookies: &[(&str, &str)]) -> Vec<String> {
    let rules: String = cookies
        .iter()
        .map(|(path, cookie)| {
            format!(
                "    - {{matches: [{{path: {{value: {path}}}}}], sessionPersistence: {{cookie: {cookie}}}, \
                 backendRefs: [{{name: orders, port: 80}}]}}\n"
            )
        })
        .collect();
    check(&route(&rules))
}

#[test]
fn two_rules_of_a_service_with_one_cookie_are_a_warning() {
    let same = rules(&[("/a", "{name: s}"), ("/b", "{name: s}")]);
    assert_eq!(
        same,
        [
            "mesh.yaml:23: warning: spec.rules[1].sessionPersistence: HTTPRoute/shop/split \
             spec.rules[0].sessionPersistence has a cookie s of the same path, and clients of orders.shop keep \
             one of the two; give each rule a cookie of its own name"
        ]
    );
    for (one, other) in [
        ("/", "/b"),
        ("/b", "/"),
        ("/b", "/b/c"),
        ("/b/c", "/b/"),
        ("/b/", "/b/c"),
    ] {
        let cookie = |path| format!("{{name: s, path: {path}}}");
        let found = rules(&[("/a", &cookie(one)), ("/b", &cookie(other))]);
        assert_eq!(found.len(), 1, "{one} {other}: {found:#?}");
        let says =
            format!("clients of orders.shop send both where the paths {one} and {other} overlap;");
        assert!(found[0].contains(&says), "{found:#?}");
    }
}

#[test]
fn cookies_of_other_names_paths_and_services_are_apart() {
    for apart in [
        [("/a", "{name: s}"), ("/b", "{name: t}")],
        [("/a", "{}"), ("/b", "{}")],
        [("/a", "{name: s, path: /a}"), ("/b", "{name: s, path: /b}")],
        [
            ("/a", "{name: s, path: /a}"),
            ("/b", "{name: s, path: /ab}"),
        ],
        [
            ("/a", "{name: s, path: /a/}"),
            ("/b", "{name: s, path: /ab/a/}"),
        ],
    ] {
        assert_eq!(rules(&apart), Vec::<String>::new(), "{apart:?}");
    }
    let session = "    - {sessionPersistence: {cookie: {name: s}}, backendRefs: [{name: orders, port: 80}]}\n";
    let first = route(session) + "---\n";
    let second = first.split("---\n").nth(2).unwrap();
    let second = second.replace("name: split", "name: other");
    let other = second.replace("Service, name: orders", "Service, name: carts");
    assert_eq!(
        check(&(first.clone() + &service("carts", "http") + &other)),
        Vec::<String>::new()
    );
    // Two routes of one Service are as two rules, but for their equal conditions.
    let found = check(&(first + &second));
    assert!(
        found
            .iter()
            .any(|one| one.contains("has a cookie s of the same path")),
        "{found:#?}"
    );
}
