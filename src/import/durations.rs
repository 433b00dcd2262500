//! Durations as other meshes write them, and as Gateway API does.

/// Seconds of a duration of protobuf or Go, such as `1.5s` or `1h30m`.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let mut all = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|one: char| !one.is_ascii_digit() && one != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let (factor, length) = match &rest[end..] {
            unit if unit.starts_with("ms") => (0.001, 2),
            unit if unit.starts_with("us") => (0.000_001, 2),
            unit if unit.starts_with('s') => (1.0, 1),
            unit if unit.starts_with('m') => (60.0, 1),
            unit if unit.starts_with('h') => (3600.0, 1),
            _ => return None,
        };
        all += number * factor;
        rest = &rest[end + length..];
    }
    Some(all)
}

/// A duration as Gateway API writes it, in whole milliseconds of at least one.
pub(super) fn duration(seconds: f64) -> String {
    let millis = (seconds * 1000.0).round().max(1.0) as u64;
    match millis % 1000 {
        0 if millis / 1000 < 100_000 => format!("{}s", millis / 1000),
        _ if millis < 100_000 => format!("{millis}ms"),
        rest => format!("{}s{rest}ms", millis / 1000),
    }
}
