//! The request id: the application's if it is valid, else a new one. Pure; randomness is an argument.

use http::{HeaderMap, HeaderValue};

use super::fields::X_REQUEST_ID;
use crate::limits;

/// Makes sure that `headers` has exactly one valid request id, and returns it.
pub(crate) fn ensure(headers: &mut HeaderMap, random: impl FnOnce() -> u128) -> HeaderValue {
    let mut values = headers.get_all(X_REQUEST_ID).iter();
    if let (Some(one), None) = (values.next(), values.next())
        && is_sane(one.as_bytes())
    {
        return one.clone();
    }
    let fresh = make(random());
    headers.insert(X_REQUEST_ID, fresh.clone());
    fresh
}

/// Short, and made of characters that are safe in logs, shells and file names.
fn is_sane(value: &[u8]) -> bool {
    (1..=limits::REQUEST_ID_BYTES_MAX).contains(&value.len())
        && value.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=')
        })
}

/// A version 4 UUID (RFC 9562 section 5.4) from 128 random bits.
pub(crate) fn make(random: u128) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = (random & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
    let mut text = [b'-'; 36];
    let mut shift = 128;
    for (index, byte) in text.iter_mut().enumerate() {
        if !matches!(index, 8 | 13 | 18 | 23) {
            shift -= 4;
            *byte = HEX[usize::try_from((bits >> shift) & 0xf).unwrap_or(0)];
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("abc-123"));
        assert_eq!(ensure(&mut headers, || 0), "abc-123");
    }

    #[test]
    fn missing_repeated_and_insane_ids_are_replaced() {
        let mut headers = HeaderMap::new();
        let fresh = ensure(&mut headers, || u128::MAX);
        assert_eq!(fresh, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(headers[X_REQUEST_ID], fresh);
        headers.append(X_REQUEST_ID, HeaderValue::from_static("second"));
        assert_eq!(
            ensure(&mut headers, || 0),
            "00000000-0000-4000-8000-000000000000"
        );
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("a b"));
        assert_eq!(
            ensure(&mut headers, || 0),
            "00000000-0000-4000-8000-000000000000"
        );
    }
}
