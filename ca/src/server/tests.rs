//! Tests of `ca/src/server.rs`.

use std::io::Error as IoError;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use weft_transport::tcp::TlsConnector;

use super::*;
use crate::Admin;
use crate::limits::{CSR_BYTES_MAX, RENEWAL_GRACE, SVID_TTL_DEFAULT};
use crate::operations::TokenOrder;
use crate::proto::certificate_authority_client::CertificateAuthorityClient;
use crate::proto::{BundleRequest, SignRequest};
use crate::subject::{self, Role, Subject};
use crate::token::JoinToken;

#[tokio::test]
async fn a_stranger_may_ask_for_the_bundle_and_for_nothing_else() {
    with_ca(async |mut client, path| {
        let bundle = directory::bundle(&path).unwrap();
        let answer = client.bundle(BundleRequest {}).await.unwrap().into_inner();
        assert_eq!(answer.bundle_pem, bundle);
        let (key, _) = crate::issuer::PrivateKeyPem::generate().unwrap();
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let request = SignRequest {
            csr: csr.der().to_vec(),
            token_secret: Vec::new(),
        };
        let refused = client.sign(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    })
    .await;
}

#[tokio::test]
async fn requests_of_every_bad_size_are_refused_and_the_next_is_answered() {
    with_ca(async |mut client, path| {
        let order = TokenOrder {
            subject: Subject::Role(Role::Config),
            ttl: SVID_TTL_DEFAULT,
            count: 1,
        };
        let mut admin = Admin::open(&path).await.unwrap();
        let tokens = admin.create_tokens(&order).await.unwrap();
        let token: JoinToken = tokens[0].parse().unwrap();
        for (size, code) in [
            (0, Code::InvalidArgument),
            (CSR_BYTES_MAX, Code::InvalidArgument),
            (CSR_BYTES_MAX + 1, Code::InvalidArgument),
            (MESSAGE_BYTES_MAX + 1, Code::OutOfRange),
            (4 * 1024 * 1024, Code::OutOfRange),
        ] {
            let request = SignRequest {
                csr: vec![0x30; size],
                token_secret: token.secret.as_bytes().to_vec(),
            };
            let refused = client.sign(request).await.unwrap_err();
            assert_eq!(refused.code(), code, "{size} bytes: {refused}");
        }
        let request = SignRequest {
            csr: Vec::new(),
            token_secret: vec![1; CSR_BYTES_MAX],
        };
        assert_eq!(
            client.sign(request).await.unwrap_err().code(),
            Code::Unauthenticated
        );
        client.bundle(BundleRequest {}).await.unwrap();
    })
    .await;
}

/// Runs `test` with a client of a fresh CA and the CA's directory.
async fn with_ca(test: impl AsyncFnOnce(CertificateAuthorityClient<Channel>, PathBuf)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    let trust_domain = "demo.test".parse().unwrap();
    let now = SystemTime::now();
    let created = directory::init(&path, &trust_domain, &[], now, &mut rand::rng()).unwrap();
    let settings = ServeSettings {
        directory: path.clone(),
        listen: "127.0.0.1:0".parse().unwrap(),
        svid_ttl: SVID_TTL_DEFAULT,
        renewal_grace: RENEWAL_GRACE,
    };
    let server = Server::bind(&settings).await.unwrap();
    let (address, shutdown) = (server.local_addr(), CancellationToken::new());
    let mut running = JoinSet::new();
    running.spawn(server.run(shutdown.clone()));
    let stream = TcpStream::connect(address).await.unwrap();
    let server_id = subject::authority(&trust_domain);
    let connector = TlsConnector::pinned(created.fingerprint, server_id).unwrap();
    let mut stream = Some(connector.connect(stream).await.unwrap());
    let once = tower::service_fn(move |_| {
        let stream = stream
            .take()
            .map(TokioIo::new)
            .ok_or_else(|| IoError::other("used up"));
        async { stream }
    });
    let channel = Endpoint::from_static("http://ca")
        .connect_with_connector(once)
        .await
        .unwrap();
    test(CertificateAuthorityClient::new(channel), path).await;
    shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_server_waits_for_a_local_command_that_holds_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("ca");
    let domain = "demo.test".parse().unwrap();
    let now = SystemTime::now();
    directory::init(&directory, &domain, &[], now, &mut rand::rng()).unwrap();
    let held = directory::open_store(&directory).unwrap();
    // Polled second: by then the server has got the command.
    let release = async { drop(held) };
    let (opened, ()) = tokio::join!(store_when_free(&directory), release);
    assert!(opened.is_ok());
}
