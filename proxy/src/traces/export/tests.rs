//! Tests of `proxy/src/traces/export.rs`, against a collector of OTLP/HTTP that answers as a test says.

use std::collections::BTreeMap;

use prost::Message as _;
use rand::SeedableRng as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weft_config::settings::raw::{RawOutbound, RawProxy};
use weft_config::settings::{RawTraces, Sources, load_proxy};

use super::super::resource::Process;
use super::super::tests::wire::Request;
use super::super::tests::{record, traced};
use super::*;
use crate::metrics::Direction;
use crate::record::Observers;

/// Settings that lead to a collector at that port.
fn settings(port: u16) -> Traces {
    let listener =
        serde_json::json!({"listeners": [{"listen": "127.0.0.1:1", "route_by": "host"}]});
    let outbound: RawOutbound = serde_json::from_value(listener).unwrap();
    let flags = RawProxy {
        state_dir: Some("state".into()),
        outbound: Some(outbound),
        traces: Some(RawTraces {
            otlp: Some(format!("http://127.0.0.1:{port}/v1/traces")),
            headers: Some(BTreeMap::from([(
                "api-key".to_owned(),
                "secret".to_owned(),
            )])),
            ..RawTraces::default()
        }),
        ..RawProxy::default()
    };
    let sources = Sources {
        flags,
        ..Sources::default()
    };
    load_proxy(sources).unwrap().settings.traces.unwrap()
}

/// Reads one request: its head, and its content.
async fn read(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if bytes.len() == end + 4 + length {
                return (head, bytes.split_off(end + 4));
            }
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "{bytes:?}");
    }
}

/// Ends this many exchanges, sends their spans to a collector that gives these answers, and tells what it
/// got.
async fn export(records: usize, answers: &[&str]) -> (Vec<(String, Request)>, Arc<Tracing>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = settings(listener.local_addr().unwrap().port());
    let tracing = Arc::new(Tracing::new(1.0));
    let queue = Arc::new(SpanQueue::new(&tracing));
    for _ in 0..records {
        let observers = Observers::new(vec![Box::new(Arc::clone(&queue))]);
        let mut record = record(Direction::Inbound, "https://orders.shop/", observers);
        record.traced = Some(Box::new(traced(false)));
        record.end(Ok(()));
    }
    let identity = "spiffe://mesh/ns/shop/sa/orders".parse().unwrap();
    let process = Process {
        identity: &identity,
        service: Some("till"),
        version: None,
        instance: 1,
    };
    let said = BTreeMap::from([("service.version".to_owned(), "7".to_owned())]);
    let frame = Frame::new(&process, &said);
    let random = StdRng::seed_from_u64(1);
    let exporter = Exporter::new(&settings, Arc::clone(&tracing), vec![queue], frame, random);
    let stop = CancellationToken::new();
    stop.cancel();
    let collect = async {
        let mut got = Vec::new();
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in answers {
            let (head, content) = read(&mut stream).await;
            got.push((head, Request::decode(&content[..]).unwrap()));
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        got
    };
    let (got, ()) = tokio::join!(collect, exporter.run(stop));
    (got, tracing)
}

/// The counts by their names in `/metrics`.
fn counts(tracing: &Tracing) -> (u64, [u64; 4], u64) {
    let counts = &tracing.counts;
    let dropped = counts
        .dropped
        .each_ref()
        .map(|count| count.load(Ordering::Relaxed));
    let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    (read(&counts.exported), dropped, read(&counts.failures))
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn spans_arrive_with_whose_they_are_in_exports_of_a_bounded_size_on_one_connection() {
    let many = limits::SPANS_BATCH_MAX + 3;
    let (got, tracing) = export(many, &[OK, OK]).await;
    assert_eq!(counts(&tracing), (many as u64, [0; 4], 0));
    let spans = got
        .iter()
        .map(|(_, request)| &request.resource_spans[0].scope_spans[0].spans);
    let lengths: Vec<_> = spans.map(Vec::len).collect();
    assert_eq!(lengths, [limits::SPANS_BATCH_MAX, 3]);
    let (head, request) = &got[0];
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("api-key: secret") && head.contains("content-type: application/x-protobuf")
    );
    let of = &request.resource_spans[0];
    assert!(
        of.schema_url
            .starts_with("https://opentelemetry.io/schemas/")
    );
    assert_eq!(of.scope_spans[0].scope.as_ref().unwrap().name, "weft");
    let resource = format!("{:?}", of.resource);
    for text in [
        "service.name",
        "till",
        "service.namespace",
        "shop",
        "\"7\"",
        "service.instance.id",
    ] {
        assert!(resource.contains(text), "{text}: {resource}");
    }
}

#[tokio::test]
async fn what_does_not_arrive_is_counted_by_its_reason() {
    // A partial success: two rejected.
    let partial = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\n\x02\x08\x02";
    let (_, tracing) = export(5, &[partial]).await;
    assert_eq!(counts(&tracing), (3, [0, 0, 0, 2], 0));
    let refused = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let (_, tracing) = export(5, &[refused]).await;
    assert_eq!(counts(&tracing), (0, [0, 0, 5, 0], 1));
    let away = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let (_, tracing) = export(5, &[away]).await;
    assert_eq!(counts(&tracing), (0, [0, 5, 0, 0], 1));
    let most = limits::SPANS_QUEUED_MAX;
    let (_, tracing) = export(most + 9, &[OK; 8]).await;
    assert_eq!(counts(&tracing), (most as u64, [9, 0, 0, 0], 0));
}

#[tokio::test]
async fn a_collector_that_closes_an_idle_connection_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut collector = Collector::new(&settings(listener.local_addr().unwrap().port()));
    for _ in 0..2 {
        let collect = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
            // It closes the connection here.
        };
        let (answer, ()) = tokio::join!(collector.send(Bytes::from_static(b"x")), collect);
        assert!(
            matches!(answer, Answer::Taken { rejected: 0, .. }),
            "{answer:?}"
        );
    }
}
