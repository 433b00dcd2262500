//! Tells the config service what this sidecar saw of its calls: a stream beside the subscription, on the same
//! connection. A config service without it is told nothing. What is counted stays at its source
//! ([`CallSource`]) until a stream takes it, so the data path waits for no stream.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::limits;
use crate::proto::observation_client::ObservationClient;
use crate::proto::question::Kind as Asked;
use crate::proto::seen::Kind;
use crate::proto::{self, Seen};
use crate::signals::{EdgeCounts, EdgeKey, RecentFilter};

/// Where what is told comes from.
pub trait CallSource: fmt::Debug + Send + Sync + 'static {
    /// What was counted since this was called last.
    fn take(&self) -> Vec<(EdgeKey, EdgeCounts)>;
    /// Requests that failed or were slow, as lines of the access log.
    fn recent(&self, wanted: &RecentFilter) -> Vec<Vec<u8>>;
}

/// What the stream of signals shares with its subscription.
#[derive(Debug)]
pub(super) struct Observed {
    /// The connection of the subscription's stream, while there is one.
    connection: watch::Sender<Option<Channel>>,
    source: watch::Sender<Option<Arc<dyn CallSource>>>,
}

/// Messages that wait for HTTP/2: what was counted, and answers to a few operators at once.
const WAITING: usize = 8;

impl Default for Observed {
    fn default() -> Self {
        Self {
            connection: watch::Sender::new(None),
            source: watch::Sender::new(None),
        }
    }
}

impl Observed {
    /// The subscription has this connection.
    pub(super) fn connected(&self, connection: Channel) {
        self.connection.send_replace(Some(connection));
    }

    /// The subscription has none.
    pub(super) fn disconnected(&self) {
        self.connection.send_replace(None);
    }

    /// From here on this is told.
    pub(super) fn watch(&self, source: Arc<dyn CallSource>) {
        self.source.send_replace(Some(source));
    }

    /// Tells until `shutdown`, and then what is left.
    pub(super) async fn tell(&self, instance: &str, shutdown: &CancellationToken) {
        let mut sources = self.source.subscribe();
        let source = sources.wait_for(Option::is_some);
        let source = match shutdown.run_until_cancelled(source).await {
            Some(Ok(source)) => source.clone(),
            Some(Err(_)) | None => return,
        };
        let Some(source) = source else {
            return;
        };
        let mut connections = self.connection.subscribe();
        let mut taken = Instant::now();
        while !shutdown.is_cancelled() {
            let connected = connections.wait_for(Option::is_some);
            let connection = match shutdown.run_until_cancelled(connected).await {
                Some(Ok(connection)) => connection.clone(),
                Some(Err(_)) | None => return,
            };
            let Some(connection) = connection else {
                continue;
            };
            if taken.elapsed() > limits::SIGNALS_KEPT {
                // It would be shown as what came just now.
                source.take();
            }
            let stream = Stream {
                source: &*source,
                instance,
                taken: &mut taken,
            };
            let Err(status) = stream.run(connection, &mut connections, shutdown).await else {
                return;
            };
            tracing::debug!(
                reason = status.message(),
                "the config service is not told of calls"
            );
            let code = status.code();
            // One that does not know this stream is not asked again: perhaps the next one does.
            let again = (code != Code::Unimplemented).then_some(match code == Code::Cancelled {
                true => Duration::ZERO,
                false => limits::SIGNALS_INTERVAL,
            });
            tokio::select! {
                () = shutdown.cancelled() => {}
                _ = connections.changed() => {}
                () = sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
    }
}

struct Stream<'a> {
    source: &'a dyn CallSource,
    instance: &'a str,
    taken: &'a mut Instant,
}

impl Stream<'_> {
    /// The answer to a question, if it wants one.
    fn answer(&self, question: proto::Question) -> Option<Seen> {
        match question.kind? {
            Asked::Recent(wanted) => {
                let lines = self.source.recent(&wanted.into());
                Some(answer(question.id, lines))
            }
        }
    }

    /// `Ok` means shutdown.
    async fn run(
        self,
        connection: Channel,
        connections: &mut watch::Receiver<Option<Channel>>,
        shutdown: &CancellationToken,
    ) -> Result<(), Status> {
        let (messages, outgoing) = mpsc::channel(WAITING);
        // Opened by its first message: a config service answers before it has read one, but need not.
        let opening = async {
            let mut client = ObservationClient::new(connection);
            let opened = client.observe(ReceiverStream::new(outgoing)).await?;
            Ok::<_, Status>(opened.into_inner())
        };
        let opened = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            opened = timeout(limits::CONNECT_TIMEOUT, opening) => opened,
        };
        let mut questions = opened.map_err(|_| Status::deadline_exceeded("no answer"))??;
        let mut due = interval(limits::SIGNALS_INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                // The subscription goes on with another connection, or waits for one.
                Ok(()) = connections.changed() => return Err(Status::cancelled("the connection was left")),
                _ = due.tick() => {}
                question = questions.message() => match question? {
                    Some(question) => {
                        // One that finds no room is not answered: the service does not read.
                        if let (Some(answer), Ok(room)) = (self.answer(question), messages.try_reserve()) {
                            room.send(answer);
                        }
                        continue;
                    }
                    None => return Err(Status::unavailable("the config service ended the stream")),
                },
            }
            // While the stream takes none, what comes is counted together.
            if let Ok(room) = messages.try_reserve() {
                *self.taken = Instant::now();
                room.send(message(self.instance, self.source.take()));
            }
        }
        let last = message(self.instance, self.source.take());
        if timeout(limits::SHUTDOWN_DEADLINE, messages.send(last))
            .await
            .is_ok()
        {
            drop(messages);
            // The service ends the stream when it has read all of it.
            let end = async { while let Ok(Some(_)) = questions.message().await {} };
            let _ = timeout(limits::SHUTDOWN_DEADLINE, end).await;
        }
        Ok(())
    }
}

/// What is told of requests; the whole of a message stays below what a config service takes.
fn answer(id: u64, calls: Vec<Vec<u8>>) -> Seen {
    let answer = proto::Answer {
        id,
        calls,
        over: true,
    };
    Seen {
        kind: Some(Kind::Answer(answer)),
    }
}

/// What was counted. Edges that a message has no room for are told together, the busiest by themselves.
fn message(instance: &str, mut counted: Vec<(EdgeKey, EdgeCounts)>) -> Seen {
    counted.sort_unstable_by_key(|(_, counts)| std::cmp::Reverse(counts.requests + counts.opened));
    let (mut edges, mut others) = (Vec::new(), EdgeCounts::default());
    let mut room = limits::SIGNALS_BYTES_MAX - limits::SIGNALS_OTHERS_BYTES;
    for (edge, counts) in &counted {
        let message = edge.to_message(counts);
        let bytes = message.encoded_len() + limits::SIGNALS_FIELD_BYTES;
        if edges.len() < limits::SIGNAL_EDGES_EACH && bytes <= room {
            room -= bytes;
            edges.push(message);
        } else {
            others.merge(counts);
        }
    }
    let signals = proto::Signals {
        instance: instance.to_owned(),
        edges,
        others: (!others.is_empty()).then(|| (&others).into()),
    };
    Seen {
        kind: Some(Kind::Signals(signals)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::signals::Side;

    #[test]
    fn a_message_stays_below_what_a_config_service_takes_and_no_call_is_lost() {
        let long: Arc<str> = "x".repeat(limits::SIGNAL_NAME_LENGTH_MAX).into();
        let counted = (1..=limits::SIGNAL_EDGES_EACH as u64).map(|number| {
            let edge = EdgeKey {
                side: Side::Caller,
                from: Arc::clone(&long),
                from_identity: Arc::clone(&long),
                to: number.to_string().into(),
                to_identity: Arc::clone(&long),
                route: Arc::clone(&long),
            };
            let counts = EdgeCounts {
                requests: number,
                ..EdgeCounts::default()
            };
            (edge, counts)
        });
        let seen = message("1", counted.collect());
        assert!(seen.encoded_len() <= limits::SIGNALS_BYTES_MAX);
        let Some(Kind::Signals(signals)) = seen.kind else {
            panic!()
        };
        let requests =
            |counts: &Option<proto::EdgeCounts>| counts.as_ref().map_or(0, |one| one.requests);
        let told: u64 = signals
            .edges
            .iter()
            .map(|edge| requests(&edge.counts))
            .sum();
        let all = limits::SIGNAL_EDGES_EACH as u64;
        assert_eq!(told + requests(&signals.others), all * (all + 1) / 2);
        // The busiest are told by themselves.
        assert_eq!(requests(&signals.edges[0].counts), all);
    }
}
