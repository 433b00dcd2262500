//! Two QUIC endpoints on loopback: the mapping against itself, and each side against a peer that
//! writes raw bytes.

mod exchange;
mod fuzz;
mod hostile;
mod stopped;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use tokio::task::JoinSet;

use super::code::ErrorCode;
use super::*;
use crate::error::{ConnectionError, OpenError, Reason, ReceiveError, SendError, Unprocessed};
use crate::identity::PeerId;
use crate::shares::{Bounds, Places};
use crate::streams::Streams;
use crate::tuning::TransportSettings;

/// Both ends of one QUIC connection, with the values that must outlive them.
struct Quic {
    client: quinn::Connection,
    server: quinn::Connection,
    _endpoints: [quinn::Endpoint; 2],
}

async fn quic() -> Quic {
    quic_with(quinn::TransportConfig::default()).await
}

/// With the client's transport configured.
async fn quic_with(transport: quinn::TransportConfig) -> Quic {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());

    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key.into())
        .unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let listener = quinn::Endpoint::server(config, address).unwrap();

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.cert.der().clone()).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let dialler = quinn::Endpoint::client(address).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    let connecting = dialler
        .connect_with(config, listener.local_addr().unwrap(), "localhost")
        .unwrap();
    let accept = async { listener.accept().await.unwrap().await.unwrap() };
    let (client, server) = tokio::join!(connecting, accept);
    Quic {
        client: client.unwrap(),
        server,
        _endpoints: [listener, dialler],
    }
}

fn peer() -> PeerId {
    let id = "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap();
    PeerId::for_tests(id, SystemTime::now() + Duration::from_secs(3600))
}

fn streams(connection: &quinn::Connection) -> Arc<Streams> {
    let tuning = TransportSettings::default().validate().unwrap();
    Streams::new(connection.clone(), &tuning)
}

fn server(connection: &quinn::Connection) -> ServerConnection {
    let place = Places::new(Bounds { places: 1, each: 1 }).enter(peer().id().clone());
    ServerConnection::new(connection.clone(), peer(), streams(connection), place)
}

/// A client whose driver runs in `tasks`.
fn client(connection: &quinn::Connection, tasks: &mut JoinSet<()>) -> ClientConnection {
    let (client, driver) = ClientConnection::new(connection.clone(), peer(), streams(connection));
    tasks.spawn(async {
        driver.await;
    });
    client
}

/// Answers each request of `connection` with `handler`, until the connection ends.
fn serve<F>(
    connection: &quinn::Connection,
    tasks: &mut JoinSet<()>,
    handler: impl Fn(ServerRequest) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut server = server(connection);
    tasks.spawn(async move {
        let mut handlers = JoinSet::new();
        while let Ok(Some(request)) = server.accept().await {
            handlers.spawn(handler(request));
        }
        while let Some(result) = handlers.join_next().await {
            result.unwrap();
        }
    });
}

fn request(method: &str, uri: &str, headers: &[(&'static str, &str)]) -> http::request::Parts {
    let mut builder = http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn get() -> http::request::Parts {
    request("GET", "https://orders.shop/", &[])
}

fn connect() -> http::request::Parts {
    request("CONNECT", "orders.shop:5432", &[])
}

fn response(status: u16, headers: &[(&'static str, &str)]) -> http::response::Parts {
    let mut builder = http::Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

/// Reads a body to its end.
async fn read(body: &mut RecvHalf) -> Result<(Vec<u8>, Option<http::HeaderMap>), ReceiveError> {
    let (mut data, mut trailers) = (Vec::new(), None);
    loop {
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx));
        match frame.await.transpose()? {
            None => return Ok((data, trailers)),
            Some(frame) => match frame.into_data() {
                Ok(bytes) => data.extend_from_slice(&bytes),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    }
}

/// Reads a tunnel until `count` bytes have come; fewer at its end.
async fn read_tunnel(body: &mut RecvHalf, count: usize) -> Result<Vec<u8>, ReceiveError> {
    let mut data = Vec::new();
    let mut chunks = Vec::new();
    while data.len() < count {
        let read = std::future::poll_fn(|cx| body.poll_chunks(cx, &mut chunks)).await?;
        if read == 0 {
            break;
        }
        assert_eq!(read, chunks.len());
        for chunk in chunks.drain(..) {
            data.extend_from_slice(&chunk);
        }
    }
    Ok(data)
}

/// Bytes of a HEADERS frame, for peers that write frames by hand.
fn head_frame(fields: &[(&str, &str)]) -> BytesMut {
    let mut encoder = qpack::Encoder::new();
    for (name, value) in fields {
        encoder.field(name.as_bytes(), value.as_bytes(), false);
    }
    encoder.into_headers_frame()
}

fn raw_frame(frame: u64, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    frame::put_frame(frame, payload, &mut out);
    out.freeze()
}
