//! What rules of routes do to requests and answers, as both applications see it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::task::JoinSet;
use weft_config::table::{
    Backend, Broken, Cors, FieldName, FieldValue, Filters, HeaderChanges, HttpMatch, PathChange,
    PathMatch, Protocol, Redirect, Rewrite, RouteRule, ServiceName,
};

use crate::fabric::{Fabric, application};
use crate::http_ends::{Answer, call, get, grpc_call, grpc_client, serve_http2};
use crate::resilience::metric;
use crate::sidecars::listener;

pub(crate) fn service(name: &str) -> ServiceName {
    ServiceName::new("shop", name).unwrap()
}

pub(crate) fn to(name: &str) -> Backend {
    Backend::new(service(name), 80, 1)
}

fn under(prefix: &str) -> HttpMatch {
    HttpMatch {
        path: Some(PathMatch::Prefix(prefix.into())),
        ..HttpMatch::default()
    }
}

/// A rule for a prefix, with these filters.
pub(crate) fn rule(prefix: &str, filters: Filters, backends: Vec<Backend>) -> RouteRule {
    RouteRule {
        route: "HTTPRoute/shop/r".into(),
        matches: vec![under(prefix)],
        backends,
        filters: Arc::new(filters),
        ..RouteRule::default()
    }
}

fn changes(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderChanges {
    let name = |name: &str| FieldName::try_from(name.to_owned()).unwrap();
    let pairs = |pairs: &[(&str, &str)]| {
        let value = |value: &str| FieldValue::try_from(value.to_owned()).unwrap();
        pairs.iter().map(|(n, v)| (name(n), value(v))).collect()
    };
    HeaderChanges {
        set: pairs(set),
        add: pairs(add),
        remove: remove.iter().map(|one| name(one)).collect(),
    }
}

/// `HM` of the suite.
pub(crate) fn modified() -> HeaderChanges {
    changes(
        &[("X-Set", "S")],
        &[("X-Add", "A1"), ("X-App", "A2")],
        &["X-Rm"],
    )
}

pub(crate) fn request(path: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = get("orders:5001", path);
    for (name, value) in fields {
        let name = http::HeaderName::try_from(*name).unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

/// What was seen of a field, all of its lines.
pub(crate) fn seen(answer: &Answer, name: &str) -> Option<String> {
    lines(&answer.headers, &format!("seen-{name}"))
}

pub(crate) fn lines(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines: Vec<&str> = headers
        .get_all(name)
        .iter()
        .map(|line| line.to_str().unwrap())
        .collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

/// Shows what it saw: the target, and each field as `seen-NAME`. Sets the fields that `respond` names.
pub(crate) async fn show(name: &'static str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut response = Response::builder()
        .header("x-by", name)
        .header("x-target", head.uri.path_and_query().unwrap().as_str());
    for (name, value) in &head.headers {
        response = response.header(format!("seen-{name}"), value);
    }
    if let Some(respond) = head.headers.get("respond") {
        for pair in respond.to_str().unwrap().split(';') {
            let (name, value) = pair.split_once('=').unwrap();
            response = response.header(name, value);
        }
    }
    response.body(Full::new(body)).unwrap()
}

/// `orders` with these rules before the applications v1 and v2; the client's listener of it.
pub(crate) struct Pair {
    pub(crate) fabric: Fabric,
    client: usize,
    _tasks: [JoinSet<()>; 2],
}

impl Pair {
    pub(crate) async fn start(rules: Vec<RouteRule>) -> Self {
        let mut fabric = Fabric::new();
        let (one, first) = application(|request| show("v1", request)).await;
        let (two, second) = application(|request| show("v2", request)).await;
        let serves = [("v1", one), ("v2", two), ("orders", one)];
        fabric.add("orders", &serves, &[]).await;
        let client = fabric.add("client", &[], &["orders"]).await;
        let pair = Self {
            fabric,
            client,
            _tasks: [first, second],
        };
        pair.publish(&rules).await;
        pair
    }

    pub(crate) async fn publish(&self, rules: &[RouteRule]) {
        let change = |name: &str, port: &mut weft_config::table::Port| {
            if name == "orders" {
                port.routes = rules.to_vec();
            }
        };
        self.fabric.publish_ports(change).await;
    }

    pub(crate) fn listener(&self) -> SocketAddr {
        self.fabric.listener(self.client, 0)
    }

    pub(crate) async fn call(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        call(self.listener(), request(path, fields)).await
    }

    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metric(&self.fabric, self.client, name, labels).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_sees_the_rewritten_host_and_path_and_the_query_stays() {
    let rewrite = |host: Option<&str>, path| Filters {
        rewrite: Rewrite {
            host: host.map(str::to_owned),
            path,
        },
        request_headers: modified(),
        ..Filters::default()
    };
    let prefix = |matched: &str, with: &str| {
        Some(PathChange::Prefix {
            matched: matched.into(),
            with: with.into(),
        })
    };
    // Case G30: of a backend.
    let mut full = to("v1");
    full.filters = Arc::new(rewrite(None, Some(PathChange::Full("/rewritten".into()))));
    let mesh = Pair::start(vec![
        rule(
            "/prefix/one",
            rewrite(None, prefix("/prefix/one", "/one")),
            vec![to("v1")],
        ),
        rule(
            "/strip",
            rewrite(None, prefix("/strip", "/")),
            vec![to("v1")],
        ),
        rule(
            "/host",
            rewrite(Some("one.example.org"), None),
            vec![to("v2")],
        ),
        rule("/full", Filters::default(), vec![full]),
        rule("/", Filters::default(), vec![to("v2")]),
    ])
    .await;
    for (id, path, by, target, host) in [
        (
            "M17",
            "/prefix/one/two?q=%20",
            "v1",
            "/one/two?q=%20",
            "orders:5001",
        ),
        ("M17", "/strip/three", "v1", "/three", "orders:5001"),
        ("M17", "/strip", "v1", "/", "orders:5001"),
        ("G29", "/host", "v2", "/host", "one.example.org"),
        (
            "G30",
            "/full/original?a",
            "v1",
            "/rewritten?a",
            "orders:5001",
        ),
        (
            "the bystander",
            "/prefix/ones?b",
            "v2",
            "/prefix/ones?b",
            "orders:5001",
        ),
    ] {
        let fields = [("x-rm", "r"), ("x-app", "p"), ("x-set", "q")];
        let answer = mesh.call(path, &fields).await;
        let field = |name: &str| answer.headers[name].to_str().unwrap();
        assert_eq!(field("x-by"), by, "{id} {path}");
        assert_eq!(field("x-target"), target, "{id} {path}");
        assert_eq!(field("seen-host"), host, "{id} {path}");
        let is_changed = id != "the bystander";
        let expected = match is_changed {
            true => [Some("S"), Some("A1"), Some("p,A2"), None],
            false => [Some("q"), None, Some("p"), Some("r")],
        };
        let names = ["x-set", "x-add", "x-app", "x-rm"];
        let found = names.map(|name| seen(&answer, name));
        assert_eq!(
            found.each_ref().map(Option::as_deref),
            expected,
            "{id} {path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_changed_for_the_caller_and_answers_of_the_mesh_are_not() {
    let filters = Filters {
        response_headers: changes(
            &[("X-Set-1", "s1"), ("X-Set-2", "s2"), ("weft-error", "x")],
            &[("X-Add-1", "a1"), ("X-Add-2", "a2")],
            &["X-Rm-1", "X-Rm-2", "content-length"],
        ),
        request_headers: modified(),
        ..Filters::default()
    };
    let mut nowhere = to("v1");
    nowhere.broken = Some(Broken::BackendNotFound);
    let mut of_backend = to("v1");
    of_backend.filters = Arc::new(filters.clone());
    let mesh = Pair::start(vec![
        rule("/both", filters.clone(), vec![to("v1")]),
        rule("/backend", Filters::default(), vec![of_backend]),
        rule("/broken", filters, vec![nowhere]),
    ])
    .await;
    let fields = [
        ("x-app", "p"),
        ("respond", "x-set-2=q;x-add-2=q;x-rm-1=q;x-rm-2=q;other=o"),
    ];
    for (id, path) in [("G27 /both", "/both"), ("by a backend", "/backend")] {
        let answer = mesh.call(path, &fields).await;
        assert_eq!(seen(&answer, "x-app").as_deref(), Some("p,A2"), "{id}");
        for (name, expected) in [
            ("x-set-1", Some("s1")),
            ("x-set-2", Some("s2")),
            ("x-add-1", Some("a1")),
            ("x-add-2", Some("q,a2")),
            ("x-rm-1", None),
            ("other", Some("o")),
            ("weft-error", None),
            ("content-length", Some("0")),
        ] {
            let found = lines(&answer.headers, name);
            assert_eq!(found.as_deref(), expected, "{id} {name}");
        }
    }
    let broken = mesh.call("/broken", &fields).await;
    assert_eq!(broken.status, 500);
    assert!(!broken.headers.contains_key("x-set-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_answered_by_the_sidecar_and_is_no_failure() {
    let redirect = Redirect {
        scheme: None,
        host: None,
        path: Some(PathChange::Prefix {
            matched: "/old".into(),
            with: "/new".into(),
        }),
        port: None,
        status: 301,
    };
    let filters = Filters {
        redirect: Some(redirect),
        ..Filters::default()
    };
    // Case G31: of a backend.
    let mut backend = to("v1");
    backend.filters = Arc::new(filters.clone());
    let mut of_backend = rule("/old/backend", Filters::default(), vec![backend]);
    of_backend.route = "HTTPRoute/shop/b".into();
    let mesh = Pair::start(vec![of_backend, rule("/old", filters, vec![])]).await;
    for (path, location) in [
        ("/old/a?b=c", "http://orders/new/a?b=c"),
        ("/old/backend/a", "http://orders/new/backend/a"),
    ] {
        let answer = mesh.call(path, &[]).await;
        assert_eq!(answer.status, 301, "{path}");
        assert_eq!(answer.headers["location"], location);
        let told = answer.headers["proxy-status"].to_str().unwrap();
        assert!(
            told.starts_with("weft; details=\"redirect of HTTPRoute/shop/"),
            "{told}"
        );
        assert!(!answer.headers.contains_key("x-by") && answer.body.is_empty());
    }
    let labels = [
        "route=\"HTTPRoute/shop/r\"",
        "status=\"301\"",
        "classification=\"success\"",
    ];
    assert!((mesh.metric("weft_requests_total", &labels).await - 1.0).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_never_reaches_the_application_and_its_request_does() {
    let filters = Filters {
        cors: Some(Cors {
            origins: vec!["https://*.bar.com".into()],
            credentials: true,
            methods: vec!["PUT".into()],
            headers: vec!["x-1".into()],
            exposed: vec!["x-3".into()],
            max_age: 5,
        }),
        ..Filters::default()
    };
    let mesh = Pair::start(vec![
        rule("/cors", filters.clone(), vec![to("v1")]),
        rule("/none", filters, vec![]),
    ])
    .await;
    let origin = ("origin", "https://www.bar.com");
    let mut preflight = request("/cors", &[origin, ("access-control-request-method", "PUT")]);
    *preflight.method_mut() = http::Method::OPTIONS;
    let answer = call(mesh.listener(), preflight).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.headers["access-control-allow-methods"], "PUT");
    assert_eq!(
        answer.headers["access-control-allow-origin"],
        "https://www.bar.com"
    );
    assert!(!answer.headers.contains_key("x-by"));
    let fields = [origin, ("respond", "access-control-allow-origin=*")];
    let answer = mesh.call("/cors", &fields).await;
    assert_eq!(answer.headers["x-by"], "v1");
    let allowed = lines(&answer.headers, "access-control-allow-origin");
    assert_eq!(allowed.as_deref(), Some("https://www.bar.com"));
    // Of an origin that is not allowed it passes as well, and no page reads the answer.
    let fields = [
        ("origin", "https://foobar.com"),
        ("respond", "access-control-allow-origin=*"),
    ];
    let answer = mesh.call("/cors", &fields).await;
    assert_eq!(answer.headers["x-by"], "v1");
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_grpc_are_changed_and_refused_in_their_own_words() {
    let mut tasks = JoinSet::new();
    let mut fabric = Fabric::new();
    let (application, address) = listener().await;
    serve_http2(&mut tasks, application, || {});
    fabric.add("grpc", &[("grpc", address)], &[]).await;
    let client = fabric.add("client", &[], &["grpc"]).await;
    let publish = async |filters: Filters, backend: Backend, path: &str| {
        let rule = rule(path, filters, vec![backend]);
        fabric
            .publish_ports(|_, port| {
                port.protocol = Protocol::Grpc;
                port.routes = vec![rule.clone()];
            })
            .await;
    };
    let filters = Filters {
        request_headers: changes(&[("weft-client-id", "me")], &[], &[]),
        response_headers: changes(&[("x-path", "set")], &[("x-add", "a")], &["grpc-status"]),
        rewrite: Rewrite {
            host: Some("one.example.org".into()),
            path: None,
        },
        ..Filters::default()
    };
    let (mut sender, _connection) = grpc_client(fabric.listener(client, 0)).await;
    publish(filters, to("grpc"), "/pkg.Service/Method").await;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let answer = grpc_call(&mut sender, trailers.clone()).await;
    assert_eq!(answer.body, "data");
    assert_eq!(answer.headers["x-path"], "set");
    assert_eq!(answer.headers["x-add"], "a");
    assert_ne!(answer.headers["x-client"], "me");
    publish(Filters::default(), to("grpc"), "/pkg.Service/Other").await;
    let answer = grpc_call(&mut sender, trailers.clone()).await;
    assert_eq!(answer.headers["grpc-status"], "12", "R1");
    let mut broken = to("grpc");
    broken.broken = Some(Broken::InvalidKind);
    publish(Filters::default(), broken, "/pkg.Service/Method").await;
    let answer = grpc_call(&mut sender, trailers).await;
    assert_eq!(answer.headers["grpc-status"], "14", "R6");
}
