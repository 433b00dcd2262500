//! TLSRoutes, with applications that end TLS themselves: clients prove that by their certificates.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use super::fixture::{conditions, replace};
use super::report::judging;
use crate::harness::{
    Mesh, Need, Origin, Process, Sidecar, connect, eventually, expect_echo, need, python,
    python_command, run,
};

/// `edge`, which no workload serves, the backends `b1` and `b2` in its namespace and `b3` in another, all of
/// TLS, and `plain`, whose server speaks first.
struct Fixture {
    mesh: Mesh,
    client: Sidecar,
    plain: Origin,
    _served: Vec<Sidecar>,
    _applications: Vec<Process>,
}

/// Every host that a case asks for.
const HOSTS: [&str; 5] = [
    "abc.example.com",
    "other.example.com",
    "a.b.example.com",
    "example.com",
    "non.matching.org",
];

impl Fixture {
    fn start() -> Self {
        let mesh = Mesh::start();
        mesh.apply(&services());
        let (mut served, mut applications) = (Vec::new(), Vec::new());
        for (name, namespace) in [("b1", "shop"), ("b2", "shop"), ("b3", "web")] {
            let address = SocketAddr::from((mesh.address(), 8443));
            let key = KeyPair::generate().unwrap();
            let hosts = HOSTS.map(str::to_owned).to_vec();
            let certificate = CertificateParams::new(hosts).unwrap();
            let certificate = certificate.self_signed(&key).unwrap();
            let file = |kind: &str| mesh.folder().join(format!("{name}.{kind}"));
            std::fs::write(file("pem"), certificate.pem()).unwrap();
            std::fs::write(file("key"), key.serialize_pem()).unwrap();
            let mut command = python_command("tls_stub.py");
            command.args(["serve", &address.to_string(), name]);
            command.arg(file("pem")).arg(file("key"));
            let mut application =
                Process::spawn(&format!("{name}-tls"), mesh.folder(), &mut command);
            application.wait_for_line("serving");
            applications.push(application);
            let plan = mesh.sidecar_of(namespace, name);
            served.push(plan.serves(&format!("{name}:8443"), address).start());
        }
        let plain = Origin::raw(mesh.address(), |mut tap| {
            tap.write_all(b"hello\n")?;
            let mut writer = tap.try_clone()?;
            std::io::copy(&mut tap, &mut writer).map(drop)
        });
        let plan = mesh.sidecar("plain").serves("plain:9000", plain.address);
        served.push(plan.start());
        let client = mesh.sidecar("client").calls("edge:443").start();
        Self {
            mesh,
            client,
            plain,
            _served: served,
            _applications: applications,
        }
    }

    #[track_caller]
    fn apply(&self, resources: &[String]) -> String {
        replace(&self.mesh, &(services() + &resources.concat()))
    }

    fn edge(&self) -> SocketAddr {
        self.client.listener("edge:443")
    }

    /// What a client that asks for `host` and trusts `of` is told.
    #[track_caller]
    fn ask(&self, host: &str, of: &str, piece: usize) -> Value {
        let authority = self.mesh.folder().join(format!("{of}.pem"));
        let (edge, piece) = (self.edge().to_string(), piece.to_string());
        let arguments = ["connect", &edge, host, authority.to_str().unwrap(), &piece];
        python("tls_stub.py", &arguments)
    }

    /// Each host leads to the backend, which proves itself; `ended` has no proof.
    #[track_caller]
    fn expect(&self, case: &str, rows: &[(&str, &str)]) {
        for (host, wanted) in rows {
            let proof = if *wanted == "ended" { "b1" } else { *wanted };
            eventually(&format!("{case}: {host} leads to {wanted}"), || {
                self.ask(host, proof, 0)["backend"] == *wanted
            });
            let told = self.ask(host, proof, 0);
            assert_eq!(told["backend"], *wanted, "{case}: {host}: {told}");
            if *wanted != "ended" {
                assert_eq!(told["server_name"], *host, "{case}: {told}");
            }
        }
    }

    #[track_caller]
    fn expect_conditions(&self, case: &str, resolved: &str) {
        let found = conditions(&self.mesh, "tlsroute", "r", "shop");
        let shown = |kind: &str| found.get(kind).map(String::as_str);
        assert_eq!(
            shown("Accepted"),
            Some("True Accepted"),
            "{case}: {found:?}"
        );
        assert_eq!(shown("ResolvedRefs"), Some(resolved), "{case}: {found:?}");
    }

    /// Sends bytes, and expects the end without an answer.
    #[track_caller]
    fn expect_end(&self, what: &str, bytes: &[u8]) -> Duration {
        let began = Instant::now();
        let mut stream = connect(self.edge()).unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"", "{what}");
        began.elapsed()
    }
}

fn services() -> String {
    let service = |name: &str, namespace: &str, port: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{ name: {name}, namespace: {namespace} }}\n\
             spec: {{ ports: [ {{ name: main, port: {port}, protocol: tcp }} ] }}\n"
        )
    };
    [
        service("edge", "shop", "443"),
        service("b1", "shop", "8443"),
        service("b2", "shop", "8443"),
        service("plain", "shop", "9000"),
        service("b3", "web", "8443"),
    ]
    .concat()
}

fn route(kind: &str, name: &str, hosts: &str, backend: &str) -> String {
    let hosts = match hosts {
        "" => String::new(),
        hosts => format!("  hostnames: [ {hosts} ]\n"),
    };
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{ name: {name}, namespace: shop }}\n\
         spec:\n  parentRefs: [ {{ group: \"\", kind: Service, name: edge, port: 443 }} ]\n{hosts}  \
         rules: [ {{ backendRefs: [ {backend} ] }} ]\n"
    )
}

fn tls(name: &str, hosts: &str, backend: &str) -> String {
    route("TLSRoute", name, hosts, backend)
}

fn to(name: &str) -> String {
    format!("{{ name: {name}, port: 8443 }}")
}

#[test]
fn s1_s2_connections_go_by_the_host_that_their_client_asks_for_and_to_nowhere_else() {
    if !need(&[Need::Python]) {
        return;
    }
    let _judging = judging();
    let fixture = Fixture::start();
    // S1.
    fixture.apply(&[tls("r", "abc.example.com", &to("b1"))]);
    fixture.expect(
        "S1",
        &[("abc.example.com", "b1"), ("other.example.com", "ended")],
    );
    fixture.expect_conditions("S1", "True ResolvedRefs");
    // S2: the whole name first, then what is below, of any depth.
    fixture.apply(&[
        tls("r", "abc.example.com", &to("b1")),
        tls("s", "\"*.example.com\"", &to("b2")),
    ]);
    fixture.expect(
        "S2",
        &[
            ("abc.example.com", "b1"),
            ("other.example.com", "b2"),
            ("a.b.example.com", "b2"),
            ("example.com", "ended"),
            ("non.matching.org", "ended"),
        ],
    );
    // The longer of two wildcards.
    fixture.apply(&[
        tls("r", "\"*.com\"", &to("b1")),
        tls("s", "\"*.example.com\"", &to("b2")),
    ]);
    fixture.expect("S2", &[("other.example.com", "b2"), ("example.com", "b1")]);
    // A ClientHello that comes byte by byte.
    assert_eq!(fixture.ask("other.example.com", "b2", 1)["backend"], "b2");
    // One that names no host; other protocols; a client that ends at once.
    assert_eq!(fixture.ask("-", "b1", 0)["backend"], "ended");
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: other.example.com\r\n\r\n"[..],
        b"\x16\x03\x01",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"",
    ] {
        let mut stream = connect(fixture.edge()).unwrap();
        // The sidecar may have reset the connection before its client half-closes it.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"", "{bytes:?}");
    }
    let too_long = [1u8, 0, 0xf0, 0]
        .into_iter()
        .chain(std::iter::repeat_n(0, 40_000))
        .flat_map(|byte| [0x16, 3, 1, 0, 1, byte]);
    fixture.expect_end("too long", &too_long.collect::<Vec<u8>>());
    // One that waits for the server to speak first is ended after a while, and is no burden to others.
    std::thread::scope(|scope| {
        let silent = scope.spawn(|| fixture.expect_end("silent", b""));
        let slow = scope.spawn(|| fixture.expect_end("slow", b"\x16\x03\x01"));
        fixture.expect("meanwhile", &[("other.example.com", "b2")]);
        for waited in [silent.join().unwrap(), slow.join().unwrap()] {
            let range = Duration::from_secs(9)..Duration::from_secs(30);
            assert!(range.contains(&waited), "{waited:?}");
        }
    });
}

#[test]
fn s3_s4_s5_a_host_that_leads_nowhere_ends_its_connection_and_the_status_says_why() {
    if !need(&[Need::Python]) {
        return;
    }
    let _judging = judging();
    let fixture = Fixture::start();
    let example = "example.com";
    // S3, S4.
    fixture.apply(&[tls("r", example, &to("nonexistent"))]);
    fixture.expect("S3", &[(example, "ended")]);
    fixture.expect_conditions("S3", "False BackendNotFound");
    let unknown = "{ group: unknown.example.com, kind: NonExistent, name: b1, port: 8443 }";
    fixture.apply(&[tls("r", example, unknown)]);
    fixture.expect("S4", &[(example, "ended")]);
    fixture.expect_conditions("S4", "False InvalidKind");
    // S5: in a mesh no grant is needed, unless it asks for one. Each of these is wrong in one thing.
    let across = tls("r", example, "{ name: b3, namespace: web, port: 8443 }");
    fixture.apply(std::slice::from_ref(&across));
    fixture.expect("S5", &[(example, "b3")]);
    fixture.mesh.apply(
        "---\napiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: { name: mesh }\n\
         spec: { requireReferenceGrants: true }\n",
    );
    let gateway = "gateway.networking.k8s.io";
    let grant = |name: &str, namespace: &str, from: [&str; 3], to: [&str; 3]| {
        format!(
            "---\napiVersion: {gateway}/v1\nkind: ReferenceGrant\nmetadata: {{ name: {name}, namespace: {namespace} }}\nspec:\n  \
             from: [ {{ group: \"{}\", kind: {}, namespace: {} }} ]\n  to: [ {{ group: \"{}\", kind: {}, name: {} }} ]\n",
            from[0], from[1], from[2], to[0], to[1], to[2]
        )
    };
    let from = [gateway, "TLSRoute", "shop"];
    let service = ["", "Service", "b3"];
    let wrong = [
        grant("g1", "cons", from, service),
        grant(
            "g2",
            "web",
            ["other.example.com", "TLSRoute", "shop"],
            service,
        ),
        grant("g3", "web", [gateway, "Gateway", "shop"], service),
        grant("g4", "web", [gateway, "TLSRoute", "cons"], service),
        grant("g5", "web", from, ["other.example.com", "Service", "b3"]),
        grant("g6", "web", from, ["", "Secret", "b3"]),
        grant("g7", "web", from, ["", "Service", "b2"]),
    ];
    fixture.apply(&[across.clone(), wrong.concat()]);
    fixture.expect("S5", &[(example, "ended")]);
    fixture.expect_conditions("S5", "False RefNotPermitted");
    fixture.apply(&[across, wrong.concat(), grant("g8", "web", from, service)]);
    fixture.expect("S5", &[(example, "b3")]);
    fixture.expect_conditions("S5", "True ResolvedRefs");
}

#[test]
fn a_port_takes_connections_as_the_kind_of_its_routes_says_while_that_changes() {
    if !need(&[Need::Python]) {
        return;
    }
    let fixture = Fixture::start();
    // A TCPRoute waits for the TLSRoute, and acts when that is gone; the server may then speak first.
    let plain = route("TCPRoute", "t", "", "{ name: plain, port: 9000 }");
    fixture.apply(&[plain.clone(), tls("r", "abc.example.com", &to("b1"))]);
    fixture.expect("both", &[("abc.example.com", "b1")]);
    let found = conditions(&fixture.mesh, "tcproute", "t", "shop");
    assert_eq!(found["Accepted"], "False Conflicted", "{found:?}");
    fixture.apply(&[plain]);
    eventually("the TCPRoute acts", || {
        let Ok(mut stream) = connect(fixture.edge()) else {
            return false;
        };
        let mut first = [0; 6];
        stream.read_exact(&mut first).is_ok() && first == *b"hello\n"
    });
    let mut stream = connect(fixture.edge()).unwrap();
    stream.read_exact(&mut [0; 6]).unwrap();
    // A connection that is carried does not notice that the kind changes.
    fixture.apply(&[tls("r", "abc.example.com", &to("b1"))]);
    fixture.expect("again", &[("abc.example.com", "b1")]);
    expect_echo(&mut stream, b"still here");
    assert!(fixture.plain.connections() > 0);
    // What the mesh then does, said beforehand.
    let file: PathBuf = fixture.mesh.folder().join("case.yaml");
    let explained = |host: &[&str]| {
        let fixed = [
            "explain", "--from", "client", "--to", "edge:443", "-n", "shop", "-o", "json",
        ];
        let mut command = fixture.mesh.weft_command(&[&fixed, host].concat());
        let text = run(command.arg("-f").arg(&file)).ok();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let told = explained(&["--server-name", "abc.example.com"]);
    assert_eq!(
        (&told["route"], &told["backend"]),
        (&"TLSRoute/shop/r".into(), &"b1.shop:8443".into())
    );
    let told = explained(&["--server-name", "other.test"]);
    assert_eq!(told["backend"], Value::Null);
    assert!(
        told["passed_over"]
            .to_string()
            .contains("it takes abc.example.com"),
        "{told}"
    );
}
