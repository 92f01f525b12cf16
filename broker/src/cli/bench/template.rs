//! Messages ready to be sent: the frames of one, made once by the project's codec, and copied with another stamp, key or header each time.
//!
//! The first 16 bytes of a body are its [`Stamp`]. Bodies that are smaller have none, so that only their number can be checked.

use plugin_api::value::{Table, Value};

use super::client::CHANNEL;
use crate::amqp::frame::{self, FrameKind};
use crate::amqp::method::BasicPublish;

/// Digits of a number in a key or a queue's name, so that all are of one length.
pub(super) const DIGITS: usize = 6;
/// What is counted in [`DIGITS`].
pub(super) const NUMBERS_MAX: usize = 1_000_000;
/// The header that bindings of a headers exchange match.
pub(super) const HEADER: &str = "n";

/// Who sent a message, as which, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) publisher: u16,
    /// Of the run, so that what an earlier one left is not taken for its own.
    pub(super) tag: u16,
    /// The lower half of the number among the publisher's messages to the same queue.
    pub(super) number: u32,
    /// Nanoseconds since the start of the run.
    pub(super) at: u64,
}

/// Bytes of a stamp.
pub(super) const STAMP_BYTES: usize = 16;

impl Stamp {
    #[inline]
    fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let all = u128::from(self.publisher) << 112
            | u128::from(self.tag) << 96
            | u128::from(self.number) << 64
            | u128::from(self.at);
        all.to_be_bytes()
    }

    #[inline]
    pub(super) fn from_bytes(bytes: [u8; STAMP_BYTES]) -> Self {
        let all = u128::from_be_bytes(bytes);
        // Each part is cut to its own width.
        Self { publisher: (all >> 112) as u16, tag: (all >> 96) as u16, number: (all >> 64) as u32, at: all as u64 }
    }
}

/// What all messages of a publisher have in common.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) exchange: String,
    /// Before and behind the digits of a route; without digits all messages have the same key.
    pub(super) key: (String, bool, &'static str),
    /// Whether a header has the number of the route.
    pub(super) has_header: bool,
    pub(super) is_persistent: bool,
    pub(super) size: usize,
    pub(super) frame_max: u32,
}

impl Shape {
    /// The key of a route.
    pub(super) fn key_of(&self, route: usize) -> String {
        let (before, has_digits, behind) = &self.key;
        if *has_digits { format!("{before}{route:0DIGITS$}{behind}") } else { before.clone() }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    key_at: Option<usize>,
    header_at: Option<usize>,
    stamp_at: Option<usize>,
}

impl Template {
    pub(super) fn new(shape: &Shape) -> Self {
        let mut bytes = Vec::new();
        let (exchange, routing_key) = (shape.exchange.as_str(), &shape.key_of(0));
        let publish = BasicPublish { ticket: 0, exchange, routing_key, mandatory: false, immediate: false };
        frame::write_method(&mut bytes, CHANNEL, publish);
        // Header of the frame, class and method, ticket, and the lengths of two names.
        let key_at = frame::HEADER_BYTES + 4 + 2 + 1 + exchange.len() + 1 + shape.key.0.len();
        let mut header_at = None;
        frame::write(&mut bytes, FrameKind::Header, CHANNEL, |out| {
            out.extend_from_slice(&[0, 60, 0, 0]);
            out.extend_from_slice(&(shape.size as u64).to_be_bytes());
            let flags = u16::from(shape.has_header) << 13 | u16::from(shape.is_persistent) << 12;
            out.extend_from_slice(&flags.to_be_bytes());
            if shape.has_header {
                Table::default().with(HEADER, Value::I32(0)).encode_with_length(out);
                header_at = Some(out.len() - 4);
            }
            if shape.is_persistent {
                out.push(2);
            }
        });
        let body: Vec<u8> = (0..shape.size).map(|place| b'a' + (place % 26) as u8).collect();
        let stamp_at = (shape.size >= STAMP_BYTES).then_some(bytes.len() + frame::HEADER_BYTES);
        for piece in body.chunks(shape.frame_max as usize - frame::OVERHEAD_BYTES) {
            frame::write(&mut bytes, FrameKind::Body, CHANNEL, |out| out.extend_from_slice(piece));
        }
        Self { bytes, key_at: shape.key.1.then_some(key_at), header_at, stamp_at }
    }

    /// Bytes of a message on the wire.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a message by this route.
    #[inline]
    pub(super) fn append(&self, out: &mut Vec<u8>, route: usize, stamp: Stamp) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let mut put = |place: Option<usize>, bytes: &[u8]| {
            let Some(place) = place else { return };
            if let Some(slot) = out.get_mut(start + place..start + place + bytes.len()) {
                slot.copy_from_slice(bytes);
            }
        };
        put(self.stamp_at, &stamp.to_bytes());
        if self.key_at.is_some() {
            let (mut digits, mut rest) = ([b'0'; DIGITS], route);
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            put(self.key_at, &digits);
        }
        put(self.header_at, &(route as u32).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::message::Properties;
    use plugin_api::value::ValueRef;

    use super::*;
    use crate::amqp::method::Method;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp { publisher: 0x0102, tag: 0xFFFE, number: 0xDEAD_BEEF, at: u64::MAX - 5 };
        assert_eq!(Stamp::from_bytes(stamp.to_bytes()), stamp);
    }

    #[test]
    fn messages_are_what_the_codec_reads() {
        let shape = Shape {
            exchange: "bench.x".into(),
            key: ("k.".into(), true, ".end"),
            has_header: true,
            is_persistent: true,
            size: 10_000,
            frame_max: 4096,
        };
        let template = Template::new(&shape);
        let stamp = Stamp { publisher: 3, tag: 4, number: 5, at: 6 };
        let mut out = b"before".to_vec();
        template.append(&mut out, 70_123, stamp);
        let mut input = &out[6..];
        let mut frames = std::iter::from_fn(|| frame::decode(&mut input, 4096).expect("sound frames"));
        let method = Method::decode(frames.next().unwrap().payload).unwrap();
        let Method::BasicPublish(publish) = method else { panic!("{method:?}") };
        assert_eq!((publish.exchange, publish.routing_key), ("bench.x", "k.070123.end"));
        assert_eq!(publish.routing_key, shape.key_of(70_123));
        let header = frames.next().unwrap().payload;
        assert_eq!(header[4..12], 10_000_u64.to_be_bytes());
        let properties = Properties::from_raw(&header[12..]);
        assert_eq!(properties.check(), Ok(()));
        assert_eq!(properties.delivery_mode(), Some(2));
        assert_eq!(properties.headers().and_then(|table| table.get(HEADER)), Some(ValueRef::I32(70_123)));
        let body: Vec<u8> = frames.flat_map(|frame| frame.payload.iter().copied()).collect();
        assert_eq!(body.len(), 10_000);
        assert_eq!(Stamp::from_bytes(*body.first_chunk().unwrap()), stamp);
    }

    #[test]
    fn small_and_empty_bodies_have_no_stamp() {
        for size in [0, 15] {
            let key = ("q".to_owned(), false, "");
            let shape =
                Shape { exchange: String::new(), key, has_header: false, is_persistent: false, size, frame_max: 4096 };
            let mut out = Vec::new();
            Template::new(&shape).append(&mut out, 0, Stamp { publisher: 9, tag: 9, number: 9, at: 9 });
            let mut input = &out[..];
            let mut count = 0;
            while let Some(frame) = frame::decode(&mut input, 4096).unwrap() {
                assert!(frame.kind != FrameKind::Body || !frame.payload.contains(&9));
                count += 1;
            }
            assert_eq!(count, if size == 0 { 2 } else { 3 });
        }
    }
}
