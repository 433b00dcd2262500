//! Services outside of the mesh: their addresses as endpoints, and connections to them.
//!
//! Nothing here is a connection of the mesh: that takes a proven peer, and these have none. What is sent on
//! them is HTTP/1.1, HTTP/2 or bytes, over TLS where the service says so. The client is the one that delivers
//! to applications ([`crate::inbound::application`]), with its rules about reuse and lost connections.
//!
//! `link.rs` is such a connection, `tls.rs` its TLS, `names/` resolves names, `body.rs` an answer on its way.
//! Who sends on them: `outbound/outside.rs`.

mod body;
mod link;
pub(crate) mod names;
mod tls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::{fmt, io};

use tokio::net::TcpStream;
use weft_config::settings::Timeouts;
use weft_config::table::{External, ExternalTls, ServiceName};

use crate::http::upload::ReplayMemory;
use crate::inbound::application::{Application, Reached};
use crate::limits;
use crate::resilience::destination::Counts;
use crate::resilience::limit::Caller;
use crate::stream::ApplicationStream;
use tls::Tls;
use weft_transport::tasks::Tasks;

pub(crate) use body::{Ended, OutsideBody};
pub(crate) use link::Link;

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

/// One address of a service outside of the mesh, and the connections of this worker to it.
pub(crate) struct Outside {
    way: Arc<Way>,
    /// All of its requests are this sidecar's own.
    caller: Caller,
    client: OnceLock<Arc<Application>>,
}

/// How one address is reached.
pub(crate) struct Way {
    service: Arc<OutsideService>,
    /// Where it is; unspecified where its name is resolved at each dial.
    address: SocketAddr,
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

impl Outside {
    /// No connection yet.
    pub(crate) fn new(
        service: Arc<OutsideService>,
        address: SocketAddr,
        tls: Option<ExternalTls>,
    ) -> Self {
        Self {
            way: Arc::new(Way {
                service,
                address,
                tls: tls.map(Tls::new),
            }),
            caller: Caller::default(),
            client: OnceLock::new(),
        }
    }

    /// One that is resolved at each dial, without TLS.
    pub(crate) fn by_name(service: Arc<OutsideService>, port: u16) -> Self {
        Self::new(service, (Ipv4Addr::UNSPECIFIED, port).into(), None)
    }

    /// How it is reached.
    pub(crate) fn way(&self) -> &Arc<Way> {
        &self.way
    }

    /// Whether its connections may be used for the same address as another table says it.
    pub(crate) fn is(
        &self,
        service: &OutsideService,
        address: SocketAddr,
        tls: Option<&ExternalTls>,
    ) -> bool {
        let way = &*self.way;
        way.address == address && *way.service == *service && way.tls.as_ref().map(Tls::says) == tls
    }

    /// As whom requests are sent.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The connections; made at the first request. `counts` is of the service.
    pub(crate) fn client(
        &self,
        timeouts: &Timeouts,
        counts: &Arc<Counts>,
        room: &Arc<ReplayMemory>,
        tasks: &Tasks,
    ) -> &Arc<Application> {
        self.client.get_or_init(|| {
            Arc::new(Application::new(
                Reached::Outside(Arc::clone(&self.way)),
                timeouts,
                Arc::clone(counts),
                Arc::clone(room),
                tasks.clone(),
            ))
        })
    }

    /// Drops connections that were idle for too long. Called about once a second.
    pub(crate) fn sweep(&self, now: std::time::Instant) {
        if let Some(client) = self.client.get() {
            client.sweep(now);
        }
    }
}

impl Way {
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
                None => Ok(Link::Plain(ApplicationStream::tcp(stream))),
                Some(client) => client
                    .connect(stream)
                    .await
                    .map(|stream| Link::Tls(Box::new(stream))),
            }
        };
        tokio::time::timeout(limits::OUTSIDE_CONNECT, connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// The addresses to dial, all of which are permitted.
    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if !self.address.ip().is_unspecified() {
            self.permit(self.address.ip())?;
            return Ok(vec![self.address]);
        }
        let host = (self.service.host(), self.address.port());
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
        match self.address.ip().is_unspecified() {
            true => write!(f, "{}:{}", self.service.host(), self.address.port()),
            false => write!(f, "{} at {}", self.service.host(), self.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn way(addresses: &[&str], ranges: &[&str], address: SocketAddr) -> Arc<Way> {
        let external = External {
            hosts: vec!["localhost".into()],
            addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
            allowed_ranges: ranges.iter().map(|one| one.parse().unwrap()).collect(),
            ..External::default()
        };
        let service = OutsideService {
            name: "pay.shop".parse().ok(),
            external: Arc::new(external),
        };
        Arc::clone(Outside::new(Arc::new(service), address, None).way())
    }

    #[tokio::test]
    async fn an_address_inside_is_dialled_only_if_it_is_listed_in_any_form_of_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let forms = [
            SocketAddr::from(([127, 0, 0, 1], port)),
            format!("[::ffff:127.0.0.1]:{port}").parse().unwrap(),
            // By its name, at the dial.
            SocketAddr::from(([0, 0, 0, 0], port)),
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
