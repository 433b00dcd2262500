//! Repeatable random numbers: one for each (seed, packet number, purpose), independent of earlier ones. Pure.

use super::{Probability, Seed};

/// The purpose of a random choice, so that choices are independent of each other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Loss = 1,
    Burst,
    Duplicate,
    Reorder,
    Corrupt,
    CorruptCopy,
    Damage,
    DamageCopy,
    JitterRadius,
    JitterAngle,
    Cross,
}

/// The choices of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    seed: u64,
}

impl Fate {
    pub(super) fn new(seed: Seed) -> Self {
        Self { seed: mix(seed.0) }
    }

    /// 64 random bits.
    pub(super) fn bits(self, number: u64, purpose: Purpose) -> u64 {
        // Twice through the mixer, so that neighbours in either argument have independent results.
        mix(mix(self.seed ^ ((purpose as u64) << 56)).wrapping_add(number.wrapping_mul(GOLDEN)))
    }

    /// A number from 0 up to 1, without 1.
    pub(super) fn share(self, number: u64, purpose: Purpose) -> f64 {
        // The 53 bits that an f64 holds exactly.
        (self.bits(number, purpose) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether an event of this probability happens.
    pub(super) fn happens(self, probability: Probability, number: u64, purpose: Purpose) -> bool {
        self.share(number, purpose) < probability.share()
    }
}

/// 2^64 divided by the golden ratio: the increment of SplitMix64 (Steele, Lea, Flood 2014).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64.
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(GOLDEN);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_depends_on_seed_number_and_purpose_alone() {
        let fate = Fate::new(Seed(1));
        assert_eq!(fate.bits(7, Purpose::Loss), fate.bits(7, Purpose::Loss));
        let others = [
            fate.bits(8, Purpose::Loss),
            fate.bits(7, Purpose::Burst),
            Fate::new(Seed(2)).bits(7, Purpose::Loss),
        ];
        assert!(!others.contains(&fate.bits(7, Purpose::Loss)));
    }

    #[test]
    fn shares_are_even_and_neighbours_have_nothing_in_common() {
        let fate = Fate::new(Seed(42));
        let count = 100_000;
        let shares: Vec<f64> = (0..count)
            .map(|number| fate.share(number, Purpose::Loss))
            .collect();
        let mut tenths = [0u32; 10];
        for share in &shares {
            tenths[(share * 10.0) as usize] += 1;
        }
        // Ten thousand each, give or take five standard deviations of 95.
        for tenth in tenths {
            assert!(tenth.abs_diff(10_000) < 475, "{tenths:?}");
        }
        let product: f64 = shares
            .windows(2)
            .map(|two| (two[0] - 0.5) * (two[1] - 0.5))
            .sum();
        // The sum of independent products has a standard deviation of sqrt(n)/12 = 26.
        assert!(product.abs() < 132.0, "{product}");
    }
}
