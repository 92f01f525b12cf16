//! The channels of a connection: their frames, the methods that are the machine's own business, and their ends (semantics 5.17 to 5.19, 7).
//!
//! While the driver carries a method out, the frames of its channel are held, so that answers keep their order.

use super::closing::NO_METHOD;
use super::*;

impl Connection {
    pub(super) fn on_channel_frame<'i>(
        &mut self,
        now: Instant,
        id: ChannelId,
        frame: Frame<'i>,
        raw: &[u8],
    ) -> Option<Event<'i>> {
        let Some(channel) = self.channels.get_mut(&id.0) else {
            // The channel.open of this number may still be among the frames that were held.
            if let Some((_, bytes, _)) = self.orphans.iter_mut().find(|(orphan, ..)| *orphan == id) {
                bytes.extend_from_slice(raw);
                self.held_bytes += raw.len();
                return None;
            }
            return self.on_new_channel(now, id, frame);
        };
        if channel.holds_frames() {
            channel.held.push(raw);
            self.held_bytes += raw.len();
            return None;
        }
        if channel.state == ChannelState::AwaitCloseOk {
            self.on_frame_of_closing_channel(id, frame);
            return None;
        }
        let kept_before = channel.content.kept_bytes();
        let result = match frame.kind {
            FrameKind::Method => return self.on_channel_method(now, id, frame.payload),
            FrameKind::Header => channel.content.header(frame.payload, self.limits.message_bytes_max),
            // Heartbeats on a channel were refused before.
            FrameKind::Body | FrameKind::Heartbeat => channel.content.body(frame.payload),
        };
        self.arriving.change(kept_before, channel.content.kept_bytes());
        self.has_content = true;
        match result {
            Ok(None) if self.arriving.bytes() > ASSEMBLING_BYTES_MAX => {
                let text = format!("more than {ASSEMBLING_BYTES_MAX} bytes of unfinished messages");
                let error = ProtocolError::new(ReplyCode::ResourceError, text).in_method(BasicPublish::ID);
                self.fail(now, ChannelId(0), error, Framing::Kept)
            }
            Ok(None) => None,
            Ok(Some(Assembled::Message(flags, message))) => {
                self.sizes.note(message.body().len());
                let mode = channel.mode.publish();
                Some(Event::Publish { channel: id, flags, mode, parts: None, message })
            }
            Ok(Some(Assembled::TooLarge { flags: PublishFlags { immediate: true, .. }, .. })) => {
                // Judged before the size (semantics 12.1).
                let error = ProtocolError::new(ReplyCode::NotImplemented, "immediate=true").in_method(BasicPublish::ID);
                self.fail(now, id, error, Framing::Kept)
            }
            Ok(Some(Assembled::TooLarge { body_bytes, .. })) => {
                let text = format!(
                    "message size {body_bytes} is larger than configured max size {}",
                    self.limits.message_bytes_max
                );
                let error = ProtocolError::new(ReplyCode::PreconditionFailed, text).in_method(BasicPublish::ID);
                self.fail(now, id, error, Framing::Kept)
            }
            Err(error) => self.fail(now, id, error, Framing::Kept),
        }
    }

    /// The common publish: method, header and one body frame stand behind each other in the input. Everything else, and everything
    /// that is wrong, takes the way frame by frame.
    #[inline]
    pub(super) fn publish_in_place<'i>(&mut self, frame: Frame<'i>, input: &mut &'i [u8]) -> Option<Event<'i>> {
        if frame.kind != FrameKind::Method || !BasicPublish::is(frame.payload) || self.state != State::Open {
            return None;
        }
        let channel = self.channels.get_mut(&frame.channel)?;
        if channel.holds_frames() || channel.state != ChannelState::Open || channel.mode.is_committing() {
            return None;
        }
        let mut rest = *input;
        let header = frame::expect(&mut rest, FrameKind::Header, frame.channel, self.frame_max_bytes)?;
        let (total, properties) = content::split_header(header, self.limits.message_bytes_max)?;
        let body = match total {
            0 => &[][..],
            _ => frame::expect(&mut rest, FrameKind::Body, frame.channel, self.frame_max_bytes)?,
        };
        if body.len() != total {
            return None;
        }
        let publish = content::split_publish(frame.payload)?;
        let flags = channel.content.begin_in_place(&publish)?;
        let parts = Parts { exchange: publish.exchange, routing_key: publish.routing_key, properties };
        let mode = channel.mode.publish();
        *input = rest;
        self.sizes.note(body.len());
        let message = Message::new(parts, body);
        Some(Event::Publish { channel: ChannelId(frame.channel), flags, mode, parts: Some(parts), message })
    }

    fn on_new_channel<'i>(&mut self, now: Instant, id: ChannelId, frame: Frame<'i>) -> Option<Event<'i>> {
        let is_open =
            frame.kind == FrameKind::Method && matches!(Method::decode(frame.payload), Ok(Method::ChannelOpen(_)));
        if !is_open {
            let method = match Method::decode(frame.payload) {
                Ok(method) if frame.kind == FrameKind::Method => method.id(),
                _ => NO_METHOD,
            };
            let error = ProtocolError::new(ReplyCode::ChannelError, "expected 'channel.open'").in_method(method);
            return self.fail(now, id, error, Framing::Kept);
        }
        if self.channel_max != 0 && self.channels.len() >= usize::from(self.channel_max) {
            let text = format!(
                "number of channels opened ({}) has reached the negotiated channel_max ({})",
                self.channels.len(),
                self.channel_max
            );
            let error = ProtocolError::new(ReplyCode::NotAllowed, text).in_method(ChannelOpen::ID);
            return self.fail(now, id, error, Framing::Kept);
        }
        self.channels.insert(id.0, Box::new(Channel::new()));
        Some(Event::ChannelOpen { channel: id })
    }

    /// The channel may be used.
    pub fn channel_opened(&mut self, id: ChannelId) {
        frame::write_method(self.out.tail(), id.0, ChannelOpenOk { channel_id: b"" });
    }

    fn on_frame_of_closing_channel(&mut self, id: ChannelId, frame: Frame<'_>) {
        if frame.kind != FrameKind::Method {
            return;
        }
        match Method::decode(frame.payload) {
            Ok(Method::ChannelCloseOk(_)) => {
                self.channels.remove(&id.0);
            }
            Ok(Method::ChannelClose(_)) => frame::write_method(self.out.tail(), id.0, ChannelCloseOk {}),
            _ => {}
        }
    }

    fn on_channel_method<'i>(&mut self, now: Instant, id: ChannelId, payload: &'i [u8]) -> Option<Event<'i>> {
        let channel = self.channels.get_mut(&id.0)?;
        let method = match Method::decode(payload) {
            Ok(method) => method,
            Err(error) => return self.fail(now, id, decode_error(error), Framing::Kept),
        };
        if let Some(error) = channel.content.refuse_method() {
            return self.fail(now, id, error, Framing::Kept);
        }
        if channel.mode.is_committing() && !matches!(method, Method::ChannelClose(_)) {
            let text = "unexpected command while processing 'tx.commit'";
            let error = ProtocolError::new(ReplyCode::ChannelError, text).in_method(method.id());
            return self.fail(now, id, error, Framing::Kept);
        }
        let outcome_of = |requeue| if requeue { Outcome::Requeue } else { Outcome::Discard };
        match method {
            Method::BasicPublish(publish) => {
                channel.content.begin(&publish);
                None
            }
            Method::BasicAck(ack) => self.on_settle(now, id, &method, ack.delivery_tag, ack.multiple, Outcome::Ack),
            Method::BasicNack(nack) => {
                self.on_settle(now, id, &method, nack.delivery_tag, nack.multiple, outcome_of(nack.requeue))
            }
            Method::BasicReject(reject) => {
                self.on_settle(now, id, &method, reject.delivery_tag, false, outcome_of(reject.requeue))
            }
            Method::ConfirmSelect(select) => self.on_confirm_select(now, id, select),
            Method::TxSelect(_) => self.on_tx_select(now, id),
            Method::TxCommit(_) => self.on_tx_commit(now, id),
            Method::TxRollback(_) => self.on_tx_rollback(now, id),
            Method::ChannelClose(_) => {
                self.stop_channel(id);
                Some(Event::ChannelClose { channel: id })
            }
            Method::ChannelFlow(ChannelFlow { active: true }) => {
                frame::write_method(self.out.tail(), id.0, ChannelFlowOk { active: true });
                None
            }
            Method::AccessRequest(_) => {
                frame::write_method(self.out.tail(), id.0, AccessRequestOk { ticket: 1 });
                None
            }
            Method::ChannelFlowOk(_) | Method::ChannelCloseOk(_) => None,
            other => match refusal(&other) {
                Some(error) => self.fail(now, id, error.in_method(other.id()), Framing::Kept),
                None => Some(Event::Command { channel: id, method: other }),
            },
        }
    }

    fn on_settle<'i>(
        &mut self,
        now: Instant,
        id: ChannelId,
        method: &Method<'i>,
        tag: u64,
        multiple: bool,
        outcome: Outcome,
    ) -> Option<Event<'i>> {
        let channel = self.channels.get_mut(&id.0)?;
        self.settled.clear();
        self.settled.shrink_to(SETTLED_KEEP_MAX);
        let result = match &mut channel.mode {
            Mode::Tx(transaction) => {
                let mut held = Vec::new();
                let result = channel.unacked.settle(tag, multiple, |tag, outstanding| held.push((tag, outstanding)));
                transaction.hold(outcome, held);
                result
            }
            Mode::Plain | Mode::Confirm(_) => {
                channel.unacked.settle(tag, multiple, |_, outstanding| self.settled.push(outstanding))
            }
        };
        match result {
            Ok(()) if self.settled.is_empty() => None,
            Ok(()) => Some(Event::Settle { channel: id, outcome }),
            Err(error) => self.fail(now, id, error.in_method(method.id()), Framing::Kept),
        }
    }

    /// The deliveries of the last [`Event::Settle`], in delivery order.
    pub fn settled(&self) -> &[Outstanding] {
        &self.settled
    }

    /// Takes every unacked delivery of a channel into [`Self::settled`]: basic.recover, in delivery order.
    pub fn recover(&mut self, id: ChannelId) {
        self.settled.clear();
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.unacked.drain(&mut self.settled);
        }
    }

    /// Holds a channel's frames until [`Self::resume`]: the driver is carrying a method out.
    pub fn wait(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.is_waiting = true;
        }
    }

    /// The method is carried out; frames that were held can be taken with [`Self::take_held`].
    pub fn resume(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id.0)
            && std::mem::take(&mut channel.is_waiting)
            && channel.held.len() > 0
        {
            self.resumable.push(id.0);
        }
    }

    /// Held frames of a channel that goes on, and how many bytes at their front are done with. To be fed to [`Self::next_event`]; when
    /// the channel waits again or the driver stops, the rest goes back by [`Self::put_back`].
    pub fn take_held(&mut self) -> Option<(ChannelId, Vec<u8>, usize)> {
        if self.state == State::Stopping {
            return None;
        }
        loop {
            if let Some((id, bytes, start)) = self.orphans.pop() {
                self.held_bytes = self.held_bytes.saturating_sub(bytes.len() - start);
                return Some((id, bytes, start));
            }
            let id = self.resumable.pop()?;
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            if channel.is_waiting || channel.held.len() == 0 {
                continue;
            }
            self.held_bytes = self.held_bytes.saturating_sub(channel.held.len());
            let (bytes, start) = channel.held.take();
            return Some((ChannelId(id), bytes, start));
        }
    }

    /// See [`Self::take_held`].
    pub fn put_back(&mut self, id: ChannelId, bytes: Vec<u8>, start: usize) {
        self.held_bytes += bytes.len() - start;
        match self.channels.get_mut(&id.0) {
            Some(channel) => {
                channel.held.put_back(bytes, start);
                if !channel.is_waiting {
                    self.resumable.push(id.0);
                }
            }
            None => self.orphans.push((id, bytes, start)),
        }
    }

    pub(super) fn stop_channel(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.state = ChannelState::Stopping;
            channel.is_waiting = true;
        }
    }

    /// The driver failed a method: the channel holds its frames until [`Self::close_channel`].
    pub fn stop_failed_channel(&mut self, id: ChannelId) {
        self.stop_channel(id);
    }

    /// Everything of the channel is stopped: tell the client why (semantics 5.19).
    pub fn close_channel(&mut self, id: ChannelId, error: &ProtocolError) {
        // What was confirmed or refused before the error is said before it.
        self.flush_confirms_of(id);
        let Some(channel) = self.channels.get_mut(&id.0) else { return };
        self.numbers_base = self.numbers_base.max(channel.mode.last_number());
        let (text, method) = (error.reply_text(), error.method.unwrap_or(NO_METHOD));
        let close = ChannelClose {
            reply_code: error.code as u16,
            reply_text: &text,
            class_id: method.class,
            method_id: method.method,
        };
        frame::write_method(self.out.tail(), id.0, close);
        self.arriving.change(channel.content.kept_bytes(), 0);
        let mut closed = Channel::new();
        closed.state = ChannelState::AwaitCloseOk;
        closed.held = std::mem::take(&mut channel.held);
        closed.is_waiting = true;
        **channel = closed;
        self.resume(id);
    }

    /// Everything of the channel is stopped: its number may be used again (semantics 7.4).
    pub fn close_channel_ok(&mut self, id: ChannelId) {
        self.flush_confirms_of(id);
        let Some(mut channel) = self.channels.remove(&id.0) else { return };
        self.arriving.change(channel.content.kept_bytes(), 0);
        self.numbers_base = self.numbers_base.max(channel.mode.last_number());
        frame::write_method(self.out.tail(), id.0, ChannelCloseOk {});
        if channel.held.len() > 0 {
            // A client that did not wait for close-ok; what it sent belongs to a new channel of this number.
            let (bytes, start) = channel.held.take();
            self.orphans.push((id, bytes, start));
        }
    }
}

/// Why a method is refused whatever its arguments; none when the driver carries it out.
fn refusal(method: &Method<'_>) -> Option<ProtocolError> {
    Some(match method {
        Method::ChannelOpen(_) => ProtocolError::new(ReplyCode::ChannelError, "second 'channel.open' seen"),
        Method::ChannelFlow(_) => ProtocolError::new(ReplyCode::NotImplemented, "active=false"),
        Method::ExchangeDeclare(_)
        | Method::ExchangeDelete(_)
        | Method::ExchangeBind(_)
        | Method::ExchangeUnbind(_)
        | Method::QueueDeclare(_)
        | Method::QueueBind(_)
        | Method::QueuePurge(_)
        | Method::QueueDelete(_)
        | Method::QueueUnbind(_)
        | Method::BasicQos(_)
        | Method::BasicConsume(_)
        | Method::BasicCancel(_)
        | Method::BasicCancelOk(_)
        | Method::BasicGet(_)
        | Method::BasicRecover(_)
        | Method::BasicRecoverAsync(_) => return None,
        _ => ProtocolError::new(ReplyCode::CommandInvalid, "unimplemented method"),
    })
}
