//! A config service, operators and sidecars in one process: the helpers of this crate's tests.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_config::client::{Subscription, SubscriptionHandle, SubscriptionSettings};
use weft_config::operator::{ChangeOptions, ChangeResult, Operator, OperatorError};
use weft_config::resources::SourceFile;
use weft_config::server::{ConfigServeSettings, ConfigServer, MetricsHandle};
use weft_config::table::{Details, ServiceName, Table};
use weft_transport::credentials::{Credentials, Svid, TrustBundle};

/// Nothing here takes longer unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where a sidecar says that it is reached, at first.
pub(crate) const SIDECAR: &str = "10.0.0.1:6143";

/// Where every sidecar runs.
pub(crate) const ZONE: &str = "eu-west/eu-west-1a";

pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    metrics: Option<MetricsHandle>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl World {
    pub(crate) async fn start() -> Self {
        let authority = Authority::new();
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self {
            authority,
            dir,
            address: "127.0.0.1:0".parse().unwrap(),
            metrics: None,
            shutdown: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        world.serve().await;
        world
    }

    pub(crate) async fn serve(&mut self) {
        let settings = ConfigServeSettings {
            dir: self.dir.path().to_owned(),
            listen: self.address,
        };
        let credentials = self
            .authority
            .credentials("spiffe://demo.test/ns/weft/sa/config");
        let server = ConfigServer::bind(&settings, credentials).await.unwrap();
        self.address = server.local_address().unwrap();
        self.metrics = Some(server.metrics());
        let shutdown = self.shutdown.clone();
        self.tasks
            .spawn(async move { server.run(shutdown).await.unwrap() });
    }

    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
        // It would keep the store open.
        self.metrics = None;
        self.shutdown = CancellationToken::new();
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.serve().await;
    }

    /// The counts of the running service.
    pub(crate) fn metrics(&self) -> MetricsHandle {
        self.metrics.clone().unwrap()
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        vec![self.address.to_string()]
    }

    pub(crate) async fn operator(&self, name: &str) -> Operator {
        let id = format!("spiffe://demo.test/ns/weft/sa/operator-{name}");
        self.connect(&self.authority.credentials(&id)).await
    }

    pub(crate) async fn connect(&self, credentials: &Credentials) -> Operator {
        self.try_connect(credentials).await.unwrap()
    }

    pub(crate) async fn try_connect(
        &self,
        credentials: &Credentials,
    ) -> Result<Operator, OperatorError> {
        Operator::connect(&self.addresses(), credentials).await
    }

    pub(crate) fn settings(
        &self,
        account: &str,
        listens_for: &[&str],
        inbound: &[&str],
        dir: &Path,
        addresses: &[String],
    ) -> SubscriptionSettings {
        SubscriptionSettings {
            addresses: addresses.to_vec(),
            credentials: self
                .authority
                .credentials(&format!("spiffe://demo.test/ns/shop/sa/{account}")),
            state_dir: dir.to_owned(),
            version: "0.1.0".into(),
            listens_for: listens_for.iter().map(|text| name(text)).collect(),
            advertise: watch::Sender::new(Some(SIDECAR.parse().unwrap())).subscribe(),
            locality: Some(ZONE.parse().unwrap()),
            inbound: inbound
                .iter()
                .map(|text| ((name(text), 80), Details::default()))
                .collect(),
            takes_over: None,
        }
    }

    pub(crate) fn sidecar(&self, account: &str, listens_for: &[&str], inbound: &[&str]) -> Sidecar {
        let dir = tempfile::tempdir().unwrap();
        let settings = self.settings(account, listens_for, inbound, dir.path(), &self.addresses());
        Sidecar::start(settings, dir)
    }
}

/// `orders` with one healthy endpoint, which `frontend` knows. Both acknowledge what they get.
pub(crate) struct Shop {
    pub(crate) world: World,
    pub(crate) frontend: Sidecar,
    pub(crate) orders: Sidecar,
    _acknowledging: [JoinSet<()>; 2],
}

impl Shop {
    /// With these resources.
    pub(crate) async fn start(resources: &str) -> Self {
        let world = World::start().await;
        let mut frontend = world.sidecar("frontend", &["orders.shop"], &[]);
        let orders = world.sidecar("orders", &[], &["orders.shop"]);
        let acknowledging = [&frontend, &orders].map(Sidecar::acknowledge_everything);
        let mut operator = world.operator("anna").await;
        apply(&mut operator, resources).await;
        orders.handle.set_health(&name("orders.shop"), 80, true);
        frontend.table(|table| !endpoints(table).is_empty()).await;
        Self {
            world,
            frontend,
            orders,
            _acknowledging: acknowledging,
        }
    }
}

pub(crate) struct Sidecar {
    pub(crate) handle: SubscriptionHandle,
    pub(crate) tables: watch::Receiver<Option<Arc<Table>>>,
    address: watch::Sender<Option<SocketAddr>>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
    pub(crate) dir: tempfile::TempDir,
}

impl Sidecar {
    pub(crate) fn start(mut settings: SubscriptionSettings, dir: tempfile::TempDir) -> Self {
        let address = watch::Sender::new(*settings.advertise.borrow());
        settings.advertise = address.subscribe();
        let (subscription, handle) = Subscription::start(settings);
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(subscription.run(shutdown.clone()));
        let tables = handle.tables();
        Self {
            handle,
            tables,
            address,
            shutdown,
            tasks,
            dir,
        }
    }

    /// Its host gets another address.
    pub(crate) fn move_to(&self, address: &str) {
        self.address.send_replace(Some(address.parse().unwrap()));
    }

    /// The next table for which `wanted` holds.
    pub(crate) async fn table(&mut self, wanted: impl Fn(&Table) -> bool) -> Arc<Table> {
        let found = self
            .tables
            .wait_for(|table| table.as_deref().is_some_and(&wanted));
        tokio::time::timeout(PATIENCE, found)
            .await
            .unwrap()
            .unwrap()
            .clone()
            .unwrap()
    }

    pub(crate) fn acknowledge_everything(&self) -> JoinSet<()> {
        let (handle, mut tables) = (self.handle.clone(), self.handle.tables());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            tables.mark_changed();
            while tables.changed().await.is_ok() {
                let table = tables.borrow_and_update().clone();
                if let Some(table) = table {
                    handle.acknowledge(&table.revision, Ok(()));
                }
            }
        });
        tasks
    }

    pub(crate) async fn problems(&self) -> std::collections::BTreeMap<String, String> {
        let waiting = async {
            loop {
                let problems = self.handle.status().registration_problems;
                if !problems.is_empty() {
                    return problems;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap()
    }

    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.dir
    }

    /// As a SIGKILL: nothing is said.
    pub(crate) fn stop_hard(mut self) -> tempfile::TempDir {
        self.tasks.abort_all();
        self.dir
    }
}

pub(crate) fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

pub(crate) fn files(text: &str) -> Vec<SourceFile> {
    vec![SourceFile {
        name: "mesh.yaml".into(),
        text: text.into(),
    }]
}

pub(crate) async fn apply(operator: &mut Operator, text: &str) -> ChangeResult {
    let options = ChangeOptions {
        wait: PATIENCE,
        ..ChangeOptions::default()
    };
    operator.apply(&files(text), &options).await.unwrap()
}

pub(crate) fn endpoints(table: &Table) -> Vec<String> {
    let ports = table
        .services
        .values()
        .flat_map(|service| service.ports.values());
    ports
        .flat_map(|port| &port.endpoints)
        .map(|endpoint| endpoint.address.to_string())
        .collect()
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        Self {
            root,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn credentials(&self, id: &str) -> Credentials {
        self.credentials_for(id, Duration::from_secs(3600))
    }

    /// With a certificate that has this much left of its life.
    pub(crate) fn credentials_for(&self, id: &str, left: Duration) -> Credentials {
        let (svid, bundle) = self.svid(id, left);
        Credentials::new(svid, bundle).unwrap()
    }

    pub(crate) fn svid(&self, id: &str, left: Duration) -> (Svid, TrustBundle) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        params.not_after = (SystemTime::now() + left).into();
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        let svid = Svid::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let bundle =
            TrustBundle::from_pem("demo.test".parse().unwrap(), self.root.as_bytes()).unwrap();
        (svid, bundle)
    }
}
