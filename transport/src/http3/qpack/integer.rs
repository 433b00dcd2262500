//! Prefixed integers (RFC 7541 section 5.1, used by RFC 9204 section 4.1.1). Pure.

use bytes::{BufMut, BytesMut};

//= https://www.rfc-editor.org/rfc/rfc9204#section-4.1.1
//# QPACK implementations MUST be able to decode integers up to and including 62 bits long.
const BITS_MAX: u32 = 62;

/// Reads continuation bytes; made for incremental use, since instructions may be split.
#[derive(Clone, Copy, Debug)]
pub(super) struct Continuation {
    value: u64,
    shift: u32,
}

/// An integer that has no more than 62 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// The result of the first byte of an integer.
pub(super) enum Start {
    Complete(u64),
    Continues(Continuation),
}

/// Begins an integer whose low `prefix` bits (1 to 8) are in `byte`.
pub(super) fn start(byte: u8, prefix: u32) -> Start {
    let mask = mask(prefix);
    let value = byte & mask;
    if value < mask {
        Start::Complete(u64::from(value))
    } else {
        Start::Continues(Continuation {
            value: u64::from(mask),
            shift: 0,
        })
    }
}

impl Continuation {
    /// Adds one byte; `Some` with the integer when that was the last.
    pub(super) fn push(&mut self, byte: u8) -> Result<Option<u64>, Overflow> {
        let bits = u64::from(byte & 0x7f);
        // A long run of zero bits is refused too: it has no value and no end.
        if self.shift >= BITS_MAX {
            return Err(Overflow);
        }
        let added = bits << self.shift;
        if added >> self.shift != bits {
            return Err(Overflow);
        }
        self.value = self.value.checked_add(added).ok_or(Overflow)?;
        if self.value >> BITS_MAX != 0 {
            return Err(Overflow);
        }
        self.shift += 7;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

/// Reads a whole integer from the front of `input` and moves past it. `None` when it is
/// truncated or too large.
pub(super) fn decode(input: &mut &[u8], prefix: u32) -> Option<u64> {
    let (first, mut rest) = input.split_first()?;
    let value = match start(*first, prefix) {
        Start::Complete(value) => value,
        Start::Continues(mut continuation) => loop {
            let (byte, after) = rest.split_first()?;
            rest = after;
            if let Some(value) = continuation.push(*byte).ok()? {
                break value;
            }
        },
    };
    *input = rest;
    Some(value)
}

/// Appends `value`, with `flags` in the bits above the prefix.
pub(super) fn encode(value: usize, prefix: u32, flags: u8, out: &mut BytesMut) {
    let mask = usize::from(mask(prefix));
    if value < mask {
        out.put_u8(flags | value as u8);
        return;
    }
    out.put_u8(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.put_u8(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

const fn mask(prefix: u32) -> u8 {
    (0xffu16 >> (8 - prefix)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_7541_appendix_c_1_decode() {
        for (encoded, prefix, value) in [
            (&[0x0a][..], 5, 10),
            (&[0x1f, 0x9a, 0x0a][..], 5, 1337),
            (&[0x2a][..], 8, 42),
        ] {
            let mut input = encoded;
            assert_eq!(decode(&mut input, prefix), Some(value));
            assert!(input.is_empty());
            let mut out = BytesMut::new();
            super::encode(value as usize, prefix, 0, &mut out);
            assert_eq!(&out[..], encoded);
        }
    }

    #[test]
    fn every_prefix_round_trips_and_truncation_is_seen() {
        for prefix in 1..=8 {
            for value in [
                0usize,
                1,
                2,
                30,
                31,
                126,
                127,
                128,
                255,
                256,
                65_535,
                1 << 40,
            ] {
                let mut out = BytesMut::new();
                encode(value, prefix, 0, &mut out);
                let mut input = &out[..];
                assert_eq!(decode(&mut input, prefix), Some(value as u64));
                for end in 0..out.len() {
                    assert_eq!(decode(&mut &out[..end], prefix), None);
                }
            }
        }
    }

    #[test]
    fn integers_beyond_62_bits_and_endless_ones_are_refused() {
        let largest = [0xff, 0x80, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
        assert_eq!(decode(&mut &largest[..], 8), Some((1 << 62) - 1));
        let above = [0xff, 0x81, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
        assert_eq!(decode(&mut &above[..], 8), None);
        let mut endless = vec![0x80u8; 64];
        endless.insert(0, 0xff);
        endless.push(0);
        assert_eq!(decode(&mut &endless[..], 8), None);
        assert_eq!(decode(&mut &[0xff; 32][..], 7), None);
    }
}
