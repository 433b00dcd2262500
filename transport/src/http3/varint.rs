//! QUIC variable-length integers (RFC 9000 section 16). Pure.

use bytes::{BufMut, BytesMut};

/// The longest encoding, in bytes.
pub(super) const LENGTH_MAX: usize = 8;

/// The largest value.
pub(super) const MAX: u64 = (1 << 62) - 1;

/// Reads one integer from the front of `input`: the value and its encoded length.
/// `None` when `input` ends before the integer does.
pub(super) fn decode(input: &[u8]) -> Option<(u64, usize)> {
    let first = *input.first()?;
    let length = 1usize << (first >> 6);
    let encoded = input.get(..length)?;
    let value = encoded
        .iter()
        .skip(1)
        .fold(u64::from(first & 0x3f), |value, byte| {
            (value << 8) | u64::from(*byte)
        });
    Some((value, length))
}

/// Appends `value` in its shortest form. Values beyond [`MAX`] do not occur: lengths and
/// identifiers of this side are far below it.
pub(super) fn encode(value: u64, out: &mut BytesMut) {
    debug_assert!(value <= MAX);
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(0x4000 | value as u16),
        0x4000..=0x3fff_ffff => out.put_u32(0x8000_0000 | value as u32),
        _ => out.put_u64(0xc000_0000_0000_0000 | value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9000_appendix_a_decode() {
        let cases: [(&[u8], u64); 5] = [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (encoded, value) in cases {
            assert_eq!(decode(encoded), Some((value, encoded.len())));
            for end in 0..encoded.len() {
                assert_eq!(decode(&encoded[..end]), None);
            }
        }
    }

    #[test]
    fn every_length_round_trips_at_its_borders() {
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, MAX] {
            let mut out = BytesMut::new();
            encode(value, &mut out);
            assert!(out.len() <= LENGTH_MAX);
            assert_eq!(decode(&out), Some((value, out.len())));
        }
    }
}
