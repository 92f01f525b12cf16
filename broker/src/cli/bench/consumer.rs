//! The receiving side of a connection, without its socket: bytes in, acks out, and a look at every message.

use std::collections::HashMap;

use hdrhistogram::Histogram;

use super::client::{CHANNEL, decode, foreign, refuse_close};
use super::error::BenchError;
use super::ledger::{Faults, Lane};
use super::template::{STAMP_BYTES, Stamp};
use crate::amqp::frame::{self, Frame, FrameKind};
use crate::amqp::method::{BasicAck, BasicDeliver, Method};

/// What is known of one queue, by all of its consumers together.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// By publisher.
    lanes: Vec<Lane>,
    pub(super) count: u64,
    pub(super) faults: Faults,
}

impl Arrivals {
    pub(super) fn new(publishers: usize) -> Self {
        Self { lanes: (0..publishers).map(|_| Lane::default()).collect(), ..Self::default() }
    }

    /// Everything that is wrong, when each publisher sent so many messages here.
    pub(super) fn judge(&self, sent: &[u64], is_stamped: bool) -> Faults {
        let mut faults = self.faults;
        if is_stamped {
            for (lane, sent) in self.lanes.iter().zip(sent) {
                lane.judge(*sent, &mut faults);
            }
        } else {
            let sent: u64 = sent.iter().sum();
            faults.lost += sent.saturating_sub(self.count);
            faults.duplicated += self.count.saturating_sub(sent);
        }
        faults
    }
}

/// Latencies in nanoseconds, up to an hour, to three digits.
pub(super) fn latencies() -> Option<Histogram<u64>> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).ok()
}

/// What a consumer expects of messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) tag: u16,
    pub(super) size: usize,
    /// 0: none, 1: one for each delivery, otherwise one for so many.
    pub(super) ack_every: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Consumer {
    /// Where its queue stands among those of its thread.
    pub(super) queue: usize,
    expected: Expected,
    frame_max: u32,
    message: Option<Message>,
    /// Of the last delivery.
    delivery_tag: u64,
    /// Deliveries since the last ack.
    unacked: u64,
    /// The last number of each publisher.
    last: HashMap<u16, u64, std::hash::BuildHasherDefault<ByPublisher>>,
}

/// A message of which not everything has come.
#[derive(Debug)]
struct Message {
    /// None until its header has come.
    left: Option<u64>,
    stamp: [u8; STAMP_BYTES],
    stamp_len: usize,
}

/// The number of a publisher is hash enough.
#[derive(Debug, Default)]
struct ByPublisher(u64);

impl std::hash::Hasher for ByPublisher {
    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash << 8 | u64::from(*byte));
    }

    fn write_u16(&mut self, number: u16) {
        self.0 = u64::from(number);
    }
}

impl Consumer {
    pub(super) fn new(queue: usize, expected: Expected, frame_max: u32) -> Self {
        Self { queue, expected, frame_max, message: None, delivery_tag: 0, unacked: 0, last: HashMap::default() }
    }

    /// Reads whole frames off the front of `input`, and writes acks.
    ///
    /// Latencies count from the time in the stamp up to `now`, both in nanoseconds since the start of the run.
    pub(super) fn on_bytes(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        now: u64,
        arrivals: &mut Arrivals,
        mut latencies: Option<&mut Histogram<u64>>,
    ) -> Result<(), BenchError> {
        while let Some(frame) = decode(input, self.frame_max)? {
            if let Some(message) = self.on_frame(frame)? {
                self.on_message(&message, arrivals, now, latencies.as_deref_mut());
                self.ack(out);
            }
        }
        Ok(())
    }

    /// Gives the message that is complete with this frame.
    #[inline]
    fn on_frame(&mut self, frame: Frame<'_>) -> Result<Option<Message>, BenchError> {
        let unexpected = || BenchError::Foreign("the broker sends frames out of order".into());
        match frame.kind {
            FrameKind::Method => {
                if let Some(rest) = frame.payload.strip_prefix(&BasicDeliver::ID.prefix()) {
                    // A consumer tag, then the tag of the delivery.
                    let tag = rest.split_first().and_then(|(&len, rest)| rest.get(usize::from(len)..)?.first_chunk());
                    self.delivery_tag = u64::from_be_bytes(*tag.ok_or_else(unexpected)?);
                    let is_first = self.message.is_none();
                    self.message = Some(Message { left: None, stamp: [0; STAMP_BYTES], stamp_len: 0 });
                    return if is_first { Ok(None) } else { Err(unexpected()) };
                }
                refuse_close(&Method::decode(frame.payload).map_err(foreign)?)?;
                Ok(None)
            }
            FrameKind::Header => {
                let message = self.message.as_mut().ok_or_else(unexpected)?;
                let size = frame.payload.get(4..).and_then(|rest| rest.first_chunk()).ok_or_else(unexpected)?;
                let size = u64::from_be_bytes(*size);
                message.left = Some(size);
                Ok(if size == 0 { self.message.take() } else { None })
            }
            FrameKind::Body => {
                let message = self.message.as_mut().ok_or_else(unexpected)?;
                let left = message.left.as_mut().ok_or_else(unexpected)?;
                *left = left.checked_sub(frame.payload.len() as u64).ok_or_else(unexpected)?;
                let is_whole = *left == 0;
                message.take_stamp(frame.payload);
                Ok(if is_whole { self.message.take() } else { None })
            }
            FrameKind::Heartbeat => Ok(None),
        }
    }

    #[inline]
    fn on_message(
        &mut self,
        message: &Message,
        arrivals: &mut Arrivals,
        now: u64,
        latencies: Option<&mut Histogram<u64>>,
    ) {
        arrivals.count += 1;
        if self.expected.size < STAMP_BYTES {
            return;
        }
        let stamp = Stamp::from_bytes(message.stamp);
        let lane = arrivals.lanes.get_mut(usize::from(stamp.publisher));
        let (Some(lane), true, true) = (lane, message.stamp_len == STAMP_BYTES, stamp.tag == self.expected.tag) else {
            arrivals.faults.corrupt += 1;
            return;
        };
        let number = lane.whole(stamp.number);
        let last = self.last.entry(stamp.publisher).or_insert(0);
        // 0 stands for none, so numbers count from 1 here.
        if !lane.arrive(number) {
            return;
        }
        if number < *last {
            arrivals.faults.out_of_order += 1;
        } else {
            *last = number + 1;
        }
        if let Some(latencies) = latencies {
            latencies.saturating_record(now.saturating_sub(stamp.at).max(1));
        }
    }

    #[inline]
    fn ack(&mut self, out: &mut Vec<u8>) {
        self.unacked += 1;
        let every = self.expected.ack_every;
        if every != 0 && self.unacked >= every {
            frame::write_method(out, CHANNEL, BasicAck { delivery_tag: self.delivery_tag, multiple: every > 1 });
            self.unacked = 0;
        }
    }

    /// Acks what is left at the end.
    pub(super) fn ack_rest(&mut self, out: &mut Vec<u8>) {
        if self.expected.ack_every != 0 && self.unacked > 0 {
            frame::write_method(out, CHANNEL, BasicAck { delivery_tag: self.delivery_tag, multiple: true });
            self.unacked = 0;
        }
    }
}

impl Message {
    #[inline]
    fn take_stamp(&mut self, payload: &[u8]) {
        if self.stamp_len == 0
            && let Some(stamp) = payload.first_chunk()
        {
            self.stamp = *stamp;
            self.stamp_len = STAMP_BYTES;
            return;
        }
        // A body that comes in pieces smaller than a stamp.
        for (slot, byte) in self.stamp.iter_mut().skip(self.stamp_len).zip(payload) {
            *slot = *byte;
            self.stamp_len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::method::ConnectionClose;

    const EXPECTED: Expected = Expected { tag: 7, size: 20, ack_every: 0 };

    /// Deliveries of one publisher's messages with these numbers, one frame of the body for so many bytes.
    fn deliveries(numbers: &[u32], tag: u16, piece: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (place, &number) in numbers.iter().enumerate() {
            let delivery_tag = place as u64 + 1;
            let deliver =
                BasicDeliver { consumer_tag: "c", delivery_tag, redelivered: false, exchange: "", routing_key: "q" };
            frame::write_method(&mut bytes, CHANNEL, deliver);
            frame::write(&mut bytes, FrameKind::Header, CHANNEL, |out| {
                out.extend_from_slice(&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0]);
            });
            let mut body = Vec::new();
            body.extend_from_slice(&0_u16.to_be_bytes());
            body.extend_from_slice(&tag.to_be_bytes());
            body.extend_from_slice(&number.to_be_bytes());
            body.extend_from_slice(&(100 * u64::from(number)).to_be_bytes());
            body.extend_from_slice(b"rest");
            for piece in body.chunks(piece) {
                frame::write(&mut bytes, FrameKind::Body, CHANNEL, |out| out.extend_from_slice(piece));
            }
        }
        bytes
    }

    fn judged(bytes: &[u8], sent: u64) -> Faults {
        let (mut consumer, mut arrivals) = (Consumer::new(0, EXPECTED, 4096), Arrivals::new(1));
        consumer.on_bytes(&mut &*bytes, &mut Vec::new(), 0, &mut arrivals, None).unwrap();
        arrivals.judge(&[sent], true)
    }

    #[test]
    fn a_faultless_broker_is_found_faultless() {
        assert_eq!(judged(&deliveries(&[0, 1, 2, 3], 7, 20), 4), Faults::default());
    }

    #[test]
    fn an_injected_loss_is_found() {
        assert_eq!(judged(&deliveries(&[0, 1, 3], 7, 20), 4).verdict(), "1 lost");
        assert_eq!(judged(&deliveries(&[0, 1, 2], 7, 20), 4).verdict(), "1 lost");
    }

    #[test]
    fn an_injected_duplicate_is_found() {
        assert_eq!(judged(&deliveries(&[0, 1, 1, 2, 3], 7, 20), 4).verdict(), "1 duplicated");
    }

    #[test]
    fn an_injected_reordering_is_found() {
        assert_eq!(judged(&deliveries(&[0, 2, 1, 3], 7, 20), 4).verdict(), "1 out of order");
    }

    #[test]
    fn what_is_not_of_this_run_is_found() {
        assert_eq!(judged(&deliveries(&[0], 8, 20), 0).verdict(), "1 corrupt");
    }

    #[test]
    fn two_consumers_of_a_queue_may_overtake_each_other() {
        let mut arrivals = Arrivals::new(1);
        for numbers in [[0, 3, 5], [1, 2, 4]] {
            let mut consumer = Consumer::new(0, EXPECTED, 4096);
            let bytes = deliveries(&numbers, 7, 20);
            consumer.on_bytes(&mut &bytes[..], &mut Vec::new(), 0, &mut arrivals, None).unwrap();
        }
        assert_eq!(arrivals.judge(&[6], true), Faults::default());
    }

    #[test]
    fn bodies_may_come_in_any_pieces_and_bytes_in_any_reads() {
        for piece in [1, 3, 16, 19] {
            let bytes = deliveries(&[0, 1, 2], 7, piece);
            for step in [1, 7, 64] {
                let (mut consumer, mut arrivals) = (Consumer::new(0, EXPECTED, 4096), Arrivals::new(1));
                let mut latencies = latencies().unwrap();
                let mut pending = Vec::new();
                for part in bytes.chunks(step) {
                    pending.extend_from_slice(part);
                    let mut input = &pending[..];
                    let out = &mut Vec::new();
                    consumer.on_bytes(&mut input, out, 1000, &mut arrivals, Some(&mut latencies)).unwrap();
                    let left = input.len();
                    pending.drain(..pending.len() - left);
                }
                assert_eq!(arrivals.judge(&[3], true), Faults::default());
                assert_eq!((latencies.len(), latencies.max(), latencies.min()), (3, 1000, 800));
            }
        }
    }

    #[test]
    fn acks_come_as_often_as_asked_and_at_the_end() {
        let acks = |ack_every: u64| {
            let mut consumer = Consumer::new(0, Expected { ack_every, ..EXPECTED }, 4096);
            let (bytes, mut out) = (deliveries(&[0, 1, 2, 3, 4], 7, 20), Vec::new());
            consumer.on_bytes(&mut &bytes[..], &mut out, 0, &mut Arrivals::new(1), None).unwrap();
            consumer.ack_rest(&mut out);
            let (mut input, mut acks) = (&out[..], Vec::new());
            while let Some(frame) = frame::decode(&mut input, 4096).unwrap() {
                let Ok(Method::BasicAck(ack)) = Method::decode(frame.payload) else { panic!("an ack") };
                acks.push((ack.delivery_tag, ack.multiple));
            }
            acks
        };
        assert_eq!(acks(0), []);
        assert_eq!(acks(1), [1, 2, 3, 4, 5].map(|tag| (tag, false)));
        assert_eq!(acks(2), [2, 4, 5].map(|tag| (tag, true)));
    }

    #[test]
    fn a_broker_that_closes_ends_the_run() {
        let mut bytes = Vec::new();
        let close = ConnectionClose { reply_code: 541, reply_text: "INTERNAL_ERROR", class_id: 0, method_id: 0 };
        frame::write_method(&mut bytes, 0, close);
        let (mut consumer, mut arrivals) = (Consumer::new(0, EXPECTED, 4096), Arrivals::new(1));
        let result = consumer.on_bytes(&mut &bytes[..], &mut Vec::new(), 0, &mut arrivals, None);
        assert_eq!(result.unwrap_err().to_string(), "the broker has closed the connection: 541 INTERNAL_ERROR");
    }

    #[test]
    fn without_stamps_the_number_of_messages_is_checked() {
        let mut arrivals = Arrivals::new(1);
        arrivals.count = 3;
        assert_eq!(arrivals.judge(&[4], false).verdict(), "1 lost");
        assert_eq!(arrivals.judge(&[2], false).verdict(), "1 duplicated");
        assert!(arrivals.judge(&[3], false).is_none());
    }
}
