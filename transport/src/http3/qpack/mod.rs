//! QPACK (RFC 9204) with the static table only. Pure.
//!
//! Both sides announce a dynamic table of capacity 0, so a field section does not depend on earlier ones:
//! streams do not block, and no state can be attacked. [`decode`] reads sections, [`Encoder`] writes them,
//! [`InstructionReader`] watches the QPACK streams, which then carry almost nothing.

mod decoder;
mod encoder;
mod huffman;
mod instructions;
mod integer;
mod static_table;

pub(super) use decoder::{DecodeError, Field, Limits, decode};
pub(super) use encoder::Encoder;
pub(super) use instructions::{InstructionReader, StreamKind};
