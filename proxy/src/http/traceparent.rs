//! `traceparent` and `tracestate` (W3C Trace Context, level 2): which values are valid, and what is sent on.
//! Pure. Which requests get a span is decided in [`crate::traces`]; `baggage` decides nothing.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The field that names trace and caller.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The field with what systems of tracing say of a trace.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The caller records the request (section 3.2.2.5).
pub(crate) const SAMPLED: u8 = 0x01;
/// The trace's id is random where that matters (level 2).
pub(crate) const RANDOM: u8 = 0x02;

/// Bytes of a value of version 00.
const LENGTH: usize = 55;

/// Entries of `tracestate` (section 3.3.1.1).
const ENTRIES: usize = 32;

/// What a caller says of the trace that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// The trace, never zero.
    pub(crate) trace: u128,
    /// The caller's span, never zero.
    pub(crate) parent: u64,
    /// As they came; of a later version only those that this one knows.
    pub(crate) flags: u8,
}

impl TraceParent {
    /// The one valid field of a head: of several none holds.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(one), None) => Self::parse(one.as_bytes()),
            (_, _) => None,
        }
    }

    /// Reads `version-traceid-parentid-flags` in lower-case hex (section 3.2).
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let (fixed, rest) = value.split_at_checked(LENGTH)?;
        if [fixed[2], fixed[35], fixed[52]] != *b"---" {
            return None;
        }
        let version = hex(&fixed[..2])?;
        // Later versions may append more after another dash.
        let ends = rest.is_empty() || version != 0 && rest[0] == b'-' && rest.len() <= 64;
        let trace = hex(&fixed[3..35])?;
        let parent = u64::try_from(hex(&fixed[36..52])?).ok()?;
        let flags = u8::try_from(hex(&fixed[53..])?).ok()?;
        let known = match version {
            0 => flags,
            _ => flags & (SAMPLED | RANDOM),
        };
        (ends && version != 0xff && trace != 0 && parent != 0).then_some(Self {
            trace,
            parent,
            flags: known,
        })
    }

    /// Whether the caller records the request.
    pub(crate) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The field for the next hop, whose caller is `self.parent`.
    pub(crate) fn value(self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], self.trace);
        write_hex(&mut text[36..52], self.parent.into());
        write_hex(&mut text[53..], self.flags.into());
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// The number in lower-case hex that fills `text`.
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number: u128, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

fn write_hex(place: &mut [u8], mut number: u128) {
    for byte in place.iter_mut().rev() {
        *byte = b"0123456789abcdef"[usize::try_from(number & 15).unwrap_or(0)];
        number >>= 4;
    }
}

/// `tracestate` as one text, if it is valid: a span shows no other. What is not valid passes all the same, as
/// it is not the mesh's.
pub(crate) fn trace_state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(TRACESTATE).iter();
    let first = values.next()?;
    let whole = match values.next() {
        None => first.clone(),
        Some(_) => {
            let all = headers.get_all(TRACESTATE).iter();
            let all: Vec<&[u8]> = all.map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&all.join(&b","[..])).ok()?
        }
    };
    is_trace_state(whole.as_bytes()).then_some(whole)
}

/// A list of `key=value` without a key twice (section 3.3.1).
fn is_trace_state(text: &[u8]) -> bool {
    let mut keys: Vec<&[u8]> = Vec::new();
    for entry in text.split(|byte| *byte == b',') {
        let entry = entry.trim_ascii();
        if entry.is_empty() {
            continue;
        }
        let Some(at) = entry.iter().position(|byte| *byte == b'=') else {
            return false;
        };
        let (key, value) = (&entry[..at], &entry[at + 1..]);
        if keys.len() == ENTRIES || keys.contains(&key) || !is_key(key) || !is_value(value) {
            return false;
        }
        keys.push(key);
    }
    !keys.is_empty()
}

fn is_key(key: &[u8]) -> bool {
    let starts = key
        .first()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let rest =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(byte);
    starts && key.len() <= 256 && key.iter().all(rest)
}

fn is_value(value: &[u8]) -> bool {
    let printable = |byte: &u8| (0x20..=0x7e).contains(byte) && *byte != b'=';
    !value.is_empty() && value.len() <= 256 && value.iter().all(printable)
}

#[cfg(test)]
mod fuzz_tests;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(text: &str) -> Option<TraceParent> {
        TraceParent::parse(text.as_bytes())
    }

    #[test]
    fn a_valid_field_is_written_as_it_was_read_with_every_flag() {
        for flags in 0..=u8::MAX {
            let text = format!("{}{flags:02x}", &GOOD[..53]);
            let read = parse(&text).unwrap();
            assert_eq!(read.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
            assert_eq!(read.parent, 0xb7ad_6b71_6920_3331);
            assert_eq!((read.flags, read.is_sampled()), (flags, flags & 1 == 1));
            assert_eq!(read.value(), text);
        }
    }

    #[test]
    fn of_a_later_version_the_fields_that_are_known_hold_and_this_version_is_written() {
        for (version, more) in [
            ("01", ""),
            ("cc", "-what-the-future-will-be-like"),
            ("fe", "-"),
        ] {
            let read = parse(&format!("{version}-{}ff{more}", &GOOD[3..53])).unwrap();
            assert_eq!(read.value(), format!("{}03", &GOOD[..53]), "{version}");
        }
    }

    #[test]
    fn what_the_specification_forbids_is_no_field() {
        let zeros = "0".repeat(32);
        for text in [
            "".to_owned(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-more"),
            format!("{GOOD}0"),
            format!("{GOOD} "),
            format!(" {GOOD}"),
            GOOD.to_uppercase(),
            GOOD.replacen("00-", "ff-", 1),
            GOOD.replacen("00-", "0g-", 1),
            GOOD.replacen("00-", "01-", 1) + "more",
            GOOD.replace('-', "_"),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &zeros),
            GOOD.replace("b7ad6b7169203331", &zeros[..16]),
            GOOD.replace("-01", "-0x"),
            GOOD.replace("0af7", ".af7"),
        ] {
            assert_eq!(parse(&text), None, "{text}");
        }
    }

    #[test]
    fn two_fields_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceParent::of(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(TraceParent::of(&headers), parse(GOOD));
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(TraceParent::of(&headers), None);
    }

    #[test]
    fn a_trace_state_is_shown_if_it_is_valid_and_several_fields_are_one() {
        let shown = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACESTATE, HeaderValue::from_str(value).unwrap());
            }
            trace_state(&headers).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(shown(&["a=1,0b@c=2 3"]).as_deref(), Some("a=1,0b@c=2 3"));
        assert_eq!(shown(&["a=1", "ot=th:0"]).as_deref(), Some("a=1,ot=th:0"));
        assert_eq!(shown(&["a=1, ,b=2"]).as_deref(), Some("a=1, ,b=2"));
        let many: Vec<String> = (0..33).map(|number| format!("k{number}=v")).collect();
        assert!(shown(&[&many[..32].join(",")]).is_some());
        for bad in [
            "",
            ",",
            "a",
            "A=1",
            "a=",
            "=1",
            "a=b=c",
            "a=1,a=2",
            &many.join(","),
        ] {
            assert_eq!(shown(&[bad]), None, "{bad}");
        }
    }
}
