//! Connections and channels: sums of all, or series for each.

use std::sync::Arc;

use super::Reader;
use super::text::{Kind, Page, labels};
use crate::metrics::connections::{ChannelStats, ConnectionStats, Gauge, channel_name};
use crate::metrics::stats::{Stat, Total};

/// `channel_metrics`.
const CHANNEL_GAUGES: [(&str, Gauge, &str); 7] = [
    ("channel_consumers", Gauge::Consumers, "Consumers of the channel."),
    ("channel_messages_unacked", Gauge::Unacked, "Deliveries that wait for their ack."),
    ("channel_messages_unconfirmed", Gauge::Unconfirmed, "Publishes that wait for their confirm."),
    ("channel_messages_uncommitted", Gauge::Uncommitted, "Publishes that wait for tx.commit."),
    ("channel_acks_uncommitted", Gauge::AcksUncommitted, "Settlements that wait for tx.commit."),
    ("consumer_prefetch", Gauge::PrefetchCount, "Prefetch count of new consumers of the channel."),
    ("channel_prefetch", Gauge::GlobalPrefetchCount, "Prefetch count of all consumers of the channel together."),
];

/// `channel_exchange_metrics`, in the order of [`Stat::OF_PUBLISHING`].
const PUBLISHING: [(&str, Stat, &str); 4] = [
    ("channel_messages_published_total", Stat::Publish, "Messages published."),
    ("channel_messages_confirmed_total", Stat::Confirm, "Messages published and confirmed."),
    ("channel_messages_unroutable_returned_total", Stat::ReturnUnroutable, "Messages returned as unroutable."),
    ("channel_messages_unroutable_dropped_total", Stat::DropUnroutable, "Messages dropped as unroutable."),
];

/// `channel_queue_metrics`.
const DELIVERY: [(&str, Stat, &str); 7] = [
    ("channel_get_total", Stat::GetNoAck, "Messages fetched by basic.get without acks."),
    ("channel_get_ack_total", Stat::Get, "Messages fetched by basic.get with acks."),
    ("channel_messages_delivered_total", Stat::DeliverNoAck, "Messages consumed without acks."),
    ("channel_messages_delivered_ack_total", Stat::Deliver, "Messages consumed with acks."),
    ("channel_messages_redelivered_total", Stat::Redeliver, "Messages handed out again."),
    ("channel_messages_acked_total", Stat::Ack, "Messages acknowledged."),
    ("channel_get_empty_total", Stat::GetEmpty, "basic.get that found nothing."),
];

/// `connection_coarse_metrics`, then `connection_metrics`.
const TRAFFIC: [(&str, Total, &str); 4] = [
    ("connection_incoming_bytes_total", Total::ReceivedBytes, "Bytes received from clients."),
    ("connection_outgoing_bytes_total", Total::SentBytes, "Bytes sent to clients."),
    ("connection_incoming_packets_total", Total::Reads, "Reads from sockets of clients."),
    ("connection_outgoing_packets_total", Total::Writes, "Writes to sockets of clients."),
];

/// Sums over everything that is open; counters are those of all connections that ever were.
pub(super) fn write_sums(page: &mut Page, reader: &Reader<'_>) {
    let sums = reader.sums().node;
    let open = reader.channel_sums();
    let stats = sums.message_stats();
    page.single("connections", Kind::Gauge, "Open connections.", open.connections);
    page.single("channels", Kind::Gauge, "Open channels.", open.channels);
    page.single("consumers", Kind::Gauge, "Consumers.", open.consumers);
    for (name, gauge, help) in CHANNEL_GAUGES {
        page.single(name, Kind::Gauge, help, open.gauge(gauge));
    }
    for (name, stat, help) in PUBLISHING.into_iter().chain(DELIVERY) {
        page.single(name, Kind::Counter, help, stats.get(stat));
    }
    for (name, total, help) in TRAFFIC {
        page.single(name, Kind::Counter, help, sums.get(total));
    }
    page.single("connection_channels", Kind::Gauge, "Channels of connections.", open.channels);
    page.single("connection_pending_packets", Kind::Gauge, PENDING, open.unsent_connections);
}

const PENDING: &str = "Connections with bytes that wait to be written.";

/// A series for each.
pub(super) fn write_each(page: &mut Page, reader: &Reader<'_>) {
    let open = reader.channel_sums();
    page.single("connections", Kind::Gauge, "Open connections.", open.connections);
    page.single("channels", Kind::Gauge, "Open channels.", open.channels);
    page.single("consumers", Kind::Gauge, "Consumers.", open.consumers);
    let channels = channels(reader);
    write_channels(page, &channels);
    write_counters(page, &channels, By::Channel);
    write_traffic(page, reader);
    write_connections(page, reader);
}

/// A channel with its vhost and its label.
pub(super) struct ChannelLine {
    stats: Arc<ChannelStats>,
    vhost: Arc<str>,
    labels: String,
    name: String,
}

pub(super) fn channels(reader: &Reader<'_>) -> Vec<ChannelLine> {
    let mut lines = Vec::new();
    for connection in reader.live() {
        let Some(opened) = connection.opened() else { continue };
        for stats in connection.channels() {
            let name = channel_name(connection, stats.number);
            let labels = labels(&[("channel", &name)]);
            lines.push(ChannelLine { stats, vhost: Arc::clone(&opened.vhost), labels, name });
        }
    }
    lines
}

pub(super) fn write_channels(page: &mut Page, channels: &[ChannelLine]) {
    for (name, gauge, help) in CHANNEL_GAUGES {
        page.family(name, Kind::Gauge, help);
        for channel in channels {
            page.series(&channel.labels, channel.stats.gauge(gauge));
        }
    }
}

/// What counters of channels are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The channel, and the exchange or queue.
    Channel,
    /// Only those of publishing.
    Exchange,
    /// Only those of delivery.
    Queue,
}

/// Counters of channels, told apart by what they publish to and get from.
pub(super) fn write_counters(page: &mut Page, channels: &[ChannelLine], by: By) {
    if by != By::Queue {
        let rows: Vec<(String, [u64; 4])> = channels
            .iter()
            .flat_map(|channel| {
                channel.stats.to_exchanges().into_iter().map(|to| {
                    let pairs = [("channel", &*channel.name), ("vhost", &*channel.vhost), ("exchange", &*to.name)];
                    (labels(&pairs), to.get(0).0)
                })
            })
            .collect();
        for (at, (name, _, help)) in PUBLISHING.into_iter().enumerate() {
            page.family(name, Kind::Counter, help);
            rows.iter().for_each(|(labels, row)| page.series(labels, row.get(at).copied().unwrap_or(0)));
        }
    }
    if by != By::Exchange {
        let rows: Vec<(String, [u64; 7])> = channels
            .iter()
            .flat_map(|channel| {
                channel.stats.from_queues().into_iter().map(|from| {
                    let pairs = [("channel", &*channel.name), ("vhost", &*channel.vhost), ("queue", &*from.name)];
                    (labels(&pairs), from.get(0).0)
                })
            })
            .collect();
        for (name, stat, help) in DELIVERY {
            page.family(name, Kind::Counter, help);
            let at = stat as usize - Stat::Deliver as usize;
            rows.iter().for_each(|(labels, row)| page.series(labels, row.get(at).copied().unwrap_or(0)));
        }
    }
}

fn connection_label(connection: &ConnectionStats) -> String {
    labels(&[("channel", connection.opened().map_or("", |opened| &*opened.name))])
}

/// `connection_coarse_metrics`.
pub(super) fn write_traffic(page: &mut Page, reader: &Reader<'_>) {
    let rows: Vec<_> = reader.live().iter().map(|stats| (connection_label(stats), stats.totals())).collect();
    for (name, total, help) in TRAFFIC.into_iter().take(2) {
        page.family(name, Kind::Counter, help);
        rows.iter().for_each(|(labels, totals)| page.series(labels, totals.get(total)));
    }
}

/// `connection_metrics`.
pub(super) fn write_connections(page: &mut Page, reader: &Reader<'_>) {
    let rows: Vec<_> = reader.live().iter().map(|stats| (connection_label(stats), stats)).collect();
    for (name, total, help) in TRAFFIC.into_iter().skip(2) {
        page.family(name, Kind::Counter, help);
        rows.iter().for_each(|(labels, stats)| page.series(labels, stats.totals().get(total)));
    }
    page.family("connection_channels", Kind::Gauge, "Channels of the connection.");
    rows.iter().for_each(|(labels, stats)| page.series(labels, stats.channel_count()));
    page.family("connection_pending_packets", Kind::Gauge, PENDING);
    rows.iter().for_each(|(labels, stats)| page.series(labels, u64::from(stats.unsent_bytes() > 0)));
}
