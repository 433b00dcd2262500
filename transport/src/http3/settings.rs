//! The SETTINGS frame (RFC 9114 section 7.2.4). Pure.

use bytes::BytesMut;

use super::code::ErrorCode;
use super::limits;
use super::varint;

const QPACK_MAX_TABLE_CAPACITY: u64 = 0x01;
const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
const QPACK_BLOCKED_STREAMS: u64 = 0x07;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
const H3_DATAGRAM: u64 = 0x33;

/// The settings that a peer announced. Its QPACK limits do not matter: this side never uses its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Largest field section that the peer accepts, in bytes (RFC 9114 section 4.2.2).
    pub(super) field_section_size_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            //= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.4.1
            //# The default value is unlimited.
            field_section_size_max: u64::MAX,
        }
    }
}

/// Why a SETTINGS frame is refused: a connection error with this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SettingsError {
    pub(super) code: ErrorCode,
    pub(super) reason: &'static str,
}

/// Reads the payload of a SETTINGS frame.
pub(super) fn decode(mut payload: &[u8]) -> Result<Settings, SettingsError> {
    let mut settings = Settings::default();
    let mut seen = Vec::new();
    while !payload.is_empty() {
        let identifier = integer(&mut payload)?;
        let value = integer(&mut payload)?;
        //= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.4
        //# The same setting identifier MUST NOT occur more than once in the SETTINGS frame.
        if seen.contains(&identifier) {
            return Err(settings_error("the same setting twice"));
        }
        if seen.len() == limits::SETTINGS_ENTRIES {
            return Err(SettingsError {
                code: ErrorCode::H3_EXCESSIVE_LOAD,
                reason: "too many settings",
            });
        }
        seen.push(identifier);
        match identifier {
            //= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.4.1
            //# Their receipt MUST be treated as a connection error of type H3_SETTINGS_ERROR.
            0x00 | 0x02..=0x05 => return Err(settings_error("a setting of HTTP/2")),
            MAX_FIELD_SECTION_SIZE => settings.field_section_size_max = value,
            //= https://www.rfc-editor.org/rfc/rfc8441#section-3
            //# The value of the parameter MUST be 0 or 1.
            //= https://www.rfc-editor.org/rfc/rfc9297#section-2.1.1
            //# MUST close the connection with error H3_SETTINGS_ERROR.
            ENABLE_CONNECT_PROTOCOL | H3_DATAGRAM => {
                boolean(value)?;
            }
            // Unknown ones MUST be ignored.
            _ => {}
        }
    }
    Ok(settings)
}

/// The payload of this side's SETTINGS frame. Extended CONNECT is not announced: it is refused.
pub(super) fn encode(out: &mut BytesMut) {
    let common = [
        (QPACK_MAX_TABLE_CAPACITY, 0),
        (QPACK_BLOCKED_STREAMS, 0),
        (MAX_FIELD_SECTION_SIZE, limits::FIELD_SECTION_SIZE),
    ];
    for (identifier, value) in common {
        varint::encode(identifier, out);
        varint::encode(value, out);
    }
}

fn integer(payload: &mut &[u8]) -> Result<u64, SettingsError> {
    let truncated = SettingsError {
        code: ErrorCode::H3_FRAME_ERROR,
        reason: "truncated SETTINGS",
    };
    let (value, length) = varint::decode(payload).ok_or(truncated)?;
    *payload = payload.get(length..).ok_or(truncated)?;
    Ok(value)
}

fn boolean(value: u64) -> Result<bool, SettingsError> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(settings_error("a flag that is neither 0 nor 1")),
    }
}

fn settings_error(reason: &'static str) -> SettingsError {
    SettingsError {
        code: ErrorCode::H3_SETTINGS_ERROR,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(entries: &[(u64, u64)]) -> BytesMut {
        let mut out = BytesMut::new();
        for (identifier, value) in entries {
            varint::encode(*identifier, &mut out);
            varint::encode(*value, &mut out);
        }
        out
    }

    #[test]
    fn what_this_side_sends_it_accepts() {
        let mut out = BytesMut::new();
        encode(&mut out);
        let settings = decode(&out).unwrap();
        assert_eq!(settings.field_section_size_max, limits::FIELD_SECTION_SIZE);
        for end in 0..out.len() {
            let _ = decode(&out[..end]);
        }
    }

    #[test]
    fn duplicates_settings_of_http2_and_bad_flags_are_refused() {
        for entries in [
            &[(0x06, 1), (0x06, 1)][..],
            &[(0x21, 1), (0x21, 2)][..],
            &[(0x00, 0)][..],
            &[(0x02, 0)][..],
            &[(0x03, 0)][..],
            &[(0x04, 0)][..],
            &[(0x05, 0)][..],
            &[(0x08, 2)][..],
            &[(0x33, 7)][..],
        ] {
            let error = decode(&payload(entries)).unwrap_err();
            assert_eq!(error.code, ErrorCode::H3_SETTINGS_ERROR);
        }
    }

    #[test]
    fn unknown_settings_are_ignored_but_bounded_in_number() {
        assert_eq!(decode(&payload(&[(0x21, 9)])), Ok(Settings::default()));
        let many: Vec<_> = (0..1000).map(|n| (0x1000 + n, 0)).collect();
        let error = decode(&payload(&many)).unwrap_err();
        assert_eq!(error.code, ErrorCode::H3_EXCESSIVE_LOAD);
    }
}
