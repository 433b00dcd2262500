//! Redirects: where they lead.

use super::filters::{full_to, prefix_to};
use super::fixture::{Fixture, From, route};
use super::report::judging;

fn redirect(what: &str) -> String {
    format!("{{ type: RequestRedirect, requestRedirect: {{ {what} }} }}")
}

fn redirecting(prefix: &str, what: &str) -> String {
    format!(
        "- {{ matches: [ {{ path: {{ type: PathPrefix, value: {prefix} }} }} ], filters: [ {} ] }}\n",
        redirect(what)
    )
}

#[test]
fn m10_m11_m12_m13_m14_m15_m16_g32_g33_g34_g35_g36_g37_g38_g39_a_redirect_leads_where_the_route_says_and_no_backend_sees_the_request()
 {
    let _judging = judging();
    let fixture = Fixture::start();
    let host = "hostname: example.org";
    let rows = [
        // M10.
        (
            "/hostname-redirect",
            "",
            host.to_owned(),
            302,
            "http://example.org/hostname-redirect",
        ),
        (
            "/host-and-status",
            "",
            format!("{host}, statusCode: 301"),
            301,
            "http://example.org/host-and-status",
        ),
        // M11 to M13.
        (
            "/redirect",
            "",
            "statusCode: 303".to_owned(),
            303,
            "http://echo/redirect",
        ),
        (
            "/temporary",
            "",
            "statusCode: 307".to_owned(),
            307,
            "http://echo/temporary",
        ),
        (
            "/permanent",
            "",
            "statusCode: 308".to_owned(),
            308,
            "http://echo/permanent",
        ),
        // M14.
        (
            "/original-prefix",
            "/lemon?q=1",
            prefix_to("/replacement-prefix"),
            302,
            "http://echo/replacement-prefix/lemon?q=1",
        ),
        (
            "/full",
            "/path/original",
            full_to("/full-path-replacement"),
            302,
            "http://echo/full-path-replacement",
        ),
        (
            "/path-and-host",
            "",
            format!("{host}, {}", prefix_to("/replacement-prefix")),
            302,
            "http://example.org/replacement-prefix",
        ),
        (
            "/path-and-status",
            "",
            format!("{}, statusCode: 301", prefix_to("/replacement-prefix")),
            301,
            "http://echo/replacement-prefix",
        ),
        (
            "/full-path-and-host",
            "",
            format!("{host}, {}", full_to("/replacement-full")),
            302,
            "http://example.org/replacement-full",
        ),
        // M15.
        (
            "/port",
            "",
            "port: 8083".to_owned(),
            302,
            "http://echo:8083/port",
        ),
        (
            "/port-and-host",
            "",
            format!("{host}, port: 8083"),
            302,
            "http://example.org:8083/port-and-host",
        ),
        // M16.
        (
            "/scheme",
            "",
            "scheme: https".to_owned(),
            302,
            "https://echo/scheme",
        ),
        (
            "/scheme-and-host",
            "",
            format!("{host}, scheme: https, statusCode: 301"),
            301,
            "https://example.org/scheme-and-host",
        ),
        // G39.
        (
            "/http-80",
            "",
            format!("{host}, port: 80"),
            302,
            "http://example.org/http-80",
        ),
        (
            "/https-443",
            "",
            format!("{host}, scheme: https, port: 443"),
            302,
            "https://example.org/https-443",
        ),
        (
            "/https-8443",
            "",
            format!("{host}, scheme: https, port: 8443"),
            302,
            "https://example.org:8443/https-8443",
        ),
    ];
    let rules: Vec<String> = rows
        .iter()
        .map(|(path, _, what, _, _)| redirecting(path, what))
        .collect();
    // A route has at most 16 rules.
    let (first, second) = rules.split_at(9);
    fixture.apply(&(route("first", &first.concat()) + &route("second", &second.concat())));
    for (path, rest, _, status, location) in &rows {
        let answer = fixture.ask(&format!("GET {path}{rest}"));
        assert_eq!(answer.response.status, *status, "{path}: {answer:?}");
        assert_eq!(
            answer.header("location").as_deref(),
            Some(*location),
            "{path}: {answer:?}"
        );
    }
    assert!(fixture.applications["v1"].requests().is_empty());
    // G39: without scheme and port, the port is that of the Service that was addressed.
    let parent = "{ group: \"\", kind: Service, name: echo, port: 8080 }";
    let rules =
        redirecting("/same", host) + &redirecting("/https", &format!("{host}, scheme: https"));
    fixture.apply(&super::fixture::route_for("g39", "shop", parent, &rules));
    for (path, location) in [
        ("/same", "http://example.org:8080/same"),
        ("/https", "https://example.org/https"),
    ] {
        let answer = fixture.ask_of(From::Shop, "echo:8080", &format!("GET {path}"));
        assert_eq!(
            answer.header("location").as_deref(),
            Some(location),
            "G39 {path}: {answer:?}"
        );
    }
    // G36: also where the request has a body.
    fixture.apply(&route("g36", &redirecting("/see-other", "statusCode: 303")));
    assert_eq!(
        fixture
            .ask("POST /see-other {content-length: 0}")
            .response
            .status,
        303
    );
}

#[test]
fn g31_a_redirect_of_a_backend_answers_its_share_in_its_place() {
    let _judging = judging();
    let fixture = Fixture::start();
    let rule = |prefix: &str, path: &str| {
        format!(
            "- {{ matches: [ {{ path: {{ type: PathPrefix, value: {prefix} }} }} ], backendRefs: [ {{ name: v1, port: 80, \
             filters: [ {{ type: RequestRedirect, requestRedirect: {{ path: {{ {path} }} }} }} ] }} ] }}\n"
        )
    };
    let rules = rule(
        "/full",
        "type: ReplaceFullPath, replaceFullPath: /redirected-full",
    ) + &rule(
        "/prefix",
        "type: ReplacePrefixMatch, replacePrefixMatch: /redirected-prefix",
    );
    fixture.apply(&route("g31", &rules));
    for (path, location) in [
        ("/full/original", "http://echo/redirected-full"),
        ("/prefix/original", "http://echo/redirected-prefix/original"),
    ] {
        let answer = fixture.ask(&format!("GET {path}"));
        let found = (answer.response.status, answer.header("location"));
        assert_eq!(
            found,
            (302, Some(location.to_owned())),
            "G31 {path}: {answer:?}"
        );
    }
    assert!(fixture.applications["v1"].requests().is_empty());
}
