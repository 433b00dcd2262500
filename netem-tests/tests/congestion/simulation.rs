//! QUIC connections over one link of the model, in memory, under a simulated clock.
//!
//! Each flow is a connection of its own whose client sends without end on one stream; all share both
//! directions of the link. The stacks are quinn's, packets are real, and nothing waits: a minute of the
//! simulation takes a second or two.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::congestion::ControllerFactory;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    ServerConfig, StreamId, TransportConfig, VarInt,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use weft_netem_tests::link::{Direction, End, Impairment, Packet, Seed};

const SERVER_NAME: &str = "lab.test";
/// UDP payload of all packets, and what IPv4 and UDP add on the wire.
const DATAGRAM: u16 = 1400;
const HEADERS: usize = 28;
/// Never what limits a flow.
const WINDOW: u32 = 64 << 20;

pub(crate) type Controller = Arc<dyn ControllerFactory + Send + Sync>;

/// The result of one flow.
#[derive(Debug)]
pub(crate) struct Flow {
    client: Side,
    server: Side,
    stream: Option<StreamId>,
    delivered: u64,
}

#[derive(Debug)]
struct Side {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    address: SocketAddr,
}

#[derive(Clone, Debug)]
struct Datagram {
    flow: usize,
    bytes: Vec<u8>,
}

impl Packet for Datagram {
    fn length(&self) -> usize {
        self.bytes.len() + HEADERS
    }

    fn udp_ports(&self) -> Option<(u16, u16)> {
        None
    }

    fn payload(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn fix_checksum(&mut self) {}
}

/// Bytes per second that each flow delivers over `link`, both directions of which do the same, in the
/// last two thirds of `lasts`.
pub(crate) fn rates(link: &Impairment, flows: &[Controller], lasts: Duration) -> Vec<f64> {
    let start = Instant::now();
    let mut ways = End::BOTH
        .map(|from| Direction::<Datagram>::new(Seed(1).of("link", from), link.clone(), start));
    let mut flows: Vec<_> = flows.iter().map(|one| Flow::new(start, one)).collect();
    let (mut now, mut measured_from) = (start, None);
    while now < start + lasts {
        if measured_from.is_none() && now >= start + lasts / 3 {
            measured_from = Some((
                now,
                flows.iter().map(|flow| flow.delivered).collect::<Vec<_>>(),
            ));
        }
        for (index, flow) in flows.iter_mut().enumerate() {
            flow.work(index, now, &mut ways);
        }
        let due = ways.iter().filter_map(Direction::next_due);
        let timers = flows.iter_mut().filter_map(Flow::next_timer);
        // At least a little later, so that a timer that is due at once does not stop the clock.
        let next = due
            .chain(timers)
            .min()
            .expect("a flow always waits for something");
        now = next.max(now + Duration::from_micros(1));
        for (way, end) in ways.iter_mut().zip(End::BOTH) {
            while let Some(departure) = way.poll(now) {
                let Datagram { flow, bytes } = departure.packet;
                flows[flow].receive(now, end.other(), &bytes);
            }
        }
    }
    let (from, before) = measured_from.expect("the simulation is longer than nothing");
    let seconds = (now - from).as_secs_f64();
    flows
        .iter()
        .zip(before)
        .map(|(flow, before)| (flow.delivered - before) as f64 / seconds)
        .collect()
}

impl Flow {
    fn new(now: Instant, controller: &Controller) -> Self {
        let mut transport = TransportConfig::default();
        transport
            .congestion_controller_factory(Arc::clone(controller))
            .stream_receive_window(VarInt::from_u32(WINDOW))
            .receive_window(VarInt::from_u32(WINDOW))
            .send_window(WINDOW.into())
            .initial_mtu(DATAGRAM)
            .mtu_discovery_config(None);
        let transport = Arc::new(transport);
        let issued = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]).unwrap();
        let certificate = CertificateDer::from(issued.cert);
        let key = PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
        let mut server = ServerConfig::with_single_cert(vec![certificate.clone()], key).unwrap();
        server.transport_config(Arc::clone(&transport));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let mut client = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
        client.transport_config(transport);
        let server = Side::new(2, Some(Arc::new(server)));
        let mut dialling = Side::new(1, None);
        let connected = dialling
            .endpoint
            .connect(now, client, server.address, SERVER_NAME);
        dialling.connection = Some(connected.unwrap());
        Self {
            client: dialling,
            server,
            stream: None,
            delivered: 0,
        }
    }

    /// Sends and reads all that it can.
    fn work(&mut self, index: usize, now: Instant, ways: &mut [Direction<Datagram>; 2]) {
        if let Some((_, connection)) = &mut self.client.connection {
            if self.stream.is_none() {
                self.stream = connection.streams().open(Dir::Uni);
            }
            if let Some(stream) = self.stream {
                let chunk = [0; 16384];
                while connection.send_stream(stream).write(&chunk).is_ok() {}
            }
        }
        if let Some((_, connection)) = &mut self.server.connection {
            let _ = connection.streams().accept(Dir::Uni);
            if let Some(stream) = self.stream {
                self.delivered += read(connection, stream);
            }
        }
        for (side, way) in [&mut self.client, &mut self.server].into_iter().zip(ways) {
            side.work(now, |bytes| way.push(now, Datagram { flow: index, bytes }));
        }
    }

    fn next_timer(&mut self) -> Option<Instant> {
        [&mut self.client, &mut self.server]
            .into_iter()
            .filter_map(|side| side.connection.as_mut()?.1.poll_timeout())
            .min()
    }

    fn receive(&mut self, now: Instant, at: End, bytes: &[u8]) {
        let (own, peer) = match at {
            End::First => (&mut self.client, self.server.address),
            End::Second => (&mut self.server, self.client.address),
        };
        own.receive(now, peer, bytes);
    }
}

/// Takes all that has arrived in order.
fn read(connection: &mut Connection, stream: StreamId) -> u64 {
    let mut stream = connection.recv_stream(stream);
    let mut taken = 0;
    if let Ok(mut chunks) = stream.read(true) {
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            taken += chunk.bytes.len() as u64;
        }
        let _ = chunks.finalize();
    }
    taken
}

impl Side {
    fn new(host: u8, server: Option<Arc<ServerConfig>>) -> Self {
        let config = Arc::new(EndpointConfig::default());
        Self {
            endpoint: Endpoint::new(config, server, true, Some([host; 32])),
            connection: None,
            address: SocketAddr::from(([192, 0, 2, host], 443)),
        }
    }

    fn receive(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let mut answer = Vec::new();
        let data = BytesMut::from(bytes);
        match self
            .endpoint
            .handle(now, from, None, None, data, &mut answer)
        {
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.connection = self.endpoint.accept(incoming, now, &mut answer, None).ok();
            }
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            // To a packet that belongs to no connection; these do not matter here.
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    fn work(&mut self, now: Instant, mut send: impl FnMut(Vec<u8>)) {
        let Some((handle, connection)) = &mut self.connection else {
            return;
        };
        if connection.poll_timeout().is_some_and(|due| due <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while connection.poll().is_some() {}
        let mut bytes = Vec::new();
        while connection.poll_transmit(now, 1, &mut bytes).is_some() {
            send(std::mem::take(&mut bytes));
        }
    }
}
