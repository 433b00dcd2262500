//! Which traces are recorded that begin here: a share of them, by their id, so that every program that knows
//! the id and the share decides alike. Pure.

/// Bits of a trace's id that are random in every version of the format (W3C Trace Context level 2, section
/// 3.2.2.3).
const RANDOM_BITS: u32 = 56;

/// A share of all traces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio {
    /// Traces whose random bits are at least this.
    from: u64,
}

impl Ratio {
    /// From none (0) to all (1).
    pub(super) fn new(ratio: f64) -> Self {
        const ALL: u64 = 1 << RANDOM_BITS;
        // A float-to-integer cast keeps within the range of the integer.
        let taken = (ratio * ALL as f64).round() as u64;
        Self {
            from: ALL.saturating_sub(taken),
        }
    }

    /// Whether the trace is among them.
    pub(super) fn takes(self, trace: u128) -> bool {
        let random = trace & ((1 << RANDOM_BITS) - 1);
        random >= u128::from(self.from)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    #[test]
    fn none_all_and_a_share_are_taken_and_a_larger_share_takes_what_a_smaller_one_does() {
        let mut random = StdRng::seed_from_u64(1);
        let (none, tenth, half, all) = (0.0, 0.1, 0.5, 1.0);
        let [none, tenth, half, all] = [none, tenth, half, all].map(Ratio::new);
        let mut taken = [0, 0];
        for _ in 0..10_000 {
            let trace = random.random();
            assert!(!none.takes(trace) && all.takes(trace));
            assert!(half.takes(trace) || !tenth.takes(trace));
            taken[0] += u32::from(tenth.takes(trace));
            taken[1] += u32::from(half.takes(trace));
        }
        assert!((900..1100).contains(&taken[0]), "{taken:?}");
        assert!((4800..5200).contains(&taken[1]), "{taken:?}");
    }

    #[test]
    fn only_the_random_bits_decide() {
        let half = Ratio::new(0.5);
        let (low, high) = (1_u128 << 55, (1_u128 << 55) - 1);
        for other in [0, 1 << 56, u128::MAX << 56] {
            assert!(half.takes(low | other) && !half.takes(high | other));
        }
        assert!(Ratio::new(1.0).takes(0) && !Ratio::new(0.0).takes(u128::MAX));
    }
}
