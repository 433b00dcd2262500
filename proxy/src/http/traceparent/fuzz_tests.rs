//! What must hold of all bytes that strangers may send as `traceparent` and `tracestate`. Their inputs are in
//! `proxy/fuzz/corpus/trace_context`: one `traceparent`, a line feed, and the lines of `tracestate`.

use http::{HeaderMap, HeaderValue};
use weft_fuzz::Target;

use super::*;

/// The rules once more, as the specification's grammar has them.
fn is_valid(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let is_hex = |part: &str, length| {
        let digit = |one: char| one.is_ascii_hexdigit() && !one.is_ascii_uppercase();
        part.len() == length && part.chars().all(digit)
    };
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    let [version, trace, parent, flags, rest @ ..] = &parts[..] else {
        return false;
    };
    is_hex(version, 2)
        && *version != "ff"
        && is_hex(trace, 32)
        && trace.contains(|one| one != '0')
        && is_hex(parent, 16)
        && parent.contains(|one| one != '0')
        && is_hex(flags, 2)
        && (rest.is_empty() || *version != "00" && text.len() <= LENGTH + 64)
}

#[test]
fn a_context_is_read_by_the_grammar_and_what_is_written_is_read_again() {
    let words = &[
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "-",
        "ff-",
        "\n",
        "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
        "ot=th:8",
        ",",
        "=",
    ];
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "trace_context").words(words);
    target.run(|bytes| {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let read = TraceParent::parse(first);
        assert_eq!(read.is_some(), is_valid(first));
        if let Some(read) = read {
            let written = read.value();
            assert_eq!(TraceParent::parse(written.as_bytes()), Some(read));
            if first.starts_with(b"00") {
                assert_eq!(written.as_bytes(), first);
            }
        }
        let mut headers = HeaderMap::new();
        for line in lines {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                headers.append(TRACESTATE, value);
            }
        }
        let state = trace_state(&headers);
        if let Some(state) = &state {
            let text = state.to_str().unwrap();
            assert!(
                text.split(',')
                    .filter(|entry| !entry.trim().is_empty())
                    .count()
                    <= ENTRIES
            );
            assert!(text.contains('='));
        }
        format!("{} {}", read.is_some(), state.is_some())
    });
}
