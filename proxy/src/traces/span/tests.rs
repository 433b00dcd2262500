//! Tests of `proxy/src/traces/span.rs`: the spans of exchanges of each kind.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use prost::Message as _;
use weft_transport::locks::lock;

use super::super::tests::wire::Span;
use super::super::tests::{record, traced};
use super::*;
use crate::failure::Reason;
use crate::record::{Observer, Observers};

/// Keeps the spans of what ends.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Span>>>);

impl Observer for Sink {
    fn observe(&self, finished: &Finished<'_>) {
        let traced = finished.record.traced.as_deref().unwrap();
        let (mut all, mut scratch) = (Vec::new(), Vec::new());
        write(finished, traced, &mut scratch, &mut |span| {
            all.push(Span::decode(span).unwrap())
        });
        assert_eq!(all.len(), count(finished, traced));
        *lock(&self.0) = all;
    }
}

/// The spans of an exchange that `change` fills in and that ends so.
fn spans(
    (direction, uri, is_grpc): (Direction, &str, bool),
    outcome: Result<(), Failure>,
    change: impl FnOnce(&mut Record),
) -> Vec<Span> {
    let sink = Sink::default();
    let mut record = record(direction, uri, Observers::new(vec![Box::new(sink.clone())]));
    record.traced = Some(Box::new(traced(is_grpc)));
    change(&mut record);
    record.end(outcome);
    std::mem::take(&mut *lock(&sink.0))
}

const URI: &str = "https://orders.shop/a/b?token=secret";

/// An attempt that ended so.
fn attempt(record: &mut Record, span: u64, ended: Ended) {
    let now = record.started + Duration::from_millis(span);
    let attempt = record.kept.begin(now);
    attempt.span = span;
    attempt.picked("127.0.0.1:6143".parse().unwrap(), now);
    attempt.finish(ended, now + Duration::from_millis(1));
}

#[test]
fn a_request_that_leaves_is_a_client_span_with_one_below_it_for_each_attempt() {
    let all = spans((Direction::Outbound, URI, false), Ok(()), |record| {
        attempt(record, 0x2, Ended::Failed(Reason::ConnectionRefused));
        attempt(record, 0x3, Ended::Answered(503));
        attempt(record, 0x4, Ended::Answered(200));
        record.status = 200;
    });
    let [whole, one, two, three] = &all[..] else {
        panic!("{all:?}")
    };
    for span in &all {
        assert_eq!(span.trace_id[14..], [0xa, 0xbc]);
        assert_eq!(
            (span.kind, span.trace_state.as_str(), span.name.as_str()),
            (3, "a=1", "GET")
        );
        assert_eq!(span.attribute("url.full"), "https://orders.shop/a/b");
        assert_eq!(span.attribute("server.address"), "orders.shop");
        assert_eq!(span.attribute("server.port"), "80");
        assert!(!format!("{span:?}").contains("secret"));
    }
    assert_eq!(whole.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 0x99]);
    assert_eq!((whole.flags, one.flags), (0x303, 0x103));
    for (number, span) in [one, two, three].into_iter().enumerate() {
        assert_eq!(span.parent_span_id, whole.span_id);
        let resent = if number == 0 {
            String::new()
        } else {
            number.to_string()
        };
        assert_eq!(span.attribute("http.request.resend_count"), resent);
        assert_eq!(span.attribute("network.peer.address"), "127.0.0.1");
        assert_eq!(span.attribute("network.peer.port"), "6143");
        assert_eq!(span.attribute("network.protocol.version"), "3");
    }
    let token = Reason::ConnectionRefused.token();
    assert_eq!(
        (
            one.attribute("error.type").as_str(),
            one.status.as_ref().unwrap().code
        ),
        (token, 2)
    );
    assert_eq!(two.attribute("error.type"), "503");
    assert_eq!(three.attribute("http.response.status_code"), "200");
    assert_eq!((&three.status, &whole.status), (&None, &None));
    assert_eq!(whole.attribute("weft.route"), "httproute/shop/orders");
    assert_eq!(whole.attribute("weft.revision"), "7");
    assert_eq!(
        whole.attribute("weft.principal"),
        "spiffe://mesh/ns/shop/sa/orders"
    );
    assert_eq!(whole.attribute("user_agent.original"), "curl/8");
    assert!(
        whole
            .attribute("http.request.header.x-request-id")
            .contains("id-1")
    );
    assert_eq!(whole.start, 5_000_000_000);
    assert_eq!(one.start, 5_002_000_000);
    assert_eq!(one.end, 5_003_000_000);
    assert_eq!(three.end.max(three.start), whole.end.max(three.start));
}

#[test]
fn a_request_that_arrives_is_a_server_span_that_is_no_error_where_it_was_refused() {
    let arrives = (Direction::Inbound, URI, false);
    let all = spans(arrives, Ok(()), |record| record.status = 404);
    let [span] = &all[..] else { panic!("{all:?}") };
    assert_eq!((span.kind, &span.status), (2, &None));
    assert_eq!(span.attribute("url.path"), "/a/b");
    assert_eq!(span.attribute("url.scheme"), "https");
    assert_eq!(
        span.attribute("weft.principal"),
        "spiffe://mesh/ns/shop/sa/shop"
    );
    assert_eq!(span.attribute("error.type"), "");

    let denied = || Err(Failure::new(Reason::Denied, "by the policy"));
    let all = spans(arrives, denied(), |record| record.status = 403);
    assert_eq!(all[0].attribute("error.type"), Reason::Denied.token());
    assert_eq!(all[0].status, None);
    let all = spans((Direction::Outbound, URI, false), denied(), |record| {
        record.status = 403
    });
    let status = all[0].status.clone().unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "by the policy"));

    let all = spans(arrives, Ok(()), |record| record.status = 503);
    assert_eq!(all[0].attribute("error.type"), "503");
    assert_eq!(all[0].status.as_ref().unwrap().code, 2);
}

#[test]
fn a_call_of_grpc_is_told_by_its_method_and_status() {
    let uri = "https://orders.shop/shop.Orders/Get";
    for (direction, code, is_error) in [
        (Direction::Outbound, 0, false),
        (Direction::Outbound, 5, true),
        (Direction::Inbound, 5, false),
        (Direction::Inbound, 14, true),
    ] {
        let all = spans((direction, uri, true), Ok(()), |record| {
            record.status = 200;
            record.grpc_status = Some(code);
        });
        let span = &all[0];
        assert_eq!(span.name, "shop.Orders/Get");
        assert_eq!(span.attribute("rpc.system.name"), "grpc");
        assert_eq!(span.attribute("rpc.method"), "shop.Orders/Get");
        assert_eq!(
            span.attribute("rpc.response.status_code"),
            GRPC[usize::from(code)]
        );
        assert_eq!(span.status.is_some(), is_error, "{direction:?} {code}");
        assert_eq!(span.attribute("error.type").is_empty(), !is_error);
    }
}

#[test]
fn an_attempt_that_was_given_up_is_cancelled_and_no_error() {
    let all = spans((Direction::Outbound, URI, false), Ok(()), |record| {
        attempt(record, 0x3, Ended::Answered(200));
        let mut lost = Attempt::begin(record.started);
        lost.span = 0x2;
        record.traced.as_mut().unwrap().keep(lost);
        record.status = 200;
    });
    let [_, lost, won] = &all[..] else {
        panic!("{all:?}")
    };
    assert_eq!((lost.span_id[7], won.span_id[7]), (0x2, 0x3));
    assert_eq!(
        (lost.attribute("weft.cancelled").as_str(), &lost.status),
        ("true", &None)
    );
    assert_eq!(won.attribute("weft.cancelled"), "");
    assert_eq!(won.attribute("http.request.resend_count"), "1");
}

#[test]
fn what_callers_choose_is_bounded_and_unknown_methods_have_one_name() {
    let uri = format!("https://{}/{}", "a".repeat(2000), "b".repeat(4000));
    let all = spans((Direction::Inbound, &uri, false), Ok(()), |record| {
        record.method = Method::from_bytes(b"BREW").unwrap();
        let long = HeaderValue::from_str(&"c".repeat(9000)).unwrap();
        record.traced.as_mut().unwrap().user_agent = Some(long);
    });
    assert_eq!(
        (
            all[0].name.as_str(),
            all[0].attribute("http.request.method").as_str()
        ),
        ("HTTP", "_OTHER")
    );
    assert!(all[0].encoded_len() < 2000, "{}", all[0].encoded_len());
}

#[test]
fn the_clock_of_a_span_never_runs_backwards() {
    let all = spans((Direction::Outbound, URI, false), Ok(()), |record| {
        record.started = Instant::now() + Duration::from_secs(60);
        attempt(record, 0x2, Ended::Answered(200));
    });
    for span in &all {
        assert!(span.start <= span.end, "{span:?}");
    }
}
