//! Where requests go: URLs with weights, and their protocol. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, Method, Uri, header};

use super::Arrival;
use super::url::Url;
use crate::limits;
use crate::replay::{self, Replay};

/// The protocol of every target of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 (RFC 9112).
    Http1,
    /// HTTP/2 (RFC 9113), by ALPN over TLS, by prior knowledge without.
    Http2,
    /// HTTP/3 (RFC 9114).
    Http3,
    /// A unary call of gRPC over HTTP/2.
    Grpc,
    /// TCP, in one of several patterns.
    Tcp(TcpPattern),
    /// A datagram that comes back.
    Udp,
}

impl Protocol {
    /// Whether it is a version of HTTP, without gRPC.
    pub fn is_http(self) -> bool {
        match self {
            Self::Http1 | Self::Http2 | Self::Http3 => true,
            Self::Grpc | Self::Tcp(_) | Self::Udp => false,
        }
    }

    /// Whether a connection carries several requests at once.
    pub fn is_multiplexed(self) -> bool {
        match self {
            Self::Http2 | Self::Http3 | Self::Grpc => true,
            Self::Http1 | Self::Tcp(_) | Self::Udp => false,
        }
    }
}

/// What one "request" is over TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpPattern {
    /// The payload goes and comes back, on a kept connection.
    #[default]
    Echo,
    /// A connection is made and closed.
    Connect,
    /// The payload goes; the peer closes when it has it all.
    Upload,
    /// Bytes come until the peer closes.
    Download,
}

/// A place to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A name or an address, without brackets; an IPv6 address with its zone, if it has one.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether TLS comes first (QUIC always has it).
    pub tls: bool,
}

impl Endpoint {
    /// The name that its certificate must have: a zone is valid on this host only.
    pub(crate) fn name(&self) -> &str {
        self.host.split('%').next().unwrap_or_default()
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// One of the targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The target's path, or its host and port.
    pub url: Url,
    /// Index into [`Targets::endpoints`].
    pub endpoint: usize,
    /// Shares of the arrivals.
    weight: u32,
    /// Another method than the message's.
    method: Option<Method>,
}

/// All targets of a run, which share a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// The protocol.
    pub protocol: Protocol,
    /// Where to connect.
    pub endpoints: Vec<Endpoint>,
    targets: Vec<Target>,
    /// The sum of the weights up to and with each target.
    sums: Vec<u64>,
}

/// The content of every request, whatever its target.
#[derive(Clone, Debug)]
pub struct Message {
    /// The method of HTTP.
    pub method: Method,
    /// Fields besides those that the protocol needs.
    pub headers: HeaderMap,
    /// The body, or the payload of TCP and UDP.
    pub body: bytes::Bytes,
}

/// The flags about the protocol, before a URL's scheme is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// As the scheme says: HTTP/1.1 for `http` and `https`.
    #[default]
    Scheme,
    /// `--http2`.
    Http2,
    /// `--http3`.
    Http3,
}

impl Targets {
    /// Reads targets: `URL` or `WEIGHT@URL`.
    ///
    /// # Errors
    /// A text that names the target and says what to write.
    pub fn parse(texts: &[String], version: Version, pattern: TcpPattern) -> Result<Self, String> {
        if texts.len() > limits::TARGETS_MAX {
            return Err(format!(
                "{} targets; at most {}",
                texts.len(),
                limits::TARGETS_MAX
            ));
        }
        let mut protocol = None;
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut targets = Vec::new();
        let mut sums = Vec::new();
        let mut sum = 0;
        for text in texts {
            let (weight, url) = weight(text)?;
            let url = Url::parse(url).map_err(|why| {
                format!("{url}: {why}; write for example http://127.0.0.1:8080/path")
            })?;
            let (spoken, tls) = spoken(&url, version, pattern)?;
            let known = *protocol.get_or_insert(spoken);
            if known != spoken {
                return Err(format!(
                    "{url}: all targets of a run speak one protocol; run weft load twice"
                ));
            }
            let endpoint = endpoint(&url, tls)?;
            let index = endpoints.iter().position(|known| *known == endpoint);
            let index = index.unwrap_or_else(|| {
                endpoints.push(endpoint);
                endpoints.len() - 1
            });
            sum += u64::from(weight);
            sums.push(sum);
            targets.push(Target {
                url,
                endpoint: index,
                weight,
                method: None,
            });
        }
        let protocol =
            protocol.ok_or("no target: give a URL, for example http://127.0.0.1:8080/")?;
        Ok(Self {
            protocol,
            endpoints,
            targets,
            sums,
        })
    }

    /// The targets, in the order in which they were given.
    pub fn list(&self) -> &[Target] {
        &self.targets
    }

    /// The targets that a log names, all at the place of the one target of `self`; and for each request of
    /// the log its time and its target.
    ///
    /// # Errors
    /// When `self` is not one target of HTTP, or the log has a value that no request can carry.
    pub fn replay(&self, replay: &Replay) -> Result<(Self, Arc<[Arrival]>), String> {
        let ([base], true) = (self.targets.as_slice(), self.protocol.is_http()) else {
            return Err("--replay takes one http or https URL: where the requests go".to_owned());
        };
        if replay.arrivals.is_empty() {
            return Err("no request in the log".to_owned());
        }
        let mut replayed = Self {
            targets: Vec::new(),
            sums: Vec::new(),
            ..self.clone()
        };
        let mut known = HashMap::new();
        let mut arrivals = Vec::with_capacity(replay.arrivals.len());
        for logged in &replay.arrivals {
            let key = (&logged.method, &logged.authority, &logged.path);
            let target = match known.get(&key) {
                Some(target) => *target,
                None => {
                    let target = base.as_logged(logged)?;
                    replayed.targets.push(target);
                    replayed.sums.push(replayed.targets.len() as u64);
                    *known.entry(key).or_insert(replayed.targets.len() - 1)
                }
            };
            arrivals.push(Arrival {
                at: logged.offset,
                target,
            });
        }
        Ok((replayed, arrivals.into()))
    }

    /// The index of the target that a random number chooses, by weight.
    pub(crate) fn choose(&self, random: u64) -> usize {
        let Some(whole) = self.sums.last() else {
            return 0;
        };
        let at = random % whole;
        self.sums.partition_point(|sum| *sum <= at)
    }
}

impl Target {
    /// How many of the arrivals go here, relative to the other targets.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The method of its requests.
    pub(crate) fn method<'a>(&'a self, message: &'a Message) -> &'a Method {
        self.method.as_ref().unwrap_or(&message.method)
    }

    /// The request of a line of the log, sent to this target.
    fn as_logged(&self, logged: &replay::Arrival) -> Result<Self, String> {
        let wrong = |what: &str| format!("the log has a {what} that no request can have");
        let (scheme, authority, path) = (&self.url.scheme, &logged.authority, &logged.path);
        let uri = Uri::builder()
            .scheme(scheme.as_str())
            .authority(&**authority)
            .path_and_query(&**path);
        uri.build().map_err(|_| wrong("host or path"))?;
        let method = Method::from_bytes(logged.method.as_bytes());
        Ok(Self {
            url: Url {
                authority: authority.to_string(),
                path: path.to_string(),
                ..self.url.clone()
            },
            endpoint: self.endpoint,
            weight: 1,
            method: Some(method.map_err(|_| wrong("method"))?),
        })
    }

    /// What follows the authority, as it stands in a request line.
    pub(crate) fn path(&self) -> &str {
        &self.url.path
    }

    /// The authority, as `Host` and `:authority` have it.
    pub(crate) fn authority(&self) -> &str {
        &self.url.authority
    }
}

/// Reads `Name: value`.
///
/// # Errors
/// A text that says what to write.
pub fn parse_header(text: &str) -> Result<(http::HeaderName, http::HeaderValue), String> {
    let help = || format!("{text:?} is no header; write 'Name: value'");
    let (name, value) = text.split_once(':').ok_or_else(help)?;
    let name = http::HeaderName::try_from(name.trim()).map_err(|_| help())?;
    let value = http::HeaderValue::try_from(value.trim()).map_err(|_| help())?;
    if name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
        return Err(format!(
            "{name} is written by weft load itself: leave it out"
        ));
    }
    Ok((name, value))
}

/// The weight before `@`, if there are digits. A scheme cannot begin with a digit (RFC 3986 section 3.1), so
/// `3@http://...` cannot mean anything else.
fn weight(text: &str) -> Result<(u32, &str), String> {
    let Some((digits, url)) = text.split_once('@') else {
        return Ok((1, text));
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok((1, text));
    }
    match digits.parse() {
        Ok(weight) if (1..=limits::WEIGHT_MAX).contains(&weight) => Ok((weight, url)),
        Ok(_) | Err(_) => Err(format!(
            "{text}: the weight {digits} is out of range: write 1 to {}",
            limits::WEIGHT_MAX
        )),
    }
}

/// The protocol for a URL and the flags, and whether TLS is below.
fn spoken(url: &Url, version: Version, pattern: TcpPattern) -> Result<(Protocol, bool), String> {
    let (protocol, tls) = match (url.scheme.as_str(), version) {
        ("http", Version::Scheme) => (Protocol::Http1, false),
        ("https", Version::Scheme) => (Protocol::Http1, true),
        ("http", Version::Http2) => (Protocol::Http2, false),
        ("https", Version::Http2) => (Protocol::Http2, true),
        ("https", Version::Http3) => (Protocol::Http3, true),
        ("http", Version::Http3) => {
            return Err(format!("{url}: HTTP/3 always has TLS: write https://"));
        }
        ("grpc", Version::Scheme | Version::Http2) => (Protocol::Grpc, false),
        ("grpcs", Version::Scheme | Version::Http2) => (Protocol::Grpc, true),
        ("tcp", Version::Scheme) => (Protocol::Tcp(pattern), false),
        ("udp", Version::Scheme) => (Protocol::Udp, false),
        ("grpc" | "grpcs" | "tcp" | "udp", Version::Http2 | Version::Http3) => {
            return Err(format!(
                "{url}: --http2 and --http3 go with http:// and https://"
            ));
        }
        (other, _) => {
            return Err(format!(
                "{url}: unknown scheme {other:?}; write http, https, grpc, grpcs, tcp or udp"
            ));
        }
    };
    let path = url.path.split('?').next().unwrap_or_default();
    if protocol == Protocol::Grpc && path.matches('/').count() != 2 {
        return Err(format!(
            "{url}: a gRPC URL names the method: grpc://HOST:PORT/package.Service/Method"
        ));
    }
    Ok((protocol, tls))
}

fn endpoint(url: &Url, tls: bool) -> Result<Endpoint, String> {
    let port = url.port.filter(|port| *port != 0);
    Ok(Endpoint {
        host: url.host.clone(),
        port: port
            .ok_or_else(|| format!("{url}: write the port, for example tcp://127.0.0.1:7"))?,
        tls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str], version: Version) -> Result<Targets, String> {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        Targets::parse(&texts, version, TcpPattern::Echo)
    }

    #[test]
    fn the_scheme_and_the_flags_say_what_is_spoken() {
        for (url, version, protocol, port, tls) in [
            ("http://a", Version::Scheme, Protocol::Http1, 80, false),
            ("https://a/", Version::Scheme, Protocol::Http1, 443, true),
            ("http://a:81/", Version::Http2, Protocol::Http2, 81, false),
            ("https://a/", Version::Http3, Protocol::Http3, 443, true),
            (
                "grpc://a:5/p.S/M",
                Version::Scheme,
                Protocol::Grpc,
                5,
                false,
            ),
            (
                "tcp://[::1]:7",
                Version::Scheme,
                Protocol::Tcp(TcpPattern::Echo),
                7,
                false,
            ),
            ("udp://a:7", Version::Scheme, Protocol::Udp, 7, false),
        ] {
            let targets = parse(&[url], version).unwrap();
            assert_eq!(targets.protocol, protocol, "{url}");
            let endpoint = &targets.endpoints[0];
            assert_eq!((endpoint.port, endpoint.tls), (port, tls), "{url}");
        }
    }

    #[test]
    fn urls_that_cannot_be_meant_say_what_to_write() {
        for (url, version, hint) in [
            (
                "127.0.0.1:8080",
                Version::Scheme,
                "http://127.0.0.1:8080/path",
            ),
            ("/path", Version::Scheme, "scheme"),
            ("ftp://a/", Version::Scheme, "unknown scheme"),
            ("http://a/", Version::Http3, "https://"),
            ("tcp://a", Version::Scheme, "port"),
            ("tcp://a:7", Version::Http2, "--http2"),
            (
                "grpc://a:5/Method",
                Version::Scheme,
                "package.Service/Method",
            ),
            ("http://u:p@a/", Version::Scheme, "Authorization"),
            ("0@http://a/", Version::Scheme, "weight"),
        ] {
            let error = parse(&[url], version).unwrap_err();
            assert!(error.contains(hint), "{url}: {error}");
        }
        assert!(parse(&[], Version::Scheme).is_err());
        let mixed = parse(&["http://a/", "tcp://a:7"], Version::Scheme);
        assert!(mixed.unwrap_err().contains("one protocol"));
    }

    #[test]
    fn arrivals_are_shared_by_weight() {
        let targets = parse(
            &["http://a/x", "3@http://a/y", "http://b/z"],
            Version::Scheme,
        );
        let targets = targets.unwrap();
        assert_eq!(targets.endpoints.len(), 2);
        let mut shares = [0; 3];
        for random in 0..1000 {
            shares[targets.choose(random)] += 1;
        }
        assert_eq!(shares, [200, 600, 200]);
    }

    #[test]
    fn a_log_is_replayed_at_the_one_target_with_its_own_hosts_and_methods() {
        let logged = |offset, method: &str, path: &str| replay::Arrival {
            offset: std::time::Duration::from_millis(offset),
            method: method.into(),
            authority: "orders.shop".into(),
            path: path.into(),
        };
        let log = Replay {
            arrivals: vec![
                logged(0, "GET", "/a"),
                logged(5, "POST", "/a"),
                logged(9, "GET", "/a"),
            ],
            ..Replay::default()
        };
        let base = parse(&["http://127.0.0.1:5001/"], Version::Scheme).unwrap();
        let (targets, arrivals) = base.replay(&log).unwrap();
        let chosen: Vec<usize> = arrivals.iter().map(|arrival| arrival.target).collect();
        assert_eq!(chosen, [0, 1, 0]);
        assert_eq!(targets.list()[1].method, Some(Method::POST));
        assert_eq!(targets.list()[1].authority(), "orders.shop");
        assert_eq!(targets.endpoints[0].port, 5001);
        let two = parse(&["http://a/", "http://b/"], Version::Scheme).unwrap();
        assert!(two.replay(&log).is_err());
        assert!(base.replay(&Replay::default()).is_err());
    }

    #[test]
    fn framing_is_not_for_the_user_to_write() {
        assert!(parse_header("X-A: b:c").is_ok_and(|(_, value)| value == "b:c"));
        for wrong in ["x", ": y", "a b: c", "content-length: 3", "x: \u{1}"] {
            assert!(parse_header(wrong).is_err(), "{wrong}");
        }
    }
}
