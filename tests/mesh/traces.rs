//! Spans of a whole mesh, as a collector made of OpenTelemetry's own messages gets them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use crate::harness::{
    Mesh, Need, Origin, Process, Seen, SidecarPlan, eventually, exchange, expect_echo, need,
    python_command, service, wait_until,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A collector, and the file to which it writes spans.
struct Collector {
    kind: &'static str,
    address: SocketAddr,
    file: PathBuf,
    /// Certificate and key, if it is asked over TLS.
    files: Vec<PathBuf>,
    process: Option<Process>,
}

impl Collector {
    /// One that does not run yet.
    fn new(mesh: &Mesh, kind: &'static str) -> Self {
        let port = if kind == "grpc" { 4317 } else { 4318 };
        Self {
            kind,
            address: (mesh.address(), port).into(),
            file: mesh.folder().join("spans.json"),
            files: Vec::new(),
            process: None,
        }
    }

    fn start(mesh: &Mesh, kind: &'static str) -> Self {
        let mut collector = Self::new(mesh, kind);
        collector.run(mesh);
        collector
    }

    fn run(&mut self, mesh: &Mesh) {
        let mut command = python_command("otlp_collector.py");
        command
            .args([self.kind, &self.address.to_string()])
            .arg(&self.file)
            .args(&self.files);
        let mut process = Process::spawn("collector", mesh.folder(), &mut command);
        process.wait_for_line("serving");
        self.process = Some(process);
    }

    /// A sidecar that sends its spans here, all or a share.
    fn of(&self, plan: SidecarPlan, ratio: &str) -> SidecarPlan {
        let otlp = match &self.files[..] {
            [] => format!("otlp: \"http://{}\"", self.address),
            [chain, ..] => format!(
                "otlp: \"https://{}\", certificate: \"{}\"",
                self.address,
                chain.display()
            ),
        };
        let otlp = format!("traces: {{ {otlp}, ratio: {ratio} }}");
        plan.setting(&otlp).setting("access_log: all")
    }

    /// The spans so far.
    fn spans(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The spans, once there are so many.
    fn wait(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} spans");
        let spans = wait_until(&what, Duration::from_secs(30), || {
            let spans = self.spans();
            (spans.len() >= count).then_some(spans)
        });
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

/// Asks for `/` as a program does that is traced.
fn ask(address: SocketAddr, fields: &str) -> u16 {
    let request = format!(
        "GET /?token=secret HTTP/1.1\r\nhost: orders.shop\r\n{fields}connection: close\r\n\r\n"
    );
    exchange(address, request.as_bytes()).unwrap().status
}

fn answer(out: &mut impl std::io::Write, status: &str) -> std::io::Result<bool> {
    out.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
    Ok(true)
}

fn text<'s>(span: &'s Value, key: &str) -> &'s str {
    span[key].as_str().unwrap()
}

/// The one span of that service and kind below a parent.
fn child<'s>(spans: &'s [Value], parent: &str, of: &str, kind: &str) -> Vec<&'s Value> {
    let mut found: Vec<&Value> = spans
        .iter()
        .filter(|span| text(span, "parent") == parent)
        .collect();
    found.sort_by_key(|span| span["start"].as_u64());
    for span in &found {
        assert_eq!(span["resource"]["service.name"], of, "{span:#}");
        assert_eq!(text(span, "kind"), kind, "{span:#}");
    }
    found
}

/// Three services, of which the second answers 503 at first, and the third is slow to one of two copies.
fn a_chain_is_one_trace(kind: &'static str) {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let collector = Collector::start(&mesh, kind);
    let policy = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: {name}, namespace: shop }}\n\
             spec:\n  targetRefs: [ {{ kind: Service, name: {name} }} ]\n  {spec}\n"
        )
    };
    mesh.apply(&format!(
        "{}{}{}{}",
        service("orders", 80, "http"),
        service("payments", 80, "http"),
        policy("orders", "retry: { attempts: 2, codes: [503] }"),
        policy("payments", "hedge: { after: 100ms }"),
    ));
    // The first of two calls waits for the second.
    let asked = Arc::new((Mutex::new(0), Condvar::new()));
    let payments = Origin::http(mesh.address(), move |_, out| {
        let (count, changed) = &*asked;
        let mut count = count.lock().unwrap();
        *count += 1;
        changed.notify_all();
        while *count < 2 {
            count = changed.wait(count).unwrap();
        }
        drop(count);
        answer(out, "200 OK")
    });
    let serving = |name: &str| {
        let plan = mesh.sidecar("payments").named(name);
        collector
            .of(plan, "0")
            .serves("payments:80", payments.address)
            .start()
    };
    let _both = [serving("payments"), serving("payments-2")];
    let calls = Arc::new(Mutex::new(None::<SocketAddr>));
    let (to_payments, first) = (Arc::clone(&calls), Mutex::new(true));
    let orders = Origin::http(mesh.address(), move |seen: &Seen, out| {
        if std::mem::take(&mut *first.lock().unwrap()) {
            return answer(out, "503 Service Unavailable");
        }
        // As programs do that are traced: they pass the context on.
        let context = seen.header("traceparent").unwrap();
        let fields = format!("traceparent: {context}\r\ntracestate: a=1\r\n");
        let address = to_payments.lock().unwrap().unwrap();
        assert_eq!(ask(address, &fields), 200);
        answer(out, "200 OK")
    });
    let plan = collector.of(mesh.sidecar("orders"), "0");
    let second = plan
        .serves("orders:80", orders.address)
        .calls("payments:80")
        .start();
    second.wait_endpoints("payments:80", 2);
    *calls.lock().unwrap() = Some(second.listener("payments:80"));
    let web = collector
        .of(mesh.sidecar("web"), "0")
        .calls("orders:80")
        .start();
    web.wait_endpoints("orders:80", 1);

    let fields = format!("traceparent: 00-{TRACE}-{CALLER}-03\r\ntracestate: a=1\r\n");
    assert_eq!(ask(web.listener("orders:80"), &fields), 200);

    let spans = collector.wait(10);
    for span in &spans {
        assert_eq!(
            (
                text(span, "trace"),
                text(span, "state"),
                text(span, "scope")
            ),
            (TRACE, "a=1", "weft")
        );
        assert_eq!(span["flags"].as_u64().unwrap() & 0xff, 3);
        assert_eq!(span["resource"]["service.namespace"], "shop");
        assert!(span["start"].as_u64() <= span["end"].as_u64());
        assert!(!span.to_string().contains("secret"), "{span:#}");
    }
    let id = |span: &Value| text(span, "span").to_owned();
    let resent = |span: &Value| span["attributes"]["http.request.resend_count"].as_u64();
    let status = |span: &Value| span["attributes"]["http.response.status_code"].as_u64();

    let whole = child(&spans, CALLER, "web", "SPAN_KIND_CLIENT");
    let [whole] = whole[..] else {
        panic!("{spans:#?}")
    };
    assert_eq!(
        (status(whole), text(whole, "status")),
        (Some(200), "STATUS_CODE_UNSET")
    );
    let attempts = child(&spans, &id(whole), "web", "SPAN_KIND_CLIENT");
    let [refused, taken] = attempts[..] else {
        panic!("{spans:#?}")
    };
    assert_eq!((status(refused), resent(refused)), (Some(503), None));
    assert_eq!((status(taken), resent(taken)), (Some(200), Some(1)));
    assert_eq!(text(refused, "status"), "STATUS_CODE_ERROR");
    let served = child(&spans, &id(refused), "orders", "SPAN_KIND_SERVER");
    assert_eq!(status(served[0]), Some(503));
    let served = child(&spans, &id(taken), "orders", "SPAN_KIND_SERVER");
    let [served] = served[..] else {
        panic!("{spans:#?}")
    };

    let asked = child(&spans, &id(served), "orders", "SPAN_KIND_CLIENT");
    let [asked] = asked[..] else {
        panic!("{spans:#?}")
    };
    let copies = child(&spans, &id(asked), "orders", "SPAN_KIND_CLIENT");
    let [first, second] = copies[..] else {
        panic!("{spans:#?}")
    };
    assert_eq!((resent(first), resent(second)), (None, Some(1)));
    let cancelled = |span: &Value| span["attributes"]["weft.cancelled"] == true;
    assert_ne!(cancelled(first), cancelled(second), "{copies:#?}");
    for copy in [first, second] {
        let served = child(&spans, &id(copy), "payments", "SPAN_KIND_SERVER");
        let [served] = served[..] else {
            panic!("{spans:#?}")
        };
        assert_eq!(served["attributes"]["url.path"], "/");
        let principal = served["attributes"]["weft.principal"].as_str().unwrap();
        assert!(principal.ends_with("/ns/shop/sa/orders"), "{principal}");
    }
    let log = web.process.log();
    assert!(
        log.contains(&format!(
            "\"trace_id\":\"{TRACE}\",\"span_id\":\"{}\"",
            id(whole)
        )),
        "{log}"
    );
}

#[test]
fn a_chain_with_a_retry_and_a_hedge_is_one_trace_at_a_collector_of_grpc() {
    a_chain_is_one_trace("grpc");
}

#[test]
fn a_chain_with_a_retry_and_a_hedge_is_one_trace_at_a_collector_of_http() {
    a_chain_is_one_trace("http");
}

#[test]
fn a_tunnel_is_a_span_on_each_side_that_ends_when_it_does_and_a_collector_may_come_late() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let mut collector = Collector::new(&mesh, "grpc");
    mesh.apply(&service("bytes", 9000, "tcp"));
    let echo = Origin::raw(mesh.address(), |mut tap| {
        let mut writer = tap.try_clone()?;
        std::io::copy(&mut tap, &mut writer).map(drop)
    });
    let plan = collector.of(mesh.sidecar("bytes"), "1");
    let bytes = plan.serves("bytes:9000", echo.address).start();
    let shop = collector
        .of(mesh.sidecar("shop"), "1")
        .calls("bytes:9000")
        .start();
    shop.wait_endpoints("bytes:9000", 1);
    let mut stream = std::net::TcpStream::connect(shop.listener("bytes:9000")).unwrap();
    expect_echo(&mut stream, b"hello");
    drop(stream);
    let failed = |page: &str| {
        let line = page
            .lines()
            .find(|line| line.starts_with("weft_span_exports_failed_total "));
        line.is_some_and(|line| !line.ends_with(" 0"))
    };
    eventually("both have tried in vain", || {
        [&bytes, &shop]
            .iter()
            .all(|one| failed(&one.admin_get("/metrics").unwrap().text()))
    });
    collector.run(&mesh);

    let spans = collector.wait(3);
    let whole = child(&spans, "", "shop", "SPAN_KIND_CLIENT");
    let [whole] = whole[..] else {
        panic!("{spans:#?}")
    };
    assert_eq!(text(whole, "name"), "CONNECT bytes.shop:9000");
    let attempt = child(&spans, text(whole, "span"), "shop", "SPAN_KIND_CLIENT")[0];
    let served = child(&spans, text(attempt, "span"), "bytes", "SPAN_KIND_SERVER")[0];
    assert_eq!(text(served, "trace"), text(whole, "trace"));
    assert_eq!(served["attributes"]["network.transport"], "tcp");
    // The decision was made once, and its trace is random.
    assert_eq!(whole["flags"].as_u64().unwrap() & 0xff, 3);
}

#[test]
fn spans_arrive_over_tls_at_a_collector_whose_roots_the_settings_name() {
    if !need(&[Need::Python]) {
        return;
    }
    for kind in ["grpc", "http"] {
        let mesh = Mesh::start();
        let mut collector = Collector::new(&mesh, kind);
        let names = [collector.address.ip().to_string()];
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let texts = [params.self_signed(&key).unwrap().pem(), key.serialize_pem()];
        for (name, text) in ["collector.pem", "collector.key"].iter().zip(texts) {
            let path = mesh.folder().join(name);
            std::fs::write(&path, text).unwrap();
            collector.files.push(path);
        }
        collector.run(&mesh);
        mesh.apply(&service("orders", 80, "http"));
        let plan = collector.of(mesh.sidecar("shop"), "1");
        let shop = plan.calls("orders:80").start();
        // No endpoint: the span of the request, and that of the attempt that found none.
        assert_eq!(ask(shop.listener("orders:80"), ""), 503);
        let spans = collector.wait(2);
        let whole = child(&spans, "", "shop", "SPAN_KIND_CLIENT")[0];
        assert_eq!(text(whole, "status"), "STATUS_CODE_ERROR", "{kind}");
        assert_eq!(whole["attributes"]["error.type"], "destination_unavailable");
    }
}

#[test]
fn what_is_not_drawn_has_no_spans_anywhere_and_what_a_caller_says_passes_as_it_is() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let collector = Collector::start(&mesh, "http");
    mesh.apply(&service("orders", 80, "http"));
    let origin = Origin::http(mesh.address(), |_, out| answer(out, "200 OK"));
    // The far side would record all that begins there.
    let plan = collector.of(mesh.sidecar("orders"), "1");
    let _orders = plan.serves("orders:80", origin.address).start();
    let mut shop = collector
        .of(mesh.sidecar("shop"), "0")
        .calls("orders:80")
        .start();
    shop.wait_endpoints("orders:80", 1);
    let address = shop.listener("orders:80");
    let parent = format!("00-{TRACE}-{CALLER}-02");
    assert_eq!(
        ask(
            address,
            &format!("traceparent: {parent}\r\ntracestate: a=1,  b=2\r\n")
        ),
        200
    );
    assert_eq!(ask(address, "tracestate: a=1\r\n"), 200);
    assert_eq!(ask(address, "traceparent: 00-bad\r\n"), 200);
    let seen = origin.requests();
    assert_eq!(seen[0].header("traceparent"), Some(parent.as_str()));
    assert_eq!(seen[0].header("tracestate"), Some("a=1,  b=2"));
    for seen in &seen[1..] {
        let context = seen.header("traceparent").unwrap();
        assert!(
            context.starts_with("00-") && context.ends_with("-02"),
            "{context}"
        );
        assert_eq!(seen.header("tracestate"), None);
    }
    // The one span that is sent is of the request that is recorded, at the drain.
    let recorded = format!("traceparent: 00-{TRACE}-{CALLER}-01\r\n");
    assert_eq!(ask(address, &recorded), 200);
    shop.process.signal(Signal::SIGTERM);
    shop.process.wait_exit(Duration::from_secs(20));
    let spans = collector.wait(3);
    assert!(spans.iter().all(|span| text(span, "trace") == TRACE));
}
