//! Consumers, deliveries and confirms: what goes out on channels by itself.

use super::*;

impl Connection {
    /// Whether a consumer tag is taken on a channel.
    pub fn has_consumer(&self, id: ChannelId, tag: &str) -> bool {
        self.channels.get(&id.0).is_some_and(|channel| channel.tags.contains_key(tag))
    }

    /// How many consumers a channel has.
    pub fn consumer_count(&self, id: ChannelId) -> usize {
        self.channels.get(&id.0).map_or(0, |channel| channel.consumers.len())
    }

    /// The consumers of a channel, in no order, each with its tag.
    pub fn consumers(&self, id: ChannelId) -> impl Iterator<Item = (SourceId, &str)> {
        let channel = self.channels.get(&id.0);
        channel
            .into_iter()
            .flat_map(|channel| channel.consumers.iter().map(|(source, consumer)| (*source, &*consumer.tag)))
    }

    /// The source behind a consumer tag.
    pub fn consumer_source(&self, id: ChannelId, tag: &str) -> Option<SourceId> {
        self.channels.get(&id.0)?.tags.get(tag).copied()
    }

    /// Registers a consumer before its first delivery.
    pub fn add_consumer(&mut self, id: ChannelId, source: SourceId, tag: &str, no_ack: bool) {
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.tags.insert(tag.into(), source);
            channel.consumers.insert(source, Consumer { tag: tag.into(), no_ack });
        }
    }

    /// Forgets a consumer; returns its tag.
    pub fn remove_consumer(&mut self, id: ChannelId, source: SourceId) -> Option<Box<str>> {
        let channel = self.channels.get_mut(&id.0)?;
        let consumer = channel.consumers.remove(&source)?;
        channel.tags.remove(&consumer.tag);
        Some(consumer.tag)
    }

    /// Writes a method to a channel.
    pub fn send<'m>(&mut self, id: ChannelId, method: impl Into<Method<'m>>) {
        frame::write_method(self.out.tail(), id.0, method);
    }

    /// Writes deliveries of one consumer; returns whether the client had it still (else the driver drops them: the queue takes
    /// them back with the consumer).
    pub fn deliver<'m>(
        &mut self,
        id: ChannelId,
        source: SourceId,
        deliveries: impl Iterator<Item = Delivery<'m>>,
    ) -> bool {
        let Some(channel) = self.channels.get_mut(&id.0) else { return false };
        let Some(consumer) = channel.consumers.get(&source) else { return false };
        for delivery in deliveries {
            let outstanding = (!consumer.no_ack).then_some(Outstanding { source, ticket: delivery.ticket });
            let delivery_tag = channel.unacked.tag(outstanding);
            write_deliver(self.out.tail(), id, &consumer.tag, delivery_tag, &delivery);
            write_content(&mut self.out, id, delivery.message, self.frame_max_bytes);
        }
        true
    }

    /// Answers basic.get with a message. `outstanding` is none with no-ack.
    pub fn get_ok(
        &mut self,
        id: ChannelId,
        outstanding: Option<Outstanding>,
        redelivered: bool,
        message_count: u32,
        message: &Arc<Message>,
    ) {
        let Some(channel) = self.channels.get_mut(&id.0) else { return };
        let get_ok = BasicGetOk {
            delivery_tag: channel.unacked.tag(outstanding),
            redelivered,
            exchange: message.exchange(),
            routing_key: message.routing_key(),
            message_count,
        };
        frame::write_method(self.out.tail(), id.0, get_ok);
        write_content(&mut self.out, id, message, self.frame_max_bytes);
    }

    /// Hands an unroutable mandatory message back (semantics 12.7).
    pub fn return_message(&mut self, id: ChannelId, code: ReplyCode, message: &Arc<Message>) {
        let method = BasicReturn {
            reply_code: code as u16,
            reply_text: code.name(),
            exchange: message.exchange(),
            routing_key: message.routing_key(),
        };
        frame::write_method(self.out.tail(), id.0, method);
        write_content(&mut self.out, id, message, self.frame_max_bytes);
    }

    // Confirms

    /// A publish went to so many queues; each will answer. `source` comes back with [`Self::take_confirmed`].
    pub fn expect_confirms(&mut self, id: ChannelId, number: u64, queue_count: u32, source: u16) {
        let Some(confirms) = self.channels.get_mut(&id.0).and_then(|channel| channel.mode.confirms()) else { return };
        let had_answers = confirms.has_answers();
        confirms.expect(number, queue_count, source);
        if !had_answers && confirms.has_answers() {
            self.confirming.push(id.0);
        }
    }

    /// A queue has taken the messages with these numbers, or refused them.
    ///
    /// # Errors
    /// It was the last answer to a tx.commit that cannot be carried out wholly: the channel fails (semantics 15.5).
    pub fn confirm(
        &mut self,
        id: ChannelId,
        numbers: std::ops::RangeInclusive<u64>,
        is_taken: bool,
    ) -> Result<(), ProtocolError> {
        let Some(channel) = self.channels.get_mut(&id.0) else { return Ok(()) };
        match &mut channel.mode {
            Mode::Plain => Ok(()),
            Mode::Confirm(confirms) => {
                let had_answers = confirms.has_answers();
                for number in numbers {
                    confirms.answer(number, is_taken);
                }
                if !had_answers && confirms.has_answers() {
                    self.confirming.push(id.0);
                }
                Ok(())
            }
            Mode::Tx(transaction) => {
                for number in numbers {
                    transaction.answer(number, is_taken);
                }
                self.finish_commit(id)
            }
        }
    }

    /// Writes the confirms that this turn brought.
    pub fn flush_confirms(&mut self) {
        for id in std::mem::take(&mut self.confirming) {
            self.flush_confirms_of(ChannelId(id));
        }
    }

    pub(super) fn flush_confirms_of(&mut self, id: ChannelId) {
        if let Some(confirms) = self.channels.get_mut(&id.0).and_then(|channel| channel.mode.confirms()) {
            confirms.flush(id, self.out.tail());
            let confirmed = confirms.take_confirmed();
            self.confirmed.extend(confirmed.map(|(source, count)| Confirmed { channel: id, source, count }));
        }
    }

    // Statistics

    /// Publishes that were confirmed since the last call.
    pub fn take_confirmed(&mut self) -> Vec<Confirmed> {
        std::mem::take(&mut self.confirmed)
    }

    /// How large what was published is, as far as nobody has taken it yet.
    pub fn sizes(&mut self) -> &mut BodySizes {
        &mut self.sizes
    }

    /// How a channel stands; none when it is not open.
    pub fn channel_gauges(&self, id: ChannelId) -> Option<ChannelGauges> {
        let channel = self.channels.get(&id.0).filter(|channel| channel.state == ChannelState::Open)?;
        let (unconfirmed, acks_uncommitted) = match &channel.mode {
            Mode::Plain => (0, 0),
            Mode::Confirm(confirms) => (confirms.waiting_count(), 0),
            Mode::Tx(transaction) => (0, transaction.settlement_count()),
        };
        Some(ChannelGauges {
            unacked: channel.unacked.len(),
            consumers: channel.consumers.len(),
            unconfirmed,
            acks_uncommitted,
            is_confirm: matches!(channel.mode, Mode::Confirm(_)),
            is_transactional: matches!(channel.mode, Mode::Tx(_)),
        })
    }
}

/// Publishes of a channel that were confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Which channel.
    pub channel: ChannelId,
    /// What the driver said with [`Connection::expect_confirms`].
    pub source: u16,
    /// How many.
    pub count: u64,
}

/// How a channel stands, for its statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelGauges {
    /// Deliveries that are not settled.
    pub unacked: usize,
    /// Consumers.
    pub consumers: usize,
    /// Publishes that are not confirmed.
    pub unconfirmed: usize,
    /// Settlements that wait for tx.commit.
    pub acks_uncommitted: usize,
    /// It confirms publishes.
    pub is_confirm: bool,
    /// It has transactions.
    pub is_transactional: bool,
}

/// A message on its way to a consumer.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'m> {
    /// The queue's number for it, see [`Outstanding`].
    pub ticket: u64,
    /// It was handed out before.
    pub redelivered: bool,
    /// What.
    pub message: &'m Arc<Message>,
}

/// The frame of basic.deliver, straight from the message's bytes: the one method that is written per message.
#[inline]
fn write_deliver(
    out: &mut Vec<u8>,
    channel: ChannelId,
    consumer_tag: &str,
    delivery_tag: u64,
    delivery: &Delivery<'_>,
) {
    let (exchange, routing_key) = delivery.message.raw_names();
    let tag = consumer_tag.as_bytes();
    // Class, method, three lengths, delivery tag and the octet of bits. Tags and names are short strings, so all lengths fit.
    let size = 4 + 3 + 8 + 1 + tag.len() + exchange.len() + routing_key.len();
    out.reserve(size + frame::OVERHEAD_BYTES);
    let [a, b, c, d] = BasicDeliver::PREFIX;
    let [high, low] = channel.0.to_be_bytes();
    let [s3, s2, s1, s0] = (size as u32).to_be_bytes();
    out.extend_from_slice(&[FrameKind::Method as u8, high, low, s3, s2, s1, s0, a, b, c, d, tag.len() as u8]);
    out.extend_from_slice(tag);
    let mut middle = [0; 10];
    let (number, rest) = middle.split_at_mut(8);
    number.copy_from_slice(&delivery_tag.to_be_bytes());
    rest.copy_from_slice(&[u8::from(delivery.redelivered), exchange.len() as u8]);
    out.extend_from_slice(&middle);
    out.extend_from_slice(exchange);
    out.push(routing_key.len() as u8);
    out.extend_from_slice(routing_key);
    out.push(frame::END);
}

/// The frame of a content header.
#[inline]
fn write_header(out: &mut Vec<u8>, channel: ChannelId, body_bytes: usize, properties: &[u8]) {
    let [high, low] = channel.0.to_be_bytes();
    let [s3, s2, s1, s0] = ((12 + properties.len()) as u32).to_be_bytes();
    let [b7, b6, b5, b4, b3, b2, b1, b0] = (body_bytes as u64).to_be_bytes();
    let kind = FrameKind::Header as u8;
    out.extend_from_slice(&[kind, high, low, s3, s2, s1, s0, 0, 60, 0, 0, b7, b6, b5, b4, b3, b2, b1, b0]);
    out.extend_from_slice(properties);
    out.push(frame::END);
}

/// What a body frame begins with.
#[inline]
fn body_start(channel: ChannelId, bytes: usize) -> [u8; frame::HEADER_BYTES] {
    let [high, low] = channel.0.to_be_bytes();
    let [s3, s2, s1, s0] = (bytes as u32).to_be_bytes();
    [FrameKind::Body as u8, high, low, s3, s2, s1, s0]
}

/// Header and body frames of a message.
#[inline]
fn write_content(out: &mut OutBuffer, channel: ChannelId, message: &Arc<Message>, frame_max_bytes: u32) {
    let (properties, body) = message.content();
    let tail = out.tail();
    let piece_bytes_max = match frame_max_bytes as usize {
        0 => usize::MAX,
        limit => limit - frame::OVERHEAD_BYTES,
    };
    if body.len() < crate::amqp::out::BORROW_BYTES_MIN && body.len() <= piece_bytes_max {
        tail.reserve(12 + properties.len() + body.len() + 2 * frame::OVERHEAD_BYTES);
        write_header(tail, channel, body.len(), properties);
        if !body.is_empty() {
            tail.extend_from_slice(&body_start(channel, body.len()));
            tail.extend_from_slice(body);
            tail.push(frame::END);
        }
        return;
    }
    write_header(tail, channel, body.len(), properties);
    write_large_body(out, channel, message, piece_bytes_max);
}

/// Body frames of a message that is too large for one, or to be copied.
fn write_large_body(out: &mut OutBuffer, channel: ChannelId, message: &Arc<Message>, piece_bytes_max: usize) {
    let body = message.body();
    if body.len() < crate::amqp::out::BORROW_BYTES_MIN {
        for piece in body.chunks(piece_bytes_max) {
            let tail = out.tail();
            tail.extend_from_slice(&body_start(channel, piece.len()));
            tail.extend_from_slice(piece);
            tail.push(frame::END);
        }
        return;
    }
    let mut start = 0;
    while start < body.len() {
        let end = body.len().min(start.saturating_add(piece_bytes_max));
        out.tail().extend_from_slice(&body_start(channel, end - start));
        out.push_body(message, start..end);
        out.tail().push(frame::END);
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliver_is_encoded_as_the_table_of_methods_says() {
        let parts = Parts { exchange: "orders", routing_key: "order.eu", properties: &[0, 0] };
        let message = Message::new(parts, b"body");
        for redelivered in [false, true] {
            let (mut quick, mut table) = (Vec::new(), Vec::new());
            let delivery = Delivery { ticket: 1, redelivered, message: &message };
            write_deliver(&mut quick, ChannelId(3), "tag", 7, &delivery);
            let deliver = BasicDeliver {
                consumer_tag: "tag",
                delivery_tag: 7,
                redelivered,
                exchange: parts.exchange,
                routing_key: parts.routing_key,
            };
            frame::write_method(&mut table, 3, deliver);
            assert_eq!(quick, table);
        }
    }
}
