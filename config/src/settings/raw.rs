//! The settings files as they are written: every key is optional, so that the same type is one layer of
//! defaults, file, environment or flags. `values.rs` checks single values; `proxy.rs`, `ca.rs` and
//! `service.rs` check rules across several. After those files no value that the program needs is optional.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weft_transport::tuning::TransportSettings;

use crate::table::{Labels, Locality, Weight};

use super::standard_environment::{self, Standard};
use super::traces::RawTraces;
use super::values::{
    AdminSocket, ApplicationAddress, DurationText, HostPort, ListenAddress, LocalAddress,
    ServiceReference,
};

/// One layer of settings: knows its keys, and which of its values are relative paths.
pub trait Layer: Serialize + serde::de::DeserializeOwned + Default {
    /// Puts relative paths under `base`, the directory of their file.
    fn resolve_paths(&mut self, base: &Path);

    /// What variables say that other programs have, too.
    fn standard(_environment: &[(String, String)]) -> Standard<Self> {
        Standard::default()
    }
}

/// `proxy.yaml`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawProxy {
    /// How the sidecar gets its first identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<RawJoin>,
    /// Where the config service is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<RawControlPlane>,
    /// Directory of the key, the certificate, the trust bundle and the last good table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// Unix socket through which one process takes over from another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub takeover_socket: Option<PathBuf>,
    /// Where this sidecar runs, as region/zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// Threads of the data path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// What this sidecar serves to the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound: Option<RawInbound>,
    /// What the application calls through this sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound: Option<RawOutbound>,
    /// How names outside of the mesh are resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<RawDns>,
    /// The admin endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<RawProxyAdmin>,
    /// Which requests are logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// Where spans are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<RawTraces>,
    /// The QUIC knobs; each has a default, so the block is always complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<TransportSettings>,
    /// Timeouts of the data path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<RawTimeouts>,
    /// How the sidecar ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<RawDrain>,
    /// How much runs at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<RawConcurrency>,
}

/// `join`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawJoin {
    /// File with one join token; ignored when a usable SVID is in the state directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// `config`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawControlPlane {
    /// Addresses of the config service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<HostPort>>,
}

/// `dns`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawDns {
    /// The resolvers that are asked in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<Vec<SocketAddr>>,
}

/// `inbound`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawInbound {
    /// UDP address of the mesh side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<ListenAddress>,
    /// The address at which other sidecars reach `listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<HostPort>,
    /// The services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<RawService>>,
}

/// One of `inbound.services`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawService {
    /// Its name.
    pub service: ServiceReference,
    /// Its port, as callers know it.
    pub port: u16,
    /// Where the application listens.
    pub application: ApplicationAddress,
    /// See [`super::InboundService::plaintext`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plaintext_listen: Option<ListenAddress>,
    /// See [`super::InboundService::send_via`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_via: Option<bool>,
    /// How the application is asked whether it is able to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<RawHealth>,
    /// Its share of the requests of callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
    /// Labels that callers' tables show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Labels>,
}

/// `inbound.services[].health`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawHealth {
    /// What is asked.
    pub kind: CheckKind,
    /// The path of `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The host of `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The service of `grpc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The port, if it is not that of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// See [`super::HealthCheck::interval`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<DurationText>,
    /// See [`super::HealthCheck::timeout`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
    /// See [`super::HealthCheck::healthy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<u32>,
    /// See [`super::HealthCheck::unhealthy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<u32>,
    /// See [`super::HealthCheck::grace`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<DurationText>,
}

/// What an application is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// Whether it accepts a connection.
    Tcp,
    /// A request of HTTP/1.1.
    Http,
    /// The health service of gRPC.
    Grpc,
}

/// `outbound`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawOutbound {
    /// The listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listeners: Option<Vec<RawListener>>,
    /// See [`super::ProxySettings::revision_header`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision_header: Option<bool>,
    /// See [`super::ProxySettings::server_timing`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_timing: Option<bool>,
}

/// One of `outbound.listeners`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawListener {
    /// Where the application connects.
    pub listen: LocalAddress,
    /// The one service behind this listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceReference>,
    /// That service's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Or the way to find the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_by: Option<RouteBy>,
}

/// How a listener for many services finds the intended one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteBy {
    /// By the HTTP host: `Host` or `:authority`.
    Host,
    /// By the original destination address of a captured connection.
    OriginalDestination,
}

/// `admin` of a sidecar.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawProxyAdmin {
    /// TCP address on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<ListenAddress>,
    /// Unix socket, or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<AdminSocket>,
    /// Where changes are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<AdminChanges>,
    /// TCP address at which other hosts may read health and metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observe: Option<ListenAddress>,
    /// Names by which other hosts may call `observe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
}

/// Where a sidecar takes changes: a drain, another log filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminChanges {
    /// Only on the Unix socket: from the sidecar's own user and root.
    #[default]
    Socket,
    /// On the TCP address, too: from every process of this host.
    Loopback,
}

/// `admin` of the CA and of the config service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawAdmin {
    /// TCP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<ListenAddress>,
    /// Names by which other hosts may call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
}

/// Which requests leave a line in the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLog {
    /// None.
    Off,
    /// Those that the mesh failed or refused, and 5xx of applications.
    #[default]
    Failures,
    /// Every one, rate limited.
    All,
}

/// `timeouts`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTimeouts {
    /// See [`super::Timeouts::application_connect`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_connect: Option<DurationText>,
    /// See [`super::Timeouts::application_idle`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_idle: Option<DurationText>,
    /// See [`super::Timeouts::request_headers`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<DurationText>,
    /// See [`super::Timeouts::stream_idle`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_idle: Option<DurationText>,
    /// See [`super::Timeouts::tunnel_idle`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_idle: Option<DurationText>,
}

/// `drain`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawDrain {
    /// See [`super::Drain::accept`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept: Option<DurationText>,
    /// See [`super::Drain::deadline`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DurationText>,
}

/// `concurrency`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConcurrency {
    /// See [`super::Concurrency::in_flight_max`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight_max: Option<usize>,
}

impl Layer for RawProxy {
    fn resolve_paths(&mut self, base: &Path) {
        resolve(&mut self.state_dir, base);
        resolve(&mut self.takeover_socket, base);
        if let Some(join) = &mut self.join {
            resolve(&mut join.token_file, base);
        }
        if let Some(traces) = &mut self.traces {
            resolve(&mut traces.certificate, base);
        }
        let socket = self.admin.as_mut().and_then(|admin| admin.socket.as_mut());
        if let Some(socket) = socket {
            socket.resolve(base);
        }
        let services = self
            .inbound
            .iter_mut()
            .filter_map(|inbound| inbound.services.as_mut())
            .flatten();
        services.for_each(|service| service.application.resolve(base));
        let listeners = self
            .outbound
            .iter_mut()
            .filter_map(|outbound| outbound.listeners.as_mut())
            .flatten();
        listeners.for_each(|listener| listener.listen.resolve(base));
    }

    fn standard(environment: &[(String, String)]) -> Standard<Self> {
        standard_environment::read(environment)
    }
}

/// `ca.yaml`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCa {
    /// Directory that `weft ca init` made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// TCP address to serve on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<ListenAddress>,
    /// Life of the certificates issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svid_ttl: Option<DurationText>,
    /// How long an expired certificate still authenticates a renewal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal_grace: Option<DurationText>,
    /// The admin endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<RawAdmin>,
}

impl Layer for RawCa {
    fn resolve_paths(&mut self, base: &Path) {
        resolve(&mut self.dir, base);
    }
}

/// `config.yaml`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfigService {
    /// Directory of the store and of the service's own identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// TCP address to serve on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<ListenAddress>,
    /// How the service gets its first identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<RawJoin>,
    /// The admin endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<RawAdmin>,
}

impl Layer for RawConfigService {
    fn resolve_paths(&mut self, base: &Path) {
        resolve(&mut self.dir, base);
        if let Some(join) = &mut self.join {
            resolve(&mut join.token_file, base);
        }
    }
}

fn resolve(path: &mut Option<PathBuf>, base: &Path) {
    if let Some(path) = path {
        *path = base.join(&*path);
    }
}
