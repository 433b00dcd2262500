//! Services outside of the mesh: what leaves, where to, and what is refused. In each test the sidecar that
//! calls outside also calls a Service of the mesh, whose requests must not notice.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{
    Mesh, Origin, Process, Response, Shop, SidecarPlan, WEFT, connect, eventually, exchange,
    expect_echo, get, pause, program, service,
};

/// An ExternalService `pay`; `spec` is what stands beside its ports.
pub(crate) fn external(spec: &str, port: u16, protocol: &str, tls: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: ExternalService\n\
         metadata: {{ name: pay, namespace: shop }}\nspec:\n  hosts: [ pay.example ]\n  \
         ports: [ {{ port: {port}, protocol: {protocol}{tls} }} ]\n{spec}"
    )
}

pub(crate) fn addresses(all: &[IpAddr]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    format!("  addresses: [ {} ]\n", all.join(", "))
}

/// A mesh with `orders` and `shop`, which also calls by host, and by `pay:PORT`.
fn shop(resources: &str, port: u16, plan: impl FnOnce(SidecarPlan) -> SidecarPlan) -> Shop {
    shop_in(Mesh::start(), resources, port, plan)
}

fn shop_in(
    mesh: Mesh,
    resources: &str,
    port: u16,
    plan: impl FnOnce(SidecarPlan) -> SidecarPlan,
) -> Shop {
    let orders = Box::leak(Box::new(Origin::echo(mesh.address(), "orders")));
    mesh.apply(&format!("{}{resources}", service("orders", 80, "http")));
    Shop::calling(mesh, orders.address, |shop| {
        plan(shop.calls(&format!("pay:{port}")).calls_by_host())
    })
}

fn by_host(shop: &Shop, host: &str) -> Response {
    let request = format!("GET /a?b HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    exchange(shop.sidecar.by_host(), request.as_bytes()).unwrap()
}

fn metric(shop: &Shop, line: &str) -> f64 {
    let page = shop.sidecar.admin_get("/metrics").unwrap().text();
    let found = page.lines().find(|one| one.starts_with(line));
    found.map_or(0.0, |line| {
        line.rsplit(' ').next().unwrap().parse().unwrap()
    })
}

/// A resolver of the test's own: names with their addresses, which may change. Answers hold for 0 s.
pub(crate) struct Resolver {
    address: SocketAddr,
    names: Arc<Mutex<BTreeMap<String, Vec<Ipv4Addr>>>>,
    silent: Arc<AtomicBool>,
}

impl Resolver {
    pub(crate) fn start(address: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        let resolver = Self {
            address: socket.local_addr().unwrap(),
            names: Arc::default(),
            silent: Arc::default(),
        };
        let (names, silent) = (Arc::clone(&resolver.names), Arc::clone(&resolver.silent));
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let question = &buffer[..length];
                if !silent.load(Ordering::Relaxed) {
                    let answer = answer(question, &names.lock().unwrap());
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        resolver
    }

    pub(crate) fn leads(&self, name: &str, to: &[Ipv4Addr]) {
        self.names
            .lock()
            .unwrap()
            .insert(name.to_owned(), to.to_vec());
    }

    pub(crate) fn setting(&self) -> String {
        format!("dns: {{ servers: [ \"{}\" ] }}", self.address)
    }
}

fn answer(question: &[u8], names: &BTreeMap<String, Vec<Ipv4Addr>>) -> Vec<u8> {
    let (mut labels, mut at) = (Vec::new(), 12);
    while question[at] > 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..at + 1 + length]).into_owned());
        at += 1 + length;
    }
    let end = at + 5;
    let is_ipv4 = question[at + 2] == 1;
    let found = names.get(&labels.join(".")).filter(|_| is_ipv4);
    let found = found.cloned().unwrap_or_default();
    let mut message = question[..2].to_vec();
    message.extend([
        0x81,
        0x80,
        0,
        1,
        0,
        u8::try_from(found.len()).unwrap(),
        0,
        0,
        0,
        0,
    ]);
    message.extend(&question[12..end]);
    for address in found {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        message.extend(address.octets());
    }
    message
}

/// `weft load serve` outside of the mesh, over TLS with a certificate of its own for `localhost`.
struct Secure {
    address: SocketAddr,
    root: String,
    _server: Process,
}

impl Secure {
    fn start(mesh: &Mesh, port: u16) -> Self {
        let address = SocketAddr::from((mesh.address(), port));
        let root = mesh.folder().join("outside.pem");
        let mut command = program(WEFT);
        command.args([
            "load",
            "serve",
            "--https",
            &address.to_string(),
            "--cert-out",
        ]);
        let server = Process::spawn("outside", mesh.folder(), command.arg(&root));
        eventually("the server outside listens", || connect(address).is_ok());
        Self {
            address,
            root: root.display().to_string(),
            _server: server,
        }
    }
}

#[test]
fn a_request_leaves_by_listener_and_by_host_with_nothing_of_the_mesh_on_it() {
    let mesh = Mesh::start();
    let pay = Origin::echo(mesh.address(), "pay");
    let port = pay.address.port();
    let spec = external(&addresses(&[pay.address.ip()]), port, "http", "");
    let mut shop = shop_in(mesh, &spec, port, |plan| plan);
    let listener = shop.sidecar.listener(&format!("pay:{port}"));
    let response = get(listener, "/x").unwrap();
    assert_eq!(response.status, 200, "{response:?}");
    assert!(response.text().starts_with("pay GET /x"), "{response:?}");
    assert!(
        !response
            .headers
            .iter()
            .any(|(name, _)| name.starts_with("weft-"))
    );
    assert_eq!(by_host(&shop, "pay.example").status, 200);
    assert_eq!(by_host(&shop, &format!("PAY.example.:{port}")).status, 200);
    assert_eq!(by_host(&shop, "pay.shop").status, 200);
    let body = "POST / HTTP/1.1\r\nhost: pay.example\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
                5\r\nhello\r\n0\r\n\r\n";
    let response = exchange(shop.sidecar.by_host(), body.as_bytes()).unwrap();
    assert!(response.text().ends_with(" 5"), "{response:?}");
    for seen in pay.requests() {
        let mesh_made = |(name, _): &(String, String)| {
            let name = name.to_ascii_lowercase();
            name.starts_with("weft-") || name == "via"
        };
        assert!(!seen.headers.iter().any(mesh_made), "{seen:?}");
        let host = seen.header("host").unwrap().to_ascii_lowercase();
        assert!(host.starts_with("pay.example"), "{seen:?}");
    }
    // Connections are kept, as those to applications are.
    let before = pay.connections();
    for _ in 0..5 {
        assert_eq!(by_host(&shop, "pay.example").status, 200);
    }
    assert!(
        pay.connections() <= before + 2,
        "{} {before}",
        pay.connections()
    );
    let page = shop.sidecar.admin_get("/metrics").unwrap().text();
    let counted = page.lines().any(|one| {
        one.starts_with("weft_requests_total{")
            && one.contains(&format!("destination_service=\"pay.shop:{port}\""))
    });
    assert!(counted, "{page}");
    shop.expect_unharmed();
}

#[test]
fn tls_is_spoken_to_a_server_that_proves_its_name_under_the_root_that_is_named() {
    let mesh = Mesh::start();
    let secure = Secure::start(&mesh, 8443);
    let port = secure.address.port();
    let tls = |root: &str, name: &str| {
        let tls = format!(", tls: {{ caFile: {root}, serverName: {name} }}");
        external(&addresses(&[secure.address.ip()]), port, "http", &tls)
    };
    let mut shop = shop_in(mesh, &tls(&secure.root, "localhost"), port, |plan| plan);
    let listener = shop.sidecar.listener(&format!("pay:{port}"));
    for _ in 0..3 {
        let response = get(listener, "/").unwrap();
        assert_eq!(response.status, 200, "{response:?}");
    }
    let orders = service("orders", 80, "http");
    // Another name, and the roots of the system: neither vouches for it.
    shop.mesh
        .apply(&format!("{orders}{}", tls(&secure.root, "other.example")));
    let response = get(listener, "/").unwrap();
    assert_eq!(response.status, 502, "{response:?}");
    let told = response
        .header("proxy-status")
        .unwrap_or_default()
        .to_owned();
    assert!(told.contains("tls_certificate_error"), "{told}");
    let missing = tls("/nowhere/ca.pem", "localhost");
    shop.mesh.apply(&format!("{orders}{missing}"));
    assert_eq!(get(listener, "/").unwrap().status, 502);
    shop.mesh
        .apply(&format!("{orders}{}", tls(&secure.root, "localhost")));
    assert_eq!(get(listener, "/").unwrap().status, 200);
    shop.expect_unharmed();
}

#[test]
fn bytes_of_tcp_leave_and_end_when_a_policy_forbids_them() {
    let mesh = Mesh::start();
    let far = Origin::raw(mesh.address(), |mut tap| {
        let mut out = tap.try_clone()?;
        std::io::copy(&mut tap, &mut out).map(drop)
    });
    let port = far.address.port();
    let spec = external(&addresses(&[far.address.ip()]), port, "tcp", "");
    let mut shop = shop_in(mesh, &spec, port, |plan| plan);
    let listener = shop.sidecar.listener(&format!("pay:{port}"));
    let mut stream = connect(listener).unwrap();
    expect_echo(&mut stream, b"hello");
    expect_echo(&mut stream, &[7; 300_000]);
    let deny = "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
                metadata: { name: none, namespace: shop }\nspec:\n  \
                targetRefs: [ { kind: ExternalService, name: pay } ]\n  action: Deny\n";
    shop.mesh
        .apply(&format!("{}{spec}{deny}", service("orders", 80, "http")));
    eventually("the connection ends", || stream.write_all(b"x").is_err());
    let before = far.bytes().len();
    // The reset may come while it is still being made.
    if let Ok(mut refused) = connect(listener) {
        eventually("another is refused", || refused.write_all(b"x").is_err());
    }
    assert_eq!(far.bytes().len(), before);
    shop.expect_unharmed();
}

#[test]
fn a_name_that_leads_inside_is_never_dialled_and_one_that_is_listed_is_followed() {
    let mesh = Mesh::start();
    let inside = Origin::echo(mesh.address(), "inside");
    let port = inside.address.port();
    let IpAddr::V4(home) = inside.address.ip() else {
        panic!("an IPv4 address")
    };
    let resolver = Resolver::start(mesh.address());
    resolver.leads("pay.example", &[home]);
    let spec = external("", port, "http", "");
    let mut shop = shop_in(mesh, &spec, port, |plan| plan.setting(&resolver.setting()));
    eventually("the name is resolved", || {
        by_host(&shop, "pay.example").status == 403
    });
    let refused = by_host(&shop, "pay.example");
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(inside.connections(), 0);

    let allowed = format!("  allowedRanges: [ {home}/32 ]\n");
    let allowed = external(&allowed, port, "http", "");
    shop.mesh
        .apply(&format!("{}{allowed}", service("orders", 80, "http")));
    eventually("the range is allowed", || {
        by_host(&shop, "pay.example").status == 200
    });
    // It moves, and is found again, within the least time that an answer holds.
    resolver.leads("pay.example", &[Ipv4Addr::new(127, 255, 0, 9)]);
    eventually("the name leads elsewhere", || {
        by_host(&shop, "pay.example").status == 403
    });
    resolver.leads("pay.example", &[home]);
    eventually("the name leads back", || {
        by_host(&shop, "pay.example").status == 200
    });
    // While the resolver is silent, the last address holds.
    resolver.silent.store(true, Ordering::Relaxed);
    pause(Duration::from_secs(7));
    assert_eq!(by_host(&shop, "pay.example").status, 200);
    assert!(metric(&shop, "weft_egress_lookups_total{result=\"answered\"}") >= 3.0);
    shop.expect_unharmed();
}

#[test]
fn only_callers_that_a_policy_names_reach_what_is_outside_and_with_its_requests_only() {
    let mesh = Mesh::start();
    let pay = Origin::echo(mesh.address(), "pay");
    let port = pay.address.port();
    let spec = external(&addresses(&[pay.address.ip()]), port, "http", "");
    let policy = |caller: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
             metadata: {{ name: pay, namespace: shop }}\nspec:\n  \
             targetRefs: [ {{ kind: ExternalService, name: pay }} ]\n  action: Allow\n  \
             from: [ {{ principals: [ \"spiffe://{}/ns/shop/sa/{caller}\" ] }} ]\n  \
             to: [ {{ methods: [GET], paths: [ \"/x\" ] }} ]\n",
            Mesh::DOMAIN
        )
    };
    let mut shop = shop_in(mesh, &format!("{spec}{}", policy("shop")), port, |plan| {
        plan
    });
    let listener = shop.sidecar.listener(&format!("pay:{port}"));
    assert_eq!(get(listener, "/x").unwrap().status, 200);
    assert_eq!(get(listener, "/y").unwrap().status, 403);
    let post = "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(listener, post.as_bytes()).unwrap().status, 403);
    assert_eq!(pay.requests().len(), 1);
    let orders = service("orders", 80, "http");
    shop.mesh
        .apply(&format!("{orders}{spec}{}", policy("another")));
    let refused = get(listener, "/x").unwrap();
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(pay.requests().len(), 1);
    shop.expect_unharmed();
}

#[test]
fn a_dead_address_costs_no_request_and_leaves_rotation() {
    let mesh = Mesh::start();
    let pay = Origin::echo(mesh.address(), "pay");
    let port = pay.address.port();
    // Nothing listens on that port there.
    let dead = IpAddr::from([127, 255, 0, 77]);
    let spec = external(&addresses(&[dead, pay.address.ip()]), port, "http", "");
    let mut shop = shop_in(mesh, &spec, port, |plan| plan.setting("workers: 1"));
    let listener = shop.sidecar.listener(&format!("pay:{port}"));
    for number in 0..40 {
        let response = get(listener, "/").unwrap();
        assert_eq!(response.status, 200, "{number}: {response:?}");
    }
    let page = shop.sidecar.admin_get("/metrics").unwrap().text();
    let is_out = page.lines().any(|line| {
        line.contains(&format!("pay.shop:{port}"))
            && line.contains("state=\"out\"")
            && line.ends_with(" 1")
    });
    assert!(is_out, "{page}");
    shop.expect_unharmed();
}

#[test]
fn a_route_of_a_service_leads_a_share_outside() {
    let mesh = Mesh::start();
    let pay = Origin::echo(mesh.address(), "pay");
    let port = pay.address.port();
    let route = format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{ name: orders, namespace: shop }}\nspec:\n  \
         parentRefs: [ {{ group: \"\", kind: Service, name: orders }} ]\n  rules:\n    \
         - backendRefs:\n        - {{ name: orders, port: 80 }}\n        \
         - {{ group: weft.dev, kind: ExternalService, name: pay, port: {port} }}\n"
    );
    let spec = external(&addresses(&[pay.address.ip()]), port, "http", "");
    let mut shop = shop_in(mesh, &format!("{spec}{route}"), port, |plan| plan);
    let mut found = BTreeMap::new();
    for _ in 0..60 {
        let response = get(shop.address, "/").unwrap();
        assert_eq!(response.status, 200, "{response:?}");
        let name = response.text().split(' ').next().unwrap().to_owned();
        *found.entry(name).or_insert(0) += 1;
    }
    assert!(found["pay"] > 10 && found["orders"] > 10, "{found:?}");
    let host = pay.requests()[0].header("host").unwrap().to_owned();
    assert_eq!(host, format!("pay.example:{port}"));
    shop.expect_unharmed();
}

#[test]
fn a_name_without_an_external_service_is_refused_and_passes_to_public_addresses_only() {
    let config = |egress: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{ name: mesh }}\n\
             spec: {{ egress: {egress} }}\n"
        )
    };
    let inside = Origin::echo(Ipv4Addr::LOCALHOST, "inside");
    let mut shop = shop("", 443, |plan| plan);
    let host = format!("127.0.0.1:{}", inside.address.port());
    assert_eq!(by_host(&shop, &host).status, 503);
    assert_eq!(by_host(&shop, "elsewhere.example").status, 503);
    let passed = "weft_egress_passed_total";
    assert_eq!(metric(&shop, passed), 0.0);
    let orders = service("orders", 80, "http");
    shop.mesh.apply(&format!("{orders}{}", config("Observe")));
    // It may pass, but not to this host.
    let refused = by_host(&shop, &host);
    assert_eq!(refused.status, 403, "{refused:?}");
    for this_host in ["0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]"] {
        let port = inside.address.port();
        let refused = by_host(&shop, &format!("{this_host}:{port}"));
        assert_eq!(refused.status, 403, "{this_host}: {refused:?}");
    }
    assert_eq!(inside.connections(), 0);
    assert!(metric(&shop, passed) >= 1.0);
    let log = shop.sidecar.process.log();
    assert!(log.contains("egress: Deny would refuse"), "{log}");
    // A name of the mesh never leaves it.
    let unknown = by_host(&shop, "orders.shop:81");
    assert_eq!(unknown.status, 503, "{unknown:?}");
    shop.mesh.apply(&format!("{orders}{}", config("Deny")));
    assert_eq!(by_host(&shop, &host).status, 503);
    shop.expect_unharmed();
}
