//! Time limits and further attempts.

use std::time::{Duration, Instant};

use super::fixture::{Fixture, route};
use super::report::judging;

fn rule(path: &str, more: &str) -> String {
    format!(
        "- {{ matches: [ {{ path: {{ type: PathPrefix, value: {path} }} }} ], {more}, \
         backendRefs: [ {{ name: v3, port: 80 }} ] }}\n"
    )
}

/// The budget of retries is on; the cases need more of them than a quiet service may have.
const BUDGET: &str = "---\napiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: { name: budget, namespace: shop }\n\
    spec: { targetRefs: [ { kind: Service, name: v3 } ], retryBudget: { minRetriesPerSecond: 1000 } }\n";

struct Tries {
    code: u32,
    fails: u32,
    delay: u32,
}

/// A request that fails so often before it is answered; each has a key of its own.
fn ask(fixture: &Fixture, path: &str, key: &str, tries: &Tries) -> String {
    let Tries { code, fails, delay } = tries;
    let query = format!("uuid={key}&succeedAfter={fails}&responseCode={code}&delayRetry={delay}");
    fixture.ask(&format!("GET {path}?{query}")).outcome()
}

#[test]
fn g43_a_request_takes_no_longer_than_its_route_allows() {
    let _judging = judging();
    let fixture = Fixture::start();
    let rules = [
        rule("/t", "timeouts: { request: 500ms }"),
        rule("/off", "timeouts: { request: 0s }"),
        rule("/b", "timeouts: { backendRequest: 500ms }"),
        rule("/boff", "timeouts: { request: 0s, backendRequest: 0s }"),
    ];
    fixture.apply(&route("g43", &rules.concat()));
    for (request, outcome) in [
        ("GET /t", "v3"),
        ("GET /t?delay=1000", "504"),
        ("GET /off?delay=1000", "v3"),
        ("GET /b", "v3"),
        ("GET /b?delay=1000", "504"),
        ("GET /boff?delay=1000", "v3"),
    ] {
        let began = Instant::now();
        assert_eq!(fixture.ask(request).outcome(), outcome, "G43 {request}");
        if outcome == "504" {
            let took = began.elapsed();
            assert!(
                took >= Duration::from_millis(450),
                "G43 {request}: {took:?}"
            );
        }
    }
}

#[test]
fn g44_g45_g46_x31_x32_a_request_is_sent_again_as_its_route_says() {
    let _judging = judging();
    let fixture = Fixture::start();
    let rules = [
        rule(
            "/retry/backend",
            "retry: { attempts: 2 }, timeouts: { backendRequest: 200ms }",
        ),
        rule(
            "/retry/request",
            "retry: { codes: [500], attempts: 5 }, timeouts: { backendRequest: 200ms, request: 400ms }",
        ),
        rule("/retry/a", "retry: { codes: [500], attempts: 3 }"),
        rule(
            "/retry/b",
            "retry: { codes: [500, 502, 503, 504], attempts: 2 }",
        ),
        rule("/retry/c", "retry: { attempts: 3 }"),
        rule("/plain", "timeouts: { request: 10s }"),
        rule(
            "/retry/pause",
            "retry: { codes: [500], attempts: 2, backoff: 200ms }",
        ),
    ];
    fixture.apply(&(route("g44", &rules.concat()) + BUDGET));
    let again = |case: &str, path: &str, code, fails, delay, outcomes: &[&str]| {
        let tries = Tries { code, fails, delay };
        let outcome = ask(&fixture, path, &format!("{case}-{code}-{fails}"), &tries);
        assert!(
            outcomes.contains(&outcome.as_str()),
            "{case}: {code} {fails}: {outcome}"
        );
    };
    // G44.
    again("G44a", "/retry/backend", 500, 2, 300, &["v3"]);
    again("G44b", "/retry/backend", 500, 3, 300, &["504"]);
    again("G44c", "/retry/request", 500, 1, 0, &["v3"]);
    let began = Instant::now();
    again("G44d", "/retry/request", 500, 4, 150, &["504"]);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(350), "G44d: {took:?}");
    // G45.
    again("G45a", "/retry/a", 500, 2, 0, &["v3"]);
    again("G45b", "/retry/a", 500, 4, 0, &["500"]);
    again("G45c", "/retry/a", 503, 2, 0, &["503"]);
    for code in [500, 502, 503, 504] {
        again("G45d", "/retry/b", code, 1, 0, &["v3"]);
        again("G45e", "/retry/b", code, 3, 0, &[code.to_string().as_str()]);
    }
    // X32: without codes only what broke or timed out is sent again.
    again("X32", "/retry/c", 500, 1, 0, &["500"]);
    // G46.
    again("G46a", "/retry/c", 0, 2, 0, &["v3"]);
    // The sidecar that delivers sends an idempotent request once more by itself where a connection that it
    // used again was closed, so the application fails more often here than the case says.
    again("G46b", "/retry/c", 0, 20, 0, &["503"]);
    // A policy's retries say what became of the last attempt, and so does a rule without any.
    again("G46c", "/plain", 0, 20, 0, &["502"]);
    // X31: the pause is a minimum.
    let began = Instant::now();
    again("X31", "/retry/pause", 500, 2, 0, &["v3"]);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(400), "X31: {took:?}");
}
