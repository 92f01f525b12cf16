//! Publisher confirms of one channel (semantics 14).
//!
//! Each publish has a number and waits for as many answers as it reached queues. Answers are gathered over a turn and leave
//! together: everything below the lowest number that still waits as one multiple ack, the rest one by one. They leave nowhere
//! else, because acks are cumulative: a second sender could overtake the first.
//!
//! Inside, the numbers of a channel go on where an earlier channel of the same number ended: the store may still answer for
//! publishes of that one, and its answers must not be taken for this one's.

use crate::amqp::method::{BasicAck, BasicNack};
use crate::amqp::{ChannelId, frame};
use crate::window::Window;

#[derive(Debug)]
struct Waiting {
    answers_missing: u32,
    /// Whatever the driver said that it was published to, for its statistics.
    source: u16,
    is_refused: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// What is taken off a number for the client, who counts from 1.
    base: u64,
    next: u64,
    waiting: Window<Waiting>,
    acked: Vec<u64>,
    nacked: Vec<u64>,
    /// How many were acked of each source, since that was last asked.
    confirmed: Vec<(u16, u64)>,
}

impl Confirms {
    /// Numbers publishes from `base` + 1 on.
    pub(crate) fn after(base: u64) -> Self {
        let (acked, nacked, confirmed) = (Vec::new(), Vec::new(), Vec::new());
        Self { base, next: base + 1, waiting: Window::default(), acked, nacked, confirmed }
    }

    /// The last number that was given.
    pub(crate) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Numbers a publish; it is open until [`Self::expect`] and its answers settle it.
    pub(crate) fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, Waiting { answers_missing: 1, source: NO_SOURCE, is_refused: false });
        number
    }

    /// The publish went to so many queues. None settles it at once (semantics 14.3). `source` comes back when it is acked.
    pub(crate) fn expect(&mut self, number: u64, queue_count: u32, source: u16) {
        let Some(waiting) = self.waiting.get_mut(number) else { return };
        waiting.source = source;
        match queue_count {
            0 => self.answer(number, true),
            count => waiting.answers_missing = count,
        }
    }

    /// One queue has taken the message, or refused it (semantics 14.7: one refusal refuses the whole).
    pub(crate) fn answer(&mut self, number: u64, is_taken: bool) {
        let Some(waiting) = self.waiting.get_mut(number) else { return };
        waiting.is_refused |= !is_taken;
        waiting.answers_missing = waiting.answers_missing.saturating_sub(1);
        if waiting.answers_missing == 0 {
            let source = waiting.source;
            if waiting.is_refused {
                self.nacked.push(number);
            } else {
                self.acked.push(number);
                match self.confirmed.last_mut() {
                    Some((last, count)) if *last == source => *count += 1,
                    _ => self.confirmed.push((source, 1)),
                }
            }
            self.waiting.remove(number);
        }
    }

    /// Whether [`Self::flush`] would write something.
    pub(crate) fn has_answers(&self) -> bool {
        !self.acked.is_empty() || !self.nacked.is_empty()
    }

    /// How many publishes were acked since the last time, by their source.
    pub(crate) fn take_confirmed(&mut self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.confirmed.drain(..)
    }

    /// How many publishes wait.
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Writes what was settled since the last time.
    pub(crate) fn flush(&mut self, channel: ChannelId, out: &mut Vec<u8>) {
        let base = self.base;
        // Refusals go first: a multiple ack behind them covers only what is still open at the client.
        for number in self.nacked.drain(..) {
            frame::write_method(
                out,
                channel.0,
                BasicNack { delivery_tag: number - base, multiple: false, requeue: false },
            );
        }
        let open = self.waiting.first().map_or(self.next, |(number, _)| number);
        let covered = self.acked.iter().copied().filter(|&number| number < open);
        if let Some(last) = covered.clone().max() {
            let multiple = covered.count() > 1;
            frame::write_method(out, channel.0, BasicAck { delivery_tag: last - base, multiple });
        }
        for number in self.acked.drain(..).filter(|&number| number > open) {
            frame::write_method(out, channel.0, BasicAck { delivery_tag: number - base, multiple: false });
        }
    }
}

/// What a publish says of its source before its driver does.
pub(crate) const NO_SOURCE: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::method::Method;

    fn flushed(confirms: &mut Confirms) -> Vec<(&'static str, u64, bool)> {
        let mut out = Vec::new();
        confirms.flush(ChannelId(1), &mut out);
        let mut input = &out[..];
        let mut seen = Vec::new();
        while let Ok(Some(frame)) = frame::decode(&mut input, 0) {
            match Method::decode(frame.payload).unwrap() {
                Method::BasicAck(ack) => seen.push(("ack", ack.delivery_tag, ack.multiple)),
                Method::BasicNack(nack) => seen.push(("nack", nack.delivery_tag, nack.multiple)),
                other => panic!("unexpected {other:?}"),
            }
        }
        seen
    }

    #[test]
    fn a_settled_prefix_is_one_multiple_ack_and_the_rest_single() {
        let mut confirms = Confirms::after(0);
        for number in 1..=6 {
            assert_eq!(confirms.number(), number);
        }
        for number in [3, 1, 2, 5] {
            confirms.answer(number, true);
        }
        assert_eq!(flushed(&mut confirms), [("ack", 3, true), ("ack", 5, false)]);
        confirms.answer(4, true);
        confirms.answer(6, true);
        assert_eq!(flushed(&mut confirms), [("ack", 6, true)]);
        assert_eq!(confirms.waiting_count(), 0);
    }

    #[test]
    fn a_publish_waits_for_all_its_queues_and_one_refusal_refuses_it() {
        let mut confirms = Confirms::after(0);
        confirms.number();
        confirms.number();
        confirms.expect(1, 3, 0);
        confirms.expect(2, 0, 7);
        confirms.answer(1, true);
        confirms.answer(1, false);
        assert_eq!(flushed(&mut confirms), [("ack", 2, false)]);
        confirms.answer(1, true);
        assert_eq!(flushed(&mut confirms), [("nack", 1, false)]);
        assert_eq!(confirms.take_confirmed().collect::<Vec<_>>(), [(7, 1)]);
    }
}
