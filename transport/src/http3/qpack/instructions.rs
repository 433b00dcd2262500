//! Watches the peer's QPACK encoder and decoder streams (RFC 9204 section 4.3, 4.4). Pure.
//!
//! With a dynamic table of capacity 0 on both sides few instructions are allowed there, and those have no
//! effect.

use super::integer::{self, Continuation, Start};

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http3) enum StreamKind {
    /// From the peer's encoder: it would fill our table.
    Encoder,
    /// From the peer's decoder: it would acknowledge what we wrote.
    Decoder,
}

/// Reads instructions, byte by byte as they come.
#[derive(Debug)]
pub(in crate::http3) struct InstructionReader {
    kind: StreamKind,
    /// An integer whose end has not come yet.
    partial: Option<Continuation>,
}

/// An instruction that this side's settings do not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http3) struct Forbidden;

impl InstructionReader {
    pub(in crate::http3) fn new(kind: StreamKind) -> Self {
        Self {
            kind,
            partial: None,
        }
    }

    /// Takes received bytes.
    pub(in crate::http3) fn read(&mut self, bytes: &[u8]) -> Result<(), Forbidden> {
        for byte in bytes {
            let complete = match self.partial.as_mut() {
                None => match integer::start(*byte, self.prefix(*byte)?) {
                    Start::Complete(value) => Some(value),
                    Start::Continues(continuation) => {
                        self.partial = Some(continuation);
                        None
                    }
                },
                Some(continuation) => continuation.push(*byte).map_err(|_| Forbidden)?,
            };
            if let Some(value) = complete {
                self.partial = None;
                self.obey(value)?;
            }
        }
        Ok(())
    }

    /// Bits of the integer in the only instruction that each stream may carry.
    fn prefix(&self, byte: u8) -> Result<u32, Forbidden> {
        match self.kind {
            // Set Dynamic Table Capacity; an insertion cannot fit into capacity 0.
            StreamKind::Encoder if byte & 0b1110_0000 == 0b0010_0000 => Ok(5),
            // Stream Cancellation: a peer whose own table is not 0 may send it.
            StreamKind::Decoder if byte & 0b1100_0000 == 0b0100_0000 => Ok(6),
            StreamKind::Encoder | StreamKind::Decoder => Err(Forbidden),
        }
    }

    fn obey(&self, value: u64) -> Result<(), Forbidden> {
        match self.kind {
            //= https://www.rfc-editor.org/rfc/rfc9204#section-4.3.1
            //# The decoder MUST treat a new dynamic table capacity value that exceeds this limit
            //# as a connection error of type QPACK_ENCODER_STREAM_ERROR.
            StreamKind::Encoder if value != 0 => Err(Forbidden),
            StreamKind::Encoder | StreamKind::Decoder => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: StreamKind, bytes: &[u8]) -> Result<(), Forbidden> {
        let mut reader = InstructionReader::new(kind);
        // One byte at a time: instructions may be split anywhere.
        bytes.iter().try_for_each(|byte| reader.read(&[*byte]))
    }

    #[test]
    fn an_encoder_stream_may_only_set_capacity_zero() {
        assert_eq!(read(StreamKind::Encoder, &[0x20, 0x20]), Ok(()));
        for bytes in [
            &[0x21][..],             // capacity 1
            &[0x3f, 0xbd, 0x01][..], // capacity 220, RFC 9204 appendix B.2
            &[0xc0, 0x00][..],       // insert with name reference
            &[0x40][..],             // insert with literal name
            &[0x02][..],             // duplicate
        ] {
            assert_eq!(read(StreamKind::Encoder, bytes), Err(Forbidden));
        }
    }

    #[test]
    fn a_decoder_stream_may_only_cancel_streams() {
        assert_eq!(read(StreamKind::Decoder, &[0x48, 0x7f, 0x80, 0x01]), Ok(()));
        assert_eq!(read(StreamKind::Decoder, &[0x84]), Err(Forbidden)); // acknowledgement
        assert_eq!(read(StreamKind::Decoder, &[0x01]), Err(Forbidden)); // insert count
    }

    #[test]
    fn an_endless_integer_is_refused() {
        let mut bytes = vec![0x7f];
        bytes.extend([0xff; 16]);
        assert_eq!(read(StreamKind::Decoder, &bytes), Err(Forbidden));
    }
}
