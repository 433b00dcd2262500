//! The weights of the endpoints of a cluster, prepared so that a draw by weight costs a binary search and no
//! allocation. Pure.

use rand::{Rng, RngExt};

/// The weights of endpoints that are not all equal.
#[derive(Debug)]
pub(crate) struct Weights {
    /// Each with those before it.
    sums: Box<[u64]>,
    /// The least of them.
    least: f64,
}

/// The fraction of 2^64 that is nearest to the golden ratio: its multiples spread evenly over any range.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Weights {
    /// Of endpoints in their order; none if all are equal, as then no weight matters.
    pub(crate) fn of(weights: impl Iterator<Item = u16> + Clone) -> Option<Self> {
        let (least, most) = (weights.clone().min()?, weights.clone().max()?);
        if least == most {
            return None;
        }
        let mut sum = 0;
        let sums = weights.map(|weight| {
            sum += u64::from(weight);
            sum
        });
        Some(Self {
            sums: sums.collect(),
            least: least.into(),
        })
    }

    /// The weight of one.
    pub(crate) fn get(&self, index: usize) -> u64 {
        let before = index
            .checked_sub(1)
            .and_then(|before| self.sums.get(before));
        let sum = self.sums.get(index).copied().unwrap_or_default();
        sum - before.copied().unwrap_or_default()
    }

    /// The weight of one, in terms of the least.
    pub(crate) fn relative(&self, index: usize) -> f64 {
        self.get(index) as f64 / self.least
    }

    /// One that is drawn by weight.
    pub(crate) fn draw(&self, random: &mut impl Rng) -> usize {
        match self.sums.last() {
            Some(total) if *total > 0 => self.at(random.random_range(0..*total)),
            Some(_) | None => 0,
        }
    }

    /// The one whose turn it is. Turns in a row are spread evenly: each endpoint gets its share of any run of
    /// them, but for one turn or two.
    pub(crate) fn in_turn(&self, turn: usize) -> usize {
        let total = self.sums.last().copied().unwrap_or_default();
        let part = (turn as u64).wrapping_mul(GOLDEN);
        let point = (u128::from(part) * u128::from(total)) >> 64;
        self.at(u64::try_from(point).unwrap_or_default())
    }

    fn at(&self, point: u64) -> usize {
        self.sums.partition_point(|sum| *sum <= point)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn of(weights: &[u16]) -> Weights {
        Weights::of(weights.iter().copied()).unwrap()
    }

    #[test]
    fn equal_weights_need_no_preparation() {
        assert!(Weights::of([].into_iter()).is_none());
        assert!(Weights::of([7; 3].into_iter()).is_none());
        assert_eq!(of(&[7, 8]).get(1), 8);
        assert_eq!(of(&[50, 100]).relative(1), 2.0);
    }

    #[test]
    fn draws_and_turns_follow_the_weights() {
        let weights = [100, 1, 300, 99];
        let prepared = of(&weights);
        let mut random = StdRng::seed_from_u64(1);
        let (mut drawn, mut turns) = ([0; 4], [0; 4]);
        for turn in 0..50_000 {
            drawn[prepared.draw(&mut random)] += 1;
            turns[prepared.in_turn(turn)] += 1;
        }
        for (index, weight) in weights.into_iter().enumerate() {
            let due = i64::from(weight) * 100;
            assert!((drawn[index] - due).abs() < due / 20 + 40, "{drawn:?}");
            assert!((turns[index] - due).abs() <= 10, "{turns:?}");
        }
    }

    #[test]
    fn no_endpoint_waits_long_for_its_turn() {
        let prepared = of(&[300, 100, 100]);
        let mut last = [0; 3];
        for turn in 0..1_000_000 {
            let index = prepared.in_turn(turn);
            assert!(turn - last[index] <= 15, "{index} at {turn}");
            last[index] = turn;
        }
    }
}
