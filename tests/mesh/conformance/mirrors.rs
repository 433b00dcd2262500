//! Copies of requests.

use super::fixture::{Fixture, route};
use super::report::judging;
use crate::harness::eventually;

fn mirror(to: &str, more: &str) -> String {
    format!(
        "{{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: {to}, port: 80 }}{more} }} }}"
    )
}

fn rule(path: &str, filters: &str) -> String {
    format!(
        "- {{ matches: [ {{ path: {{ type: PathPrefix, value: {path} }} }} ], filters: [ {filters} ], \
         backendRefs: [ {{ name: v1, port: 80 }} ] }}\n"
    )
}

fn copies(fixture: &Fixture, workload: &str, path: &str) -> usize {
    let requests = fixture.applications[workload].requests();
    requests.iter().filter(|one| one.path() == path).count()
}

#[test]
fn g40_g41_x25_x28_a_mirror_gets_a_copy_and_the_caller_the_answer_of_the_backend() {
    let _judging = judging();
    let fixture = Fixture::start();
    let modify = "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: X-Set, value: S } ] } }";
    let rules = [
        rule("/mirror", &mirror("v2", "")),
        rule("/modified", &format!("{modify}, {}", mirror("v2", ""))),
        rule(
            "/both",
            &format!("{}, {}", mirror("v2", ""), mirror("v3", "")),
        ),
        rule("/none", &mirror("v2", ", percent: 0")),
        rule("/all", &mirror("v2", ", percent: 100")),
        rule("/broken", &mirror("nope", "")),
        rule("/one-of-two", &mirror("echo", "")),
    ];
    fixture.apply(&route("g40", &rules.concat()));
    let once = |path: &str| {
        let answer = fixture.ask(&format!("GET {path}"));
        assert_eq!(answer.outcome(), "v1", "{path}: {answer:?}");
        answer
    };
    let arrives = |workload: &str, path: &str| {
        eventually(&format!("{workload} gets a copy of {path}"), || {
            copies(&fixture, workload, path) == 1
        });
    };
    // G40.
    once("/mirror?id=1");
    arrives("v2", "/mirror?id=1");
    assert_eq!(once("/modified?id=1").seen("X-Set"), Some("S"));
    arrives("v2", "/modified?id=1");
    // G41.
    once("/both?id=1");
    arrives("v2", "/both?id=1");
    arrives("v3", "/both?id=1");
    // X25.
    once("/broken");
    let found = fixture.conditions("httproute", "g40", "shop");
    assert_eq!(found["ResolvedRefs"], "False BackendNotFound", "{found:?}");
    // X27.
    once("/none?id=1");
    once("/all?id=1");
    arrives("v2", "/all?id=1");
    assert_eq!(copies(&fixture, "v2", "/none?id=1"), 0);
    // X28: exactly one endpoint of two; `v1` answers the request itself.
    for i in 0..10 {
        once(&format!("/one-of-two?id={i}"));
    }
    eventually("each was mirrored once", || {
        let of = |workload| {
            (0..10)
                .map(|i| copies(&fixture, workload, &format!("/one-of-two?id={i}")))
                .sum::<usize>()
        };
        of("v1") + of("v2") == 20
    });
}

#[test]
fn g42_a_share_of_requests_is_mirrored_each_drawn_for_itself() {
    let _judging = judging();
    let fixture = Fixture::start();
    let rules = [
        rule("/percent", &mirror("v2", ", percent: 20")),
        rule(
            "/fraction",
            &mirror("v2", ", fraction: { numerator: 25, denominator: 50 }"),
        ),
        rule("/small", &mirror("v2", ", fraction: { numerator: 1 }")),
    ];
    fixture.apply(&route("g42", &rules.concat()));
    // Three standard deviations, and once more for what the suite repeats.
    for (path, expected, off) in [
        ("/percent", 100, 36),
        ("/fraction", 250, 45),
        ("/small", 5, 9),
    ] {
        for _ in 0..500 {
            assert_eq!(fixture.ask(&format!("GET {path}")).outcome(), "v1");
        }
        let mut before = usize::MAX;
        eventually("all copies have come", || {
            let now = copies(&fixture, "v2", path);
            std::mem::replace(&mut before, now) == now
        });
        assert!(before.abs_diff(expected) <= off, "G42 {path}: {before}");
    }
}
