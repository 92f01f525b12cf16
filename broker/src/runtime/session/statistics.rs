//! What a session counts for its connection, its channels and what they publish to and get from.
//!
//! Everything is counted in batches: publishes when they are flushed, deliveries when a notice is carried out, acks when queues are told,
//! gauges at the end of a turn for the channels that did something in it.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use crate::amqp::ChannelId;
use crate::amqp::connection::Confirmed;
use crate::metrics::connections::{ConsumerFacts, FromQueue, Gauge, Opened};
use crate::metrics::{ChannelStats, ConnectionStats, Stat, Total};
use crate::queue::Settlement;
use crate::routing::Exchange;
use crate::vhost::QueueRecord;

/// Where a source counts.
#[derive(Debug)]
pub(super) struct SourceStats {
    channel: Arc<ChannelStats>,
    queue: Arc<FromQueue>,
    is_quorum: bool,
}

impl SourceStats {
    pub(super) fn add(&self, connection: &ConnectionStats, stat: Stat, amount: u64) {
        if amount > 0 {
            self.queue.add(stat, amount);
            self.channel.add(stat, amount);
            connection.add(Total::Delivery(usize::from(self.is_quorum), stat), amount);
        }
    }

    /// A queue is told of so many settled deliveries.
    pub(super) fn settled(&self, connection: &ConnectionStats, settlement: Settlement, count: usize) {
        if settlement == Settlement::Remove {
            self.add(connection, Stat::Ack, count as u64);
        }
    }
}

/// The place of an exchange among those that a channel counts for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConfirmSource {
    channel: u16,
    exchange: u64,
    place: u16,
}

impl Session {
    /// The connection is open: from now on it is seen.
    pub(super) fn open_statistics(&mut self, now: Instant) {
        let (Some(actor), Some(vhost)) = (&self.actor, &self.vhost) else { return };
        let client = self.conn.client();
        let tuned = self.conn.tuned();
        let connected_at_ms = self.broker.clock.wall_ms();
        self.clock_base = (now, connected_at_ms);
        let opened = Opened {
            name: self.name.as_str().into(),
            peer: self.peer,
            local: self.local,
            user: actor.name().into(),
            vhost: Arc::clone(&vhost.name),
            auth_mechanism: self.mechanism.as_str().into(),
            client_properties: client.properties.clone(),
            client_name: client.connection_name.as_deref().map(Arc::from),
            connected_at_ms,
            channel_max: tuned.channel_max,
            frame_max: tuned.frame_max_bytes,
            timeout_secs: tuned.heartbeat_secs,
            tls: self.secured.as_ref().map(|secured| secured.facts.clone()),
        };
        self.broker.metrics.connections.open(&self.stats, opened);
    }

    /// Wall-clock time without asking the clock again.
    fn wall_ms(&self, now: Instant) -> u64 {
        let (base, base_ms) = self.clock_base;
        base_ms + u64::try_from(now.saturating_duration_since(base).as_millis()).unwrap_or(0)
    }

    pub(super) fn open_channel_statistics(&mut self, now: Instant, channel: ChannelId) {
        let now_ms = self.wall_ms(now);
        let stats = self.broker.metrics.connections.open_channel(&self.stats, channel.0, now_ms);
        self.channels.entry(channel.0).or_default().stats = Some(stats);
    }

    /// So many bytes came from the socket by one read.
    pub fn count_read(&self, bytes: usize) {
        self.stats.add(Total::ReceivedBytes, bytes as u64);
        self.stats.add(Total::Reads, 1);
        self.broker.quiet.stir();
    }

    /// So many bytes went to the socket by one write.
    pub fn count_written(&self, bytes: usize) {
        self.stats.add(Total::SentBytes, bytes as u64);
        self.stats.add(Total::Writes, 1);
    }

    /// The channel did something.
    #[inline]
    pub(super) fn touch(&mut self, channel: u16) {
        if self.touched.last() != Some(&channel) {
            self.touched.push(channel);
        }
    }

    /// Counts what was published in this turn.
    pub(super) fn count_publishes(&mut self) {
        let stats = &self.stats;
        let body_bytes = self.conn.sizes().take(|class, count| stats.add(Total::Size(class), count));
        self.stats.add(Total::BodyBytes, body_bytes);
        for (exchange, counts) in self.publisher.take_counts() {
            self.stats.add(Total::Received, counts.received);
            self.stats.add(Total::ReceivedConfirm, counts.confirming);
            self.stats.add(Total::Routed, counts.copies);
            exchange.stats.received(counts.received);
            self.touch(counts.channel);
            let Some(channel) = self.channel_stats(counts.channel) else { continue };
            channel.add(Stat::Publish, counts.received);
            if let Some((_, to_exchange)) = channel.to_exchange(&exchange.name, exchange.number) {
                to_exchange.add(Stat::Publish, counts.received);
            }
        }
    }

    /// No queue took a message; it went back, or nowhere.
    pub(super) fn count_unroutable(&mut self, exchange: &Arc<Exchange>, channel: u16, is_returned: bool) {
        let (total, stat) = match is_returned {
            true => (Total::UnroutableReturned, Stat::ReturnUnroutable),
            false => (Total::UnroutableDropped, Stat::DropUnroutable),
        };
        self.stats.add(total, 1);
        exchange.stats.unroutable(is_returned);
        let Some(channel) = self.channel_stats(channel) else { return };
        channel.add(stat, 1);
        if let Some((_, to_exchange)) = channel.to_exchange(&exchange.name, exchange.number) {
            to_exchange.add(stat, 1);
        }
    }

    /// What comes back with the confirm of a publish that was just routed, to tell which exchange it is counted for.
    #[inline]
    pub(super) fn confirm_source(&mut self, channel: u16) -> u16 {
        let Some(exchange) = self.publisher.last_exchange() else { return NO_PLACE };
        let known = self.confirm_source;
        if known.channel == channel && known.exchange == exchange.number {
            return known.place;
        }
        let stats = self.channels.get(&channel).and_then(|state| state.stats.as_ref());
        let to_exchange = stats.and_then(|stats| stats.to_exchange(&exchange.name, exchange.number));
        let place = to_exchange.map_or(NO_PLACE, |(place, _)| place);
        self.confirm_source = ConfirmSource { channel, exchange: exchange.number, place };
        place
    }

    /// The channel's number is free again, and its places mean nothing.
    pub(super) fn forget_confirm_source(&mut self, channel: u16) {
        if self.confirm_source.channel == channel {
            self.confirm_source = ConfirmSource::default();
        }
    }

    /// Counts the publishes that were confirmed.
    pub(super) fn count_confirms(&mut self) {
        for Confirmed { channel, source, count } in self.conn.take_confirmed() {
            self.stats.add(Total::Confirmed, count);
            self.touch(channel.0);
            let Some(channel) = self.channel_stats(channel.0) else { continue };
            channel.add(Stat::Confirm, count);
            let Some(to_exchange) = channel.exchange_at(source) else { continue };
            to_exchange.add(Stat::Confirm, count);
            let exchange = self.vhost.as_ref().and_then(|vhost| vhost.exchange(&to_exchange.name));
            if let Some(exchange) = exchange.filter(|exchange| exchange.number == to_exchange.number) {
                exchange.stats.confirmed(count);
            }
        }
    }

    /// Where a new source counts.
    pub(super) fn source_stats(&self, channel: ChannelId, queue: &QueueRecord) -> Option<SourceStats> {
        let channel = self.channel_stats(channel.0)?;
        let queue_stats = channel.from_queue(&queue.name, queue.number);
        Some(SourceStats { channel, queue: queue_stats, is_quorum: queue.is_quorum() })
    }

    /// A consumer is registered.
    pub(super) fn add_consumer_statistics(&mut self, channel: ChannelId, consumer: ConsumerFacts) {
        self.touch(channel.0);
        if let Some(stats) = self.channel_stats(channel.0) {
            stats.add_consumer(consumer);
        }
    }

    /// A consumer is gone.
    pub(super) fn remove_consumer_statistics(&mut self, channel: ChannelId, source: u32) {
        self.touch(channel.0);
        if let Some(stats) = self.channel_stats(channel.0) {
            stats.remove_consumer(source);
        }
    }

    fn channel_stats(&self, channel: u16) -> Option<Arc<ChannelStats>> {
        self.channels.get(&channel)?.stats.clone()
    }

    /// Shows how channels stand that did something in this turn.
    pub(super) fn show_gauges(&mut self, now: Instant) {
        let is_out_of_credit = self.mailbox.is_out_of_credit();
        if is_out_of_credit && !std::mem::replace(&mut self.was_out_of_credit, is_out_of_credit) {
            self.stats.add(Total::CreditStops, 1);
        }
        self.was_out_of_credit = is_out_of_credit;
        self.show_state();
        if self.touched.is_empty() {
            return;
        }
        let now_ms = self.wall_ms(now);
        self.touched.sort_unstable();
        self.touched.dedup();
        for channel in &self.touched {
            let Some(state) = self.channels.get(channel) else { continue };
            let (Some(stats), Some(gauges)) = (&state.stats, self.conn.channel_gauges(ChannelId(*channel))) else {
                continue;
            };
            let global_prefetch = state.limit.as_ref().map_or(0, |limit| limit.max());
            let values = [
                (Gauge::Unacked, gauges.unacked),
                (Gauge::Unconfirmed, gauges.unconfirmed),
                (Gauge::Uncommitted, state.transaction.len()),
                (Gauge::AcksUncommitted, gauges.acks_uncommitted),
                (Gauge::Consumers, gauges.consumers),
                (Gauge::PrefetchCount, usize::from(state.prefetch_count)),
                (Gauge::GlobalPrefetchCount, global_prefetch),
                (Gauge::IsConfirm, usize::from(gauges.is_confirm)),
                (Gauge::IsTransactional, usize::from(gauges.is_transactional)),
            ];
            values.into_iter().for_each(|(gauge, value)| stats.set(gauge, value as u64));
            stats.set(Gauge::ActiveMs, now_ms);
        }
        self.touched.clear();
    }

    /// Shows what waits to be written, and whether an alarm keeps the socket unread.
    pub(super) fn show_state(&self) {
        self.stats.set_state(self.conn.unsent_bytes(), self.conn.is_blocked());
    }
}

/// No exchange is counted for.
const NO_PLACE: u16 = u16::MAX;
