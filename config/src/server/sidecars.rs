//! The present sidecars: those whose stream is open, and those whose stream broke less than a lease ago,
//! which may still serve with their last table. For display, some that are gone are kept as well. The time by
//! which it decides is an argument; the time at which a sidecar was last seen is only shown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_transport::identity::SpiffeId;

use super::known::Known;
use super::registry::{Inbound, Workload};
use crate::limits;
use crate::operator::SidecarState;
use crate::table::{Features, Locality, Revision, ServiceName, Withheld};

/// All sidecars that are or were present.
#[derive(Debug, Default)]
pub(super) struct Sidecars {
    by_workload: BTreeMap<Workload, Sidecar>,
    last_number: u64,
}

/// The known facts about a sidecar.
#[derive(Debug)]
pub(super) struct Sidecar {
    number: u64,
    presence: Presence,
    pub(super) about: About,
    pub(super) inbound: Arc<Inbound>,
    pub(super) acknowledged: Option<Revision>,
    pub(super) refused: Option<(Revision, String)>,
    /// The parts that are missing in its table.
    pub(super) withheld: Arc<[Withheld]>,
    pub(super) last_seen: jiff::Timestamp,
}

/// The facts that a sidecar's hello and its connection give.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// Where its connection comes from.
    pub(super) source: Option<IpAddr>,
    /// End of the certificate with which it connected.
    pub(super) not_after: SystemTime,
    pub(super) version: String,
    pub(super) listens_for: Arc<BTreeSet<ServiceName>>,
    pub(super) features: Features,
    pub(super) place: Place,
}

/// Where a sidecar is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The address at which its peers reach it, if it serves anything.
    pub(super) address: Option<SocketAddr>,
    /// Where it runs, if it says so.
    pub(super) locality: Option<Locality>,
}

#[derive(Debug)]
enum Presence {
    /// Its stream is open; the token ends it.
    Connected(CancellationToken),
    /// Its stream broke, or the service was restarted. Until this time it is expected to come back.
    Lost(Instant),
    /// It announced its end, its successor came, or it did not come back in time.
    Gone,
}

/// A stream that a sidecar has opened.
#[derive(Debug)]
pub(super) struct Stream {
    /// Tells this stream from others of the same sidecar.
    pub(super) number: u64,
    /// Cancelled when another stream of the same sidecar begins.
    pub(super) superseded: CancellationToken,
}

/// The streams of an identity name more services than they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyNames;

impl Sidecars {
    /// Sidecars that an earlier service knew; they are expected until `until`.
    pub(super) fn recall(known: Vec<Known>, until: Instant) -> Self {
        let mut sidecars = Self::default();
        for one in known {
            let (workload, about) = one.into_parts();
            let sidecar = Sidecar::new(0, Presence::Lost(until), about);
            sidecars.by_workload.insert(workload, sidecar);
        }
        sidecars
    }

    /// A sidecar's stream begins; an older stream of the same sidecar ends for it.
    pub(super) fn connect(
        &mut self,
        workload: &Workload,
        about: About,
    ) -> Result<Stream, TooManyNames> {
        self.check_names(workload, about.listens_for.len())?;
        self.bury_predecessors(workload, &about);
        if !self.by_workload.contains_key(workload) {
            self.make_room();
        }
        self.last_number += 1;
        let stream = Stream {
            number: self.last_number,
            superseded: CancellationToken::new(),
        };
        let presence = Presence::Connected(stream.superseded.clone());
        let sidecar = Sidecar::new(stream.number, presence, about);
        let before = self.by_workload.insert(workload.clone(), sidecar);
        if let Some(Presence::Connected(superseded)) = before.map(|before| before.presence) {
            superseded.cancel();
        }
        Ok(stream)
    }

    /// The services that a sidecar serves, by its stream of that number.
    pub(super) fn report(
        &mut self,
        workload: &Workload,
        number: u64,
        inbound: &Arc<Inbound>,
    ) -> Result<Option<&mut Sidecar>, TooManyNames> {
        let Some(sidecar) = self.stream(workload, number) else {
            return Ok(None);
        };
        if inbound.len() > sidecar.inbound.len() {
            let names = sidecar.about.listens_for.len() + inbound.len();
            self.check_names(workload, names)?;
        }
        let mut sidecar = self.stream(workload, number);
        if let Some(sidecar) = &mut sidecar {
            sidecar.last_seen = jiff::Timestamp::now();
            if sidecar.inbound != *inbound {
                sidecar.inbound = Arc::clone(inbound);
            }
        }
        Ok(sidecar)
    }

    /// The sidecar, while its newest stream is that of this number.
    pub(super) fn stream(&mut self, workload: &Workload, number: u64) -> Option<&mut Sidecar> {
        let sidecar = self.by_workload.get_mut(workload);
        sidecar.filter(|sidecar| sidecar.number == number)
    }

    /// A stream ended. Unless the sidecar announced its end, it is expected back for a lease.
    pub(super) fn disconnect(&mut self, workload: &Workload, number: u64, now: Instant) {
        if let Some(sidecar) = self.stream(workload, number)
            && matches!(sidecar.presence, Presence::Connected(_))
        {
            sidecar.presence = Presence::Lost(now + limits::LEASE);
            sidecar.forget_names();
        }
    }

    /// The sidecar announced that it will not come back.
    pub(super) fn leave(&mut self, workload: &Workload, number: u64) {
        if let Some(sidecar) = self.stream(workload, number) {
            sidecar.presence = Presence::Gone;
            sidecar.forget_names();
        }
    }

    /// Gives up on sidecars that did not come back. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        for sidecar in self.by_workload.values_mut() {
            if matches!(sidecar.presence, Presence::Lost(until) if until <= now) {
                sidecar.presence = Presence::Gone;
                any = true;
            }
        }
        any
    }

    /// The answers to `revision` of all sidecars that may be running.
    pub(super) fn states(&self, revision: &Revision) -> Vec<SidecarState> {
        let reached =
            |other: &Revision| other.store == revision.store && other.number >= revision.number;
        let there = self
            .by_workload
            .iter()
            .filter(|(_, sidecar)| !matches!(sidecar.presence, Presence::Gone));
        there
            .map(|(workload, sidecar)| SidecarState {
                identity: workload.identity.clone(),
                instance: workload.instance.clone(),
                acknowledged: sidecar.acknowledged.as_ref().is_some_and(reached),
                refusal: sidecar
                    .refused
                    .as_ref()
                    .filter(|(revision, _)| reached(revision))
                    .map(|(_, reason)| reason.clone()),
                lost: matches!(sidecar.presence, Presence::Lost(_)),
                withheld: sidecar.withheld.to_vec(),
            })
            .collect()
    }

    /// All sidecars, including those that are gone.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Workload, &Sidecar)> {
        self.by_workload.iter()
    }

    /// The sidecar of that name.
    pub(super) fn get(&self, workload: &Workload) -> Option<&Sidecar> {
        self.by_workload.get(workload)
    }

    /// The facts that a later service must know, and the last stream that they cover.
    pub(super) fn known(&self) -> (u64, Vec<Known>) {
        let there = self
            .by_workload
            .iter()
            .filter(|(_, sidecar)| !matches!(sidecar.presence, Presence::Gone));
        let known = there.map(|(workload, sidecar)| Known::new(workload, &sidecar.about));
        (self.last_number, known.collect())
    }

    fn of_identity<'a>(
        &'a self,
        identity: &'a SpiffeId,
    ) -> impl Iterator<Item = (&'a Workload, &'a Sidecar)> {
        let from = Workload {
            identity: identity.clone(),
            instance: String::new(),
        };
        self.by_workload
            .range(from..)
            .take_while(move |(workload, _)| workload.identity == *identity)
    }

    fn check_names(&self, workload: &Workload, names: usize) -> Result<(), TooManyNames> {
        let others = self
            .of_identity(&workload.identity)
            .filter(|(other, _)| *other != workload);
        let held: usize = others.map(|(_, sidecar)| sidecar.names()).sum();
        if held + names > limits::NAMES_PER_IDENTITY_MAX {
            return Err(TooManyNames);
        }
        Ok(())
    }

    /// A restarted process has another name, and its predecessor will not come back. The predecessor is the
    /// process that connected with the same certificate from the same host, or that was reached at the same
    /// address.
    fn bury_predecessors(&mut self, workload: &Workload, about: &About) {
        let is_same = |other: &About| {
            other.not_after == about.not_after
                && other.source.is_some()
                && other.source == about.source
                || other.place.address.is_some() && other.place.address == about.place.address
        };
        let lost: Vec<Workload> = self
            .of_identity(&workload.identity)
            .filter(|(other, sidecar)| {
                *other != workload
                    && matches!(sidecar.presence, Presence::Lost(_))
                    && is_same(&sidecar.about)
            })
            .map(|(other, _)| other.clone())
            .collect();
        for predecessor in lost {
            if let Some(sidecar) = self.by_workload.get_mut(&predecessor) {
                sidecar.presence = Presence::Gone;
            }
        }
    }

    /// Forgets a sidecar that is gone when there are too many: of the identity that has most of them, the one
    /// not seen for longest. If none is gone, a lost one.
    fn make_room(&mut self) {
        if self.by_workload.len() < limits::SIDECARS_MAX {
            return;
        }
        let mut counts: BTreeMap<(bool, &SpiffeId), usize> = BTreeMap::new();
        for (workload, sidecar) in &self.by_workload {
            let is_gone = matches!(sidecar.presence, Presence::Gone);
            if !matches!(sidecar.presence, Presence::Connected(_)) {
                *counts.entry((is_gone, &workload.identity)).or_default() += 1;
            }
        }
        let most = counts
            .into_iter()
            .max_by_key(|((is_gone, _), count)| (*is_gone, *count));
        let Some(((wanted, identity), _)) = most else {
            return;
        };
        let candidates = self.of_identity(identity).filter(|(_, sidecar)| {
            matches!(sidecar.presence, Presence::Gone) == wanted
                && !matches!(sidecar.presence, Presence::Connected(_))
        });
        let oldest = candidates.min_by_key(|(_, sidecar)| sidecar.last_seen);
        if let Some(workload) = oldest.map(|(workload, _)| workload.clone()) {
            self.by_workload.remove(&workload);
        }
    }
}

impl Sidecar {
    fn new(number: u64, presence: Presence, about: About) -> Self {
        Self {
            number,
            presence,
            about,
            inbound: Arc::default(),
            acknowledged: None,
            refused: None,
            withheld: Arc::default(),
            last_seen: jiff::Timestamp::now(),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.presence, Presence::Connected(_))
    }

    fn names(&self) -> usize {
        self.about.listens_for.len() + self.inbound.len()
    }

    /// A sidecar that is not present needs no tables.
    fn forget_names(&mut self) {
        self.about.listens_for = Arc::default();
        self.inbound = Arc::default();
    }
}

#[cfg(test)]
mod tests;
