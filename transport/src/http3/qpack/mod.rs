//! QPACK (RFC 9204) with the static table only. Pure.
//!
//! Both sides announce a dynamic table of capacity 0, so a field section depends on nothing that
//! came before: no blocked streams, no state to attack. [`decode`] reads sections, [`Encoder`]
//! writes them, [`InstructionReader`] watches the streams that then have nothing to say.

mod decoder;
mod encoder;
mod huffman;
mod instructions;
mod integer;
mod static_table;

pub(super) use decoder::{DecodeError, Field, Limits, decode};
pub(super) use encoder::Encoder;
pub(super) use instructions::{InstructionReader, StreamKind};
