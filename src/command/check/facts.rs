//! Gathers the facts that `judge.rs` judges: asks the kernel, the control plane, peers and applications. It
//! changes nothing, and renews no identity.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use weft_ca::agent::saved_ca_addresses;
use weft_config::client::saved_table;
use weft_config::settings::{HostPort, LocalAddress, ProxySettings};
use weft_config::table::Table;
use weft_transport::credentials::{Credentials, Svid, TrustBundle};
use weft_transport::identity::SpiffeId;
use weft_transport::tcp::TlsConnector;

use super::holders::{self, SocketKind};
use super::judge::{
    ADMIN, Application, Buffers, Clock, Facts, Port, PortState, SvidFact, UdpProbe,
};
use super::running::{self, Running};
use crate::admin_client::Target;
use crate::command::proxy::config_addresses;
use crate::failure::chain;
use crate::identity;

/// How long one answer is waited for: far above any round trip, below a person's patience.
const PATIENCE: Duration = Duration::from_secs(2);
/// Peers that are probed: enough to see a firewall, few enough to be quick.
const PEERS_MAX: usize = 8;

/// The facts that need no settings.
pub fn of_host(wanted_buffer: u64) -> Facts {
    Facts {
        buffers: buffers(wanted_buffer),
        files: getrlimit(Resource::RLIMIT_NOFILE).ok(),
        ..Facts::default()
    }
}

/// The facts about a sidecar with these settings.
pub async fn of_sidecar(settings: &ProxySettings) -> Facts {
    let identity = load_identity(&settings.state_dir);
    let clocks = match &identity {
        Ok(credentials) => clocks(settings, credentials).await,
        Err(_) => Vec::new(),
    };
    Facts {
        clocks,
        udp: probe_peers(&settings.state_dir).await,
        ports: ports(settings),
        svid: Some(identity.map(|credentials| {
            let svid = credentials.svid();
            SvidFact {
                id: svid.id().to_string(),
                not_before: svid.not_before(),
                not_after: svid.not_after(),
            }
        })),
        joins_as: joins_as(settings),
        applications: applications(settings).await,
        ..of_host(settings.transport.settings().udp_buffer)
    }
}

/// The identity in the token of a sidecar that has never joined.
fn joins_as(settings: &ProxySettings) -> Option<String> {
    let token = settings.join_token_file.as_deref()?;
    if identity::has_joined(&settings.state_dir) {
        return None;
    }
    let token = identity::read_token(token, &settings.state_dir).ok()??;
    Some(token.identity.to_string())
}

fn load_identity(state_dir: &Path) -> Result<Credentials, String> {
    let read = |name: &str| {
        let path = state_dir.join(name);
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (chain_pem, key, bundle) = (
        read("identity.crt")?,
        read("identity.key")?,
        read("bundle.crt")?,
    );
    let svid = Svid::from_pem(&chain_pem, &key).map_err(|error| chain(&error))?;
    let bundle = TrustBundle::from_pem(svid.id().trust_domain().clone(), &bundle)
        .map_err(|error| chain(&error))?;
    Credentials::new(svid, bundle).map_err(|error| chain(&error))
}

async fn clocks(settings: &ProxySettings, credentials: &Credentials) -> Vec<Clock> {
    let trust_domain = credentials.svid().id().trust_domain().clone();
    let Ok(service) = SpiffeId::for_workload(&trust_domain, "weft", "config") else {
        return Vec::new();
    };
    let mut clocks = Vec::new();
    for address in &config_addresses(settings, || saved_ca_addresses(&settings.state_dir)) {
        let read = read_clock(address, credentials, service.clone());
        let theirs = match tokio::time::timeout(PATIENCE, read).await {
            Ok(theirs) => theirs,
            Err(_) => Err(format!("no answer within {}s", PATIENCE.as_secs())),
        };
        clocks.push(Clock {
            of: format!("the config service at {address}"),
            theirs,
            ours: SystemTime::now(),
        });
    }
    clocks
}

/// The `Date` of any answer: every HTTP server with a clock sends one (RFC 9110 section 6.6.1).
async fn read_clock(
    address: &HostPort,
    credentials: &Credentials,
    service: SpiffeId,
) -> Result<SystemTime, String> {
    let tcp = TcpStream::connect((address.host.as_str(), address.port))
        .await
        .map_err(|error| error.to_string())?;
    let connector = TlsConnector::mutual(credentials, service).map_err(|error| chain(&error))?;
    let tls = connector
        .connect(tcp)
        .await
        .map_err(|error| chain(&error))?;
    let io = hyper_util::rt::TokioIo::new(tls);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .map_err(|error| chain(&error))?;
    let request = http::Request::get(format!("https://{address}/"))
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = tokio::select! {
        response = sender.send_request(request) => response.map_err(|error| chain(&error))?,
        _ = connection => return Err("the connection was closed".to_owned()),
    };
    response
        .headers()
        .get(http::header::DATE)
        .and_then(|date| date.to_str().ok())
        .and_then(parse_http_date)
        .ok_or_else(|| "the answer carries no date".to_owned())
}

/// The preferred format of RFC 9110 section 5.6.7, the only one that may be generated.
fn parse_http_date(text: &str) -> Option<SystemTime> {
    let civil = jiff::fmt::strtime::parse("%a, %d %b %Y %H:%M:%S GMT", text)
        .and_then(|parsed| parsed.to_datetime())
        .ok()?;
    let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().into())
}

/// Every QUIC server answers a packet of a version that it does not know (RFC 9000 section 6.1), so this
/// needs no key to learn whether UDP passes in both directions.
async fn probe_peers(state_dir: &Path) -> Vec<UdpProbe> {
    let peers = saved_table(state_dir)
        .as_ref()
        .map(peers_of)
        .unwrap_or_default();
    let mut probes = tokio::task::JoinSet::new();
    for peer in peers {
        probes.spawn_blocking(move || UdpProbe {
            peer,
            answered: probe(peer).map_err(|error| error.to_string()),
        });
    }
    let mut answers = probes.join_all().await;
    answers.sort_by_key(|probe| probe.peer);
    answers
}

/// The addresses of the endpoints in a table.
fn peers_of(table: &Table) -> BTreeSet<SocketAddr> {
    let ports = table
        .services
        .values()
        .flat_map(|service| service.ports.values());
    let endpoints = ports.flat_map(|port| &port.endpoints);
    endpoints
        .map(|endpoint| endpoint.address)
        .take(PEERS_MAX)
        .collect()
}

fn probe(peer: SocketAddr) -> std::io::Result<bool> {
    let any: SocketAddr = if peer.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    socket.set_read_timeout(Some(PATIENCE / 4))?;
    let mut answer = [0; 64];
    for _ in 0..4 {
        socket.send(&unknown_version())?;
        match socket.recv(&mut answer) {
            // A long header with version 0 is Version Negotiation (RFC 8999 section 6).
            Ok(length) if length > 5 && answer[0] & 0x80 != 0 && answer[1..5] == [0; 4] => {
                return Ok(true);
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Ok(false);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// A long-header packet of a reserved version (RFC 9000 section 15), padded to the size below
/// which a server must not answer (section 14.1).
fn unknown_version() -> [u8; 1200] {
    let mut packet = [0; 1200];
    packet[0] = 0xc0;
    packet[1..5].copy_from_slice(&[0x1a; 4]);
    packet[5] = 8;
    packet[6..14].copy_from_slice(&rand::random::<[u8; 8]>());
    packet[14] = 8;
    packet[15..23].copy_from_slice(&rand::random::<[u8; 8]>());
    packet
}

fn buffers(wanted: u64) -> Option<Buffers> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).ok()?;
    let size = usize::try_from(wanted).ok()?;
    socket.set_recv_buffer_size(size).ok()?;
    socket.set_send_buffer_size(size).ok()?;
    // Linux doubles the requested size, for its own bookkeeping (socket(7)).
    let granted = |size: std::io::Result<usize>| size.ok().map(|size| size as u64 / 2);
    Some(Buffers {
        wanted,
        receive: granted(socket.recv_buffer_size())?,
        send: granted(socket.send_buffer_size())?,
    })
}

fn ports(settings: &ProxySettings) -> Vec<Port> {
    let mut ports = vec![tcp_port(ADMIN, settings.admin.listen)];
    if let Some(observe) = &settings.admin.observe {
        ports.push(tcp_port(ADMIN, observe.listen));
    }
    if let Some(inbound) = &settings.inbound {
        let bound = UdpSocket::bind(inbound.listen).map(drop);
        let holder = || holders::at(SocketKind::Udp, inbound.listen);
        ports.push(port("inbound", inbound.listen.to_string(), bound, holder));
        let plaintext = inbound.services.iter().filter_map(|one| one.plaintext);
        ports.extend(plaintext.map(|listen| tcp_port("plaintext", listen)));
    }
    for listener in &settings.outbound {
        ports.push(match &listener.listen {
            LocalAddress::Tcp(address) => tcp_port("outbound", *address),
            LocalAddress::Unix(path) => {
                // Binding would leave a file; a socket that accepts is in use.
                let used = std::os::unix::net::UnixStream::connect(path).is_ok();
                let state = if used {
                    PortState::InUse(holders::at_path(path))
                } else {
                    PortState::Free
                };
                Port {
                    setting: "outbound",
                    address: listener.listen.to_string(),
                    state,
                    ours: false,
                }
            }
        });
    }
    ports
}

fn tcp_port(setting: &'static str, address: SocketAddr) -> Port {
    port(
        setting,
        address.to_string(),
        std::net::TcpListener::bind(address).map(drop),
        || holders::at(SocketKind::Tcp, address),
    )
}

fn port(
    setting: &'static str,
    address: String,
    bound: std::io::Result<()>,
    holder: impl FnOnce() -> Option<String>,
) -> Port {
    let state = match bound {
        Ok(()) => PortState::Free,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => PortState::InUse(holder()),
        Err(error) => PortState::Refused(error.to_string()),
    };
    Port {
        setting,
        address,
        state,
        ours: false,
    }
}

async fn applications(settings: &ProxySettings) -> Vec<Application> {
    let mut found = Vec::new();
    for service in settings
        .inbound
        .iter()
        .flat_map(|inbound| &inbound.services)
    {
        let Some(health) = &service.health else {
            continue;
        };
        found.push(Application {
            service: format!("{}:{}", service.service, service.port),
            asked: weft_proxy::health_question(health),
            answered: weft_proxy::ask_health(health).await,
        });
    }
    found
}

/// The answers of the sidecar with these settings, if one answers at their admin endpoint.
pub async fn running(settings: &ProxySettings) -> Option<Running> {
    let at = [Target::Tcp(settings.admin.listen)];
    running::ask(&at).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http_are_read() {
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(
            parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(expected)
        );
        assert_eq!(parse_http_date("yesterday"), None);
    }

    #[test]
    fn the_peers_are_all_endpoints_of_a_table() {
        let table = r#"{"schema":1,"revision":{"store":"s","number":1},"trust_domain":"demo.test",
            "services":{"orders.shop":{"ports":{"80":{"protocol":"http","endpoints":[{"workload":"w",
            "address":"10.9.0.3:6143","identity":"spiffe://demo.test/ns/shop/sa/orders"}]}}}}}"#;
        let peers = peers_of(&serde_json::from_str(table).unwrap());
        assert_eq!(peers, BTreeSet::from(["10.9.0.3:6143".parse().unwrap()]));
    }
}
