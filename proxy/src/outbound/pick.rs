//! Which endpoint takes a request: of two chosen at random, the one with fewer outstanding requests
//! ("power of two choices"). Pure: randomness and loads come in.

use rand::{Rng, RngExt};

/// Picks an index below `count`, never `except` unless it is the only one.
pub(crate) fn pick(
    count: usize,
    except: Option<usize>,
    load: impl Fn(usize) -> u32,
    random: &mut impl Rng,
) -> Option<usize> {
    let except = except.filter(|index| *index < count && count > 1);
    let free = count - usize::from(except.is_some());
    // Maps a number below `free` to an index, skipping `except`.
    let index =
        |number: usize| number + usize::from(except.is_some_and(|skipped| number >= skipped));
    match free {
        0 => None,
        1 => Some(index(0)),
        _ => {
            let first = random.random_range(0..free);
            let second = (first + random.random_range(1..free)) % free;
            let (first, second) = (index(first), index(second));
            Some(if load(second) < load(first) {
                second
            } else {
                first
            })
        }
    }
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

    #[test]
    fn the_less_loaded_of_two_wins() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            assert_eq!(pick(2, None, |index| [5, 1][index], &mut random), Some(1));
        }
    }

    #[test]
    fn the_most_loaded_of_three_never_wins() {
        let mut random = StdRng::seed_from_u64(2);
        for _ in 0..1000 {
            assert_ne!(
                pick(3, None, |index| [9, 1, 2][index], &mut random),
                Some(0)
            );
        }
    }

    #[test]
    fn equal_loads_are_spread() {
        let mut random = StdRng::seed_from_u64(3);
        let mut seen = [0; 4];
        for _ in 0..4000 {
            seen[pick(4, None, |_| 0, &mut random).unwrap()] += 1;
        }
        assert!(
            seen.iter().all(|count| (850..1150).contains(count)),
            "{seen:?}"
        );
    }

    #[test]
    fn the_failed_endpoint_is_avoided_unless_it_is_alone() {
        let mut random = StdRng::seed_from_u64(4);
        for _ in 0..100 {
            assert_ne!(pick(3, Some(1), |_| 0, &mut random), Some(1));
            assert_eq!(pick(2, Some(0), |_| 0, &mut random), Some(1));
        }
        assert_eq!(pick(1, Some(0), |_| 0, &mut random), Some(0));
        assert_eq!(pick(0, None, |_| 0, &mut random), None);
    }

    #[test]
    fn weights_are_shares() {
        let mut random = StdRng::seed_from_u64(5);
        let mut seen = [0; 3];
        for _ in 0..10_000 {
            seen[pick_weighted([90, 0, 10].into_iter(), &mut random).unwrap()] += 1;
        }
        assert_eq!(seen[1], 0);
        assert!((800..1200).contains(&seen[2]), "{seen:?}");
        assert_eq!(pick_weighted([0, 0].into_iter(), &mut random), None);
    }
}
