//! The flags that stand for a sidecar's settings file, as its topmost layer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use weft_config::settings::raw::{
    RawControlPlane, RawInbound, RawJoin, RawListener, RawOutbound, RawProxy, RawProxyAdmin,
    RawService, RouteBy,
};
use weft_config::settings::{HostPort, ListenAddress, LocalAddress, ServiceReference, Sources};

use crate::settings_file;

/// Settings of a sidecar. A list given by flags replaces the file's list.
#[derive(Clone, Debug, Default, Args)]
pub struct ProxyFlags {
    /// Settings file [default: /etc/weft/proxy.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// File with a join token; needed until the state directory holds an identity
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// Directory of the key, the certificate and the last good table
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Unix socket: take over from the sidecar that waits there, then wait there for the next one
    #[arg(long, value_name = "SOCKET")]
    takeover: Option<PathBuf>,
    /// Address of the config service [default: port 6201 where the CA is]
    #[arg(long, value_name = "HOST:PORT")]
    server: Vec<HostPort>,
    #[arg(
        long,
        value_name = "IP:PORT",
        help = "UDP address of the mesh side [default: [::]:6143]"
    )]
    listen: Option<ListenAddress>,
    /// Address at which other sidecars reach --listen
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<HostPort>,
    /// Serve a service: where the application behind it listens
    #[arg(long, value_name = "SERVICE:PORT=APPLICATION")]
    inbound: Vec<InboundFlag>,
    /// Listen for the application, and lead to a service
    #[arg(long, value_name = "LISTEN=SERVICE:PORT")]
    outbound: Vec<OutboundFlag>,
    /// Listen for the application, and find the service by the HTTP host
    #[arg(long, value_name = "LISTEN")]
    outbound_by_host: Vec<LocalAddress>,
    /// Loopback address of the admin endpoint [default: 127.0.0.1:6191]
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<ListenAddress>,
    /// Address for probes and scrapers of other hosts, with /live, /ready and /metrics [default: none]
    #[arg(long, value_name = "IP:PORT")]
    observe: Option<ListenAddress>,
    /// Threads of the data path [default: 2, or fewer cores]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
}

impl ProxyFlags {
    /// The admin endpoint, if the command line names that and nothing else.
    pub fn admin_alone(&self) -> Option<SocketAddr> {
        let admin = self.admin?;
        let rest = Self {
            admin: None,
            ..self.clone()
        };
        let rest = Sources {
            file: rest.config.clone(),
            flags: rest.into_layer(),
            ..Sources::default()
        };
        (!rest.has_settings()).then_some(admin.0)
    }

    /// All layers of the settings.
    pub fn into_sources(self) -> Sources<RawProxy> {
        let file = self.config.clone();
        settings_file::sources("proxy", file, self.into_layer())
    }

    fn into_layer(self) -> RawProxy {
        let services: Vec<RawService> = self.inbound.into_iter().map(|flag| flag.0).collect();
        let by_host = self.outbound_by_host.into_iter().map(|listen| RawListener {
            listen,
            service: None,
            port: None,
            route_by: Some(RouteBy::Host),
        });
        let listeners: Vec<RawListener> = self
            .outbound
            .into_iter()
            .map(|flag| flag.0)
            .chain(by_host)
            .collect();
        let has_inbound = !services.is_empty() || self.listen.is_some() || self.advertise.is_some();
        RawProxy {
            join: self.join_token_file.map(|file| RawJoin {
                token_file: Some(file),
            }),
            config: some_if(!self.server.is_empty(), || RawControlPlane {
                addresses: Some(self.server),
            }),
            state_dir: self.state_dir,
            takeover_socket: self.takeover,
            workers: self.workers,
            inbound: some_if(has_inbound, || RawInbound {
                listen: self.listen,
                advertise: self.advertise,
                services: some_if(!services.is_empty(), || services),
            }),
            outbound: some_if(!listeners.is_empty(), || RawOutbound {
                listeners: Some(listeners),
                revision_header: None,
                server_timing: None,
            }),
            admin: some_if(self.admin.is_some() || self.observe.is_some(), || {
                RawProxyAdmin {
                    listen: self.admin,
                    observe: self.observe,
                    ..RawProxyAdmin::default()
                }
            }),
            ..RawProxy::default()
        }
    }
}

fn some_if<T>(condition: bool, value: impl FnOnce() -> T) -> Option<T> {
    condition.then(value)
}

/// `orders:80=127.0.0.1:8080`.
#[derive(Clone, Debug)]
struct InboundFlag(RawService);

impl FromStr for InboundFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, application) = text
            .split_once('=')
            .ok_or("write SERVICE:PORT=APPLICATION, as orders:80=127.0.0.1:8080")?;
        let (service, port) = service_and_port(service)?;
        let application = application
            .parse()
            .map_err(|error: weft_config::settings::ValueError| error.to_string())?;
        Ok(Self(RawService {
            service,
            port,
            application,
            plaintext_listen: None,
            send_via: None,
            health: None,
            weight: None,
            metadata: None,
        }))
    }
}

/// `127.0.0.1:5001=payments:80`.
#[derive(Clone, Debug)]
struct OutboundFlag(RawListener);

impl FromStr for OutboundFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (listen, service) = text
            .split_once('=')
            .ok_or("write LISTEN=SERVICE:PORT, as 127.0.0.1:5001=payments:80")?;
        let listen = listen
            .parse()
            .map_err(|error: weft_config::settings::ValueError| error.to_string())?;
        let (service, port) = service_and_port(service)?;
        Ok(Self(RawListener {
            listen,
            service: Some(service),
            port: Some(port),
            route_by: None,
        }))
    }
}

fn service_and_port(text: &str) -> Result<(ServiceReference, u16), String> {
    let (service, port) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("`{text}` has no port: write SERVICE:PORT, as payments:80"))?;
    let service = service
        .parse()
        .map_err(|error: weft_config::settings::ValueError| error.to_string())?;
    match port.parse() {
        Ok(port) if port != 0 => Ok((service, port)),
        Ok(_) | Err(_) => Err(format!("`{port}` is not a port: write 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use weft_config::settings::load_proxy;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ProxyFlags,
    }

    #[test]
    fn flags_alone_make_complete_settings() {
        let line = Line::try_parse_from([
            "run",
            "--state-dir=s",
            "--inbound=orders:80=127.0.0.1:8080",
            "--outbound=127.0.0.1:5001=payments.bank:80",
            "--outbound-by-host=unix:/run/out.sock",
            "--admin=127.0.0.1:7000",
        ])
        .unwrap();
        let sources = Sources {
            flags: line.flags.into_layer(),
            ..Sources::default()
        };
        let settings = load_proxy(sources).unwrap().settings;
        assert_eq!(settings.inbound.unwrap().services[0].port, 80);
        assert_eq!(settings.outbound.len(), 2);
        assert_eq!(settings.admin.listen.port(), 7000);
    }

    #[test]
    fn a_bad_flag_says_what_to_write() {
        let line = |flag: &str| {
            Line::try_parse_from(["run", flag])
                .err()
                .unwrap()
                .to_string()
        };
        assert!(line("--inbound=orders=127.0.0.1:1").contains("write SERVICE:PORT"));
        assert!(line("--inbound=orders:80=host:1").contains("write IP:PORT"));
        assert!(line("--outbound=127.0.0.1:1=a:0").contains("write 1 to 65535"));
    }
}
