//! Tests of `config/src/table/traffic.rs`.

use super::*;

#[test]
fn the_default_is_written_as_nothing() {
    let written = serde_json::to_string(&Traffic::default()).unwrap();
    assert_eq!(written, "{}");
    let read: Traffic = serde_json::from_str("{}").unwrap();
    assert_eq!(read, Traffic::default());
}

#[test]
fn a_field_that_this_sidecar_does_not_know_is_refused_at_every_depth() {
    for text in [
        r#"{"unknown":1}"#,
        r#"{"request":{"unknown":1}}"#,
        r#"{"request":{"retry":{"unknown":1}}}"#,
        r#"{"request":{"timeouts":{"unknown":"1s"}}}"#,
        r#"{"breaker":{"unknown":1}}"#,
        r#"{"balance":{"algorithm":"unknown"}}"#,
        r#"{"concurrency":{"priority":{"header":"a","unknown":[]}}}"#,
        r#"{"rate_limits":[{"requests":1,"per":"1s","burst":1,"mode":"Enforce","unknown":1}]}"#,
    ] {
        assert!(serde_json::from_str::<Traffic>(text).is_err(), "{text}");
    }
}

#[test]
fn a_duration_that_would_be_another_one_once_it_is_written_is_refused() {
    let read = |text: &str| serde_json::from_str::<Traffic>(text).map_err(|one| one.to_string());
    for (text, about) in [
        (r#"{"request":{"timeouts":{"request":"0.5ms"}}}"#, "0s"),
        (r#"{"balance":{"slow_start":"1s0.25ms"}}"#, "1s"),
    ] {
        let error = read(text).unwrap_err();
        let expected = format!("a duration of about {about} is finer than a millisecond");
        assert!(error.starts_with(&expected), "{error}");
    }
    let traffic = read(r#"{"balance":{"slow_start":"1.25s"}}"#).unwrap();
    assert_eq!(traffic.balance.slow_start, Duration::from_millis(1250));
}

#[test]
fn every_value_survives_the_way_to_the_sidecar() {
    let limit = RateLimit {
        requests: 100,
        per: Duration::from_secs(1),
        burst: 20,
        mode: Mode::Observe,
    };
    let traffic = Traffic {
        request: Arc::new(RequestTraffic {
            timeouts: Timeouts {
                request: Some(Duration::from_millis(1500)),
                backend_request: Some(Duration::from_millis(250)),
                stream_idle: None,
            },
            retry: Retry {
                codes: vec![503],
                grpc_codes: vec![GrpcCode::Unavailable],
                ..Retry::default()
            },
            hedge: Some(Hedge {
                after: HedgeAfter::Percentile(Percent::whole(95)),
                attempts: 1,
                non_idempotent: false,
            }),
            fault: Fault {
                delay: None,
                abort: Some(FaultAbort {
                    percent: Percent(50),
                    with: FaultStatus::Grpc(GrpcCode::Internal),
                }),
            },
            priority: Priority::High,
            rate_limits: vec![limit.clone()],
            overrides: Overrides {
                callers: vec!["spiffe://demo.test/ns/test/*".parse().unwrap()],
            },
        }),
        balance: Balance {
            algorithm: Algorithm::RingHash(HashKey::Header("x-user".into())),
            slow_start: Duration::from_secs(30),
        },
        failover: Some(Failover {
            service: "orders.spare".parse().unwrap(),
            port: 80,
        }),
        concurrency: Concurrency {
            max: Some(7),
            priority: Some(PriorityHeader {
                header: "x-priority".into(),
                high: vec!["user".into()],
                low: Vec::new(),
            }),
            ..Concurrency::default()
        },
        caller_rate_limits: vec![limit],
        ..Traffic::default()
    };
    let written = serde_json::to_string(&traffic).unwrap();
    assert!(written.contains(r#""request":"1s500ms""#), "{written}");
    assert!(!written.contains("breaker"), "{written}");
    assert_eq!(serde_json::from_str::<Traffic>(&written).unwrap(), traffic);
}
