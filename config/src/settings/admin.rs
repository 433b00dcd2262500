//! The admin endpoints of a process: their addresses, the names by which they are called, and where changes
//! are taken. `weft_proxy` decides what they answer, and to which callers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use weft_transport::hosts;

use super::error::{Problem, SettingsError};
use super::layers::{Sources, merge};
use super::limits;
use super::raw::{AdminChanges, RawAdmin, RawProxy, RawProxyAdmin};
use super::values::{AdminSocket, is_host_name};

/// Name of the default socket in the state directory.
const SOCKET: &str = "admin.sock";

/// The admin endpoint of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyAdmin {
    /// TCP, on loopback: reads, and changes only if `changes` says so.
    pub listen: SocketAddr,
    /// Unix socket: reads and changes; none if it is switched off.
    pub socket: Option<PathBuf>,
    /// Where changes are taken.
    pub changes: AdminChanges,
    /// The address for other hosts, if there is one.
    pub observe: Option<Observe>,
}

/// An address at which other hosts may check whether a process is alive and ready, and read its metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observe {
    /// TCP address.
    pub listen: SocketAddr,
    /// Names by which it may be called, in lower case; by an IP address it always may.
    pub hosts: Vec<String>,
}

/// The addresses at which a sidecar answers, as far as its settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyPlace {
    /// The Unix socket.
    pub socket: Option<PathBuf>,
    /// The TCP address; none unless it, or another setting of this sidecar, is written in a layer.
    pub listen: Option<SocketAddr>,
    /// Where it takes changes.
    pub changes: AdminChanges,
}

/// Finds the admin endpoint of the sidecar of these settings, which need not be complete: a state directory
/// is enough.
///
/// # Errors
/// When a layer cannot be read, or its values for the endpoint are invalid.
pub fn locate_proxy(sources: Sources<RawProxy>) -> Result<ProxyPlace, SettingsError> {
    let has_file = sources.file.is_some();
    let merged = merge(sources)?;
    let raw = merged.raw.admin.unwrap_or_default();
    let is_listen_known = has_file || raw.listen.is_some();
    match parse_proxy(raw, merged.raw.state_dir.as_deref()) {
        Ok(admin) => Ok(ProxyPlace {
            socket: admin.socket,
            listen: is_listen_known.then_some(admin.listen),
            changes: admin.changes,
        }),
        Err(problem) => Err(merged.origin.blame(problem)),
    }
}

pub(super) fn parse_proxy(
    raw: RawProxyAdmin,
    state_dir: Option<&Path>,
) -> Result<ProxyAdmin, Problem> {
    let listen = raw
        .listen
        .map_or_else(|| hosts::loopback(limits::ADMIN_PORT), |listen| listen.0);
    if !listen.ip().to_canonical().is_loopback() {
        return Err(Problem::new(
            "admin.listen",
            format!(
                "{listen} is not on loopback, and this endpoint shows more than other hosts should see: write 127.0.0.1:{port} here, and for probes and scrapers of other hosts admin.observe: \"{listen}\", which has /live, /ready and /metrics",
                port = listen.port()
            ),
        ));
    }
    let observe = raw.observe.map(|listen| listen.0);
    if observe == Some(listen) && listen.port() != 0 {
        return Err(Problem::new(
            "admin.observe",
            format!("{listen} is admin.listen, too: give each its own"),
        ));
    }
    let hosts = parse_hosts(raw.hosts)?;
    if observe.is_none() && !hosts.is_empty() {
        return Err(Problem::new(
            "admin.hosts",
            "is for admin.observe, which is not set: write that, too, or remove this",
        ));
    }
    let socket = match raw.socket {
        Some(AdminSocket::Off) => None,
        Some(AdminSocket::Path(path)) => Some(path),
        None => state_dir.map(|state_dir| state_dir.join(SOCKET)),
    };
    Ok(ProxyAdmin {
        listen,
        socket,
        changes: raw.changes.unwrap_or_default(),
        observe: observe.map(|listen| Observe { listen, hosts }),
    })
}

pub(super) fn parse_control(raw: Option<RawAdmin>) -> Result<Option<Observe>, Problem> {
    let RawAdmin { listen, hosts } = raw.unwrap_or_default();
    let hosts = parse_hosts(hosts)?;
    match listen {
        Some(listen) => Ok(Some(Observe {
            listen: listen.0,
            hosts,
        })),
        None if hosts.is_empty() => Ok(None),
        None => Err(Problem::new(
            "admin.hosts",
            "is for admin.listen, which is not set: write that, too, or remove this",
        )),
    }
}

fn parse_hosts(hosts: Option<Vec<String>>) -> Result<Vec<String>, Problem> {
    let hosts = hosts.unwrap_or_default();
    if hosts.len() > limits::ADMIN_HOSTS_MAX {
        return Err(Problem::new(
            "admin.hosts",
            format!("has more than {} entries", limits::ADMIN_HOSTS_MAX),
        ));
    }
    let mut names = BTreeSet::new();
    for (index, host) in hosts.iter().enumerate() {
        if !is_host_name(host) {
            return Err(Problem::new(
                format!("admin.hosts[{index}]"),
                format!(
                    "`{host}` is not a host name: write one without a port, as orders.internal; IP addresses are allowed as they are"
                ),
            ));
        }
        names.insert(host.to_ascii_lowercase());
    }
    Ok(names.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sidecar(text: &str) -> Result<ProxyAdmin, String> {
        let raw: RawProxyAdmin = serde_saphyr::from_str(text).unwrap();
        parse_proxy(raw, Some(Path::new("/state")))
            .map_err(|problem| format!("{}: {}", problem.field, problem.message))
    }

    #[test]
    fn changes_are_taken_on_a_socket_in_the_state_directory_by_default() {
        let admin = sidecar("{}").unwrap();
        assert_eq!(admin.listen.to_string(), "127.0.0.1:6191");
        assert_eq!(admin.socket, Some("/state/admin.sock".into()));
        assert_eq!(admin.changes, AdminChanges::Socket);
        assert_eq!(admin.observe, None);
        assert_eq!(sidecar("{socket: off}").unwrap().socket, None);
        let admin = sidecar("{socket: /run/weft/s, changes: loopback}").unwrap();
        assert_eq!(admin.socket, Some("/run/weft/s".into()));
        assert_eq!(admin.changes, AdminChanges::Loopback);
    }

    #[test]
    fn an_admin_address_that_other_hosts_reach_is_refused_with_what_to_write() {
        for listen in [
            "127.0.0.1:1",
            "127.8.9.1:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(
                sidecar(&format!("{{listen: \"{listen}\"}}")).is_ok(),
                "{listen}"
            );
        }
        for listen in ["0.0.0.0:6191", "10.9.0.3:6191", "[::]:6191"] {
            let refusal = sidecar(&format!("{{listen: \"{listen}\"}}")).unwrap_err();
            let expected = format!("admin.observe: \"{listen}\"");
            assert!(refusal.contains(&expected), "{refusal}");
            assert!(refusal.contains("127.0.0.1:6191"), "{refusal}");
        }
    }

    #[test]
    fn what_other_hosts_ask_has_an_address_and_names_of_its_own() {
        let observe = "observe: \"0.0.0.0:6192\"";
        let admin = sidecar(&format!("{{{observe}, hosts: [Orders.internal, a]}}")).unwrap();
        let observe_at = admin.observe.unwrap();
        assert_eq!(observe_at.listen.to_string(), "0.0.0.0:6192");
        assert_eq!(observe_at.hosts, ["a", "orders.internal"]);
        let cases = [
            ("{hosts: [a]}".to_owned(), "admin.hosts: "),
            (
                format!("{{{observe}, hosts: [\"a:1\"]}}"),
                "admin.hosts[0]: `a:1` is not",
            ),
            (
                "{observe: \"127.0.0.1:6191\"}".to_owned(),
                "admin.observe: 127.0.0.1:6191 is admin.listen, too",
            ),
        ];
        for (text, expected) in cases {
            let refusal = sidecar(&text).unwrap_err();
            assert!(refusal.starts_with(expected), "{refusal}");
        }
    }

    #[test]
    fn a_state_directory_is_enough_to_find_a_sidecar() {
        let locate = |flags: RawProxy| {
            let sources = Sources {
                flags,
                ..Sources::default()
            };
            locate_proxy(sources).unwrap()
        };
        assert_eq!(locate(RawProxy::default()), ProxyPlace::default());
        let place = locate(RawProxy {
            state_dir: Some("s".into()),
            ..RawProxy::default()
        });
        assert_eq!(place.socket, Some("s/admin.sock".into()));
        assert_eq!(place.listen, None);
    }

    #[test]
    fn a_file_says_where_its_sidecar_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxy.yaml");
        std::fs::write(&file, "state_dir: state\nadmin: { changes: loopback }\n").unwrap();
        let sources = Sources {
            file: Some(file),
            ..Sources::<RawProxy>::default()
        };
        let place = locate_proxy(sources).unwrap();
        assert_eq!(place.socket, Some(folder.path().join("state/admin.sock")));
        assert_eq!(place.listen, Some(([127, 0, 0, 1], 6191).into()));
        assert_eq!(place.changes, AdminChanges::Loopback);
    }
}
