//! Where requests go, what becomes of those whose backend is broken, and what the route's status says of it.

use super::fixture::{Fixture, expect, expect_shares, route};
use super::report::judging;

fn to(backends: &str) -> String {
    format!("- {{ backendRefs: [ {backends} ] }}\n")
}

fn at(path: &str, backends: &str) -> String {
    format!(
        "- {{ matches: [ {{ path: {{ type: Exact, value: {path} }} }} ], backendRefs: [ {backends} ] }}\n"
    )
}

#[track_caller]
fn expect_conditions(fixture: &Fixture, case: &str, wanted: &[(&str, &str)]) {
    let found = fixture.conditions("httproute", "r", "shop");
    for (kind, says) in wanted {
        assert_eq!(
            found.get(*kind).map(String::as_str),
            Some(*says),
            "{case}: {found:?}"
        );
    }
}

const GOOD: [(&str, &str); 2] = [
    ("Accepted", "True Accepted"),
    ("ResolvedRefs", "True ResolvedRefs"),
];

#[test]
fn m5_g23_x13_x14_x16_x17_x18_requests_are_shared_by_weight_and_none_moves_from_a_broken_backend_to_a_good_one()
 {
    let _judging = judging();
    let fixture = Fixture::start();
    let split = |backends: &str| fixture.apply(&route("r", &to(backends)));
    // M5, and G23 and M23: a backend of weight 0 gets nothing, whether it exists or not.
    split("{ name: v1, port: 80, weight: 70 }, { name: v2, port: 80, weight: 30 }");
    expect_shares(&fixture, "M5", &[("v1", 0.7), ("v2", 0.3)]);
    expect_conditions(&fixture, "M5", &GOOD);
    split(
        "{ name: v1, port: 80, weight: 70 }, { name: v2, port: 80, weight: 30 }, { name: nope, port: 80, weight: 0 }",
    );
    expect_shares(&fixture, "M23", &[("v1", 0.7), ("v2", 0.3)]);
    // X13.
    split("{ name: v1, port: 80 }, { name: nope, port: 80 }");
    expect_shares(&fixture, "X13", &[("500", 0.5), ("v1", 0.5)]);
    let broken = [
        ("Accepted", "True Accepted"),
        ("ResolvedRefs", "False BackendNotFound"),
    ];
    expect_conditions(&fixture, "X13", &broken);
    // X14.
    split(
        "{ name: nope, port: 80 }, { group: unknown.example.com, kind: NonExistent, name: v1, port: 80 }",
    );
    expect_shares(&fixture, "X14", &[("500", 1.0)]);
    // X16.
    split("{ name: v1, port: 80, weight: 0 }, { name: v2, port: 80, weight: 0 }");
    expect_shares(&fixture, "X16", &[("500", 1.0)]);
    // X17.
    split("{ name: v1, port: 80, weight: 1000000 }, { name: v2, port: 80, weight: 1000000 }");
    expect_shares(&fixture, "X17", &[("v1", 0.5), ("v2", 0.5)]);
    // X18: the list is no set.
    split("{ name: v1, port: 80 }, { name: v1, port: 80 }, { name: v2, port: 80, weight: 2 }");
    expect_shares(&fixture, "X18", &[("v1", 0.5), ("v2", 0.5)]);
}

#[test]
fn g10_g11_g12_g13_g16_g22_a_reference_that_leads_nowhere_is_answered_with_500_and_the_status_says_why()
 {
    let _judging = judging();
    let fixture = Fixture::start();
    // G10.
    let none = "- { matches: [ { path: { type: Exact, value: /omitted } } ] }\n\
                - { matches: [ { path: { type: Exact, value: /empty } } ], backendRefs: [] }\n";
    fixture.apply(&route(
        "r",
        &(none.to_owned() + &to("{ name: v1, port: 80 }")),
    ));
    expect(
        &fixture,
        "G10",
        &[
            ("GET /forward", "v1"),
            ("GET /omitted", "500"),
            ("GET /empty", "500"),
        ],
    );
    expect_conditions(&fixture, "G10", &GOOD);
    // G11.
    fixture.apply(&route(
        "r",
        &to("{ group: unknown.example.com, kind: NonExistent, name: v1, port: 8080 }"),
    ));
    expect(&fixture, "G11", &[("GET /v2", "500")]);
    expect_conditions(
        &fixture,
        "G11",
        &[
            ("Accepted", "True Accepted"),
            ("ResolvedRefs", "False InvalidKind"),
        ],
    );
    // G12, and a port that the Service lacks.
    for missing in [
        "{ name: nonexistent, port: 8080 }",
        "{ name: v1, port: 81 }",
    ] {
        let told = fixture.apply(&route("r", &to(missing)));
        assert!(told.contains("BackendNotFound"), "{told}");
        expect(&fixture, "G12", &[("GET /", "500")]);
        expect_conditions(
            &fixture,
            "G12",
            &[
                ("Accepted", "True Accepted"),
                ("ResolvedRefs", "False BackendNotFound"),
            ],
        );
    }
    // G13: in a mesh a backend may stand in any namespace.
    fixture.apply(&route("r", &to("{ name: w, namespace: web, port: 8080 }")));
    super::fixture::expect_soon(&fixture, "G13", "GET /", "w");
    expect_conditions(&fixture, "G13", &GOOD);
    // G16 in a mesh: one rule is broken, the other unharmed.
    let rules = at("/v2", "{ name: nope, port: 80 }") + &to("{ name: v1, port: 80 }");
    fixture.apply(&route("r", &rules));
    expect(&fixture, "G16", &[("GET /v2", "500"), ("GET /", "v1")]);
    // G22: the status is of the route as it is now.
    fixture.apply(&route("r", &to("{ name: v1, port: 80 }")));
    expect_conditions(&fixture, "G22", &GOOD);
}

#[test]
fn x19_x20_x21_x22_x23_x27_x29_x49_what_no_route_may_say_is_one_clear_line_and_changes_nothing() {
    let _judging = judging();
    let fixture = Fixture::start();
    fixture.apply(&route("r", &to("{ name: v1, port: 80 }")));
    let redirect = "{ type: RequestRedirect, requestRedirect: { hostname: example.org } }";
    let rewrite = "{ type: URLRewrite, urlRewrite: { hostname: example.org } }";
    let set = "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: a, value: b } ] } }";
    let prefix = "{ type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /x } } }";
    let backend = "backendRefs: [ { name: v1, port: 80 } ]";
    let matching = |value: &str| {
        format!("matches: [ {{ path: {{ type: PathPrefix, value: \"{value}\" }} }} ]")
    };
    let mut bad: Vec<(&str, String)> = vec![
        ("X19", format!("filters: [ {redirect}, {rewrite} ]")),
        ("X20", format!("filters: [ {redirect} ], {backend}")),
        ("X21", format!("filters: [ {set}, {set} ], {backend}")),
        (
            "X22",
            format!(
                "filters: [ {prefix} ], matches: [ {{ path: {{ type: Exact, value: /a }} }} ], {backend}"
            ),
        ),
        (
            "X23",
            format!(
                "filters: [ {{ type: RequestHeaderModifier, requestHeaderModifier: {{ set: [ {{ name: a, value: b }} ], remove: [A] }} }} ], {backend}"
            ),
        ),
        ("X27", mirror("percent: 10, fraction: { numerator: 1 }")),
        ("X27", mirror("fraction: { numerator: 3, denominator: 2 }")),
        ("X27", mirror("percent: 101")),
        (
            "X29",
            format!("timeouts: {{ request: 1s, backendRequest: 2s }}, {backend}"),
        ),
        (
            "weight",
            "backendRefs: [ { name: v1, port: 80, weight: 1000001 } ]".to_owned(),
        ),
        (
            "method",
            format!("matches: [ {{ method: FETCH }} ], {backend}"),
        ),
        (
            "enum",
            format!("filters: [ {{ type: Nonsense }} ], {backend}"),
        ),
        (
            "type",
            format!("filters: [ {{ requestHeaderModifier: {{ remove: [a] }} }} ], {backend}"),
        ),
        (
            "regex",
            format!(
                "matches: [ {{ path: {{ type: RegularExpression, value: \"/(\" }} }} ], {backend}"
            ),
        ),
        (
            "duration",
            format!("timeouts: {{ request: 1.5h }}, {backend}"),
        ),
        ("code", format!("retry: {{ codes: [200] }}, {backend}")),
    ];
    for path in [
        "a", "/a//b", "/a/./b", "/a/..", "/a%2Fb", "/a#b", "/a?b", "/a b", "/ä",
    ] {
        bad.push(("X49", format!("{}, {backend}", matching(path))));
    }
    for (case, rule) in &bad {
        let output = fixture.try_apply(&route("r", &format!("- {{ {rule} }}\n")));
        assert_eq!(output.code, 65, "{case}: {rule}: {output:?}");
        let lines: Vec<&str> = output
            .stderr
            .lines()
            .filter(|line| line.contains("spec.rules"))
            .collect();
        assert!(
            !lines.is_empty() && lines[0].contains("case.yaml:"),
            "{case}: {rule}: {output:?}"
        );
    }
    for good in ["/a%20b", "/a*b", "/a/"] {
        fixture.apply(&route(
            "r",
            &format!("- {{ {}, {backend} }}\n", matching(good)),
        ));
    }
    fixture.apply(&route("r", &to("{ name: v1, port: 80 }")));
    expect(&fixture, "nothing changed", &[("GET /", "v1")]);
}

#[test]
fn x44_a_rule_that_is_not_valid_is_left_out_if_asked_and_the_rules_beside_it_work() {
    let _judging = judging();
    let fixture = Fixture::start();
    let bad =
        at("/bad", "{ name: v2, port: 80 }").replace("- {", "- { filters: [ { type: New } ],");
    let both = route("r", &(bad.clone() + &at("/good", "{ name: v1, port: 80 }")));
    assert_eq!(fixture.try_apply(&both).code, 65);
    let told = fixture.apply_what_is_valid(&both);
    assert!(
        told.stderr
            .contains("warning: spec.rules[0].filters[0].type:")
            && told
                .stdout
                .contains("PartiallyInvalid=True UnsupportedValue: Dropped Rule"),
        "{told:?}"
    );
    expect(&fixture, "X44", &[("GET /good", "v1"), ("GET /bad", "404")]);
    let partly = [
        GOOD[0],
        GOOD[1],
        ("PartiallyInvalid", "True UnsupportedValue"),
    ];
    expect_conditions(&fixture, "X44", &partly);
    // Without a valid rule the route is not in force: requests go as without it.
    fixture.apply_what_is_valid(&route("r", &bad));
    let refused = [("Accepted", "False UnsupportedValue")];
    expect_conditions(&fixture, "X44", &refused);
    let found = fixture.conditions("httproute", "r", "shop");
    assert!(!found.contains_key("PartiallyInvalid"), "{found:?}");
    assert_eq!(fixture.ask("GET /bad").response.status, 200);
}

fn mirror(share: &str) -> String {
    format!(
        "filters: [ {{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: v2, port: 80 }}, {share} }} }} ], \
         backendRefs: [ {{ name: v1, port: 80 }} ]"
    )
}
