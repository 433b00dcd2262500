//! What a rule does is seen in the metrics, in the access log and in `weft get --effective`: each of its
//! filters, its sessions, its times and retries, and by its name which rule it was.

use std::cell::Cell;

use serde_json::Value;

use super::fixture::{Fixture, metric, route};
use crate::harness::{eventually, wait_until};

/// The last line of the client's access log about a path.
#[track_caller]
fn logged(fixture: &Fixture, path: &str) -> Value {
    let patience = std::time::Duration::from_secs(10);
    wait_until(&format!("{path} is logged"), patience, || {
        let log = fixture.client().process.log();
        let lines = log.lines().rev();
        let mut read = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        read.find(|line| line["path"] == path)
    })
}

const RULES: &str = "- { name: filtered, matches: [ { path: { value: /filtered } } ], backendRefs: [ { name: v1, port: 80, filters: [ { type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: X-Backend, value: b } ] } } ] } ], filters: [ \
       { type: CORS, cors: { allowOrigins: [ \"https://a.example\" ] } }, \
       { type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: X-Rule, value: r } ] } }, \
       { type: ResponseHeaderModifier, responseHeaderModifier: { add: [ { name: X-Answer, value: a } ] } }, \
       { type: URLRewrite, urlRewrite: { hostname: b.example, path: { type: ReplacePrefixMatch, replacePrefixMatch: /sent } } }, \
       { type: RequestMirror, requestMirror: { backendRef: { name: v2, port: 80 } } } ] }\n\
     - { name: moved, matches: [ { path: { value: /moved } } ], filters: [ { type: RequestRedirect, requestRedirect: { hostname: c.example } } ] }\n\
     - { name: patient, matches: [ { path: { value: /patient } } ], timeouts: { request: 200ms }, backendRefs: [ { name: v3, port: 80 } ] }\n\
     - { name: again, matches: [ { path: { value: /again } } ], retry: { codes: [ 500 ], attempts: 2 }, backendRefs: [ { name: v3, port: 80 } ] }\n\
     - { name: plain, matches: [ { path: { value: /plain } } ], backendRefs: [ { name: v3, port: 80 } ] }\n\
     - { name: kept, matches: [ { path: { value: /kept } } ], sessionPersistence: { sessionName: s }, backendRefs: [ { name: echo, port: 80 } ] }\n";

#[test]
fn each_filter_time_and_retry_of_a_rule_is_seen_in_metrics_access_log_and_effective_policy() {
    let fixture = Fixture::start();
    fixture.apply(&route("seen", RULES));
    let of_filter = |filter: &str| {
        let of = format!("destination_service=\"echo.shop:80\",filter=\"{filter}\"");
        metric(&fixture, "weft_filtered_total", &of)
    };
    let of_rule = |rule: &str, more: &str| {
        let page = super::fixture::page(&fixture, "/metrics");
        let of = format!("route=\"HTTPRoute/shop/seen/{rule}\"");
        let mut lines = page.lines();
        lines.any(|line| {
            line.starts_with("weft_requests_total{") && line.contains(&of) && line.contains(more)
        })
    };

    let answer = fixture.ask("GET /filtered/x?q {Origin: https://a.example}");
    assert_eq!(answer.header("x-answer").as_deref(), Some("a"));
    assert_eq!(answer.path(), "/sent/x?q");
    let line = logged(&fixture, "/filtered/x");
    let all = [
        "CORS",
        "RequestHeaderModifier",
        "URLRewrite",
        "RequestMirror",
        "ResponseHeaderModifier",
    ];
    assert_eq!(line["filters"], serde_json::json!(all), "{line}");
    assert_eq!(line["sent_as"], "b.example/sent/x", "{line}");
    assert_eq!(line["copies"], 1, "{line}");
    assert_eq!(line["route"], "HTTPRoute/shop/seen/filtered", "{line}");
    for filter in all {
        assert_eq!(of_filter(filter), 1.0, "{filter}");
    }
    eventually("the copy is counted", || {
        metric(
            &fixture,
            "weft_mirrored_total",
            "v2.shop:80\",result=\"answered",
        ) == 1.0
    });

    assert_eq!(fixture.ask("GET /moved").outcome(), "302");
    let line = logged(&fixture, "/moved");
    assert_eq!(
        (&line["answered"], &line["status"]),
        (&"redirect".into(), &302.into())
    );
    assert_eq!(of_filter("RequestRedirect"), 1.0);
    assert!(of_rule("moved", "status=\"302\""));
    let preflight =
        "OPTIONS /filtered/p {Origin: https://a.example; Access-Control-Request-Method: PUT}";
    assert_eq!(fixture.ask(preflight).outcome(), "204");
    assert_eq!(logged(&fixture, "/filtered/p")["answered"], "preflight");
    assert_eq!(of_filter("CORS"), 2.0);

    assert_eq!(fixture.ask("GET /patient?delay=1000").outcome(), "504");
    let line = logged(&fixture, "/patient");
    assert_eq!(line["error"], "http_response_timeout", "{line}");
    assert_eq!(line["route"], "HTTPRoute/shop/seen/patient", "{line}");
    assert!(of_rule("patient", "error=\"http_response_timeout\""));

    let failing = "GET /again?uuid=seen&succeedAfter=1&responseCode=500";
    assert_eq!(fixture.ask(failing).outcome(), "v3");
    let line = logged(&fixture, "/again");
    assert_eq!(line["attempts"], 2, "{line}");
    assert_eq!(line["tried"][0]["status"], 500, "{line}");
    assert_eq!(
        metric(&fixture, "weft_requests_retried_total", "recovered"),
        1.0
    );
    assert_eq!(
        metric(&fixture, "weft_retries_total", "reason=\"status\""),
        1.0
    );

    assert_eq!(fixture.ask("GET /plain").outcome(), "v3");
    let line = logged(&fixture, "/plain");
    for absent in [
        "filters",
        "sent_as",
        "copies",
        "session",
        "session_token",
        "attempts",
    ] {
        assert!(line.get(absent).is_none(), "{line}");
    }

    for wanted in ["httproute/seen", "echo"] {
        let asked = ["get", "--effective", wanted, "-n", "shop", "-o", "json"];
        let shown: Value = serde_json::from_str(&fixture.mesh.weft(&asked).ok()).unwrap();
        let has = |rule: &str, field: &str, part: &str| {
            let places = shown.as_array().unwrap().iter();
            let mut of_rule =
                places.filter(|place| place["place"].as_str().unwrap().contains(rule));
            let says = |one: &Value| {
                one["field"] == field
                    && one["value"].to_string().contains(part)
                    && one["from"].to_string().contains("HTTPRoute/shop/seen")
            };
            let found = of_rule.any(|place| place["fields"].as_array().unwrap().iter().any(says));
            assert!(found, "{wanted}: {rule} {field} {part}: {shown:#}");
        };
        has("rule filtered", "filters.cors", "https://a.example");
        has("rule filtered", "filters.requestHeaderModifier", "X-Rule");
        has(
            "backend v1.shop:80",
            "filters.requestHeaderModifier",
            "X-Backend",
        );
        has("rule filtered", "filters.urlRewrite", "b.example");
        has("rule filtered", "filters.requestMirror", "v2");
        has(
            "rule filtered",
            "filters.responseHeaderModifier",
            "X-Answer",
        );
        has("rule moved", "filters.requestRedirect", "302");
        has("rule patient", "timeouts.request", "200ms");
        has("rule again", "retry.attempts", "2");
        has("rule again", "retry.codes", "500");
        has("rule kept", "sessionPersistence.cookie.name", "s");
    }
}

#[test]
fn what_became_of_a_session_is_logged_in_the_words_of_its_metrics() {
    let fixture = Fixture::start();
    fixture.apply(&route("seen", RULES));
    let number = Cell::new(0);
    // Each request has a path of its own, by which its line is found.
    let ask = |cookie: &str| {
        number.set(number.get() + 1);
        let path = format!("/kept/{}", number.get());
        let answer = fixture.ask(&format!("GET {path} {{Cookie: {cookie}}}"));
        let line = logged(&fixture, &path);
        let of = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        (answer, of("session"), of("session_token"))
    };
    let (answer, session, token) = ask("other=1");
    assert_eq!((session.as_str(), token.as_str()), ("started", ""));
    let told = answer.header("set-cookie").unwrap();
    let pair = told.split(';').next().unwrap().to_owned();
    let (_, session, token) = ask(&pair);
    assert_eq!((session.as_str(), token.as_str()), ("kept", ""));
    let (_, session, token) = ask("s=no-token");
    assert_eq!((session.as_str(), token.as_str()), ("started", "malformed"));
    for (name, label) in [
        ("weft_sessions_total", "result=\"kept\""),
        ("weft_session_tokens_ignored_total", "reason=\"malformed\""),
    ] {
        assert_eq!(metric(&fixture, name, label), 1.0, "{name}");
    }
    // Its endpoint ends, and others take its requests.
    fixture.stop(&answer.outcome());
    let of = |session: &str| {
        metric(
            &fixture,
            "weft_sessions_total",
            &format!("result=\"{session}\""),
        )
    };
    let mut logged = String::new();
    eventually("the session moves", || {
        (_, logged, _) = ask(&pair);
        logged.starts_with("moved_")
    });
    assert!(of(&logged) >= 1.0, "{logged}");
}
