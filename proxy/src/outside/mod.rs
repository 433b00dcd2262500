//! Services outside of the mesh: which addresses they have, and how one is reached.
//!
//! Nothing here is a connection of the mesh: that takes a proven peer, and these have none. What is sent on
//! them is HTTP/1.1, HTTP/2 or bytes, over TLS where the service says so.
//!
//! `tls.rs` is the TLS of a connection, `names/` resolves names. Not here: the client that sends requests
//! ([`crate::application`], which also delivers to the application beside this sidecar), and who may send
//! them (`outbound/outside.rs`).

pub(crate) mod names;
mod tls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::{fmt, io};

use tokio::net::TcpStream;
use tokio_util::either::Either;
use weft_config::table::{External, ExternalTls, ServiceName};
use weft_transport::external::TlsClientStream;

use crate::limits;
use crate::stream::{self, ApplicationStream, Watch};
pub(crate) use tls::Tls;

/// A connection to a service outside of the mesh, or to the application beside this sidecar: bytes as they
/// are, or over TLS. The latter is boxed, because most connections lead to applications.
pub(crate) type Link = Either<ApplicationStream, Box<TlsClientStream>>;

/// A second handle of a connection, to look at the socket while another task reads and writes.
pub(crate) fn watch(link: &Link) -> io::Result<Watch> {
    match link {
        Link::Left(stream) => stream.watch(),
        Link::Right(stream) => Watch::of(stream.tcp()),
    }
}

/// Makes the coming close of a connection a reset, as a broken one must not look like one that ended.
pub(crate) fn reset_on_close(link: &Link) {
    match link {
        Link::Left(stream) => stream.reset_on_close(),
        Link::Right(stream) => stream::reset_on_close(stream.tcp()),
    }
}

/// A service outside of the mesh, as the table says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutsideService {
    /// Its name in the mesh; none where no ExternalService names it, and the mesh lets it pass.
    pub(crate) name: Option<ServiceName>,
    /// How it is reached.
    pub(crate) external: Arc<External>,
}

impl OutsideService {
    /// The name that requests say which name it otherwise.
    pub(crate) fn host(&self) -> &str {
        self.external.hosts.first().map_or("", String::as_str)
    }
}

/// How one address is reached.
pub(crate) struct Way {
    service: Arc<OutsideService>,
    /// Where it is; of one whose name is resolved at each dial only the port is known.
    address: SocketAddr,
    is_by_name: bool,
    tls: Option<Tls>,
}

/// What is spoken on a connection; with TLS the server is told (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
    /// Nothing that TLS knows of.
    Bytes,
}

impl Speaks {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
            Self::Bytes => b"",
        }
    }
}

impl Way {
    /// An address of a service.
    pub(crate) fn new(
        service: Arc<OutsideService>,
        address: SocketAddr,
        tls: Option<ExternalTls>,
    ) -> Self {
        Self {
            service,
            address,
            is_by_name: false,
            tls: tls.map(Tls::new),
        }
    }

    /// By the name of a service, which is resolved at each dial, without TLS.
    pub(crate) fn by_name(service: Arc<OutsideService>, port: u16) -> Self {
        Self {
            is_by_name: true,
            ..Self::new(service, (Ipv4Addr::UNSPECIFIED, port).into(), None)
        }
    }

    /// Whether it is the same as another table says it.
    pub(crate) fn is(
        &self,
        service: &OutsideService,
        address: SocketAddr,
        tls: Option<&ExternalTls>,
    ) -> bool {
        self.address == address
            && *self.service == *service
            && self.tls.as_ref().map(Tls::says) == tls
    }

    /// The service.
    pub(crate) fn service(&self) -> &Arc<OutsideService> {
        &self.service
    }

    /// The address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether what is sent there is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects. An address that a name led to is judged before each dial: a resolver is not to be trusted.
    ///
    /// # Errors `PermissionDenied` for an address that the service may not have, `InvalidInput` for files of
    /// TLS that cannot be used, `InvalidData` for a certificate that proves nothing; others as `connect(2)`.
    pub(crate) async fn connect(&self, speaks: Speaks) -> io::Result<Link> {
        let connect = async {
            let addresses = self.addresses().await?;
            // Read before the dial: a server gives a silent client little time.
            let client = match &self.tls {
                Some(tls) => Some(tls.client(speaks.alpn()).await?),
                None => None,
            };
            let stream = TcpStream::connect(&*addresses).await?;
            let _ = stream.set_nodelay(true);
            match client {
                None => Ok(Link::Left(ApplicationStream::tcp(stream))),
                Some(client) => client
                    .connect(stream)
                    .await
                    .map(|stream| Link::Right(Box::new(stream))),
            }
        };
        tokio::time::timeout(limits::OUTSIDE_CONNECT, connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// The addresses to dial, all of which are permitted.
    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if !self.is_by_name {
            self.permit(self.address.ip())?;
            return Ok(vec![self.address]);
        }
        let host = self.service.host();
        // An IPv6 address, as a URL has it.
        let literal = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = (literal.unwrap_or(host), self.address.port());
        let found = tokio::net::lookup_host(host).await?;
        let found: Vec<SocketAddr> = found.take(limits::NAME_ADDRESSES_MAX).collect();
        // One that is not public shows a name that is made to lead inside: then none of its addresses is
        // trusted.
        for address in &found {
            self.permit(address.ip())?;
        }
        Ok(found)
    }

    fn permit(&self, address: IpAddr) -> io::Result<()> {
        let external = &self.service.external;
        if external.addresses.contains(&address) || external.permits(address) {
            return Ok(());
        }
        let text = match &self.service.name {
            Some(name) => format!(
                "{address} is not a public address, and allowedRanges of {name} does not list it"
            ),
            None => {
                format!("{address} is not a public address: only an ExternalService may lead there")
            }
        };
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_by_name {
            true => write!(f, "{}:{}", self.service.host(), self.address.port()),
            false => write!(f, "{} at {}", self.service.host(), self.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn way(addresses: &[&str], ranges: &[&str], address: SocketAddr) -> Way {
        Way::new(service("localhost", addresses, ranges), address, None)
    }

    fn service(host: &str, addresses: &[&str], ranges: &[&str]) -> Arc<OutsideService> {
        let external = External {
            hosts: vec![host.into()],
            addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
            allowed_ranges: ranges.iter().map(|one| one.parse().unwrap()).collect(),
            ..External::default()
        };
        Arc::new(OutsideService {
            name: "pay.shop".parse().ok(),
            external: Arc::new(external),
        })
    }

    #[tokio::test]
    async fn an_address_inside_is_dialled_only_if_it_is_listed_in_any_form_of_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let forms = [
            SocketAddr::from(([127, 0, 0, 1], port)),
            format!("[::ffff:127.0.0.1]:{port}").parse().unwrap(),
            // The kernel takes both for this host.
            SocketAddr::from(([0, 0, 0, 0], port)),
            format!("[::]:{port}").parse().unwrap(),
        ];
        for address in forms {
            let refused = way(&[], &[], address).connect(Speaks::Http1).await;
            let error = refused.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{address}");
            assert!(
                error.to_string().contains("is not a public address"),
                "{error}"
            );
            let other = way(&["10.0.0.1"], &["10.0.0.0/8"], address);
            assert!(other.connect(Speaks::Bytes).await.is_err());
        }
        // By its name, at the dial.
        for host in [
            "localhost",
            "0.0.0.0",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            let named = Way::by_name(service(host, &[], &[]), port);
            let error = named.connect(Speaks::Http1).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{host}");
        }
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let listed = way(&["127.0.0.1"], &[], forms[0]);
        assert!(listed.connect(Speaks::Http1).await.is_ok());
        let in_range = way(&[], &["127.0.0.0/8"], forms[0]);
        assert!(in_range.connect(Speaks::Http1).await.is_ok());
    }
}
