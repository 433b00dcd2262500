//! Combines the rounds of a comparison. Pure.
//!
//! A figure is the median over rounds. A ratio is the median of the ratios within rounds, because the two
//! sides of a round met the same machine. Each round measures weft a second time; the difference between the
//! two is the noise, and a ratio within it is no difference.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::observe::{Figure, Observation};
use super::{CONTROL, Measurement, WEFT};

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// The number of rounds that have this value.
    pub rounds: usize,
}

/// One figure of one measurement, of all variants.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The measurement.
    pub measurement: Measurement,
    /// Its figure.
    pub figure: Figure,
    /// By variant; variants without it are missing.
    pub values: BTreeMap<String, Spread>,
    /// The value of weft divided by that of each other variant.
    pub weft_over: BTreeMap<String, Ratio>,
    /// The factor by which weft and weft again differed at most, from 1 upwards.
    pub noise: Option<f64>,
    /// Variants of which a run had failures, a generator that was late, or too few requests beyond this
    /// percentile.
    pub doubtful: Vec<String>,
}

/// The value of weft divided by that of another variant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Over the rounds.
    #[serde(flatten)]
    pub spread: Spread,
    /// Its meaning.
    pub verdict: Verdict,
}

/// The meaning of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Weft is better, beyond the noise and in every round.
    WeftBetter,
    /// Weft is worse, beyond the noise and in every round.
    WeftWorse,
    /// The noise, or the spread of the rounds, is as large as the difference.
    NotDistinguishable,
}

/// The rows of the table, in the order of the measurements.
pub fn rows(observations: &[Observation]) -> Vec<Row> {
    let measurements: BTreeSet<Measurement> =
        observations.iter().map(|one| one.measurement).collect();
    let all = measurements.into_iter().flat_map(|measurement| {
        let figures = measurement.figures().into_iter();
        figures.map(move |figure| row(observations, measurement, figure))
    });
    all.filter(|row| !row.values.is_empty()).collect()
}

fn row(observations: &[Observation], measurement: Measurement, figure: Figure) -> Row {
    // By variant: round and value.
    let mut found: BTreeMap<&str, BTreeMap<u32, f64>> = BTreeMap::new();
    let mut doubtful: Vec<String> = Vec::new();
    for one in observations
        .iter()
        .filter(|one| one.measurement == measurement)
    {
        if let Some(value) = one.figures.get(&figure) {
            found
                .entry(&one.variant)
                .or_default()
                .insert(one.round, *value);
        }
        let doubt = one.failed > 0 || one.generator_late || one.coarse.contains(&figure);
        if doubt && !doubtful.contains(&one.variant) {
            doubtful.push(one.variant.clone());
        }
    }
    let ratios = |other: &str| -> Vec<f64> {
        let (Some(weft), Some(other)) = (found.get(WEFT), found.get(other)) else {
            return Vec::new();
        };
        let within = weft
            .iter()
            .filter_map(|(round, weft)| ratio(*weft, *other.get(round)?));
        within.collect()
    };
    let control = ratios(CONTROL).into_iter();
    let noise = control.map(|ratio| ratio.max(1.0 / ratio)).reduce(f64::max);
    let others = found
        .keys()
        .filter(|name| **name != WEFT && **name != CONTROL);
    let weft_over = others.filter_map(|name| {
        let spread = spread(&ratios(name))?;
        let verdict = judge(spread, noise, figure.more_is_better());
        Some(((*name).to_owned(), Ratio { spread, verdict }))
    });
    let weft_over = weft_over.collect();
    let values = found.iter().filter_map(|(name, by_round)| {
        let values: Vec<f64> = by_round.values().copied().collect();
        Some(((*name).to_owned(), spread(&values)?))
    });
    Row {
        measurement,
        figure,
        values: values.collect(),
        weft_over,
        noise,
        doubtful,
    }
}

/// None if one of them is zero: a ratio to zero has no meaning.
fn ratio(weft: f64, other: f64) -> Option<f64> {
    (weft > 0.0 && other > 0.0).then(|| weft / other)
}

fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    };
    Some(Spread {
        median,
        min,
        max,
        rounds: sorted.len(),
    })
}

fn judge(ratio: Spread, noise: Option<f64>, more_is_better: bool) -> Verdict {
    // Without a control there is nothing to judge by.
    let Some(noise) = noise else {
        return Verdict::NotDistinguishable;
    };
    let more = ratio.median > noise && ratio.min > 1.0;
    let less = ratio.median < 1.0 / noise && ratio.max < 1.0;
    match (more, less) {
        (false, false) => Verdict::NotDistinguishable,
        (more, _) if more == more_is_better => Verdict::WeftBetter,
        _ => Verdict::WeftWorse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Path;
    use crate::compare::observe::Part;
    use crate::compare::testing::{comparison, near, observation};

    const CLOSED: Measurement = Measurement::Closed(Path::Http);

    fn row_of(observations: &[Observation], figure: Figure) -> Row {
        let rows = rows(observations);
        rows.into_iter().find(|row| row.figure == figure).unwrap()
    }

    /// The rates of weft, weft again and a third in each round.
    fn rates(rounds: &[[f64; 3]]) -> Row {
        let mut observations = Vec::new();
        for (round, rates) in (0..).zip(rounds) {
            for (name, rate) in [WEFT, CONTROL, "other"].into_iter().zip(rates) {
                observations.push(observation(
                    round,
                    name,
                    CLOSED,
                    &[(Figure::PerSecond, *rate)],
                ));
            }
        }
        row_of(&observations, Figure::PerSecond)
    }

    #[test]
    fn a_ratio_is_the_median_of_the_ratios_within_rounds() {
        // The machine was slow in the second round: medians of the columns would say 1.5.
        let row = rates(&[
            [300.0, 300.0, 100.0],
            [30.0, 30.0, 15.0],
            [150.0, 150.0, 50.0],
        ]);
        let ratio = row.weft_over["other"];
        assert!(near(ratio.spread.median, 3.0), "{ratio:?}");
        assert!(near(ratio.spread.min, 2.0) && near(ratio.spread.max, 3.0));
        assert_eq!(row.values["other"].median, 50.0);
        assert_eq!(row.values[WEFT].rounds, 3);
    }

    #[test]
    fn what_is_within_the_noise_of_the_control_is_not_distinguishable() {
        // Weft differs from itself by a quarter in one round.
        let row = rates(&[
            [100.0, 125.0, 90.0],
            [100.0, 100.0, 90.0],
            [100.0, 99.0, 90.0],
        ]);
        assert!(near(row.noise.unwrap(), 1.25));
        assert_eq!(row.weft_over["other"].verdict, Verdict::NotDistinguishable);
        let row = rates(&[
            [100.0, 101.0, 90.0],
            [100.0, 100.0, 90.0],
            [100.0, 99.0, 90.0],
        ]);
        assert_eq!(row.weft_over["other"].verdict, Verdict::WeftBetter);
    }

    #[test]
    fn rounds_that_disagree_about_the_side_are_not_distinguishable() {
        let row = rates(&[
            [100.0, 100.0, 50.0],
            [100.0, 100.0, 50.0],
            [100.0, 100.0, 110.0],
        ]);
        assert!(near(row.weft_over["other"].spread.median, 2.0));
        assert_eq!(row.weft_over["other"].verdict, Verdict::NotDistinguishable);
    }

    #[test]
    fn less_time_of_processors_is_better_and_fewer_requests_are_worse() {
        let all = comparison();
        let row = row_of(&all.observations, Figure::Cpu(Part::Pair));
        assert_eq!(row.weft_over["<twice>"].verdict, Verdict::WeftBetter);
        assert_eq!(row.weft_over["same"].verdict, Verdict::NotDistinguishable);
        assert!(!row.values.contains_key("direct"), "it has no proxies");
        let row = row_of(&all.observations, Figure::PerSecond);
        assert_eq!(row.weft_over["direct"].verdict, Verdict::WeftWorse);
    }

    #[test]
    fn without_a_control_nothing_is_claimed() {
        let observations = [
            observation(0, WEFT, CLOSED, &[(Figure::PerSecond, 100.0)]),
            observation(0, "other", CLOSED, &[(Figure::PerSecond, 1.0)]),
        ];
        let row = row_of(&observations, Figure::PerSecond);
        assert_eq!(row.noise, None);
        assert_eq!(row.weft_over["other"].verdict, Verdict::NotDistinguishable);
    }

    #[test]
    fn nothing_has_no_ratio_and_failures_make_a_variant_doubtful() {
        let serial = Measurement::Serial(Path::Tcp);
        let mut slower = observation(0, "other", serial, &[(Figure::Added, -5.0)]);
        slower.failed = 3;
        slower.coarse = vec![Figure::P99];
        let observations = [
            observation(0, WEFT, serial, &[(Figure::Added, 10.0)]),
            slower,
        ];
        let row = row_of(&observations, Figure::Added);
        assert!(row.weft_over.is_empty(), "{row:?}");
        assert_eq!(row.doubtful, ["other"]);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        let spread = spread(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 4.0));
    }
}
