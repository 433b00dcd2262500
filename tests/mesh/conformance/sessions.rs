//! Sessions of rules (GEP-1619).

use super::fixture::{Answer, Fixture, expect_shares, metric, page, route};
use super::report::judging;
use crate::harness::{eventually, run};

/// The cookie or header with its token, as a client sends it, and who answered.
#[track_caller]
fn begin(fixture: &Fixture, path: &str) -> (String, String, Answer) {
    let answer = fixture.ask(&format!("GET {path}"));
    let told = answer.header("set-cookie");
    let told = told.unwrap_or_else(|| panic!("no session: {answer:?}"));
    let pair = told.split(';').next().unwrap().to_owned();
    (pair, answer.outcome(), answer)
}

#[track_caller]
fn stays(fixture: &Fixture, path: &str, pair: &str, workload: &str, times: usize) {
    for number in 0..times {
        // Other cookies before and after it, which the application sees as they were written.
        let line = format!("a=\"1\";{pair};b=2");
        let answer = fixture.ask(&format!("GET {path} {{Cookie: {line}}}"));
        assert_eq!(answer.outcome(), workload, "{number}: {answer:?}");
        assert_eq!(answer.header("set-cookie"), None, "{number}: {answer:?}");
        assert_eq!(answer.seen("cookie"), Some(line.as_str()));
    }
}

#[test]
fn x50_a_session_stays_at_its_endpoint_over_a_thousand_requests_and_a_restart_of_the_sidecar() {
    let mut fixture = Fixture::start();
    let _judging = judging();
    fixture.apply(&route(
        "x50",
        "- { sessionPersistence: { sessionName: s, type: Cookie }, backendRefs: [ { name: echo, port: 80 } ] }",
    ));
    // X50.
    let (pair, workload, answer) = begin(&fixture, "/");
    let told = answer.header("set-cookie").unwrap();
    assert!(
        told.starts_with("s=") && told.ends_with("; Path=/; Secure; HttpOnly; SameSite=Strict"),
        "{told}"
    );
    assert!(!told.contains("127."), "{told}");
    stays(&fixture, "/", &pair, &workload, 1000);
    assert_eq!(metric(&fixture, "weft_sessions_total", "kept"), 1000.0);
    assert_eq!(metric(&fixture, "weft_sessions_total", "started"), 1.0);
    fixture.restart_client();
    stays(&fixture, "/", &pair, &workload, 50);
    // What `weft routes` says of it.
    let admin = fixture.client().admin().to_string();
    let asked = ["routes", "echo:80", "--admin", &admin, "-o", "json"];
    let shown = fixture.mesh.weft(&asked).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let rule = &shown["ports"][0]["rules"][0];
    assert_eq!(rule["does"][0], "session: the cookie s", "{shown}");
    assert_eq!(rule["backends"][0]["endpoints"], 2, "{shown}");
    assert!(
        rule["last_minute"]["requests"].as_u64() >= Some(50),
        "{shown}"
    );
    assert_eq!(rule["last_minute"]["failures"], 0, "{shown}");
    let table = fixture.mesh.weft(&asked[..4]).ok();
    assert!(
        table.contains("HTTPRoute/shop/x50") && table.contains("P99 MS"),
        "{table}"
    );
    // A token that a client made up is none, and the client gets its own.
    let forged = fixture.ask(
        "GET / {Cookie: s=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA}",
    );
    assert!(forged.header("set-cookie").is_some(), "{forged:?}");
    assert_eq!(
        metric(&fixture, "weft_session_tokens_ignored_total", "unauthentic"),
        1.0
    );
    // No page shows a key.
    let dump = page(&fixture, "/config_dump");
    assert!(
        dump.contains("\"scope\"") && !dump.contains("session_keys"),
        "{dump}"
    );
    // The endpoint goes, and another begins a new session.
    fixture.stop(&workload);
    eventually("the endpoint is gone", || {
        fixture.ask("GET /").outcome() != workload && {
            let answer = fixture.ask(&format!("GET / {{Cookie: {pair}}}"));
            answer.response.status == 200 && answer.header("set-cookie").is_some()
        }
    });
    let answer = fixture.ask(&format!("GET / {{Cookie: {pair}}}"));
    let told = answer.header("set-cookie").unwrap();
    let again = told.split(';').next().unwrap();
    stays(&fixture, "/", again, &answer.outcome(), 50);
}

/// Rotates the key of sessions, while the config service serves.
fn rotate(fixture: &Fixture, more: &[&str]) {
    let mut command = fixture.mesh.weft_command(&["config", "rotate-session-key"]);
    let folder = fixture.mesh.folder().join("config");
    let told = run(command.arg("--dir").arg(folder).args(more));
    assert!(
        told.code == 0 && told.stderr.contains("is rotated"),
        "{told:?}"
    );
}

#[test]
fn no_session_ends_by_a_rotation_of_the_key_until_the_next_one() {
    let fixture = Fixture::start();
    fixture.apply(&route(
        "rotated",
        "- { sessionPersistence: { sessionName: s }, backendRefs: [ { name: echo, port: 80 } ] }",
    ));
    let (pair, workload, _) = begin(&fixture, "/");
    let ends = |pair: &str| {
        let answer = fixture.ask(&format!("GET / {{Cookie: {pair}}}"));
        assert_eq!(answer.response.status, 200, "{answer:?}");
        answer.header("set-cookie").is_some()
    };
    // Whether the sidecar has heard of it or not.
    rotate(&fixture, &[]);
    stays(&fixture, "/", &pair, &workload, 50);
    rotate(&fixture, &[]);
    eventually("the key before the last is given up", || ends(&pair));
    let (pair, workload, _) = begin(&fixture, "/");
    rotate(&fixture, &[]);
    stays(&fixture, "/", &pair, &workload, 50);
    rotate(&fixture, &["--forget"]);
    eventually("every session ends", || ends(&pair));
    let (pair, workload, _) = begin(&fixture, "/");
    stays(&fixture, "/", &pair, &workload, 50);
}

#[test]
fn x51_a_permanent_cookie_lives_as_long_as_its_session_and_a_session_ends_in_time() {
    let fixture = Fixture::start();
    let _judging = judging();
    // X51.
    fixture.apply(&route(
        "x51",
        "- { matches: [ { path: { value: /old } } ], sessionPersistence: { sessionName: s, absoluteTimeout: 5m, cookieConfig: { lifetimeType: Permanent } }, backendRefs: [ { name: echo, port: 80 } ] }\n\
         - { matches: [ { path: { value: /new } } ], sessionPersistence: { absoluteTimeout: 5m, cookie: { name: n, path: /new, lifetimeType: Permanent } }, backendRefs: [ { name: echo, port: 80 } ] }\n\
         - { matches: [ { path: { value: /short } } ], sessionPersistence: { absoluteTimeout: 1s, cookie: { name: t } }, backendRefs: [ { name: echo, port: 80 } ] }\n",
    ));
    for (path, attributes) in [
        ("/old", "Path=/; Max-Age=300"),
        ("/new", "Path=/new; Max-Age=300"),
    ] {
        let (pair, workload, answer) = begin(&fixture, path);
        let told = answer.header("set-cookie").unwrap();
        assert!(told.contains(attributes), "{told}");
        stays(&fixture, path, &pair, &workload, 20);
    }
    let (pair, _, answer) = begin(&fixture, "/short");
    assert!(!answer.header("set-cookie").unwrap().contains("Max-Age"));
    eventually("the session ends", || {
        let answer = fixture.ask(&format!("GET /short {{Cookie: {pair}}}"));
        answer.header("set-cookie").is_some()
    });
    assert!(metric(&fixture, "weft_session_tokens_ignored_total", "expired") >= 1.0);
    let refused = fixture.try_apply(&route(
        "x51",
        "- { sessionPersistence: { cookie: { lifetimeType: Permanent } }, backendRefs: [ { name: echo, port: 80 } ] }",
    ));
    let says = refused.stderr;
    assert!(says.contains("needs an absoluteTimeout"), "{says}");
}

#[test]
fn x52_weights_decide_without_a_session_and_a_session_holds_at_weight_0() {
    let fixture = Fixture::start();
    let _judging = judging();
    let weighed = |one: u32, two: u32| {
        route(
            "x52",
            &format!(
                "- {{ sessionPersistence: {{ sessionName: s }}, backendRefs: [ {{ name: v1, port: 80, weight: {one} }}, {{ name: v2, port: 80, weight: {two} }} ] }}"
            ),
        )
    };
    // X52.
    fixture.apply(&weighed(70, 30));
    expect_shares(&fixture, "X52", &[("v1", 0.7), ("v2", 0.3)]);
    let (pair, ..) = loop {
        let begun = begin(&fixture, "/");
        if begun.1 == "v2" {
            break begun;
        }
    };
    stays(&fixture, "/", &pair, "v2", 50);
    fixture.apply(&weighed(1, 0));
    stays(&fixture, "/", &pair, "v2", 50);
    expect_shares(&fixture, "X52", &[("v1", 1.0)]);
}

#[test]
fn x53_two_rules_have_sessions_of_their_own_by_cookie_and_by_header() {
    let fixture = Fixture::start();
    let _judging = judging();
    // X53: of one name, so that each rule sees the other's token.
    fixture.apply(&route(
        "x53",
        "- { matches: [ { path: { value: /a } } ], sessionPersistence: { sessionName: s }, backendRefs: [ { name: echo, port: 80 } ] }\n\
         - { matches: [ { path: { value: /b } } ], sessionPersistence: { sessionName: s }, backendRefs: [ { name: echo, port: 80 } ] }\n\
         - { matches: [ { path: { value: /h } } ], sessionPersistence: { type: Header, header: { name: X-Session } }, backendRefs: [ { name: echo, port: 80 } ] }\n",
    ));
    let (of_a, at_a, _) = begin(&fixture, "/a");
    let (of_b, at_b) = loop {
        let (pair, workload, _) = begin(&fixture, "/b");
        if workload != at_a {
            break (pair, workload);
        }
    };
    stays(&fixture, "/a", &of_a, &at_a, 20);
    stays(&fixture, "/b", &of_b, &at_b, 20);
    // Both at once, in either order: each rule finds its own.
    stays(&fixture, "/a", &format!("{of_b};{of_a}"), &at_a, 20);
    stays(&fixture, "/b", &format!("{of_b};{of_a}"), &at_b, 20);
    let foreign = fixture.ask(&format!("GET /b {{Cookie: {of_a}}}"));
    assert!(foreign.header("set-cookie").is_some(), "{foreign:?}");
    let begun = fixture.ask("GET /h");
    let token = begun.header("x-session").expect("a header");
    for _ in 0..50 {
        let answer = fixture.ask(&format!("GET /h {{x-session: {token}}}"));
        assert_eq!(answer.outcome(), begun.outcome());
        assert_eq!(answer.header("x-session"), None);
    }
}
