//! Writes encoded field sections (RFC 9204 section 4.5), from the static table. Pure.
//!
//! Strings are not Huffman-coded: between sidecars, coding takes more time than the saved bytes.

use bytes::{BufMut, BytesMut};

use super::integer;
use super::static_table::{Match, find};

/// Room in front of the section for the frame header, so that the two are one buffer:
/// type (1 byte) and length (up to 4 bytes, which allow 1 GiB).
const FRAME_HEADER: usize = 5;

/// A typical head, so that it grows at most once.
const CAPACITY: usize = 512;

/// Encodes one field section into a buffer that begins with room for its frame header.
pub(in crate::http3) struct Encoder {
    buffer: BytesMut,
}

impl Encoder {
    pub(in crate::http3) fn new() -> Self {
        let mut buffer = BytesMut::with_capacity(CAPACITY);
        buffer.put_bytes(0, FRAME_HEADER);
        // Required Insert Count 0, Base 0: the section does not refer to a dynamic table.
        buffer.put_slice(&[0, 0]);
        Self { buffer }
    }

    /// Appends a field. `sensitive` ones are marked never to be put into a table.
    pub(in crate::http3) fn field(&mut self, name: &[u8], value: &[u8], sensitive: bool) {
        let out = &mut self.buffer;
        match find(name, value) {
            Match::Field(index) if !sensitive => integer::encode(index, 6, 0b1100_0000, out),
            Match::Field(index) | Match::Name(index) => {
                //= https://www.rfc-editor.org/rfc/rfc9204#section-4.5.4
                //# When the 'N' bit is set, the encoded field line MUST always be encoded with a
                //# literal representation.
                let never = if sensitive { 0b0010_0000 } else { 0 };
                integer::encode(index, 4, 0b0101_0000 | never, out);
                string(value, out);
            }
            Match::None => {
                let never = if sensitive { 0b0001_0000 } else { 0 };
                integer::encode(name.len(), 3, 0b0010_0000 | never, out);
                out.put_slice(name);
                string(value, out);
            }
        }
    }

    /// The encoded section without its frame header.
    #[cfg(test)]
    pub(in crate::http3) fn section(&self) -> &[u8] {
        &self.buffer[FRAME_HEADER..]
    }

    /// The HEADERS frame. The length always takes four bytes, so that the head need not be moved for a
    /// shorter one.
    pub(in crate::http3) fn into_headers_frame(mut self) -> BytesMut {
        const HEADERS: u8 = 0x01;
        let length = (self.buffer.len() - FRAME_HEADER) as u32;
        debug_assert!(length < 1 << 30);
        let header = (0x8000_0000 | length).to_be_bytes();
        if let Some((first, rest)) = self.buffer.split_first_mut()
            && let Some(slot) = rest.first_chunk_mut::<4>()
        {
            *first = HEADERS;
            *slot = header;
        }
        self.buffer
    }
}

fn string(value: &[u8], out: &mut BytesMut) {
    integer::encode(value.len(), 7, 0, out);
    out.put_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_of_rfc_9204_appendix_b_1_is_written() {
        let mut encoder = Encoder::new();
        encoder.field(b":path", b"/index.html", false);
        assert_eq!(encoder.section(), b"\x00\x00\x51\x0b/index.html");
        let frame = encoder.into_headers_frame();
        assert_eq!(&frame[..5], &[0x01, 0x80, 0, 0, 15]);
    }

    #[test]
    fn sensitive_fields_are_literals_that_are_never_indexed() {
        let mut encoder = Encoder::new();
        encoder.field(b":method", b"GET", true);
        encoder.field(b"x-secret", b"1", true);
        assert_eq!(
            encoder.section(),
            b"\x00\x00\x7f\x02\x03GET\x37\x01x-secret\x011"
        );
    }
}
