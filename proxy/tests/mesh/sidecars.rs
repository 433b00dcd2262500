//! The pair of sidecars through which the tests call, and the applications behind them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use weft_config::client::{Health, Registration};
use weft_config::settings::{
    AccessLog, AdminChanges, Concurrency, Drain, HealthCheck, Inbound, InboundService,
    LocalAddress, OutboundListener, OutboundTarget, ProxyAdmin, ProxySettings, Timeouts,
};
use weft_config::table::{
    Absence, Authorization, Backend, Ban, Default, Details, Egress, Endpoint, Forbidden, Port,
    Protocol, Revision, RouteRule, Rule, Schema, Service, ServiceName, Table, Traffic,
};
use weft_proxy::{ControlPlane, Running, start, start_in_memory};
use weft_transport::credentials::{Credentials, Svid, TrustBundle};
use weft_transport::tuning::TransportSettings;
use weft_transport::wire::memory::Network;

/// A frontend sidecar without a service and an orders sidecar with three, joined by one table.
pub(crate) struct Mesh {
    pub(crate) frontend: Running,
    pub(crate) orders: Running,
    control: [Arc<Control>; 2],
    revision: AtomicU64,
    _state: tempfile::TempDir,
}

/// The outbound listeners of the frontend, in the order of its settings.
pub(crate) enum To {
    Orders = 0,
    Host = 1,
    Database = 2,
    Grpc = 3,
    Twice = 4,
    Nowhere = 5,
}

/// The applications behind the orders sidecar.
#[derive(Clone, Copy)]
pub(crate) struct Applications {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) tcp: SocketAddr,
}

pub(crate) struct Control {
    pub(crate) tables: watch::Sender<Option<Arc<Table>>>,
    pub(crate) acknowledged: watch::Sender<u64>,
}

impl Control {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            tables: watch::channel(None).0,
            acknowledged: watch::channel(0).0,
        })
    }
}

impl ControlPlane for Control {
    fn tables(&self) -> watch::Receiver<Option<Arc<Table>>> {
        self.tables.subscribe()
    }
    fn set_health(&self, _: &ServiceName, _: u16, _: Health) {}

    fn is_healthy(&self, _: &ServiceName, _: u16) -> bool {
        false
    }
    fn acknowledge(&self, revision: &Revision, outcome: Result<(), String>) {
        outcome.unwrap();
        self.acknowledged.send_replace(revision.number);
    }
    fn refused_unseen(&self) -> u64 {
        0
    }
    fn is_connected(&self) -> bool {
        true
    }
    fn status(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    fn registration(&self) -> Pin<Box<dyn Future<Output = Registration> + Send + '_>> {
        Box::pin(std::future::ready(Registration::default()))
    }
    fn hand_over(&self) {}
}

/// A listener whose address no program answers on, once it is dropped.
pub(crate) async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl Mesh {
    /// Starts both sidecars in front of the applications, with no rules of authorisation, over HTTP/3.
    pub(crate) async fn start(applications: Applications) -> Self {
        Self::start_over(None, applications).await
    }

    /// The same with the wire in memory.
    pub(crate) async fn start_in_memory(applications: Applications) -> Self {
        Self::start_over(Some(Network::default()), applications).await
    }

    async fn start_over(network: Option<Network>, applications: Applications) -> Self {
        let authority = Authority::new();
        let state = tempfile::tempdir().unwrap();
        let control = [Control::new(), Control::new()];
        let plane = |index: usize| Arc::clone(&control[index]) as Arc<dyn ControlPlane>;

        let mut settings = settings(state.path());
        let service = |name: &str, port, application| InboundService {
            service: name.parse().unwrap(),
            port,
            application: Some(LocalAddress::Tcp(application)),
            plaintext: None,
            send_via: true,
            details: Details::default(),
            health: Some(HealthCheck::connects(
                LocalAddress::Tcp(application),
                Duration::from_secs(1),
            )),
        };
        settings.inbound = Some(Inbound {
            listen: loopback(),
            advertise: None,
            services: vec![
                service("orders", 80, applications.http),
                service("grpc", 80, applications.grpc),
                service("db", 5432, applications.tcp),
            ],
        });
        let begin = async |settings, account, plane| {
            let credentials = authority.credentials(account);
            let started = match &network {
                Some(network) => start_in_memory(network, settings, credentials, plane).await,
                None => start(settings, credentials, plane, None, None).await,
            };
            started.unwrap()
        };
        let orders = begin(settings, "orders", plane(0)).await;

        let mut settings = self::settings(state.path());
        let to = |name: &str, port| OutboundTarget::Service {
            service: name.parse().unwrap(),
            port,
        };
        settings.outbound = [
            to("orders", 80),
            OutboundTarget::ByHost,
            to("db", 5432),
            to("grpc", 80),
            to("twice", 80),
            to("nowhere", 80),
        ]
        .map(|target| OutboundListener {
            listen: LocalAddress::Tcp(loopback()),
            target,
        })
        .into();
        let frontend = begin(settings, "frontend", plane(1)).await;
        let mesh = Self {
            frontend,
            orders,
            control,
            revision: AtomicU64::new(0),
            _state: state,
        };
        mesh.allow(Default::Allow, vec![]).await;
        mesh
    }

    /// Where the application of the frontend connects.
    pub(crate) fn listener(&self, to: To) -> SocketAddr {
        match &self.frontend.outbound()[to as usize] {
            LocalAddress::Tcp(address) => *address,
            LocalAddress::Unix(_) => panic!("only TCP listeners here"),
        }
    }

    /// Puts a table into force whose services all have these rules: it is when this returns.
    pub(crate) async fn allow(&self, default: Default, rules: Vec<Rule>) {
        let endpoint = |address, identity: &str| Endpoint {
            workload: identity.into(),
            address,
            identity: id(identity),
            locality: None,
            details: Details::default(),
        };
        let live = endpoint(self.orders.mesh(), "orders");
        // No program listens there: this process holds the port for TCP only.
        let dead = endpoint(self.frontend.admin(), "orders");
        let authorization = Some(Authorization::new(default, rules));
        let service = |name: &str, number, protocol, endpoints: Vec<Endpoint>, routes| {
            let ports = BTreeMap::from([(
                number,
                Port {
                    h2c: false,
                    protocol,
                    routes,
                    endpoints,
                    absence: Absence::default(),
                    traffic: Traffic::default(),
                },
            )]);
            let service = Service {
                external: None,
                ports,
                authorization: authorization.clone(),
            };
            (ServiceName::new("shop", name).unwrap(), Arc::new(service))
        };
        let to_orders = Backend::new(ServiceName::new("shop", "orders").unwrap(), 80, 1);
        let route = RouteRule {
            route: "HTTPRoute/shop/routed".into(),
            matches: vec![],
            backends: vec![to_orders],
            ..RouteRule::default()
        };
        let number = self.revision.fetch_add(1, Ordering::Relaxed) + 1;
        let forbidden = Forbidden {
            ports: [(80, Protocol::Http)].into(),
            ban: Ban::DeniedByDefault,
        };
        let table = Table {
            schema: Schema,
            revision: Revision {
                store: "test".into(),
                number,
            },
            trust_domain: "demo.test".parse().unwrap(),
            services: [
                service("orders", 80, Protocol::Http, vec![live.clone()], vec![]),
                service("grpc", 80, Protocol::Grpc, vec![live.clone()], vec![]),
                service("db", 5432, Protocol::Tcp, vec![live.clone()], vec![]),
                service("twice", 80, Protocol::Http, vec![dead, live], vec![]),
                service("empty", 80, Protocol::Http, vec![], vec![]),
                service("routed", 80, Protocol::Http, vec![], vec![route]),
            ]
            .into(),
            forbidden: [(ServiceName::new("shop", "secret").unwrap(), forbidden)].into(),
            session_keys: [].into(),
            egress: Egress::Deny,
            closed_hosts: std::collections::BTreeSet::new(),
        };
        let table = Arc::new(table);
        for control in &self.control {
            control.tables.send_replace(Some(Arc::clone(&table)));
        }
        for control in &self.control {
            let mut acknowledged = control.acknowledged.subscribe();
            acknowledged.wait_for(|one| *one == number).await.unwrap();
        }
    }
}

/// The SPIFFE ID of a workload of the tests.
pub(crate) fn id(account: &str) -> weft_transport::identity::SpiffeId {
    format!("spiffe://demo.test/ns/shop/sa/{account}")
        .parse()
        .unwrap()
}

pub(crate) fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

pub(crate) fn settings(state_dir: &std::path::Path) -> ProxySettings {
    ProxySettings {
        dns_servers: Vec::new(),
        takeover_socket: None,
        locality: None,
        join_token_file: None,
        config_addresses: vec![],
        state_dir: state_dir.to_owned(),
        workers: std::num::NonZeroUsize::MIN,
        inbound: None,
        outbound: vec![],
        revision_header: false,
        server_timing: false,
        admin: ProxyAdmin {
            listen: loopback(),
            socket: None,
            changes: AdminChanges::Loopback,
            observe: None,
        },
        access_log: AccessLog::Off,
        traces: None,
        transport: TransportSettings::default().validate().unwrap(),
        timeouts: Timeouts {
            application_connect: Duration::from_secs(1),
            application_idle: Duration::from_millis(1500),
            request_headers: Duration::from_secs(10),
            stream_idle: Duration::from_secs(300),
            tunnel_idle: Duration::from_secs(3600),
        },
        drain: Drain {
            accept: Duration::ZERO,
            deadline: Duration::from_secs(5),
        },
        concurrency: Concurrency {
            in_flight_max: 1024,
        },
    }
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

    pub(crate) fn credentials(&self, account: &str) -> Credentials {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id(account).as_str().try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        let svid = Svid::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let bundle =
            TrustBundle::from_pem("demo.test".parse().unwrap(), self.root.as_bytes()).unwrap();
        Credentials::new(svid, bundle).unwrap()
    }
}
