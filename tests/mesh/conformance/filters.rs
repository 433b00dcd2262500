//! What filters do to requests, responses and URLs.

use super::application::ANSWER_WITH;
use super::fixture::{Answer, Fixture, route};
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
fn m6_m7_g25_g26_headers_of_requests_are_set_added_and_removed_for_a_rule_and_for_a_backend() {
    let _judging = judging();
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
fn g27_g28_headers_of_responses_are_set_added_and_removed() {
    let _judging = judging();
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

pub(super) fn prefix_to(with: &str) -> String {
    format!("path: {{ type: ReplacePrefixMatch, replacePrefixMatch: \"{with}\" }}")
}

pub(super) fn full_to(with: &str) -> String {
    format!("path: {{ type: ReplaceFullPath, replaceFullPath: \"{with}\" }}")
}

#[test]
fn m17_g29_g30_x54_a_rewrite_changes_the_path_and_host_that_the_application_sees() {
    let _judging = judging();
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
