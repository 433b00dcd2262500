//! Durations, rates and sizes as people read and write them. Pure.

use std::time::Duration;

/// A duration with three significant digits and its unit: `850 us`, `1.25 ms`, `12.5 s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    // The unit is chosen by what remains after rounding, so that nothing reads `1000 us`.
    if seconds < 0.000_999_5 {
        let micros = seconds * 1e6;
        return if micros < 9.995 && micros.fract() > 0.0 {
            format!("{micros:.2} us")
        } else {
            format!("{micros:.0} us")
        };
    }
    if seconds < 0.999_5 {
        return format!("{} ms", three_digits(seconds * 1e3));
    }
    if seconds < 600.0 {
        return format!("{} s", three_digits(seconds));
    }
    format!("{} min", three_digits(seconds / 60.0))
}

/// A duration given in microseconds.
pub fn micros(micros: u64) -> String {
    duration(Duration::from_micros(micros))
}

/// A number of things, with thin groups of three digits: `1 234 567`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    if digits.len() <= 4 {
        return digits;
    }
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A rate per second: `12.5`, `998`, `31 400`.
pub fn rate(per_second: f64) -> String {
    if per_second < 1000.0 {
        return three_digits(per_second);
    }
    count(per_second.round() as u64)
}

/// Bytes with binary units.
pub fn bytes(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1023.5 {
            return if unit == "B" {
                format!("{value:.0} B")
            } else {
                format!("{} {unit}", three_digits(value))
            };
        }
        value /= 1024.0;
    }
    format!("{} TiB", three_digits(value))
}

/// A share from 0 to 1 in per cent. A small share never reads as 0, and one just below 1 not as 100.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.001 {
        return "<0.001 %".to_owned();
    }
    if percent > 99.995 && percent < 100.0 {
        return ">99.99 %".to_owned();
    }
    if percent != 0.0 && percent < 0.1 {
        return format!("{percent:.3} %");
    }
    if percent == percent.round() {
        return format!("{percent:.0} %");
    }
    format!("{percent:.2} %")
}

/// The name of a percentile: `p50`, `p99.9`.
pub fn percentile(percent: f64) -> String {
    format!("p{percent}")
}

/// Three significant digits, but all digits before the point.
fn three_digits(value: f64) -> String {
    if value >= 99.95 {
        format!("{value:.0}")
    } else if value >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_the_unit_that_fits() {
        for (nanos, text) in [
            (0, "0 us"),
            (1_500, "1.50 us"),
            (42_000, "42 us"),
            (999_400, "999 us"),
            (999_600, "1.00 ms"),
            (12_345_000, "12.3 ms"),
            (999_600_000, "1.00 s"),
            (61_000_000_000, "61.0 s"),
            (3_600_000_000_000, "60.0 min"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn counts_rates_and_sizes_are_grouped_and_scaled() {
        assert_eq!(count(1234), "1234");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(rate(9.5), "9.50");
        assert_eq!(rate(31_400.2), "31 400");
        assert_eq!(bytes(1023.0), "1023 B");
        assert_eq!(bytes(1536.0), "1.50 KiB");
    }

    #[test]
    fn a_share_that_is_not_nothing_does_not_read_as_nothing() {
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(1e-9), "<0.001 %");
        assert_eq!(percent(0.0005), "0.050 %");
        assert_eq!(percent(0.0123), "1.23 %");
        assert_eq!(percent(0.999_999), ">99.99 %");
        assert_eq!(percent(1.0), "100 %");
    }
}
