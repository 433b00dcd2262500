//! The eavesdropper: a UDP relay between two sidecars that keeps all bytes and searches them for a text. It
//! stands at the place of a switch or of a hostile network.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use weft_transport::locks::lock;

use crate::failure::{Code, Failure};

/// Bytes that are kept; the demo sends far less.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Callers that are relayed: each needs a socket towards the server.
const CALLERS_MAX: usize = 64;
/// The largest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A running relay. Dropping it ends it.
pub struct Wiretap {
    /// Where callers send to.
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

/// The traffic over the wire so far.
#[derive(Clone, Default)]
pub struct Seen {
    /// Datagrams in both directions.
    pub datagrams: usize,
    /// Their payloads, one after the other.
    pub bytes: Vec<u8>,
}

impl Seen {
    fn keep(&mut self, datagram: &[u8]) {
        self.datagrams += 1;
        if self.bytes.len() + datagram.len() <= KEPT_BYTES_MAX {
            self.bytes.extend_from_slice(datagram);
        }
    }

    /// How often `text` can be read in it.
    pub fn count(&self, text: &str) -> usize {
        self.bytes
            .windows(text.len())
            .filter(|window| *window == text.as_bytes())
            .count()
    }
}

impl Wiretap {
    /// Relays from a free loopback port to `server` and back.
    pub async fn start(server: SocketAddr) -> Result<Self, Failure> {
        let refuse =
            |error| Failure::new(Code::Failed, format!("cannot listen on loopback: {error}"));
        let front = Arc::new(
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .map_err(refuse)?,
        );
        let address = front.local_addr().map_err(refuse)?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(relay(front, server, Arc::clone(&seen)));
        Ok(Self {
            address,
            seen,
            _tasks: tasks,
        })
    }

    /// The traffic over the wire so far.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

async fn relay(front: Arc<UdpSocket>, server: SocketAddr, seen: Arc<Mutex<Seen>>) {
    let mut callers: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut backs = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, caller)) = front.recv_from(&mut buffer).await else {
            continue;
        };
        lock(&seen).keep(&buffer[..length]);
        let back = match callers.get(&caller) {
            Some(back) => Arc::clone(back),
            None if callers.len() >= CALLERS_MAX => continue,
            None => {
                let Ok(back) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else {
                    continue;
                };
                let back = Arc::new(back);
                callers.insert(caller, Arc::clone(&back));
                backs.spawn(answers(
                    Arc::clone(&back),
                    Arc::clone(&front),
                    caller,
                    Arc::clone(&seen),
                ));
                back
            }
        };
        // UDP may lose it, and QUIC recovers, as on a real network.
        let _ = back.send_to(&buffer[..length], server).await;
    }
}

async fn answers(
    back: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    caller: SocketAddr,
    seen: Arc<Mutex<Seen>>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, _)) = back.recv_from(&mut buffer).await else {
            continue;
        };
        lock(&seen).keep(&buffer[..length]);
        let _ = front.send_to(&buffer[..length], caller).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_in_the_clear_is_found_in_both_directions() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let wiretap = Wiretap::start(server.local_addr().unwrap()).await.unwrap();
        let caller = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut buffer = [0; 64];

        caller
            .send_to(b"the secret", wiretap.address)
            .await
            .unwrap();
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        server.send_to(&buffer[..length], from).await.unwrap();
        let (length, _) = caller.recv_from(&mut buffer).await.unwrap();

        assert_eq!(&buffer[..length], b"the secret");
        let seen = wiretap.seen();
        assert_eq!(
            (seen.datagrams, seen.count("secret"), seen.count("card")),
            (2, 2, 0)
        );
    }
}
