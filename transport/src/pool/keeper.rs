//! The keeper of one peer: dials it when asked, replaces its connection before it becomes unusable, and ends
//! when no request asks for the peer any more.
//!
//! ```text
//! waiting --demand--> dialling --ok--> serving --closed--------------> waiting
//!    ^                   |                |---silent: race until one answers --> serving
//!    |                 failed             |---renewed SVID, GOAWAY, expiry: dial --> serving
//!    +---back-off over---+                '---unused: close ------------> retired
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rand::RngExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Shared, State, Target};
use crate::alone::alone;
use crate::backoff::{Backoff, Spread};
use crate::error::Reason;
use crate::limits;
use crate::liveness::{Liveness, Verdict};
use crate::wire::{ClientConnection, DialError};

pub(super) struct Keeper {
    shared: Arc<Shared>,
    target: Target,
    publish: watch::Sender<State>,
    demand: Arc<Notify>,
    backoff: Backoff,
    credentials: watch::Receiver<u64>,
}

/// A connection that the keeper looks after.
struct KeptConnection {
    http: ClientConnection,
    /// When the SVID that this side presented on it expires.
    own_not_after: SystemTime,
    liveness: Liveness,
}

/// Why a connection is not handed out any more.
enum Ended {
    /// It is closed; the next request dials.
    Closed,
    /// It still carries its streams, but new ones go to a successor.
    Successor(KeptConnection),
    /// It was unused for long; the keeper ends with it.
    Unused,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        target: Target,
        publish: watch::Sender<State>,
        demand: Arc<Notify>,
    ) -> Self {
        let credentials = shared.dialler.swaps();
        Self {
            shared,
            target,
            publish,
            demand,
            backoff: Backoff::new(limits::REDIAL_FIRST, limits::REDIAL_CAP, Spread::Half),
            credentials,
        }
    }

    pub(super) async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        shutdown.run_until_cancelled(self.keep()).await;
        let mut peers = self.shared.peers();
        peers.remove(&self.target);
        // `publish` is dropped with self while the map is locked: no task finds a keeper that is gone.
        drop(self.publish);
    }

    async fn keep(&mut self) {
        let unused = self.shared.dialler.times().unused;
        while timeout(unused, self.demand.notified()).await.is_ok() {
            let mut kept = match self.dial().await {
                Ok(kept) => kept,
                Err(error) => {
                    self.wait_after(error).await;
                    continue;
                }
            };
            self.backoff.reset();
            loop {
                self.publish.send_replace(State::Ready(kept.http.clone()));
                match self.serve(&mut kept).await {
                    Ended::Closed => break,
                    Ended::Successor(next) => {
                        let old = std::mem::replace(&mut kept, next);
                        self.shared
                            .keepers
                            .spawn(alone("an old connection to a peer", retire(old)));
                    }
                    Ended::Unused => {
                        kept.http.close(Reason::NoError, "unused");
                        return;
                    }
                }
            }
            self.publish.send_replace(State::Dialling);
        }
    }

    async fn wait_after(&mut self, error: DialError) {
        if matches!(error, DialError::Closed(_)) {
            // It drains, which is expected, and its successor should be found soon.
            self.publish.send_replace(State::Failed(error));
            sleep(limits::REDIAL_CLOSED).await;
            self.publish.send_replace(State::Dialling);
            return;
        }
        let wait = self.backoff.next(&mut rand::rng());
        tracing::info!(peer = %self.target.address, identity = %self.target.identity,
            %error, retry_in_ms = wait.as_millis(), "peer not reached");
        self.publish.send_replace(State::Failed(error));
        sleep(wait).await;
        self.publish.send_replace(State::Dialling);
    }

    async fn dial(&self) -> Result<KeptConnection, DialError> {
        let dialler = &self.shared.dialler;
        // Read first: a swap during the handshake makes this too early, never too late.
        let own_not_after = dialler.own_not_after();
        let (http, driver) = dialler
            .dial(self.target.address, &self.target.identity)
            .await?;
        let driven = Arc::clone(&self.shared).drive(driver, self.target.clone());
        self.shared
            .keepers
            .spawn(alone("a connection to a peer", driven));
        let liveness = Liveness::new(http.sample());
        Ok(KeptConnection {
            http,
            liveness,
            own_not_after,
        })
    }

    /// Watches the published connection until it is not to be handed out any more.
    async fn serve(&mut self, kept: &mut KeptConnection) -> Ended {
        let unused_timeout = self.shared.dialler.times().unused;
        let mut used_at = Instant::now();
        let mut move_at: Option<Instant> = None;
        loop {
            let busy = kept.http.open_exchanges() > 0;
            if busy {
                used_at = Instant::now();
            }
            let look = Instant::now()
                + if busy {
                    limits::LIVENESS_INTERVAL
                } else {
                    limits::IDLE_INTERVAL
                };
            tokio::select! {
                _ = kept.http.closed() => return Ended::Closed,
                Ok(()) = self.credentials.changed() => {
                    if !self.still_trusted(kept) {
                        kept.http.close(Reason::NoError, "trust removed");
                        return Ended::Closed;
                    }
                    move_at.get_or_insert_with(|| Instant::now() + moving_time(kept));
                }
                () = sleep_until(move_at.unwrap_or(look).min(look)) => {}
                // A new stream: look soon.
                () = self.demand.notified() => {}
            }
            let now = Instant::now();
            if !kept.http.is_usable() || move_at.is_some_and(|at| at <= now) {
                match self.dial().await {
                    Ok(next) => return Ended::Successor(next),
                    // A connection that takes no new streams does not help.
                    Err(error) if !kept.http.is_usable() => self.wait_after(error).await,
                    Err(_) => move_at = Some(now + self.backoff.next(&mut rand::rng())),
                }
            } else if kept.look() == Verdict::Silent {
                match self.race(kept).await {
                    Some(next) => return Ended::Successor(next),
                    None => {
                        kept.http.set_silent(false);
                        kept.http.set_doubtful(false);
                        let again = State::Ready(kept.http.clone());
                        self.publish.send_replace(again);
                    }
                }
            } else if !busy && now.duration_since(used_at) >= unused_timeout {
                return Ended::Unused;
            }
        }
    }

    /// Dials anew at intervals until a new connection exists or the old one answers, whichever comes first.
    /// Attempts that are not needed are dropped, and with them handshakes that the peer has not finished.
    async fn race(&self, kept: &mut KeptConnection) -> Option<KeptConnection> {
        tracing::info!(peer = %self.target.address, identity = %self.target.identity,
            "peer is silent, dialling anew");
        kept.http.set_doubtful(true);
        let mut racers = FuturesUnordered::new();
        let mut started = 0;
        let mut next_start = Instant::now();
        let mut next_look = next_start;
        let refuse_at = next_start + limits::SILENCE_MAX;
        loop {
            tokio::select! {
                biased;
                Some(result) = racers.next(), if !racers.is_empty() => {
                    if let Ok(next) = result {
                        if kept.look() == Verdict::Silent || kept.http.is_closed() {
                            return Some(next);
                        }
                        next.http.close(Reason::NoError, "not needed");
                        return None;
                    }
                }
                _ = kept.http.closed(), if started >= limits::CLOSE_RACERS => return None,
                () = sleep_until(next_start.min(next_look)) => {
                    if kept.look() == Verdict::Alive {
                        return None;
                    }
                    let now = Instant::now();
                    // After so long a silence, a few milliseconds do not matter.
                    next_look = now
                        + if now < refuse_at {
                            limits::RACE_LOOK_INTERVAL
                        } else {
                            limits::LIVENESS_INTERVAL
                        };
                    if now < next_start {
                        continue;
                    }
                    if racers.len() < limits::RACERS_MAX {
                        racers.push(self.dial());
                        started += 1;
                    }
                    let jitter = rand::rng().random_range(0.75..1.25);
                    next_start = now + race_interval(started).mul_f64(jitter);
                    if now >= refuse_at {
                        let error = DialError::Timeout(self.target.address);
                        self.publish.send_replace(State::Failed(error));
                        kept.http.set_silent(true);
                    }
                }
            }
        }
    }

    fn still_trusted(&self, kept: &KeptConnection) -> bool {
        self.shared.dialler.still_trusts(&kept.http)
    }
}

/// How long after this many attempts of a race the next one begins, before jitter.
fn race_interval(started: usize) -> Duration {
    if started < limits::CLOSE_RACERS {
        limits::RACE_INTERVAL
    } else {
        limits::LATE_RACE_INTERVAL
    }
}

/// How long after a swap of its own SVID this connection moves: spread at random, so that a renewal does not
/// redial every peer at once, and well before the peer sees the old SVID expire.
fn moving_time(kept: &KeptConnection) -> Duration {
    let left = kept.own_not_after.duration_since(SystemTime::now());
    let within = left.unwrap_or_default().mul_f64(limits::MOVE_WITHIN);
    within
        .min(limits::MOVE_WITHIN_MAX)
        .mul_f64(rand::rng().random())
}

/// Lets the streams of a replaced connection finish, then closes it. A peer that answers on the successor and
/// stays silent here has lost this connection, so its streams must not wait for the idle timeout. But when a
/// path recovers, the successor may exist before the next probe of this connection was due; requests that
/// wait here are then still answered.
async fn retire(mut kept: KeptConnection) {
    let mut silent_since = None;
    while !kept.http.is_closed() {
        if kept.http.open_exchanges() == 0 {
            kept.http.close(Reason::NoError, "replaced");
            return;
        }
        match kept.look() {
            Verdict::Alive => {
                silent_since = None;
                kept.http.set_silent(false);
                kept.http.set_doubtful(false);
            }
            Verdict::Silent => {
                let since: Instant = *silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= limits::HEALING_TIME {
                    kept.http.set_silent(true);
                }
                if since.elapsed() >= limits::SILENCE_MAX {
                    kept.http.close(Reason::NoError, "silent");
                    return;
                }
            }
        }
        sleep(limits::LIVENESS_INTERVAL).await;
    }
}

impl KeptConnection {
    /// Judges the peer by the connection's counters.
    fn look(&mut self) -> Verdict {
        let now = std::time::Instant::now();
        self.liveness.observe(now, self.http.sample())
    }
}
