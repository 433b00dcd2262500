//! Which cause is named for what sidecars saw.

use super::*;

fn id(name: &str) -> String {
    format!("spiffe://demo.test/ns/shop/sa/{name}")
}

/// As the caller's sidecar saw it.
fn outbound(from: &str, to: &str, time: u32) -> SidecarCall {
    SidecarCall {
        sidecar: id(from),
        call: CallSeen {
            time: format!("2026-11-30T12:00:00.{time:03}Z"),
            direction: "outbound".to_owned(),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            source: id(from),
            destination: format!("{to}.shop:80"),
            request_id: Some("r".to_owned()),
            status: 200,
            ..CallSeen::default()
        },
    }
}

/// As the sidecar of the service saw it.
fn inbound(from: &str, to: &str, time: u32) -> SidecarCall {
    let mut seen = outbound(from, to, time);
    seen.sidecar = id(to);
    seen.call.direction = "inbound".to_owned();
    seen
}

fn failed(mut seen: SidecarCall, status: u16, reason: &str, details: &str) -> SidecarCall {
    let call = &mut seen.call;
    call.status = status;
    if !reason.is_empty() {
        call.reason = Some(reason.to_owned());
        call.error = Some("some_token".to_owned());
        call.details = Some(details.to_owned());
    }
    seen
}

fn cause(seen: &[SidecarCall]) -> (&'static str, String) {
    let why = judge(seen).unwrap();
    (why.cause, why.to)
}

#[test]
fn the_sidecar_of_the_service_knows_best_what_its_application_did() {
    let caller = failed(
        outbound("a", "b", 9),
        502,
        "connection_refused",
        "the far sidecar: no",
    );
    let service = failed(inbound("a", "b", 8), 502, "connection_refused", "no");
    let wanted = ("application_down", "b.shop:80".to_owned());
    assert_eq!(cause(&[caller.clone(), service]), wanted);
    // If its line is gone, what it told the caller is enough.
    assert_eq!(cause(&[caller]), wanted);
    let refused = failed(
        outbound("a", "b", 9),
        502,
        "connection_refused",
        "port unreachable",
    );
    assert_eq!(cause(&[refused]).0, "peer_unreachable");
}

#[test]
fn of_a_chain_the_deepest_failure_is_the_cause() {
    let seen = [
        failed(outbound("a", "b", 9), 500, "", ""),
        failed(inbound("a", "b", 8), 500, "", ""),
        failed(
            outbound("b", "c", 7),
            503,
            "no_endpoint",
            "no healthy endpoint of c.shop:80: its last workload withdrew",
        ),
    ];
    for turn in 0..3 {
        let mut turned = seen.to_vec();
        turned.rotate_left(turn);
        assert_eq!(cause(&turned), ("no_endpoint", "c.shop:80".to_owned()));
    }
    let why = judge(&seen).unwrap();
    assert_eq!((why.status, why.seen.len()), (500, 3));
    assert!(why.sentence.contains("withdrew"), "{}", why.sentence);
}

#[test]
fn an_error_of_the_application_is_its_own_and_a_deadline_is_whose_time_it_was() {
    let seen = [
        failed(outbound("a", "b", 9), 500, "", ""),
        failed(inbound("a", "b", 8), 500, "", ""),
    ];
    assert_eq!(cause(&seen).0, "application_error");
    let late = failed(
        outbound("a", "b", 9),
        504,
        "deadline",
        "the deadline passed",
    );
    let at_work = failed(
        inbound("a", "b", 9),
        499,
        "caller_gone",
        "the caller went away",
    );
    assert_eq!(cause(&[late.clone(), at_work]).0, "application_slow");
    assert_eq!(cause(&[late]).0, "deadline");
}

#[test]
fn a_slow_request_is_the_applications_or_the_meshs() {
    let mut seen = outbound("a", "b", 9);
    (seen.call.application_ms, seen.call.mesh_ms) = (Some(900.0), Some(3.0));
    assert_eq!(cause(&[seen.clone()]).0, "application_slow");
    (seen.call.application_ms, seen.call.mesh_ms) = (Some(9.0), Some(300.0));
    assert_eq!(cause(&[seen]).0, "mesh_slow");
    assert_eq!(judge(&[]), None);
}

#[test]
fn limits_and_standings_are_told_apart_by_what_sidecars_say_of_them() {
    let cases = [
        (
            "overloaded",
            "the application of b.shop:80 is overloaded: 4 calls may wait for it",
            "adaptive_limit",
        ),
        (
            "overloaded",
            "4 calls of b.shop:80 are under way",
            "concurrency_limit",
        ),
        (
            "overloaded",
            "the application has as many connections as it may have",
            "application_full",
        ),
        ("overloaded", "the worker is behind", "caller_overloaded"),
        (
            "no_endpoint",
            "no healthy endpoint of b.shop:80: x; every endpoint is out of rotation for failures before (weft endpoints)",
            "breaker",
        ),
        (
            "no_endpoint",
            "no connection lasted until an answer in 3 attempts",
            "attempts_spent",
        ),
        ("made_up", "", "unknown"),
        ("upgrade_unsupported", "", "bad_request"),
    ];
    for (reason, details, wanted) in cases {
        let seen = failed(outbound("a", "b", 9), 503, reason, details);
        assert_eq!(cause(&[seen]).0, wanted, "{details}");
    }
}

#[test]
fn attempts_say_where_each_spent_its_time_and_why_none_followed() {
    let mut seen = failed(outbound("a", "b", 9), 503, "connection_lost", "gone");
    seen.call.not_retried = Some("budget".to_owned());
    seen.call.policy = Some("TrafficPolicy shop/retries".to_owned());
    seen.call.tried = vec![weft_config::operator::AttemptSeen {
        endpoint: Some("10.0.0.1:15008".to_owned()),
        dial_ms: Some(3.0),
        stream_ms: Some(0.5),
        error: Some("connection_terminated".to_owned()),
        ..weft_config::operator::AttemptSeen::default()
    }];
    let why = judge(&[seen]).unwrap();
    assert_eq!(
        (why.cause, why.not_retried.as_deref()),
        ("peer_lost", Some("budget"))
    );
    let attempt = &why.attempts[0];
    assert_eq!(
        (attempt.longest, attempt.took_ms, &*attempt.outcome),
        ("dial", 3.5, "connection_terminated")
    );
    assert_eq!(why.decided_by, ["TrafficPolicy shop/retries"]);
}
