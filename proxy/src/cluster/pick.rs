//! Picks the endpoint that takes an attempt: one that is in rotation and was not tried for this request, by
//! the cluster's algorithm; if there is none, the next best. Pure: time and randomness are arguments. The
//! algorithms are in [`crate::resilience::balance`].

use std::sync::atomic::Ordering;
use std::time::Instant;

use http::HeaderMap;
use http::header::COOKIE;
use rand::Rng;
use weft_config::table::{Algorithm, HashKey, Locality};

use crate::cluster::{Cluster, Endpoint};
use crate::limits;
use crate::resilience::balance::{self, Method, choose_endpoint};
use crate::resilience::breaker::Admission;
use crate::resilience::locality;

/// Endpoints that were tried for one request, by index. Those beyond 128 are not remembered: with so many,
/// the next pick is almost surely another one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TriedEndpoints {
    bits: u128,
    last: Option<usize>,
}

impl TriedEndpoints {
    /// It was tried.
    pub(crate) fn add(&mut self, index: usize) {
        self.last = Some(index);
        self.bits |= u32::try_from(index)
            .ok()
            .and_then(|index| 1_u128.checked_shl(index))
            .unwrap_or(0);
    }

    /// The endpoint that was tried last.
    pub(crate) fn last(self) -> Option<usize> {
        self.last
    }

    /// Whether all endpoints of this many were tried.
    pub(crate) fn all(self, count: usize) -> bool {
        (0..count).all(|index| self.has(index))
    }

    /// The same endpoints, if they still exist, by their places in a later snapshot of the cluster.
    pub(crate) fn moved(self, from: &Cluster, to: &Cluster) -> Self {
        let mut moved = Self::default();
        let place = |old: usize| {
            let place = &from.endpoints.get(old)?.place;
            to.endpoints.iter().position(|one| one.place.is(place))
        };
        let remembered = from.endpoints.len().min(128);
        let tried = (0..remembered).filter(|old| self.has(*old));
        tried.filter_map(place).for_each(|index| moved.add(index));
        moved.last = self.last.and_then(place);
        moved
    }

    /// Whether it was tried.
    pub(crate) fn has(self, index: usize) -> bool {
        u32::try_from(index)
            .ok()
            .and_then(|index| 1_u128.checked_shl(index))
            .is_some_and(|bit| self.bits & bit != 0)
    }
}

/// The criteria by which an endpoint is picked.
#[derive(Clone)]
pub(crate) struct Criteria {
    /// Endpoints to avoid.
    pub(crate) tried: TriedEndpoints,
    /// The number of the request's hash key, if the cluster hashes and the request has one.
    pub(crate) key: Option<u64>,
    /// The endpoint that the request's session names, which it goes to if that is in rotation.
    pub(crate) preferred: Option<usize>,
    /// Whether the request may be sent again if it fails: such requests probe endpoints that are out.
    pub(crate) repeatable: bool,
}

/// Picks an endpoint; none if the cluster has no endpoints.
pub(crate) fn pick(
    cluster: &Cluster,
    criteria: &Criteria,
    now: Instant,
    random: &mut impl Rng,
) -> Option<usize> {
    let endpoints = &cluster.endpoints;
    let fresh = |index: usize| !criteria.tried.has(index);
    let admission = |index: usize| {
        endpoints
            .get(index)
            .map_or(Admission::No, |one| one.standing.admission(now))
    };
    // While no endpoint is out of rotation, none is checked for it.
    let none_out = !cluster.may_have_out();
    let panic = !none_out && is_panic(cluster);
    let all_in = none_out || panic;
    if let Some(index) = criteria.preferred
        && index < endpoints.len()
        && fresh(index)
        && (all_in || admission(index) == Admission::Yes)
    {
        return Some(index);
    }
    if !all_in && let Some(index) = due(endpoints, criteria, now) {
        return Some(index);
    }
    let is_in = |index: usize| all_in || admission(index) == Admission::Yes;
    let method = method(cluster, criteria.key);
    let reach = match (cluster.nearest, method) {
        // The key names its endpoint, at any distance.
        (None, _) | (_, Method::Hash(_)) => Locality::FARTHEST,
        (Some(_), _) if panic => Locality::FARTHEST,
        (Some(nearest), _) if none_out => nearest,
        (Some(_), _) => {
            let all = endpoints.iter().enumerate();
            locality::reach(all.map(|(index, one)| (one.distance, is_in(index))), random)
        }
    };
    let near = |index: usize| endpoints[index].distance <= reach;
    let candidate = |index: usize| {
        let endpoint = &endpoints[index];
        endpoint
            .standing
            .candidate(now, cluster.traffic.balance.slow_start)
    };
    let all = (endpoints.len(), cluster.weights.as_ref());
    let mut among =
        |usable: &dyn Fn(usize) -> bool| choose_endpoint(method, all, usable, candidate, random);
    among(&|index| near(index) && fresh(index) && is_in(index))
        .or_else(|| among(&|index| fresh(index) && is_in(index)))
        .or_else(|| among(&is_in))
        .or_else(|| among(&fresh))
        .or_else(|| among(&|_| true))
}

/// Whether an endpoint takes requests: it is in rotation, or so many are out that none is left out.
pub(crate) fn takes(cluster: &Cluster, index: usize, now: Instant) -> bool {
    let endpoint = cluster.endpoints.get(index);
    endpoint.is_some_and(|one| {
        !cluster.may_have_out()
            || one.standing.admission(now) == Admission::Yes
            || is_panic(cluster)
    })
}

/// The endpoint that is due for a probe by a request like this.
fn due(endpoints: &[Endpoint], criteria: &Criteria, now: Instant) -> Option<usize> {
    let is_due = |endpoint: &Endpoint| {
        let overdue = endpoint.standing.overdue(now);
        overdue.is_some_and(|time| criteria.repeatable || time >= limits::PROBE_PATIENCE)
    };
    endpoints
        .iter()
        .enumerate()
        .position(|(index, endpoint)| !criteria.tried.has(index) && is_due(endpoint))
}

/// So many endpoints are out that the fault is probably elsewhere.
fn is_panic(cluster: &Cluster) -> bool {
    let all = cluster.endpoints.len() as f64;
    let out = cluster.endpoints.iter().filter(|one| one.standing.is_out());
    let left = all - out.count() as f64;
    left < cluster.traffic.breaker.panic_threshold.fraction() * all
}

fn method(cluster: &Cluster, key: Option<u64>) -> Method {
    match (&cluster.traffic.balance.algorithm, key) {
        (Algorithm::LeastRequest, _) => Method::LeastRequest,
        (Algorithm::RoundRobin, _) => {
            Method::RoundRobin(cluster.lasting.turn.fetch_add(1, Ordering::Relaxed))
        }
        (Algorithm::RingHash(_) | Algorithm::Maglev(_), Some(key)) => Method::Hash(key),
        (Algorithm::PeakEwma | Algorithm::RingHash(_) | Algorithm::Maglev(_), _) => {
            Method::PeakEwma
        }
    }
}

/// The number of the value that a cluster hashes. `source` is that of the caller.
pub(crate) fn key(cluster: &Cluster, headers: &HeaderMap, source: u64) -> Option<u64> {
    match &cluster.traffic.balance.algorithm {
        Algorithm::PeakEwma | Algorithm::LeastRequest | Algorithm::RoundRobin => None,
        Algorithm::RingHash(key) | Algorithm::Maglev(key) => match key {
            HashKey::Source => Some(source),
            HashKey::Header(name) => headers
                .get(name.as_str())
                .map(|value| balance::hash(value.as_bytes())),
            HashKey::Cookie(name) => {
                let lines = headers.get_all(COOKIE).into_iter();
                let mut pairs = lines
                    .filter_map(|line| line.to_str().ok())
                    .flat_map(|line| line.split(';'))
                    .filter_map(|pair| pair.trim().split_once('='));
                let (_, value) = pairs.find(|(one, _)| one == name)?;
                Some(balance::hash(value.as_bytes()))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use weft_config::table::{Percent, Traffic};

    use super::*;
    use crate::directory::tests::{cluster, placed};
    use crate::resilience::standing::Outcome;

    fn criteria(tried: TriedEndpoints) -> Criteria {
        Criteria {
            preferred: None,
            tried,
            key: None,
            repeatable: true,
        }
    }

    /// Fails requests at one endpoint until it is out, as far as it may be.
    fn put_out(cluster: &Arc<Cluster>, index: usize, now: Instant) {
        for _ in 0..5 {
            cluster.start(index, now).unwrap().tell(Outcome::Badly, now);
        }
    }

    #[test]
    fn another_endpoint_is_preferred_to_one_that_was_tried() {
        let mut random = StdRng::seed_from_u64(1);
        let now = Instant::now();
        let two = cluster(2, Traffic::default());
        let mut tried = TriedEndpoints::default();
        let first = pick(&two, &criteria(tried), now, &mut random).unwrap();
        tried.add(first);
        let second = pick(&two, &criteria(tried), now, &mut random).unwrap();
        assert_eq!(second, 1 - first);
        tried.add(second);
        assert!(tried.all(2));
        assert!(pick(&two, &criteria(tried), now, &mut random).is_some());
        assert_eq!(
            pick(
                &cluster(0, Traffic::default()),
                &criteria(tried),
                now,
                &mut random
            ),
            None
        );
    }

    #[test]
    fn what_was_tried_is_known_in_a_later_snapshot() {
        let (three, two) = (
            cluster(3, Traffic::default()),
            cluster(2, Traffic::default()),
        );
        let mut tried = TriedEndpoints::default();
        tried.add(0);
        assert!(tried.moved(&two, &three).has(0));
        assert!(!tried.moved(&two, &three).has(1));
        tried.add(2);
        assert_eq!(tried.moved(&three, &two).last(), None);
        tried.add(1);
        assert_eq!(tried.moved(&three, &two).last(), Some(1));
        assert!(tried.moved(&three, &two).all(2));
    }

    #[test]
    fn an_endpoint_that_is_out_gets_nothing_until_it_is_due_and_then_one_request() {
        let mut random = StdRng::seed_from_u64(1);
        let now = Instant::now();
        let four = cluster(4, Traffic::default());
        put_out(&four, 2, now);
        for _ in 0..100 {
            assert_ne!(
                pick(
                    &four,
                    &criteria(TriedEndpoints::default()),
                    now,
                    &mut random
                )
                .unwrap(),
                2
            );
        }
        let due = now + Duration::from_secs(3);
        // A request that cannot be repeated is no probe, unless no other request comes.
        let post = Criteria {
            preferred: None,
            repeatable: false,
            ..criteria(TriedEndpoints::default())
        };
        assert_ne!(pick(&four, &post, due, &mut random).unwrap(), 2);
        let late = due + limits::PROBE_PATIENCE;
        assert_eq!(pick(&four, &post, late, &mut random).unwrap(), 2);
        assert_eq!(
            pick(
                &four,
                &criteria(TriedEndpoints::default()),
                due,
                &mut random
            )
            .unwrap(),
            2
        );
        let mut probe = four.start(2, due).unwrap();
        assert_ne!(
            pick(
                &four,
                &criteria(TriedEndpoints::default()),
                due,
                &mut random
            )
            .unwrap(),
            2
        );
        probe.tell(Outcome::Well, due);
        assert!(!four.may_have_out());
    }

    #[test]
    fn never_more_than_half_of_the_endpoints_and_never_the_last_are_out() {
        let now = Instant::now();
        for (count, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
            let all = cluster(count, Traffic::default());
            (0..usize::from(count)).for_each(|index| put_out(&all, index, now));
            let out = all.endpoints.iter().filter(|one| one.standing.is_out());
            assert_eq!(out.count(), most, "of {count}");
        }
    }

    #[test]
    fn requests_stay_in_their_zone_until_too_few_endpoints_are_left_there() {
        let mut random = StdRng::seed_from_u64(1);
        let now = Instant::now();
        let places = [Some("eu/a"), Some("eu/a"), Some("eu/b"), Some("us/a"), None];
        let all = placed(&places, Some("eu/a"), Traffic::default());
        let mut met = |now| {
            let mut met = [0; 5];
            for _ in 0..1000 {
                met[pick(&all, &criteria(TriedEndpoints::default()), now, &mut random).unwrap()] +=
                    1;
            }
            met
        };
        let [first, second, rest @ ..] = met(now);
        assert!(first > 400 && second > 400 && rest == [0, 0, 0]);
        put_out(&all, 0, now);
        // Seven of ten stay near; the next zone is good enough for the others.
        let [out, near, next, rest @ ..] = met(now);
        assert!(out == 0 && (800..900).contains(&near) && next > 100);
        // Two of three are not quite enough, either.
        assert!(rest[0] + rest[1] < 40);
        put_out(&all, 1, now);
        let [first, second, next, rest @ ..] = met(now);
        assert!(first == 0 && second == 0 && next > 400 && rest[0] > 0 && rest[1] > 0);
        // Too few are left for the fault to be theirs: all endpoints are used, near or far.
        let mut traffic = Traffic::default();
        traffic.breaker.ejected_percent_max = Percent::whole(100);
        let three = placed(&places[..3], Some("eu/a"), traffic);
        put_out(&three, 0, now);
        put_out(&three, 1, now);
        let mut far = 0;
        for _ in 0..1000 {
            far += i32::from(
                pick(
                    &three,
                    &criteria(TriedEndpoints::default()),
                    now,
                    &mut random,
                ) == Some(2),
            );
        }
        assert!(far > 100);
        let nowhere = placed(&places, None, Traffic::default());
        assert_eq!(nowhere.nearest, None);
    }

    #[test]
    fn in_a_panic_all_endpoints_are_used() {
        let mut random = StdRng::seed_from_u64(1);
        let now = Instant::now();
        let mut traffic = Traffic::default();
        traffic.breaker.ejected_percent_max = Percent::whole(100);
        let four = cluster(4, traffic);
        (0..3).for_each(|index| put_out(&four, index, now));
        let mut seen = [false; 4];
        for _ in 0..100 {
            seen[pick(
                &four,
                &criteria(TriedEndpoints::default()),
                now,
                &mut random,
            )
            .unwrap()] = true;
        }
        assert_eq!(seen, [true; 4]);
    }

    #[test]
    fn keys_are_read_from_header_cookie_and_source() {
        let keyed = |key| {
            let mut traffic = Traffic::default();
            traffic.balance.algorithm = Algorithm::Maglev(key);
            cluster(1, traffic)
        };
        let mut headers = HeaderMap::new();
        let of = |key, headers: &HeaderMap| super::key(&keyed(key), headers, 7);
        assert_eq!(of(HashKey::Source, &headers), Some(7));
        assert_eq!(of(HashKey::Header("x-user".into()), &headers), None);
        headers.insert("x-user", "ann".parse().unwrap());
        headers.insert(COOKIE, "a=1; session=ann".parse().unwrap());
        let ann = Some(balance::hash(b"ann"));
        assert_eq!(of(HashKey::Header("x-user".into()), &headers), ann);
        assert_eq!(of(HashKey::Cookie("session".into()), &headers), ann);
        assert_eq!(
            super::key(&cluster(1, Traffic::default()), &headers, 7),
            None
        );
    }
}
