//! Sums over what is there now.

use super::Reader;
use crate::metrics::connections::Gauge;
use crate::metrics::stats::Stat;
use crate::queue::Report;

/// All open channels together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelSums {
    /// Open connections.
    pub connections: u64,
    /// Of these, those with bytes that wait to be written.
    pub unsent_connections: u64,
    /// Open channels.
    pub channels: u64,
    /// Of these, those that have published.
    pub publishers: u64,
    /// Consumers.
    pub consumers: u64,
    gauges: [u64; 10],
}

impl ChannelSums {
    /// The sum of a gauge.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges.get(gauge as usize).copied().unwrap_or(0)
    }
}

/// All queues together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueueSums {
    /// Lengths, bytes and consumers; what a queue counted is not summed here, because the sum would go down with the queue.
    pub report: Report,
    /// How many queues there are.
    pub count: u64,
    /// The mean of queues with consumers.
    pub utilisation: f64,
    /// Bytes that messages take in memory.
    pub memory_bytes: u64,
}

impl Reader<'_> {
    /// Sums over open channels.
    pub fn channel_sums(&self) -> ChannelSums {
        let mut sums = ChannelSums::default();
        for connection in self.live() {
            sums.connections += 1;
            sums.unsent_connections += u64::from(connection.unsent_bytes() > 0);
            for channel in connection.channels() {
                sums.channels += 1;
                sums.publishers += u64::from(channel.message_stats().get(Stat::Publish) > 0);
                for gauge in [
                    Gauge::Unacked,
                    Gauge::Unconfirmed,
                    Gauge::Uncommitted,
                    Gauge::AcksUncommitted,
                    Gauge::Consumers,
                    Gauge::PrefetchCount,
                    Gauge::GlobalPrefetchCount,
                ] {
                    sums.gauges[gauge as usize] += channel.gauge(gauge);
                }
            }
        }
        sums.consumers = sums.gauge(Gauge::Consumers);
        sums
    }

    /// Sums over queues.
    pub fn queue_sums(&self) -> QueueSums {
        let mut sums = QueueSums::default();
        let (mut utilisation, mut with_consumers) = (0.0, 0_u64);
        for queue in self.broker.vhosts.list().iter().flat_map(|vhost| vhost.queues()) {
            let (Some(report), Some(stats)) = (queue.handle.report(), queue.handle.stats()) else { continue };
            sums.count += 1;
            if report.consumers > 0 {
                with_consumers += 1;
                utilisation += stats.history(|history| history.utilisation(&report));
            }
            let sum = &mut sums.report;
            sum.ready += report.ready;
            sum.unacked += report.unacked;
            sum.ready_bytes += report.ready_bytes;
            sum.unacked_bytes += report.unacked_bytes;
            sum.ready_ram += report.ready_ram;
            sum.unacked_ram += report.unacked_ram;
            sum.ram_bytes += report.ram_bytes;
            sum.persistent += report.persistent;
            sum.persistent_bytes += report.persistent_bytes;
            sum.memory_bytes += report.memory_bytes;
            sum.consumers += report.consumers;
        }
        sums.memory_bytes = sums.report.memory_bytes;
        sums.utilisation = if with_consumers == 0 { 0.0 } else { utilisation / with_consumers as f64 };
        sums
    }
}
