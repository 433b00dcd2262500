//! The form in which people write an impairment: `loss=5%`, `jitter=5ms normal`. One grammar for the command
//! line and for scenario files. Pure. The values themselves are in `impairment.rs`.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Corruption, Distribution, GilbertElliott, Impairment, Jitter, Loss, Match, Order, Probability,
    QueueLimit, Rate, Reorder, Step, Trace,
};
use crate::limits;

/// The fault of a setting, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such setting.
    #[error("there is no setting `{key}`: {}", nearest(key))]
    Key {
        /// The text.
        key: String,
    },
    /// A value that the setting cannot have.
    #[error("`{key}: {value}`: write {form}")]
    Value {
        /// The setting.
        key: String,
        /// The text.
        value: String,
        /// The valid values.
        form: &'static str,
    },
}

/// A setting: its key, the form of its value, and the function that applies it.
struct Setting {
    key: &'static str,
    form: &'static str,
    apply: fn(&mut Impairment, &[&str]) -> Option<()>,
}

const SETTINGS: [Setting; 12] = [
    Setting {
        key: "delay",
        form: "a time from 0 to 60s: `20ms`",
        apply: delay,
    },
    Setting {
        key: "jitter",
        form: "a time, then if need be a shape (uniform, normal, pareto), a correlation and \
               `overtake`: `5ms normal 25%`; or `none`",
        apply: jitter,
    },
    Setting {
        key: "loss",
        form: "a share: `5%`; in bursts, a share and the mean length of a burst: `2% bursts 8`; or \
               `gilbert`, the shares good to bad, bad to good, loss while bad and loss while good: \
               `gilbert 1% 25% 100% 0%`",
        apply: loss,
    },
    Setting {
        key: "reorder",
        form: "a share and how long those packets are held back: `5% 3ms`; or `none`",
        apply: reorder,
    },
    Setting {
        key: "duplicate",
        form: "a share: `1%`",
        apply: duplicate,
    },
    Setting {
        key: "corrupt",
        form: "a share, and `raw` to leave the checksum wrong: `0.1%` or `0.1% raw`",
        apply: corrupt,
    },
    Setting {
        key: "rate",
        form: "bits per second: `10mbit` (bit, kbit, mbit, gbit); or `trace` and steps of rate and \
               time: `trace 10mbit 2s 1mbit 500ms`; or a file of them: `trace file drive.csv`; or `none`",
        apply: rate,
    },
    Setting {
        key: "queue",
        form: "packets or bytes before the bottleneck: `100p`, `64kB`; or `default`",
        apply: queue,
    },
    Setting {
        key: "cross",
        form: "bits per second of other packets before the bottleneck: `8mbit`; or `none`",
        apply: cross,
    },
    Setting {
        key: "black_hole",
        form: "bytes of the longest IP packet that passes: `1300`; or `none`",
        apply: black_hole,
    },
    Setting {
        key: "blackout",
        form: "`on` or `off`",
        apply: blackout,
    },
    Setting {
        key: "only",
        form: "which packets the faults are for: `udp:4433`, `length:1200-1500`, `first:10`, several \
               with spaces between; or `all`",
        apply: only,
    },
];

impl Impairment {
    /// Applies one setting: `set("loss", "5%")`. Spaces or commas may separate the words of a value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), SettingError> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
            return Err(SettingError::Key {
                key: key.to_owned(),
            });
        };
        let mut changed = self.clone();
        if (setting.apply)(&mut changed, &words(value)).is_none() {
            return Err(SettingError::Value {
                key: key.to_owned(),
                value: value.to_owned(),
                form: setting.form,
            });
        }
        *self = changed;
        Ok(())
    }

    /// The file that contains a value: `drive.csv` of `set("rate", "trace file drive.csv")`. A caller that
    /// can read files applies its contents: [`Trace::read`].
    pub fn file<'v>(key: &str, value: &'v str) -> Option<&'v str> {
        match words(value)[..] {
            ["trace", "file", name] if key == "rate" => Some(name),
            _ => None,
        }
    }

    /// Each key with the form of its value, for help texts.
    pub fn settings() -> impl Iterator<Item = (&'static str, &'static str)> {
        SETTINGS.iter().map(|setting| (setting.key, setting.form))
    }
}

fn words(value: &str) -> Vec<&str> {
    let words = value.split([' ', ',']);
    words.filter(|word| !word.is_empty()).collect()
}

/// A time: a number and `us`, `ms`, `s` or `m`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "" if number == 0.0 => 0.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// A share: a number from 0 to 100 and `%`.
pub fn parse_probability(text: &str) -> Option<Probability> {
    let (number, unit) = number_and_unit(text)?;
    match unit {
        "%" => Probability::new(number / 100.0),
        "" if number == 0.0 => Some(Probability::NEVER),
        _ => None,
    }
}

/// Bits per second: a number and `bit`, `kbit`, `mbit` or `gbit` (powers of 1000), at most
/// [`limits::RATE_MAX`]. May be 0.
pub fn parse_rate(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "bit" => 1.0,
        "kbit" => 1e3,
        "mbit" => 1e6,
        "gbit" => 1e9,
        "" if number == 0.0 => 1.0,
        _ => return None,
    };
    let rate = number * factor;
    // Checked to be finite, positive and far below the precision of f64.
    (rate <= limits::RATE_MAX as f64).then_some(rate as u64)
}

fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    number.is_finite().then_some((number, unit))
}

fn path_time(text: &str) -> Option<Duration> {
    parse_duration(text).filter(|time| *time <= limits::DELAY_MAX)
}

fn delay(impairment: &mut Impairment, words: &[&str]) -> Option<()> {
    let [time] = words else { return None };
    impairment.delay = path_time(time)?;
    Some(())
}

fn jitter(impairment: &mut Impairment, words: &[&str]) -> Option<()> {
    if let ["none" | "0"] = words {
        impairment.jitter = None;
        return Some(());
    }
    let (time, rest) = words.split_first()?;
    let mut jitter = Jitter {
        deviation: path_time(time)?,
        distribution: Distribution::default(),
        correlation: Probability::NEVER,
        order: Order::default(),
    };
    for word in rest {
        match *word {
            "uniform" => jitter.distribution = Distribution::Uniform,
            "normal" => jitter.distribution = Distribution::Normal,
            "pareto" => jitter.distribution = Distribution::Pareto,
            "overtake" => jitter.order = Order::Overtake,
            share => jitter.correlation = parse_probability(share)?,
        }
    }
    impairment.jitter = (!jitter.deviation.is_zero()).then_some(jitter);
    Some(())
}

fn loss(impairment: &mut Impairment, words: &[&str]) -> Option<()> {
    impairment.loss = match words {
        ["none"] => Loss::None,
        [share] => match parse_probability(share)? {
            Probability::NEVER => Loss::None,
            share => Loss::Random(share),
        },
        [mean, "bursts", length] => {
            let length: f64 = length.parse().ok()?;
            let channel = GilbertElliott::of_bursts(parse_probability(mean)?, length)?;
            Loss::Bursts(channel)
        }
        ["gilbert", to_bad, to_good, rest @ ..] if rest.len() <= 2 => {
            let or = |index: usize, default| {
                rest.get(index)
                    .map_or(Some(default), |share| parse_probability(share))
            };
            Loss::Bursts(GilbertElliott {
                to_bad: parse_probability(to_bad)?,
                to_good: parse_probability(to_good)?,
                loss_bad: or(0, Probability::ALWAYS)?,
                loss_good: or(1, Probability::NEVER)?,
            })
        }
        _ => return None,
    };
    Some(())
}

fn reorder(impairment: &mut Impairment, words: &[&str]) -> Option<()> {
    impairment.reorder = match words {
        ["none" | "0" | "0%"] => None,
        [share, by] => Some(Reorder {
            probability: parse_probability(share)?,
            by: path_time(by).filter(|by| !by.is_zero())?,
        }),
        _ => return None,
    };
    Some(())
}

fn duplicate(impairment: &mut Impairment, words: &[&str]) -> Option<()> {
    let [share] = words else { return None };
    impairment.duplicate = match *share {
        "none" => Probability::NEVER,
        share => parse_probability(share)?,
    };
    Some(())
}

fn corrupt(impairment: &mut Impairment, words: &[&str]) -> Option<()> {
    let (share, fix_checksum) = match words {
        ["none"] => ("0%", true),
        [share] => (*share, true),
        [share, "raw"] => (*share, false),
        _ => return None,
    };
    let probability = parse_probability(share)?;
    impairment.corrupt = (probability > Probability::NEVER).then_some(Corruption {
        probability,
        fix_checksum,
    });
    Some(())
}

fn rate(impairment: &mut Impairment, words: &[&str]) -> Option<()> {
    impairment.rate = match words {
        ["none"] => None,
        [rate] => Some(Rate::Constant(parse_rate(rate).filter(|rate| *rate > 0)?)),
        ["trace", steps @ ..] => {
            let (pairs, rest) = steps.as_chunks::<2>();
            if !rest.is_empty() {
                return None;
            }
            let steps: Option<Vec<Step>> = pairs
                .iter()
                .map(|[rate, lasts]| {
                    Some(Step {
                        rate: parse_rate(rate)?,
                        lasts: parse_duration(lasts)?,
                    })
                })
                .collect();
            Some(Rate::Trace(Arc::new(Trace::new(steps?)?)))
        }
        _ => return None,
    };
    Some(())
}

fn queue(impairment: &mut Impairment, words: &[&str]) -> Option<()> {
    let [limit] = words else { return None };
    if *limit == "default" {
        impairment.queue = None;
        return Some(());
    }
    let digits = limit.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok().filter(|number| *number > 0)?;
    let bytes = |unit: u64| number.checked_mul(unit).map(QueueLimit::Bytes);
    let limit = match &limit[digits.len()..] {
        "p" | "packets" => QueueLimit::Packets(number),
        "B" => bytes(1)?,
        "kB" => bytes(1000)?,
        "KiB" => bytes(1 << 10)?,
        "MB" => bytes(1_000_000)?,
        "MiB" => bytes(1 << 20)?,
        _ => return None,
    };
    impairment.queue = Some(limit);
    Some(())
}

fn cross(impairment: &mut Impairment, words: &[&str]) -> Option<()> {
    impairment.cross = match words {
        ["none"] => None,
        [rate] => Some(parse_rate(rate).filter(|rate| *rate > 0)?),
        _ => return None,
    };
    Some(())
}

fn black_hole(impairment: &mut Impairment, words: &[&str]) -> Option<()> {
    impairment.black_hole = match words {
        ["none"] => None,
        [bytes] => Some(bytes.parse().ok()?),
        _ => return None,
    };
    Some(())
}

fn blackout(impairment: &mut Impairment, words: &[&str]) -> Option<()> {
    impairment.blackout = match words {
        ["on" | "true"] => true,
        ["off" | "false" | "none"] => false,
        _ => return None,
    };
    Some(())
}

fn only(impairment: &mut Impairment, words: &[&str]) -> Option<()> {
    let mut only = Match::default();
    if words.is_empty() {
        return None;
    }
    for word in words {
        match word.split_once(':') {
            None if *word == "all" => {}
            Some(("udp", port)) => only.udp_port = Some(port.parse().ok()?),
            Some(("first", count)) => only.first = Some(count.parse().ok()?),
            Some(("length", range)) => {
                let (least, most) = range.split_once('-')?;
                let most = match most {
                    "" => u16::MAX,
                    most => most.parse().ok()?,
                };
                only.length = least.parse().ok()?..=most;
                if only.length.is_empty() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    impairment.only = only;
    Some(())
}

/// The message about a key that does not exist.
fn nearest(key: &str) -> String {
    let keys: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    let alike = keys
        .iter()
        .find(|known| known.starts_with(key) || key.starts_with(*known));
    match alike {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("there are {}", keys.join(", ")),
    }
}

#[cfg(test)]
mod tests;
