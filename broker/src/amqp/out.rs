//! Bytes on their way to the socket.
//!
//! Frames of a turn are encoded into one buffer and leave in one write. A large body is not copied in: it stays in its
//! message and is written from there.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use crate::message::Message;

/// Bodies from this size on are written from the message itself; below, a copy is cheaper than another slice.
pub const BORROW_BYTES_MIN: usize = 8 * 1024;
/// Written bytes in front of unwritten ones are given up from here on, when they are most of the buffer.
const RECLAIM_BYTES_MIN: usize = 64 * 1024;

#[derive(Debug)]
enum Segment {
    Bytes(Vec<u8>),
    Body { message: Arc<Message>, range: Range<usize> },
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Body { message, range } => message.body().get(range.clone()).unwrap_or_default(),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct OutBuffer {
    /// Older than `tail`.
    segments: VecDeque<Segment>,
    tail: Vec<u8>,
    /// How much of the first segment (or of `tail`, when there is none) has been written.
    written: usize,
    len: usize,
    tail_seen: usize,
}

impl OutBuffer {
    /// Bytes that wait to be written.
    pub fn len(&self) -> usize {
        self.len + (self.tail.len() - self.tail_seen)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where to append frames.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Appends a piece of a message's body without copying it.
    pub fn push_body(&mut self, message: &Arc<Message>, range: Range<usize>) {
        self.settle_len();
        if !self.tail.is_empty() {
            self.segments.push_back(Segment::Bytes(std::mem::take(&mut self.tail)));
            self.tail_seen = 0;
        }
        self.len += range.len();
        self.segments.push_back(Segment::Body { message: Arc::clone(message), range });
    }

    fn settle_len(&mut self) {
        self.len += self.tail.len() - self.tail_seen;
        self.tail_seen = self.tail.len();
    }

    /// Fills `slices` with what to write next; returns how many of them are used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        let mut skip = self.written;
        let tail = std::iter::once(self.tail.as_slice()).filter(|tail| !tail.is_empty());
        for (slice, bytes) in slices.iter_mut().zip(self.segments.iter().map(Segment::bytes).chain(tail)) {
            *slice = IoSlice::new(&bytes[std::mem::take(&mut skip)..]);
            used += 1;
        }
        used
    }

    /// `count` bytes have been written.
    pub fn advance(&mut self, mut count: usize) {
        self.settle_len();
        assert!(count <= self.len, "no more is written than was there");
        self.len -= count;
        while let Some(first) = self.segments.front() {
            let left = first.bytes().len() - self.written;
            if count < left {
                self.written += count;
                return;
            }
            count -= left;
            self.written = 0;
            self.segments.pop_front();
        }
        self.written += count;
        if self.written == self.tail.len() {
            self.tail.clear();
            self.tail_seen = 0;
            self.written = 0;
        } else if self.written >= RECLAIM_BYTES_MIN && self.written > self.tail.len() / 2 {
            // A socket that is always a little behind would otherwise never let the buffer begin anew.
            self.tail.drain(..self.written);
            self.tail_seen -= self.written;
            self.written = 0;
        }
    }

    /// Gives the empty buffer away, so that an idle connection holds none; returns nothing while bytes wait.
    pub fn release(&mut self) -> Option<Vec<u8>> {
        (self.is_empty() && self.tail.capacity() > 0).then(|| std::mem::take(&mut self.tail))
    }

    /// Takes a buffer to encode into, when there is none.
    pub fn lend(&mut self, buffer: impl FnOnce() -> Vec<u8>) {
        if self.tail.capacity() == 0 {
            self.tail = buffer();
        }
    }

    /// Everything that waits, for tests and for drivers without a socket.
    pub fn take_all(&mut self) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); self.segments.len() + 1];
        let used = self.slices(&mut slices);
        let bytes = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
        let len = self.len();
        self.advance(len);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Parts;

    #[test]
    fn bytes_and_bodies_leave_in_order_whatever_the_socket_takes() {
        let message = Message::new(Parts { exchange: "", routing_key: "", properties: &[0, 0] }, b"0123456789");
        for step in 1..40 {
            let mut out = OutBuffer::default();
            out.tail().extend_from_slice(b"head");
            out.push_body(&message, 2..6);
            out.tail().extend_from_slice(b"middle");
            out.push_body(&message, 6..10);
            out.tail().extend_from_slice(b"tail");
            let mut seen = Vec::new();
            while !out.is_empty() {
                let mut slices = [IoSlice::new(&[]), IoSlice::new(&[])];
                let used = out.slices(&mut slices);
                let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).take(step).collect();
                out.advance(bytes.len());
                seen.extend(bytes);
            }
            assert_eq!(String::from_utf8_lossy(&seen), "head2345middle6789tail");
            assert!(out.release().is_none_or(|buffer| buffer.is_empty()));
        }
    }

    #[test]
    fn a_socket_that_never_quite_keeps_up_does_not_make_the_buffer_grow() {
        let mut out = OutBuffer::default();
        let mut next = 0_u8;
        out.tail().push(u8::MAX);
        for round in 0..10_000 {
            out.tail().extend((0..1000).map(|_| {
                next = next.wrapping_add(1);
                next
            }));
            let mut slices = [IoSlice::new(&[])];
            out.slices(&mut slices);
            assert_eq!(slices[0].len(), 1001, "round {round}");
            out.advance(1000);
            assert_eq!(out.len(), 1);
        }
        assert_eq!(out.take_all(), [next]);
        assert!(out.tail.capacity() < 4 * RECLAIM_BYTES_MIN, "{}", out.tail.capacity());
    }
}
