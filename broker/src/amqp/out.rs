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

/// Room for so many pieces of bodies stays with an idle connection that has had them.
const BODIES_KEPT: usize = 4;

/// A piece of a message's body that goes between two bytes of the buffer.
#[derive(Debug)]
struct Body {
    /// So many bytes of the buffer go before it.
    at: usize,
    message: Arc<Message>,
    range: Range<usize>,
}

impl Body {
    fn bytes(&self) -> &[u8] {
        self.message.body().get(self.range.clone()).unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct OutBuffer {
    bytes: Vec<u8>,
    /// How many of `bytes` have been written.
    written: usize,
    /// In the order of their places.
    bodies: VecDeque<Body>,
    /// What `bodies` have left to write.
    bodies_len: usize,
}

impl OutBuffer {
    /// Bytes that wait to be written.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written + self.bodies_len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where to append frames.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a piece of a message's body without copying it.
    pub fn push_body(&mut self, message: &Arc<Message>, range: Range<usize>) {
        self.bodies_len += range.len();
        self.bodies.push_back(Body { at: self.bytes.len(), message: Arc::clone(message), range });
    }

    /// Fills `slices` with what to write next; returns how many of them are used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        let mut start = self.written;
        let last = (self.bytes.len(), [].as_slice());
        for (end, body) in self.bodies.iter().map(|body| (body.at, body.bytes())).chain([last]) {
            for slice in [&self.bytes[start..end], body] {
                if slice.is_empty() {
                    continue;
                }
                let Some(next) = slices.get_mut(used) else { return used };
                *next = IoSlice::new(slice);
                used += 1;
            }
            start = end;
        }
        used
    }

    /// `count` bytes have been written.
    pub fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len(), "no more is written than was there");
        while let Some(body) = self.bodies.front_mut() {
            let before = count.min(body.at - self.written);
            self.written += before;
            count -= before;
            let of_body = count.min(body.range.len());
            body.range.start += of_body;
            count -= of_body;
            self.bodies_len -= of_body;
            if self.written < body.at || !body.range.is_empty() {
                break;
            }
            self.bodies.pop_front();
        }
        self.written += count;
        if self.written == self.bytes.len() && self.bodies.is_empty() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written >= RECLAIM_BYTES_MIN && self.written > self.bytes.len() / 2 {
            // A socket that is always a little behind would otherwise never let the buffer begin anew.
            self.bytes.drain(..self.written);
            self.bodies.iter_mut().for_each(|body| body.at -= self.written);
            self.written = 0;
        }
    }

    /// Gives the empty buffer away, so that an idle connection holds none; returns nothing while bytes wait.
    pub fn release(&mut self) -> Option<Vec<u8>> {
        if !self.is_empty() || self.bytes.capacity() == 0 {
            return None;
        }
        self.bodies.shrink_to(BODIES_KEPT);
        Some(std::mem::take(&mut self.bytes))
    }

    /// Takes a buffer to encode into, when there is none.
    pub fn lend(&mut self, buffer: impl FnOnce() -> Vec<u8>) {
        if self.bytes.capacity() == 0 {
            self.bytes = buffer();
        }
    }

    /// Everything that waits, for tests and for drivers without a socket.
    pub fn take_all(&mut self) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); 2 * self.bodies.len() + 1];
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
        assert!(out.bytes.capacity() < 4 * RECLAIM_BYTES_MIN, "{}", out.bytes.capacity());
    }
}
