//! Which requests an admin endpoint answers at all. Pure: it judges how a caller came and what the request
//! says about itself. `server.rs` asks it for each request, whatever the path.
//!
//! The endpoints have no passwords: any caller on this host is let in. But a browser on this host also runs
//! scripts of foreign web pages. These can reach loopback, directly or through a DNS name of their own that
//! points there (DNS rebinding). Three parts of a request show that it comes from such a page: the host that
//! it names, and the fields `Origin` and `Sec-Fetch-Site`, which a page cannot change.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Version, request};

/// Set by browsers (W3C Fetch Metadata Request Headers section 2.4).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Where an endpoint listens, which decides which callers it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// TCP for callers on this host.
    Loopback {
        /// Its address.
        listen: SocketAddr,
    },
    /// TCP for other hosts. They may name it by any IP address, because addresses are translated on the way.
    Elsewhere {
        /// Or by these names, in lower case.
        hosts: Vec<String>,
    },
    /// A Unix socket.
    Socket {
        /// The user that may call, besides root.
        owner: u32,
    },
}

/// The caller's identity, as the kernel states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Over TCP.
    Address(IpAddr),
    /// Over a Unix socket.
    User(u32),
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Routed here by a host that lets others reach its loopback addresses.
    #[error("only from this host, over loopback")]
    OtherHost,
    /// On a socket whose mode was changed.
    #[error("only for the user that this process runs as, and root")]
    OtherUser,
    /// It does not name exactly one host (RFC 9112 section 3.2).
    #[error("the request needs one Host")]
    NoHost,
    /// The name may be one that a stranger points here.
    #[error(
        "this endpoint is called by localhost or its IP address, with its own port; a forwarded port needs the same number"
    )]
    LoopbackHost,
    /// The same, at a socket for other hosts.
    #[error("this endpoint is called by an IP address, or by a name that admin.hosts lists")]
    OtherName,
    /// A page of another site sent it.
    #[error("not for pages of another site")]
    CrossSite,
}

impl Refusal {
    /// The status of the answer.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            // RFC 9110 section 15.5.20: not an authority of this server.
            Self::LoopbackHost | Self::OtherName => StatusCode::MISDIRECTED_REQUEST,
            Self::OtherHost | Self::OtherUser | Self::CrossSite => StatusCode::FORBIDDEN,
        }
    }
}

/// Whether a request is answered.
pub(crate) fn judge(reach: &Reach, peer: Peer, head: &request::Parts) -> Result<(), Refusal> {
    match (reach, peer) {
        (Reach::Loopback { .. }, Peer::Address(address)) if !is_loopback(address) => {
            return Err(Refusal::OtherHost);
        }
        (Reach::Socket { owner }, Peer::User(user)) if user != *owner && user != 0 => {
            return Err(Refusal::OtherUser);
        }
        (Reach::Loopback { .. } | Reach::Elsewhere { .. }, Peer::User(_))
        | (Reach::Socket { .. }, Peer::Address(_)) => return Err(Refusal::OtherUser),
        (Reach::Loopback { .. } | Reach::Elsewhere { .. }, Peer::Address(_))
        | (Reach::Socket { .. }, Peer::User(_)) => {}
    }
    let host = host(head)?;
    // In absolute form the target names a host as well, and takes precedence (RFC 9112 section 3.2.2).
    for authority in host.iter().chain(head.uri.authority()) {
        judge_host(reach, authority)?;
    }
    judge_site(&head.headers, host.as_ref())
}

/// The one `Host`. Only HTTP/1.0 may leave it out; some probes use that version, browsers do not.
fn host(head: &request::Parts) -> Result<Option<Authority>, Refusal> {
    let mut values = head.headers.get_all(HOST).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Authority::try_from(value.as_bytes())
            .ok()
            .filter(|authority| !authority.as_str().contains('@'))
            .map(Some)
            .ok_or(Refusal::NoHost),
        (None, _) if head.version == Version::HTTP_10 => Ok(None),
        (None, _) | (Some(_), Some(_)) => Err(Refusal::NoHost),
    }
}

fn judge_host(reach: &Reach, authority: &Authority) -> Result<(), Refusal> {
    let host = authority.host();
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host)
        .parse::<IpAddr>();
    let is_localhost = host.eq_ignore_ascii_case("localhost");
    match reach {
        Reach::Loopback { listen } => {
            let is_own = |address: IpAddr| is_loopback(address) || address == listen.ip();
            let port = authority.port_u16();
            // Text after the colon that is not a port number does not name this endpoint either.
            let has_own_port = match authority.as_str().strip_prefix(host) {
                Some("") => true,
                Some(_) | None => port == Some(listen.port()),
            };
            if has_own_port && (is_localhost || address.is_ok_and(is_own)) {
                Ok(())
            } else {
                Err(Refusal::LoopbackHost)
            }
        }
        Reach::Elsewhere { hosts } => {
            let name = host.to_ascii_lowercase();
            if address.is_ok() || is_localhost || hosts.contains(&name) {
                Ok(())
            } else {
                Err(Refusal::OtherName)
            }
        }
        // No browser reaches a Unix socket; its clients may write any host.
        Reach::Socket { .. } => Ok(()),
    }
}

fn judge_site(headers: &HeaderMap, host: Option<&Authority>) -> Result<(), Refusal> {
    let own = host.map(|host| format!("http://{host}"));
    let is_own = |origin: &[u8]| {
        let own = own.as_ref();
        own.is_some_and(|own| origin.eq_ignore_ascii_case(own.as_bytes()))
    };
    let mut origins = headers.get_all(ORIGIN).iter();
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    // `none`: a person wrote the address, or followed a bookmark.
    let is_same = |site: &[u8]| site == b"same-origin" || site == b"none";
    if origins.all(|origin| is_own(origin.as_bytes())) && sites.all(|site| is_same(site.as_bytes()))
    {
        Ok(())
    } else {
        Err(Refusal::CrossSite)
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    const HERE: Peer = Peer::Address(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn loopback() -> Reach {
        Reach::Loopback {
            listen: "127.0.0.1:6191".parse().unwrap(),
        }
    }

    fn elsewhere() -> Reach {
        Reach::Elsewhere {
            hosts: vec!["orders.internal".into()],
        }
    }

    fn head(target: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn of(reach: &Reach, fields: &[(&str, &str)]) -> Result<(), Refusal> {
        judge(reach, HERE, &head("/drain", fields))
    }

    #[test]
    fn on_loopback_only_the_names_and_addresses_of_loopback_are_hosts() {
        for host in [
            "127.0.0.1:6191",
            "127.0.0.1",
            "127.9.8.7:6191",
            "localhost:6191",
            "LocalHost",
            "[::1]:6191",
            "[::ffff:127.0.0.1]:6191",
        ] {
            assert_eq!(of(&loopback(), &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.test:6191",
            "evil.test",
            "localhost.evil.test:6191",
            "127.0.0.1.evil.test:6191",
            "localhost.:6191",
            "a.localhost:6191",
            "0.0.0.0:6191",
            "[::]:6191",
            "10.0.0.1:6191",
            "127.1:6191",
            "2130706433:6191",
            "127.0.0.1:80",
            "localhost:61910",
            "localhost:",
        ] {
            let refused = of(&loopback(), &[("host", host)]).unwrap_err();
            assert_eq!(refused, Refusal::LoopbackHost, "{host}");
            assert_eq!(refused.status(), 421);
        }
    }

    #[test]
    fn an_endpoint_at_another_address_is_called_by_it() {
        let listen = "10.1.2.3:6291".parse().unwrap();
        let reach = Reach::Loopback { listen };
        assert_eq!(of(&reach, &[("host", "10.1.2.3:6291")]), Ok(()));
        assert!(of(&reach, &[("host", "10.1.2.4:6291")]).is_err());
    }

    #[test]
    fn for_other_hosts_an_endpoint_has_any_address_and_the_names_it_was_given() {
        for host in [
            "10.0.0.1:6192",
            "[2001:db8::1]:1",
            "203.0.113.9",
            "Orders.Internal:9",
            "localhost:6192",
        ] {
            assert_eq!(of(&elsewhere(), &[("host", host)]), Ok(()), "{host}");
        }
        for host in ["evil.test:6192", "orders.internal.evil.test", "internal"] {
            let refused = of(&elsewhere(), &[("host", host)]).unwrap_err();
            assert_eq!(refused, Refusal::OtherName, "{host}");
        }
    }

    #[test]
    fn a_request_has_one_host_unless_it_is_of_a_time_before_hosts() {
        for reach in [loopback(), elsewhere()] {
            let two = [("host", "127.0.0.1"), ("host", "127.0.0.1")];
            for fields in [&two[..], &[], &[("host", "")], &[("host", "a@127.0.0.1")]] {
                let refused = of(&reach, fields).unwrap_err();
                assert_eq!((refused, refused.status().as_u16()), (Refusal::NoHost, 400));
            }
            let mut old = head("/live", &[]);
            old.version = Version::HTTP_10;
            assert_eq!(judge(&reach, HERE, &old), Ok(()));
        }
    }

    #[test]
    fn the_host_of_the_target_counts_as_well() {
        let fields = [("host", "127.0.0.1:6191")];
        let absolute = head("http://evil.test:6191/drain", &fields);
        assert!(judge(&loopback(), HERE, &absolute).is_err());
        let absolute = head("http://127.0.0.1:6191/drain", &fields);
        assert_eq!(judge(&loopback(), HERE, &absolute), Ok(()));
    }

    #[test]
    fn a_page_of_another_site_is_refused_by_what_its_browser_says() {
        for (reach, host) in [
            (loopback(), "localhost:6191"),
            (elsewhere(), "10.0.0.1:6192"),
            (Reach::Socket { owner: 7 }, "localhost"),
        ] {
            let peer = match reach {
                Reach::Socket { owner } => Peer::User(owner),
                Reach::Loopback { .. } | Reach::Elsewhere { .. } => HERE,
            };
            let of = |fields: &[(&str, &str)]| {
                let all = [&[("host", host)], fields].concat();
                judge(&reach, peer, &head("/drain", &all))
            };
            let own = format!("http://{host}");
            for fields in [
                &[("origin", own.as_str())][..],
                &[("sec-fetch-site", "same-origin")],
                &[("sec-fetch-site", "none")],
            ] {
                assert_eq!(of(fields), Ok(()), "{fields:?}");
            }
            for fields in [
                &[("origin", "http://evil.test")][..],
                &[("origin", "null")],
                &[("origin", "")],
                &[("origin", "http://localhost:8000")],
                &[("origin", "https://localhost:6191")],
                &[("origin", own.as_str()), ("origin", "http://evil.test")],
                &[("sec-fetch-site", "cross-site")],
                &[("sec-fetch-site", "same-site")],
                &[("sec-fetch-site", "unheard-of")],
                &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
            ] {
                assert_eq!(of(fields), Err(Refusal::CrossSite), "{fields:?}");
            }
        }
    }

    #[test]
    fn callers_on_loopback_are_on_this_host() {
        let fields = [("host", "127.0.0.1:6191")];
        for (client, may) in [
            ("127.0.0.1", true),
            ("127.8.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("2001:db8::1", false),
        ] {
            let peer = Peer::Address(client.parse().unwrap());
            let verdict = judge(&loopback(), peer, &head("/drain", &fields));
            assert_eq!(verdict.is_ok(), may, "{client}");
        }
    }

    #[test]
    fn a_socket_is_for_its_owner_and_root() {
        let reach = Reach::Socket { owner: 1000 };
        let fields = [("host", "whatever")];
        for (user, may) in [(1000, true), (0, true), (1001, false), (65534, false)] {
            let verdict = judge(&reach, Peer::User(user), &head("/drain", &fields));
            assert_eq!(verdict.is_ok(), may, "{user}");
        }
        assert!(judge(&reach, HERE, &head("/drain", &fields)).is_err());
    }
}
