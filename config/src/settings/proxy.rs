//! A sidecar's settings, complete and checked. The form of the file is in `raw.rs`, the numbers in
//! `limits.rs`; the `weft` command loads the settings and hands them to `weft_proxy`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use weft_transport::hosts;
use weft_transport::tuning::{TransportSettings, Tuning};

use super::admin::{ProxyAdmin, parse_proxy as parse_admin};
use super::error::{Problem, SettingsError};
use super::health::{self, HealthCheck};
use super::layers::{Loaded, Sources, merge};
use super::limits;
use super::raw::{
    AccessLog, RawConcurrency, RawDns, RawDrain, RawInbound, RawListener, RawOutbound, RawProxy,
    RawTimeouts, RouteBy,
};
use super::traces::{self, Traces};
use super::values::{DurationText, HostPort, LocalAddress, ServiceReference};
use crate::table::{Details, Locality};

/// The parameters of `weft proxy run`.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// File with a join token; not needed once the state directory holds a usable SVID.
    pub join_token_file: Option<PathBuf>,
    /// The config service; empty means the CA's hosts at [`limits::CONFIG_PORT`].
    pub config_addresses: Vec<HostPort>,
    /// Directory of key, certificate, trust bundle and last good table (0700).
    pub state_dir: PathBuf,
    /// Unix socket through which this process takes over from its predecessor, and a successor from it.
    pub takeover_socket: Option<PathBuf>,
    /// The place where it runs, from the region inwards.
    pub locality: Option<Locality>,
    /// Threads of the data path, each with its own sockets.
    pub workers: NonZeroUsize,
    /// The services that this sidecar serves to the mesh; none for a pure client.
    pub inbound: Option<Inbound>,
    /// The services that the application calls through this sidecar.
    pub outbound: Vec<OutboundListener>,
    /// Whether answers to the application name the revision that decided where its request went.
    pub revision_header: bool,
    /// Whether answers to the application say how much of their time was the mesh's, as `server-timing`.
    pub server_timing: bool,
    /// The resolvers of names outside of the mesh; those of the system if there are none.
    pub dns_servers: Vec<SocketAddr>,
    /// The admin endpoint.
    pub admin: ProxyAdmin,
    /// Which requests are logged.
    pub access_log: AccessLog,
    /// Where spans are sent, if they are made.
    pub traces: Option<Traces>,
    /// The QUIC knobs, their ranges checked.
    pub transport: Tuning,
    /// Timeouts of the data path, besides those of `transport`.
    pub timeouts: Timeouts,
    /// How the sidecar ends.
    pub drain: Drain,
    /// How much runs at once.
    pub concurrency: Concurrency,
}

/// The mesh side of a sidecar.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// UDP address to listen on.
    pub listen: SocketAddr,
    /// The address at which other sidecars reach it; none if `listen` gives it, or if `listen` is a wildcard
    /// and the address of the route to the config service will do.
    pub advertise: Option<HostPort>,
    /// The services, at least one, each service and port once.
    pub services: Vec<InboundService>,
}

/// A service that the application of this sidecar serves.
#[derive(Clone, Debug)]
pub struct InboundService {
    /// Its name.
    pub service: ServiceReference,
    /// Its port, as callers know it.
    pub port: u16,
    /// Where the application listens, if there is one.
    pub application: Option<LocalAddress>,
    /// Where callers without mutual TLS come, while the Service takes them.
    pub plaintext: Option<SocketAddr>,
    /// Whether it gets the field `Via`.
    pub send_via: bool,
    /// How it is asked whether it is able to serve, if there is one.
    pub health: Option<HealthCheck>,
    /// What this endpoint says of itself to callers.
    pub details: Details,
}

/// A listener for the application.
#[derive(Clone, Debug)]
pub struct OutboundListener {
    /// Where the application connects.
    pub listen: LocalAddress,
    /// The destination of its connections.
    pub target: OutboundTarget,
}

/// The destination of an outbound listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboundTarget {
    /// One port of one service.
    Service {
        /// The service.
        service: ServiceReference,
        /// Its port.
        port: u16,
    },
    /// The service that the HTTP host names: `orders`, `orders.shop`, with the port (default 80).
    ByHost,
}

/// Timeouts of the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect to the application.
    pub application_connect: Duration,
    /// After which an idle pooled connection to the application is dropped.
    pub application_idle: Duration,
    /// For all headers of a request from the application.
    pub request_headers: Duration,
    /// The time without progress after which a request stream is reset.
    pub stream_idle: Duration,
    /// The time without progress after which a tunnel is reset.
    pub tunnel_idle: Duration,
}

/// How a sidecar ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long new work is still accepted after the withdrawal from the config service.
    pub accept: Duration,
    /// When running work is cut off, from the beginning of the drain.
    pub deadline: Duration,
}

/// How much runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// Requests and tunnels in flight per inbound service, over all workers.
    pub in_flight_max: usize,
}

/// Loads a sidecar's settings from all layers.
pub fn load_proxy(sources: Sources<RawProxy>) -> Result<Loaded<ProxySettings>, SettingsError> {
    let merged = merge(sources)?;
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    match parse(merged.raw, cores) {
        Ok(settings) => Ok(Loaded {
            settings,
            warnings: merged.warnings,
        }),
        Err(problem) => Err(merged.origin.blame(problem)),
    }
}

fn parse(raw: RawProxy, cores: NonZeroUsize) -> Result<ProxySettings, Problem> {
    let state_dir = raw
        .state_dir
        .ok_or_else(|| Problem::new("state_dir", "is missing: write a directory of this sidecar's own, as state_dir: /var/lib/weft/orders (or --state-dir)"))?;
    let timeouts = parse_timeouts(raw.timeouts.unwrap_or_default())?;
    let inbound = |inbound| parse_inbound(inbound, timeouts.application_connect);
    let inbound = raw.inbound.map(inbound).transpose()?;
    let outbound = raw.outbound.unwrap_or_default();
    let revision_header = outbound.revision_header.unwrap_or(false);
    let server_timing = outbound.server_timing.unwrap_or(false);
    let outbound = parse_outbound(outbound)?;
    check_plaintext(inbound.as_ref(), &outbound)?;
    if inbound.is_none() && outbound.is_empty() {
        return Err(Problem::new(
            "inbound, outbound",
            "the sidecar would do nothing: write at least one of inbound.services (--inbound orders:80=127.0.0.1:8080) and outbound.listeners (--outbound 127.0.0.1:5001=payments:80)",
        ));
    }
    let addresses = raw.config.and_then(|config| config.addresses);
    let config_addresses = addresses.unwrap_or_default();
    if config_addresses.len() > limits::ADDRESSES_MAX {
        return Err(Problem::new(
            "config.addresses",
            format!("has more than {} entries", limits::ADDRESSES_MAX),
        ));
    }
    let admin = parse_admin(raw.admin.unwrap_or_default(), Some(&state_dir))?;
    Ok(ProxySettings {
        join_token_file: raw.join.and_then(|join| join.token_file),
        config_addresses,
        state_dir,
        takeover_socket: raw.takeover_socket,
        locality: raw.locality,
        workers: parse_workers(raw.workers, cores)?,
        inbound,
        outbound,
        revision_header,
        server_timing,
        dns_servers: parse_dns(raw.dns.unwrap_or_default())?,
        admin,
        access_log: raw.access_log.unwrap_or_default(),
        traces: traces::parse(raw.traces.unwrap_or_default())?,
        transport: parse_transport(raw.transport.unwrap_or_default())?,
        timeouts,
        drain: parse_drain(raw.drain.unwrap_or_default())?,
        concurrency: parse_concurrency(raw.concurrency.unwrap_or_default())?,
    })
}

fn parse_dns(raw: RawDns) -> Result<Vec<SocketAddr>, Problem> {
    let servers = raw.servers.unwrap_or_default();
    if servers.len() > limits::DNS_SERVERS_MAX {
        return Err(Problem::new(
            "dns.servers",
            format!("has more than {} entries", limits::DNS_SERVERS_MAX),
        ));
    }
    for server in &servers {
        check_port("dns.servers".to_owned(), server.port())?;
    }
    Ok(servers)
}

fn parse_workers(workers: Option<usize>, cores: NonZeroUsize) -> Result<NonZeroUsize, Problem> {
    let workers = workers.unwrap_or(cores.get().min(limits::WORKERS_DEFAULT_MAX));
    NonZeroUsize::new(workers)
        .filter(|workers| limits::WORKERS.contains(&workers.get()))
        .ok_or_else(|| {
            Problem::new(
                "workers",
                format!(
                    "{workers} is out of range: write {} to {}",
                    limits::WORKERS.start(),
                    limits::WORKERS.end()
                ),
            )
        })
}

fn parse_inbound(raw: RawInbound, connect: Duration) -> Result<Inbound, Problem> {
    let raw_services = raw.services.unwrap_or_default();
    if raw_services.len() > limits::SERVICES_MAX {
        return Err(Problem::new(
            "inbound.services",
            format!("has more than {} entries", limits::SERVICES_MAX),
        ));
    }
    if let Some(listen) = &raw.listen {
        check_port("inbound.listen".to_owned(), listen.0.port())?;
    }
    let mut seen = BTreeSet::new();
    let mut services = Vec::with_capacity(raw_services.len());
    for (index, raw) in raw_services.into_iter().enumerate() {
        let field = |key: &str| format!("inbound.services[{index}].{key}");
        check_port(field("port"), raw.port)?;
        let application = raw.application.address();
        if let Some(LocalAddress::Tcp(address)) = &application {
            check_port(field("application"), address.port())?;
        }
        if !seen.insert((raw.service.clone(), raw.port)) {
            return Err(Problem::new(
                field("service"),
                format!("{}:{} stands here twice: keep one", raw.service, raw.port),
            ));
        }
        let without = |key: &str, is_written| match is_written {
            true => Err(Problem::new(
                field(key),
                "application: none leaves nothing for it: remove one of the two".to_owned(),
            )),
            false => Ok(()),
        };
        let health = match (&application, raw.health) {
            (Some(application), Some(written)) => {
                Some(health::parse(written, application, &field("health"))?)
            }
            (Some(application), None) => Some(HealthCheck::connects(application.clone(), connect)),
            (None, written) => {
                without("health", written.is_some())?;
                without("plaintext_listen", raw.plaintext_listen.is_some())?;
                None
            }
        };
        services.push(InboundService {
            health,
            details: Details {
                weight: raw.weight.unwrap_or_default(),
                metadata: raw.metadata.unwrap_or_default(),
            },
            service: raw.service,
            port: raw.port,
            application,
            plaintext: raw.plaintext_listen.map(|listen| listen.0),
            send_via: raw.send_via.unwrap_or(true),
        });
    }
    Ok(Inbound {
        listen: raw
            .listen
            .map_or_else(|| hosts::everywhere(limits::MESH_PORT), |listen| listen.0),
        advertise: raw.advertise,
        services,
    })
}

/// Refuses an address at which two listeners would be.
fn check_plaintext(
    inbound: Option<&Inbound>,
    outbound: &[OutboundListener],
) -> Result<(), Problem> {
    let services = inbound.map_or(&[][..], |inbound| &inbound.services);
    let mut seen: BTreeSet<SocketAddr> = outbound
        .iter()
        .filter_map(|listener| match listener.listen {
            LocalAddress::Tcp(address) => Some(address),
            LocalAddress::Unix(_) => None,
        })
        .collect();
    for (index, service) in services.iter().enumerate() {
        if let Some(address) = service.plaintext
            && address.port() != 0
            && !seen.insert(address)
        {
            return Err(Problem::new(
                format!("inbound.services[{index}].plaintext_listen"),
                format!("{address} is used by another listener: give each its own"),
            ));
        }
    }
    Ok(())
}

fn parse_outbound(raw: RawOutbound) -> Result<Vec<OutboundListener>, Problem> {
    let raw_listeners = raw.listeners.unwrap_or_default();
    if raw_listeners.len() > limits::LISTENERS_MAX {
        return Err(Problem::new(
            "outbound.listeners",
            format!("has more than {} entries", limits::LISTENERS_MAX),
        ));
    }
    let mut seen = BTreeSet::new();
    let mut listeners = Vec::with_capacity(raw_listeners.len());
    for (index, raw) in raw_listeners.into_iter().enumerate() {
        let field = |key: &str| format!("outbound.listeners[{index}].{key}");
        let target = parse_target(&raw, field)?;
        let any_port = matches!(&raw.listen, LocalAddress::Tcp(address) if address.port() == 0);
        if !any_port && !seen.insert(raw.listen.clone()) {
            return Err(Problem::new(
                field("listen"),
                format!("{} is used by two listeners: give each its own", raw.listen),
            ));
        }
        listeners.push(OutboundListener {
            listen: raw.listen,
            target,
        });
    }
    Ok(listeners)
}

fn parse_target(
    raw: &RawListener,
    field: impl Fn(&str) -> String,
) -> Result<OutboundTarget, Problem> {
    match (raw.service.clone(), raw.port, raw.route_by) {
        (Some(service), Some(port), None) => {
            check_port(field("port"), port)?;
            Ok(OutboundTarget::Service { service, port })
        }
        (Some(_), None, None) => Err(Problem::new(
            field("port"),
            "is missing: write the service's port, as port: 80",
        )),
        (None, None, Some(RouteBy::Host)) => Ok(OutboundTarget::ByHost),
        (_, _, Some(RouteBy::OriginalDestination)) => Err(Problem::new(
            field("route_by"),
            "original_destination is not supported yet: write route_by: host, or service and port",
        )),
        (None, _, None) => Err(Problem::new(
            field("service"),
            "is missing: write service and port, or route_by: host",
        )),
        (_, _, Some(RouteBy::Host)) => Err(Problem::new(
            field("route_by"),
            "excludes service and port: keep one of the two",
        )),
    }
}

fn parse_transport(raw: TransportSettings) -> Result<Tuning, Problem> {
    raw.validate().map_err(|error| {
        Problem::new(
            format!("transport.{}", error.field),
            format!("{} is out of range: write {}", error.value, error.range),
        )
    })
}

fn parse_timeouts(raw: RawTimeouts) -> Result<Timeouts, Problem> {
    let timeout = |key: &str, value, default| {
        duration(&format!("timeouts.{key}"), value, default, &limits::TIMEOUT)
    };
    Ok(Timeouts {
        application_connect: timeout(
            "application_connect",
            raw.application_connect,
            limits::APPLICATION_CONNECT,
        )?,
        application_idle: timeout(
            "application_idle",
            raw.application_idle,
            limits::APPLICATION_IDLE,
        )?,
        request_headers: timeout(
            "request_headers",
            raw.request_headers,
            limits::REQUEST_HEADERS,
        )?,
        stream_idle: timeout("stream_idle", raw.stream_idle, limits::STREAM_IDLE)?,
        tunnel_idle: timeout("tunnel_idle", raw.tunnel_idle, limits::TUNNEL_IDLE)?,
    })
}

fn parse_drain(raw: RawDrain) -> Result<Drain, Problem> {
    let drain = Drain {
        accept: duration(
            "drain.accept",
            raw.accept,
            limits::DRAIN_ACCEPT,
            &limits::DRAIN,
        )?,
        deadline: duration(
            "drain.deadline",
            raw.deadline,
            limits::DRAIN_DEADLINE,
            &limits::DRAIN,
        )?,
    };
    if drain.accept > drain.deadline {
        return Err(Problem::new(
            "drain.accept",
            "is longer than drain.deadline, which counts from the same moment: write less",
        ));
    }
    Ok(drain)
}

fn parse_concurrency(raw: RawConcurrency) -> Result<Concurrency, Problem> {
    let in_flight_max = raw.in_flight_max.unwrap_or(limits::IN_FLIGHT);
    let range = &limits::IN_FLIGHT_RANGE;
    if !range.contains(&in_flight_max) {
        return Err(Problem::new(
            "concurrency.in_flight_max",
            format!(
                "{in_flight_max} is out of range: write {} to {}",
                range.start(),
                range.end()
            ),
        ));
    }
    Ok(Concurrency { in_flight_max })
}

/// A duration within its range, or the default.
pub(super) fn duration(
    field: &str,
    value: Option<DurationText>,
    default: Duration,
    range: &RangeInclusive<Duration>,
) -> Result<Duration, Problem> {
    let value = value.map_or(default, |text| text.0);
    if range.contains(&value) {
        return Ok(value);
    }
    let text = DurationText;
    Err(Problem::new(
        field,
        format!(
            "{} is out of range: write {} to {}",
            text(value),
            text(*range.start()),
            text(*range.end())
        ),
    ))
}

fn check_port(field: String, port: u16) -> Result<(), Problem> {
    if port == 0 {
        return Err(Problem::new(field, "is port 0: write 1 to 65535"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
