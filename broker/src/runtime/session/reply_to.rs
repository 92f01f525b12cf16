//! The reply consumer of a channel (semantics 22): consuming from the name that is no queue, and declaring it.

use std::sync::Arc;

use plugin_api::value::Table;

use super::Session;
use super::replies::Subscription;
use crate::amqp::method::{BasicConsume, QueueDeclare, QueueDeclareOk};
use crate::amqp::{ChannelId, ProtocolError, ReplyCode, SourceId};
use crate::runtime::entropy::generated_name;
use crate::vhost::Error;
use crate::vhost::error::Kind;
use crate::vhost::reply_to::{PREFIX, REPLY_TO, is_reply_name};

impl Session {
    /// basic.consume on [`REPLY_TO`]: no permission, no queue that anybody else could see. `tag` is free on the channel.
    pub(super) fn consume_replies(
        &mut self,
        channel: ChannelId,
        consume: &BasicConsume<'_>,
        tag: String,
    ) -> Result<(), ProtocolError> {
        let refuse = |text: &str| Err(ProtocolError::new(ReplyCode::PreconditionFailed, text));
        if !consume.no_ack {
            return refuse("reply consumer cannot acknowledge");
        }
        let state = self.channels.entry(channel.0).or_default();
        if state.reply_consumer.is_some() {
            return refuse("reply consumer already set");
        }
        let Some(vhost) = &self.vhost else { return Ok(()) };
        let name: Arc<str> = generated_name(PREFIX).into();
        let queue = vhost.add_reply_queue(Arc::clone(&name), &self.reply_backlog);
        let subscription = Subscription {
            tag,
            no_ack: true,
            is_exclusive: false,
            nowait: consume.nowait,
            priority: 0,
            prefetch_count: 0,
            arguments: Table::new(),
            source: SourceId(0),
        };
        let source = self.subscribe(channel, queue, subscription);
        if let Some(state) = self.channels.get_mut(&channel.0) {
            state.reply_consumer = Some((source, name));
        }
        Ok(())
    }

    /// The channel's reply consumer is about to end, if it is this one: from now on nothing is asked in its name.
    pub(super) fn forget_reply_consumer(&mut self, channel: ChannelId, source: SourceId) {
        if let Some(state) = self.channels.get_mut(&channel.0) {
            state.reply_consumer.take_if(|(own, _)| *own == source);
        }
    }

    /// queue.declare on one of the names: tells whether somebody consumes there (semantics 22.3).
    pub(super) fn declare_reply_name(
        &mut self,
        channel: ChannelId,
        declare: &QueueDeclare<'_>,
        name: &str,
    ) -> Result<(), ProtocolError> {
        let Some(vhost) = &self.vhost else { return Ok(()) };
        if name != REPLY_TO && !vhost.has_reply_queue(name) {
            let vhost = vhost.name.to_string();
            return Err(Error::NotFound { kind: Kind::Queue, name: name.into(), vhost }.into());
        }
        if let Some(state) = self.channels.get_mut(&channel.0) {
            name.clone_into(&mut state.last_queue);
        }
        if !declare.nowait {
            self.conn.send(channel, QueueDeclareOk { queue: name, message_count: 0, consumer_count: 1 });
        }
        Ok(())
    }
}

/// Whether queue.declare is about a reply consumer.
pub(super) fn is_declared_specially(name: &str) -> bool {
    name == REPLY_TO || is_reply_name(name)
}
