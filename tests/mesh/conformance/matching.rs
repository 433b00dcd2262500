//! Which rule takes a request.

use super::fixture::{Fixture, expect, route, route_for};
use super::report::judging;

const TO_V1: &str = "backendRefs: [ { name: v1, port: 80 } ]";
const TO_V2: &str = "backendRefs: [ { name: v2, port: 80 } ]";
const TO_V3: &str = "backendRefs: [ { name: v3, port: 80 } ]";

fn rules(rules: &[(&str, &str)]) -> String {
    let one = |(matches, to): &(&str, &str)| format!("- {{ matches: [ {matches} ], {to} }}\n");
    rules.iter().map(one).collect()
}

fn path(kind: &str, value: &str) -> String {
    format!("path: {{ type: {kind}, value: {value} }}")
}

fn exact(value: &str) -> String {
    path("Exact", value)
}

fn prefix(value: &str) -> String {
    path("PathPrefix", value)
}

fn header(name: &str, value: &str) -> String {
    format!("headers: [ {{ name: {name}, value: {value} }} ]")
}

fn query(name: &str, value: &str) -> String {
    format!("queryParams: [ {{ name: {name}, value: {value} }} ]")
}

fn any(conditions: &[&str]) -> String {
    let each = |one: &&str| format!("{{ {one} }}");
    conditions.iter().map(each).collect::<Vec<_>>().join(", ")
}

#[test]
fn m1_m2_m3_m4_m8_g1_g2_g3_g4_g5_g6_x12_x47_x48_requests_go_where_the_most_specific_match_leads() {
    let _judging = judging();
    let fixture = Fixture::start();

    // M1: without a route.
    for _ in 0..3 {
        let outcome = fixture.ask("GET /").outcome();
        assert!(["v1", "v2"].contains(&outcome.as_str()), "M1: {outcome}");
    }

    // M2.
    let split = rules(&[
        (&any(&[&exact("/v1")]), TO_V1),
        (&any(&[&exact("/v2")]), TO_V2),
    ]);
    let parent = "{ group: \"\", kind: Service, name: echo }";
    fixture.apply(&route_for("m2", "shop", parent, &split));
    expect(&fixture, "M2", &[("GET /v1", "v1"), ("GET /v2", "v2")]);

    // M3, G6.
    let matching = rules(&[
        (&any(&[&prefix("/"), &header("version", "one")]), TO_V1),
        (&any(&[&prefix("/v2"), &header("version", "two")]), TO_V2),
    ]);
    fixture.apply(&route("m3", &matching));
    expect(
        &fixture,
        "M3",
        &[
            ("GET /", "v1"),
            ("GET /example", "v1"),
            ("GET /foo/v2/example", "v1"),
            ("GET / {Version: one}", "v1"),
            ("GET /v2", "v2"),
            ("GET /v2/", "v2"),
            ("GET /v2/example", "v2"),
            ("GET / {Version: two}", "v2"),
            ("GET /v2example", "v1"),
        ],
    );

    // M4.
    fixture.apply(&route("m4", &format!("- {{ {TO_V1} }}")));
    expect(&fixture, "M4", &[("GET /", "v1")]);

    // M8 and G3: names and values of the query, after paths and headers.
    let queries = rules(&[
        (&any(&[&query("animal", "whale")]), TO_V1),
        (&any(&[&query("animal", "dolphin")]), TO_V2),
        (
            &any(&[
                "queryParams: [ { name: animal, value: dolphin }, { name: color, value: blue } ]",
                &query("ANIMAL", "Whale"),
            ]),
            TO_V3,
        ),
        (
            &any(&[&format!(
                "{}, {}",
                prefix("/path1"),
                query("animal", "whale")
            )]),
            TO_V1,
        ),
        (
            &any(&[&format!(
                "{}, {}",
                header("version", "one"),
                query("animal", "whale")
            )]),
            TO_V2,
        ),
        (
            &any(&[&format!(
                "{}, {}, {}",
                prefix("/path2"),
                header("version", "two"),
                query("animal", "whale")
            )]),
            TO_V3,
        ),
        (
            &any(&[
                &format!("{}, {}", prefix("/path3"), query("animal", "shark")),
                &format!(
                    "{}, {}, {}",
                    prefix("/path4"),
                    header("version", "three"),
                    query("animal", "kraken")
                ),
            ]),
            TO_V1,
        ),
        (&any(&[&prefix("/path5")]), TO_V1),
        (&any(&[&query("animal", "hydra")]), TO_V2),
        (&any(&[&header("version", "four")]), TO_V3),
    ]);
    fixture.apply(&route("g3", &queries));
    expect(
        &fixture,
        "M8, G3",
        &[
            ("GET /?animal=whale", "v1"),
            ("GET /?animal=dolphin", "v2"),
            ("GET /?animal=whale&other=x", "v1"),
            ("GET /?animal=dolphin&color=yellow", "v2"),
            ("GET /?animal=dolphin&color=blue", "v3"),
            ("GET /?ANIMAL=Whale", "v3"),
            ("GET /?color=blue", "404"),
            ("GET /?animal=dog", "404"),
            ("GET /?animal=whaledolphin", "404"),
            ("GET /", "404"),
            ("GET /path1?animal=whale", "v1"),
            ("GET /?animal=whale {version: one}", "v2"),
            ("GET /path2?animal=whale {version: two}", "v3"),
            ("GET /path3?animal=shark", "v1"),
            ("GET /path4?animal=kraken {version: three}", "v1"),
            ("GET /?animal=shark", "404"),
            ("GET /path4?animal=kraken", "404"),
            ("GET /path5?animal=hydra", "v1"),
            ("GET /?animal=hydra {version: four}", "v3"),
            // X12.
            ("GET /?b=animal=whale", "404"),
            ("GET /?Animal=whale", "404"),
            ("GET /?animal=Whale", "404"),
        ],
    );

    // G1: methods.
    let methods = rules(&[
        ("{ method: POST }", TO_V1),
        ("{ method: GET }", TO_V2),
        (
            &any(&[&format!("{}, method: GET", prefix("/path1"))]),
            TO_V1,
        ),
        (
            &any(&[&format!("{}, method: PUT", header("version", "one"))]),
            TO_V2,
        ),
        (
            &any(&[&format!(
                "{}, {}, method: POST",
                prefix("/path2"),
                header("version", "two")
            )]),
            TO_V3,
        ),
        (
            &any(&[
                &format!("{}, method: PATCH", prefix("/path3")),
                &format!(
                    "{}, {}, method: DELETE",
                    prefix("/path4"),
                    header("version", "three")
                ),
            ]),
            TO_V1,
        ),
        (&any(&[&prefix("/path5")]), TO_V1),
        ("{ method: PATCH }", TO_V2),
        (&any(&[&header("version", "four")]), TO_V3),
    ]);
    fixture.apply(&route("g1", &methods));
    expect(
        &fixture,
        "G1",
        &[
            ("POST / {content-length: 0}", "v1"),
            ("GET /", "v2"),
            ("HEAD /", "404"),
            ("GET /path1", "v1"),
            ("PUT / {content-length: 0; version: one}", "v2"),
            ("POST /path2 {content-length: 0; version: two}", "v3"),
            ("DELETE /path4 {version: three}", "v1"),
            ("PUT / {content-length: 0}", "404"),
            ("DELETE /path4", "404"),
            ("PATCH /path5 {content-length: 0}", "v1"),
            ("PATCH / {content-length: 0; version: four}", "v2"),
            ("PATCH /path3 {content-length: 0}", "v1"),
        ],
    );

    // G2: headers.
    let headers = rules(&[
        (&any(&[&header("version", "one")]), TO_V1),
        (&any(&[&header("version", "two")]), TO_V2),
        (
            "{ headers: [ { name: version, value: two }, { name: color, value: orange } ] }",
            TO_V1,
        ),
        (
            &any(&[&header("color", "blue"), &header("color", "green")]),
            TO_V1,
        ),
        (
            &any(&[&header("color", "red"), &header("color", "yellow")]),
            TO_V2,
        ),
    ]);
    fixture.apply(&route("g2", &headers));
    expect(
        &fixture,
        "G2",
        &[
            ("GET / {Version: one}", "v1"),
            ("GET / {Version: two}", "v2"),
            ("GET / {Version: two; Color: orange}", "v1"),
            ("GET / {Version: two; Color: blue}", "v2"),
            ("GET / {Color: orange}", "404"),
            ("GET / {Some-Other: one}", "404"),
            ("GET / {Color: blue}", "v1"),
            ("GET / {Color: green}", "v1"),
            ("GET / {Color: red}", "v2"),
            ("GET / {Color: yellow}", "v2"),
            ("GET / {Color: purple}", "404"),
        ],
    );

    // G4: the order of paths.
    let order = rules(&[
        (&any(&[&exact("/match")]), TO_V1),
        (&any(&[&exact("/match/exact")]), TO_V2),
        (&any(&[&exact("/match/exact/one")]), TO_V3),
        (&any(&[&prefix("/match/")]), TO_V3),
        (&any(&[&prefix("/match/prefix/")]), TO_V1),
        (&any(&[&prefix("/match/prefix/one")]), TO_V2),
    ]);
    fixture.apply(&route("g4", &order));
    expect(
        &fixture,
        "G4",
        &[
            ("GET /match/exact/one", "v3"),
            ("GET /match/exact", "v2"),
            ("GET /match", "v1"),
            ("GET /match/prefix/one/any", "v2"),
            ("GET /match/prefix/any", "v1"),
            ("GET /match/any", "v3"),
        ],
    );

    // G5, and X48.
    let exactly = rules(&[
        (&any(&[&exact("/one")]), TO_V1),
        (&any(&[&exact("/two")]), TO_V2),
        (&any(&[&prefix("/foo/")]), TO_V3),
    ]);
    fixture.apply(&route("g5", &exactly));
    expect(
        &fixture,
        "G5, X48",
        &[
            ("GET /one", "v1"),
            ("GET /two", "v2"),
            ("GET /", "404"),
            ("GET /one/example", "404"),
            ("GET /two/", "404"),
            ("GET /Two", "404"),
            ("GET /foo", "v3"),
        ],
    );

    // X47, and GAMMA's way to match hosts.
    let hosts = rules(&[
        (&any(&[&header("host", "echo")]), TO_V1),
        (&any(&[&header("host", "example.com")]), TO_V2),
    ]);
    fixture.apply(&route("x47", &hosts));
    expect(
        &fixture,
        "X47",
        &[
            ("GET / {Host: echo}", "v1"),
            ("GET / {Host: example.com}", "v2"),
            ("GET / {Host: echo:8080}", "404"),
            ("GET / {Host: ECHO}", "404"),
        ],
    );

    // Regular expressions match the whole value.
    let patterns = rules(&[
        (
            "{ path: { type: RegularExpression, value: \"/v[0-9]+/.*\" } }",
            TO_V1,
        ),
        (
            "{ headers: [ { type: RegularExpression, name: color, value: \"dark-.*|black\" } ] }",
            TO_V2,
        ),
        (
            "{ queryParams: [ { type: RegularExpression, name: id, value: \"[a-f]+\" } ] }",
            TO_V3,
        ),
    ]);
    fixture.apply(&route("patterns", &patterns));
    expect(
        &fixture,
        "regular expressions",
        &[
            ("GET /v12/x", "v1"),
            ("GET /x/v12/x", "404"),
            ("GET / {Color: dark-red}", "v2"),
            ("GET / {Color: blackish}", "404"),
            ("GET /?id=abc", "v3"),
            ("GET /?id=abg", "404"),
        ],
    );
}

#[test]
fn g7_g9_x1_x2_x3_x4_x5_x6_x7_x8_x9_precedence_is_over_all_routes_of_a_parent() {
    let _judging = judging();
    let fixture = Fixture::start();
    let taken = |case: &str, resources: &[String], request: &str, outcome: &str| {
        fixture.apply(&resources.concat());
        expect(&fixture, case, &[(request, outcome)]);
    };
    let one = |name: &str, matches: &str, to: &str| route(name, &rules(&[(matches, to)]));

    // X2: neither is older, as both come with one change.
    let same = [
        one("aa", &any(&[&exact("/a")]), TO_V1),
        one("bb", &any(&[&exact("/a")]), TO_V2),
    ];
    taken("X2", &same, "GET /a", "v1");
    // X1: `zz` was there first.
    fixture.apply(&one("zz", &any(&[&exact("/a")]), TO_V2));
    crate::harness::pause(std::time::Duration::from_millis(1100));
    let both = [
        one("zz", &any(&[&exact("/a")]), TO_V2),
        one("aa", &any(&[&exact("/a")]), TO_V1),
    ];
    taken("X1", &both, "GET /a", "v2");
    // X3.
    let within = [route(
        "x3",
        &rules(&[
            (&any(&[&exact("/a")]), TO_V1),
            (&any(&[&exact("/a")]), TO_V2),
        ]),
    )];
    taken("X3", &within, "GET /a", "v1");
    // X4.
    let all = format!(
        "{}, {}, {}, method: GET",
        prefix("/a"),
        header("x", "\"1\""),
        query("q", "\"1\"")
    );
    let x4 = [
        one("a", &any(&[&exact("/a")]), TO_V1),
        one("b", &any(&[&all]), TO_V2),
    ];
    taken("X4", &x4, "GET /a?q=1 {x: 1}", "v1");
    // X5.
    let shorter = format!("{}, {}, method: GET", prefix("/a"), header("x", "\"1\""));
    let x5 = [
        one("a", &any(&[&prefix("/aa")]), TO_V1),
        one("b", &any(&[&shorter]), TO_V2),
    ];
    taken("X5", &x5, "GET /aa {x: 1}", "v1");
    // X6.
    let two = "headers: [ { name: x, value: \"1\" }, { name: y, value: \"1\" } ]";
    let x6 = [
        one("a", "{ method: GET }", TO_V1),
        one("b", &any(&[two]), TO_V2),
    ];
    taken("X6", &x6, "GET / {x: 1; y: 1}", "v1");
    // X7.
    let queries = "queryParams: [ { name: p, value: \"1\" }, { name: q, value: \"1\" } ]";
    let x7 = [
        one("a", &any(&[&header("x", "\"1\"")]), TO_V1),
        one("b", &any(&[queries]), TO_V2),
    ];
    taken("X7", &x7, "GET /?p=1&q=1 {x: 1}", "v1");
    // X8: each match ranks alone.
    let x8 = [
        one("a", &any(&[&exact("/a"), &prefix("/")]), TO_V1),
        one("b", &any(&[&prefix("/b")]), TO_V2),
    ];
    taken("X8", &x8, "GET /b", "v2");
    // X9: no match is the prefix `/`.
    let x9 = [
        route("a", &format!("- {{ {TO_V1} }}")),
        one("b", &any(&[&header("x", "\"1\"")]), TO_V2),
    ];
    taken("X9", &x9, "GET / {x: 1}", "v2");
    expect(&fixture, "X9", &[("GET /", "v1")]);
    // G7: matches of several routes, in one order.
    let at_host =
        |conditions: &str| format!("headers: [ {{ name: host, value: example.com }}{conditions} ]");
    let version = |value: &str| at_host(&format!(", {{ name: version, value: {value} }}"));
    let in_path = |value: &str| format!("{}, {}", prefix(value), at_host(""));
    let g7 = [
        one("a", &any(&[&in_path("/"), &version("one")]), TO_V1),
        one("b", &any(&[&in_path("/v2"), &version("two")]), TO_V2),
    ];
    fixture.apply(&g7.concat());
    let rows = [
        ("GET / {Host: example.com}", "v1"),
        ("GET /example {Host: example.com}", "v1"),
        ("GET /example {Host: example.com; Version: one}", "v1"),
        ("GET /v2 {Host: example.com}", "v2"),
        ("GET /v2/example {Host: example.com}", "v2"),
        ("GET / {Host: example.com; Version: two}", "v2"),
        ("GET / {Host: example.net}", "404"),
    ];
    expect(&fixture, "G7", &rows);
    // G9: routes that share a parent, and one with several.
    let shared = route_for(
        "shared",
        "shop",
        "{ group: \"\", kind: Service, name: echo, port: 80 }, { group: \"\", kind: Service, name: v3 }",
        &rules(&[(&any(&[&prefix("/shared")]), TO_V1)]),
    );
    let g9 = [
        shared,
        route("own", &rules(&[(&any(&[&prefix("/")]), TO_V2)])),
    ];
    taken("G9", &g9, "GET /shared", "v1");
    expect(&fixture, "G9", &[("GET /x", "v2")]);
}
