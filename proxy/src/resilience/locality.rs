//! How far a request goes: to the nearest endpoints, as long as enough of them are in rotation to carry the
//! nearest endpoints' share of the load. Pure.

use rand::{Rng, RngExt};
use weft_config::table::Locality;

/// The load that near endpoints may carry beyond their share when some of them are out: with 1.4, requests
/// begin to go farther when less than 72 % are in rotation.
const OVERPROVISIONED: f64 = 1.4;

/// The distance that a request may go. `endpoints` are all, each with its distance and whether it is in
/// rotation.
pub(crate) fn reach(
    endpoints: impl Iterator<Item = (u8, bool)> + Clone,
    random: &mut impl Rng,
) -> u8 {
    let mut nearer = 0;
    for distance in 0..Locality::FARTHEST {
        let within = endpoints.clone().filter(|(one, _)| *one <= distance);
        let (all, well) = within.fold((0_u32, 0_u32), |(all, well), (_, is_in)| {
            (all + 1, well + u32::from(is_in))
        });
        // No endpoint is at exactly this distance.
        if all == nearer {
            continue;
        }
        nearer = all;
        let share = (OVERPROVISIONED * f64::from(well) / f64::from(all)).min(1.0);
        if share >= 1.0 || random.random_bool(share) {
            return distance;
        }
    }
    Locality::FARTHEST
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn shares(endpoints: &[(u8, bool)]) -> [f64; 4] {
        let mut random = StdRng::seed_from_u64(1);
        let mut counts = [0.0; 4];
        for _ in 0..10_000 {
            counts[usize::from(reach(endpoints.iter().copied(), &mut random))] += 1.0 / 10_000.0;
        }
        counts
    }

    #[test]
    fn all_stay_near_while_most_of_the_near_ones_are_in_rotation() {
        assert!(shares(&[(0, true), (3, true)])[0] > 0.999);
        let three_of_four = [(0, true), (0, true), (0, true), (0, false), (2, true)];
        assert!(shares(&three_of_four)[0] > 0.999);
    }

    #[test]
    fn with_half_of_the_near_ones_out_three_of_ten_go_farther() {
        let half = [(0, true), (0, false), (2, true), (2, true), (3, true)];
        let [near, _, region, anywhere] = shares(&half);
        assert!((near - 0.7).abs() < 0.02, "{near}");
        assert!((region - 0.3).abs() < 0.02 && anywhere < 0.001);
    }

    #[test]
    fn without_any_near_one_the_next_place_takes_them() {
        assert!(shares(&[(0, false), (1, true), (3, true)])[0] < 0.001);
        assert!(shares(&[(2, true), (3, true)])[2] > 0.999);
        assert!(shares(&[(3, true)])[3] > 0.999);
    }
}
