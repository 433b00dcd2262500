//! A queue of received chunks that parsers read across, without joining them. Pure.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Received bytes in order. One chunk (the usual small message) needs no allocation.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    front: Bytes,
    more: VecDeque<Bytes>,
}

impl Chunks {
    pub(super) fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        if self.front.is_empty() {
            self.front = chunk;
        } else {
            self.more.push_back(chunk);
        }
    }

    /// Empty exactly when nothing is queued: an empty front is refilled at once.
    pub(super) fn is_empty(&self) -> bool {
        self.front.is_empty()
    }

    /// The contiguous bytes at the front.
    pub(super) fn front(&self) -> &[u8] {
        &self.front
    }

    /// Takes up to `max` bytes of the first chunk, without copying.
    pub(super) fn take(&mut self, max: usize) -> Bytes {
        let taken = if self.front.len() <= max {
            std::mem::take(&mut self.front)
        } else {
            self.front.split_to(max)
        };
        self.refill();
        taken
    }

    /// The next byte.
    pub(super) fn next_byte(&mut self) -> Option<u8> {
        let byte = *self.front.first()?;
        self.skip(1);
        Some(byte)
    }

    /// Drops up to `max` bytes of the first chunk; returns how many.
    pub(super) fn skip(&mut self, max: usize) -> usize {
        let skipped = self.front.len().min(max);
        bytes::Buf::advance(&mut self.front, skipped);
        self.refill();
        skipped
    }

    /// Moves up to `max` bytes to the end of `out`, across chunks.
    pub(super) fn copy_to(&mut self, out: &mut BytesMut, max: usize) {
        let mut left = max;
        while left > 0 && !self.is_empty() {
            let part = self.take(left);
            left -= part.len();
            out.extend_from_slice(&part);
        }
    }

    fn refill(&mut self) {
        if self.front.is_empty() {
            self.front = self.more.pop_front().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_across_chunks() {
        let mut chunks = Chunks::default();
        for part in ["ab", "", "cde", "f"] {
            chunks.push(Bytes::from_static(part.as_bytes()));
        }
        assert_eq!(chunks.next_byte(), Some(b'a'));
        assert_eq!(chunks.take(10), "b");
        assert_eq!(chunks.skip(1), 1);
        let mut out = BytesMut::new();
        chunks.copy_to(&mut out, 10);
        assert_eq!(&out[..], b"def");
        assert!(chunks.is_empty());
        assert_eq!(chunks.next_byte(), None);
        assert_eq!(chunks.take(1), "");
    }
}
