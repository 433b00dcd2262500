//! What sidecars tell of their calls, for operators. [`Signals`] is what all streams and calls share:
//! `past.rs` keeps what came (its rings are in `rings.rs`), `intake.rs` judges what a sidecar says,
//! `observe.rs` is a sidecar's stream, `questions.rs` what operators ask of sidecars, and `view.rs` sums up
//! for operators. Nothing of it is in the store: a config service that restarts knows what came since then.

mod intake;
pub(super) mod observe;
mod past;
mod questions;
mod rings;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;
use tonic::Status;
use weft_transport::identity::SpiffeId;
use weft_transport::locks;
use weft_transport::shares::Places;

use crate::limits;
use crate::operator::{RecentCalls, SidecarCall, Stat, StatRequest};
use crate::proto;
use crate::proto::question::Kind;
use crate::signals::RecentFilter;
use intake::Told;
use past::Past;
use questions::{Questions, ToSidecar};
pub(super) use view::Declared;

/// See the module.
#[derive(Debug)]
pub(super) struct Signals {
    started: Instant,
    /// Streams of sidecars.
    streams: Places<SpiffeId>,
    questions: Questions,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    past: Past,
    /// How many streams each identity has.
    reporting: HashMap<SpiffeId, usize>,
    /// Edges that a sidecar told of and that it cannot have seen.
    refused: u64,
}

/// How much is kept, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) streams: usize,
    pub(super) edges: usize,
    pub(super) bytes: usize,
    pub(super) spilled: u64,
    pub(super) refused: u64,
}

impl Signals {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            streams: Places::new(limits::SIGNAL_STREAMS),
            questions: Questions::default(),
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        locks::lock(&self.inner)
    }

    /// A sidecar of this identity tells of its calls from here on, until what is returned is dropped.
    fn begin(self: &Arc<Self>, identity: &SpiffeId, questions: ToSidecar) -> Reporting {
        *self.lock().reporting.entry(identity.clone()).or_default() += 1;
        Reporting {
            signals: Arc::clone(self),
            identity: identity.clone(),
            stream: self.questions.join(identity, questions),
        }
    }

    /// Takes what a sidecar tells.
    fn take(&self, identity: &SpiffeId, message: proto::Signals, now: Instant) {
        let told = Told::by(identity, message);
        let slot = past::slot_at(now.saturating_duration_since(self.started));
        let mut inner = self.lock();
        inner.refused += told.refused;
        for (edge, counts) in told.edges {
            let is_told_by_caller = edge.side == crate::signals::Side::Service
                && inner.knows_caller(&edge.from_identity);
            if !is_told_by_caller {
                inner.past.note(slot, edge, &counts);
            }
        }
        for (sidecar, counts) in told.sides {
            inner.past.note_sidecar(slot, sidecar, &counts);
        }
        inner.past.tidy(slot);
    }

    /// The calls that an operator asks for. `declared` are the edges that sidecars name, `connected` the
    /// identities of those that are connected.
    pub(super) fn stat(
        &self,
        request: &StatRequest,
        declared: &[Declared],
        connected: &[SpiffeId],
        now: Instant,
    ) -> Stat {
        let now = now.saturating_duration_since(self.started);
        let mut inner = self.lock();
        inner.past.tidy(past::slot_at(now));
        let (covered, rows) = view::rows(&inner.past, now, request, declared);
        let silent = connected
            .iter()
            .filter(|one| !inner.reporting.contains_key(*one));
        Stat {
            window_ms: u64::try_from(covered.as_millis()).unwrap_or(u64::MAX),
            rows,
            reporting: inner.reporting.values().sum(),
            not_reporting: silent.map(ToString::to_string).collect(),
            spilled: inner.past.spilled,
            forgotten: inner.past.forgotten,
        }
    }

    /// What sidecars keep of requests that failed or were slow.
    pub(super) async fn recent(&self, wanted: &RecentFilter) -> Result<RecentCalls, Status> {
        let heard = self.questions.ask(Kind::Recent(wanted.into())).await?;
        let calls = heard.calls.into_iter().map(|(identity, line)| SidecarCall {
            sidecar: identity.to_string(),
            call: serde_json::from_slice(&line).unwrap_or_default(),
        });
        Ok(RecentCalls {
            calls: calls.collect(),
            asked: heard.asked,
            silent: heard.silent.iter().map(ToString::to_string).collect(),
        })
    }

    /// How much is kept.
    pub(super) fn size(&self) -> Size {
        let inner = self.lock();
        let (edges, bytes) = inner.past.size();
        Size {
            streams: inner.reporting.values().sum(),
            edges,
            bytes,
            spilled: inner.past.spilled,
            refused: inner.refused,
        }
    }
}

impl Inner {
    /// Whether the caller's sidecar tells of its calls itself.
    fn knows_caller(&self, identity: &str) -> bool {
        let id = identity.parse::<SpiffeId>();
        id.is_ok_and(|id| self.reporting.contains_key(&id))
    }
}

/// A stream that is open.
#[derive(Debug)]
struct Reporting {
    signals: Arc<Signals>,
    identity: SpiffeId,
    /// Its number among those that may be asked.
    stream: u64,
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.signals.questions.leave(self.stream);
        let mut inner = self.signals.lock();
        if let Some(count) = inner.reporting.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                inner.reporting.remove(&self.identity);
            }
        }
    }
}
