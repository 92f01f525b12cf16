//! The sending side of a connection, without its socket: messages as they may leave, and confirms as they come.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use super::client::{decode, foreign, refuse_close};
use super::error::BenchError;
use super::ledger::Faults;
use super::pace::Pace;
use super::template::{Shape, Stamp, Template};
use crate::amqp::frame::FrameKind;
use crate::amqp::method::Method;

/// What a publisher sends.
#[derive(Clone, Debug)]
pub(super) struct Sending {
    pub(super) shape: Shape,
    /// Ways by which messages go in turn.
    pub(super) routes: usize,
    /// From one route of this publisher to its next: the number of publishers.
    pub(super) stride: usize,
    /// Queues that the routes lead to in turn; 1 for a fanout, where all messages are numbered together.
    pub(super) lanes: usize,
    pub(super) publisher: u16,
    pub(super) tag: u16,
    /// Messages that may be unconfirmed; 0 is without confirms.
    pub(super) window: u64,
    /// At most so many messages.
    pub(super) count: Option<u64>,
    /// Bytes that are gathered before they are written.
    pub(super) batch_bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Publisher {
    sending: Sending,
    template: Template,
    pace: Option<Pace>,
    next_route: usize,
    /// Messages to each lane.
    pub(super) sent: Vec<u64>,
    pub(super) total: u64,
    unconfirmed: Unconfirmed,
    pub(super) faults: Faults,
    /// The broker has asked for a pause, for want of memory or disk.
    pub(super) was_blocked: bool,
    pub(super) is_ended: bool,
}

impl Publisher {
    pub(super) fn new(sending: Sending, pace: Option<Pace>) -> Self {
        let template = Template::new(&sending.shape);
        let sent = vec![0; sending.lanes];
        let (unconfirmed, faults) = (Unconfirmed::default(), Faults::default());
        let (was_blocked, is_ended) = (false, false);
        let next_route = 0;
        let mut publisher =
            Self { sending, template, pace, next_route, sent, total: 0, unconfirmed, faults, was_blocked, is_ended };
        publisher.next_route = publisher.first_route();
        publisher
    }

    /// Each publisher has a share of the routes, or one with others where there are fewer routes than publishers.
    fn first_route(&self) -> usize {
        usize::from(self.sending.publisher) % self.sending.stride.min(self.sending.routes)
    }

    /// Which publisher this is.
    pub(super) fn number(&self) -> u16 {
        self.sending.publisher
    }

    /// When there will be something to send, for publishers with a rate that are not stopped by anything else.
    pub(super) fn next_at(&self) -> Option<u64> {
        if self.is_ended || self.room() == 0 { None } else { self.pace.as_ref().map(Pace::next_at) }
    }

    /// Whether nothing is to be sent or to be waited for.
    pub(super) fn is_done(&self) -> bool {
        self.is_ended && self.unconfirmed.open == 0
    }

    /// Whether a message may leave now, by everything but the socket.
    pub(super) fn may_send(&self, now: u64) -> bool {
        let is_time = self.pace.as_ref().is_none_or(|pace| pace.next_at() <= now);
        !self.is_ended && is_time && self.room() > 0
    }

    fn room(&self) -> u64 {
        let window = match self.sending.window {
            0 => u64::MAX,
            window => window.saturating_sub(self.unconfirmed.open),
        };
        window.min(self.sending.count.map_or(u64::MAX, |count| count.saturating_sub(self.total)))
    }

    /// Appends the messages that may leave now, at most `allowed` and about as many as a batch has, and says how many.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>, now: u64, allowed: u64, late: Option<&mut Histogram<u64>>) -> u64 {
        if self.is_ended {
            return 0;
        }
        let in_batch = self.sending.batch_bytes.saturating_sub(out.len()).div_ceil(self.template.len()) as u64;
        let most = self.room().min(allowed).min(in_batch);
        let mut messages = 0;
        let mut late = late;
        while messages < most {
            let at = match &mut self.pace {
                None => now,
                Some(pace) => match pace.take(now) {
                    Some(at) => at,
                    None => break,
                },
            };
            if let Some(late) = late.as_deref_mut() {
                late.saturating_record(now.saturating_sub(at).max(1));
            }
            self.send(out, at);
            messages += 1;
        }
        if self.sending.count.is_some_and(|count| self.total >= count) {
            self.is_ended = true;
        }
        messages
    }

    #[inline]
    fn send(&mut self, out: &mut Vec<u8>, at: u64) {
        let route = self.next_route;
        let next = route + self.sending.stride;
        self.next_route = if next < self.sending.routes { next } else { self.first_route() };
        let lane = if self.sending.lanes == 1 { 0 } else { route % self.sending.lanes };
        let mut number = 0;
        if let Some(sent) = self.sent.get_mut(lane) {
            number = *sent as u32;
            *sent += 1;
        }
        let Sending { publisher, tag, window, .. } = self.sending;
        self.template.append(out, route, Stamp { publisher, tag, number, at });
        self.total += 1;
        if window != 0 {
            self.unconfirmed.push(at);
        }
    }

    /// Reads whole frames off the front of `input`: confirms, as a rule.
    pub(super) fn on_bytes(
        &mut self,
        input: &mut &[u8],
        frame_max: u32,
        now: u64,
        mut latencies: Option<&mut Histogram<u64>>,
    ) -> Result<(), BenchError> {
        while let Some(frame) = decode(input, frame_max)? {
            if frame.kind != FrameKind::Method {
                continue;
            }
            let (tag, multiple) = match Method::decode(frame.payload).map_err(foreign)? {
                Method::BasicAck(ack) => (ack.delivery_tag, ack.multiple),
                Method::BasicNack(nack) => {
                    // What was refused has an answer, and comes nowhere.
                    let settled = self.unconfirmed.settle(nack.delivery_tag, nack.multiple, |_| {});
                    self.faults.nacked += settled.unwrap_or(0);
                    self.faults.wrong_confirms += u64::from(settled.is_none());
                    continue;
                }
                Method::ConnectionBlocked(_) => {
                    self.was_blocked = true;
                    continue;
                }
                method => {
                    refuse_close(&method)?;
                    continue;
                }
            };
            let settled = self.unconfirmed.settle(tag, multiple, |at| {
                if let Some(latencies) = latencies.as_deref_mut() {
                    latencies.saturating_record(now.saturating_sub(at).max(1));
                }
            });
            self.faults.wrong_confirms += u64::from(settled.is_none());
        }
        Ok(())
    }

    /// What is wrong on this side, at the end.
    pub(super) fn judge(&self) -> Faults {
        Faults { unconfirmed: self.unconfirmed.open, ..self.faults }
    }
}

/// Publishes that wait for their confirms, in order.
#[derive(Debug, Default)]
struct Unconfirmed {
    /// The number of the first one.
    first: u64,
    /// When each was to leave; None when it is confirmed already.
    times: VecDeque<Option<u64>>,
    /// How many are not.
    open: u64,
}

impl Unconfirmed {
    fn push(&mut self, at: u64) {
        self.times.push_back(Some(at));
        self.open += 1;
    }

    /// Settles a number, counted from 1, or all up to it, and says how many; None if there is nothing like it.
    fn settle(&mut self, tag: u64, multiple: bool, mut each: impl FnMut(u64)) -> Option<u64> {
        let tag = if multiple && tag == 0 { self.first + self.times.len() as u64 } else { tag };
        let place = usize::try_from(tag.checked_sub(self.first + 1)?).ok()?;
        if place >= self.times.len() {
            return None;
        }
        let from = if multiple { 0 } else { place };
        let mut settled = 0;
        for at in self.times.range_mut(from..=place).filter_map(Option::take) {
            each(at);
            settled += 1;
        }
        while let Some(None) = self.times.front() {
            self.times.pop_front();
            self.first += 1;
        }
        self.open -= settled;
        (settled > 0).then_some(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::frame;
    use crate::amqp::method::{BasicAck, BasicNack};

    fn sending(window: u64, count: Option<u64>) -> Sending {
        let key = ("q".to_owned(), true, "");
        let shape =
            Shape { exchange: String::new(), key, has_header: false, is_persistent: false, size: 16, frame_max: 4096 };
        Sending { shape, routes: 3, stride: 1, lanes: 3, publisher: 1, tag: 0, window, count, batch_bytes: 1 << 20 }
    }

    fn acks(publisher: &mut Publisher, acks: &[(u64, bool)]) {
        let mut bytes = Vec::new();
        for &(delivery_tag, multiple) in acks {
            frame::write_method(&mut bytes, 1, BasicAck { delivery_tag, multiple });
        }
        publisher.on_bytes(&mut &bytes[..], 4096, 0, None).unwrap();
    }

    #[test]
    fn no_more_leaves_than_window_count_and_rate_allow() {
        let mut out = Vec::new();
        let mut publisher = Publisher::new(sending(5, Some(7)), None);
        assert_eq!(publisher.fill(&mut out, 0, 3, None), 3);
        assert_eq!(publisher.fill(&mut out, 0, 100, None), 2);
        assert_eq!(publisher.fill(&mut out, 0, 100, None), 0);
        acks(&mut publisher, &[(3, true)]);
        assert_eq!(publisher.fill(&mut out, 0, 100, None), 2);
        assert!(publisher.is_ended && !publisher.is_done());
        acks(&mut publisher, &[(7, true)]);
        assert!(publisher.is_done());
        assert_eq!(publisher.sent, [3, 2, 2], "routes are taken in turn");
        let mut paced = Publisher::new(sending(0, None), Some(Pace::new(0, 1000.0, 0.0)));
        assert_eq!(paced.fill(&mut out, 2_500_000, 100, None), 3);
        assert_eq!(paced.next_at(), Some(3_000_000));
    }

    #[test]
    fn publishers_share_the_routes_or_have_one_each() {
        // The number is 1.
        for (stride, sent) in [(1, [2, 2, 2]), (2, [0, 6, 0]), (3, [0, 6, 0]), (4, [0, 6, 0])] {
            let mut publisher = Publisher::new(Sending { stride, ..sending(0, None) }, None);
            publisher.fill(&mut Vec::new(), 0, 6, None);
            assert_eq!(publisher.sent, sent, "{stride} publishers");
        }
        let mut first = Publisher::new(Sending { stride: 2, publisher: 0, ..sending(0, None) }, None);
        first.fill(&mut Vec::new(), 0, 6, None);
        assert_eq!(first.sent, [3, 0, 3]);
    }

    #[test]
    fn confirms_are_taken_in_any_order_and_wrong_ones_are_found() {
        let mut publisher = Publisher::new(sending(5, None), None);
        publisher.fill(&mut Vec::new(), 0, 5, None);
        acks(&mut publisher, &[(2, false), (5, false), (4, true)]);
        assert_eq!(publisher.judge(), Faults::default());
        acks(&mut publisher, &[(5, false), (6, false), (0, true)]);
        assert_eq!(publisher.judge().wrong_confirms, 3);
    }

    #[test]
    fn refused_and_unanswered_messages_are_counted() {
        let mut publisher = Publisher::new(sending(9, None), None);
        publisher.fill(&mut Vec::new(), 0, 5, None);
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, 1, BasicNack { delivery_tag: 2, multiple: true, requeue: false });
        publisher.on_bytes(&mut &bytes[..], 4096, 0, None).unwrap();
        assert_eq!(publisher.judge().verdict(), "2 refused, 3 never confirmed");
    }
}
