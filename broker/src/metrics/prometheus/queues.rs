//! Queues: sums of all, or a series for each.

use std::sync::Arc;

use super::Reader;
use super::text::{Kind, Page, Value, labels};
use crate::metrics::Total;
use crate::metrics::stats::Stat;
use crate::queue::Report;
use crate::vhost::QueueRecord;

/// A queue on its way to the page.
#[derive(Debug)]
pub(super) struct QueueLine {
    /// vhost and queue.
    pub(super) labels: String,
    pub(super) report: Report,
    pub(super) utilisation: f64,
    pub(super) record: Arc<QueueRecord>,
}

type Pick = fn(&Report, f64) -> Value;

/// A family of queues.
pub(super) struct Column {
    pub(super) name: &'static str,
    kind: Kind,
    help: &'static str,
    pick: Pick,
}

const fn gauge(name: &'static str, help: &'static str, pick: Pick) -> Column {
    Column { name, kind: Kind::Gauge, help, pick }
}

const fn counter(name: &'static str, help: &'static str, pick: Pick) -> Column {
    Column { name, kind: Kind::Counter, help, pick }
}

/// `queue_coarse_metrics`.
pub(super) const COARSE: [Column; 3] = [
    gauge("queue_messages_ready", "Messages that wait for a consumer.", |q, _| q.ready.into()),
    gauge("queue_messages_unacked", "Messages that wait for their ack.", |q, _| q.unacked.into()),
    gauge("queue_messages", "Messages, ready and unacked.", |q, _| (q.ready + q.unacked).into()),
];

/// `queue_consumer_count`.
pub(super) const CONSUMERS: [Column; 1] = [gauge("queue_consumers", "Consumers.", |q, _| q.consumers.into())];

/// `queue_metrics` without what the other families have.
pub(super) const REST: [Column; 12] = [
    gauge(
        "queue_consumer_capacity",
        "Share of the time in which consumers could be served at once.",
        |_, utilisation| utilisation.into(),
    ),
    gauge("queue_consumer_utilisation", "The same as queue_consumer_capacity.", |_, utilisation| utilisation.into()),
    gauge("queue_messages_bytes", "Bytes of bodies, ready and unacked.", |q, _| {
        (q.ready_bytes + q.unacked_bytes).into()
    }),
    gauge("queue_messages_ready_bytes", "Bytes of ready bodies.", |q, _| q.ready_bytes.into()),
    gauge("queue_messages_unacked_bytes", "Bytes of unacked bodies.", |q, _| q.unacked_bytes.into()),
    gauge("queue_messages_ram", "Messages in memory.", |q, _| (q.ready_ram + q.unacked_ram).into()),
    gauge("queue_messages_ram_bytes", "Bytes of bodies in memory.", |q, _| q.ram_bytes.into()),
    gauge("queue_messages_ready_ram", "Ready messages in memory.", |q, _| q.ready_ram.into()),
    gauge("queue_messages_unacked_ram", "Unacked messages in memory.", |q, _| q.unacked_ram.into()),
    gauge("queue_messages_persistent", "Messages that survive a restart.", |q, _| q.persistent.into()),
    gauge("queue_messages_persistent_bytes", "Bytes of bodies that survive a restart.", |q, _| {
        q.persistent_bytes.into()
    }),
    gauge("queue_process_memory_bytes", "Bytes that messages take in memory.", |q, _| q.memory_bytes.into()),
];

/// What comes to a queue, whatever channel and exchange it comes through.
const PUBLISHED: [Column; 1] =
    [counter("queue_messages_published_total", "Messages that came to the queue.", |q, _| {
        q.stats.get(Stat::Publish).into()
    })];

/// `queue_delivery_metrics`.
pub(super) const DELIVERY: [Column; 7] = [
    counter("queue_get_total", "Messages fetched by basic.get without acks.", |q, _| {
        q.stats.get(Stat::GetNoAck).into()
    }),
    counter("queue_get_ack_total", "Messages fetched by basic.get with acks.", |q, _| q.stats.get(Stat::Get).into()),
    counter("queue_messages_delivered_total", "Messages consumed without acks.", |q, _| {
        q.stats.get(Stat::DeliverNoAck).into()
    }),
    counter("queue_messages_delivered_ack_total", "Messages consumed with acks.", |q, _| {
        q.stats.get(Stat::Deliver).into()
    }),
    counter("queue_messages_redelivered_total", "Messages handed out again.", |q, _| {
        q.stats.get(Stat::Redeliver).into()
    }),
    counter("queue_messages_acked_total", "Messages acknowledged.", |q, _| q.stats.get(Stat::Ack).into()),
    counter("queue_get_empty_total", "basic.get that found nothing.", |q, _| q.stats.get(Stat::GetEmpty).into()),
];

/// All queues that a vhost filter and a name's filter let through.
pub(super) fn lines(
    reader: &Reader<'_>,
    is_wanted: impl Fn(&str) -> bool,
    is_named: impl Fn(&str) -> bool,
) -> Vec<QueueLine> {
    let mut lines = Vec::new();
    for vhost in reader.broker().vhosts.list() {
        if !is_wanted(&vhost.name) {
            continue;
        }
        for record in vhost.queues().into_iter().filter(|record| is_named(&record.name)) {
            let (Some(report), Some(stats)) = (record.handle.report(), record.handle.stats()) else { continue };
            let utilisation = stats.history(|history| history.utilisation(&report));
            let labels = labels(&[("vhost", &vhost.name), ("queue", &record.name)]);
            lines.push(QueueLine { labels, report, utilisation, record });
        }
    }
    lines
}

/// A family of each column, a series of each queue.
pub(super) fn write_columns(page: &mut Page, columns: &[Column], lines: &[QueueLine]) {
    for column in columns {
        page.family(column.name, column.kind, column.help);
        for line in lines {
            page.series(&line.labels, (column.pick)(&line.report, line.utilisation));
        }
    }
}

pub(super) fn write_each(page: &mut Page, reader: &Reader<'_>) {
    let lines = lines(reader, |_| true, |_| true);
    for columns in [&COARSE[..], &CONSUMERS[..], &REST[..], &PUBLISHED[..], &DELIVERY[..]] {
        write_columns(page, columns, &lines);
    }
    write_head_timestamps(page, &lines);
    write_info(page, &lines);
    page.single("queues", Kind::Gauge, "Queues.", lines.len());
    write_disk_counters(page, reader);
}

pub(super) fn write_head_timestamps(page: &mut Page, lines: &[QueueLine]) {
    page.family("queue_head_message_timestamp", Kind::Gauge, "Timestamp property of the first message, in seconds.");
    for line in lines {
        if let Some(timestamp) = line.report.head_timestamp {
            page.series(&line.labels, timestamp);
        }
    }
}

pub(super) fn write_info(page: &mut Page, lines: &[QueueLine]) {
    page.family("queue_info", Kind::Gauge, "A queue with its type.");
    for line in lines {
        let kind = if line.record.is_quorum() { "rabbit_quorum_queue" } else { "rabbit_classic_queue" };
        page.series(&format!("{},queue_type=\"{kind}\",membership=\"leader\"", line.labels), 1_u64);
    }
}

/// Of the node; nobody counts them for each queue.
fn write_disk_counters(page: &mut Page, reader: &Reader<'_>) {
    let counters = reader.broker().committer.counters();
    let loaded = counters.loaded.load(std::sync::atomic::Ordering::Relaxed);
    page.single("queue_disk_reads_total", Kind::Counter, "Messages read from the store.", loaded);
    page.single("queue_disk_writes_total", Kind::Counter, "Messages written to the store.", counters.stored());
}

/// Sums over all queues; counters are those of all connections that ever were. The capacity is the mean of queues with consumers.
pub(super) fn write_sums(page: &mut Page, reader: &Reader<'_>) {
    let sums = reader.queue_sums();
    let mut stats = reader.sums().node.message_stats();
    stats = stats.with(Stat::Publish, reader.sums().node.get(Total::Routed));
    let report = Report { stats, ..sums.report };
    for columns in [&COARSE[..], &CONSUMERS[..], &REST[..], &PUBLISHED[..], &DELIVERY[..]] {
        for column in columns {
            page.single(column.name, column.kind, column.help, (column.pick)(&report, sums.utilisation));
        }
    }
    page.single("queues", Kind::Gauge, "Queues.", sums.count);
    write_disk_counters(page, reader);
}
