//! How many unread bytes a peer may have sent on one connection: the window of RFC 9000 section 4.1 over all
//! its streams. Pure.
//!
//! Unread bytes stay in memory, and QUIC cannot take credit back. So a connection begins with a small window,
//! which costs no round trip, and gets more according to its load:
//!
//! - [`RECEIVE_WINDOW_FIRST`], and [`SHORT_BODY`] for each open stream, once the head of a message has come;
//! - `connection_window` once it carries a long body or a tunnel, and then a stream window for each of them:
//!   each may have a stopped reader and fill its window, and the next one must still get through.
//!
//! The window beyond the beginning comes from a pool of the worker ([`crate::window_pages`]), so an identity
//! holds no more than its share, however many connections it has. [`crate::streams`] applies it.

use crate::identity::SpiffeId;
use crate::limits::{
    DIALLED_WINDOW, RECEIVE_WINDOW_FIRST, RECEIVE_WINDOWS, RECEIVE_WINDOWS_DIALLED,
    RECEIVE_WINDOWS_DIALLED_EACH, RECEIVE_WINDOWS_EACH, SHORT_BODY, WINDOW_PAGE,
};
use crate::tuning::Tuning;
use crate::window_pages::{PagePool, Pages};

/// Stream windows that stay free when all long bodies have stopped readers.
const FREE_STREAM_WINDOWS: u64 = 4;

/// quinn announces new credit to the peer once it amounts to this fraction of the window. More than that must
/// be free, or streams that are read would wait for ever for the rest to become free.
const ANNOUNCED_PART: u64 = 8;

/// Which side began the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The peer began it, to ask this side.
    Accepted,
    /// This side began it, for its own applications.
    Dialled,
}

/// The windows of the connections that a worker accepts, or of those that it dials.
#[derive(Clone, Debug)]
pub(crate) struct ReceivePool {
    pages: PagePool,
    bounds: Bounds,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Before anything came; not from the pool.
    beginning: u64,
    window: u64,
    window_max: u64,
    stream_window: u64,
}

/// The load of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carries {
    /// The head of a message has come on it.
    pub(crate) messages: bool,
    /// Open streams.
    pub(crate) open: u32,
    /// Those of them that carry a tunnel, or a body that is long or may become so.
    pub(crate) long: u32,
}

/// The window of one connection. Dropping it returns its pages.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    pages: Pages,
    bounds: Bounds,
    /// It got less than it asked for.
    short: bool,
}

impl Origin {
    /// The window that a connection begins with.
    pub(crate) fn beginning(self, tuning: &Tuning) -> u64 {
        let beginning = match self {
            Self::Accepted => WINDOW_PAGE,
            Self::Dialled => DIALLED_WINDOW,
        };
        beginning.min(tuning.settings().connection_window)
    }
}

impl ReceivePool {
    pub(crate) fn new(origin: Origin, tuning: &Tuning) -> Self {
        let settings = tuning.settings();
        let (all, each) = match origin {
            Origin::Accepted => (
                RECEIVE_WINDOWS * settings.connection_window,
                RECEIVE_WINDOWS_EACH * settings.connection_window,
            ),
            Origin::Dialled => (
                RECEIVE_WINDOWS_DIALLED * settings.connection_window_max,
                RECEIVE_WINDOWS_DIALLED_EACH * settings.connection_window_max,
            ),
        };
        Self {
            pages: PagePool::new(all, each),
            bounds: Bounds::new(origin.beginning(tuning), tuning),
        }
    }

    /// The window of a connection with `peer`.
    pub(crate) fn window(&self, peer: &SpiffeId) -> ReceiveWindow {
        ReceiveWindow::of(self.pages.pages(peer), self.bounds)
    }
}

impl Bounds {
    fn new(beginning: u64, tuning: &Tuning) -> Self {
        let settings = tuning.settings();
        Self {
            beginning,
            window: settings.connection_window,
            window_max: settings.connection_window_max,
            stream_window: settings.stream_window,
        }
    }

    /// The window that a connection can use.
    fn wanted(&self, carries: Carries) -> u64 {
        if !carries.messages {
            return self.beginning;
        }
        let short = u64::from(carries.open) * SHORT_BODY;
        let (least, held) = match carries.long {
            0 => (RECEIVE_WINDOW_FIRST.min(self.window), short),
            long => {
                let streams = u64::from(long) + FREE_STREAM_WINDOWS;
                (self.window, short + streams * self.stream_window)
            }
        };
        let room = held + held.div_ceil(ANNOUNCED_PART - 1);
        least.max(room).min(self.window_max)
    }
}

impl ReceiveWindow {
    /// Of a connection that shares with no other: it has `connection_window` from the start.
    pub(crate) fn alone(tuning: &Tuning) -> Self {
        let bounds = Bounds::new(tuning.settings().connection_window, tuning);
        Self::of(Pages::unshared(), bounds)
    }

    fn of(pages: Pages, bounds: Bounds) -> Self {
        Self {
            pages,
            bounds,
            short: false,
        }
    }

    /// The window in force.
    pub(crate) fn bytes(&self) -> u64 {
        (self.bounds.beginning + self.pages.bytes()).min(self.bounds.window_max)
    }

    /// The connection `carries` this load. Returns the new window, if it grows.
    pub(crate) fn grow(&mut self, carries: Carries) -> Option<u64> {
        let wanted = self.bounds.wanted(carries);
        let grew = self
            .pages
            .grow_to(wanted.saturating_sub(self.bounds.beginning));
        self.short = self.bytes() < wanted;
        grew.then(|| self.bytes())
    }

    /// Whether the window cannot grow further, for now.
    pub(crate) fn is_at_bound(&self) -> bool {
        self.short || self.bytes() >= self.bounds.window_max
    }

    /// How many streams may be stopped, each holding a whole window, without harm to the others when the
    /// window grows no more.
    pub(crate) fn allowed_stopped_readers(&self) -> usize {
        let bytes = self.bytes();
        let usable = bytes - bytes / ANNOUNCED_PART;
        let streams = (usable / self.bounds.stream_window).saturating_sub(FREE_STREAM_WINDOWS);
        usize::try_from(streams).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FRONTEND, ORDERS};
    use crate::tuning::TransportSettings;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn pool(origin: Origin) -> ReceivePool {
        let tuning = TransportSettings::default().validate().unwrap();
        ReceivePool::new(origin, &tuning)
    }

    fn identities() -> [SpiffeId; 2] {
        [ORDERS, FRONTEND].map(|id| id.parse().unwrap())
    }

    fn carries(open: u32, long: u32) -> Carries {
        Carries {
            messages: true,
            open,
            long,
        }
    }

    #[test]
    fn a_window_grows_with_what_the_connection_carries() {
        let [orders, _] = identities();
        let mut window = pool(Origin::Accepted).window(&orders);
        assert_eq!(window.bytes(), 64 * KIB);
        let heads_to_come = Carries {
            messages: false,
            open: 256,
            long: 0,
        };
        assert_eq!(window.grow(heads_to_come), None);
        assert_eq!(window.grow(carries(1, 0)), Some(MIB));
        assert_eq!(window.grow(carries(50, 0)), None);
        assert_eq!(window.grow(carries(1, 1)), Some(16 * MIB));
        assert_eq!(window.grow(carries(1, 0)), None);
        assert!(!window.is_at_bound());
    }

    #[test]
    fn a_connection_of_this_side_begins_with_more() {
        let [orders, _] = identities();
        assert_eq!(pool(Origin::Dialled).window(&orders).bytes(), MIB);
    }

    #[test]
    fn the_window_always_leaves_room_beside_stopped_readers() {
        let [orders, _] = identities();
        let mut window = pool(Origin::Dialled).window(&orders);
        for long in 1..=106 {
            window.grow(carries(long, long));
            let free = window.bytes() - u64::from(long) * 2 * MIB;
            assert!(free >= window.bytes() / 8 + 8 * MIB, "{long} streams");
            assert!(!window.is_at_bound(), "{long} streams");
        }
        window.grow(carries(500, 500));
        assert_eq!(window.bytes(), 256 * MIB);
        assert!(window.is_at_bound());
        assert_eq!(window.allowed_stopped_readers(), 108);
    }

    #[test]
    fn a_thousand_connections_of_one_identity_hold_four_windows_and_a_page_each() {
        let pool = pool(Origin::Accepted);
        let [hostile, other] = identities();
        let mut windows: Vec<_> = (0..1000).map(|_| pool.window(&hostile)).collect();
        for window in &mut windows {
            window.grow(carries(200, 200));
        }
        let held: u64 = windows.iter().map(ReceiveWindow::bytes).sum();
        assert!(held <= 1000 * 64 * KIB + 64 * MIB, "{held}");
        assert!(windows.iter().all(ReceiveWindow::is_at_bound));
        let mut window = pool.window(&other);
        assert_eq!(window.grow(carries(1, 1)), Some(16 * MIB));
        // Returned pages make room again.
        drop(windows);
        let mut window = pool.window(&hostile);
        assert_eq!(window.grow(carries(1, 1)), Some(16 * MIB));
    }

    #[test]
    fn a_short_window_allows_no_stopped_reader_and_asks_again() {
        let pool = pool(Origin::Accepted);
        let [orders, _] = identities();
        let mut first: Vec<_> = (0..20).map(|_| pool.window(&orders)).collect();
        for window in &mut first {
            window.grow(carries(1, 1));
        }
        let mut last = pool.window(&orders);
        last.grow(carries(1, 1));
        assert!(last.is_at_bound());
        assert_eq!(last.allowed_stopped_readers(), 0);
        drop(first);
        assert_eq!(last.grow(carries(1, 1)), Some(16 * MIB));
        assert!(!last.is_at_bound());
    }

    #[test]
    fn a_connection_that_shares_with_no_other_grows_from_its_setting_to_its_bound() {
        let settings = TransportSettings {
            stream_window: MIB,
            connection_window: 10 * MIB,
            connection_window_max: 50 * MIB,
            ..TransportSettings::default()
        };
        let mut window = ReceiveWindow::alone(&settings.validate().unwrap());
        assert_eq!(window.bytes(), 10 * MIB);
        assert_eq!(window.grow(carries(1, 1)), None);
        assert!(
            window
                .grow(carries(20, 20))
                .is_some_and(|window| window > 24 * MIB)
        );
        window.grow(carries(1000, 1000));
        assert_eq!(window.bytes(), 50 * MIB);
        assert!(window.is_at_bound());
    }
}
