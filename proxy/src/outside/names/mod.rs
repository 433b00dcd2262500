//! The addresses of names outside of the mesh: resolved when a table names them, and again when an answer may
//! have changed. One task of the sidecar asks; all workers read what it found.
//!
//! `known.rs` decides what is asked and what holds, `message.rs` says what messages ask and answer,
//! `system.rs` reads the system's files (all pure); `ask.rs` asks.
//!
//! Why not hickory's resolver besides its messages: it brings a cache and a pool of its own, while weft
//! bounds how long an answer holds and keeps the last good one. getaddrinfo does not tell how long an answer
//! holds.

mod ask;
#[cfg(test)]
mod fuzz_tests;
mod known;
mod message;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;
use weft_config::table::Table;

use crate::limits;
use ask::Asker;
use known::Known;

/// What names lead to, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers(BTreeMap<String, Arc<[IpAddr]>>);

impl Answers {
    /// The addresses of a name; none if it has led to none so far.
    pub(crate) fn of(&self, host: &str) -> &[IpAddr] {
        self.0.get(host).map_or(&[], |found| found)
    }
}

/// What was found, for all workers, and how often.
#[derive(Debug)]
pub(crate) struct Names {
    answers: watch::Sender<Arc<Answers>>,
    /// Names that led to addresses.
    pub(crate) answered: AtomicU64,
    /// Names that led to none, or whose resolver did not answer.
    pub(crate) failed: AtomicU64,
    /// Names that lost their last addresses, because the resolver failed for too long.
    pub(crate) forgotten: AtomicU64,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            answers: watch::channel(Arc::default()).0,
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
        }
    }
}

impl Names {
    /// Follows what is found.
    pub(crate) fn answers(&self) -> watch::Receiver<Arc<Answers>> {
        self.answers.subscribe()
    }

    /// Resolves the names of each table that comes. `servers` are asked; those of the system if there are
    /// none.
    pub(crate) async fn keep(
        self: Arc<Self>,
        mut tables: watch::Receiver<Option<Arc<Table>>>,
        servers: Vec<SocketAddr>,
    ) {
        let mut known = Known::default();
        let asker = Asker::new(servers);
        let mut under_way = FuturesUnordered::new();
        loop {
            let wanted = tables.borrow_and_update().as_deref().map(names_of);
            if let Some(wanted) = wanted {
                let left_out = known.want(wanted, Instant::now());
                if left_out > 0 {
                    let most = limits::NAMES_MAX;
                    tracing::warn!(
                        left_out,
                        most,
                        "too many names outside of the mesh: some are not resolved"
                    );
                }
            }
            loop {
                let now = Instant::now();
                self.forgotten
                    .fetch_add(known.forget(now), Ordering::Relaxed);
                self.tell(&known);
                let room = limits::NAME_LOOKUPS_MAX.saturating_sub(under_way.len());
                for host in known.begin(now, room) {
                    under_way.push(asker.ask(host));
                }
                let next = known.next();
                let wake = async {
                    match next {
                        Some(at) => tokio::time::sleep_until(at.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = tables.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    Some((host, found)) = under_way.next() => {
                        let now = Instant::now();
                        match found {
                            Ok(found) => {
                                self.answered.fetch_add(1, Ordering::Relaxed);
                                known.answered(&host, found.addresses, found.life, now);
                            }
                            Err(error) => {
                                self.failed.fetch_add(1, Ordering::Relaxed);
                                if known.failed(&host, now) {
                                    tracing::warn!(host, error, "a name outside of the mesh leads nowhere");
                                }
                            }
                        }
                    }
                    () = wake => {}
                }
            }
        }
    }

    fn tell(&self, known: &Known) {
        self.answers.send_if_modified(|held| {
            let answers = known.answers();
            let changed = **held != answers;
            if changed {
                *held = Arc::new(answers);
            }
            changed
        });
    }
}

/// The names of a table that must be resolved.
fn names_of(table: &Table) -> BTreeSet<String> {
    let externals = table
        .services
        .values()
        .filter_map(|service| service.external.as_ref());
    externals
        .filter(|external| external.addresses.is_empty() && external.is_sent_from_here())
        .filter_map(|external| external.hosts.first().cloned())
        .collect()
}
