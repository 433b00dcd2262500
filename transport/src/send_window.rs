//! How many bytes of a connection may be unacknowledged, whether sent or waiting to be sent. Pure.
//!
//! Such bytes stay in memory, and a peer may never acknowledge them. So a connection begins with a page, gets
//! [`SEND_WINDOW_FIRST`] when it sends much, and gets as much as it can use once its peer has acknowledged
//! some: several congestion windows, which keep the path full, and a stream window for each open stream. With
//! less, the streams would wait for each other, and quinn does not wake them in turn.
//!
//! The window beyond the page comes from a pool of the worker ([`crate::window_pages`]), of which an identity
//! may hold [`SEND_WINDOWS_EACH`] windows. It is returned only when all has been acknowledged: unacknowledged
//! bytes count against the peer's identity.
//!
//! [`crate::streams`] applies it.

use crate::acknowledged::Acknowledged;
use crate::identity::SpiffeId;
use crate::limits::{SEND_PROOF, SEND_WINDOW_FIRST, SEND_WINDOWS, SEND_WINDOWS_EACH, WINDOW_PAGE};
use crate::tuning::Tuning;
use crate::window_pages::{PagePool, Pages};

/// Congestion windows that a connection may have unacknowledged: one is in flight, one waits for its
/// acknowledgements, and the window may double before the next look.
const CONGESTION_WINDOWS: u64 = 4;

/// The windows of the connections of a worker. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct SendPool {
    pages: PagePool,
    bounds: Bounds,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    window_max: u64,
    stream_window: u64,
}

/// The window of one connection. Dropping it returns its pages.
#[derive(Debug)]
pub(crate) struct SendWindow {
    pages: Pages,
    bounds: Bounds,
}

impl Bounds {
    fn new(tuning: &Tuning) -> Self {
        let settings = tuning.settings();
        Self {
            window_max: settings.send_window,
            // Both sides of a mesh usually have the same.
            stream_window: settings.stream_window,
        }
    }
}

impl SendPool {
    pub(crate) fn new(tuning: &Tuning) -> Self {
        let bounds = Bounds::new(tuning);
        let all = SEND_WINDOWS * bounds.window_max;
        let each = SEND_WINDOWS_EACH * bounds.window_max;
        Self {
            pages: PagePool::new(all, each),
            bounds,
        }
    }

    /// The window of a connection with `peer`.
    pub(crate) fn window(&self, peer: &SpiffeId) -> SendWindow {
        SendWindow {
            pages: self.pages.pages(peer),
            bounds: self.bounds,
        }
    }
}

impl SendWindow {
    /// Of a connection that shares with no other: it has the full window from the start.
    pub(crate) fn alone(tuning: &Tuning) -> Self {
        let bounds = Bounds::new(tuning);
        let mut pages = Pages::unshared();
        pages.grow_to(bounds.window_max);
        Self { pages, bounds }
    }

    /// The window in force.
    pub(crate) fn bytes(&self) -> u64 {
        (WINDOW_PAGE + self.pages.bytes()).min(self.bounds.window_max)
    }

    /// Whether it holds pages that others could use.
    pub(crate) fn holds_pages(&self) -> bool {
        self.pages.keeps_from_others()
    }

    /// The peer has `acknowledged` this many bytes, and `open` streams are open. Returns the new window, if
    /// it grows.
    pub(crate) fn grow(&mut self, acknowledged: Acknowledged, open: u32) -> Option<u64> {
        let wanted = if acknowledged.bytes < SEND_PROOF {
            SEND_WINDOW_FIRST
        } else {
            let path = acknowledged
                .congestion_window
                .saturating_mul(CONGESTION_WINDOWS);
            let streams = u64::from(open).saturating_mul(self.bounds.stream_window);
            path.saturating_add(streams).max(SEND_WINDOW_FIRST)
        };
        let wanted = wanted.min(self.bounds.window_max);
        let grew = self.pages.grow_to(wanted.saturating_sub(WINDOW_PAGE));
        grew.then(|| self.bytes())
    }

    /// All has been acknowledged. Returns the new window.
    pub(crate) fn shrink(&mut self) -> u64 {
        self.pages.give_back();
        self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FRONTEND, ORDERS};
    use crate::tuning::TransportSettings;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn pool() -> (SendPool, [SpiffeId; 2]) {
        let tuning = TransportSettings::default().validate().unwrap();
        (
            SendPool::new(&tuning),
            [ORDERS, FRONTEND].map(|id| id.parse().unwrap()),
        )
    }

    fn acknowledged(bytes: u64, congestion_window: u64) -> Acknowledged {
        Acknowledged {
            all: false,
            bytes,
            congestion_window,
        }
    }

    #[test]
    fn a_window_is_what_path_and_streams_can_use_once_something_was_acknowledged() {
        let (pool, [orders, _]) = pool();
        let mut window = pool.window(&orders);
        assert_eq!(window.bytes(), 64 * KIB);
        assert_eq!(window.grow(acknowledged(0, 100 * MIB), 100), Some(MIB));
        assert_eq!(window.grow(acknowledged(SEND_PROOF, 38 * KIB), 0), None);
        let path_and_stream = acknowledged(SEND_PROOF, 512 * KIB);
        assert_eq!(window.grow(path_and_stream, 1), Some(4 * MIB));
        assert_eq!(window.grow(path_and_stream, 0), None);
        assert_eq!(window.grow(path_and_stream, 100), Some(16 * MIB));
        assert_eq!(window.shrink(), 64 * KIB);
    }

    #[test]
    fn a_thousand_connections_of_one_identity_hold_four_windows_and_a_page_each() {
        for acknowledges in [0, SEND_PROOF] {
            let (pool, [hostile, other]) = pool();
            let mut windows: Vec<_> = (0..1000).map(|_| pool.window(&hostile)).collect();
            for window in &mut windows {
                window.grow(acknowledged(acknowledges, 100 * MIB), 100);
            }
            let held: u64 = windows.iter().map(SendWindow::bytes).sum();
            assert!(held <= 1000 * 64 * KIB + 64 * MIB, "{held}");
            let mut window = pool.window(&other);
            let grown = window.grow(acknowledged(SEND_PROOF, 100 * MIB), 1);
            assert_eq!(grown, Some(16 * MIB));
        }
    }

    #[test]
    fn a_hundred_identities_leave_room_and_hold_no_more_than_the_pool() {
        let (pool, _) = pool();
        let mut windows = Vec::new();
        for number in 0..100 {
            let id = format!("spiffe://demo.test/ns/shop/sa/n{number}");
            for _ in 0..4 {
                let mut window = pool.window(&id.parse().unwrap());
                window.grow(acknowledged(SEND_PROOF, 100 * MIB), 1);
                windows.push(window);
            }
        }
        let held: u64 = windows.iter().map(SendWindow::bytes).sum();
        assert!(held <= 400 * 64 * KIB + 512 * MIB, "{held}");
    }

    #[test]
    fn the_smallest_setting_bounds_the_window() {
        let settings = TransportSettings {
            send_window: 256 * KIB,
            ..TransportSettings::default()
        };
        let tuning = settings.validate().unwrap();
        let mut window = SendPool::new(&tuning).window(&ORDERS.parse().unwrap());
        assert_eq!(window.grow(acknowledged(0, 100 * MIB), 1), Some(256 * KIB));
        assert_eq!(SendWindow::alone(&tuning).bytes(), 256 * KIB);
    }
}
