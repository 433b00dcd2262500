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
    /// Which endpoint of the cluster took it.
    pub(super) index: usize,
    pub(super) load: LoadGuard,
}

/// Endpoints that were tried for one request.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    made: usize,
    failed: Option<usize>,
}

impl Attempts {
    /// Notes that the endpoint failed before it can have seen the request; false if there may be no other try.
    pub(super) fn failed(&mut self, index: usize) -> bool {
        self.failed = Some(index);
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
    while attempts.made < limits::CONNECT_ATTEMPTS_MAX {
        let load = |index: usize| {
            cluster
                .endpoints
                .get(index)
                .map_or(u32::MAX, Endpoint::load)
        };
        let index = pick(
            cluster.endpoints.len(),
            attempts.failed,
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
        let load = endpoint.start();
        let connection = match worker.pool.get(&endpoint.target).await {
            Ok(connection) => connection,
            Err(error) => {
                failure = Some(dial_failure(&error));
                if attempts.failed.replace(index) == Some(index) || cluster.endpoints.len() == 1 {
                    // The only one: dialling it again at once would only double the wait.
                    break;
                }
                continue;
            }
        };
        match connection.open(head, end).await {
            Ok((send, response)) => {
                return Ok(Opened {
                    send,
                    response,
                    index,
                    load,
                });
            }
            Err(error) => {
                failure = Some(open_failure(&error));
                if !error.is_unprocessed() {
                    break;
                }
                attempts.failed = Some(index);
            }
        }
    }
    Err(failure.unwrap_or_else(|| Failure::new(Reason::Internal, "no attempt was made")))
}
