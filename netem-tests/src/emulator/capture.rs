//! The last packets of one direction, in a ring of bounded size, and such rings as one file of pcapng
//! (draft-ietf-opsawg-pcapng), which Wireshark and tcpdump read. Pure.
//!
//! Only the beginning of each packet is kept: headers, and the readable parts of QUIC and TLS.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::limits::{CAPTURE_AGE_MAX, CAPTURE_BYTES_MAX, CAPTURE_PACKET_BYTES};

/// Where a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// Where it entered the link.
    Sent,
    /// Where it left the link.
    Delivered,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Capture {
    frames: VecDeque<Frame>,
    /// The memory that `frames` uses, bookkeeping included.
    bytes: usize,
    /// A moment, and nanoseconds since 1970 at that moment.
    anchor: (Instant, u64),
}

#[derive(Debug)]
struct Frame {
    at: Instant,
    point: Point,
    /// Bytes of the whole packet.
    length: u32,
    kept: Box<[u8]>,
}

impl Frame {
    fn size(&self) -> usize {
        size_of::<Self>() + self.kept.len()
    }
}

impl Capture {
    /// An empty ring; `now` is the same moment by both clocks.
    pub(super) fn new(now: Instant, wall: SystemTime) -> Self {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            anchor: (now, nanoseconds(since)),
        }
    }

    /// Takes a packet, and drops packets that are too old or too many.
    pub(super) fn take(&mut self, now: Instant, point: Point, packet: &[u8]) {
        let frame = Frame {
            at: now,
            point,
            length: u32::try_from(packet.len()).unwrap_or(u32::MAX),
            kept: packet[..packet.len().min(CAPTURE_PACKET_BYTES)].into(),
        };
        self.bytes += frame.size();
        self.frames.push_back(frame);
        while let Some(first) = self.frames.front() {
            let old = now.saturating_duration_since(first.at) > CAPTURE_AGE_MAX;
            if !old && self.bytes <= CAPTURE_BYTES_MAX {
                break;
            }
            self.bytes -= first.size();
            self.frames.pop_front();
        }
    }

    /// Nanoseconds since 1970.
    fn time(&self, at: Instant) -> u64 {
        let (anchor, unix) = self.anchor;
        unix + nanoseconds(at.saturating_duration_since(anchor))
    }
}

/// Rings as one file, in the order of time. Each has two interfaces, what was sent and what was
/// delivered, named after `name`.
pub(super) fn pcapng(rings: &[(String, &Capture)]) -> Vec<u8> {
    let mut file = Vec::new();
    // Section header: byte order, version 1.0, a length that is not told.
    let mut section = Vec::new();
    section.extend(0x1A2B_3C4D_u32.to_le_bytes());
    section.extend(1_u16.to_le_bytes());
    section.extend(0_u16.to_le_bytes());
    section.extend(u64::MAX.to_le_bytes());
    block(&mut file, 0x0A0D_0D0A, &section);
    let mut frames = Vec::new();
    for (ring, (name, capture)) in (0_u32..).zip(rings) {
        for what in ["sent", "delivered"] {
            block(&mut file, 1, &interface(&format!("{name}, {what}")));
        }
        frames.extend(capture.frames.iter().map(|frame| {
            let interface = 2 * ring + u32::from(frame.point == Point::Delivered);
            (capture.time(frame.at), interface, frame)
        }));
    }
    frames.sort_by_key(|(time, interface, _)| (*time, *interface));
    for (time, interface, frame) in frames {
        let mut body = Vec::with_capacity(20 + frame.kept.len() + 4);
        body.extend(interface.to_le_bytes());
        body.extend(((time >> 32) as u32).to_le_bytes());
        body.extend((time as u32).to_le_bytes());
        body.extend((frame.kept.len() as u32).to_le_bytes());
        body.extend(frame.length.to_le_bytes());
        padded(&mut body, &frame.kept);
        block(&mut file, 6, &body);
    }
    file
}

/// An interface of bare IPv4 packets (LINKTYPE_IPV4: libpcap reads no more than one interface of
/// LINKTYPE_RAW), its name, and times in nanoseconds.
fn interface(name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(228_u16.to_le_bytes());
    body.extend(0_u16.to_le_bytes());
    body.extend((CAPTURE_PACKET_BYTES as u32).to_le_bytes());
    // Names of links and hosts are short.
    for (code, value) in [(2_u16, name.as_bytes()), (9, &[9]), (0, &[])] {
        body.extend(code.to_le_bytes());
        body.extend((value.len() as u16).to_le_bytes());
        padded(&mut body, value);
    }
    body
}

/// Type and length before, length behind.
fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = (body.len() as u32 + 12).to_le_bytes();
    file.extend(kind.to_le_bytes());
    file.extend(length);
    file.extend(body);
    file.extend(length);
}

fn padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(now: Instant) -> Capture {
        Capture::new(now, UNIX_EPOCH + Duration::from_secs(1))
    }

    #[test]
    fn the_last_minute_is_kept_and_no_more_than_the_bound() {
        let start = Instant::now();
        let mut capture = ring(start);
        capture.take(start, Point::Sent, &[1]);
        let later = start + CAPTURE_AGE_MAX + Duration::from_nanos(1);
        capture.take(later, Point::Sent, &[2]);
        assert_eq!(capture.frames.len(), 1);
        for _ in 0..2 * CAPTURE_BYTES_MAX / CAPTURE_PACKET_BYTES {
            capture.take(later, Point::Delivered, &[0; 1500]);
        }
        assert!(capture.bytes <= CAPTURE_BYTES_MAX);
        let size: usize = capture.frames.iter().map(Frame::size).sum();
        assert_eq!(size, capture.bytes);
    }

    #[test]
    fn a_file_is_read_by_what_the_format_says() {
        let start = Instant::now();
        let (mut there, mut back) = (ring(start), ring(start));
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        there.take(at(2), Point::Delivered, &[0x45; 300]);
        back.take(at(1), Point::Sent, &[0x45; 5]);
        let file = pcapng(&[("wan a-b".into(), &there), ("wan b-a".into(), &back)]);
        let mut blocks = Vec::new();
        let mut rest = &file[..];
        let word = |bytes: &[u8], at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
        };
        while !rest.is_empty() {
            let length = word(rest, 4);
            assert_eq!((length % 4, word(rest, length - 4)), (0, length));
            blocks.push((word(rest, 0), &rest[8..length - 4]));
            rest = &rest[length..];
        }
        let kinds: Vec<usize> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [0x0A0D_0D0A, 1, 1, 1, 1, 6, 6]);
        // Interface, captured and whole length of each packet, in the order of time.
        let packet = |index: usize| {
            let body = blocks[index].1;
            (word(body, 0), word(body, 12), word(body, 16))
        };
        assert_eq!(packet(5), (2, 5, 5));
        assert_eq!(packet(6), (1, CAPTURE_PACKET_BYTES, 300));
        let body = blocks[5].1;
        let time = (word(body, 4) << 32) | word(body, 8);
        assert_eq!(time, 1_001_000_000);
    }
}
