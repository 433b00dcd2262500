//! Asks resolvers for the addresses of a name: over UDP, over TCP where the answer does not fit, one server
//! after the other. What the messages say is in `message.rs`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Kind, Said, answer, question};
use super::system;
use crate::limits;

/// See the module's documentation.
pub(super) struct Asker {
    servers: Arc<[SocketAddr]>,
}

/// What a name leads to.
pub(super) struct Found {
    pub(super) addresses: Vec<IpAddr>,
    /// How long that holds.
    pub(super) life: Duration,
}

/// A name and what was found.
type Asked = BoxFuture<'static, (String, Result<Found, String>)>;

impl Asker {
    /// Asks these servers; those of the system if there are none.
    pub(super) fn new(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers: servers.into(),
        }
    }

    /// Asks for one name.
    pub(super) fn ask(&self, host: String) -> Asked {
        let servers = Arc::clone(&self.servers);
        Box::pin(async move {
            let asking = ask(&servers, &host);
            let found = match timeout(limits::NAME_LOOKUP_TIME, asking).await {
                Ok(found) => found,
                Err(_) => Err("no resolver answers in time".to_owned()),
            };
            (host, found)
        })
    }
}

async fn ask(servers: &[SocketAddr], host: &str) -> Result<Found, String> {
    let (read, servers) = match servers {
        // Read each time: it changes when the host moves to another network.
        [] => {
            let hosts = tokio::fs::read("/etc/hosts").await.unwrap_or_default();
            let addresses = system::of_hosts(&hosts, host);
            if !addresses.is_empty() {
                let life = limits::NAME_LIFE_MIN;
                return Ok(Found { addresses, life });
            }
            let read = tokio::fs::read("/etc/resolv.conf").await;
            let read = read.map_err(|error| format!("/etc/resolv.conf: {error}"))?;
            (system::servers(&read), &[][..])
        }
        _ => (Vec::new(), servers),
    };
    let servers = if read.is_empty() { servers } else { &read };
    let (four, six) = tokio::join!(
        ask_servers(servers, host, Kind::A),
        ask_servers(servers, host, Kind::Aaaa)
    );
    let (mut addresses, mut life) = (Vec::new(), Duration::MAX);
    let mut failure = None;
    for found in [four, six] {
        match found {
            Ok(found) if found.addresses.is_empty() => {}
            Ok(found) => {
                addresses.extend(found.addresses);
                life = life.min(found.life);
            }
            Err(error) => failure = Some(error),
        }
    }
    let mut routed = Vec::new();
    for address in addresses {
        if is_routed(address).await {
            routed.push(address);
        }
    }
    match (routed.is_empty(), failure) {
        (false, _) => Ok(Found {
            addresses: routed,
            life,
        }),
        (true, Some(failure)) => Err(failure),
        (true, None) => Err("it has no address that this host has a route to".to_owned()),
    }
}

/// Asks one server after the other, and all of them once more, until one answers.
async fn ask_servers(servers: &[SocketAddr], host: &str, kind: Kind) -> Result<Found, String> {
    let mut failure = "no resolver is known".to_owned();
    for _ in 0..limits::NAME_ROUNDS {
        for server in servers {
            match ask_server(*server, host, kind).await {
                Ok(Said::Addresses(addresses, life)) => return Ok(Found { addresses, life }),
                Ok(Said::Failed(code)) => failure = format!("{server} answers with code {code}"),
                Ok(Said::Truncated) => failure = format!("{server} truncates over TCP"),
                Err(error) => failure = format!("{server}: {error}"),
            }
        }
    }
    Err(failure)
}

async fn ask_server(server: SocketAddr, host: &str, kind: Kind) -> io::Result<Said> {
    let id = rand::random::<u16>();
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "it is no name of DNS");
    let question = question(id, host, kind).ok_or_else(no_name)?;
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let by_udp = ask_by_udp(server, &question, |bytes| answer(bytes, id, host, kind));
    let said = timeout(limits::NAME_SERVER_TIME, by_udp)
        .await
        .map_err(late)??;
    if said != Said::Truncated {
        return Ok(said);
    }
    let by_tcp = ask_by_tcp(server, &question);
    let bytes = timeout(limits::NAME_SERVER_TIME, by_tcp)
        .await
        .map_err(late)??;
    let broken = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "its answer breaks the rules of DNS",
        )
    };
    answer(&bytes, id, host, kind).ok_or_else(broken)
}

/// From a port that the kernel draws for each question, and connected, so that only the server's datagrams
/// come. Others that do not fit the question are passed over.
async fn ask_by_udp(
    server: SocketAddr,
    question: &[u8],
    read: impl Fn(&[u8]) -> Option<Said>,
) -> io::Result<Said> {
    let socket = UdpSocket::bind(any(server.ip())).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; limits::NAME_DATAGRAM_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(said) = buffer.get(..length).and_then(&read) {
            return Ok(said);
        }
    }
}

async fn ask_by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    // RFC 1035 section 4.2.2: two bytes of length, in one write with the message (RFC 7766 section 8).
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    let mut message = length.to_be_bytes().to_vec();
    message.extend(question);
    stream.write_all(&message).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn any(address: IpAddr) -> SocketAddr {
    match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Whether this host has a route to an IPv6 address: many have none, and half of the dials would fail. No
/// packet is sent for it.
async fn is_routed(address: IpAddr) -> bool {
    if address.is_ipv4() {
        return true;
    }
    match UdpSocket::bind(any(address)).await {
        Ok(socket) => socket.connect((address, 9)).await.is_ok(),
        Err(_) => false,
    }
}
