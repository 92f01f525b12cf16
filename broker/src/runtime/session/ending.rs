//! The end of a channel, of the connection, or of both because the socket is gone.
//!
//! Consumers and unacked messages go back to their queues first, and only when every queue has said so does the client hear of the end
//! (semantics 3.14, 5.19, 7.4, 13.23).

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;

use super::Session;
use crate::amqp::{ChannelId, ProtocolError, ReplyCode, Scope, SourceId};
use crate::queue::{HolderId, Input, Reply};
use crate::vhost::QueueRecord;

/// An end under way.
#[derive(Debug)]
pub(super) struct Ending {
    /// Queues that have not answered.
    missing: usize,
    /// A request of the channel is still to be answered. The channel's number must not be free before: answers carry nothing else, and
    /// this one would be taken for that of a new channel.
    is_answer_due: bool,
    /// What the client is told; none when it asked for the end itself.
    error: Option<ProtocolError>,
}

impl Session {
    /// Ends the channel or connection over an error.
    pub(super) fn fail(&mut self, now: Instant, channel: ChannelId, error: ProtocolError) {
        if error.code.scope() == Scope::Channel && channel.0 != 0 {
            tracing::info!(connection = self.number, peer = %self.peer, channel = channel.0, error = %error, "closing channel");
            self.conn.stop_failed_channel(channel);
            self.end_channel(channel, Some(error));
        } else {
            tracing::warn!(connection = self.number, peer = %self.peer, channel = channel.0, error = %error, "closing connection");
            self.end_connection(now, Some(error));
        }
    }

    pub(super) fn end_channel(&mut self, channel: ChannelId, error: Option<ProtocolError>) {
        self.flush_publishes();
        self.flush_settled();
        let missing = self.detach(channel, &[channel]);
        let state = self.channels.entry(channel.0).or_default();
        state.deferred = None;
        let is_answer_due = state.pending.take().is_some();
        self.pending_count -= usize::from(is_answer_due);
        state.ending = Some(Ending { missing, is_answer_due, error });
        self.finish_channel(channel);
    }

    /// Asks every queue to take back what the channels hold; returns how many will answer, to channel `answers`.
    fn detach(&mut self, answers: ChannelId, channels: &[ChannelId]) -> usize {
        let mut queues: Vec<(Arc<QueueRecord>, Vec<HolderId>)> = Vec::new();
        let mut place_of: HashMap<u64, usize> = HashMap::new();
        for channel in channels {
            self.drop_transaction(*channel);
            let consumer_count = self.tell_consumers_deleted(*channel);
            let Some(state) = self.channels.get_mut(&channel.0) else { continue };
            let is_told = std::mem::replace(&mut state.is_told, true);
            let sources = std::mem::take(&mut state.sources);
            if !is_told {
                self.tell_channel_closed(*channel, consumer_count);
            }
            for id in sources {
                let Some(source) = self.sources.remove(&id) else {
                    self.remains.remove(&id);
                    continue;
                };
                self.consumer_count -= usize::from(source.is_consumer);
                let place = *place_of.entry(source.queue.number).or_insert_with(|| {
                    queues.push((source.queue, Vec::new()));
                    queues.len() - 1
                });
                queues[place].1.push(HolderId { connection: self.number, source: id.0 });
            }
        }
        let count = queues.len();
        for (queue, holders) in queues {
            queue.handle.post(Input::Detach { holders, reply_to: self.reply_to(answers) });
        }
        count
    }

    /// Ends the channel if everything has been answered.
    fn finish_channel(&mut self, channel: ChannelId) {
        let ending = self.channels.get(&channel.0).and_then(|state| state.ending.as_ref());
        if ending.is_none_or(|ending| ending.missing > 0 || ending.is_answer_due) {
            return;
        }
        let Some(state) = self.channels.remove(&channel.0) else { return };
        self.broker.metrics.connections.close_channel(&self.stats, channel.0);
        self.forget_confirm_source(channel.0);
        if state.is_counted {
            self.broker.census.close_channel(self.number);
        }
        let Some(ending) = state.ending else { return };
        match ending.error {
            Some(error) => self.conn.close_channel(channel, &error),
            None => self.conn.close_channel_ok(channel),
        }
    }

    pub(super) fn end_connection(&mut self, now: Instant, error: Option<ProtocolError>) {
        if self.ending.is_some() {
            return;
        }
        self.conn.stop();
        let missing = self.let_go();
        // No channel of a connection that ends is opened again.
        self.ending = Some(Ending { missing, is_answer_due: false, error });
        if missing == 0 {
            self.finish_connection(now);
        }
    }

    /// Gives everything back and deletes exclusive queues; returns how many queues will answer.
    fn let_go(&mut self) -> usize {
        self.flush_publishes();
        self.flush_settled();
        let mut channels: Vec<ChannelId> = self.channels.keys().copied().map(ChannelId).collect();
        channels.sort_unstable_by_key(|channel| channel.0);
        let mut missing = self.detach(ChannelId(0), &channels);
        // A channel that was ending already waits for answers of its own; they count for the connection now.
        for ending in self.channels.values_mut().filter_map(|state| state.ending.take()) {
            missing += ending.missing;
        }
        let reply_to = self.reply_to(ChannelId(0));
        for queue in self.exclusive_queues.take() {
            let reply_to = Some(reply_to.clone());
            queue.handle.post(Input::Delete { if_unused: false, if_empty: false, reply_to });
            missing += 1;
        }
        missing
    }

    fn finish_connection(&mut self, now: Instant) {
        let Some(ending) = self.ending.take() else { return };
        self.channels.clear();
        self.tell_connection_closed();
        self.pending_count = 0;
        self.broker.metrics.connections.close(&self.stats);
        // Who hears of the end may come again at once.
        self.broker.census.leave(self.number);
        match ending.error {
            Some(error) => self.conn.close(now, &error),
            None => {
                tracing::info!(connection = self.number, peer = %self.peer, "connection closed");
                self.conn.close_ok(now);
            }
        }
    }

    /// Counts an answer that an ending waits for; false when it belongs to something else.
    pub(super) fn on_ending_reply(&mut self, now: Instant, channel: ChannelId, reply: &Reply) -> bool {
        let is_end = matches!(reply, Reply::Detached | Reply::Deleted(_) | Reply::Gone);
        if let Some(ending) = &mut self.ending {
            if is_end && (matches!(reply, Reply::Detached) || channel.0 == 0) {
                ending.missing = ending.missing.saturating_sub(1);
                if ending.missing == 0 {
                    self.finish_connection(now);
                }
            }
            return true;
        }
        let Some(ending) = self.channels.get_mut(&channel.0).and_then(|state| state.ending.as_mut()) else {
            return false;
        };
        match reply {
            Reply::Detached => ending.missing = ending.missing.saturating_sub(1),
            _ => ending.is_answer_due = false,
        }
        self.finish_channel(channel);
        true
    }

    /// Something was delivered to the channel too long ago (semantics 13.29).
    pub(super) fn on_delivery_timed_out(&mut self, now: Instant, source: SourceId, timeout_ms: u64) {
        // A channel that has ended has no sources, whatever has been opened under its number since.
        let Some(channel) = self.sources.get(&source).map(|source| source.channel) else { return };
        let text = format!(
            "delivery acknowledgement on channel {} timed out. Timeout value used: {timeout_ms} ms. \
             This timeout value can be configured, see consumers doc guide to learn more",
            channel.0
        );
        self.fail(now, channel, ProtocolError::new(ReplyCode::PreconditionFailed, text));
    }

    /// The broker ends the connection (semantics 5.20).
    pub(super) fn on_forced_close(&mut self, now: Instant, reason: String) {
        if self.conn.is_open() {
            self.end_connection(now, Some(ProtocolError::new(ReplyCode::ConnectionForced, reason)));
        } else if self.conn.is_in_handshake() {
            self.conn.refuse_silently(now);
        } else {
            self.conn.cut_if_closed();
        }
    }

    /// The socket is gone: the same clean-up, without frames (semantics 3.17).
    pub fn abandon(&mut self) {
        self.mailbox.close();
        self.let_go();
        self.tell_connection_closed();
        self.sources.clear();
        self.remains.clear();
        self.channels.clear();
        self.broker.metrics.connections.close(&self.stats);
        self.broker.forget(self.number);
    }
}
