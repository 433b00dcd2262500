//! The values of a settings file: durations, addresses and service names, as types that parse only valid
//! values. The keys of a file are in `raw.rs`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use weft_transport::{hosts, units};

use crate::table::{NameError, ServiceName, check_label};

/// Why a value of a settings file was refused; the text says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

/// A duration as people write it (`weft_transport::units`), in whole milliseconds where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DurationText(pub Duration);

impl FromStr for DurationText {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let duration = units::parse_duration(text);
        duration
            .map(Self)
            .map_err(|error| ValueError(error.to_string()))
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::format_duration(self.0))
    }
}

/// A host (name or IP address) and a port, not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    /// A DNS name or an IP address, without brackets. A link-local address has its zone, as fe80::1%eth0.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl HostPort {
    /// The address, if the host is an IP address and needs no resolver.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        let address: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(address, self.port))
    }
}

impl FromStr for HostPort {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || {
            ValueError(format!(
                "`{text}` is not an address: write HOST:PORT, as 10.9.0.9:6201, [fd00::9]:6201 or config.internal:6201"
            ))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port: u16 = port.parse().map_err(|_| refuse())?;
        if port == 0 {
            return Err(ValueError(format!(
                "`{text}` has port 0: write the port that is listened on"
            )));
        }
        let host = match host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(v6) => parse_v6(text, v6)?.ok_or_else(refuse)?,
            None if is_host_name(host) => host.to_owned(),
            None => return Err(refuse()),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// An IPv6 address with its zone (RFC 4007 section 11); it has a zone if and only if it is link-local.
fn parse_v6(text: &str, v6: &str) -> Result<Option<String>, ValueError> {
    let (address, zone) = match v6.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (v6, None),
    };
    let Ok(address) = address.parse::<Ipv6Addr>() else {
        return Ok(None);
    };
    match zone {
        Some(zone) if is_interface_name(zone) && address.is_unicast_link_local() => {
            Ok(Some(format!("{address}%{zone}")))
        }
        Some(zone) => Err(ValueError(format!(
            "`{text}`: %{zone} does not belong there: only a link-local address (fe80::) has a zone, which is the name of an interface"
        ))),
        None if address.is_unicast_link_local() => Err(ValueError(format!(
            "`{text}` is link-local: write the interface behind it, as [{address}%eth0]:PORT"
        ))),
        None => Ok(Some(address.to_string())),
    }
}

/// At most 15 bytes (IFNAMSIZ has 16 with its NUL, netdevice(7)).
fn is_interface_name(zone: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@');
    (1..=15).contains(&zone.len()) && zone.bytes().all(plain)
}

/// Letters, digits, hyphens and dots, with no empty label (RFC 1123 section 2.1).
pub(super) fn is_host_name(host: &str) -> bool {
    host.len() <= 253
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// An IP address and port to listen on or to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_socket_address(text).map(Self).ok_or_else(|| {
            let port = text.strip_prefix(':').unwrap_or(text);
            ValueError(match port.parse::<u16>() {
                Ok(port) => format!("`{text}` is a port without an address: write 127.0.0.1:{port} for this host, or [::]:{port} for all"),
                Err(_) => format!("`{text}` is not a listen address: write IP:PORT, as 127.0.0.1:6191, 10.9.0.3:6143 or [::]:6143"),
            })
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `localhost` is the loopback address of this host; no resolver is asked for it. A zone is the name of an
/// interface, or its number.
fn parse_socket_address(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(hosts::loopback(port.parse().ok()?));
    }
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[')?.strip_suffix(']')?;
    let (v6, zone) = host.split_once('%')?;
    let v6: Ipv6Addr = v6.parse().ok()?;
    if !v6.is_unicast_link_local() || !is_interface_name(zone) {
        return None;
    }
    // The C library knows the interfaces; for an address it asks no resolver.
    let mut found = (host, port.parse().ok()?).to_socket_addrs().ok()?;
    found.next()
}

/// The application's side of a sidecar: a TCP address or a Unix socket (`unix:/path`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LocalAddress {
    /// TCP on this host (or in this pod).
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl LocalAddress {
    /// Puts a relative socket path under `base`.
    pub(super) fn resolve(&mut self, base: &Path) {
        if let Self::Unix(path) = self {
            *path = base.join(&*path);
        }
    }
}

impl FromStr for LocalAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            // sun_path holds 108 bytes with its NUL (unix(7)).
            if path.is_empty() || path.len() > 107 {
                return Err(ValueError(format!(
                    "`{text}`: write unix:/path/to/socket, with a path of 1 to 107 bytes"
                )));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        parse_socket_address(text)
            .map(Self::Tcp)
            .ok_or_else(|| ValueError(format!("`{text}` is not a local address: write IP:PORT, as 127.0.0.1:8080, or unix:/path/to/socket")))
    }
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where the application of a service listens: an address, or `none` where there is none, as behind a sidecar
/// that only sends outside of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ApplicationAddress {
    /// There is no application.
    None,
    /// There.
    At(LocalAddress),
}

impl ApplicationAddress {
    /// Puts a relative socket path under `base`.
    pub(super) fn resolve(&mut self, base: &Path) {
        match self {
            Self::None => {}
            Self::At(address) => address.resolve(base),
        }
    }

    /// The address, if there is an application.
    pub(super) fn address(self) -> Option<LocalAddress> {
        match self {
            Self::None => None,
            Self::At(address) => Some(address),
        }
    }
}

impl FromStr for ApplicationAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            _ => text.parse().map(Self::At),
        }
    }
}

impl fmt::Display for ApplicationAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// The Unix socket of a sidecar's admin endpoint: a path, or `off`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AdminSocket {
    /// None.
    Off,
    /// There.
    Path(PathBuf),
}

impl AdminSocket {
    /// Puts a relative path under `base`.
    pub(super) fn resolve(&mut self, base: &Path) {
        if let Self::Path(path) = self {
            *path = base.join(&*path);
        }
    }
}

impl FromStr for AdminSocket {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "" => Err(ValueError(
                "is empty: write the path of a Unix socket, or off".to_owned(),
            )),
            path => Ok(Self::Path(PathBuf::from(path))),
        }
    }
}

impl fmt::Display for AdminSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// A service as a sidecar's settings name it: `orders` (of the sidecar's own namespace) or
/// `orders.shop`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceReference {
    /// The service's name, a DNS label.
    pub name: String,
    /// Its namespace, a DNS label; none means the sidecar's own.
    pub namespace: Option<String>,
}

impl ServiceReference {
    /// The full name, for a sidecar of `own_namespace`.
    ///
    /// # Errors
    /// When `own_namespace` is needed and is not a DNS label.
    pub fn in_namespace(&self, own_namespace: &str) -> Result<ServiceName, NameError> {
        ServiceName::new(
            self.namespace.as_deref().unwrap_or(own_namespace),
            &self.name,
        )
    }
}

impl FromStr for ServiceReference {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, namespace) = match text.split_once('.') {
            Some((name, namespace)) => (name, Some(namespace)),
            None => (text, None),
        };
        if check_label(name).is_err() || namespace.is_some_and(|label| check_label(label).is_err())
        {
            return Err(ValueError(format!(
                "`{text}` is not a service: write NAME or NAME.NAMESPACE, each of a-z, 0-9 and -, as orders.shop"
            )));
        }
        Ok(Self {
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
        })
    }
}

impl fmt::Display for ServiceReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}.{namespace}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The methods that `serde(try_from, into)` needs of a type that parses and prints.
macro_rules! text_conversions {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = ValueError;
            fn try_from(text: String) -> Result<Self, ValueError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    )*};
}
text_conversions!(
    AdminSocket,
    ApplicationAddress,
    DurationText,
    HostPort,
    ListenAddress,
    LocalAddress,
    ServiceReference
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_print_as_they_are_written() {
        for text in ["250ms", "10s", "5m", "24h", "7d", "0s", "1500ms"] {
            let parsed: DurationText = text.parse().unwrap();
            assert_eq!(
                parsed.to_string().parse::<DurationText>().unwrap(),
                parsed,
                "{text}"
            );
        }
        assert_eq!(
            "1.5s".parse::<DurationText>().unwrap().0,
            Duration::from_millis(1500)
        );
        let refusal = "10".parse::<DurationText>().unwrap_err().to_string();
        assert!(refusal.contains("write 10s"), "{refusal}");
        for text in ["", "s", "10 s", "-1s", "1e9s", "10y", "1.2.3s"] {
            assert!(text.parse::<DurationText>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_keep_their_kind() {
        assert_eq!(
            "localhost:80".parse::<LocalAddress>().unwrap(),
            LocalAddress::Tcp("127.0.0.1:80".parse().unwrap())
        );
        assert_eq!(
            "unix:app.sock".parse::<LocalAddress>().unwrap(),
            LocalAddress::Unix("app.sock".into())
        );
        assert_eq!(
            "[fd00::9]:6201".parse::<HostPort>().unwrap().to_string(),
            "[fd00::9]:6201"
        );
        assert_eq!(
            "ca.internal:6200"
                .parse::<HostPort>()
                .unwrap()
                .socket_address(),
            None
        );
        for text in [
            "",
            "host",
            "host:",
            "host:0",
            "host:99999",
            ":80",
            "a..b:80",
            "fd00::9:80",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_link_local_address_has_its_zone_and_no_other_address_has_one() {
        let parse = |text: &str| text.parse::<HostPort>();
        let good = parse("[fe80::1%eth0]:6201").unwrap();
        assert_eq!(good.host, "fe80::1%eth0");
        assert_eq!(good.to_string(), "[fe80::1%eth0]:6201");
        assert_eq!(good.socket_address(), None);
        let refusal = |text: &str| parse(text).unwrap_err().to_string();
        assert!(refusal("[fe80::1]:6201").contains("[fe80::1%eth0]:PORT"));
        assert!(refusal("[fd00::9%eth0]:6201").contains("only a link-local address"));
        for text in [
            "[fe80::1%]:1",
            "[fe80::1%a b]:1",
            "[fe80::1%0123456789abcdef]:1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let listen: ListenAddress = "[fe80::1%lo]:6143".parse().unwrap();
        let SocketAddr::V6(listen) = listen.0 else {
            panic!("{listen}");
        };
        assert_eq!((listen.scope_id(), listen.port()), (1, 6143));
        assert!("[fe80::1%no-such0]:6143".parse::<ListenAddress>().is_err());
        assert!("[::1%lo]:6143".parse::<ListenAddress>().is_err());
    }

    #[test]
    fn the_error_for_a_port_alone_says_what_to_write_before_it() {
        for text in ["8080", ":8080"] {
            let refusal = text.parse::<ListenAddress>().unwrap_err().to_string();
            assert_eq!(
                refusal,
                format!(
                    "`{text}` is a port without an address: write 127.0.0.1:8080 for this host, or \
                     [::]:8080 for all"
                )
            );
        }
    }

    #[test]
    fn services_are_one_or_two_labels() {
        assert_eq!(
            "orders.shop"
                .parse::<ServiceReference>()
                .unwrap()
                .namespace
                .as_deref(),
            Some("shop")
        );
        assert_eq!(
            "orders".parse::<ServiceReference>().unwrap().namespace,
            None
        );
        for text in ["", "Orders", "a.b.c", "-a", "a-", "a.", "a b"] {
            assert!(text.parse::<ServiceReference>().is_err(), "{text}");
        }
    }
}
