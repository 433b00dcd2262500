//! TLS and QUIC: which protocols they carry, which certificates are trusted, and how a refusal before a run
//! is reported.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

use crate::harness::{Ran, Server, load, run};

const ORDERS: &str = "spiffe://demo.test/ns/shop/sa/orders";
const FRONTEND: &str = "spiffe://demo.test/ns/shop/sa/frontend";

/// A server of HTTPS and HTTP/3 with a self-signed certificate.
struct Website {
    server: Server,
    folder: TempDir,
}

impl Website {
    fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = path(&folder, "cert.pem");
        let flags = [&["--cert-out", &certificate], flags].concat();
        let server = Server::on(&["https", "http3"], &flags);
        Self { server, folder }
    }

    fn certificate(&self) -> String {
        path(&self.folder, "cert.pem")
    }

    /// Twenty requests that trust its certificate.
    fn load(&self, scheme: &str, flags: &[&str]) -> Ran {
        let ca = self.certificate();
        let common = [&self.server.url(scheme, "/a.B/C"), "--ca", &ca];
        let rate = ["--rate", "100", "-n", "20"];
        load(&[&common[..], &rate, flags].concat())
    }
}

/// Files of a mesh: a root, and an SVID with its key for each identity.
struct Mesh(TempDir);

impl Mesh {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let write = |name: &str, pem: &str| std::fs::write(folder.path().join(name), pem).unwrap();
        write("root.crt", &root.pem());
        for (name, id) in [("orders", ORDERS), ("frontend", FRONTEND)] {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate().unwrap();
            let leaf = params.signed_by(&key, &issuer).unwrap();
            write(&format!("{name}.crt"), &leaf.pem());
            write(&format!("{name}.key"), &key.serialize_pem());
        }
        Self(folder)
    }

    fn root(&self) -> String {
        path(&self.0, "root.crt")
    }

    /// The flags with which a side presents an identity.
    fn shown(&self, name: &str) -> [String; 4] {
        let file = |kind: &str| path(&self.0, &format!("{name}.{kind}"));
        ["--cert".into(), file("crt"), "--key".into(), file("key")]
    }

    /// Orders, which lets in only the frontend.
    fn orders(&self) -> Server {
        let shown = self.shown("orders");
        let root = self.root();
        let asked = ["--client-ca", &root, "--client-id", FRONTEND];
        let flags: Vec<&str> = shown.iter().map(String::as_str).chain(asked).collect();
        Server::on(&["https", "http3"], &flags)
    }

    /// Twenty requests that present the identity `name` and trust only `server`.
    fn load(&self, url: &str, name: &str, server: &str, flags: &[&str]) -> Ran {
        let shown = self.shown(name);
        let root = self.root();
        let wanted = [url, "--ca", &root, "--server-id", server];
        let rate = ["--rate", "100", "-n", "20"];
        let shown = shown.iter().map(String::as_str);
        let all: Vec<&str> = wanted.into_iter().chain(rate).chain(shown).collect();
        load(&[&all, flags].concat())
    }
}

fn path(folder: &TempDir, name: &str) -> String {
    let path: PathBuf = folder.path().join(name);
    path.to_str().unwrap().to_owned()
}

#[test]
fn tls_and_quic_carry_requests_of_every_kind() {
    let site = Website::start(&["--body", "100KiB"]);
    for (scheme, flags) in [
        ("https", &[][..]),
        ("https", &["--http2"]),
        ("https", &["--data-size", "200KiB"]),
        ("grpcs", &["--data", "hello"]),
        ("http3", &["--http3"]),
        ("http3", &["--http3", "--data-size", "200KiB"]),
    ] {
        let ran = site.load(scheme, flags);
        assert_eq!(ran.summary("succeeded"), 20, "{scheme} {flags:?}: {ran:?}");
        let bytes = ran.summary("bytes_in");
        assert!(bytes >= 20 * 100 * 1024, "{scheme} {flags:?}: {bytes}");
        let handshakes = ran.json()["phases"]["tls"]["samples"].as_u64().unwrap();
        assert!(
            (1..20).contains(&handshakes),
            "{scheme} {flags:?}: {handshakes}"
        );
    }
}

#[test]
fn a_new_connection_for_each_request_makes_a_handshake_for_each_also_with_resumption() {
    let site = Website::start(&[]);
    for (scheme, flags) in [
        ("https", &[][..]),
        ("https", &["--resume"]),
        ("http3", &["--http3"]),
        ("http3", &["--http3", "--resume"]),
    ] {
        let ran = site.load(scheme, &[&["--no-keep-alive"], flags].concat());
        assert_eq!(ran.summary("succeeded"), 20, "{scheme} {flags:?}: {ran:?}");
        let handshakes = &ran.json()["phases"]["tls"]["samples"];
        assert_eq!(handshakes.as_u64(), Some(20), "{scheme} {flags:?}");
        assert_eq!(ran.summary("handshakes"), 20, "{scheme} {flags:?}");
    }
}

#[test]
fn handshakes_that_were_resumed_are_those_that_were_asked_for() {
    let site = Website::start(&[]);
    let resumed = |scheme, flags: &[&str]| {
        // One after another, so that each resumes the session of the one before.
        let one = ["--no-keep-alive", "-t", "1", "-c", "1"];
        let ran = site.load(scheme, &[&one, flags].concat());
        assert_eq!(ran.summary("handshakes"), 20, "{scheme} {flags:?}: {ran:?}");
        ran.json()["summary"]["handshakes_resumed"].as_u64()
    };
    assert_eq!(resumed("https", &[]), Some(0));
    assert_eq!(resumed("https", &["--resume"]), Some(19));
    assert_eq!(resumed("https", &["--http2", "--resume"]), Some(19));
    // QUIC's library does not report it, so the field is absent.
    assert_eq!(resumed("http3", &["--http3", "--resume"]), None);
}

#[test]
fn connections_of_http3_outlive_the_port_that_they_began_on() {
    let site = Website::start(&[]);
    let ca = site.certificate();
    let flags = ["--http3", "--migrate-every", "100ms", "-t", "1", "-c", "1"];
    let plan = ["--ca", &ca, "--rate", "100", "-d", "2s"];
    let url = site.server.url("http3", "/");
    let ran = load(&[&[url.as_str()], &plan[..], &flags].concat());
    assert_eq!(ran.summary("succeeded"), 200, "{ran:?}");
    let handshakes = &ran.json()["phases"]["tls"]["samples"];
    assert_eq!(handshakes.as_u64(), Some(1), "{ran:?}");
}

#[test]
fn errors_and_delays_of_http3_are_those_that_were_asked_for() {
    let flags = [
        "--latency",
        "300ms",
        "--first-byte",
        "100ms",
        "--errors",
        "30%",
    ];
    let site = Website::start(&flags);
    let ca = site.certificate();
    let plan = ["--http3", "--ca", &ca, "--rate", "50", "-d", "2s"];
    let url = site.server.url("http3", "/");
    let ran = load(&[&[url.as_str()], &plan[..]].concat());
    let failed = ran.failed("status_503");
    assert!((15..46).contains(&failed), "{ran:?}");
    assert_eq!(ran.summary("succeeded") + failed, 100, "{ran:?}");
    assert!(ran.latency_ms("p50") >= 300.0, "{ran:?}");
    let first = &ran.json()["phases"]["first_byte"]["min_us"];
    assert!(
        (100_000..300_000).contains(&first.as_u64().unwrap()),
        "{ran:?}"
    );
}

#[test]
fn an_identity_is_shown_and_believed_over_tls_and_quic() {
    let mesh = Mesh::new();
    let orders = mesh.orders();
    for (scheme, flags) in [
        ("https", &[][..]),
        ("https", &["--http2"]),
        ("http3", &["--http3"]),
    ] {
        let ran = mesh.load(&orders.url(scheme, "/"), "frontend", ORDERS, flags);
        assert_eq!(ran.summary("succeeded"), 20, "{scheme} {flags:?}: {ran:?}");
    }
}

#[test]
fn a_server_of_another_identity_is_reported_before_the_run() {
    let mesh = Mesh::new();
    let orders = mesh.orders();
    for (scheme, flags) in [("https", &[][..]), ("http3", &["--http3"])] {
        let ran = mesh.load(&orders.url(scheme, "/"), "frontend", FRONTEND, flags);
        assert_eq!(ran.code, 1, "{ran:?}");
        let line = ran.one_line();
        assert!(line.contains("TLS handshake failed"), "{line}");
        assert!(line.contains(&format!("it is for {ORDERS}")), "{line}");
    }
}

#[test]
fn a_client_of_another_identity_is_told_that_it_was_refused() {
    let mesh = Mesh::new();
    let orders = mesh.orders();
    let ran = mesh.load(&orders.url("http3", "/"), "orders", ORDERS, &["--http3"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.one_line().contains("TLS handshake failed"), "{ran:?}");
    // Over TCP the refusal comes after the client's handshake: with the first answer.
    let ran = mesh.load(&orders.url("https", "/"), "orders", ORDERS, &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(ran.summary("succeeded"), 0, "{ran:?}");
    assert!(ran.failed("tls") > 0, "{ran:?}");
}

#[test]
fn an_untrusted_certificate_is_reported_before_the_run() {
    let (site, other) = (Website::start(&[]), Website::start(&[]));
    let ca = other.certificate();
    for (scheme, flags) in [("https", &[][..]), ("http3", &["--http3"])] {
        let url = site.server.url(scheme, "/");
        let plan = ["--ca", &ca, "--rate", "10"];
        let ran = load(&[&[url.as_str()], &plan[..], flags].concat());
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.one_line().contains("TLS handshake failed"), "{ran:?}");
    }
}

#[test]
fn an_unreachable_server_is_one_line_over_udp_as_well() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    let url = format!("https://{address}/");
    let plan = [url.as_str(), "--http3", "--insecure", "--rate", "10"];
    // A socket that holds the port, and sends nothing.
    let ran = load(&plan);
    assert_eq!(ran.code, 1);
    assert!(ran.one_line().contains("took too long"), "{ran:?}");
    drop(free);
    let ran = load(&plan);
    assert_eq!(ran.code, 1);
    assert!(ran.one_line().contains("refused"), "{ran:?}");
    assert!(ran.one_line().contains(&address.to_string()), "{ran:?}");
}

#[test]
fn files_and_flags_that_do_not_fit_are_one_line() {
    let mesh = Mesh::new();
    let [cert, orders, key, _] = mesh.shown("orders");
    let [.., other] = mesh.shown("frontend");
    let serve = |flags: &[&str]| run(&[&["serve"], flags].concat());
    let https = ["--https", "127.0.0.1:0"];
    let ran = serve(&[&https[..], &[&cert, &orders, &key, &other]].concat());
    assert_eq!(ran.code, 65, "{ran:?}");
    let ran = serve(&["--http", "127.0.0.1:0", "--cert-out", "x.pem"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.one_line().contains("--https"), "{ran:?}");
    assert!(!Path::new("x.pem").exists());
    let ran = load(&["https://127.0.0.1:1/", "--rate", "1", "--server-id", ORDERS]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let ran = load(&[
        "https://127.0.0.1:1/",
        "--rate",
        "1",
        "--server-id",
        "orders",
    ]);
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[test]
fn a_port_that_another_server_has_is_refused() {
    let server = Server::on(&["http3"], &["--threads", "2"]);
    let taken = server.url("http3", "").replace("https://", "");
    let ran = run(&["serve", "--http3", &taken]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.one_line().contains("in use"), "{ran:?}");
}
