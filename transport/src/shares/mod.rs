//! How many places of a bounded number one holder may have: a source address, or a proven identity. Pure;
//! `place.rs`, `turns.rs` and `portions.rs` are the shells that servers use.
//!
//! Three rules hold wherever weft bounds a resource that strangers or callers may take:
//!
//! - A place that can be taken back (a handshake under way, a connection) is always given. A holder at its
//!   share loses its own oldest place for it; if no place is left, the holder with most places loses its
//!   oldest. So a newcomer is served beside a flood, however many places the flood holds.
//! - A place that cannot be taken back (a request under way) is given while its holder leaves room for
//!   others: see [`leaves_room`].
//! - For a place that can be waited for (a call that changes something), holders wait in [`Turns`]: a holder
//!   first waits for the end of its own calls, and then for a free place among those of all holders.

mod place;
mod portions;
mod turns;

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

pub use place::{Place, Places};
pub use portions::Portions;
pub use turns::{Turn, Turns};

/// A source address as limits count it. An IPv6 host owns a /64 network, so that network counts (RFC 6177
/// section 2); an IPv4 address in IPv6 form counts as that IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

/// How many places there are, and how many of them one holder may have. Both are at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// All places.
    pub places: usize,
    /// Places of one holder.
    pub each: usize,
}

/// A place that was taken, until it is left or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket(u64);

/// Places, by holder. `T` ends the holding of one.
#[derive(Debug)]
struct Shares<K, T> {
    bounds: Bounds,
    /// The places of each holder, oldest first. Holders without places are not kept.
    holders: BTreeMap<K, VecDeque<(Ticket, T)>>,
    taken: usize,
    next: u64,
}

impl<K: Ord + Clone, T> Shares<K, T> {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            holders: BTreeMap::new(),
            taken: 0,
            next: 0,
        }
    }

    /// Gives `holder` a place, and returns the place that was taken back for it.
    fn enter(&mut self, holder: K, occupant: T) -> (Ticket, Option<T>) {
        let lost = if self.held(&holder) >= self.bounds.each.max(1) {
            self.take_back(&holder)
        } else if self.taken >= self.bounds.places.max(1) {
            let loser = self.largest(&holder);
            self.take_back(&loser)
        } else {
            None
        };
        let ticket = Ticket(self.next);
        self.next += 1;
        self.holders
            .entry(holder)
            .or_default()
            .push_back((ticket, occupant));
        self.taken += 1;
        (ticket, lost)
    }

    /// A place is not needed any more. A place that was taken back in the meantime has been left already.
    fn leave(&mut self, holder: &K, ticket: Ticket) {
        let Some(places) = self.holders.get_mut(holder) else {
            return;
        };
        let Ok(index) = places.binary_search_by_key(&ticket, |(ticket, _)| *ticket) else {
            return;
        };
        places.remove(index);
        self.taken -= 1;
        if places.is_empty() {
            self.holders.remove(holder);
        }
    }

    fn held(&self, holder: &K) -> usize {
        self.holders.get(holder).map_or(0, VecDeque::len)
    }

    /// The holder with most places once `newcomer` has one more; of several, the one whose oldest place is
    /// the oldest.
    fn largest(&self, newcomer: &K) -> K {
        let most = self
            .holders
            .iter()
            .filter_map(|(holder, places)| {
                let (oldest, _) = places.front()?;
                Some(((places.len(), Reverse(*oldest)), holder))
            })
            .max_by_key(|(size, _)| *size);
        most.filter(|((places, _), _)| *places > self.held(newcomer))
            .map_or(newcomer, |(_, holder)| holder)
            .clone()
    }

    fn take_back(&mut self, holder: &K) -> Option<T> {
        let places = self.holders.get_mut(holder)?;
        let (_, occupant) = places.pop_front()?;
        self.taken -= 1;
        if places.is_empty() {
            self.holders.remove(holder);
        }
        Some(occupant)
    }
}

/// How many times the number of free places one holder may have: alone, it leaves a seventeenth to others;
/// two holders leave a thirty-third.
const SHARE: u64 = 16;

/// Whether a holder of `held` places may take one more of `places`, of which `taken` are taken: it may have
/// at most [`SHARE`] times as many as are free, and so leaves some to the next holder. If there are few
/// places (up to `SHARE` + 1), one holder may take all.
///
/// This is the dynamic threshold by which switches share a buffer among ports (Choudhury and Hahne, 1998): it
/// needs no knowledge of future holders.
#[must_use]
pub fn leaves_room(places: u32, taken: u32, held: u32) -> bool {
    let free = u64::from(places.saturating_sub(taken));
    free > 0 && u64::from(held) <= SHARE * free
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(places: usize, each: usize) -> Shares<&'static str, u32> {
        Shares::new(Bounds { places, each })
    }

    #[test]
    fn a_holder_at_its_share_loses_its_own_oldest_place() {
        let mut shares = shares(10, 2);
        assert_eq!(shares.enter("a", 1).1, None);
        assert_eq!(shares.enter("b", 2).1, None);
        assert_eq!(shares.enter("a", 3).1, None);
        assert_eq!(shares.enter("a", 4).1, Some(1));
        assert_eq!((shares.held(&"a"), shares.held(&"b")), (2, 1));
    }

    #[test]
    fn a_newcomer_takes_the_oldest_place_of_the_holder_with_most() {
        let mut shares = shares(5, 5);
        for occupant in 0..4 {
            shares.enter("flood", occupant);
        }
        shares.enter("b", 4);
        assert_eq!(shares.enter("c", 5).1, Some(0));
        assert_eq!(shares.enter("flood", 6).1, Some(1));
        assert_eq!(shares.held(&"b"), 1);
        assert_eq!(shares.taken, 5);
    }

    #[test]
    fn where_all_have_one_place_the_oldest_goes() {
        let mut shares = shares(3, 3);
        for (holder, occupant) in [("c", 1), ("a", 2), ("b", 3)] {
            shares.enter(holder, occupant);
        }
        assert_eq!(shares.enter("d", 4).1, Some(1));
        assert_eq!(shares.taken, 3);
    }

    #[test]
    fn places_that_are_left_are_free_again_once() {
        let mut shares = shares(2, 2);
        let (first, _) = shares.enter("a", 1);
        let (second, _) = shares.enter("a", 2);
        assert_eq!(shares.enter("a", 3).1, Some(1));
        shares.leave(&"a", first);
        assert_eq!(shares.taken, 2);
        shares.leave(&"a", second);
        shares.leave(&"a", second);
        assert_eq!(shares.taken, 1);
        assert_eq!(shares.enter("b", 4).1, None);
    }

    #[test]
    fn nothing_is_kept_of_holders_that_are_gone() {
        let mut shares = shares(100, 1);
        for _ in 0..1000 {
            let (ticket, _) = shares.enter("a", 0);
            shares.leave(&"a", ticket);
        }
        assert!(shares.holders.is_empty());
    }

    #[test]
    fn bounds_of_nothing_still_serve_one() {
        let mut shares = shares(0, 0);
        assert_eq!(shares.enter("a", 1).1, None);
        assert_eq!(shares.enter("b", 2).1, Some(1));
    }

    /// How many of the free places one holder takes until it has to stop.
    fn takes(places: u32, taken: u32) -> u32 {
        (0..)
            .find(|held| !leaves_room(places, taken + held, *held))
            .unwrap()
    }

    #[test]
    fn one_holder_leaves_a_seventeenth_and_the_next_still_finds_most_of_it() {
        assert_eq!(takes(1024, 0), 964);
        assert_eq!(takes(1024, 964), 57);
        assert_eq!(takes(1024, 964 + 57), 3);
    }

    #[test]
    fn few_places_may_all_be_taken_by_one() {
        for places in 0..=17 {
            assert_eq!(takes(places, 0), places);
        }
        assert_eq!(takes(34, 0), 33);
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_an_ipv4_address_one_in_either_form() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(source("2001:db8::1").to_string(), "2001:db8::/64");
    }
}
