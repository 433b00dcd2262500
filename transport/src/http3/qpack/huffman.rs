//! The Huffman code of RFC 7541 appendix B, decoding only. Pure.
//!
//! The code is canonical (codes of one length follow the order of symbols, and shorter lengths come first),
//! so the lengths define it; the tables are computed from them at compile time. One table look-up finds the
//! value of codes of up to [`FAST_BITS`] bits, which are all but the rarest symbols; the others take a walk
//! over the longer lengths.

use bytes::BytesMut;

/// Length of each symbol's code, in bits; the last is EOS.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const SYMBOLS: usize = 257;
const EOS: u16 = 256;
const LENGTH_MIN: u32 = 5;
const LENGTH_MAX: usize = 30;
const FAST_BITS: u32 = 9;

/// Symbol and code length for each possible leading [`FAST_BITS`] bits; length 0: a longer code.
static FAST: [(u8, u8); 1 << FAST_BITS] = fast();

static CANON: Canon = canon();

/// Canonical decoding tables, indexed by code length.
struct Canon {
    /// One past the last code of this length, aligned to the left of 32 bits.
    limit: [u64; LENGTH_MAX + 1],
    /// First code of this length.
    first: [u32; LENGTH_MAX + 1],
    /// Where this length begins in `symbols`.
    offset: [u16; LENGTH_MAX + 1],
    /// Symbols in the order of their codes.
    symbols: [u16; SYMBOLS],
}

/// Why a string is not Huffman-coded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// The decoded text exceeds the bound given.
    TooLong,
    /// EOS, or padding that is not the start of EOS or longer than 7 bits.
    Invalid,
}

/// Decodes `input` to the end of `out`, at most `max` bytes.
pub(super) fn decode(input: &[u8], max: usize, out: &mut BytesMut) -> Result<(), Error> {
    // The shortest code has 5 bits: this bounds the allocation by the input, too.
    out.reserve((input.len() * 8 / LENGTH_MIN as usize).min(max));
    let mut bytes = input.iter();
    let mut window: u64 = 0; // unread bits, aligned to the left
    let mut bits: u32 = 0;
    let mut left = max;
    loop {
        while bits <= 56 {
            let Some(byte) = bytes.next() else { break };
            window |= u64::from(*byte) << (56 - bits);
            bits += 8;
        }
        if bits < 8 && is_padding(window, bits) {
            return Ok(());
        }
        let (symbol, length) = next_symbol(window).ok_or(Error::Invalid)?;
        if length > bits {
            return Err(Error::Invalid);
        }
        left = left.checked_sub(1).ok_or(Error::TooLong)?;
        out.extend_from_slice(&[symbol]);
        window <<= length;
        bits -= length;
    }
}

//= https://www.rfc-editor.org/rfc/rfc7541#section-5.2
//# A padding not corresponding to the most significant bits of the code for the EOS symbol
//# MUST be treated as a decoding error.
fn is_padding(window: u64, bits: u32) -> bool {
    bits == 0 || (!window) >> (64 - bits) == 0
}

/// The symbol whose code leads `window`, and its length. `None` for EOS.
fn next_symbol(window: u64) -> Option<(u8, u32)> {
    let (symbol, length) = *FAST.get((window >> (64 - FAST_BITS)) as usize)?;
    if length != 0 {
        return Some((symbol, u32::from(length)));
    }
    let code = window >> 32;
    let length = (FAST_BITS as usize + 1..=LENGTH_MAX).find(|n| code < CANON.limit[*n])?;
    let index = (code >> (32 - length)) as u32 - CANON.first[length];
    let symbol = *CANON
        .symbols
        .get(usize::from(CANON.offset[length]) + index as usize)?;
    //= https://www.rfc-editor.org/rfc/rfc7541#section-5.2
    //# A Huffman-encoded string literal containing the EOS symbol MUST be treated as a decoding
    //# error.
    let symbol = u8::try_from(symbol).ok()?;
    Some((symbol, length as u32))
}

const fn canon() -> Canon {
    let mut canon = Canon {
        limit: [0; LENGTH_MAX + 1],
        first: [0; LENGTH_MAX + 1],
        offset: [0; LENGTH_MAX + 1],
        symbols: [EOS; SYMBOLS],
    };
    let mut code: u32 = 0;
    let mut count: u16 = 0;
    let mut length = 1;
    while length <= LENGTH_MAX {
        code <<= 1;
        canon.first[length] = code;
        canon.offset[length] = count;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                canon.symbols[count as usize] = symbol as u16;
                count += 1;
                code += 1;
            }
            symbol += 1;
        }
        canon.limit[length] = (code as u64) << (32 - length);
        length += 1;
    }
    canon
}

const fn fast() -> [(u8, u8); 1 << FAST_BITS] {
    let canon = canon();
    let mut table = [(0, 0); 1 << FAST_BITS];
    let mut length = LENGTH_MIN as usize;
    while length <= FAST_BITS as usize {
        let span = 1usize << (FAST_BITS as usize - length);
        let end = canon.offset[length + 1] as usize;
        let mut index = canon.offset[length] as usize;
        while index < end {
            let code = canon.first[length] as usize + index - canon.offset[length] as usize;
            let mut slot = code * span;
            while slot < (code + 1) * span {
                table[slot] = (canon.symbols[index] as u8, length as u8);
                slot += 1;
            }
            index += 1;
        }
        length += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(|b| !b.is_ascii_whitespace())
            .map(|b| (b as char).to_digit(16).unwrap() as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    fn decoded(input: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = BytesMut::new();
        decode(input, 1 << 16, &mut out)?;
        Ok(out.to_vec())
    }

    /// Encodes with the same lengths, through an independent assignment of codes.
    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut order: Vec<usize> = (0..SYMBOLS).collect();
        order.sort_by_key(|symbol| (LENGTHS[*symbol], *symbol));
        let mut codes = vec![0u64; SYMBOLS];
        let (mut code, mut previous) = (0u64, 0);
        for symbol in order {
            code <<= LENGTHS[symbol] - previous;
            previous = LENGTHS[symbol];
            codes[symbol] = code;
            code += 1;
        }
        let mut bits = String::new();
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            bits.push_str(&format!("{:0length$b}", codes[usize::from(*byte)]));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes()
            .chunks(8)
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }

    #[test]
    fn the_strings_of_rfc_7541_appendix_c_decode() {
        for (code, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("aec3771a4b", "private"),
            (
                "d07abe941054d444a8200595040b8166e082a62d1bff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            (
                "9d29ad171863c78f0b97c8e9ae82ae43d3",
                "https://www.example.com",
            ),
            ("640eff", "307"),
            ("9bd9ab", "gzip"),
            (
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ] {
            assert_eq!(decoded(&hex(code)).unwrap(), text.as_bytes());
            assert_eq!(encoded(text.as_bytes()), hex(code));
        }
    }

    #[test]
    fn every_symbol_round_trips_alone_and_together() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encoded(&all)).unwrap(), all);
        for byte in 0..=255 {
            assert_eq!(decoded(&encoded(&[byte])).unwrap(), [byte]);
        }
    }

    #[test]
    fn wrong_padding_and_eos_are_refused() {
        assert_eq!(decoded(&[]).unwrap(), b"");
        assert_eq!(decoded(&[0x00]), Err(Error::Invalid)); // '0', then padding of zeros
        assert_eq!(decoded(&[0xff]), Err(Error::Invalid)); // 8 bits of padding
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(Error::Invalid)); // EOS
        assert_eq!(decoded(&[0x07]).unwrap(), b"0");
        assert_eq!(decoded(&[0x07, 0xff]), Err(Error::Invalid));
    }

    #[test]
    fn output_is_bounded() {
        let mut out = BytesMut::new();
        assert_eq!(decode(&encoded(b"0000"), 3, &mut out), Err(Error::TooLong));
        assert_eq!(out.len(), 3);
    }
}
