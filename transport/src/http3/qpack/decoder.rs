//! Reads encoded field sections (RFC 9204 section 4.5). Pure.
//!
//! Sizes are counted as RFC 9114 section 4.2.2 says, before anything is allocated.

use bytes::{Bytes, BytesMut};

use super::huffman;
use super::integer;
use super::static_table::ENTRIES;

/// One decoded field. Literals that are not Huffman-coded share the memory of the section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http3) struct Field {
    pub(in crate::http3) name: Bytes,
    pub(in crate::http3) value: Bytes,
}

/// What a section may cost.
#[derive(Clone, Copy, Debug)]
pub(in crate::http3) struct Limits {
    /// Bytes: names, values and the overhead of each field.
    pub(in crate::http3) size: u64,
    /// Number of fields.
    pub(in crate::http3) fields: usize,
    /// Bytes that each field costs on top.
    pub(in crate::http3) overhead: u64,
}

/// Why a section cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http3) enum DecodeError {
    /// Not QPACK, or it needs a dynamic table: `QPACK_DECOMPRESSION_FAILED`, for the connection.
    Failed,
    /// Over the limits: this fails only one message, because no state is lost.
    TooLarge,
}

/// Decodes a whole section and hands on its fields in order.
///
/// # Errors
/// Those of [`DecodeError`], and any error that `each` returns, which ends the decoding.
pub(in crate::http3) fn decode<E: From<DecodeError>>(
    section: &Bytes,
    limits: Limits,
    mut each: impl FnMut(Field) -> Result<(), E>,
) -> Result<(), E> {
    let mut decoder = Decoder {
        section,
        rest: section,
        size_left: limits.size,
        scratch: BytesMut::new(),
    };
    decoder.prefix()?;
    let mut fields = 0;
    while !decoder.rest.is_empty() {
        fields += 1;
        if fields > limits.fields {
            return Err(DecodeError::TooLarge.into());
        }
        decoder.charge(limits.overhead)?;
        each(decoder.field()?)?;
    }
    Ok(())
}

struct Decoder<'a> {
    section: &'a Bytes,
    rest: &'a [u8],
    size_left: u64,
    /// One allocation for all Huffman-coded strings of a section.
    scratch: BytesMut,
}

impl Decoder<'_> {
    fn prefix(&mut self) -> Result<(), DecodeError> {
        let required_insert_count = self.integer(8)?;
        let negative = self.peek()? & 0x80 != 0;
        let _delta_base = self.integer(7)?;
        //= https://www.rfc-editor.org/rfc/rfc9204#section-4.5.1.1
        //# If the decoder encounters a value of EncodedInsertCount that could not have been
        //# produced by a conformant encoder, it MUST treat this as a connection error of type
        //# QPACK_DECOMPRESSION_FAILED.
        if required_insert_count != 0 {
            return Err(DecodeError::Failed);
        }
        //= https://www.rfc-editor.org/rfc/rfc9204#section-4.5.1.2
        //# An endpoint MUST treat a field block with a Sign bit of 1 as invalid if the value of
        //# Required Insert Count is less than or equal to the value of Delta Base.
        if negative {
            return Err(DecodeError::Failed);
        }
        Ok(())
    }

    fn field(&mut self) -> Result<Field, DecodeError> {
        let first = self.peek()?;
        if first & 0b1000_0000 != 0 {
            // Indexed field line; T = 1: static table.
            if first & 0b0100_0000 == 0 {
                return Err(DecodeError::Failed);
            }
            let (name, value) = self.entry(6)?;
            self.charge((name.len() + value.len()) as u64)?;
            Ok(Field {
                name: Bytes::from_static(name.as_bytes()),
                value: Bytes::from_static(value.as_bytes()),
            })
        } else if first & 0b0100_0000 != 0 {
            // Literal with name reference; T = 1: static table. N does not matter here.
            if first & 0b0001_0000 == 0 {
                return Err(DecodeError::Failed);
            }
            let (name, _) = self.entry(4)?;
            self.charge(name.len() as u64)?;
            let value = self.string(7)?;
            Ok(Field {
                name: Bytes::from_static(name.as_bytes()),
                value,
            })
        } else if first & 0b0010_0000 != 0 {
            let name = self.string(3)?;
            let value = self.string(7)?;
            Ok(Field { name, value })
        } else {
            // Post-base forms refer to the dynamic table.
            Err(DecodeError::Failed)
        }
    }

    fn entry(&mut self, prefix: u32) -> Result<(&'static str, &'static str), DecodeError> {
        let index = usize::try_from(self.integer(prefix)?).map_err(|_| DecodeError::Failed)?;
        //= https://www.rfc-editor.org/rfc/rfc9204#section-3.1
        //# When the decoder encounters an invalid static table index in a field line
        //# representation, it MUST treat this as a connection error of type
        //# QPACK_DECOMPRESSION_FAILED.
        ENTRIES.get(index).copied().ok_or(DecodeError::Failed)
    }

    /// A string whose length has `prefix` bits, with the Huffman flag right above them.
    fn string(&mut self, prefix: u32) -> Result<Bytes, DecodeError> {
        let huffman = self.peek()? & (1u8 << prefix) != 0;
        let length = usize::try_from(self.integer(prefix)?).map_err(|_| DecodeError::Failed)?;
        let (encoded, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Failed)?;
        self.rest = rest;
        if !huffman {
            self.charge(encoded.len() as u64)?;
            return Ok(self.section.slice_ref(encoded));
        }
        let max = usize::try_from(self.size_left).unwrap_or(usize::MAX);
        match huffman::decode(encoded, max, &mut self.scratch) {
            Ok(()) => {}
            Err(huffman::Error::TooLong) => return Err(DecodeError::TooLarge),
            Err(huffman::Error::Invalid) => return Err(DecodeError::Failed),
        }
        let decoded = self.scratch.split().freeze();
        self.charge(decoded.len() as u64)?;
        Ok(decoded)
    }

    fn charge(&mut self, bytes: u64) -> Result<(), DecodeError> {
        self.size_left = self
            .size_left
            .checked_sub(bytes)
            .ok_or(DecodeError::TooLarge)?;
        Ok(())
    }

    fn peek(&self) -> Result<u8, DecodeError> {
        self.rest.first().copied().ok_or(DecodeError::Failed)
    }

    fn integer(&mut self, prefix: u32) -> Result<u64, DecodeError> {
        integer::decode(&mut self.rest, prefix).ok_or(DecodeError::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::encoder::Encoder;
    use super::*;

    const LIMITS: Limits = Limits {
        size: 4096,
        fields: 100,
        overhead: 32,
    };

    fn fields(section: &[u8], limits: Limits) -> Result<Vec<(String, String)>, DecodeError> {
        let mut fields = Vec::new();
        decode(&Bytes::copy_from_slice(section), limits, |field| {
            fields.push((
                String::from_utf8_lossy(&field.name).into_owned(),
                String::from_utf8_lossy(&field.value).into_owned(),
            ));
            Ok::<_, DecodeError>(())
        })?;
        Ok(fields)
    }

    #[test]
    fn the_literal_of_rfc_9204_appendix_b_1_decodes() {
        let section = b"\x00\x00\x51\x0b/index.html";
        let expected = vec![(":path".to_owned(), "/index.html".to_owned())];
        assert_eq!(fields(section, LIMITS), Ok(expected));
    }

    #[test]
    fn sections_of_rfc_9204_appendix_b_that_need_the_dynamic_table_are_refused() {
        for section in [
            &[0x03, 0x81, 0x10, 0x11][..],
            &[0x05, 0x00, 0x80, 0xc1, 0x81][..],
        ] {
            assert_eq!(fields(section, LIMITS), Err(DecodeError::Failed));
        }
    }

    #[test]
    fn dynamic_forms_bad_indexes_and_signs_are_refused() {
        for section in [
            &[0x00, 0x00, 0x80][..],             // indexed, dynamic
            &[0x00, 0x00, 0x40, 0x00][..],       // name reference, dynamic
            &[0x00, 0x00, 0x10][..],             // indexed, post-base
            &[0x00, 0x00, 0x00, 0x00][..],       // name reference, post-base
            &[0x00, 0x00, 0xff, 0x24][..],       // static 99
            &[0x00, 0x80, 0xd1][..],             // negative base
            &[0x00, 0x00, 0xff, 0xff, 0xff][..], // truncated integer
            &[0x00][..],
            &[][..],
        ] {
            assert_eq!(
                fields(section, LIMITS),
                Err(DecodeError::Failed),
                "{section:?}"
            );
        }
    }

    #[test]
    fn every_static_entry_round_trips() {
        for (name, value) in ENTRIES {
            for value in [value, "other"] {
                let mut encoder = Encoder::new();
                encoder.field(name.as_bytes(), value.as_bytes(), false);
                let expected = vec![(name.to_owned(), value.to_owned())];
                assert_eq!(fields(encoder.section(), LIMITS), Ok(expected));
            }
        }
    }

    #[test]
    fn truncation_at_every_byte_is_an_error_or_a_shorter_list() {
        let mut encoder = Encoder::new();
        encoder.field(b":method", b"GET", false);
        encoder.field(b":path", b"/some/where", false);
        encoder.field(b"x-literal-name", b"value", true);
        let section = encoder.section();
        for end in 0..section.len() {
            let short = fields(&section[..end], LIMITS);
            assert!(short.is_err() || short.unwrap().len() < 3);
        }
    }

    #[test]
    fn size_counts_names_values_and_overhead_before_allocation() {
        let mut encoder = Encoder::new();
        encoder.field(b"x-name", b"12345678", false);
        let section = encoder.section();
        let exact = Limits {
            size: 6 + 8 + 32,
            ..LIMITS
        };
        assert!(fields(section, exact).is_ok());
        let short = Limits {
            size: exact.size - 1,
            ..LIMITS
        };
        assert_eq!(fields(section, short), Err(DecodeError::TooLarge));
        // 30 kB of one-byte references to a static entry of 80 bytes.
        let bomb = [&[0x00, 0x00][..], &[0xff, 0x16].repeat(15_000)].concat();
        assert_eq!(fields(&bomb, LIMITS), Err(DecodeError::TooLarge));
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        let section = [&[0x00, 0x00][..], &[0xd1].repeat(11)].concat();
        let limits = Limits {
            fields: 10,
            ..LIMITS
        };
        assert_eq!(fields(&section, limits), Err(DecodeError::TooLarge));
        assert_eq!(fields(&section[..12], limits).unwrap().len(), 10);
    }

    #[test]
    fn huffman_strings_that_expand_beyond_the_limit_are_refused() {
        // '0' has 5 bits: 10 bytes encode 16 characters.
        let mut section = vec![0x00, 0x00, 0x51, 0x8a];
        section.extend([0u8; 10]);
        assert_eq!(fields(&section, LIMITS).unwrap()[0].1.len(), 16);
        let limits = Limits {
            size: 5 + 32 + 15,
            ..LIMITS
        };
        assert_eq!(fields(&section, limits), Err(DecodeError::TooLarge));
    }
}
