//! UDP: a datagram that comes back. One that does not come back fails when its deadline passes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::UdpSocket;

use super::dial::Dial;
use super::{kind_of, kind_of_connect};
use crate::clock::Clock;
use crate::limits;
use crate::plan::Plan;
use crate::sample::{ErrorKind, Outcome, Sample};

/// The values that all lanes share.
pub(crate) struct Client {
    dial: Dial,
    endpoints: Vec<usize>,
    payload: Bytes,
}

/// One datagram under way at a time, on a socket of its own for each target.
pub(crate) struct Lane {
    client: Arc<Client>,
    sockets: Vec<Option<UdpSocket>>,
    number: u64,
    datagram: Vec<u8>,
    buffer: Box<[u8]>,
}

/// Bytes at the front of a datagram that tell it from others: an answer after its deadline must not be taken
/// for that of the next datagram.
const NUMBER: usize = size_of::<u64>();

impl Client {
    pub(crate) fn new(plan: &Plan, dial: Dial) -> Self {
        let targets = plan.targets.list().iter();
        Self {
            dial,
            endpoints: targets.map(|target| target.endpoint).collect(),
            payload: super::payload(&plan.message.body),
        }
    }
}

impl Lane {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        let sockets = client.endpoints.iter().map(|_| None);
        Self {
            sockets: sockets.collect(),
            number: 0,
            datagram: Vec::new(),
            buffer: vec![0; limits::DATAGRAM_MAX].into(),
            client,
        }
    }

    pub(crate) async fn exchange(
        &mut self,
        target: usize,
        clock: Clock,
        sample: &mut Sample,
    ) -> Result<Outcome, ErrorKind> {
        let client = &*self.client;
        let endpoint = *client.endpoints.get(target).ok_or(ErrorKind::Io)?;
        let slot = self.sockets.get_mut(target).ok_or(ErrorKind::Io)?;
        sample.reused = slot.is_some();
        let socket = match slot {
            Some(socket) => &*socket,
            None => &*slot.insert(open(client.dial.address(endpoint)?).await?),
        };
        self.number += 1;
        self.datagram.clear();
        self.datagram.extend_from_slice(&self.number.to_be_bytes());
        self.datagram.extend_from_slice(&client.payload);
        let sent = socket.send(&self.datagram).await;
        sample.bytes_out += sent.map_err(|error| kind_of(&error))? as u64;
        loop {
            let read = socket.recv(&mut self.buffer).await;
            let read = read.map_err(|error| kind_of_connect(&error))?;
            let came = self.buffer.get(..read).unwrap_or_default();
            if came.get(..NUMBER) != Some(&self.number.to_be_bytes()) {
                continue;
            }
            sample.first_byte = Some(clock.now());
            sample.bytes_in += read as u64;
            if came != self.datagram {
                return Err(ErrorKind::UnexpectedBody);
            }
            return Ok(Outcome::Success);
        }
    }
}

/// A socket that receives only from `address`, and learns of refusals (ICMP).
pub(crate) async fn open(address: SocketAddr) -> Result<UdpSocket, ErrorKind> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let open = async {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        Ok(socket)
    };
    open.await
        .map_err(|error: std::io::Error| kind_of_connect(&error))
}
