//! What clients publish: into the publisher's batches, with confirms and returns.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use crate::amqp::{ChannelId, ProtocolError, PublishFlags, PublishMode, ReplyCode};
use crate::message::{Message, Parts};
use crate::vhost::Vhost;
use crate::vhost::firehose::Traced;
use crate::vhost::publish::{Context, Published, Trace, without_bcc};

impl Session {
    pub(super) fn on_publish(
        &mut self,
        now: Instant,
        channel: ChannelId,
        flags: PublishFlags,
        mode: PublishMode,
        parts: Option<Parts<'_>>,
        message: Arc<Message>,
    ) -> Result<(), ProtocolError> {
        // The publish that meets an alarm is still processed; the socket is left unread behind it (semantics 26.5).
        if let Some(reason) = self.broker.alarms.reason() {
            self.conn.block(now, reason);
        }
        let (Some(vhost), Some(actor)) = (&self.vhost, &mut self.actor) else { return Ok(()) };
        if flags.immediate {
            return Err(ProtocolError::new(ReplyCode::NotImplemented, "immediate=true"));
        }
        let channels = &self.channels;
        let context = Context {
            vhost,
            hooks: &self.broker.hooks,
            access_generation: actor.generation(),
            reply_name: &|channel| channels.get(&channel)?.reply_consumer.as_ref().map(|(_, name)| Arc::clone(name)),
        };
        // A returned message goes back as it came, whatever a hook made of it (semantics 12.12).
        let original = flags.mandatory.then(|| Arc::clone(&message));
        let number = match mode {
            PublishMode::Plain => 0,
            PublishMode::Confirm(number) => number,
            PublishMode::Transaction(number) => {
                let held = self.publisher.hold(&context, actor, channel.0, number, parts, message)?;
                return self.hold_publish(channel, held, original);
            }
        };
        let published = self.publisher.publish(&context, actor, channel.0, number, parts, message)?;
        if published == Published::Unroutable {
            if let Some(exchange) = self.publisher.last_exchange().cloned() {
                self.count_unroutable(&exchange, channel.0, original.is_some());
            }
            if let Some(original) = original {
                self.return_unroutable(channel, &original)?;
            }
        }
        if number != 0 {
            let source = self.confirm_source(channel.0);
            match published {
                Published::Routed(queue_count) => self.conn.expect_confirms(channel, number, queue_count, source),
                Published::Unroutable | Published::Dropped => self.conn.expect_confirms(channel, number, 0, source),
                Published::Rejected => self.conn.confirm(channel, number..=number, false)?,
            }
        }
        Ok(())
    }

    /// Hands a mandatory message back that nobody takes (semantics 12.7).
    pub(super) fn return_unroutable(
        &mut self,
        channel: ChannelId,
        original: &Arc<Message>,
    ) -> Result<(), ProtocolError> {
        let message = without_bcc(original)?;
        self.conn.return_message(channel, ReplyCode::NoRoute, &message);
        Ok(())
    }

    pub(super) fn flush_publishes(&mut self) {
        if self.publisher.is_filled() {
            let mailbox = &self.mailbox;
            self.publisher.flush(&self.outlet, |bytes| mailbox.publishes_posted(bytes));
            self.count_publishes();
            for Trace { channel, message, queues } in self.publisher.take_traces() {
                if let Some((vhost, by)) = self.traced(channel) {
                    vhost.trace_publish(by, &message, &queues);
                }
            }
        }
    }

    /// What the firehose says of a channel.
    pub(super) fn traced(&self, channel: u16) -> Option<(&Vhost, Traced<'_>)> {
        let (vhost, actor) = (self.vhost.as_deref()?, self.actor.as_ref()?);
        let node = &self.broker.identity.cluster_name;
        Some((vhost, Traced { node, connection: &self.name, channel, user: actor.name() }))
    }
}
