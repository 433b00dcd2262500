//! HTTP/2 and unary calls of gRPC, over hyper.
//!
//! Lanes share connections ([`super::group`]). Not here: when a request is sent.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioIo;

use super::dial::Dial;
use super::group::{Group, Groups, Handle};
use super::judge::Judge;
use super::kind_of;
use super::lost::Lost;
use crate::clock::Clock;
use crate::limits;
use crate::plan::target::{Protocol, Target};
use crate::plan::{Plan, Reuse};
use crate::sample::{ErrorKind, Outcome, Sample};
use crate::tasks::Tracked;

/// A connection, as seen by one of the lanes that share it.
#[derive(Clone)]
struct Sender {
    requests: SendRequest<Full<Bytes>>,
    /// Whether it takes no more requests: its server said so, which hyper notices at the next request.
    spent: Arc<AtomicBool>,
}

/// The values that all lanes share.
pub(crate) struct Client {
    dial: Dial,
    requests: Vec<(usize, Parts)>,
    body: Bytes,
    is_grpc: bool,
    reuse: Reuse,
    judge: Judge,
    tasks: Tracked,
    endpoints: usize,
}

/// Makes the lanes of one thread.
pub(crate) struct Maker {
    client: Arc<Client>,
    groups: Groups<Sender>,
}

/// Room for one stream.
pub(crate) struct Lane {
    client: Arc<Client>,
    group: Arc<Group<Sender>>,
}

impl Handle for Sender {
    fn is_usable(&self) -> bool {
        !self.requests.is_closed() && !self.spent.load(Ordering::Relaxed)
    }
}

impl Client {
    pub(crate) fn new(plan: &Plan, dial: Dial) -> Self {
        let is_grpc = plan.targets.protocol == Protocol::Grpc;
        let requests = plan.targets.list().iter().map(|target| {
            let tls = plan.targets.endpoints.get(target.endpoint);
            let tls = tls.is_some_and(|endpoint| endpoint.tls);
            (target.endpoint, head(plan, target, is_grpc, tls))
        });
        Self {
            dial,
            requests: requests.collect(),
            body: if is_grpc {
                grpc_message(&plan.message.body)
            } else {
                plan.message.body.clone()
            },
            is_grpc,
            reuse: plan.reuse,
            judge: Judge::new(&plan.expectations),
            tasks: Tracked::default(),
            endpoints: plan.targets.endpoints.len(),
        }
    }

    async fn connect(
        &self,
        endpoint: usize,
        clock: Clock,
        sample: &mut Sample,
    ) -> Result<Sender, ErrorKind> {
        let stream = self.dial.open(endpoint, clock, sample).await?;
        let handshake = handshake(self.tasks.clone(), TokioIo::new(stream)).await;
        let (requests, connection) = handshake.map_err(|error| kind_of_hyper(&error))?;
        self.tasks.run(async move {
            // Its error also ends the requests on it, which report it.
            let _ = connection.await;
        });
        Ok(Sender {
            requests,
            spent: Arc::default(),
        })
    }
}

impl Maker {
    pub(crate) fn new(client: Arc<Client>, streams: usize) -> Self {
        Self {
            groups: Groups::new(client.endpoints, streams),
            client,
        }
    }

    pub(crate) fn lane(&mut self) -> Lane {
        Lane {
            client: Arc::clone(&self.client),
            group: self.groups.next(),
        }
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
        let mut sender = match client.reuse {
            Reuse::NewConnections => client.connect(*endpoint, clock, sample).await?,
            Reuse::KeepAlive => {
                let dial = client.connect(*endpoint, clock, sample);
                let (sender, reused) = self.group.get(*endpoint, dial).await?;
                sample.reused = reused;
                sender
            }
        };
        let request = Request::from_parts(head.clone(), Full::new(client.body.clone()));
        let response = sender.requests.send_request(request).await;
        let response = response.map_err(|error| {
            let unprocessed = Unprocessed::of(&error);
            if unprocessed == Some(Unprocessed::ConnectionEnds) {
                sender.spent.store(true, Ordering::Relaxed);
            }
            Lost::of(kind_of_hyper(&error), unprocessed.is_some())
        })?;
        sample.first_byte = Some(clock.now());
        sample.bytes_out += client.body.len() as u64;
        let mut verdict = client.judge.begin();
        let status = response.status().as_u16();
        let headers = response.headers();
        // A gRPC call that ends with an own status reports that instead of HTTP's.
        if !client.is_grpc {
            verdict.status(status);
        } else if status != 200 {
            return Err(ErrorKind::Status(status).into());
        }
        verdict.fields(|name, value| has(headers, name, value));
        // A call without a message ends with its head ("Trailers-Only").
        let mut grpc_status = grpc_status(headers);
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let kind = kind_of_hyper(&error);
                if kind == ErrorKind::Closed {
                    ErrorKind::ShortBody
                } else {
                    kind
                }
            })?;
            if let Some(data) = frame.data_ref() {
                sample.bytes_in += data.len() as u64;
                verdict.body(data);
            } else if let Some(trailers) = frame.trailers_ref() {
                grpc_status = grpc_status.or(self::grpc_status(trailers));
            }
        }
        if client.is_grpc {
            // 2 is UNKNOWN: gRPC's own clients report that for an answer without a status.
            verdict.grpc_status(grpc_status.unwrap_or(2));
        }
        Ok(verdict.outcome())
    }
}

/// The head of the request to a target.
pub(super) fn head(plan: &Plan, target: &Target, is_grpc: bool, tls: bool) -> Parts {
    let message = &plan.message;
    let mut headers = message.headers.clone();
    let mut default = |name: HeaderName, value: &'static str| {
        let entry = headers.entry(name);
        entry.or_insert(HeaderValue::from_static(value));
    };
    default(header::USER_AGENT, super::USER_AGENT);
    if is_grpc {
        default(header::CONTENT_TYPE, "application/grpc");
        default(header::TE, "trailers");
    }
    let (mut head, ()) = Request::new(()).into_parts();
    // The authority of HTTP/2 is a pseudo-header; a Host field could name another one.
    let host = headers.remove(header::HOST);
    let host = host.as_ref().and_then(|host| host.to_str().ok());
    head.method = if is_grpc {
        Method::POST
    } else {
        target.method(message).clone()
    };
    head.uri = Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(host.unwrap_or(target.authority()))
        .path_and_query(target.path())
        .build()
        .unwrap_or_default();
    head.headers = headers;
    head
}

/// A message without compression behind its length (gRPC over HTTP/2, "Length-Prefixed-Message").
fn grpc_message(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers
        .get(limits::GRPC_STATUS)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Whether one of the values of a field is this one, or whether there is any.
pub(super) fn has(headers: &HeaderMap, name: &str, value: Option<&[u8]>) -> bool {
    let mut values = headers.get_all(name).iter();
    match value {
        Some(value) => values.any(|found| found.as_bytes() == value),
        None => values.next().is_some(),
    }
}

/// How it is known that a server has not processed a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unprocessed {
    /// Its stream was refused (RFC 9113 section 8.7); the next may be taken.
    Refused,
    /// GOAWAY named a lower stream as the last one (section 6.8), or the connection had ended before the
    /// request was written.
    ConnectionEnds,
}

impl Unprocessed {
    /// For a request whose response has not begun.
    fn of(error: &hyper::Error) -> Option<Self> {
        // hyper ends a request in this way that it has not begun to send.
        if error.is_canceled() {
            return Some(Self::ConnectionEnds);
        }
        let error = causes(error).find_map(|cause| cause.downcast_ref::<h2::Error>())?;
        if !error.is_remote() {
            None
        } else if error.is_go_away() {
            // h2 gives this error only to streams that GOAWAY reports as not processed.
            Some(Self::ConnectionEnds)
        } else {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            refused.then_some(Self::Refused)
        }
    }
}

/// The causes of an error, the nearest first.
fn causes(error: &hyper::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}

fn kind_of_hyper(error: &hyper::Error) -> ErrorKind {
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return kind_of(error);
        }
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            return match error.get_io() {
                Some(error) => kind_of(error),
                None if error.is_go_away() && error.is_remote() => ErrorKind::Closed,
                None if error.is_reset() && error.is_remote() => ErrorKind::Reset,
                None => ErrorKind::Protocol,
            };
        }
    }
    if error.is_parse() {
        ErrorKind::Protocol
    } else {
        ErrorKind::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_message_is_its_length_and_itself() {
        assert_eq!(&*grpc_message(b"abc"), b"\0\0\0\0\x03abc");
        assert_eq!(&*grpc_message(b""), b"\0\0\0\0\0");
    }

    #[test]
    fn a_status_of_grpc_is_a_small_number() {
        let status = |text| {
            let value = HeaderValue::from_static(text);
            grpc_status(&HeaderMap::from_iter([(limits::GRPC_STATUS, value)]))
        };
        assert_eq!(status("14"), Some(14));
        assert_eq!(status("OK"), None);
        assert_eq!(grpc_status(&HeaderMap::new()), None);
    }
}
