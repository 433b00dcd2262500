//! Tests of `proxy/src/traces/mod.rs`, and the messages of OTLP as protobuf describes them, for those of its
//! parts.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Request};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::http::traceparent::TRACEPARENT;
use crate::metrics::{Direction, Labels, Shard};
use crate::record::Observers;

/// Messages of opentelemetry/proto, as far as spans use them.
pub(super) mod wire {
    use prost::{Message, Oneof};

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Request {
        #[prost(message, repeated, tag = "1")]
        pub(crate) resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        pub(crate) resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) scope_spans: Vec<ScopeSpans>,
        #[prost(string, tag = "3")]
        pub(crate) schema_url: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub(crate) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct ScopeSpans {
        #[prost(message, optional, tag = "1")]
        pub(crate) scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) spans: Vec<Span>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Scope {
        #[prost(string, tag = "1")]
        pub(crate) name: String,
        #[prost(string, tag = "2")]
        pub(crate) version: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub(crate) trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(crate) span_id: Vec<u8>,
        #[prost(string, tag = "3")]
        pub(crate) trace_state: String,
        #[prost(bytes = "vec", tag = "4")]
        pub(crate) parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        pub(crate) name: String,
        #[prost(int32, tag = "6")]
        pub(crate) kind: i32,
        #[prost(fixed64, tag = "7")]
        pub(crate) start: u64,
        #[prost(fixed64, tag = "8")]
        pub(crate) end: u64,
        #[prost(message, repeated, tag = "9")]
        pub(crate) attributes: Vec<KeyValue>,
        #[prost(message, optional, tag = "15")]
        pub(crate) status: Option<Status>,
        #[prost(fixed32, tag = "16")]
        pub(crate) flags: u32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Status {
        #[prost(string, tag = "2")]
        pub(crate) message: String,
        #[prost(int32, tag = "3")]
        pub(crate) code: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct KeyValue {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
        #[prost(message, optional, tag = "2")]
        pub(crate) value: Option<Value>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Value {
        #[prost(oneof = "value::Kind", tags = "1, 2, 3, 5")]
        pub(crate) kind: Option<value::Kind>,
    }

    pub(crate) mod value {
        use super::{Array, Oneof};

        #[derive(Clone, PartialEq, Oneof)]
        pub(crate) enum Kind {
            #[prost(string, tag = "1")]
            Text(String),
            #[prost(bool, tag = "2")]
            Bool(bool),
            #[prost(int64, tag = "3")]
            Int(i64),
            #[prost(message, tag = "5")]
            Array(Array),
        }
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Array {
        #[prost(message, repeated, tag = "1")]
        pub(crate) values: Vec<Value>,
    }

    impl Span {
        /// The value of an attribute as text; empty without one.
        pub(crate) fn attribute(&self, key: &str) -> String {
            let found = self.attributes.iter().find(|one| one.key == key);
            let kind = found.and_then(|one| one.value.as_ref()?.kind.as_ref());
            match kind {
                None => String::new(),
                Some(value::Kind::Text(text)) => text.clone(),
                Some(value::Kind::Bool(value)) => value.to_string(),
                Some(value::Kind::Int(value)) => value.to_string(),
                Some(value::Kind::Array(array)) => format!("{:?}", array.values),
            }
        }
    }
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-";

/// A record on that side of a call, with these observers.
pub(super) fn record(direction: Direction, uri: &str, observers: Observers) -> Record {
    let text = |text: &str| Arc::from(text);
    let counted = Shard::default().requests(Labels {
        direction,
        source_service: text("shop.shop"),
        source_principal: text("spiffe://mesh/ns/shop/sa/shop"),
        destination_service: text("orders.shop:80"),
        destination_principal: text("spiffe://mesh/ns/shop/sa/orders"),
        route: text("httproute/shop/orders"),
    });
    let head = Request::get(uri).body(()).unwrap().into_parts().0;
    let id = Some(HeaderValue::from_static("id-1"));
    let mut record = Record::new(counted, Arc::new(observers), Instant::now(), &head, id);
    record.revision = Some(7);
    record
}

/// What a record keeps of a trace whose caller told its span.
pub(super) fn traced(is_grpc: bool) -> Traced {
    Traced {
        context: TraceParent {
            trace: 0xabc,
            parent: 0x1,
            flags: 0x03,
        },
        caller: Some(0x99),
        state: Some(HeaderValue::from_static("a=1")),
        began: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(5),
        user_agent: Some(HeaderValue::from_static("curl/8")),
        is_grpc,
        beside: Vec::new(),
    }
}

struct Began {
    sent: Option<String>,
    state: bool,
    record: Record,
}

/// What becomes of a request with these fields.
fn begin(ratio: f64, fields: &[(&'static str, &str)]) -> Began {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let mut record = record(
        Direction::Outbound,
        "http://orders.shop/",
        Observers::new(vec![]),
    );
    let mut random = StdRng::seed_from_u64(7);
    Tracing::new(ratio).begin(&mut headers, &mut record, false, &mut random);
    let sent = headers.get(TRACEPARENT);
    Began {
        sent: sent.map(|value| value.to_str().unwrap().to_owned()),
        state: headers.contains_key(TRACESTATE),
        record,
    }
}

#[test]
fn a_recorded_caller_is_followed_whatever_the_share_and_only_its_span_is_replaced() {
    for flags in ["01", "03", "ff"] {
        let parent = format!("{PARENT}{flags}");
        let began = begin(0.0, &[("traceparent", &parent), ("tracestate", "a=1")]);
        let sent = began.sent.unwrap();
        assert_eq!((&sent[..36], &sent[52..]), (&parent[..36], &parent[52..]));
        assert_ne!(sent[36..52], parent[36..52]);
        let traced = began.record.traced.as_deref().unwrap();
        assert_eq!(traced.caller, Some(0xb7ad_6b71_6920_3331));
        assert_eq!(traced.state.as_ref().unwrap(), "a=1");
        assert!(began.state);
    }
}

#[test]
fn a_caller_that_does_not_record_is_followed_and_its_fields_stay() {
    for flags in ["00", "02"] {
        let parent = format!("{PARENT}{flags}");
        let began = begin(1.0, &[("traceparent", &parent), ("tracestate", "a=1")]);
        assert_eq!(began.sent, Some(parent));
        assert!(began.record.traced.is_none() && began.state);
    }
}

#[test]
fn without_a_valid_context_a_trace_begins_whose_decision_is_told_and_a_state_is_dropped() {
    let twice = format!("{PARENT}01");
    for fields in [
        &[("tracestate", "a=1")][..],
        &[("traceparent", "00-bad"), ("tracestate", "a=1")],
        &[("traceparent", &twice), ("traceparent", &twice)],
    ] {
        for (ratio, flags) in [(0.0, 0x02), (1.0, 0x03)] {
            let began = begin(ratio, fields);
            let sent = TraceParent::parse(began.sent.unwrap().as_bytes()).unwrap();
            assert_eq!((sent.flags, began.state), (flags, false));
            let traced = began.record.traced.as_deref();
            assert_eq!(
                traced.map(|traced| (traced.context, traced.caller)),
                (ratio > 0.0).then_some((sent, None))
            );
        }
    }
}
