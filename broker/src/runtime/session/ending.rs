//! The end of a channel, of the connection, or of both because the socket is gone.
//!
//! Consumers and unacked messages go back to their queues first, and only when every queue has said so does the client hear of the end
//! (semantics 3.14, 5.19, 7.4, 13.23).

use std::time::Instant;

use super::Session;
use crate::amqp::{ChannelId, ProtocolError, ReplyCode, Scope, SourceId};
use crate::queue::{Input, Reply};

/// An end under way.
#[derive(Debug)]
pub(super) struct Ending {
    /// Queues that have not answered.
    missing: usize,
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
        let missing = self.detach(channel);
        let state = self.channels.entry(channel.0).or_default();
        if state.pending.take().is_some() {
            self.pending_count -= 1;
        }
        state.ending = Some(Ending { missing, error });
        if missing == 0 {
            self.finish_channel(channel);
        }
    }

    /// Asks every queue to take back what the channel holds; returns how many will answer.
    fn detach(&mut self, channel: ChannelId) -> usize {
        let sources: Vec<SourceId> =
            self.channels.get_mut(&channel.0).map(|state| std::mem::take(&mut state.sources)).unwrap_or_default();
        for &id in &sources {
            let Some(source) = self.sources.remove(&id) else { continue };
            self.consumer_count -= usize::from(source.is_consumer);
            let input = Input::Detach { holder: self.holder(id), reply_to: self.reply_to(channel) };
            source.queue.handle.post(input);
        }
        sources.len()
    }

    fn finish_channel(&mut self, channel: ChannelId) {
        let Some(ending) = self.channels.remove(&channel.0).and_then(|state| state.ending) else { return };
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
        self.ending = Some(Ending { missing, error });
        if missing == 0 {
            self.finish_connection(now);
        }
    }

    /// Gives everything back and deletes exclusive queues; returns how many queues will answer.
    fn let_go(&mut self) -> usize {
        self.flush_publishes();
        self.flush_settled();
        let mut channels: Vec<u16> = self.channels.keys().copied().collect();
        // A map has another order in each run; a simulation of the same seed must not.
        channels.sort_unstable();
        let mut missing = 0;
        for channel in channels {
            missing += self.detach(ChannelId(channel));
            // A channel that was ending already waits for answers of its own; they count for the connection now.
            if let Some(ending) = self.channels.get_mut(&channel).and_then(|state| state.ending.take()) {
                missing += ending.missing;
            }
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
        self.pending_count = 0;
        match ending.error {
            Some(error) => self.conn.close(now, &error),
            None => {
                tracing::info!(connection = self.number, peer = %self.peer, "connection closed");
                self.conn.close_ok();
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
        if matches!(reply, Reply::Detached) {
            ending.missing = ending.missing.saturating_sub(1);
            if ending.missing == 0 {
                self.finish_channel(channel);
            }
        }
        true
    }

    /// The broker ends the connection (semantics 5.20).
    pub(super) fn on_forced_close(&mut self, now: Instant, reason: String) {
        if self.conn.is_open() {
            self.end_connection(now, Some(ProtocolError::new(ReplyCode::ConnectionForced, reason)));
        } else if self.conn.is_in_handshake() {
            self.conn.refuse_silently(now);
        }
    }

    /// The socket is gone: the same clean-up, without frames (semantics 3.17).
    pub fn abandon(&mut self) {
        self.mailbox.close();
        self.let_go();
        self.sources.clear();
        self.channels.clear();
        self.broker.forget(self.number);
    }
}
