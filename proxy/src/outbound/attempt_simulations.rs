//! A model of exchanges whose attempts end in random ways. The pick of endpoints, the verdicts, the attempts
//! and the budget work together, and each step checks the rules that must always hold. Time and randomness
//! are simulated (`attempt_simulations/world.rs`); a failure names its seed.

mod world;

use std::time::Duration;

use world::{Seen, World};

const SEEDS: u64 = 2000;

#[test]
fn in_any_order_of_outcomes_attempts_keep_their_bounds() {
    let mut all = Seen::default();
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            // Within one window of the budget, which forgets nothing in that time.
            while world.now < world.start + Duration::from_secs(5) {
                world.exchange();
                let pause = world.millis(100);
                world.now += pause;
            }
            world.seen
        });
        let seen = run.unwrap_or_else(|_| panic!("seed {seed}"));
        all.again += seen.again;
        all.copies += seen.copies;
        all.withheld += seen.withheld;
        all.answered += seen.answered;
        all.late += seen.late;
        all.left += seen.left;
        all.out += seen.out;
        all.twice += seen.twice;
    }
    let Seen {
        again,
        copies,
        withheld,
        answered,
        late,
        left,
        out,
        twice,
    } = all;
    let least = [again, copies, withheld, answered, late, left, out, twice];
    assert!(least.iter().all(|count| *count > 100), "{least:?}");
}
