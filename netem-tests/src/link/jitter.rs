//! How much later or earlier than the mean a packet arrives. Pure.
//!
//! Every shape is computed from one standard normal variable per packet; with a correlation, each depends on
//! the one before (AR(1)). Its distribution function turns it into a share from 0 to 1, and the shape's
//! quantile function turns that into a time: correlation changes the order of the values, never their
//! distribution.

use std::f64::consts::{SQRT_2, TAU};
use std::time::Duration;

use super::fate::{Fate, Purpose};
use super::{Distribution, Jitter};
use crate::limits;

/// The correlated variable of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CorrelatedJitter {
    last: Option<f64>,
}

impl CorrelatedJitter {
    /// The delay of packet `number`: `mean` with its jitter, at least zero.
    pub(super) fn delay(
        &mut self,
        mean: Duration,
        jitter: &Jitter,
        fate: Fate,
        number: u64,
    ) -> Duration {
        let normal = self.step(jitter.correlation.share(), fate, number);
        let deviation = jitter.deviation.as_secs_f64();
        let offset = match jitter.distribution {
            Distribution::Uniform => deviation * (2.0 * below(normal) - 1.0),
            Distribution::Normal => deviation * normal,
            Distribution::Pareto => lomax(deviation, below(normal)),
        };
        // It is not NaN and at most a few minutes, so only negative values are refused.
        Duration::try_from_secs_f64(mean.as_secs_f64() + offset).unwrap_or_default()
    }

    fn step(&mut self, correlation: f64, fate: Fate, number: u64) -> f64 {
        let fresh = normal(fate, number);
        let value = match self.last {
            Some(last) => correlation * last + (1.0 - correlation * correlation).sqrt() * fresh,
            None => fresh,
        };
        self.last = Some(value);
        value
    }
}

/// A standard normal variable (Box and Muller 1958).
fn normal(fate: Fate, number: u64) -> f64 {
    // 1 - share is never 0, whose logarithm is infinite.
    let radius = (-2.0 * (1.0 - fate.share(number, Purpose::JitterRadius)).ln()).sqrt();
    radius * (TAU * fate.share(number, Purpose::JitterAngle)).cos()
}

/// The share of standard normal variables below `value`.
fn below(value: f64) -> f64 {
    // Abramowitz and Stegun 7.1.26, within 1.5e-7.
    let x = value.abs() / SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let polynomial = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let upper = 0.5 * polynomial * (-x * x).exp();
    if value < 0.0 { upper } else { 1.0 - upper }
}

/// The quantile of a Pareto distribution that begins at zero (Lomax), of shape 3.
fn lomax(mean: f64, share: f64) -> f64 {
    const SHAPE: f64 = 3.0;
    let scale = mean * (SHAPE - 1.0);
    let value = scale * ((1.0 - share).max(f64::EPSILON).powf(-1.0 / SHAPE) - 1.0);
    value.min(mean * limits::PARETO_CUTOFF)
}

#[cfg(test)]
mod tests {
    use super::super::{Order, Probability, Seed};
    use super::*;

    const MEAN: Duration = Duration::from_millis(100);

    /// The delays of many packets, in milliseconds.
    fn delays(distribution: Distribution, correlation: f64) -> Vec<f64> {
        let jitter = Jitter {
            deviation: Duration::from_millis(10),
            distribution,
            correlation: Probability::new(correlation).unwrap(),
            order: Order::Overtake,
        };
        let mut wander = CorrelatedJitter::default();
        (0..50_000)
            .map(|number| {
                let delay = wander.delay(MEAN, &jitter, Fate::new(Seed(3)), number);
                delay.as_secs_f64() * 1e3
            })
            .collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    fn deviation(values: &[f64]) -> f64 {
        let mean = mean(values);
        let squares: Vec<f64> = values.iter().map(|value| (value - mean).powi(2)).collect();
        self::mean(&squares).sqrt()
    }

    /// Lag-1 correlation.
    fn resemblance(values: &[f64]) -> f64 {
        let mean = mean(values);
        let products: Vec<f64> = values
            .windows(2)
            .map(|two| (two[0] - mean) * (two[1] - mean))
            .collect();
        self::mean(&products) / deviation(values).powi(2)
    }

    #[track_caller]
    fn close(found: f64, expected: f64, within: f64) {
        assert!(
            (found - expected).abs() <= within,
            "{found}, not {expected}"
        );
    }

    #[test]
    fn uniform_jitter_fills_its_width_evenly() {
        let delays = delays(Distribution::Uniform, 0.0);
        close(mean(&delays), 100.0, 0.2);
        close(deviation(&delays), 20.0 / 12f64.sqrt(), 0.1);
        assert!(delays.iter().all(|delay| (90.0..=110.0).contains(delay)));
    }

    #[test]
    fn normal_jitter_has_its_standard_deviation() {
        let delays = delays(Distribution::Normal, 0.0);
        close(mean(&delays), 100.0, 0.3);
        close(deviation(&delays), 10.0, 0.2);
        let within = delays.iter().filter(|delay| (90.0..110.0).contains(*delay));
        close(within.count() as f64 / delays.len() as f64, 0.6827, 0.01);
    }

    #[test]
    fn pareto_jitter_only_adds_and_has_a_long_tail() {
        let delays = delays(Distribution::Pareto, 0.0);
        // The cutoff at 20 times the mean takes half a percent from it.
        close(mean(&delays), 110.0, 0.4);
        assert!(delays.iter().all(|delay| (100.0..=300.0).contains(delay)));
        let far = delays.iter().filter(|delay| **delay > 150.0).count();
        // (1 + 5/2)^-3 = 2.3 % are more than five times the mean late.
        close(far as f64 / delays.len() as f64, 0.0233, 0.003);
    }

    #[test]
    fn correlation_makes_neighbours_alike_and_leaves_the_distribution() {
        close(resemblance(&delays(Distribution::Normal, 0.0)), 0.0, 0.02);
        let delays = delays(Distribution::Normal, 0.8);
        close(resemblance(&delays), 0.8, 0.02);
        close(deviation(&delays), 10.0, 0.4);
    }

    #[test]
    fn a_delay_is_never_negative() {
        let jitter = Jitter {
            deviation: Duration::from_millis(10),
            distribution: Distribution::Normal,
            correlation: Probability::NEVER,
            order: Order::Keep,
        };
        let mut wander = CorrelatedJitter::default();
        let zeros = (0..1000)
            .map(|number| wander.delay(Duration::ZERO, &jitter, Fate::new(Seed(3)), number))
            .filter(|delay| delay.is_zero())
            .count();
        assert!((400..600).contains(&zeros), "{zeros}");
    }
}
