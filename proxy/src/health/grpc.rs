//! The bytes of `grpc.health.v1.Health/Check`: one request, one answer. Pure. The protocol is that of gRPC's
//! health checking; it has two messages with one field each, so they are read and written here.

/// What a server says of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It serves it.
    Serving,
    /// It does not at present.
    NotServing,
    /// It says that it does not know; also a state of a later version.
    Unknown,
    /// It has no such service (only `Watch` says so by this, and some servers anyway).
    ServiceUnknown,
}

/// Bytes before a message: whether it is compressed (1), its length (4).
const PREFIX_LENGTH: usize = 5;

/// Field 1 of `HealthCheckRequest`, a string.
const SERVICE: u8 = 1 << 3 | 2;

/// A request about `service`, with its prefix.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 4);
    if !service.is_empty() {
        message.push(SERVICE);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f | 0x80).unwrap_or(0));
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or(0));
        message.extend_from_slice(service.as_bytes());
    }
    // The settings bound the name, so the length fits.
    let length = u32::try_from(message.len()).unwrap_or(0);
    let mut request = vec![0];
    request.extend(length.to_be_bytes());
    request.extend(message);
    request
}

/// What the one message of an answer says; none if it is not one.
pub(super) fn answer(bytes: &[u8]) -> Option<Answer> {
    let (prefix, mut message) = bytes.split_at_checked(PREFIX_LENGTH)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    // A field that is left out has its default, and the last one counts.
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => varint(&mut message)?,
            1 => skip(&mut message, 8)?,
            2 => {
                let length = varint(&mut message)?;
                skip(&mut message, usize::try_from(length).ok()?)?
            }
            5 => skip(&mut message, 4)?,
            _ => return None,
        };
        match (tag >> 3, tag & 7) {
            (0, _) => return None,
            (1, 0) => status = value,
            (_, _) => {}
        }
    }
    Some(match status {
        1 => Answer::Serving,
        2 => Answer::NotServing,
        3 => Answer::ServiceUnknown,
        _ => Answer::Unknown,
    })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn skip(bytes: &mut &[u8], length: usize) -> Option<u64> {
    let (_, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(0)
}

#[cfg(test)]
mod fuzz_tests;
