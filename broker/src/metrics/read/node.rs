//! The node, and the overview of everything.

use std::sync::atomic::Ordering::Relaxed;

use super::{MessageFacts, Numbers, Reader};
use crate::metrics::node::{BYTES_AT, GAUGES, LENGTHS_AT};
use crate::metrics::stats::{MessageStats, Total};
use crate::runtime::Broker;
use crate::runtime::process::{self, Process};

/// What came and went since the start: `churn_rates`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Churn {
    /// Connections that were opened.
    ConnectionCreated,
    /// Connections that were closed.
    ConnectionClosed,
    /// Channels that were opened.
    ChannelCreated,
    /// Channels that were closed.
    ChannelClosed,
    /// Declarations of queues.
    QueueDeclared,
    /// Queues that are new.
    QueueCreated,
    /// Queues that are gone.
    QueueDeleted,
}

impl Churn {
    /// All, in their order.
    pub const ALL: [Self; 7] = [
        Self::ConnectionCreated,
        Self::ConnectionClosed,
        Self::ChannelCreated,
        Self::ChannelClosed,
        Self::QueueDeclared,
        Self::QueueCreated,
        Self::QueueDeleted,
    ];

    /// The key in `churn_rates`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectionCreated => "connection_created",
            Self::ConnectionClosed => "connection_closed",
            Self::ChannelCreated => "channel_created",
            Self::ChannelClosed => "channel_closed",
            Self::QueueDeclared => "queue_declared",
            Self::QueueCreated => "queue_created",
            Self::QueueDeleted => "queue_deleted",
        }
    }
}

/// A gauge of the node that has a history, behind those of [`Churn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum NodeGauge {
    /// Resident memory of the process, in bytes.
    MemUsed = Churn::QueueDeleted as usize + 1,
    /// Open files.
    FdUsed,
    /// Connections.
    SocketsUsed,
    /// Free bytes on the file system of the data folder.
    DiskFree,
    /// Threads.
    ProcUsed,
    /// Times that one of them left a processor.
    ContextSwitches,
    /// Messages read back from the store.
    DiskReads,
    /// Messages written to the store.
    DiskWrites,
    /// Reads of files of the store.
    IoReadCount,
    /// Bytes of them.
    IoReadBytes,
    /// Writes to files of the store.
    IoWriteCount,
    /// Bytes of them.
    IoWriteBytes,
    /// Syncs of files of the store.
    IoSyncCount,
}

/// Objects of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectTotals {
    /// Open connections.
    pub connections: usize,
    /// Open channels.
    pub channels: usize,
    /// Exchanges of all vhosts.
    pub exchanges: usize,
    /// Queues of all vhosts.
    pub queues: usize,
    /// Consumers of all queues.
    pub consumers: usize,
}

/// Everything at a glance.
#[derive(Clone, Debug)]
pub struct OverviewFacts {
    /// What all connections counted.
    pub message_stats: MessageFacts,
    /// Messages, ready and unacked, of all queues.
    pub queue_totals: Numbers<3>,
    /// Bytes that all connections received and sent.
    pub bytes: Numbers<2>,
    /// [`Churn`], then [`NodeGauge`].
    pub gauges: Numbers<GAUGES>,
    /// How many objects there are.
    pub object_totals: ObjectTotals,
}

/// The node.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// The process: memory, files, threads.
    pub process: Process,
    /// [`Churn`], then [`NodeGauge`].
    pub gauges: Numbers<GAUGES>,
    /// Bytes of messages in memory, which is what the memory alarm goes by.
    pub message_bytes: u64,
    /// Above this many bytes of messages the memory alarm is raised.
    pub mem_limit: u64,
    /// The memory alarm is raised.
    pub mem_alarm: bool,
    /// Free bytes on the file system of the data folder; none without such a folder.
    pub disk_free: Option<u64>,
    /// Below this many the disk alarm is raised.
    pub disk_free_limit: u64,
    /// The disk alarm is raised.
    pub disk_free_alarm: bool,
    /// Processors that it may use.
    pub processors: usize,
    /// Milliseconds since it began.
    pub uptime_ms: u64,
    /// What a read, a write and a sync of files of the store took on average since then, in milliseconds.
    pub io_mean_ms: [f64; 3],
    /// Tasks that wait for a thread.
    pub waiting_tasks: usize,
}

/// Churn and gauges of now, as a row of the node's history.
pub(crate) fn gauges(broker: &Broker, process: &Process) -> [u64; GAUGES] {
    let [opened, closed, channels_opened, channels_closed, declared, created, deleted] = churn(broker);
    let (status, counters) = (broker.committer.storage_status(), broker.committer.counters());
    let figure = |name| status.figure(name).unwrap_or(0);
    [
        opened,
        closed,
        channels_opened,
        channels_closed,
        declared,
        created,
        deleted,
        process.resident_bytes,
        process.open_fds,
        broker.connection_count() as u64,
        broker.disk().free_bytes.unwrap_or(0),
        process.threads,
        process.context_switches,
        counters.loaded.load(Relaxed),
        counters.stored(),
        figure("reads"),
        figure("read_bytes"),
        figure("writes"),
        figure("written_bytes"),
        figure("syncs"),
    ]
}

fn io_mean_ms(broker: &Broker) -> [f64; 3] {
    let status = broker.committer.storage_status();
    [("read_nanos", "reads"), ("write_nanos", "writes"), ("sync_nanos", "syncs")].map(|(nanos, count)| {
        let (nanos, count) = (status.figure(nanos).unwrap_or(0), status.figure(count).unwrap_or(0));
        if count == 0 { 0.0 } else { nanos as f64 / count as f64 / 1e6 }
    })
}

/// Tasks that no thread has taken yet; 0 where there is no runtime.
fn waiting_tasks() -> usize {
    tokio::runtime::Handle::try_current().map_or(0, |runtime| runtime.metrics().global_queue_depth())
}

fn churn(broker: &Broker) -> [u64; 7] {
    let [declared, created, deleted] = broker.vhosts.queue_churn().get();
    let [opened, closed, channels_opened, channels_closed] = broker.metrics.connections.churn();
    [opened, closed, channels_opened, channels_closed, declared, created, deleted]
}

impl Reader<'_> {
    /// Everything at a glance.
    pub fn overview(&self) -> OverviewFacts {
        let mut lengths = [0; 3];
        let mut object_totals = ObjectTotals { connections: self.live().len(), ..ObjectTotals::default() };
        for vhost in self.broker.vhosts.list() {
            let (exchanges, queues) = vhost.counts();
            object_totals.exchanges += exchanges;
            object_totals.queues += queues;
            for report in vhost.queues().iter().filter_map(|queue| queue.handle.report()) {
                lengths[1] += report.ready;
                lengths[2] += report.unacked;
                object_totals.consumers += usize::try_from(report.consumers).unwrap_or(0);
            }
        }
        lengths[0] = lengths[1] + lengths[2];
        object_totals.channels = self.live().iter().map(|connection| connection.channel_count()).sum();
        let totals = self.sums().node;
        let stats: MessageStats = totals.message_stats();
        let bytes = [Total::ReceivedBytes, Total::SentBytes].map(|total| totals.get(total));
        let (ranges, now_ms) = (self.ranges, self.now_ms);
        let (message_stats, queue_totals, bytes) = self.broker.metrics.node_history(|history| {
            (
                MessageFacts::of(stats, Some(history), ranges.msg_rates, now_ms),
                Numbers::of(lengths, history, LENGTHS_AT, ranges.lengths, now_ms),
                Numbers::of(bytes, history, BYTES_AT, ranges.data_rates, now_ms),
            )
        });
        OverviewFacts { message_stats, queue_totals, bytes, gauges: self.gauges(&process::read()), object_totals }
    }

    /// The node.
    pub fn node(&self) -> NodeFacts {
        let process = process::read();
        let (alarms, disk) = (&self.broker.alarms, self.broker.disk());
        NodeFacts {
            gauges: self.gauges(&process),
            process,
            message_bytes: crate::message::live_bytes(),
            mem_limit: alarms.memory_watermark_bytes(),
            mem_alarm: alarms.is_memory_low(),
            disk_free: disk.free_bytes,
            disk_free_limit: disk.watermark_bytes,
            disk_free_alarm: alarms.is_disk_low(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            uptime_ms: self.now_ms.saturating_sub(self.broker.metrics.started_ms),
            io_mean_ms: io_mean_ms(self.broker),
            waiting_tasks: waiting_tasks(),
        }
    }

    /// What came and went since the start, in the order of [`Churn`].
    pub fn churn(&self) -> [u64; 7] {
        churn(self.broker)
    }

    fn gauges(&self, process: &Process) -> Numbers<GAUGES> {
        let row = gauges(self.broker, process);
        let range = self.ranges.node_stats;
        self.broker.metrics.gauge_history(|history| Numbers::of(row, history, 0, range, self.now_ms))
    }
}
