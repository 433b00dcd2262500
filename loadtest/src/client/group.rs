//! A connection that several lanes share, for protocols with streams.
//!
//! The first lane that needs it dials, the others wait for that lane. Not here: what a connection is.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::sample::ErrorKind;

/// A handle to a connection; clones are handles to the same one.
pub(super) trait Handle: Clone {
    /// Whether it takes another request.
    fn is_usable(&self) -> bool;
}

/// The connections that a group of lanes shares: one for each endpoint.
pub(super) struct Group<C> {
    slots: Vec<Mutex<Option<C>>>,
}

/// Makes groups for the lanes of one thread, `streams` to each.
pub(super) struct Groups<C> {
    current: Arc<Group<C>>,
    room: usize,
    streams: usize,
    endpoints: usize,
}

impl<C: Handle> Group<C> {
    fn new(endpoints: usize) -> Arc<Self> {
        let slots = std::iter::repeat_with(|| Mutex::new(None)).take(endpoints);
        Arc::new(Self {
            slots: slots.collect(),
        })
    }

    /// The connection to an endpoint, and whether it existed before; `dial` makes one, and is polled only for
    /// that.
    pub(super) async fn get(
        &self,
        endpoint: usize,
        dial: impl Future<Output = Result<C, ErrorKind>>,
    ) -> Result<(C, bool), ErrorKind> {
        let slot = self.slots.get(endpoint).ok_or(ErrorKind::ConnectFailed)?;
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| connection.is_usable()) {
            return Ok((connection.clone(), true));
        }
        // A dial that fails, or is dropped at a deadline, makes room for the next.
        *slot = None;
        let connection = dial.await?;
        *slot = Some(connection.clone());
        Ok((connection, false))
    }
}

impl<C: Handle> Groups<C> {
    pub(super) fn new(endpoints: usize, streams: usize) -> Self {
        Self {
            current: Group::new(endpoints),
            room: streams,
            streams,
            endpoints,
        }
    }

    /// The group of the next lane.
    pub(super) fn next(&mut self) -> Arc<Group<C>> {
        if self.room == 0 {
            self.current = Group::new(self.endpoints);
            self.room = self.streams;
        }
        self.room -= 1;
        Arc::clone(&self.current)
    }
}
