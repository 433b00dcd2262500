//! Any number of sidecars in this process, joined by the wire in memory. A table says which sidecar serves
//! which service under which policy, and the applications do what a test tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use weft_config::settings::{
    HealthCheck, Inbound, InboundService, LocalAddress, OutboundListener, OutboundTarget,
};
use weft_config::table::{
    Absence, Authorization, Default, Details, Egress, Endpoint, Port, Protocol, Revision, Schema,
    Service, ServiceName, Table, Traffic,
};
use weft_proxy::{ControlPlane, Running, start_in_memory};
use weft_transport::wire;
use weft_transport::wire::memory::Network;

use crate::sidecars::{Authority, Control, id, listener, loopback, settings};

/// The sidecars and the table that they get.
pub(crate) struct Fabric {
    authority: Authority,
    state: tempfile::TempDir,
    sidecars: Vec<Sidecar>,
    /// The wire between them.
    network: Network,
    /// Endpoints that are played by tests: service, account and address.
    peers: Vec<(String, String, SocketAddr)>,
    revision: AtomicU64,
}

struct Sidecar {
    account: String,
    serves: Vec<String>,
    running: Running,
    control: Arc<Control>,
}

impl Fabric {
    pub(crate) fn new() -> Self {
        Self {
            authority: Authority::new(),
            state: tempfile::tempdir().unwrap(),
            sidecars: Vec::new(),
            network: Network::default(),
            peers: Vec::new(),
            revision: AtomicU64::new(0),
        }
    }

    /// Starts a sidecar whose application serves and calls services of port 80. Returns its number.
    pub(crate) async fn add(
        &mut self,
        account: &str,
        serves: &[(&str, SocketAddr)],
        calls: &[&str],
    ) -> usize {
        let state = self.state.path().join(self.sidecars.len().to_string());
        std::fs::create_dir(&state).unwrap();
        let mut settings = settings(&state);
        settings.inbound = (!serves.is_empty()).then(|| Inbound {
            listen: loopback(),
            advertise: None,
            services: serves
                .iter()
                .map(|(service, application)| InboundService {
                    service: service.parse().unwrap(),
                    port: 80,
                    application: Some(LocalAddress::Tcp(*application)),
                    plaintext: None,
                    send_via: true,
                    details: Details::default(),
                    health: Some(HealthCheck::connects(
                        LocalAddress::Tcp(*application),
                        Duration::from_secs(1),
                    )),
                })
                .collect(),
        });
        settings.outbound = calls
            .iter()
            .map(|service| OutboundListener {
                listen: LocalAddress::Tcp(loopback()),
                target: OutboundTarget::Service {
                    service: service.parse().unwrap(),
                    port: 80,
                },
            })
            .collect();
        let control = Control::new();
        let plane = Arc::clone(&control) as Arc<dyn ControlPlane>;
        let credentials = self.authority.credentials(account);
        let running = start_in_memory(&self.network, settings, credentials, plane)
            .await
            .unwrap();
        self.sidecars.push(Sidecar {
            account: account.to_owned(),
            serves: serves.iter().map(|(name, _)| (*name).to_owned()).collect(),
            running,
            control,
        });
        self.sidecars.len() - 1
    }

    /// An endpoint of a service whose sidecar is the test.
    pub(crate) fn peer(&mut self, service: &str, account: &str) -> wire::Listener {
        let address = SocketAddr::from(([127, 0, 0, 9], self.peers.len() as u16 + 1));
        let peer = (service.to_owned(), account.to_owned(), address);
        self.peers.push(peer);
        self.network.listen(address, &id(account))
    }

    /// Where the application of a sidecar calls its `number`th service.
    pub(crate) fn listener(&self, sidecar: usize, number: usize) -> SocketAddr {
        match &self.sidecars[sidecar].running.outbound()[number] {
            LocalAddress::Tcp(address) => *address,
            LocalAddress::Unix(_) => panic!("only TCP listeners here"),
        }
    }

    /// The admin endpoint of a sidecar.
    pub(crate) fn admin(&self, sidecar: usize) -> SocketAddr {
        self.sidecars[sidecar].running.admin()
    }

    /// Puts a table into force in which every service is treated as told; it is in force when this returns.
    pub(crate) async fn publish(&self, traffic: impl Fn(&str) -> Traffic) {
        self.publish_ports(|name, port| port.traffic = traffic(name))
            .await;
    }

    /// The same with the port of each service as told.
    pub(crate) async fn publish_ports(&self, change: impl Fn(&str, &mut Port)) {
        let served = self.sidecars.iter().flat_map(|sidecar| &sidecar.serves);
        let played = self.peers.iter().map(|(service, ..)| service);
        let names: BTreeSet<&String> = served.chain(played).collect();
        let services = names.into_iter().map(|name| {
            let instances = self.sidecars.iter().enumerate();
            let endpoints = instances
                .filter(|(_, sidecar)| sidecar.serves.contains(name))
                .map(|(number, sidecar)| Endpoint {
                    workload: format!("{}-{number}", sidecar.account),
                    address: sidecar.running.mesh(),
                    identity: id(&sidecar.account),
                    locality: None,
                    details: Details::default(),
                });
            let peers = self.peers.iter().enumerate();
            let played = peers.filter(|(_, (service, ..))| service == name).map(
                |(number, (_, account, address))| Endpoint {
                    workload: format!("peer-{number}"),
                    address: *address,
                    identity: id(account),
                    locality: None,
                    details: Details::default(),
                },
            );
            let mut port = Port {
                h2c: false,
                protocol: Protocol::Http,
                routes: vec![],
                endpoints: endpoints.chain(played).collect(),
                absence: Absence::default(),
                traffic: Traffic::default(),
            };
            change(name, &mut port);
            let service = Service {
                ports: BTreeMap::from([(80, port)]),
                external: None,
                authorization: Some(Authorization::new(Default::Allow, vec![])),
            };
            (ServiceName::new("shop", name).unwrap(), Arc::new(service))
        });
        let number = self.revision.fetch_add(1, Ordering::Relaxed) + 1;
        let table = Arc::new(Table {
            revision: Revision {
                store: "test".into(),
                number,
            },
            trust_domain: "demo.test".parse().unwrap(),
            services: services.collect(),
            forbidden: BTreeMap::new(),
            session_keys: BTreeMap::new(),
            egress: Egress::Deny,
            closed_hosts: std::collections::BTreeSet::new(),
            schema: Schema,
        });
        for sidecar in &self.sidecars {
            sidecar
                .control
                .tables
                .send_replace(Some(Arc::clone(&table)));
        }
        for sidecar in &self.sidecars {
            let mut acknowledged = sidecar.control.acknowledged.subscribe();
            acknowledged.wait_for(|one| *one == number).await.unwrap();
        }
    }
}

/// An HTTP/1.1 application that answers by a function. Gone, with its connections, when the set is dropped.
pub(crate) async fn application<F, A>(answer: F) -> (SocketAddr, JoinSet<()>)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let (listener, address) = listener().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            connections.spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                let _ = connection.await;
            });
        }
    });
    (address, tasks)
}

/// A response without anything but its status.
pub(crate) fn status(status: u16) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status);
    response.body(Full::default()).unwrap()
}
