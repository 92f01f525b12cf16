//! Transactions (semantics 15): publishes that wait for tx.commit, and the commit.
//!
//! A publish is checked and routed when it comes, so its errors come at once; it takes memory of the connection's and of everybody's
//! share until the transaction ends. The settlements are with the connection machine, which also waits for the answers of queues.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use crate::amqp::method::BasicPublish;
use crate::amqp::{ChannelId, ProtocolError, ReplyCode};
use crate::message::Message;
use crate::vhost::publish::{HeldPublish, Published};

/// A publish of a transaction.
#[derive(Debug)]
struct Item {
    publish: HeldPublish,
    /// A mandatory message as the client sent it: it comes back if nobody takes it.
    original: Option<Arc<Message>>,
}

/// The publishes that a channel's transaction holds.
#[derive(Debug, Default)]
pub(super) struct HeldPublishes {
    items: Vec<Item>,
    bytes: u64,
    /// A hook has rejected one, so the commit will fail.
    is_refused: bool,
}

impl HeldPublishes {
    /// How many publishes it holds.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }
}

impl Session {
    /// Holds what became of a publish on a transactional channel.
    pub(super) fn hold_publish(
        &mut self,
        channel: ChannelId,
        held: Result<HeldPublish, Published>,
        original: Option<Arc<Message>>,
    ) -> Result<(), ProtocolError> {
        let transaction = &mut self.channels.entry(channel.0).or_default().transaction;
        let publish = match held {
            Ok(publish) => publish,
            Err(Published::Rejected) => {
                transaction.is_refused = true;
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        let item = Item { original: original.filter(|_| publish.is_unroutable()), publish };
        let original_bytes = item.original.as_ref().map_or(0, |message| message.weight());
        let bytes = (size_of::<Item>() + item.publish.bytes() + original_bytes) as u64;
        self.broker.transactions.take(self.transaction_bytes, bytes).map_err(|error| {
            ProtocolError::new(ReplyCode::PreconditionFailed, error.to_string()).in_method(BasicPublish::ID)
        })?;
        self.transaction_bytes += bytes;
        if self.touched.last() != Some(&channel.0) {
            self.touched.push(channel.0);
        }
        transaction.bytes += bytes;
        transaction.items.push(item);
        Ok(())
    }

    /// tx.commit: the publishes in their order, then the settlements in theirs (semantics 15.4).
    pub(super) fn on_commit(&mut self, now: Instant, channel: ChannelId) {
        self.flush_publishes();
        self.flush_settled();
        let held = self.take_transaction(channel);
        let Some(vhost) = self.vhost.clone() else { return };
        let mut answers_missing = 0;
        for Item { publish, original } in held.items {
            let exchange = Arc::clone(publish.exchange());
            match self.publisher.publish_held(&vhost, channel.0, publish) {
                Published::Routed(queue_count) => answers_missing += u64::from(queue_count),
                Published::Unroutable | Published::Dropped | Published::Rejected => {
                    self.count_unroutable(&exchange, channel.0, original.is_some());
                    if let Some(original) = original
                        && let Err(error) = self.return_unroutable(channel, &original)
                    {
                        return self.fail(now, channel, error);
                    }
                }
            }
        }
        self.flush_publishes();
        for (outcome, deliveries) in self.conn.take_held_settlements(channel) {
            deliveries.into_iter().for_each(|outstanding| self.settle(outstanding, outcome));
        }
        self.flush_settled();
        match self.conn.commit(channel, answers_missing, held.is_refused) {
            // Queues that keep messages in memory have answered by now, and what the client sent behind the commit needs not fail.
            Ok(()) => {
                self.drain_mail(now);
            }
            Err(error) => self.fail(now, channel, error),
        }
    }

    /// Drops what a channel's transaction holds; its room is free again.
    pub(super) fn drop_transaction(&mut self, channel: ChannelId) {
        self.take_transaction(channel);
    }

    fn take_transaction(&mut self, channel: ChannelId) -> HeldPublishes {
        let Some(state) = self.channels.get_mut(&channel.0) else { return HeldPublishes::default() };
        let held = std::mem::take(&mut state.transaction);
        if held.bytes > 0 {
            self.transaction_bytes -= held.bytes;
            self.broker.transactions.give_back(held.bytes);
        }
        held
    }
}
