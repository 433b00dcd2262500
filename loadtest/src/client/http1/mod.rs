//! HTTP/1.1, written to cost no more than wrk's: a request is bytes that were formatted once, an answer is
//! parsed in place and its body dropped.
//!
//! [`response`] finds where an answer ends; this file moves bytes. Not here: when a request is sent.

mod connection;
mod response;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, header};

use self::connection::Connection;
use super::dial::Dial;
use super::judge::Judge;
use super::lost::Lost;
use crate::clock::Clock;
use crate::plan::target::Target;
use crate::plan::{Plan, Reuse};
use crate::sample::{ErrorKind, Outcome, Sample};

/// The values that all lanes share.
pub(crate) struct Client {
    dial: Dial,
    requests: Vec<Request>,
    reuse: Reuse,
    judge: Judge,
    endpoints: usize,
}

/// A request, ready to be written.
struct Request {
    bytes: Bytes,
    endpoint: usize,
    /// Whether it is a HEAD request, whose answer has no body.
    head: bool,
    /// Whether it may be processed twice (RFC 9110 section 9.2.2).
    idempotent: bool,
}

impl Client {
    pub(crate) fn new(plan: &Plan, dial: Dial) -> Self {
        let requests = plan.targets.list().iter().map(|target| Request {
            bytes: format_request(plan, target),
            endpoint: target.endpoint,
            head: *target.method(&plan.message) == Method::HEAD,
            idempotent: target.method(&plan.message).is_idempotent(),
        });
        Self {
            dial,
            requests: requests.collect(),
            reuse: plan.reuse,
            judge: Judge::new(&plan.expectations),
            endpoints: plan.targets.endpoints.len(),
        }
    }
}

/// One request at a time, on a kept connection for each endpoint.
pub(crate) struct Lane {
    client: Arc<Client>,
    connections: Vec<Option<Connection>>,
}

impl Lane {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        let connections = std::iter::repeat_with(|| None).take(client.endpoints);
        Self {
            connections: connections.collect(),
            client,
        }
    }

    /// Whether an endpoint has a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.connections.iter().any(Option::is_some)
    }

    /// Sends the request to target `target` and reads the answer. Dropping it half-way gives up the
    /// connection.
    pub(crate) async fn exchange(
        &mut self,
        target: usize,
        clock: Clock,
        sample: &mut Sample,
    ) -> Result<Outcome, Lost> {
        let client = &*self.client;
        let request = client.requests.get(target).ok_or(ErrorKind::Io)?;
        let slot = self.connections.get_mut(request.endpoint);
        let slot = slot.ok_or(ErrorKind::Io)?;
        // A connection that the peer closed in between is of no use.
        let kept = slot.take().filter(Connection::is_alive);
        sample.reused = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::new(client.dial.open(request.endpoint, clock, sample).await?),
        };
        let answer = connection.exchange(request, &client.judge, clock, sample);
        let (outcome, keep_alive) = answer.await?;
        if keep_alive && client.reuse == Reuse::KeepAlive {
            *slot = Some(connection);
        }
        Ok(outcome)
    }
}

/// The bytes of a request (RFC 9112 section 3).
fn format_request(plan: &Plan, target: &Target) -> Bytes {
    let message = &plan.message;
    let mut bytes = Vec::new();
    let mut line = |parts: &[&[u8]]| {
        for part in parts {
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(b"\r\n");
    };
    let method = target.method(message);
    line(&[
        method.as_str().as_bytes(),
        b" ",
        target.path().as_bytes(),
        b" HTTP/1.1",
    ]);
    if !message.headers.contains_key(header::HOST) {
        line(&[b"Host: ", target.authority().as_bytes()]);
    }
    if !message.headers.contains_key(header::USER_AGENT) {
        line(&[b"User-Agent: ", super::USER_AGENT.as_bytes()]);
    }
    for (name, value) in &message.headers {
        line(&[name.as_str().as_bytes(), b": ", value.as_bytes()]);
    }
    // A method for which content has a meaning says that there is none (RFC 9110 section 8.6).
    let needs_length = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    if !message.body.is_empty() || needs_length {
        let length = message.body.len().to_string();
        line(&[b"Content-Length: ", length.as_bytes()]);
    }
    if plan.reuse == Reuse::NewConnections {
        line(&[b"Connection: close"]);
    }
    line(&[]);
    bytes.extend_from_slice(&message.body);
    bytes.into()
}
