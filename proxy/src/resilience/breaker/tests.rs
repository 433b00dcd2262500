//! Tests of `proxy/src/resilience/breaker.rs`.

use super::*;

fn limits() -> table::Breaker {
    table::Breaker::default()
}

fn second(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

/// Fails until it is out; returns that time.
fn put_out(breaker: &mut Breaker, now: Instant) -> Option<Cause> {
    (0..5).find_map(|_| breaker.failed(false, now, &limits(), || true))
}

/// One request probes it, and succeeds.
fn come_back(breaker: &mut Breaker, now: Instant) {
    assert!(breaker.begin(now));
    assert!(breaker.succeeded(true, now, &limits()));
}

#[test]
fn five_failures_in_a_row_put_it_out_and_a_success_between_them_does_not() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    for _ in 0..4 {
        assert_eq!(breaker.failed(false, now, &limits(), || true), None);
    }
    assert!(!breaker.succeeded(false, now, &limits()));
    assert_eq!(put_out(&mut breaker, now), Some(Cause::Consecutive));
    assert_eq!(breaker.admission(now), Admission::No);
    assert_eq!(breaker.admission(now + second(2.9)), Admission::No);
    assert_eq!(breaker.admission(now + second(3.0)), Admission::Probe);
}

#[test]
fn half_of_twenty_requests_failing_put_it_out_although_never_in_a_row() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    let mut requests = 0;
    let cause = loop {
        breaker.succeeded(false, now, &limits());
        requests += 2;
        if let Some(cause) = breaker.failed(false, now, &limits(), || true) {
            break cause;
        }
    };
    assert_eq!((cause, requests), (Cause::SuccessRate, 20));
}

#[test]
fn failures_older_than_the_window_are_forgotten() {
    let start = Instant::now();
    let mut breaker = Breaker::default();
    for _ in 0..9 {
        breaker.failed(false, start, &limits(), || true);
        breaker.succeeded(false, start, &limits());
    }
    let later = start + second(6.0);
    for _ in 0..19 {
        breaker.succeeded(false, later, &limits());
    }
    assert_eq!(breaker.failed(false, later, &limits(), || true), None);
}

#[test]
fn one_request_probes_and_its_success_brings_it_back() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    put_out(&mut breaker, now);
    let due = now + second(3.0);
    assert!(breaker.begin(due));
    assert_eq!(breaker.admission(due), Admission::No);
    // A request that began before the ejection no longer counts.
    assert!(!breaker.succeeded(false, due, &limits()));
    assert_eq!(breaker.failed(false, due, &limits(), || true), None);
    assert!(breaker.succeeded(true, due, &limits()));
    assert_eq!(breaker.admission(due), Admission::Yes);
}

#[test]
fn each_failed_probe_doubles_the_time_up_to_the_longest() {
    let mut now = Instant::now();
    let mut breaker = Breaker::default();
    put_out(&mut breaker, now);
    for seconds in [3.0, 6.0, 12.0, 20.0, 20.0] {
        let until = breaker.status().unwrap().until;
        assert_eq!(until - now, second(seconds));
        now = until;
        assert!(breaker.begin(now));
        assert!(breaker.failed(true, now, &limits(), || false).is_some());
    }
}

#[test]
fn the_time_starts_small_again_after_a_while_in_rotation() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    put_out(&mut breaker, now);
    let back = now + second(3.0);
    come_back(&mut breaker, back);
    let soon = back + second(1.0);
    put_out(&mut breaker, soon);
    assert_eq!(breaker.status().unwrap().until - soon, second(6.0));
    let back = soon + second(6.0);
    come_back(&mut breaker, back);
    let later = back + second(20.0);
    breaker.succeeded(false, later, &limits());
    put_out(&mut breaker, later);
    assert_eq!(breaker.status().unwrap().until - later, second(3.0));
}

#[test]
fn one_that_is_back_is_on_trial_until_it_has_answered_twenty_requests() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    put_out(&mut breaker, now);
    let back = now + second(3.0);
    come_back(&mut breaker, back);
    for _ in 0..18 {
        breaker.succeeded(false, back, &limits());
    }
    let cause = breaker.failed(false, back, &limits(), || true);
    assert_eq!(cause, Some(Cause::SuccessRate));
    let again = back + second(6.0);
    come_back(&mut breaker, again);
    for _ in 0..19 {
        breaker.succeeded(false, again, &limits());
    }
    assert_eq!(breaker.failed(false, again, &limits(), || true), None);
}

#[test]
fn the_trial_of_one_that_is_asked_little_ends_with_time() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    put_out(&mut breaker, now);
    let back = now + second(3.0);
    come_back(&mut breaker, back);
    let hour = back + second(3600.0);
    assert_eq!(breaker.failed(false, hour, &limits(), || true), None);
}

#[test]
fn an_abandoned_probe_leaves_it_due() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    put_out(&mut breaker, now);
    let due = now + second(3.0);
    breaker.begin(due);
    breaker.abandoned();
    assert_eq!(breaker.admission(due), Admission::Probe);
    assert_eq!(breaker.overdue(due + second(1.0)), Some(second(1.0)));
}

#[test]
fn a_probe_that_tells_nothing_for_long_lets_another_one_try_and_may_still_bring_it_back() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    put_out(&mut breaker, now);
    let due = now + second(3.0);
    assert!(breaker.begin(due));
    let later = due + PROBE_DECIDES;
    assert_eq!(breaker.admission(later - second(0.1)), Admission::No);
    assert!(!breaker.begin(later - second(0.1)));
    assert_eq!(breaker.admission(later), Admission::Probe);
    assert_eq!(breaker.overdue(later), Some(second(0.0)));
    assert!(breaker.begin(later) && breaker.is_out());
    assert_eq!(breaker.admission(later), Admission::No);
    assert!(breaker.succeeded(true, later, &limits()));
}

#[test]
fn it_stays_in_when_the_others_would_not_suffice() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    for _ in 0..50 {
        assert_eq!(breaker.failed(false, now, &limits(), || false), None);
    }
    assert_eq!(breaker.admission(now), Admission::Yes);
}

#[test]
fn observing_tells_but_admits() {
    let observed = table::Breaker {
        mode: Mode::Observe,
        ..limits()
    };
    let now = Instant::now();
    let mut breaker = Breaker::default();
    let tripped = (0..50).filter(|_| breaker.failed(false, now, &observed, || true).is_some());
    assert_eq!(tripped.count(), 1);
    assert_eq!(breaker.admission(now), Admission::Yes);
    assert!(!breaker.is_out() && !breaker.begin(now));
    let later = now + second(4.0);
    breaker.succeeded(false, later, &observed);
    assert_eq!(breaker.status(), None);
}
