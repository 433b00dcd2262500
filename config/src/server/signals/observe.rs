//! One sidecar's stream of what it saw.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use weft_ca::connection::Caller;
use weft_transport::alone::alone;
use weft_transport::identity::{PeerId, SpiffeId};
use weft_transport::shares::Place;
use weft_transport::tasks::Tasks;

use super::Signals;
use super::questions::ToSidecar;
use crate::limits;
use crate::proto::observation_server::Observation;
use crate::proto::seen::Kind;
use crate::proto::{Question, Seen};
use crate::server::pace::Pace;

/// The streams of all sidecars.
pub(in crate::server) struct Observations {
    pub(in crate::server) signals: Arc<Signals>,
    pub(in crate::server) tracker: Tasks,
    pub(in crate::server) shutdown: CancellationToken,
}

type Questions = Pin<Box<dyn Stream<Item = Result<Question, Status>> + Send>>;

#[tonic::async_trait]
impl Observation for Observations {
    type ObserveStream = Questions;

    async fn observe(
        &self,
        request: Request<Streaming<Seen>>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let caller = request.extensions().get::<Caller>();
        let peer = caller.and_then(|caller| caller.peer.clone());
        let peer = peer.ok_or_else(|| Status::unauthenticated("no identity was proven"))?;
        let seen = request.into_inner();
        let (questions, asked) = mpsc::channel(limits::QUESTIONS_QUEUED);
        let (signals, shutdown) = (Arc::clone(&self.signals), self.shutdown.clone());
        let serving = async move {
            let place = signals.streams.enter(peer.id().clone());
            let ended = tokio::select! {
                () = shutdown.cancelled() => Err(Status::unavailable("the config service stops")),
                ended = run(&signals, &peer, &place, questions.clone(), seen) => ended,
            };
            if let Err(status) = ended {
                tracing::debug!(peer = %peer.id(), reason = status.message(), "a sidecar tells no more of its calls");
                // If it does not read, it learns of it by the end of the stream.
                let told = questions.send(Err(status));
                let _ = timeout(limits::GOODBYE_TIMEOUT, told).await;
            }
        };
        self.tracker.spawn(alone("a stream of signals", serving));
        Ok(Response::new(Box::pin(ReceiverStream::new(asked))))
    }
}

async fn run(
    signals: &Arc<Signals>,
    peer: &PeerId,
    place: &Place<SpiffeId>,
    questions: ToSidecar,
    mut seen: Streaming<Seen>,
) -> Result<(), Status> {
    let reporting = signals.begin(peer.id(), questions);
    let mut pace = Pace::new(Instant::now());
    let life = peer.not_after().duration_since(SystemTime::now());
    let expiry = sleep(life.unwrap_or_default());
    tokio::pin!(expiry);
    loop {
        if let Some(until) = pace.paused(Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
        let message = tokio::select! {
            () = &mut expiry => {
                return Err(Status::unauthenticated("the certificate expired: connect again"));
            }
            () = place.taken_back() => {
                return Err(Status::resource_exhausted("too many sidecars are connected"));
            }
            message = timeout(limits::SILENCE_MAX, seen.message()) => message
                .map_err(|_| Status::deadline_exceeded("the sidecar has told nothing for too long"))??,
        };
        let Some(message) = message else {
            return Ok(());
        };
        pace.count(Instant::now());
        match message.kind {
            Some(Kind::Signals(told)) => signals.take(peer.id(), told, Instant::now()),
            Some(Kind::Answer(answer)) => signals.questions.answer(reporting.stream, answer),
            // A later sidecar may send what this service does not know.
            None => {}
        }
    }
}
