//! The clients against servers of the web: with a name and a root, and no identity.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::crypto::rustls::QuicServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::*;
use crate::http3::ServerConnection;
use crate::identity::PeerId;
use crate::streams::Streams;
use crate::tuning::TransportSettings;

/// A certificate for `localhost` that is its own root, and a TLS configuration that shows it.
struct Website {
    root_pem: String,
    tls: rustls::ServerConfig,
}

fn website(alpn: &[u8]) -> Website {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key.into())
        .unwrap();
    tls.alpn_protocols = vec![alpn.to_vec()];
    Website {
        root_pem: certificate.cert.pem(),
        tls,
    }
}

fn client(trust: Trust) -> ExternalTls {
    ExternalTls::new(trust, None, Sessions::Full)
}

fn believing(website: &Website) -> ExternalTls {
    client(Trust::Roots(
        Roots::from_pem(website.root_pem.as_bytes()).unwrap(),
    ))
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Serves HTTP/3 and answers every request with 204.
fn serve_http3(tls: rustls::ServerConfig, tasks: &mut JoinSet<()>) -> SocketAddr {
    let crypto = QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, loopback()).unwrap();
    let address = endpoint.local_addr().unwrap();
    tasks.spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else {
                continue;
            };
            answer_all(connection).await;
        }
    });
    address
}

async fn answer_all(connection: quinn::Connection) {
    let tuning = TransportSettings::default().validate().unwrap();
    let streams = Streams::new(connection.clone(), &tuning);
    // What answers is the mesh's own server; its peer proved nothing, and is not asked.
    let id = "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap();
    let peer = PeerId::for_tests(id, SystemTime::now() + Duration::from_secs(3600));
    let mut server = ServerConnection::new(connection, peer, streams);
    while let Ok(Some(request)) = server.accept().await {
        let (head, ()) = http::Response::builder()
            .status(204)
            .body(())
            .unwrap()
            .into_parts();
        request.respond.head(&head, true).await.unwrap();
    }
}

fn get() -> http::request::Parts {
    let request = http::Request::get("https://localhost/").body(()).unwrap();
    request.into_parts().0
}

#[tokio::test]
async fn a_request_reaches_a_server_that_proves_its_name_and_follows_a_move() {
    let mut tasks = JoinSet::new();
    let website = website(b"h3");
    let tls = believing(&website);
    let address = serve_http3(website.tls, &mut tasks);
    let tuning = TransportSettings::default().validate().unwrap();
    let quic = QuicClient::new(&tls, &tuning).unwrap();
    let (connection, driver) = quic.connect(address, "localhost").await.unwrap();
    tasks.spawn(async {
        driver.await;
    });
    for _ in 0..3 {
        let (_send, mut response) = connection.open(&get(), true).await.unwrap();
        assert_eq!(response.head().await.unwrap().status(), 204);
        quic.rebind().unwrap();
    }
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_refused_unless_everybody_is_believed() {
    let mut tasks = JoinSet::new();
    let (known, stranger) = (website(b"h3"), website(b"h3"));
    let address = serve_http3(stranger.tls, &mut tasks);
    let tuning = TransportSettings::default().validate().unwrap();
    let doubting = QuicClient::new(&believing(&known), &tuning).unwrap();
    let refused = doubting.connect(address, "localhost").await;
    assert!(matches!(refused, Err(ConnectError::Refused(_))));
    let trusting = QuicClient::new(&client(Trust::Anybody), &tuning).unwrap();
    assert!(trusting.connect(address, "localhost").await.is_ok());
}

#[tokio::test]
async fn a_name_that_the_certificate_does_not_have_is_refused() {
    let mut tasks = JoinSet::new();
    let website = website(b"h3");
    let tls = believing(&website);
    let address = serve_http3(website.tls, &mut tasks);
    let tuning = TransportSettings::default().validate().unwrap();
    let quic = QuicClient::new(&tls, &tuning).unwrap();
    let refused = quic.connect(address, "example.org").await;
    assert!(matches!(refused, Err(ConnectError::Refused(_))));
}

#[tokio::test]
async fn tls_over_tcp_carries_bytes_in_the_protocol_that_was_asked_for() {
    let website = website(b"h2");
    let listener = tokio::net::TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let believer = TlsClient::new(&believing(&website), "localhost", b"h2").unwrap();
    let other = TlsClient::new(&believing(&website), "localhost", b"http/1.1").unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(website.tls));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut byte = [0];
                stream.read_exact(&mut byte).await.unwrap();
                stream.write_all(&byte).await.unwrap();
                stream.flush().await.unwrap();
            }
        }
    });
    let dial = || tokio::net::TcpStream::connect(address);
    let mut stream = believer.connect(dial().await.unwrap()).await.unwrap();
    assert!(stream.protocol_was_chosen());
    stream.write_all(b"x").await.unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"x");
    // RFC 7301 section 3.2: a server without a common protocol ends the handshake.
    assert!(other.connect(dial().await.unwrap()).await.is_err());
}

#[test]
fn files_without_what_they_should_have_are_refused() {
    assert!(Roots::from_pem(b"").is_err());
    assert!(Identity::from_pem(b"", b"").is_err());
    let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(Roots::from_pem(garbage).is_err());
}

#[test]
fn names_and_addresses_are_names_of_servers() {
    for good in ["example.org", "127.0.0.1", "::1", "localhost"] {
        assert!(server_name(good).is_ok(), "{good}");
    }
    assert!(server_name("not a name").is_err());
}
