//! Where bounds stand: in the `limits.rs` of their crate, or in this list with the reason why not.

use super::{Findings, code, library, products};

/// Consts that bound something and are outside of `limits.rs`, with the reason.
const BOUNDS_ELSEWHERE: [(&str, &str, &str); 36] = [
    (
        "ca/src/rates.rs",
        "MINUTE",
        "a name for 60 s, bounds nothing",
    ),
    ("config/src/server/pace.rs", "AHEAD", "made of two limits"),
    (
        "loadtest/src/early_wake.rs",
        "LONGER",
        "a step of an estimate; the comment derives it",
    ),
    (
        "loadtest/src/early_wake.rs",
        "SHORTER",
        "a step of an estimate; the comment derives it",
    ),
    ("netem-tests/src/link/ip.rs", "HEADER_MIN", "RFC 791"),
    (
        "proxy/src/resilience/deadline.rs",
        "LONGEST",
        "stands for none, in the file that gives it this meaning",
    ),
    (
        "proxy/src/resilience/overload/classes.rs",
        "PERIOD",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/classes.rs",
        "USUAL_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/mod.rs",
        "PAUSE",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/mod.rs",
        "PAUSE_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "JUDGED_TIME",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "JUDGED_FEW_TIME",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "JUDGED_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "SETTLED_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "RETRY_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "UNNEEDED",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "USELESS",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/watch.rs",
        "TICK",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/watch.rs",
        "TICK_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/watch.rs",
        "LOSS_AGE",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/watch.rs",
        "LOSS_MIN",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/waiting.rs",
        "QUEUED_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "transport/src/wire/memory/mod.rs",
        "PROOF",
        "the life of an identity in tests",
    ),
    (
        "transport/src/congestion.rs",
        "FASTEST_KEPT",
        "a constant of the algorithm that the file describes",
    ),
    (
        "transport/src/endpoint/amplification.rs",
        "HELLO_MIN",
        "RFC 9000",
    ),
    ("transport/src/endpoint/socket.rs", "RECEIVE_MAX", "RFC 768"),
    ("transport/src/http3/frame.rs", "HEADER_MAX", "RFC 9114"),
    (
        "transport/src/http3/qpack/huffman.rs",
        "LENGTH_MIN",
        "RFC 7541",
    ),
    (
        "transport/src/http3/qpack/huffman.rs",
        "LENGTH_MAX",
        "RFC 7541",
    ),
    (
        "transport/src/http3/qpack/integer.rs",
        "BITS_MAX",
        "RFC 9204",
    ),
    ("transport/src/http3/varint.rs", "LENGTH_MAX", "RFC 9000"),
    ("transport/src/http3/varint.rs", "MAX", "RFC 9000"),
    ("transport/src/liveness.rs", "ACK_DELAY_MAX", "RFC 9000"),
    (
        "transport/src/private_socket.rs",
        "PATH_BYTES_MAX",
        "unix(7)",
    ),
    (
        "transport/src/units.rs",
        "GROUPS_MAX",
        "a rule of the grammar that the file describes",
    ),
    (
        "transport/src/units.rs",
        "DIGITS_MAX",
        "a rule of the grammar that the file describes",
    ),
];

/// The name of a const that bounds something: a length of time, or a number that is called a bound.
fn bound(line: &str) -> Option<&str> {
    let code = code(line).trim_start();
    let code = code
        .strip_prefix("pub(crate) ")
        .or_else(|| code.strip_prefix("pub(super) "))
        .unwrap_or(code);
    let code = code
        .strip_prefix("pub ")
        .unwrap_or(code)
        .strip_prefix("const ")?;
    let (name, rest) = code.split_once(": ")?;
    let kind = rest.split(" =").next()?;
    let is_number = ["usize", "u8", "u16", "u32", "u64", "f64"].contains(&kind);
    let parts: Vec<&str> = name.split('_').collect();
    let ends = ["MAX", "MIN", "LIMIT", "TIMEOUT", "INTERVAL", "CAP"];
    let is_bound = parts.last().is_some_and(|last| ends.contains(last));
    (kind == "Duration" || is_number && is_bound).then_some(name)
}

#[test]
fn bounds_stand_in_the_limits_of_their_crate() {
    let mut findings = Findings::default();
    for source in products() {
        let Some((_, inside)) = library(&source.path) else {
            continue;
        };
        let is_place =
            inside.ends_with("limits.rs") || inside.contains("limits/") || inside == "tuning.rs";
        if is_place {
            continue;
        }
        for (number, line) in source.product_lines() {
            let Some(name) = bound(line) else { continue };
            let listed =
                |(path, allowed, _): &(&str, &str, &str)| *path == source.path && *allowed == name;
            if !BOUNDS_ELSEWHERE.iter().any(listed) {
                findings.add(
                    &source.path,
                    number,
                    format!("`{name}` bounds something: move it to limits.rs with its unit and reason, or list it here with the reason why not"),
                );
            }
        }
    }
    findings.expect_none();
}

#[test]
fn a_bound_is_known_by_its_type_and_its_name() {
    for (line, name) in [
        (
            "const WAIT: Duration = Duration::from_secs(1);",
            Some("WAIT"),
        ),
        ("pub(crate) const PEERS_MAX: usize = 8;", Some("PEERS_MAX")),
        ("    const TIMEOUT: u64 = 8;", Some("TIMEOUT")),
        ("const NAMES: usize = 8;", None),
        ("// const PEERS_MAX: usize = 8;", None),
    ] {
        assert_eq!(bound(line), name, "{line}");
    }
}
