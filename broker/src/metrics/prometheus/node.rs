//! What there is of the node: memory, disk, files, uptime, churn, logins, alarms.

use std::sync::atomic::Ordering::Relaxed;

use super::Reader;
use super::text::{Kind, Page, labels};
use crate::metrics::logins::{Attempts, Protocol};
use crate::metrics::read::Churn;

pub(super) fn write(page: &mut Page, reader: &Reader<'_>) {
    write_process(page, reader);
    write_churn(page, reader);
    write_logins(page, reader);
    write_alarms(page, reader);
    write_io(page, reader);
    let started_ms = reader.broker().metrics.started_ms;
    page.set_prefix("");
    page.single(
        "process_start_time_seconds",
        Kind::Gauge,
        "When the process began, in seconds since the epoch.",
        started_ms as f64 / 1000.0,
    );
    page.set_prefix("rabbitmq_");
}

pub(super) fn write_process(page: &mut Page, reader: &Reader<'_>) {
    let node = reader.node();
    let gauges: [(&str, u64, &str); 8] = [
        ("process_resident_memory_bytes", node.process.resident_bytes, "Memory that the process has in use."),
        ("resident_memory_limit_bytes", node.mem_limit, "Bytes of messages from which on publishers are stopped."),
        (
            "disk_space_available_bytes",
            node.disk_free.unwrap_or(0),
            "Free room on the file system of the data folder; 0 without one.",
        ),
        ("disk_space_available_limit_bytes", node.disk_free_limit, "Free room below which publishers are stopped."),
        ("process_open_fds", node.process.open_fds, "Open files."),
        ("process_max_fds", node.process.max_fds, "Files that may be open."),
        ("process_open_tcp_sockets", reader.broker().connection_count() as u64, "Connections of clients."),
        ("process_max_tcp_sockets", node.process.max_fds, "Connections that files allow."),
    ];
    for (name, value, help) in gauges {
        page.single(name, Kind::Gauge, help, value);
    }
    let uptime_secs = node.uptime_ms as f64 / 1000.0;
    page.single("erlang_uptime_seconds", Kind::Gauge, "Seconds since the broker started.", uptime_secs);
    page.single("erlang_processes_used", Kind::Gauge, "Threads of the process.", node.process.threads);
    page.single("erlang_scheduler_run_queue", Kind::Gauge, "Tasks that wait for a thread.", node.waiting_tasks);
}

pub(super) fn write_churn(page: &mut Page, reader: &Reader<'_>) {
    let churn = reader.churn();
    for (which, name, help) in [
        (Churn::ConnectionCreated, "connections_opened_total", "Connections that were opened."),
        (Churn::ConnectionClosed, "connections_closed_total", "Connections that were closed."),
        (Churn::ChannelCreated, "channels_opened_total", "Channels that were opened."),
        (Churn::ChannelClosed, "channels_closed_total", "Channels that were closed."),
        (Churn::QueueDeclared, "queues_declared_total", "Declarations of queues."),
        (Churn::QueueCreated, "queues_created_total", "Queues that were created."),
        (Churn::QueueDeleted, "queues_deleted_total", "Queues that were deleted."),
    ] {
        page.single(name, Kind::Counter, help, churn.get(which as usize).copied().unwrap_or(0));
    }
}

/// A family with what it shows of the attempts, and its help.
type LoginFamily = (&'static str, fn(Attempts) -> u64, &'static str);

const LOGINS: [LoginFamily; 3] = [
    ("auth_attempts_total", Attempts::total, "Attempts to log in."),
    ("auth_attempts_succeeded_total", |attempts| attempts.succeeded, "Attempts to log in that succeeded."),
    ("auth_attempts_failed_total", |attempts| attempts.failed, "Attempts to log in that failed."),
];

pub(super) fn write_logins(page: &mut Page, reader: &Reader<'_>) {
    let logins = &reader.broker().metrics.logins;
    for (name, pick, help) in LOGINS {
        page.family(name, Kind::Counter, help);
        for protocol in Protocol::ALL {
            page.series(&labels(&[("protocol", protocol.name())]), pick(logins.total(protocol)));
        }
    }
}

fn write_alarms(page: &mut Page, reader: &Reader<'_>) {
    let alarms = &reader.broker().alarms;
    for (name, is_raised, help) in [
        ("alarms_memory_used_watermark", alarms.is_memory_low(), "1 while messages take too much memory."),
        ("alarms_free_disk_space_watermark", alarms.is_disk_low(), "1 while too little room is on the disk."),
        ("alarms_file_descriptor_limit", false, "1 while there are no more files to open."),
    ] {
        page.single(name, Kind::Untyped, help, is_raised);
    }
}

/// What the storage says of its reads, writes and syncs; zeros where it says nothing.
pub(super) fn write_io(page: &mut Page, reader: &Reader<'_>) {
    let broker = reader.broker();
    let status = broker.committer.storage_status();
    let figure = |name| status.figure(name).unwrap_or(0);
    let reads = broker.committer.counters().loaded.load(Relaxed);
    for (name, value, help) in [
        ("io_read_ops_total", figure("reads"), "Reads of files of the store."),
        ("io_read_bytes_total", figure("read_bytes"), "Bytes read from files of the store."),
        ("io_write_ops_total", figure("writes"), "Writes to files of the store."),
        ("io_write_bytes_total", figure("written_bytes"), "Bytes written to files of the store."),
        ("io_sync_ops_total", figure("syncs"), "Syncs of files of the store."),
        ("io_seek_ops_total", 0, "Seeks in files of the store; there are none."),
        ("io_reopen_ops_total", 0, "Files of the store opened again; not counted."),
        ("queue_index_read_ops_total", 0, "Reads of an index of queues; there is none."),
        ("queue_index_write_ops_total", 0, "Writes of an index of queues; there is none."),
        ("msg_store_read_total", reads, "Messages read from the store."),
        ("msg_store_write_total", broker.committer.counters().stored(), "Messages written to the store."),
    ] {
        page.single(name, Kind::Counter, help, value);
    }
    for (name, nanos, help) in [
        ("io_read_time_seconds_total", figure("read_nanos"), "Time in reads of the store."),
        ("io_write_time_seconds_total", figure("write_nanos"), "Time in writes of the store."),
        ("io_sync_time_seconds_total", figure("sync_nanos"), "Time in syncs of the store."),
        ("io_seek_time_seconds_total", 0, "Time in seeks of the store; there are none."),
    ] {
        page.single(name, Kind::Counter, help, nanos as f64 / 1e9);
    }
}

/// What memory is used for, as far as that is known.
pub(super) fn write_memory(page: &mut Page, reader: &Reader<'_>) {
    let node = reader.node();
    let paged = reader.queue_sums().memory_bytes;
    let messages = node.message_bytes;
    for (name, bytes, help) in [
        ("memory_queue_procs_bytes", paged, "Messages that wait in queues."),
        ("memory_connection_other_bytes", messages.saturating_sub(paged), "Messages on their way."),
        (
            "memory_other_proc_bytes",
            node.process.resident_bytes.saturating_sub(messages),
            "Everything that is not messages.",
        ),
        ("memory_total_rss_bytes", node.process.resident_bytes, "Memory that the process has in use."),
        ("memory_total_allocated_bytes", node.process.resident_bytes, "Memory that the process has in use."),
    ] {
        page.single(name, Kind::Gauge, help, bytes);
    }
}
