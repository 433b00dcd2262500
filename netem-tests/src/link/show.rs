//! An impairment in its written form, without the parts that are as on a perfect link. Pure. `settings.rs`
//! reads it back.

use std::fmt;
use std::time::Duration;

use super::{
    Distribution, Impairment, Loss, Match, Order, Probability, QueueLimit, Rate, Step, Trace,
};
use crate::limits::TRACE_STEPS_SHOWN;

/// `delay=20ms loss=5%`; values of several words have commas. `none` for a perfect link. A long trace is cut,
/// so that a status stays short.
impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = Vec::new();
        let mut add = |key: &str, words: Vec<String>| {
            written.push(format!("{key}={}", words.join(",")));
        };
        match &self.rate {
            None => {}
            Some(Rate::Constant(rate)) => add("rate", vec![bits(*rate)]),
            Some(Rate::Trace(trace)) => {
                let (shown, more) = trace
                    .steps()
                    .split_at(trace.steps().len().min(TRACE_STEPS_SHOWN));
                let mut words = steps(shown);
                words.extend((!more.is_empty()).then(|| format!("and {} more", more.len())));
                add("rate", words);
            }
        }
        match self.queue {
            None => {}
            Some(QueueLimit::Bytes(bytes)) => add("queue", vec![format!("{bytes}B")]),
            Some(QueueLimit::Packets(packets)) => add("queue", vec![format!("{packets}p")]),
        }
        if let Some(rate) = self.cross {
            add("cross", vec![bits(rate)]);
        }
        match self.loss {
            Loss::None => {}
            Loss::Random(share) => add("loss", vec![percent(share)]),
            Loss::Bursts(channel) => {
                let shares = [
                    channel.to_bad,
                    channel.to_good,
                    channel.loss_bad,
                    channel.loss_good,
                ];
                let words = shares.into_iter().map(percent);
                add("loss", [word("gilbert")].into_iter().chain(words).collect());
            }
        }
        if self.duplicate > Probability::NEVER {
            add("duplicate", vec![percent(self.duplicate)]);
        }
        if !self.delay.is_zero() {
            add("delay", vec![time(self.delay)]);
        }
        if let Some(jitter) = self.jitter {
            let mut words = vec![time(jitter.deviation)];
            words.push(word(match jitter.distribution {
                Distribution::Uniform => "uniform",
                Distribution::Normal => "normal",
                Distribution::Pareto => "pareto",
            }));
            if jitter.correlation > Probability::NEVER {
                words.push(percent(jitter.correlation));
            }
            if jitter.order == Order::Overtake {
                words.push(word("overtake"));
            }
            add("jitter", words);
        }
        if let Some(reorder) = self.reorder {
            add(
                "reorder",
                vec![percent(reorder.probability), time(reorder.by)],
            );
        }
        if let Some(corruption) = self.corrupt {
            let mut words = vec![percent(corruption.probability)];
            words.extend((!corruption.fix_checksum).then(|| word("raw")));
            add("corrupt", words);
        }
        if let Some(bytes) = self.black_hole {
            add("black_hole", vec![bytes.to_string()]);
        }
        if self.blackout {
            add("blackout", vec![word("on")]);
        }
        if self.only != Match::default() {
            add("only", packets(&self.only));
        }
        match written.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&written.join(" ")),
        }
    }
}

/// As a value of `rate`, in full.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&steps(self.steps()).join(","))
    }
}

fn steps(steps: &[Step]) -> Vec<String> {
    let words = steps.iter();
    let words = words.flat_map(|step| [bits(step.rate), time(step.lasts)]);
    [word("trace")].into_iter().chain(words).collect()
}

fn packets(only: &Match) -> Vec<String> {
    let mut words = Vec::new();
    words.extend(only.udp_port.map(|port| format!("udp:{port}")));
    let any = Match::default();
    if only.length != any.length {
        words.push(format!(
            "length:{}-{}",
            only.length.start(),
            only.length.end()
        ));
    }
    words.extend(only.first.map(|first| format!("first:{first}")));
    words
}

fn word(text: &str) -> String {
    text.to_owned()
}

fn percent(probability: Probability) -> String {
    // Twelve digits are more than people write, and hide the last bit of the division.
    let number = format!("{:.12}", probability.share() * 100.0);
    let number = number.trim_end_matches('0').trim_end_matches('.');
    format!("{number}%")
}

fn time(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    match nanoseconds {
        0 => word("0s"),
        _ if nanoseconds.is_multiple_of(1_000_000_000) => format!("{}s", duration.as_secs()),
        _ if nanoseconds.is_multiple_of(1_000_000) => format!("{}ms", duration.as_millis()),
        _ => format!("{}us", nanoseconds as f64 / 1e3),
    }
}

fn bits(rate: u64) -> String {
    for (unit, factor) in [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1000)] {
        if rate > 0 && rate.is_multiple_of(factor) {
            return format!("{}{unit}", rate / factor);
        }
    }
    format!("{rate}bit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_trace_is_cut_where_a_link_is_shown_and_whole_where_it_is_set() {
        let rows: String = (0..20).map(|second| format!("{second},1mbit\n")).collect();
        let trace = Trace::read(&format!("{rows}20,end")).unwrap();
        let mut impairment = Impairment::default();
        impairment.set("rate", &trace.to_string()).unwrap();
        assert_eq!(impairment.rate, Some(Rate::Trace(trace.into())));
        let shown = impairment.to_string();
        assert!(shown.starts_with("rate=trace,1mbit,1s,1mbit"), "{shown}");
        assert!(shown.ends_with("1mbit,1s,and 4 more"), "{shown}");
    }

    #[test]
    fn what_is_shown_can_be_written_and_means_the_same() {
        for settings in [
            "none",
            "loss=0.1% delay=20ms",
            "rate=10mbit queue=64000B cross=8mbit",
            "rate=trace,1500kbit,2s,0bit,500ms queue=10p",
            "loss=gilbert,1%,25%,90%,2%",
            "duplicate=1% delay=1500us jitter=5ms,normal,25%,overtake",
            "reorder=5%,3ms corrupt=0.1%,raw black_hole=1300 blackout=on",
            "loss=100% only=udp:443,length:1200-1500,first:10",
        ] {
            let mut impairment = Impairment::default();
            for setting in settings.split(' ').filter(|setting| *setting != "none") {
                let (key, value) = setting.split_once('=').unwrap();
                impairment.set(key, value).unwrap();
            }
            assert_eq!(impairment.to_string(), settings);
        }
    }
}
