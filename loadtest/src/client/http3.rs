//! HTTP/3, over weft-transport's client for tools outside of the mesh.
//!
//! Lanes share connections ([`super::group`]), the lanes of a thread share a UDP socket, which
//! `--migrate-every` replaces. Not here: when a request is sent.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, header};
use tokio::time::timeout;
use weft_transport::external::{ConnectError, ExternalError, ExternalTls, QuicClient};
use weft_transport::http3::UnprovenConnection;
use weft_transport::tuning::{TransportSettings, Tuning};
use weft_transport::wire::{ConnectionError, OpenError, ReceiveError, SendError, Unprocessed};

use super::dial::Dial;
use super::group::{Group, Groups, Handle};
use super::http2::{has, head};
use super::judge::Judge;
use super::lost::Lost;
use crate::clock::Clock;
use crate::limits;
use crate::plan::{Plan, Reuse};
use crate::sample::{ErrorKind, Outcome, Sample};
use crate::tasks::Tracked;

/// The values that all lanes share.
pub(crate) struct Client {
    dial: Dial,
    hosts: Vec<String>,
    requests: Vec<(usize, Parts)>,
    body: Bytes,
    reuse: Reuse,
    judge: Judge,
    tls: ExternalTls,
    tuning: Tuning,
    migrate_every: Option<Duration>,
    streams: usize,
    tasks: Tracked,
}

/// Makes the lanes of one thread.
pub(crate) struct Maker {
    client: Arc<Client>,
    groups: Groups<UnprovenConnection>,
    /// Made by the first lane that dials, because it needs the thread's runtime.
    socket: Arc<Socket>,
}

/// Room for one stream.
pub(crate) struct Lane {
    client: Arc<Client>,
    group: Arc<Group<UnprovenConnection>>,
    socket: Arc<Socket>,
}

/// The UDP socket of a thread, and when it moved last.
#[derive(Default)]
struct Socket(Mutex<Option<(QuicClient, Duration)>>);

impl Handle for UnprovenConnection {
    fn is_usable(&self) -> bool {
        Self::is_usable(self)
    }
}

impl Client {
    pub(crate) fn new(plan: &Plan, dial: Dial) -> Result<Self, ExternalError> {
        let requests = plan.targets.list().iter().map(|target| {
            let mut head = head(plan, target, false, true);
            let needs_length = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
            if !plan.message.body.is_empty() || needs_length {
                let length = http::HeaderValue::from(plan.message.body.len());
                head.headers.insert(header::CONTENT_LENGTH, length);
            }
            (target.endpoint, head)
        });
        let hosts = plan.targets.endpoints.iter();
        Ok(Self {
            dial,
            hosts: hosts.map(|endpoint| endpoint.name().to_owned()).collect(),
            requests: requests.collect(),
            body: plan.message.body.clone(),
            reuse: plan.reuse,
            judge: Judge::new(&plan.expectations),
            tls: plan.tls.clone(),
            tuning: tuning()?,
            migrate_every: plan.migrate_every,
            streams: plan.load.streams(),
            tasks: Tracked::default(),
        })
    }
}

impl Maker {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self {
            groups: Groups::new(client.hosts.len(), client.streams),
            socket: Arc::default(),
            client,
        }
    }

    pub(crate) fn lane(&mut self) -> Lane {
        Lane {
            client: Arc::clone(&self.client),
            group: self.groups.next(),
            socket: Arc::clone(&self.socket),
        }
    }
}

impl Socket {
    /// The client of this thread; on a new port if it is time to migrate.
    fn client(&self, client: &Client, clock: Clock) -> Result<QuicClient, ErrorKind> {
        let slot = self.0.lock();
        let mut slot = slot.unwrap_or_else(PoisonError::into_inner);
        let now = clock.now();
        if let Some((quic, moved)) = slot.as_mut() {
            let due = client
                .migrate_every
                .is_some_and(|every| now >= *moved + every);
            if due {
                *moved = now;
                quic.rebind().map_err(|_| ErrorKind::Io)?;
            }
            return Ok(quic.clone());
        }
        let quic = QuicClient::new(&client.tls, &client.tuning);
        let quic = quic.map_err(|_| ErrorKind::ConnectFailed)?;
        *slot = Some((quic.clone(), now));
        Ok(quic)
    }
}

impl Lane {
    pub(crate) async fn exchange(
        &mut self,
        target: usize,
        clock: Clock,
        sample: &mut Sample,
    ) -> Result<Outcome, Lost> {
        let client = &*self.client;
        let (endpoint, head) = client.requests.get(target).ok_or(ErrorKind::Io)?;
        let quic = self.socket.client(client, clock)?;
        let connection = match client.reuse {
            Reuse::NewConnections => connect(client, &quic, *endpoint, clock, sample).await?,
            Reuse::KeepAlive => {
                let dial = connect(client, &quic, *endpoint, clock, sample);
                let (connection, reused) = self.group.get(*endpoint, dial).await?;
                sample.reused = reused;
                connection
            }
        };
        let body = client.body.clone();
        let first = body.slice(..body.len().min(limits::FIRST_WRITE));
        let rest = body.slice(first.len()..);
        let is_whole = rest.is_empty();
        let opened = connection.open_with(head, first, is_whole).await;
        let (mut send, mut response) =
            opened.map_err(|error| Lost::of(kind_of_open(&error), error.is_unprocessed()))?;
        let upload = async {
            if !is_whole {
                send.send_data(rest).await?;
                send.finish().await?;
            }
            Ok::<_, SendError>(())
        };
        let download = async {
            loop {
                let head = response.head().await?;
                if !head.status().is_informational() {
                    break Ok(head);
                }
            }
        };
        // A server may answer before it has read the whole request, and may stop reading then.
        let (uploaded, answer) = tokio::join!(upload, download);
        let answer = answer.map_err(|error: ReceiveError| {
            Lost::of(kind_of_receive(&error), error.is_unprocessed())
        })?;
        sample.first_byte = Some(clock.now());
        if let Err(error) = uploaded
            && !matches!(error, SendError::Stopped(_))
        {
            return Err(kind_of_send(&error).into());
        }
        sample.bytes_out += body.len() as u64;
        let mut verdict = client.judge.begin();
        verdict.status(answer.status().as_u16());
        verdict.fields(|name, value| has(answer.headers(), name, value));
        let mut download = response.into_body();
        let mut chunks = Vec::new();
        loop {
            let read = poll_fn(|cx| download.poll_chunks(cx, &mut chunks)).await;
            match read {
                Ok(0) => return Ok(verdict.outcome()),
                Ok(_) => {
                    for chunk in chunks.drain(..) {
                        sample.bytes_in += chunk.len() as u64;
                        verdict.body(&chunk);
                    }
                }
                Err(ReceiveError::ConnectionLost(_)) => return Err(ErrorKind::ShortBody.into()),
                Err(error) => return Err(kind_of_receive(&error).into()),
            }
        }
    }
}

/// The settings of QUIC that a sidecar has by default.
pub(crate) fn tuning() -> Result<Tuning, ExternalError> {
    let tuning = TransportSettings::default().validate();
    tuning.map_err(|error| ExternalError::Configuration(error.to_string()))
}

async fn connect(
    client: &Client,
    quic: &QuicClient,
    endpoint: usize,
    clock: Clock,
    sample: &mut Sample,
) -> Result<UnprovenConnection, ErrorKind> {
    let host = client.hosts.get(endpoint).ok_or(ErrorKind::ConnectFailed)?;
    let connecting = quic.connect(client.dial.address(endpoint)?, host);
    let connected = timeout(limits::CONNECT_TIMEOUT, connecting).await;
    let connected = connected.map_err(|_| ErrorKind::ConnectTimeout)?;
    let (connection, driver) = connected.map_err(|error| kind_of_connect(&error))?;
    client.tasks.run(async move {
        // Its end also ends the requests on it, which report the reason.
        driver.await;
    });
    sample.shook_hands(clock.now(), false);
    Ok(connection)
}

/// The failure when a connection could not be made.
pub(crate) fn kind_of_connect(error: &ConnectError) -> ErrorKind {
    match error {
        ConnectError::Refused(_) => ErrorKind::Tls,
        ConnectError::Timeout => ErrorKind::ConnectTimeout,
        ConnectError::Lost(_) => ErrorKind::ConnectFailed,
    }
}

fn kind_of_open(error: &OpenError) -> ErrorKind {
    match error {
        OpenError::Draining => ErrorKind::Closed,
        OpenError::ConnectionLost(error) => kind_of_connection(error),
        OpenError::Stopped(_) => ErrorKind::Reset,
        OpenError::InvalidHead(_) => ErrorKind::Protocol,
    }
}

fn kind_of_receive(error: &ReceiveError) -> ErrorKind {
    match error {
        ReceiveError::Unprocessed(Unprocessed::GoingAway) => ErrorKind::Closed,
        ReceiveError::Unprocessed(Unprocessed::Refused)
        | ReceiveError::Busy
        | ReceiveError::Reset(_) => ErrorKind::Reset,
        ReceiveError::ConnectionLost(error) => kind_of_connection(error),
        ReceiveError::Malformed(_) | ReceiveError::TooLarge(_) => ErrorKind::Protocol,
        ReceiveError::GivenUp | ReceiveError::Misuse(_) => ErrorKind::Io,
    }
}

fn kind_of_send(error: &SendError) -> ErrorKind {
    match error {
        SendError::Stopped(_) => ErrorKind::Reset,
        SendError::ConnectionLost(error) => kind_of_connection(error),
        SendError::InvalidHead(_) | SendError::Misuse(_) => ErrorKind::Io,
    }
}

/// The failure when a connection ended.
pub(crate) fn kind_of_connection(error: &ConnectionError) -> ErrorKind {
    match error {
        ConnectionError::ClosedByPeer(_) | ConnectionError::ClosedHere => ErrorKind::Closed,
        ConnectionError::PeerViolation { .. } => ErrorKind::Protocol,
        ConnectionError::TimedOut | ConnectionError::Reset => ErrorKind::Reset,
        // In TLS 1.3 a client is done before the server has judged its certificate. A refusal then comes on
        // an open connection, and QUIC reports it only as text.
        ConnectionError::Transport(reason) if reason.contains("handshake") => ErrorKind::Tls,
        ConnectionError::Transport(_) => ErrorKind::Protocol,
    }
}
