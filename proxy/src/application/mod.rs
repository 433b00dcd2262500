//! The client of the application behind this sidecar, and of services outside of the mesh, over HTTP/1.1 (a
//! pool for each caller) or HTTP/2 (a few connections for each caller).
//!
//! One value per worker and served service, or address outside (`outside.rs`). The request was authorised
//! before (`inbound/authorise.rs`, `outbound/outside.rs`). `body.rs` is a request on its way, `head.rs` the
//! form of its head, `interim.rs` its interim responses, `pace.rs` how quickly it comes.
//! [`crate::http::response`] says after which responses a connection of HTTP/1.1 may be used again; `idle.rs`
//! decides for which caller, and `habits.rs` for which requests. Callers do not share connections of HTTP/2
//! either: windows and streams are counted per connection, so one caller could use them all up.
//!
//! A request whose connection ends before an answer is sent again if that is safe: [`Lost`] holds what is
//! known, [`Application::allow_resend`] decides.

mod answer;
pub(crate) mod body;
#[cfg(test)]
mod fuzz_tests;
mod greeting;
mod habits;
pub(crate) mod head;
mod idle;
pub(crate) mod interim;
mod lost;
mod multiplexed;
pub(crate) mod outside;
pub(crate) mod pace;
mod places;
mod reached;
mod read_to_end;
mod stream;
mod upload;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use weft_config::settings::{LocalAddress, Timeouts};
use weft_transport::alone::alone;
use weft_transport::tasks::Tasks;

use crate::failure::{Failure, Reason};
use crate::http::upload::ReplayMemory;
use crate::limits;
use crate::outside::{Link, Speaks, watch};
use crate::resilience::destination::{Counts, Event};
use crate::resilience::limit::Caller;
use crate::stream::{ApplicationStream, Watch};
use body::{Outgoing, OutgoingBody, RequestBody};
use greeting::{Greeted, Greeting};
use habits::Habits;
use idle::{Fit, IdleConnections};
use interim::Interims;
use lost::{Fate, Lost, UnprocessedReason, exchange_failure, stream_failure};
use multiplexed::{KeptBounds, MultiplexedConnections, Next, Opening};
use places::{Place, Places};
use read_to_end::{ReadToEnd, WriteFailed};
use stream::{Stream, StreamConnection, StreamPlace};
use weft_transport::locks::lock;

pub(crate) use answer::{AnswerBody, Answered};
pub(crate) use reached::Reached;
pub(crate) use upload::{Uploading, poll_upload, while_uploading};

/// The connections of one worker to one application.
pub(crate) struct Application {
    reached: Reached,
    connect: Duration,
    idle: Mutex<IdleConnections<Caller, Connection>>,
    habits: Mutex<Habits>,
    multiplexed: Mutex<MultiplexedConnections<Caller, StreamConnection, Failure>>,
    /// For all connections but those of tunnels.
    places: Arc<Places<Caller>>,
    counts: Arc<Counts>,
    /// For bodies that may be sent again.
    room: Arc<ReplayMemory>,
    tasks: Tasks,
}

/// A connection of HTTP/1.1. Dropping it closes it, whatever is under way on it.
struct Connection {
    sender: http1::SendRequest<OutgoingBody>,
    watch: Watch,
    write_failed: WriteFailed,
    /// Answers that it carried.
    answers: u32,
    _driver: Driver,
    _place: Place<Caller>,
}

/// The task that drives a connection.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Whether it may carry a request: hyper is ready, and no bytes and no end from the application wait.
    fn is_quiet(&self) -> bool {
        self.sender.is_ready() && !self.write_failed.is() && self.watch.is_quiet()
    }
}

/// A connection whose response is being read.
pub(crate) struct Lease(Leased);

/// The state of a response until it was read.
enum Leased {
    /// Of HTTP/1.1.
    Exchange {
        application: Arc<Application>,
        caller: Caller,
        connection: Connection,
    },
    /// Of HTTP/2, whose streams are separate: this only counts.
    Stream(#[expect(dead_code, reason = "held, not read")] StreamPlace),
}

impl Lease {
    /// Returns the connection after a response that lets it live on. Dropping the lease closes it.
    pub(crate) async fn give_back(self) {
        let Leased::Exchange {
            application,
            caller,
            mut connection,
        } = self.0
        else {
            return;
        };
        // The connection's task becomes ready in its next turn.
        let ready = connection.sender.ready();
        if tokio::time::timeout(limits::APPLICATION_READY_WAIT, ready)
            .await
            .is_ok_and(|ready| ready.is_ok())
        {
            lock(&application.idle).put(caller, connection, Instant::now());
            // A request that waits for a place can have this one.
            application.places.queue.free();
        }
    }
}

impl Application {
    /// No connection yet. Connections are driven by `tasks`; `counts` is of the service.
    pub(crate) fn new(
        reached: Reached,
        timeouts: &Timeouts,
        counts: Arc<Counts>,
        room: Arc<ReplayMemory>,
        tasks: Tasks,
    ) -> Self {
        Self {
            reached,
            connect: timeouts.application_connect,
            idle: Mutex::new(IdleConnections::new(
                timeouts.application_idle,
                limits::APPLICATION_IDLE_CONNECTIONS_MAX,
            )),
            habits: Mutex::default(),
            multiplexed: Mutex::new(MultiplexedConnections::new(KeptBounds {
                life: limits::APPLICATION_HTTP2_IDLE,
                callers: limits::APPLICATION_HTTP2_CALLERS_MAX,
                each: limits::APPLICATION_HTTP2_CONNECTIONS_EACH,
            })),
            places: Places::new(limits::APPLICATION_CONNECTIONS_MAX),
            counts,
            room,
            tasks,
        }
    }

    /// Where it listens; none outside of the mesh.
    pub(crate) fn address(&self) -> Option<&LocalAddress> {
        self.reached.address()
    }

    /// A raw connection, for tunnels to the application.
    pub(crate) async fn connect(&self) -> Result<ApplicationStream, Failure> {
        self.reached.connect(self.connect).await
    }

    /// A connection that speaks this.
    pub(crate) async fn link(&self, speaks: Speaks) -> Result<Link, Failure> {
        self.reached.link(speaks, self.connect).await
    }

    /// A request to be sent here.
    pub(crate) fn outgoing(&self, request: Request<RequestBody>) -> Outgoing {
        Outgoing::new(request, &self.room)
    }

    /// Sends a request of `caller` over HTTP/1.1.
    pub(crate) async fn send(
        self: &Arc<Self>,
        caller: &Caller,
        request: &mut Outgoing,
    ) -> Result<Answered, Failure> {
        let mut resends = 0;
        loop {
            let mut connection = self.connection(caller, request, resends).await?;
            let reused = connection.answers > 0;
            let keep = reused && request.is_idempotent();
            let (head, body) = request.take(keep)?;
            let to_send = Request::from_parts(head, body);
            let handed = Instant::now();
            let mut refused = match connection.sender.try_send_request(to_send).await {
                Ok(response) => {
                    connection.answers = connection.answers.saturating_add(1);
                    if reused {
                        lock(&self.habits).kept();
                    }
                    request.settle();
                    let leased = Leased::Exchange {
                        application: Arc::clone(self),
                        caller: caller.clone(),
                        connection,
                    };
                    let response = response.map(AnswerBody::of_exchange);
                    return Ok(Answered::new(response, leased, handed, None));
                }
                Err(refused) => refused,
            };
            let unsent = refused.take_message();
            let lost = Lost::of_exchange(refused.error(), unsent.is_some(), reused);
            if let Some(unsent) = unsent {
                request.put_back(unsent);
            }
            if reused && lost.fate != Fate::Final {
                lock(&self.habits).closed(Instant::now());
            }
            self.allow_resend(lost, request, &mut resends)?;
        }
    }

    /// Sends a request of `caller` over HTTP/2 with prior knowledge. `interims` takes interim responses.
    pub(crate) async fn send_multiplexed(
        self: &Arc<Self>,
        caller: &Caller,
        request: &mut Outgoing,
        interims: Option<&Interims>,
    ) -> Result<Answered, Failure> {
        let mut resends = 0;
        loop {
            let stream = self.stream(caller).await?;
            let keep = resends < limits::APPLICATION_RESENDS_MAX;
            let (head, body) = request.take(keep)?;
            match stream.send(head, body, interims).await {
                Ok(answered) => {
                    request.settle();
                    return Ok(answered);
                }
                Err(lost) => self.allow_resend(lost, request, &mut resends)?,
            }
        }
    }

    /// Allows a request that got no answer to be sent again. A request that the application has not processed
    /// always may be; one that it may see twice may be if the application sent no byte of an answer. All of
    /// its body must still be kept, and the number of resends is bounded.
    fn allow_resend(
        &self,
        lost: Lost,
        request: &Outgoing,
        resends: &mut u32,
    ) -> Result<(), Failure> {
        let event = match lost.fate {
            Fate::Unprocessed(UnprocessedReason::GoAway) => Event::ResentGoAway,
            Fate::Unprocessed(UnprocessedReason::Refused) => Event::ResentRefused,
            Fate::Unprocessed(UnprocessedReason::Closed) => Event::ResentClosed,
            Fate::Unanswered if request.is_idempotent() => Event::ResentUnanswered,
            Fate::Unanswered | Fate::Final => return Err(lost.failure),
        };
        if *resends >= limits::APPLICATION_RESENDS_MAX || !request.is_whole() {
            return Err(lost.failure);
        }
        *resends += 1;
        self.counts.add(event);
        Ok(())
    }

    /// A connection of HTTP/1.1 for a request: an idle one of its caller that is likely to stay open, or a
    /// new one. A request that already met a dead connection gets a new one.
    async fn connection(
        self: &Arc<Self>,
        caller: &Caller,
        request: &Outgoing,
        resends: u32,
    ) -> Result<Connection, Failure> {
        if resends == 0
            && let Some(idle) = self.idle_connection(caller, request.is_idempotent())
        {
            return Ok(idle);
        }
        let place = match self.places.take(caller) {
            Some(place) => place,
            // Boxed, because few requests need it and the others should not carry its size.
            None => Box::pin(self.place(caller)).await?,
        };
        self.open(place).await
    }

    /// An idle connection of the caller. `repeatable`: the request may be sent again if it is dead.
    fn idle_connection(&self, caller: &Caller, repeatable: bool) -> Option<Connection> {
        let now = Instant::now();
        let mut habits = lock(&self.habits);
        lock(&self.idle).take(caller, now, |connection, idle| {
            if !repeatable && !habits.is_trusted(connection.answers, idle, now) {
                return Fit::NotNow;
            }
            if connection.is_quiet() {
                return Fit::Now;
            }
            habits.closed(now);
            Fit::Never
        })
    }

    /// Waits for a place for one more connection; an idle one, of any caller, is closed to make room.
    async fn place(&self, caller: &Caller) -> Result<Place<Caller>, Failure> {
        let full = || {
            self.counts.add(Event::RefusedApplicationConnections);
            no_room("has as many connections as it may have")
        };
        self.counts.add(Event::WaitedApplicationConnections);
        let waiting = self.places.queue.join().ok_or_else(full)?;
        loop {
            let ticket = self.places.queue.ticket();
            let oldest = lock(&self.idle).take_oldest();
            drop(oldest);
            if let Some(place) = self.places.take(caller) {
                return Ok(place);
            }
            if !waiting.turn(ticket).await {
                return Err(full());
            }
        }
    }

    /// A stream of HTTP/2 for a request of the caller: on a connection that has room, or on a new one, while
    /// there may be more.
    async fn stream(self: &Arc<Self>, caller: &Caller) -> Result<Stream, Failure> {
        match self.next(caller) {
            Next::Stream(stream) => Ok(stream),
            // Boxed, because few requests need it and the others should not carry its size.
            next @ (Next::Opening { .. } | Next::Full) => {
                Box::pin(self.wait_for_stream(caller, next)).await
            }
        }
    }

    /// Waits for a connection that is being made, or, if none may be made, for a stream that ends.
    async fn wait_for_stream(
        self: &Arc<Self>,
        caller: &Caller,
        mut next: Next<Stream, Failure>,
    ) -> Result<Stream, Failure> {
        let full = || {
            self.counts.add(Event::RefusedApplicationStreams);
            no_room("allows no more streams")
        };
        let mut waiting = None;
        loop {
            let ticket = self.places.queue.ticket();
            match next {
                Next::Stream(stream) => return Ok(stream),
                Next::Opening { opening, others } => match opening.await {
                    Ok(()) => {
                        next = self.next(caller);
                        continue;
                    }
                    Err(failure) if !others => return Err(failure),
                    // Those that are there will have room again.
                    Err(_) => {}
                },
                Next::Full => {}
            }
            if waiting.is_none() {
                self.counts.add(Event::WaitedApplicationStreams);
            }
            let waiting = match &waiting {
                Some(waiting) => waiting,
                None => waiting.insert(self.places.queue.join().ok_or_else(full)?),
            };
            if !waiting.turn(ticket).await {
                return Err(full());
            }
            next = self.next(caller);
        }
    }

    fn next(self: &Arc<Self>, caller: &Caller) -> Next<Stream, Failure> {
        lock(&self.multiplexed).next(
            caller,
            Instant::now(),
            StreamConnection::is_usable,
            StreamConnection::stream,
            || self.opening(caller.clone()),
        )
    }

    /// Makes one more connection of HTTP/2; all requests that wait for it share it.
    fn opening(self: &Arc<Self>, caller: Caller) -> Opening<Failure> {
        let application = Arc::clone(self);
        let making = async move {
            let connection = application.open_multiplexed(&caller).await?;
            lock(&application.multiplexed).opened(&caller, connection, Instant::now());
            Ok(())
        };
        making.boxed().shared()
    }

    /// Drops connections that were idle for too long. Called about once a second.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut habits = lock(&self.habits);
        lock(&self.idle).sweep(now, |connection| {
            let closed = connection.sender.is_closed();
            if closed {
                habits.closed(now);
            }
            !closed
        });
        drop(habits);
        lock(&self.multiplexed).sweep(now);
    }

    async fn open(&self, place: Place<Caller>) -> Result<Connection, Failure> {
        let stream = self.link(Speaks::Http1).await?;
        let watch = watch(&stream).map_err(|error| self.reached.failure(&error))?;
        let (stream, write_failed) = ReadToEnd::new(stream);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(limits::HEAD_BYTES_MAX)
            .max_headers(limits::FIELDS_MAX)
            // RFC 9112 section 5.1: a proxy removes white space before the colon of a response's field.
            .allow_spaces_after_header_name_in_responses(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| exchange_failure(&error))?;
        // Its errors reach the request that waits for a response. Errors of an idle connection affect no
        // request.
        let driver = Driver(self.tasks.spawn(alone(
            "a connection to the application",
            connection.map(drop),
        )));
        Ok(Connection {
            sender,
            watch,
            write_failed,
            answers: 0,
            _driver: driver,
            _place: place,
        })
    }

    async fn open_multiplexed(&self, caller: &Caller) -> Result<StreamConnection, Failure> {
        let place = match self.places.take(caller) {
            Some(place) => place,
            None => self.place(caller).await?,
        };
        let (stream, greeting) = Greeted::new(self.link(Speaks::Http2).await?);
        let (stream, _) = ReadToEnd::new(stream);
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .max_header_list_size(limits::HTTP2_HEAD_BYTES_READ)
            .initial_window_size(limits::HTTP2_OF_APPLICATION.stream_window)
            .initial_connection_window_size(limits::HTTP2_OF_APPLICATION.connection_window)
            // Until its SETTINGS say how many it allows.
            .initial_max_send_streams(0)
            .handshake(stream)
            .await
            .map_err(|error| stream_failure(&error))?;
        // It ends after its last stream once no more can begin.
        let driven = connection.map(|_| drop(place));
        self.tasks
            .spawn(alone("a connection to the application", driven));
        // No byte of a caller goes to an application before it has shown that it speaks HTTP/2: an HTTP/1.1
        // application would read frames as lines of text.
        match tokio::time::timeout(self.connect, greeting.heard()).await {
            Ok(Greeting::Http2) => Ok(StreamConnection::new(sender, Arc::clone(&self.places))),
            Ok(Greeting::Other) | Err(_) => Err(Failure::new(
                Reason::ResponseMalformed,
                format!("{} does not speak HTTP/2", self.reached),
            )),
        }
    }
}

/// The application allowed no further request for [`limits::APPLICATION_WAIT`].
fn no_room(why: &str) -> Failure {
    Failure::new(Reason::Overloaded, format!("the application {why}"))
}
