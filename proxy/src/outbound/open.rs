//! Opens a stream to an endpoint of a cluster, and to another one if the first was not reached.
//! Nothing is tried twice that a peer can have seen.

use std::sync::Arc;

use http::request::Parts;
use weft_transport::http3::{ResponseHalf, SendHalf};

use super::pick::pick;
use crate::directory::{Cluster, Endpoint, LoadGuard};
use crate::failure::{Failure, Reason};
use crate::limits;
use crate::mesh::{dial_failure, open_failure};
use crate::metrics::lock;
use crate::worker::Worker;

/// A stream whose head is sent.
pub(super) struct Opened {
    pub(super) send: SendHalf,
    pub(super) response: ResponseHalf,
    pub(super) load: LoadGuard,
}

/// Endpoints that were tried for one request.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    made: usize,
    last: Option<usize>,
}

impl Attempts {
    /// The last endpoint that was tried.
    pub(super) fn last(&self) -> Option<usize> {
        self.last
    }

    /// Whether another endpoint may be tried when the last one cannot have seen the request.
    pub(super) fn may_go_on(&self) -> bool {
        self.made < limits::CONNECT_ATTEMPTS_MAX
    }
}

/// Picks, dials if needed, sends the head.
pub(super) async fn open(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    head: &Parts,
    end: bool,
    attempts: &mut Attempts,
) -> Result<Opened, Failure> {
    let mut failure = None;
    while attempts.may_go_on() {
        let load = |index: usize| {
            cluster
                .endpoints
                .get(index)
                .map_or(u32::MAX, Endpoint::load)
        };
        let index = pick(
            cluster.endpoints.len(),
            attempts.last,
            load,
            &mut *lock(&worker.random),
        );
        let Some((index, endpoint)) =
            index.and_then(|index| Some((index, cluster.endpoints.get(index)?)))
        else {
            return Err(Failure::new(
                Reason::NoEndpoint,
                format!("no healthy endpoint of {}", cluster.label),
            ));
        };
        attempts.made += 1;
        attempts.last = Some(index);
        let load = endpoint.start();
        let connection = match worker.pool.get(&endpoint.target).await {
            Ok(connection) => connection,
            Err(error) => {
                failure = Some(dial_failure(&error));
                if cluster.endpoints.len() == 1 {
                    // The only one: dialling it again at once would only double the wait.
                    break;
                }
                continue;
            }
        };
        let opened = tokio::time::timeout(limits::STREAM_WAIT, connection.open(head, end)).await;
        match opened {
            Ok(Ok((send, response))) => {
                return Ok(Opened {
                    send,
                    response,
                    load,
                });
            }
            Err(_) => {
                failure = Some(Failure::new(
                    Reason::Overloaded,
                    "the peer allows no more streams",
                ));
            }
            Ok(Err(error)) => {
                failure = Some(open_failure(&error));
                if !error.is_unprocessed() {
                    break;
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| Failure::new(Reason::Internal, "no attempt was made")))
}
