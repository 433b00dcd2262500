//! Clients and servers of the web: with a name and a root, and with an identity for those who ask for one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::error::ConnectionError;
use crate::http3::UnprovenServerConnection;
use crate::testing::{Authority, FRONTEND, Issued, ORDERS, leaf};
use crate::tuning::{TransportSettings, Tuning};

/// A certificate for `localhost` that is its own root, and a server that presents it to every client.
struct Website {
    roots: Trust,
    tls: ServerTls,
}

fn website() -> Website {
    let identity = Identity::self_made(vec!["localhost".to_owned()]).unwrap();
    let roots = Roots::from_pem(identity.chain_pem().as_bytes()).unwrap();
    Website {
        roots: Trust::Roots(roots),
        tls: ServerTls::new(identity, Trust::AnyPeer),
    }
}

fn client(trust: Trust) -> ExternalTls {
    ExternalTls::new(trust, None, Sessions::Full)
}

fn tuning() -> Tuning {
    TransportSettings::default().validate().unwrap()
}

/// A peer that proves `id` in the mesh of the tests.
fn only(id: &str) -> Trust {
    Trust::Identity(Authority::shared().bundle(), id.parse().unwrap())
}

fn svid(id: &str) -> Identity {
    let Issued {
        chain_pem, key_pem, ..
    } = Authority::shared().issue(leaf(&[id]));
    Identity::from_pem(chain_pem.as_bytes(), key_pem.as_bytes()).unwrap()
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Serves HTTP/3 and answers every request with 204.
fn serve_http3(tls: &ServerTls, tasks: &mut JoinSet<()>) -> SocketAddr {
    let socket = UdpSocket::bind(loopback()).unwrap();
    let address = socket.local_addr().unwrap();
    let server = QuicServer::new(tls, &tuning(), socket).unwrap();
    tasks.spawn(async move {
        while let Some(incoming) = server.accept().await {
            if let Ok(connection) = incoming.handshake().await {
                answer_all(connection).await;
            }
        }
    });
    address
}

async fn answer_all(mut server: UnprovenServerConnection) {
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
    let website = website();
    let address = serve_http3(&website.tls, &mut tasks);
    let quic = QuicClient::new(&client(website.roots), &tuning()).unwrap();
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
async fn a_server_without_a_trusted_root_is_refused_unless_every_server_is_trusted() {
    let mut tasks = JoinSet::new();
    let (known, stranger) = (website(), website());
    let address = serve_http3(&stranger.tls, &mut tasks);
    let doubting = QuicClient::new(&client(known.roots), &tuning()).unwrap();
    let refused = doubting.connect(address, "localhost").await;
    assert!(matches!(refused, Err(ConnectError::Refused(_))));
    let trusting = QuicClient::new(&client(Trust::AnyPeer), &tuning()).unwrap();
    assert!(trusting.connect(address, "localhost").await.is_ok());
}

#[tokio::test]
async fn a_name_that_the_certificate_does_not_have_is_refused() {
    let mut tasks = JoinSet::new();
    let website = website();
    let address = serve_http3(&website.tls, &mut tasks);
    let quic = QuicClient::new(&client(website.roots), &tuning()).unwrap();
    let refused = quic.connect(address, "example.org").await;
    assert!(matches!(refused, Err(ConnectError::Refused(_))));
}

/// Runs a handshake over QUIC with a server that shows the identity of orders and lets in `clients`, until
/// the server has judged the client.
async fn meet(clients: Trust, client: &ExternalTls) -> Result<(), ConnectError> {
    let mut tasks = JoinSet::new();
    let tls = ServerTls::new(svid(ORDERS), clients);
    let address = serve_http3(&tls, &mut tasks);
    let quic = QuicClient::new(client, &tuning()).unwrap();
    let (connection, driver) = quic.connect(address, "localhost").await?;
    tasks.spawn(async {
        driver.await;
    });
    let refused = |error: ConnectionError| ConnectError::Refused(error.to_string());
    connection.greeted().await.map_err(refused)
}

#[tokio::test]
async fn a_server_is_believed_by_the_identity_that_it_proves_and_not_by_another() {
    assert!(meet(Trust::AnyPeer, &client(only(ORDERS))).await.is_ok());
    let refused = meet(Trust::AnyPeer, &client(only(FRONTEND))).await;
    assert!(refused.unwrap_err().to_string().contains(ORDERS));
    let stranger = website();
    let mut tasks = JoinSet::new();
    let address = serve_http3(&stranger.tls, &mut tasks);
    let quic = QuicClient::new(&client(only(ORDERS)), &tuning()).unwrap();
    assert!(quic.connect(address, "localhost").await.is_err());
}

#[tokio::test]
async fn a_server_that_asks_for_an_identity_lets_in_no_other_client() {
    let showing = |id: &str| {
        let trust = only(ORDERS);
        ExternalTls::new(trust, Some(svid(id)), Sessions::Full)
    };
    let root = Authority::shared().bundle().to_pem();
    let rooted = Trust::Roots(Roots::from_pem(root.as_bytes()).unwrap());
    assert!(meet(only(FRONTEND), &showing(FRONTEND)).await.is_ok());
    assert!(meet(only(FRONTEND), &showing(ORDERS)).await.is_err());
    assert!(meet(only(FRONTEND), &client(only(ORDERS))).await.is_err());
    assert!(meet(rooted.clone(), &showing(FRONTEND)).await.is_ok());
    assert!(meet(rooted, &client(only(ORDERS))).await.is_err());
}

/// Accepts TLS connections and echoes the first byte of each.
async fn serve_tls(tls: &ServerTls, alpn: &[&[u8]], tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = TlsServer::new(tls, alpn).unwrap();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = server.accept(stream).await {
                let mut byte = [0];
                stream.read_exact(&mut byte).await.unwrap();
                stream.write_all(&byte).await.unwrap();
                stream.flush().await.unwrap();
            }
        }
    });
    address
}

async fn echo(client: &TlsClient, address: SocketAddr) -> io::Result<TlsClientStream> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = client.connect(stream).await?;
    stream.write_all(b"x").await?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    assert_eq!(&byte, b"x");
    Ok(stream)
}

#[tokio::test]
async fn tls_over_tcp_carries_bytes_in_the_protocol_that_was_asked_for() {
    let mut tasks = JoinSet::new();
    let website = website();
    let address = serve_tls(&website.tls, &[b"h2"], &mut tasks).await;
    let tls = client(website.roots);
    let dial = |alpn| TlsClient::new(&tls, "localhost", alpn).unwrap();
    let stream = echo(&dial(b"h2"), address).await.unwrap();
    assert!(stream.protocol_was_chosen());
    // RFC 7301 section 3.2: a server without a common protocol ends the handshake.
    assert!(echo(&dial(b"http/1.1"), address).await.is_err());
}

#[tokio::test]
async fn a_session_is_resumed_on_request_and_only_if_clients_need_no_certificate() {
    let mut tasks = JoinSet::new();
    let open = ServerTls::new(svid(ORDERS), Trust::AnyPeer);
    let closed = ServerTls::new(svid(ORDERS), only(FRONTEND));
    for (server, sessions, resumed) in [
        (&open, Sessions::Resume, true),
        (&open, Sessions::Full, false),
        (&closed, Sessions::Resume, false),
    ] {
        let address = serve_tls(server, &[b"h2"], &mut tasks).await;
        let tls = ExternalTls::new(only(ORDERS), Some(svid(FRONTEND)), sessions);
        let client = TlsClient::new(&tls, "localhost", b"h2").unwrap();
        let first = echo(&client, address).await.unwrap();
        assert!(!first.was_resumed());
        let second = echo(&client, address).await.unwrap();
        assert_eq!(second.was_resumed(), resumed, "{sessions:?}");
    }
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
