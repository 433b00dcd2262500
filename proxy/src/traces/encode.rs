//! Writes messages of protobuf piece by piece: spans are many, and so no value is copied before it is
//! written. Pure. Which fields a span has is in [`super::span`].

/// A value of an attribute (`AnyValue` of OTLP).
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// Of these pieces, one after the other.
    Text(&'a [&'a str]),
    Int(u64),
    Bool(bool),
    /// A list with this one text.
    OneText(&'a str),
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

/// Bytes of a number as a varint.
fn length(number: u64) -> usize {
    let bits = u64::BITS - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

pub(super) fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn tag(out: &mut Vec<u8>, field: u32, kind: u32) {
    varint(out, u64::from(field << 3 | kind));
}

/// A field of text, bytes or a message that is written already.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    begin(out, field, value.len());
    out.extend_from_slice(value);
}

/// A field whose `length` bytes follow.
pub(super) fn begin(out: &mut Vec<u8>, field: u32, length: usize) {
    tag(out, field, BYTES);
    varint(out, length as u64);
}

/// The bytes of a field with a value of `length` bytes, if its number is below 16.
pub(super) fn field_length(value: usize) -> usize {
    1 + length(value as u64) + value
}

pub(super) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, VARINT);
    varint(out, value);
}

pub(super) fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    tag(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// An attribute (`KeyValue` of OTLP) as field `field`.
pub(super) fn attribute(out: &mut Vec<u8>, field: u32, key: &str, value: Value<'_>) {
    let text: usize = match value {
        Value::Text(pieces) => pieces.iter().map(|piece| piece.len()).sum(),
        Value::OneText(text) => field_length(text.len()),
        Value::Int(_) | Value::Bool(_) => 0,
    };
    let any = match value {
        Value::Text(_) => field_length(text),
        Value::OneText(_) => field_length(field_length(text)),
        Value::Int(number) => 1 + length(number),
        Value::Bool(_) => 2,
    };
    begin(out, field, field_length(key.len()) + field_length(any));
    bytes(out, 1, key.as_bytes());
    begin(out, 2, any);
    match value {
        Value::Text(pieces) => {
            begin(out, 1, text);
            pieces
                .iter()
                .for_each(|piece| out.extend_from_slice(piece.as_bytes()));
        }
        Value::Bool(value) => number(out, 2, value.into()),
        Value::Int(value) => number(out, 3, value),
        Value::OneText(value) => {
            begin(out, 5, field_length(text));
            begin(out, 1, text);
            bytes(out, 1, value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::tests::wire::{KeyValue, value::Kind};
    use super::*;

    #[test]
    fn what_is_written_is_what_protobuf_reads() {
        let long = "x".repeat(300);
        let cases = [
            (Value::Text(&["a", "", "bc"]), Kind::Text("abc".into())),
            (Value::Text(&[]), Kind::Text(String::new())),
            (Value::Text(&[&long, &long]), Kind::Text(long.repeat(2))),
            (Value::Int(0), Kind::Int(0)),
            (Value::Int(127), Kind::Int(127)),
            (Value::Int(128), Kind::Int(128)),
            (Value::Int(u64::MAX >> 1), Kind::Int(i64::MAX)),
            (Value::Bool(true), Kind::Bool(true)),
        ];
        for (value, expected) in cases {
            let mut out = Vec::new();
            attribute(&mut out, 9, &long, value);
            let mut rest = &out[..];
            assert_eq!(
                prost::encoding::decode_varint(&mut rest).unwrap(),
                9 << 3 | 2
            );
            let read = KeyValue::decode_length_delimited(rest).unwrap();
            assert_eq!(read.key, long);
            assert_eq!(read.value.unwrap().kind, Some(expected));
        }
        let mut out = Vec::new();
        attribute(&mut out, 9, "k", Value::OneText("one"));
        let read = KeyValue::decode_length_delimited(&out[1..]).unwrap();
        let Some(Kind::Array(array)) = read.value.unwrap().kind else {
            panic!()
        };
        assert_eq!(array.values[0].kind, Some(Kind::Text("one".into())));
    }

    #[test]
    fn a_varint_is_as_long_as_said() {
        for shift in 0..64 {
            for number in [1_u64 << shift, (1 << shift) - 1] {
                let mut out = Vec::new();
                varint(&mut out, number);
                assert_eq!(out.len(), length(number), "{number}");
            }
        }
    }
}
