//! Which endpoint takes a request. Pure: the state of the endpoints and randomness are arguments.
//!
//! - *Power of two choices* draws two endpoints and takes the cheaper one. The cost is the load, times the
//!   latency where both were measured ([`Method::PeakEwma`]), or the load alone ([`Method::LeastRequest`]).
//! - [`Method::RoundRobin`] takes them one after the other.
//! - [`Method::Hash`] gives a key to the same endpoint as long as that endpoint exists (rendezvous hashing:
//!   the endpoint with the highest hash of key and name). When an endpoint goes, only its keys move; when it
//!   is out of rotation, its keys go to their second choice and return with it.
//!
//! Where the weights of endpoints differ, they are drawn by weight, their turns come by weight, and the hash
//! of each counts by weight. Two that were drawn are then compared by their load for each unit of weight, and
//! the second takes the place of the first only if it is clearly cheaper ([`CLEARLY`]): small differences,
//! which are chance, would otherwise decide in place of the weights.
//!
//! No method allocates, and none visits all endpoints unless some are out of rotation or it hashes, or one of
//! them has nearly all of the weight.

use rand::{Rng, RngExt};

use super::load::UnderWay;
use super::weights::Weights;
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

/// How many times as costly the first of two endpoints with weights has to be for the second to take its
/// place. Latencies of endpoints that are alike differ by less, and so do their loads but for the first few
/// requests. In simulations the shares were right within a tenth by it, and an endpoint that is slow got no
/// more requests than without weights.
const CLEARLY: f64 = 2.0;

/// A `usable` endpoint with an index below `count`; none if no endpoint is usable. `weights` are those of the
/// endpoints, if they differ.
pub(crate) fn choose_endpoint(
    method: Method,
    (count, weights): (usize, Option<&Weights>),
    usable: impl Fn(usize) -> bool,
    candidate: impl Fn(usize) -> Candidate,
    random: &mut impl Rng,
) -> Option<usize> {
    match method {
        Method::PeakEwma | Method::LeastRequest => {
            let first = draw(count, weights, &usable, random)?;
            let other = |index: usize| index != first && usable(index);
            let Some(second) = draw(count, weights, other, random) else {
                return Some(first);
            };
            let by_latency = method == Method::PeakEwma;
            let (one, two) = (candidate(first), candidate(second));
            let (mut of_one, mut of_two) = (load(one.load, random), load(two.load, random));
            let mut margin = 1.0;
            if let Some(weights) = weights {
                of_one /= weights.relative(first);
                of_two /= weights.relative(second);
                margin = CLEARLY;
            }
            let cost = costs((&one, of_one), (&two, of_two), by_latency);
            Some(if cost.1 * margin < cost.0 {
                second
            } else {
                first
            })
        }
        Method::RoundRobin(turn) => {
            if let Some(weights) = weights {
                return by_turn(turn, (count, weights), usable, candidate, random);
            }
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
        Method::Hash(key) => {
            let all = (0..count).filter(|index| usable(*index));
            let mixed = |index: &usize| mix(key, candidate(*index).name);
            match weights {
                None => all.max_by_key(mixed),
                Some(weights) => all
                    .map(|index| (index, score(mixed(&index), weights.get(index))))
                    .max_by(|(_, one), (_, other)| one.total_cmp(other))
                    .map(|(index, _)| index),
            }
        }
    }
}

/// The endpoint whose turn it is by weight. If it takes nothing, one is drawn in its place.
fn by_turn(
    turn: usize,
    (count, weights): (usize, &Weights),
    usable: impl Fn(usize) -> bool,
    candidate: impl Fn(usize) -> Candidate,
    random: &mut impl Rng,
) -> Option<usize> {
    let mut next = weights.in_turn(turn);
    for _ in 0..DRAWS {
        if next < count && usable(next) {
            let share = candidate(next).share;
            if share >= 1.0 || random.random_bool(share.clamp(0.0, 1.0)) {
                return Some(next);
            }
        }
        next = draw(count, Some(weights), &usable, random)?;
    }
    Some(next)
}

/// The score of an endpoint in rendezvous hashing by weight: the share of keys for which it has the highest
/// one is that of its weight. For equal weights the order is that of `mixed`.
fn score(mixed: u64, weight: u64) -> f64 {
    // Above 0 and below 1, with the 53 bits that a float holds.
    let part = ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    weight as f64 / -part.ln()
}

/// A usable endpoint drawn at random, by weight if there are any.
fn draw(
    count: usize,
    weights: Option<&Weights>,
    usable: impl Fn(usize) -> bool,
    random: &mut impl Rng,
) -> Option<usize> {
    if count == 0 {
        return None;
    }
    for _ in 0..DRAWS.min(count * 2) {
        let index = match weights {
            None => random.random_range(0..count),
            Some(weights) => weights.draw(random),
        };
        if index < count && usable(index) {
            return Some(index);
        }
    }
    if let Some(weights) = weights {
        let of = |index| match usable(index) {
            true => u32::try_from(weights.get(index)).unwrap_or(u32::MAX),
            false => 0,
        };
        return pick_weighted((0..count).map(of), random);
    }
    let start = random.random_range(0..count);
    (0..count)
        .map(|step| (start + step) % count)
        .find(|index| usable(*index))
}

/// The load of an endpoint in requests. A load below one counts as one that often: if nothing else differs,
/// the endpoint with one more stream still gets nearly as many requests.
fn load(load: UnderWay, random: &mut impl Rng) -> f64 {
    let streams = u64::from(load.settled) + u64::from(random.random_range(0..STREAMS_PER_REQUEST));
    (u64::from(load.busy) + streams / u64::from(STREAMS_PER_REQUEST)) as f64
}

/// The costs of two endpoints, each with its load.
fn costs(
    (one, load_of_one): (&Candidate, f64),
    (other, load_of_other): (&Candidate, f64),
    by_latency: bool,
) -> (f64, f64) {
    let latencies = match (one.latency, other.latency) {
        (Some(one), Some(other)) if by_latency => {
            (one.max(LATENCY_FLOOR), other.max(LATENCY_FLOOR))
        }
        // An endpoint without a measured latency counts as fast as the other: only its load limits it.
        (_, _) => (1.0, 1.0),
    };
    let cost = |share: f64, load: f64, latency: f64| latency * (load + 1.0) / share;
    (
        cost(one.share, load_of_one, latencies.0),
        cost(other.share, load_of_other, latencies.1),
    )
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
                (endpoints.len(), None),
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
                    (100, None),
                    |index| index == usable,
                    |_| candidate(0, None),
                    &mut random,
                );
                assert_eq!(chosen, Some(usable));
            }
            let none = |_| candidate(0, None);
            let none = choose_endpoint(method, (5, None), |_| false, none, &mut random);
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
        let among = (names.len(), None);
        names[choose_endpoint(Method::Hash(key), among, usable, named, &mut random).unwrap()]
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

    /// How often endpoints of these weights are chosen, of which only some are usable.
    fn weighted(
        method: impl Fn(usize) -> Method,
        weights: &[u16],
        usable: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let prepared = Weights::of(weights.iter().copied());
        let mut random = StdRng::seed_from_u64(1);
        let mut counts = vec![0; weights.len()];
        for turn in 0..40_000 {
            let named = |index: usize| Candidate {
                name: hash(&[index as u8]),
                ..candidate(0, None)
            };
            let among = (weights.len(), prepared.as_ref());
            let chosen = choose_endpoint(method(turn), among, &usable, named, &mut random);
            counts[chosen.unwrap()] += 1;
        }
        counts
    }

    fn expect_shares(counts: &[usize], due: &[u32]) {
        let (all, sum): (usize, u32) = (counts.iter().sum(), due.iter().sum());
        for (count, due) in counts.iter().zip(due) {
            let due = all as f64 * f64::from(*due) / f64::from(sum);
            assert!(
                (*count as f64 - due).abs() <= 0.06 * due + 30.0,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn every_method_gives_idle_endpoints_the_shares_of_their_weights() {
        let methods: [fn(usize) -> Method; 4] = [
            |_| Method::PeakEwma,
            |_| Method::LeastRequest,
            Method::RoundRobin,
            |turn| Method::Hash(hash(&turn.to_be_bytes())),
        ];
        for method in methods {
            expect_shares(&weighted(method, &[200, 100], |_| true), &[200, 100]);
            let five = [1000, 100, 100, 50, 1];
            let due = [1000, 100, 100, 50, 1];
            expect_shares(&weighted(method, &five, |_| true), &due);
            // Those that are left share by weight, too.
            expect_shares(
                &weighted(method, &five, |index| index > 1),
                &[0, 0, 100, 50, 1],
            );
            let one = weighted(method, &five, |index| index == 4);
            assert_eq!(one, [0, 0, 0, 0, 40_000]);
        }
    }

    #[test]
    fn a_key_moves_only_to_an_endpoint_whose_weight_grows() {
        let of = |weights: [u16; 3], key: u64| {
            let prepared = Weights::of(weights.into_iter());
            let mut random = StdRng::seed_from_u64(1);
            let named = |index: usize| Candidate {
                name: hash(&[index as u8]),
                ..candidate(0, None)
            };
            let among = (3, prepared.as_ref());
            choose_endpoint(Method::Hash(key), among, |_| true, named, &mut random)
        };
        for key in 0..2000_u64 {
            let key = hash(&key.to_be_bytes());
            let (before, after) = (of([100, 100, 100], key), of([100, 100, 250], key));
            assert!(before == after || after == Some(2));
        }
    }

    #[test]
    fn a_busy_endpoint_of_great_weight_is_left_for_one_that_is_clearly_less_busy() {
        let weights = Weights::of([300, 100].into_iter());
        let mut random = StdRng::seed_from_u64(1);
        let mut first = |loads: [u32; 2]| {
            let of = |index: usize| candidate(loads[index], None);
            let chosen = |random: &mut StdRng| {
                let among = (2, weights.as_ref());
                choose_endpoint(Method::LeastRequest, among, |_| true, of, random)
            };
            (0..1000).filter(|_| chosen(&mut random) == Some(0)).count()
        };
        // Equal for each unit of weight.
        assert!((700..800).contains(&first([30, 10])));
        assert_eq!(first([90, 10]), 0);
        assert_eq!(first([30, 40]), 1000);
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
