//! A CA in a directory of its own, and the helpers of its tests.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_ca::agent::{Agent, AgentError, AgentSettings};
use weft_ca::csr::ProvenKey;
use weft_ca::issuer::Issuer;
use weft_ca::{Admin, JoinToken, ServeError, ServeSettings, Server, Subject, TokenOrder};
use weft_transport::credentials::Credentials;

/// Far above the duration of any step here, and below a test runner's own limit.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Ca {
    pub(crate) directory: TempDir,
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Ca {
    pub(crate) async fn start(svid_ttl: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        init(&directory.path().join("ca"));
        Self::serve(directory, loopback(), svid_ttl).await
    }

    pub(crate) async fn serve(directory: TempDir, listen: SocketAddr, svid_ttl: Duration) -> Self {
        let settings = settings(&directory.path().join("ca"), listen, svid_ttl);
        Self::serve_with(directory, &settings).await
    }

    pub(crate) async fn serve_with(directory: TempDir, settings: &ServeSettings) -> Self {
        let server = Server::bind(settings).await.unwrap();
        let (address, shutdown) = (server.local_addr(), CancellationToken::new());
        let running = tokio::task::spawn_blocking({
            let shutdown = shutdown.clone();
            move || tokio::runtime::Handle::current().block_on(server.run(shutdown))
        });
        Self {
            directory,
            address,
            shutdown,
            running,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("ca")
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) async fn token(&self, identity: &str) -> JoinToken {
        let mut admin = Admin::open(&self.path()).await.unwrap();
        admin
            .create_tokens(&order(identity))
            .await
            .unwrap()
            .remove(0)
            .parse()
            .unwrap()
    }

    pub(crate) async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        within(self.running).await.unwrap().unwrap();
        self.directory
    }
}

/// Puts an hour-long SVID with a new key into a state directory; returns its serial.
pub(crate) fn replace_by_one_issued_at(ca: &Path, state: &Path, then: SystemTime) -> String {
    let read = |name: &str| std::fs::read(ca.join(name)).unwrap();
    let (root, issuing, key) = (read("root.crt"), read("issuing.crt"), read("issuing.key"));
    let domain = "demo.test".parse().unwrap();
    let issuer = Issuer::load(domain, &root, &issuing, &key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let id = "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap();
    let proven = ProvenKey::from_csr(csr.der()).unwrap();
    let hour = Duration::from_secs(3600);
    let svid = issuer
        .issue(&id, &proven, hour, then, &mut rand::rng())
        .unwrap();
    std::fs::write(state.join("identity.crt"), &svid.chain_pem).unwrap();
    std::fs::write(state.join("identity.key"), key.serialize_pem()).unwrap();
    svid.serial
}

/// Makes a CA that is older than every certificate in these tests.
pub(crate) fn init(directory: &Path) {
    init_at(
        directory,
        SystemTime::now() - Duration::from_secs(100 * 3600),
    );
}

pub(crate) fn init_at(directory: &Path, then: SystemTime) {
    let domain = "demo.test".parse().unwrap();
    weft_ca::init(directory, &domain, &[], then, &mut rand::rng()).unwrap();
}

pub(crate) fn settings(directory: &Path, listen: SocketAddr, svid_ttl: Duration) -> ServeSettings {
    ServeSettings {
        directory: directory.to_owned(),
        listen,
        svid_ttl,
        renewal_grace: weft_ca::limits::RENEWAL_GRACE,
    }
}

pub(crate) fn order(identity: &str) -> TokenOrder {
    let domain = "demo.test".parse().unwrap();
    TokenOrder {
        subject: Subject::from_identity(&domain, identity).unwrap(),
        ttl: Duration::from_secs(3600),
        count: 1,
    }
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) async fn join(
    state_dir: &Path,
    token: Option<&JoinToken>,
) -> Result<Credentials, AgentError> {
    let settings = AgentSettings {
        state_dir: state_dir.to_owned(),
        join_token: token.cloned(),
        waiting: watch::Sender::default(),
        patience: None,
    };
    within(Agent::start(settings))
        .await
        .map(|(_, credentials)| credentials)
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work)
        .await
        .expect("it takes far too long")
}
