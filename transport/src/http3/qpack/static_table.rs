//! The static table (RFC 9204 appendix A), and how a field is looked up in it. Pure.

/// Name and value of every entry, in the order of their indexes.
pub(super) static ENTRIES: [(&str, &str); ENTRY_COUNT] = TABLE;

/// How many entries there are.
pub(super) const ENTRY_COUNT: usize = 99;

/// How much of a field the table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// Name and value: the entry's index.
    Field(usize),
    /// The name only: the index of the first entry with it.
    Name(usize),
    /// Nothing.
    None,
}

/// Looks a field up: one hash of the name, then its few values.
pub(super) fn find(name: &[u8], value: &[u8]) -> Match {
    let mut slot = hash(name);
    let first = loop {
        let entry = usize::from(SLOTS[slot]);
        let Some((known, _)) = ENTRIES.get(entry) else {
            return Match::None;
        };
        if known.as_bytes() == name {
            break entry;
        }
        slot = (slot + 1) % SLOT_COUNT;
    };
    let mut entry = first;
    while let Some((_, known)) = ENTRIES.get(entry) {
        if known.as_bytes() == value {
            return Match::Field(entry);
        }
        entry = usize::from(NEXT[entry]);
    }
    Match::Name(first)
}

/// The value for "no entry" in the tables below.
const NONE: u8 = u8::MAX;
/// Twice the number of distinct names and more, so that probes are short.
const SLOT_COUNT: usize = 256;

/// First entry of each name, at the slot of its hash or the next free one.
static SLOTS: [u8; SLOT_COUNT] = slots();
/// For each entry the next one of the same name.
static NEXT: [u8; ENTRY_COUNT] = next();

const fn hash(name: &[u8]) -> usize {
    match name {
        [] => 0,
        [only] => *only as usize,
        [first, .., last] => {
            let middle = name[name.len() / 2] as usize;
            (name.len() * 31 + *first as usize * 7 + *last as usize * 13 + middle * 3) % SLOT_COUNT
        }
    }
}

const fn slots() -> [u8; SLOT_COUNT] {
    let mut slots = [NONE; SLOT_COUNT];
    let mut entry = 0;
    while entry < ENTRY_COUNT {
        let name = TABLE[entry].0.as_bytes();
        let mut slot = hash(name);
        while slots[slot] != NONE && !equal(TABLE[slots[slot] as usize].0.as_bytes(), name) {
            slot = (slot + 1) % SLOT_COUNT;
        }
        if slots[slot] == NONE {
            slots[slot] = entry as u8;
        }
        entry += 1;
    }
    slots
}

const fn next() -> [u8; ENTRY_COUNT] {
    let mut next = [NONE; ENTRY_COUNT];
    let mut entry = 0;
    while entry < ENTRY_COUNT {
        let mut later = entry + 1;
        while later < ENTRY_COUNT {
            if equal(TABLE[entry].0.as_bytes(), TABLE[later].0.as_bytes()) {
                next[entry] = later as u8;
                break;
            }
            later += 1;
        }
        entry += 1;
    }
    next
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

//= https://www.rfc-editor.org/rfc/rfc9204#appendix-A
#[rustfmt::skip]
const TABLE: [(&str, &str); ENTRY_COUNT] = [
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_at_its_index() {
        for (index, (name, value)) in ENTRIES.iter().enumerate() {
            assert_eq!(find(name.as_bytes(), value.as_bytes()), Match::Field(index));
            let other = find(name.as_bytes(), b"a value that is not in the table");
            let first = ENTRIES.iter().position(|entry| entry.0 == *name).unwrap();
            assert_eq!(other, Match::Name(first));
        }
    }

    #[test]
    fn unknown_names_are_not_found() {
        for name in ["", "x", "weft-service", "content-typf", ":authoritz"] {
            assert_eq!(find(name.as_bytes(), b""), Match::None);
        }
    }
}
