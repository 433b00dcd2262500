//! Makes an input of others: a few small changes, most of which a decoder has an opinion about. Pure.

use rand::RngExt as _;
use rand::rngs::StdRng;

/// Most changes of one input: with more nothing is left of what it was made of.
const CHANGES_MAX: u32 = 5;

/// Bytes of a piece that is inserted, cut out or moved.
const PIECE_MAX: usize = 32;

/// Bytes at the borders of ranges: of integers with a prefix, of ASCII, of UTF-8, and those that end lines.
const BORDERS: [u8; 24] = [
    0x00, 0x01, 0x07, 0x0f, 0x10, 0x1f, 0x20, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xc2, 0xe0, 0xf0,
    0xff, b'\n', b'\r', b'\t', b'"', b':', b'0', b'9',
];

/// Numbers that ranges end at, as texts have them.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "00",
    "1e9",
    "0.5",
    "255",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    "1e999",
];

pub(crate) struct Mutator {
    pub(crate) random: StdRng,
    pub(crate) longest: usize,
    pub(crate) words: &'static [&'static str],
}

impl Mutator {
    /// The next input. `pool` has at least one.
    pub(crate) fn next(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.one_of(pool).clone();
        for _ in 0..self.random.random_range(1..=CHANGES_MAX) {
            self.change(&mut input, pool);
        }
        input.truncate(self.longest);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.random.random_range(0..=input.len());
        let piece = self.piece(input.len(), at);
        match self.random.random_range(0..12) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.random.random_range(0..8);
                }
            }
            1 => {
                let border = *self.one_of(&BORDERS);
                if let Some(byte) = input.get_mut(at) {
                    *byte = border;
                }
            }
            2 => {
                let border = *self.one_of(&BORDERS);
                input.insert(at, border);
            }
            3 => drop(input.drain(piece)),
            4 => {
                let copy = input[piece].to_vec();
                let to = self.random.random_range(0..=input.len());
                input.splice(to..to, copy);
            }
            // The same many times: what is counted or nested.
            5 => {
                let copy = input[piece].to_vec();
                let times = self.random.random_range(2..40);
                input.splice(at..at, copy.repeat(times));
            }
            6 => {
                let other = self.one_of(pool);
                let from = self.random.random_range(0..=other.len());
                let copy = other[self.piece(other.len(), from)].to_vec();
                input.splice(piece, copy);
            }
            7 => {
                let other = self.one_of(pool);
                let from = self.random.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            8 => input.truncate(at),
            9 => {
                let word = if self.words.is_empty() {
                    *self.one_of(&NUMBERS)
                } else {
                    *self.one_of(self.words)
                };
                let end = if self.random.random() { at } else { piece.end };
                input.splice(at..end, word.bytes());
            }
            10 => {
                let number = *self.one_of(&NUMBERS);
                let digits = digits_after(input, at);
                input.splice(digits, number.bytes());
            }
            _ => {
                let length = self.random.random_range(1..8);
                let bytes: Vec<u8> = (0..length).map(|_| self.random.random()).collect();
                let end = if self.random.random() { at } else { piece.end };
                input.splice(at..end, bytes);
            }
        }
        // So that pieces that are repeated again and again do not fill the memory.
        input.truncate(self.longest.saturating_mul(2));
    }

    /// Some bytes from that place on.
    fn piece(&mut self, length: usize, at: usize) -> std::ops::Range<usize> {
        let most = (length - at).min(PIECE_MAX);
        at..at + self.random.random_range(0..=most)
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.random.random_range(0..all.len())]
    }
}

/// The first digits from there on; nothing at the end if there are none.
fn digits_after(input: &[u8], at: usize) -> std::ops::Range<usize> {
    let rest = &input[at..];
    let start = rest.iter().position(u8::is_ascii_digit);
    let start = at + start.unwrap_or(rest.len());
    let count = input[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    start..start + count.count()
}
