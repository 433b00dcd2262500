//! Services outside of the mesh whose traffic is sent through a Service (`spec.via`): its sidecars decide for
//! all callers. The applications of the callers also call `orders`, whose requests must not notice.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::egress::{Resolver, addresses};
use crate::harness::{
    Mesh, Need, Origin, Sidecar, SidecarPlan, connect, eventually, exchange, expect_echo, get,
    need, python, service,
};

/// `gate`, through which `pay` is reached, `shop` and `other`, which call it, and `orders`.
struct Gated {
    gate: Sidecar,
    shop: Sidecar,
    orders: Sidecar,
    /// What answers for `pay`, at this port, and for `bytes` at the other.
    pay: Origin,
    port: u16,
    tcp: u16,
    /// The application of `gate`, which gets nothing of it.
    home: Origin,
    mesh: Mesh,
}

/// The Services, and `pay` and `bytes` through `gate`.
fn resources(spec: &str, via: &str, port: u16, tcp: u16) -> String {
    let gate = "---\napiVersion: weft.dev/v1alpha1\nkind: Service\n\
                metadata: { name: gate, namespace: shop }\nspec:\n  \
                ports: [ { port: 15, protocol: http }, { port: 16, protocol: tcp } ]\n";
    let external = |name: &str, port: u16, protocol: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: ExternalService\n\
             metadata: {{ name: {name}, namespace: shop }}\nspec:\n  hosts: [ {name}.example ]\n{via}  \
             ports: [ {{ port: {port}, protocol: {protocol} }} ]\n{spec}"
        )
    };
    let (pay, bytes) = (external("pay", port, "http"), external("bytes", tcp, "tcp"));
    format!("{}{gate}{pay}{bytes}", service("orders", 80, "http"))
}

const VIA: &str = "  via: { name: gate }\n";

/// Only this caller may call both, and `pay` not for everything.
fn only(caller: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
         metadata: {{ name: pay-callers, namespace: shop }}\nspec:\n  \
         targetRefs:\n    - {{ kind: ExternalService, name: pay }}\n    \
         - {{ kind: ExternalService, name: bytes }}\n  action: Allow\n  \
         from: [ {{ principals: [ \"spiffe://{}/ns/shop/sa/{caller}\" ] }} ]\n\
         ---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
         metadata: {{ name: pay-closed, namespace: shop }}\nspec:\n  \
         targetRefs: [ {{ kind: ExternalService, name: pay }} ]\n  action: Deny\n  \
         to: [ {{ paths: [ \"/closed\" ] }} ]\n",
        Mesh::DOMAIN
    )
}

impl Gated {
    /// `spec` is what stands beside the ports of `pay`, given the address of what answers for it.
    fn start(
        mesh: Mesh,
        spec: impl FnOnce(IpAddr) -> String,
        policies: &str,
        plan: impl FnOnce(SidecarPlan) -> SidecarPlan,
    ) -> Self {
        let address = mesh.address();
        let pay = Origin::echo(address, "pay");
        let echo = Box::leak(Box::new(Origin::raw(address, |mut tap| {
            let mut out = tap.try_clone()?;
            std::io::copy(&mut tap, &mut out).map(drop)
        })));
        let (port, tcp) = (pay.address.port(), echo.address.port());
        let home = Origin::echo(mesh.address(), "home");
        let bystander = Box::leak(Box::new(Origin::echo(mesh.address(), "orders")));
        let all = resources(&spec(pay.address.ip()), VIA, port, tcp);
        mesh.apply(&format!("{all}{policies}"));
        let orders = mesh
            .sidecar("orders")
            .serves("orders:80", bystander.address);
        let gate = mesh
            .sidecar("gate")
            .serves("gate:15", home.address)
            .serves("gate:16", home.address);
        let (orders, gate) = (orders.start(), plan(gate).start());
        let shop = mesh
            .sidecar("shop")
            .calls("orders:80")
            .calls(&format!("pay:{port}"))
            .calls(&format!("bytes:{tcp}"))
            .calls_by_host()
            .start();
        shop.wait_endpoints("orders:80", 1);
        shop.wait_endpoints(&format!("pay:{port}"), 1);
        shop.wait_endpoints(&format!("bytes:{tcp}"), 1);
        Self {
            gate,
            shop,
            orders,
            pay,
            port,
            tcp,
            home,
            mesh,
        }
    }

    fn listener(&self) -> SocketAddr {
        self.shop.listener(&format!("pay:{}", self.port))
    }

    fn apply(&self, via: &str, spec: &str, policies: &str) {
        let all = resources(spec, via, self.port, self.tcp);
        self.mesh.apply(&format!("{all}{policies}"));
    }

    fn spec(&self) -> String {
        addresses(&[self.pay.address.ip()])
    }

    /// Sends a request as a peer that writes it by itself, with the identity of `shop`.
    fn craft(&self, to: &Sidecar, service: &str) -> serde_json::Value {
        let (address, identity) = (to.mesh_address().to_string(), self.shop.state());
        let identity = identity.to_str().unwrap();
        let named = [
            "--service",
            service,
            "--method",
            "GET",
            "--path",
            "/crafted",
        ];
        let arguments = [&["send", &address, "--identity", identity], &named[..]].concat();
        python("h3_client.py", &arguments)["status"].clone()
    }

    #[track_caller]
    fn expect_unharmed(&mut self) {
        self.gate.expect_alive();
        self.orders.expect_alive();
        self.shop.expect_alive();
        let response = get(self.shop.listener("orders:80"), "/").unwrap();
        assert!(response.text().starts_with("orders GET"), "{response:?}");
    }
}

fn by_host(sidecar: &Sidecar, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: pay.example\r\nconnection: close\r\n\r\n");
    let response = exchange(sidecar.by_host(), request.as_bytes()).unwrap();
    (response.status, response.text())
}

/// Whether every connection of this host to that address is one of this process.
fn all_are_of(sidecar: &Sidecar, to: SocketAddr) -> bool {
    let SocketAddr::V4(to) = to else {
        panic!("an IPv4 address")
    };
    let remote = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(to.ip().octets()),
        to.port()
    );
    let fds = format!("/proc/{}/fd", sidecar.process.pid());
    let own: Vec<String> = std::fs::read_dir(fds)
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .map(|link| link.display().to_string())
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut inodes = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 9 && fields[2] == remote && fields[3] == "01")
        .map(|fields| format!("socket:[{}]", fields[9]))
        .peekable();
    inodes.peek().is_some() && inodes.all(|inode| own.contains(&inode))
}

#[test]
fn the_service_sends_outside_for_callers_that_a_policy_names_and_refuses_others_for_them() {
    let plan = |plan: SidecarPlan| plan.setting("access_log: all");
    let spec = |ip| addresses(&[ip]);
    let mut gated = Gated::start(Mesh::start(), spec, &only("shop"), plan);
    for path in ["/a", "/b?c"] {
        let response = get(gated.listener(), path).unwrap();
        assert_eq!(response.status, 200, "{response:?}");
        assert!(
            response.text().starts_with(&format!("pay GET {path}")),
            "{response:?}"
        );
        assert_eq!(by_host(&gated.shop, path).0, 200);
    }
    let body = "POST / HTTP/1.1\r\nhost: pay.example\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
                5\r\nhello\r\n0\r\n\r\n";
    let response = exchange(gated.shop.by_host(), body.as_bytes()).unwrap();
    assert!(response.text().ends_with(" 5"), "{response:?}");
    assert!(all_are_of(&gated.gate, gated.pay.address));
    for seen in gated.pay.requests() {
        let of_mesh = |(name, _): &(String, String)| {
            let name = name.to_ascii_lowercase();
            name.starts_with("weft-") || name == "via"
        };
        assert!(!seen.headers.iter().any(of_mesh), "{seen:?}");
        let host = seen.header("host").unwrap();
        assert!(host.starts_with("pay.example"), "{seen:?}");
    }

    // It is the sidecar of the service that refuses, and the caller's says why.
    let before = gated.pay.requests().len();
    let refused = get(gated.listener(), "/closed").unwrap();
    assert_eq!(refused.status, 403, "{refused:?}");
    let denied = "AuthorizationPolicy/shop/pay-closed";
    assert!(refused.text().contains(denied), "{refused:?}");
    eventually("the sidecar of the service has refused it", || {
        gated.gate.process.log().contains(denied)
    });
    // One that no policy names learns only that it may not call.
    let other = gated
        .mesh
        .sidecar("other")
        .calls(&format!("pay:{}", gated.port))
        .start();
    let refused = get(other.listener(&format!("pay:{}", gated.port)), "/a").unwrap();
    assert_eq!(refused.status, 403, "{refused:?}");
    let known = other.admin_json("/config_dump").to_string();
    assert!(!known.contains("pay.example"), "{known}");
    assert_eq!(gated.pay.requests().len(), before);
    // A caller does not know where it would have to go.
    let known = gated.shop.admin_json("/config_dump").to_string();
    assert!(
        !known.contains(&gated.pay.address.ip().to_string()),
        "{known}"
    );
    assert_eq!(gated.home.requests().len(), 0);
    gated.expect_unharmed();
}

#[test]
fn bytes_of_tcp_pass_the_service_and_end_when_a_policy_forbids_them_or_it_is_no_way_out_any_more() {
    let spec = |ip| addresses(&[ip]);
    let mut gated = Gated::start(Mesh::start(), spec, &only("shop"), |plan| plan);
    let listener = gated.shop.listener(&format!("bytes:{}", gated.tcp));
    let far = SocketAddr::new(gated.pay.address.ip(), gated.tcp);
    let (spec, mut streams) = (gated.spec(), Vec::new());
    for (via, policies) in [(VIA, only("another")), ("", String::new())] {
        let mut stream = connect(listener).unwrap();
        expect_echo(&mut stream, b"hello");
        expect_echo(&mut stream, &[7; 300_000]);
        assert!(all_are_of(&gated.gate, far));
        gated.apply(via, &spec, &policies);
        eventually("the connection ends", || stream.write_all(b"x").is_err());
        streams.push(stream);
        gated.apply(VIA, &spec, &only("shop"));
        gated
            .shop
            .wait_endpoints(&format!("bytes:{}", gated.tcp), 1);
    }
    gated.expect_unharmed();
}

#[test]
fn a_sidecar_is_no_open_proxy_for_peers_that_write_their_requests_by_themselves() {
    if !need(&[Need::Python]) {
        return;
    }
    let spec = |ip| addresses(&[ip]);
    let mut gated = Gated::start(Mesh::start(), spec, "", |plan| plan);
    let pay = format!("pay.shop:{}", gated.port);
    assert_eq!(gated.craft(&gated.gate, &pay), 200);
    let before = gated.pay.requests().len();
    // Another sidecar does not send it, although it serves a Service.
    assert_eq!(gated.craft(&gated.orders, &pay), 421);
    // Nor does this one for a port that is not there, or for bytes as a request.
    assert_eq!(gated.craft(&gated.gate, "pay.shop:1"), 421);
    let bytes = format!("bytes.shop:{}", gated.tcp);
    assert_eq!(gated.craft(&gated.gate, &bytes), 400);
    // Every caller's own sidecar sends it, so this one does not.
    gated.apply("", &gated.spec(), "");
    assert_eq!(gated.craft(&gated.gate, &pay), 421);
    // What this sidecar may call for its own workload is not for its peers.
    assert_eq!(gated.pay.requests().len(), before);
    assert_eq!(gated.home.requests().len(), 0);
    gated.apply(VIA, &gated.spec(), &only("another"));
    assert_eq!(gated.craft(&gated.gate, &pay), 403);
    assert_eq!(gated.pay.requests().len(), before);
    gated.expect_unharmed();
}

#[test]
fn the_service_resolves_the_name_and_judges_the_address() {
    let mesh = Mesh::start();
    let resolver = Resolver::start(mesh.address());
    let setting = resolver.setting();
    let mut gated = Gated::start(mesh, |_| String::new(), "", |plan| plan.setting(&setting));
    let IpAddr::V4(home) = gated.pay.address.ip() else {
        panic!("an IPv4 address")
    };
    resolver.leads("pay.example", &[home]);
    eventually("the name leads inside", || {
        get(gated.listener(), "/").unwrap().status == 403
    });
    assert_eq!(gated.pay.connections(), 0);
    let allowed = format!("  allowedRanges: [ {home}/32 ]\n");
    gated.apply(VIA, &allowed, "");
    eventually("the range is allowed", || {
        get(gated.listener(), "/").unwrap().status == 200
    });
    let asked = |sidecar: &Sidecar| {
        let page = sidecar.admin_get("/metrics").unwrap().text();
        let line = "weft_egress_lookups_total{result=\"answered\"}";
        let found = page.lines().find(|one| one.starts_with(line));
        found.map_or(0.0, |line| {
            line.rsplit(' ').next().unwrap().parse().unwrap()
        })
    };
    assert!(asked(&gated.gate) >= 1.0);
    assert_eq!(asked(&gated.shop), 0.0);
    gated.expect_unharmed();
}

#[test]
fn an_address_whose_answers_break_http_leaves_rotation_at_the_service_that_sends() {
    let mesh = Mesh::start();
    let broken = mesh.address();
    let spec = |ip| addresses(&[broken.into(), ip]);
    let mut gated = Gated::start(mesh, spec, "", |plan| plan.setting("workers: 1"));
    let listener = std::net::TcpListener::bind((broken, gated.port)).unwrap();
    // It ends with the process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc");
        }
    });
    let post = || {
        let request =
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        let response = exchange(gated.listener(), request.as_bytes()).unwrap();
        response.status
    };
    eventually("it breaks a call", || post() == 502);
    eventually("it is out of rotation", || (0..20).all(|_| post() == 200));
    gated.expect_unharmed();
}

#[test]
fn a_dead_address_costs_no_call_through_the_service() {
    // Nothing listens on that port there.
    let dead = IpAddr::from(Ipv4Addr::new(127, 255, 0, 78));
    let spec = |ip| addresses(&[dead, ip]);
    let mut gated = Gated::start(Mesh::start(), spec, "", |plan| plan.setting("workers: 1"));
    for number in 0..30 {
        let request =
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        let response = exchange(gated.listener(), request.as_bytes()).unwrap();
        assert_eq!(response.status, 200, "{number}: {response:?}");
    }
    let mut stream = connect(gated.shop.listener(&format!("bytes:{}", gated.tcp))).unwrap();
    expect_echo(&mut stream, b"hello");
    gated.expect_unharmed();
}

#[test]
fn a_sidecar_without_an_application_sends_outside_and_has_no_answer_for_its_own_service() {
    let mesh = Mesh::start();
    let pay = Origin::echo(mesh.address(), "pay");
    let port = pay.address.port();
    let spec = addresses(&[pay.address.ip()]);
    mesh.apply(&resources(&spec, VIA, port, 9000));
    let gate = mesh.sidecar("gate").serves("gate:15", "none");
    let mut gate = gate.serves("gate:16", "none").start();
    let to_pay = format!("pay:{port}");
    let mut shop = mesh.sidecar("shop").calls(&to_pay).calls("gate:15").start();
    shop.wait_endpoints(&to_pay, 1);
    let answer = get(shop.listener(&to_pay), "/").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.text().starts_with("pay GET"), "{answer:?}");
    shop.wait_endpoints("gate:15", 1);
    let own = get(shop.listener("gate:15"), "/").unwrap();
    assert_eq!(own.status, 503, "{own:?}");
    assert!(own.text().contains("has no application"), "{own:?}");
    let admin = gate.admin().to_string();
    let status = mesh.weft(&["proxy", "status", "--admin", &admin]).ok();
    assert!(status.contains("serves gate.shop:15"), "{status}");
    gate.expect_alive();
    shop.expect_alive();
}
