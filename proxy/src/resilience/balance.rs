//! Which endpoint takes a request. Pure: the state of the endpoints and randomness are arguments.
//!
//! - *Power of two choices* draws two endpoints and takes the cheaper one. The cost is the load, times the
//!   latency where both were measured ([`Method::PeakEwma`]), or the load alone ([`Method::LeastRequest`]).
//! - [`Method::RoundRobin`] takes them one after the other.
//! - [`Method::Hash`] gives a key to the same endpoint as long as that endpoint exists (rendezvous hashing:
//!   the endpoint with the highest hash of key and name). When an endpoint goes, only its keys move; when it
//!   is out of rotation, its keys go to their second choice and return with it.
//!
//! No method allocates, and none visits all endpoints unless some are out of rotation or it hashes.

use rand::{Rng, RngExt};

use super::load::UnderWay;
use crate::limits::STREAMS_PER_REQUEST;

/// How to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Of two the one with less load times latency.
    PeakEwma,
    /// Of two the one with less load.
    LeastRequest,
    /// The next endpoint after this many.
    RoundRobin(usize),
    /// By a key.
    Hash(u64),
}

/// The facts about one endpoint that the choice needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Requests under way, and streams that have settled.
    pub(crate) load: UnderWay,
    /// Expected seconds to a response, if any was measured.
    pub(crate) latency: Option<f64>,
    /// The fraction of its fair share that it should get, above 0 and at most 1.
    pub(crate) share: f64,
    /// A number that names it, the same for as long as it lives.
    pub(crate) name: u64,
}

/// Seconds below which latencies count as equal: the scheduler of a busy host adds as much by chance.
const LATENCY_FLOOR: f64 = 0.001;

/// Random draws before the rest is searched in order. With half of the endpoints out of rotation, one choice
/// in 256 needs the search.
const DRAWS: usize = 8;

/// A `usable` endpoint with an index below `count`; none if no endpoint is usable.
pub(crate) fn choose_endpoint(
    method: Method,
    count: usize,
    usable: impl Fn(usize) -> bool,
    candidate: impl Fn(usize) -> Candidate,
    random: &mut impl Rng,
) -> Option<usize> {
    match method {
        Method::PeakEwma | Method::LeastRequest => {
            let first = draw(count, &usable, random)?;
            let other = |index: usize| index != first && usable(index);
            let Some(second) = draw(count, other, random) else {
                return Some(first);
            };
            let by_latency = method == Method::PeakEwma;
            let (one, two) = (candidate(first), candidate(second));
            let loads = (weight(one.load, random), weight(two.load, random));
            Some(
                if is_cheaper((&two, loads.1), (&one, loads.0), by_latency) {
                    second
                } else {
                    first
                },
            )
        }
        Method::RoundRobin(turn) => {
            let in_turn = || (0..count).map(|step| turn.wrapping_add(step) % count);
            let mut passed_over = None;
            for index in in_turn().filter(|index| usable(*index)) {
                let share = candidate(index).share;
                if share >= 1.0 || random.random_bool(share.clamp(0.0, 1.0)) {
                    return Some(index);
                }
                passed_over = passed_over.or(Some(index));
            }
            passed_over
        }
        Method::Hash(key) => (0..count)
            .filter(|index| usable(*index))
            .max_by_key(|index| mix(key, candidate(*index).name)),
    }
}

/// A usable endpoint drawn at random.
fn draw(count: usize, usable: impl Fn(usize) -> bool, random: &mut impl Rng) -> Option<usize> {
    if count == 0 {
        return None;
    }
    for _ in 0..DRAWS.min(count * 2) {
        let index = random.random_range(0..count);
        if usable(index) {
            return Some(index);
        }
    }
    let start = random.random_range(0..count);
    (0..count)
        .map(|step| (start + step) % count)
        .find(|index| usable(*index))
}

/// The load of an endpoint in requests. A load below one counts as one that often: if nothing else differs,
/// the endpoint with one more stream still gets nearly as many requests.
fn weight(load: UnderWay, random: &mut impl Rng) -> u64 {
    let streams = u64::from(load.settled) + u64::from(random.random_range(0..STREAMS_PER_REQUEST));
    u64::from(load.busy) + streams / u64::from(STREAMS_PER_REQUEST)
}

/// Whether the first endpoint is cheaper than the second, each with its load.
fn is_cheaper(
    (one, load_of_one): (&Candidate, u64),
    (other, load_of_other): (&Candidate, u64),
    by_latency: bool,
) -> bool {
    let latencies = match (one.latency, other.latency) {
        (Some(one), Some(other)) if by_latency => {
            (one.max(LATENCY_FLOOR), other.max(LATENCY_FLOOR))
        }
        // An endpoint without a measured latency counts as fast as the other: only its load limits it.
        (_, _) => (1.0, 1.0),
    };
    let cost = |share: f64, load: u64, latency: f64| latency * (load as f64 + 1.0) / share;
    cost(one.share, load_of_one, latencies.0) < cost(other.share, load_of_other, latencies.1)
}

/// Mixes two numbers so that each bit of the result depends on every bit of both (the finalizer of
/// SplitMix64).
fn mix(key: u64, name: u64) -> u64 {
    let mut mixed = key ^ name.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The number of a text: FNV-1a, which is the same in every process and version. A caller that chooses its
/// keys controls only where its own keys go.
pub(crate) fn hash(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Picks by weight; `None` if the weights sum to 0.
pub(crate) fn pick_weighted(
    weights: impl Iterator<Item = u32> + Clone,
    random: &mut impl Rng,
) -> Option<usize> {
    let sum: u64 = weights.clone().map(u64::from).sum();
    if sum == 0 {
        return None;
    }
    let mut left = random.random_range(0..sum);
    for (index, weight) in weights.enumerate() {
        match left.checked_sub(u64::from(weight)) {
            Some(rest) => left = rest,
            None => return Some(index),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn candidate(load: u32, latency: Option<f64>) -> Candidate {
        let busy = load;
        Candidate {
            load: UnderWay { busy, settled: 0 },
            latency,
            share: 1.0,
            name: 0,
        }
    }

    /// How often each of the endpoints is chosen.
    fn counts(method: fn(usize) -> Method, endpoints: &[Candidate]) -> Vec<usize> {
        let mut random = StdRng::seed_from_u64(1);
        let mut counts = vec![0; endpoints.len()];
        for turn in 0..10_000 {
            let chosen = choose_endpoint(
                method(turn),
                endpoints.len(),
                |_| true,
                |index| endpoints[index],
                &mut random,
            );
            counts[chosen.unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn the_cheaper_of_two_wins() {
        let endpoints = [candidate(5, Some(0.01)), candidate(1, Some(0.1))];
        assert_eq!(counts(|_| Method::PeakEwma, &endpoints), [10_000, 0]);
        assert_eq!(counts(|_| Method::LeastRequest, &endpoints), [0, 10_000]);
    }

    #[test]
    fn what_was_never_measured_is_compared_by_its_load() {
        let endpoints = [candidate(1, Some(0.000_1)), candidate(0, None)];
        assert_eq!(counts(|_| Method::PeakEwma, &endpoints), [0, 10_000]);
    }

    #[test]
    fn differences_that_are_noise_do_not_count() {
        let endpoints = [candidate(1, Some(0.000_01)), candidate(0, Some(0.000_9))];
        assert_eq!(counts(|_| Method::PeakEwma, &endpoints), [0, 10_000]);
    }

    #[test]
    fn an_endpoint_with_an_idle_stream_gets_nearly_its_share() {
        let mut endpoints = [candidate(0, Some(0.002)); 2];
        endpoints[0].load.settled = 1;
        for method in [|_| Method::PeakEwma, |_| Method::LeastRequest] {
            let counts = counts(method, &endpoints);
            assert!(counts[0] > 4700, "{counts:?}");
        }
        // With hundreds more, a difference still shows.
        endpoints[0].load.settled = 500;
        let counts = counts(|_| Method::LeastRequest, &endpoints);
        assert!(counts[0] < 100, "{counts:?}");
    }

    #[test]
    fn equal_loads_are_spread() {
        let endpoints = [candidate(0, None); 5];
        for method in [|_| Method::PeakEwma, Method::RoundRobin] {
            let counts = counts(method, &endpoints);
            assert!(
                counts.iter().all(|count| (1800..2200).contains(count)),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn a_lowered_share_is_kept_by_every_method_that_spreads() {
        let mut endpoints = [candidate(0, None); 4];
        endpoints[0].share = 0.1;
        for method in [
            |_| Method::PeakEwma,
            |_| Method::LeastRequest,
            Method::RoundRobin,
        ] {
            let counts = counts(method, &endpoints);
            assert!(counts[0] < 400, "{counts:?}");
        }
    }

    #[test]
    fn only_usable_endpoints_are_chosen_and_of_those_all() {
        let mut random = StdRng::seed_from_u64(1);
        for method in [
            Method::PeakEwma,
            Method::LeastRequest,
            Method::RoundRobin(3),
            Method::Hash(7),
        ] {
            for usable in 0..100 {
                let chosen = choose_endpoint(
                    method,
                    100,
                    |index| index == usable,
                    |_| candidate(0, None),
                    &mut random,
                );
                assert_eq!(chosen, Some(usable));
            }
            let none = choose_endpoint(method, 5, |_| false, |_| candidate(0, None), &mut random);
            assert_eq!(none, None);
        }
    }

    fn hashed(key: u64, names: &[u64], out: Option<usize>) -> u64 {
        let mut random = StdRng::seed_from_u64(1);
        let named = |index: usize| Candidate {
            name: names[index],
            ..candidate(0, None)
        };
        let usable = |index| Some(index) != out;
        names[choose_endpoint(Method::Hash(key), names.len(), usable, named, &mut random).unwrap()]
    }

    #[test]
    fn a_key_stays_with_its_endpoint_unless_that_one_goes() {
        let names: Vec<u64> = (0..5).map(|number| hash(&[number])).collect();
        let mut of_each = [0; 5];
        for key in 0..1000 {
            let key = hash(&u64::to_be_bytes(key));
            let before = hashed(key, &names, None);
            let index = names.iter().position(|name| *name == before).unwrap();
            of_each[index] += 1;
            for gone in (0..5).filter(|gone| *gone != index) {
                assert_eq!(hashed(key, &names, Some(gone)), before);
                let mut fewer = names.clone();
                fewer.remove(gone);
                assert_eq!(hashed(key, &fewer, None), before);
            }
        }
        assert!(
            of_each.iter().all(|count| (140..260).contains(count)),
            "{of_each:?}"
        );
    }

    #[test]
    fn shares_follow_the_weights() {
        let mut random = StdRng::seed_from_u64(1);
        let first = (0..10_000)
            .filter(|_| pick_weighted([90, 10].into_iter(), &mut random) == Some(0))
            .count();
        assert!((8900..9100).contains(&first), "{first}");
        assert_eq!(pick_weighted([0, 0].into_iter(), &mut random), None);
        assert_eq!(pick_weighted([0, 3].into_iter(), &mut random), Some(1));
    }
}
