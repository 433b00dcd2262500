//! The kernel's netem: an impairment as the arguments of `tc qdisc ... netem`. Pure.
//!
//! Settings that netem treats differently from the link model are refused rather than approximated: it cannot
//! keep order under jitter, filter packets, repair checksums, or count a queue in bytes.

use std::time::Duration;

use crate::link::{Distribution, Impairment, Loss, Match, Order, Probability, QueueLimit, Rate};

/// The arguments after `netem`, or the setting that it cannot express.
pub fn options(impairment: &Impairment) -> Result<Vec<String>, &'static str> {
    let mut options = Vec::new();
    if impairment.only != Match::default() {
        return Err("only");
    }
    if impairment.black_hole.is_some() {
        return Err("black_hole");
    }
    if impairment.reorder.is_some() {
        return Err("reorder");
    }
    if impairment.cross.is_some() {
        return Err("cross");
    }
    if let Some(jitter) = &impairment.jitter {
        let same = jitter.order == Order::Overtake
            && jitter.correlation == Probability::NEVER
            && jitter.distribution != Distribution::Pareto;
        if !same {
            return Err("jitter that keeps the order, is correlated or has a Pareto tail");
        }
        options.extend(["delay".to_owned(), time(impairment.delay)]);
        options.push(time(jitter.deviation));
        if jitter.distribution == Distribution::Normal {
            options.extend(["distribution", "normal"].map(str::to_owned));
        }
    } else if !impairment.delay.is_zero() {
        options.extend(["delay".to_owned(), time(impairment.delay)]);
    }
    options.extend(loss(impairment));
    if impairment.duplicate > Probability::NEVER {
        options.extend(["duplicate".to_owned(), percent(impairment.duplicate)]);
    }
    if let Some(corruption) = impairment.corrupt {
        if corruption.fix_checksum {
            return Err("corrupt with a right checksum (write `raw`)");
        }
        options.extend(["corrupt".to_owned(), percent(corruption.probability)]);
    }
    options.extend(rate(impairment)?);
    Ok(options)
}

/// The arguments of `tc` that put `options` into force on `device`, repeatably from `seed`.
pub fn replace(device: &str, options: Vec<String>, seed: u64) -> Vec<String> {
    let fixed = ["qdisc", "replace", "dev", device, "root", "netem"];
    let mut arguments: Vec<String> = fixed.map(str::to_owned).into();
    arguments.extend(options);
    arguments.extend(["seed".to_owned(), seed.to_string()]);
    arguments
}

fn loss(impairment: &Impairment) -> Vec<String> {
    let words = |words: &[&str], shares: &[Probability]| {
        let words = words.iter().map(|word| (*word).to_owned());
        words.chain(shares.iter().copied().map(percent)).collect()
    };
    if impairment.blackout {
        return words(&["loss", "random"], &[Probability::ALWAYS]);
    }
    match impairment.loss {
        Loss::None => Vec::new(),
        Loss::Random(share) => words(&["loss", "random"], &[share]),
        // tc-netem(8): p r 1-h 1-k, the last two the losses in the bad and in the good state.
        Loss::Bursts(channel) => words(
            &["loss", "gemodel"],
            &[
                channel.to_bad,
                channel.to_good,
                channel.loss_bad,
                channel.loss_good,
            ],
        ),
    }
}

fn rate(impairment: &Impairment) -> Result<Vec<String>, &'static str> {
    let (rate, packets) = match (&impairment.rate, impairment.queue) {
        (None, _) => return Ok(Vec::new()),
        (Some(Rate::Trace(_)), _) => return Err("rate with a trace"),
        (Some(Rate::Constant(rate)), Some(QueueLimit::Packets(packets))) => (rate, packets),
        (Some(Rate::Constant(_)), Some(QueueLimit::Bytes(_)) | None) => {
            return Err("rate with a queue in bytes (write `queue` in packets)");
        }
    };
    // Its limit counts packets in delay as well.
    if !impairment.delay.is_zero() {
        return Err("rate and delay on one link");
    }
    Ok(vec![
        "limit".to_owned(),
        packets.to_string(),
        "rate".to_owned(),
        format!("{rate}bit"),
    ])
}

fn time(duration: Duration) -> String {
    format!("{}us", duration.as_micros())
}

fn percent(probability: Probability) -> String {
    format!("{}%", probability.share() * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(settings: &[(&str, &str)]) -> Result<String, &'static str> {
        let mut impairment = Impairment::default();
        for (key, value) in settings {
            impairment.set(key, value).unwrap();
        }
        options(&impairment).map(|options| options.join(" "))
    }

    #[test]
    fn an_impairment_is_written_as_tc_reads_it() {
        for (settings, expected) in [
            (&[][..], ""),
            (
                &[("delay", "20ms"), ("loss", "5%")],
                "delay 20000us loss random 5%",
            ),
            (
                &[("delay", "20ms"), ("jitter", "5ms normal overtake")],
                "delay 20000us 5000us distribution normal",
            ),
            (
                &[("loss", "gilbert 1% 25% 90% 2%")],
                "loss gemodel 1% 25% 90% 2%",
            ),
            (
                &[("rate", "10mbit"), ("queue", "100p")],
                "limit 100 rate 10000000bit",
            ),
            (
                &[("duplicate", "1%"), ("corrupt", "0.5% raw")],
                "duplicate 1% corrupt 0.5%",
            ),
            (&[("loss", "1%"), ("blackout", "on")], "loss random 100%"),
        ] {
            assert_eq!(written(settings).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_netem_does_differently_is_refused() {
        for settings in [
            &[("jitter", "5ms")][..],
            &[("jitter", "5ms normal 50% overtake")],
            &[("jitter", "5ms pareto overtake")],
            &[("corrupt", "1%")],
            &[("reorder", "1% 5ms")],
            &[("black_hole", "1300")],
            &[("only", "udp:443")],
            &[("rate", "10mbit")],
            &[("rate", "10mbit"), ("queue", "64kB")],
            &[("rate", "10mbit"), ("queue", "10p"), ("delay", "5ms")],
            &[("rate", "trace 1mbit 1s")],
            &[("cross", "1mbit")],
        ] {
            assert!(written(settings).is_err(), "{settings:?}");
        }
    }

    #[test]
    fn the_whole_command_names_the_device_and_the_seed() {
        let arguments = replace("wire", vec!["delay".to_owned(), "1us".to_owned()], 7);
        assert_eq!(
            arguments.join(" "),
            "qdisc replace dev wire root netem delay 1us seed 7"
        );
    }
}
