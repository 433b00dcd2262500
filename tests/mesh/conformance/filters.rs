//! What filters do to requests, responses and URLs.

use super::application::ANSWER_WITH;
use super::fixture::{Answer, Fixture, From, route};
use super::report::judging;

/// One of the header changes that most cases ask for.
const CHANGES: &str = "set: [ { name: X-Set-1, value: s1 }, { name: X-Set-2, value: s2 } ], \
    add: [ { name: X-Add-1, value: a1 }, { name: X-Add-2, value: a2 }, { name: X-Add-3, value: a3 } ], \
    remove: [X-Rm-1, X-Rm-2]";

/// `HM` of the cases.
const MODIFY: &str = "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: X-Set, value: S } ], \
    add: [ { name: X-Add, value: A1 }, { name: X-App, value: A2 } ], remove: [X-Rm] } }";

fn rule(prefix: &str, filters: &str) -> String {
    format!(
        "- {{ matches: [ {{ path: {{ type: PathPrefix, value: {prefix} }} }} ], filters: [ {filters} ], \
         backendRefs: [ {{ name: v1, port: 80 }} ] }}\n"
    )
}

fn backend_rule(prefix: &str, filters: &str) -> String {
    format!(
        "- {{ matches: [ {{ path: {{ type: PathPrefix, value: {prefix} }} }} ], \
         backendRefs: [ {{ name: v1, port: 80, filters: [ {filters} ] }} ] }}\n"
    )
}

fn changes(of: &str, what: &str) -> String {
    let field = format!("{}{}", of[..1].to_lowercase(), &of[1..]);
    format!("{{ type: {of}, {field}: {{ {what} }} }}")
}

#[track_caller]
fn expect_seen(case: &str, answer: &Answer, wanted: &[(&str, Option<&str>)]) {
    assert_eq!(answer.response.status, 200, "{case}: {answer:?}");
    for (name, value) in wanted {
        assert_eq!(answer.seen(name), *value, "{case}: {name}: {answer:?}");
    }
}

#[test]
fn headers_of_requests_are_set_added_and_removed_for_a_rule_and_for_a_backend() {
    let _judging = judging("M6, M7, G26");
    let fixture = Fixture::start();
    let kinds = [
        ("/set", "set: [ { name: X-Set, value: S } ]"),
        ("/add", "add: [ { name: X-Add, value: A } ]"),
        ("/remove", "remove: [X-Rm]"),
        ("/multiple", CHANGES),
        (
            "/case-insensitivity",
            "set: [ { name: X-Set, value: s } ], add: [ { name: X-Add, value: a } ], remove: [X-Rm]",
        ),
    ];
    let of_rule: fn(&str, &str) -> String = rule;
    for (case, make) in [("M6", of_rule), ("M7", backend_rule)] {
        let rules =
            kinds.map(|(prefix, what)| make(prefix, &changes("RequestHeaderModifier", what)));
        fixture.apply(&route("headers", &rules.concat()));
        let seen = |request: &str, wanted: &[(&str, Option<&str>)]| {
            expect_seen(case, &fixture.ask(request), wanted);
        };
        seen(
            "GET /set {Other: o}",
            &[("Other", Some("o")), ("X-Set", Some("S"))],
        );
        seen(
            "GET /set {Other: o; X-Set: old}",
            &[("Other", Some("o")), ("X-Set", Some("S"))],
        );
        seen(
            "GET /add {Other: o}",
            &[("Other", Some("o")), ("X-Add", Some("A"))],
        );
        seen(
            "GET /add {Other: o; X-Add: old}",
            &[("X-Add", Some("old,A"))],
        );
        seen("GET /remove {X-Rm: r}", &[("X-Rm", None)]);
        seen(
            "GET /multiple {X-Set-2: q; X-Add-2: q; X-Rm-2: q; Other: o}",
            &[
                ("X-Set-1", Some("s1")),
                ("X-Set-2", Some("s2")),
                ("X-Add-1", Some("a1")),
                ("X-Add-2", Some("q,a2")),
                ("X-Add-3", Some("a3")),
                ("Other", Some("o")),
                ("X-Rm-1", None),
                ("X-Rm-2", None),
            ],
        );
        seen(
            "GET /case-insensitivity {x-set: q; x-add: q; x-rm: q; Other: o}",
            &[
                ("X-Set", Some("s")),
                ("X-Add", Some("q,a")),
                ("Other", Some("o")),
                ("X-Rm", None),
            ],
        );
    }
    // G26: each backend has its own.
    let split = "- { backendRefs: [ \
        { name: v1, port: 80, weight: 10, filters: [ { type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: Backend, value: v1 } ] } } ] }, \
        { name: v2, port: 80, weight: 10, filters: [ { type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: Backend, value: v2 } ] } } ] } ] }";
    fixture.apply(&route("g26", split));
    for _ in 0..100 {
        let answer = fixture.ask("GET /");
        assert_eq!(
            answer.seen("Backend"),
            Some(answer.outcome().as_str()),
            "{answer:?}"
        );
    }
}

#[test]
fn headers_of_responses_are_set_added_and_removed() {
    let _judging = judging("G27, G28");
    let fixture = Fixture::start();
    let response = |what: &str| changes("ResponseHeaderModifier", what);
    let both = format!(
        "{}, {MODIFY}",
        response(
            "set: [ { name: X-Set-1, value: s1 }, { name: X-Set-2, value: s2 } ], \
             add: [ { name: X-Add-1, value: a1 }, { name: X-Add-2, value: a2 } ], remove: [X-Rm-1, X-Rm-2]"
        )
    );
    let rules = [
        rule("/set", &response("set: [ { name: X-Set, value: S } ]")),
        rule("/add", &response("add: [ { name: X-Add, value: A } ]")),
        rule("/remove", &response("remove: [X-Rm]")),
        rule("/multiple", &response(CHANGES)),
        rule(
            "/case",
            &response(
                "set: [ { name: X-Set, value: s } ], add: [ { name: X-Add, value: a }, { name: x-low, value: l }, \
                 { name: x-Mixed-ONE, value: m1 }, { name: X-mixeD-two, value: m2 }, { name: X-UP, value: u } ], \
                 remove: [X-Rm]",
            ),
        ),
        rule("/both", &both),
    ];
    fixture.apply(&route("g27", &rules.concat()));
    for (request, says, wanted) in [
        (
            "/set",
            "Other: o",
            vec![("Other", Some("o")), ("X-Set", Some("S"))],
        ),
        ("/set", "Other: o; X-Set: old", vec![("X-Set", Some("S"))]),
        ("/add", "Other: o", vec![("X-Add", Some("A"))]),
        ("/add", "X-Add: old", vec![("X-Add", Some("old,A"))]),
        ("/remove", "X-Rm: r", vec![("X-Rm", None)]),
        (
            "/multiple",
            "X-Set-2: q; X-Add-2: q; X-Rm-1: q; X-Rm-2: q; Other: o",
            vec![
                ("X-Set-1", Some("s1")),
                ("X-Set-2", Some("s2")),
                ("X-Add-1", Some("a1")),
                ("X-Add-2", Some("q,a2")),
                ("X-Add-3", Some("a3")),
                ("Other", Some("o")),
                ("X-Rm-1", None),
                ("X-Rm-2", None),
            ],
        ),
        (
            "/case",
            "x-set: q; x-add: q; x-rm: q",
            vec![
                ("X-Set", Some("s")),
                ("X-Add", Some("q,a")),
                ("x-low", Some("l")),
                ("x-mixed-one", Some("m1")),
                ("x-mixed-two", Some("m2")),
                ("x-up", Some("u")),
                ("X-Rm", None),
            ],
        ),
    ] {
        let answer = fixture.ask(&format!(
            "GET {request} {{{ANSWER_WITH}: {}}}",
            says.replace("; ", ";")
        ));
        for (name, value) in wanted {
            assert_eq!(
                answer.header(name).as_deref(),
                value,
                "G27 {request}: {name}: {answer:?}"
            );
        }
    }
    let answer = fixture.ask(&format!(
        "GET /both {{X-Rm: r; X-App: p; {ANSWER_WITH}: X-Set-2: q;X-Add-2: q;X-Rm-1: q;Other: o}}"
    ));
    expect_seen(
        "G27 both",
        &answer,
        &[
            ("X-Add", Some("A1")),
            ("X-Set", Some("S")),
            ("X-App", Some("p,A2")),
            ("X-Rm", None),
        ],
    );
    for (name, value) in [
        ("X-Set-1", Some("s1")),
        ("X-Set-2", Some("s2")),
        ("X-Add-1", Some("a1")),
        ("X-Add-2", Some("q,a2")),
        ("Other", Some("o")),
        ("X-Rm-1", None),
    ] {
        assert_eq!(
            answer.header(name).as_deref(),
            value,
            "G27 both: {name}: {answer:?}"
        );
    }
}

fn rewrite(what: &str) -> String {
    format!("{{ type: URLRewrite, urlRewrite: {{ {what} }} }}")
}

fn prefix_to(with: &str) -> String {
    format!("path: {{ type: ReplacePrefixMatch, replacePrefixMatch: \"{with}\" }}")
}

fn full_to(with: &str) -> String {
    format!("path: {{ type: ReplaceFullPath, replaceFullPath: \"{with}\" }}")
}

#[test]
fn a_rewrite_changes_the_path_and_host_that_the_application_sees() {
    let _judging = judging("M17, G29, G30, X54");
    let fixture = Fixture::start();
    let rules = [
        rule("/prefix/one", &rewrite(&prefix_to("/one"))),
        rule("/strip-prefix", &rewrite(&prefix_to("/"))),
        rule("/full/one", &rewrite(&full_to("/one"))),
        rule(
            "/full/rewrite-and-modify",
            &format!("{}, {MODIFY}", rewrite(&full_to("/test"))),
        ),
        rule(
            "/prefix/rewrite-and-modify",
            &format!("{}, {MODIFY}", rewrite(&prefix_to("/prefix"))),
        ),
        // X54.
        rule("/xyz/", &rewrite(&prefix_to("/abc/"))),
        rule("/empty", &rewrite(&prefix_to(""))),
    ];
    fixture.apply(&route("m17", &rules.concat()));
    for (request, path) in [
        ("/prefix/one/two", "/one/two"),
        ("/strip-prefix/three", "/three"),
        ("/strip-prefix", "/"),
        ("/strip-prefix/", "/"),
        ("/full/one/two", "/one"),
        ("/full/one/two?q=1&r", "/one?q=1&r"),
        ("/prefix/one?q=/x", "/one?q=/x"),
        ("/xyz/bar", "/abc/bar"),
        ("/xyz", "/abc"),
        ("/empty/bar", "/bar"),
        ("/empty/", "/"),
        ("/empty", "/"),
    ] {
        let answer = fixture.ask(&format!("GET {request}"));
        assert_eq!(answer.path(), path, "M17, X54: {request}: {answer:?}");
        assert_eq!(answer.seen("Host"), Some("echo"), "{request}");
    }
    for (request, path) in [
        ("/full/rewrite-and-modify/x", "/test"),
        ("/prefix/rewrite-and-modify/one", "/prefix/one"),
    ] {
        let answer = fixture.ask(&format!("GET {request} {{X-Rm: r; X-App: p; X-Set: q}}"));
        assert_eq!(answer.path(), path, "M17: {answer:?}");
        let wanted = [
            ("X-Add", Some("A1")),
            ("X-App", Some("p,A2")),
            ("X-Set", Some("S")),
            ("X-Rm", None),
        ];
        expect_seen("M17", &answer, &wanted);
    }
    // G29.
    let hosts = [
        rule("/one", &rewrite("hostname: one.example.org")),
        rule("/", &rewrite("hostname: example.org")),
        rule(
            "/modify",
            &format!("{}, {MODIFY}", rewrite("hostname: test.example.org")),
        ),
    ];
    fixture.apply(&route("g29", &hosts.concat()));
    for (request, host) in [
        ("/one", "one.example.org"),
        ("/two", "example.org"),
        ("/modify", "test.example.org"),
    ] {
        let answer = fixture.ask(&format!("GET {request} {{X-Rm: r; X-App: p}}"));
        assert_eq!(answer.seen("Host"), Some(host), "G29: {answer:?}");
        assert_eq!(answer.path(), request, "G29: {answer:?}");
    }
    // G30.
    let of_backends = [
        backend_rule("/full", &rewrite(&full_to("/rewritten-full"))),
        backend_rule("/prefix", &rewrite(&prefix_to("/rewritten-prefix"))),
    ];
    fixture.apply(&route("g30", &of_backends.concat()));
    assert_eq!(fixture.ask("GET /full/original").path(), "/rewritten-full");
    assert_eq!(
        fixture.ask("GET /prefix/original").path(),
        "/rewritten-prefix/original"
    );
}

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
fn a_redirect_leads_where_the_route_says_and_no_backend_sees_the_request() {
    let _judging =
        judging("M10, M11, M12, M13, M14, M15, M16, G32, G33, G34, G35, G36, G37, G38, G39");
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
fn a_redirect_of_a_backend_answers_its_share_in_its_place() {
    let _judging = judging("G31");
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
