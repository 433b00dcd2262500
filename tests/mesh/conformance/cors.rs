//! Calls from pages of other origins.

use super::fixture::{Answer, Fixture, route};
use super::report::judging;

fn rule(path: &str, cors: &str) -> String {
    format!(
        "- {{ matches: [ {{ path: {{ type: PathPrefix, value: {path} }} }} ], filters: [ {{ type: CORS, cors: {{ {cors} }} }} ], \
         backendRefs: [ {{ name: v1, port: 80 }} ] }}\n"
    )
}

fn preflight(fixture: &Fixture, path: &str, origin: &str, method: &str, headers: &str) -> Answer {
    let mut fields = format!("Origin: {origin}; Access-Control-Request-Method: {method}");
    if !headers.is_empty() {
        fields += &format!("; Access-Control-Request-Headers: {headers}");
    }
    let answer = fixture.ask(&format!("OPTIONS {path} {{{fields}}}"));
    assert!(
        [200, 204].contains(&answer.response.status),
        "{path} {origin}: {answer:?}"
    );
    assert_eq!(
        answer.seen("host"),
        None,
        "the backend saw a preflight: {answer:?}"
    );
    answer
}

fn list(answer: &Answer, name: &str) -> Vec<String> {
    let text = answer
        .header(&format!("Access-Control-{name}"))
        .unwrap_or_default();
    let mut found: Vec<String> = text
        .split(',')
        .map(|one| one.trim().to_ascii_lowercase())
        .collect();
    found.retain(|one| !one.is_empty());
    found.sort();
    found
}

fn value(answer: &Answer, name: &str) -> Option<String> {
    answer.header(&format!("Access-Control-{name}"))
}

#[test]
fn g47_a_preflight_is_answered_by_the_mesh_and_other_requests_get_their_headers() {
    let _judging = judging();
    let fixture = Fixture::start();
    let rules = [
        rule(
            "/c1",
            "allowOrigins: [\"https://www.foo.com\", \"https://*.bar.com\"], allowMethods: [GET, OPTIONS], \
             allowHeaders: [x-1, x-2], exposeHeaders: [x-3, x-4], allowCredentials: true, maxAge: 3600",
        ),
        rule(
            "/c2",
            "allowOrigins: [\"https://www.foo.com\"], allowMethods: [\"*\"]",
        ),
        rule(
            "/c3",
            "allowOrigins: [\"*\"], allowMethods: [PUT], allowCredentials: false",
        ),
        rule(
            "/c4",
            "allowOrigins: [\"*\"], allowMethods: [\"*\"], allowHeaders: [\"*\"], allowCredentials: true",
        ),
        rule(
            "/c5",
            "allowOrigins: [\"*\"], allowMethods: [\"*\"], allowHeaders: [\"*\"], allowCredentials: false",
        ),
    ];
    fixture.apply(&route("g47", &rules.concat()));
    // 1 to 3.
    for origin in [
        "https://www.foo.com",
        "https://www.bar.com",
        "https://xpto.www.bar.com",
    ] {
        let answer = preflight(&fixture, "/c1", origin, "GET", "x-1, x-2");
        assert_eq!(value(&answer, "Allow-Origin").as_deref(), Some(origin));
        for method in ["get", "options"] {
            assert!(
                list(&answer, "Allow-Methods").contains(&method.to_owned()),
                "{answer:?}"
            );
        }
        assert_eq!(list(&answer, "Allow-Headers"), ["x-1", "x-2"]);
        assert_eq!(list(&answer, "Expose-Headers"), ["x-3", "x-4"]);
        assert_eq!(value(&answer, "Max-Age").as_deref(), Some("3600"));
        assert_eq!(value(&answer, "Allow-Credentials").as_deref(), Some("true"));
    }
    // 4; `*.bar.com` is not bar.com.
    for stranger in [
        "https://foobar.com",
        "https://bar.com",
        "https://www.foo.com:8443",
    ] {
        let answer = preflight(&fixture, "/c1", stranger, "GET", "");
        assert_eq!(
            value(&answer, "Allow-Origin"),
            None,
            "{stranger}: {answer:?}"
        );
    }
    // 5 to 7: what is no preflight reaches the application.
    for (origin, allowed) in [
        ("https://www.foo.com", true),
        ("https://www.bar.com", true),
        ("https://foobar.com", false),
    ] {
        let fields = format!("Origin: {origin}; Access-Control-Request-Method: GET");
        let answer = fixture.ask(&format!("GET /c1 {{{fields}}}"));
        assert_eq!(answer.outcome(), "v1", "{origin}");
        let found = value(&answer, "Allow-Origin");
        assert_eq!(found.as_deref(), allowed.then_some(origin), "{answer:?}");
    }
    // 8, 9: the default of maxAge is 5 s.
    let answer = preflight(&fixture, "/c2", "https://www.foo.com", "POST", "");
    assert_eq!(
        value(&answer, "Allow-Origin").as_deref(),
        Some("https://www.foo.com")
    );
    let methods = list(&answer, "Allow-Methods");
    assert!(methods == ["*"] || methods == ["post"], "{answer:?}");
    assert_eq!(value(&answer, "Allow-Credentials"), None);
    assert_eq!(value(&answer, "Max-Age").as_deref(), Some("5"));
    // 10 to 13.
    for origin in ["https://foobar.com", "https://foobar.com:12345"] {
        let answer = preflight(&fixture, "/c3", origin, "PUT", "");
        assert!(
            list(&answer, "Allow-Methods").contains(&"put".to_owned()),
            "{answer:?}"
        );
        let put = fixture.ask(&format!("PUT /c3 {{content-length: 0; Origin: {origin}}}"));
        assert_eq!(put.outcome(), "v1");
        for answer in [answer, put] {
            let allowed = value(&answer, "Allow-Origin").unwrap();
            assert!(allowed == "*" || allowed == origin, "{answer:?}");
            assert_eq!(value(&answer, "Allow-Credentials"), None);
        }
    }
    // 14: with credentials nothing is `*`.
    let other = "https://other.foo.com";
    let answer = preflight(&fixture, "/c4", other, "PUT", "x-1, x-2");
    assert_eq!(value(&answer, "Allow-Origin").as_deref(), Some(other));
    assert_eq!(list(&answer, "Allow-Methods"), ["put"]);
    assert_eq!(list(&answer, "Allow-Headers"), ["x-1", "x-2"]);
    assert_eq!(value(&answer, "Allow-Credentials").as_deref(), Some("true"));
    // 15 to 17.
    let answer = preflight(&fixture, "/c5", other, "PUT", "x-1, x-2");
    assert_eq!(value(&answer, "Allow-Credentials"), None);
    let methods = list(&answer, "Allow-Methods");
    assert!(
        methods == ["*"] || methods.contains(&"put".to_owned()),
        "{answer:?}"
    );
    let with = fixture.ask(&format!("GET /c4 {{Origin: {other}}}"));
    assert_eq!(value(&with, "Allow-Origin").as_deref(), Some(other));
    assert_eq!(value(&with, "Allow-Credentials").as_deref(), Some("true"));
    let without = fixture.ask(&format!("GET /c5 {{Origin: {other}}}"));
    assert!(["*", other].contains(&value(&without, "Allow-Origin").unwrap().as_str()));
    assert_eq!(value(&without, "Allow-Credentials"), None);
}
