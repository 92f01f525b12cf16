//! Consumers and getters of a connection: what they have settled, and the credit that they give back.

use std::sync::Arc;

use super::Session;
use super::hooks::SourceHooks;
use super::statistics::SourceStats;
use crate::amqp::{ChannelId, Outcome, Outstanding, SourceId};
use crate::metrics::ConnectionStats;
use crate::queue::{Burst, HolderId, Input, ReplyTo, Settlement};
use crate::vhost::QueueRecord;

/// Bytes that may be on their way to a consumer; later consumers of a connection get smaller shares.
pub(super) const CONSUMER_CREDIT_BYTES: usize = 1024 * 1024;
/// The smallest share. Consumers that get no more have [`SHARED_CREDIT_BYTES`] together.
pub(super) const CONSUMER_CREDIT_BYTES_MIN: usize = 16 * 1024;

/// A consumer or getter of this connection.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) channel: ChannelId,
    pub(super) queue: Arc<QueueRecord>,
    pub(super) is_consumer: bool,
    pub(super) no_ack: bool,
    /// Deliveries that the client has not settled.
    pub(super) outstanding: usize,
    /// Settled in this turn, to be told to the queue.
    pub(super) settled: Burst<u64>,
    pub(super) settlement: Settlement,
    /// Bytes delivered since credit was given back.
    pub(super) owed_bytes: usize,
    pub(super) credit_bytes: usize,
    pub(super) stats: Option<SourceStats>,
    pub(super) hooks: SourceHooks,
}

impl Source {
    /// Enough to tell its queue.
    pub(super) fn owes_much(&self) -> bool {
        self.owed_bytes > 0 && self.owed_bytes * 2 >= self.credit_bytes
    }
}

/// Deliveries of a consumer whose queue has ended. The client may settle them late or never, and nobody needs to hear of it, but their tags are
/// known, and so the consumer's number is not given away.
#[derive(Debug)]
pub(super) struct Remains {
    channel: ChannelId,
    outstanding: usize,
}

impl Session {
    pub(super) fn on_settle(&mut self, outcome: Outcome) {
        for index in 0..self.conn.settled().len() {
            let Some(&outstanding) = self.conn.settled().get(index) else { break };
            self.settle(outstanding, outcome);
        }
    }

    /// Notes down that a delivery is settled; its queue is told by [`Self::flush_settled`].
    pub(super) fn settle(&mut self, outstanding: Outstanding, outcome: Outcome) {
        let settlement = match outcome {
            Outcome::Requeue => Settlement::Requeue,
            Outcome::Ack => Settlement::Remove,
            Outcome::Discard => Settlement::Reject,
        };
        let Some(source) = self.sources.get_mut(&outstanding.source) else {
            return self.settle_remains(outstanding.source);
        };
        if source.settlement != settlement && !source.settled.is_empty() {
            post_settled(&self.stats, outstanding.source, source);
        }
        source.settlement = settlement;
        if source.settled.is_empty() {
            self.settling.push(outstanding.source);
        }
        source.settled.push(outstanding.ticket);
        source.outstanding -= 1;
    }

    /// The queue of a source has ended: only the number of what is not settled stays.
    pub(super) fn leave_remains(&mut self, id: SourceId) {
        self.forget_source_if_idle(id);
        let Some(Source { channel, queue, outstanding, .. }) = self.sources.remove(&id) else { return };
        if let Some(state) = self.channels.get_mut(&channel.0)
            && state.getters.get(&queue.number) == Some(&id)
        {
            state.getters.remove(&queue.number);
        }
        self.remains.insert(id, Remains { channel, outstanding });
    }

    #[cold]
    fn settle_remains(&mut self, id: SourceId) {
        let Some(remains) = self.remains.get_mut(&id) else { return };
        remains.outstanding -= 1;
        if remains.outstanding == 0 {
            let channel = remains.channel;
            self.remains.remove(&id);
            if let Some(channel) = self.channels.get_mut(&channel.0) {
                channel.sources.retain(|&source| source != id);
            }
        }
    }

    pub(super) fn flush_settled(&mut self) {
        for id in std::mem::take(&mut self.settling) {
            if let Some(source) = self.sources.get_mut(&id) {
                post_settled(&self.stats, id, source);
                let channel = source.channel;
                self.touch(channel.0);
                self.forget_source_if_idle(id);
            }
        }
    }

    pub(super) fn forget_source_if_idle(&mut self, id: SourceId) {
        let Some(source) = self.sources.get(&id) else { return };
        if source.is_consumer || source.outstanding > 0 {
            return;
        }
        let (channel, queue) = (source.channel, source.queue.number);
        self.sources.remove(&id);
        if let Some(channel) = self.channels.get_mut(&channel.0) {
            channel.sources.retain(|&source| source != id);
            if channel.getters.get(&queue) == Some(&id) {
                channel.getters.remove(&queue);
            }
        }
    }

    /// Gives consumers the credit back that was written to the socket.
    pub(super) fn return_credit(&mut self) {
        for id in std::mem::take(&mut self.owing) {
            if let Some(source) = self.sources.get_mut(&id) {
                let bytes = std::mem::take(&mut source.owed_bytes) as i64;
                let holder = HolderId { connection: self.number, source: id.0 };
                source.queue.handle.post(Input::Credit { holder, bytes });
            }
        }
        let bytes = std::mem::take(&mut self.owed_shared_bytes);
        if bytes > 0 {
            self.shared_credit.give_back(bytes);
            while let Some(source) = self.shared_credit.next_waiting() {
                if let Some(state) = self.sources.get(&SourceId(source)) {
                    let holder = HolderId { connection: self.number, source };
                    state.queue.handle.post(Input::Credit { holder, bytes: 0 });
                }
            }
        }
    }

    pub(super) fn new_source(
        &mut self,
        channel: ChannelId,
        queue: Arc<QueueRecord>,
        is_consumer: bool,
        no_ack: bool,
    ) -> SourceId {
        // Each basic.get that is acked makes a new source, so in a long life the numbers come round.
        while self.is_taken(SourceId(self.next_source)) {
            self.next_source = self.next_source.wrapping_add(1);
        }
        let id = SourceId(self.next_source);
        self.next_source = self.next_source.wrapping_add(1);
        let hooks = self.source_hooks(&queue, !no_ack);
        let source = Source {
            stats: self.source_stats(channel, &queue),
            hooks,
            channel,
            queue,
            is_consumer,
            no_ack,
            outstanding: 0,
            settled: Burst::new(),
            settlement: Settlement::Remove,
            owed_bytes: 0,
            credit_bytes: self.next_share_bytes().max(CONSUMER_CREDIT_BYTES_MIN),
        };
        self.sources.insert(id, source);
        self.channels.entry(channel.0).or_default().sources.push(id);
        id
    }

    fn is_taken(&self, id: SourceId) -> bool {
        self.sources.contains_key(&id) || self.remains.contains_key(&id)
    }

    /// The first gets all, the second half, the third a third: together they have little more than the first.
    pub(super) fn next_share_bytes(&self) -> usize {
        CONSUMER_CREDIT_BYTES / (1 + self.consumer_count)
    }

    pub(super) fn reply_to(&self, channel: ChannelId) -> ReplyTo {
        ReplyTo { outlet: Arc::clone(&self.outlet), channel: channel.0 }
    }

    pub(super) fn holder(&self, source: SourceId) -> HolderId {
        HolderId { connection: self.number, source: source.0 }
    }
}

fn post_settled(connection: &ConnectionStats, id: SourceId, source: &mut Source) {
    if source.settled.is_empty() {
        return;
    }
    let holder = HolderId { connection: connection.number, source: id.0 };
    if let Some(stats) = &source.stats {
        stats.settled(connection, source.settlement, source.settled.len());
    }
    let tickets = std::mem::take(&mut source.settled);
    source.queue.handle.post(Input::Settle { holder, tickets, settlement: source.settlement });
}
