//! What only this broker has: hooks, plugins, the store, credit, alarms, its runtime.

use std::sync::atomic::Ordering::Relaxed;

use super::Reader;
use super::text::{Kind, Page, labels};
use crate::hooks::TIME_BOUNDS;
use crate::metrics::Total;
use crate::plugin_host::{PluginState, ROUTE_TIME_BOUNDS, RouteTimesRead};
use crate::store::counters::{self, GROUP_BOUNDS};

pub(super) fn write(page: &mut Page, reader: &Reader<'_>) {
    page.set_prefix("broker_");
    write_hooks(page, reader);
    write_plugins(page, reader);
    write_store(page, reader);
    let stops = reader.sums().node.get(Total::CreditStops);
    page.single(
        "credit_stops_total",
        Kind::Counter,
        "Times that a publisher's socket was left unread because too much was unprocessed.",
        stops,
    );
    page.family("alarm_raised", Kind::Gauge, "1 while publishers are stopped because of this.");
    let alarms = &reader.broker().alarms;
    page.series("resource=\"memory\"", alarms.is_memory_low());
    page.series("resource=\"disk\"", alarms.is_disk_low());
    page.family("topology_reload_total", Kind::Counter, "Times that the topology file was read again while running.");
    let reloads = &reader.broker().reloads;
    for (result, count) in [("done", &reloads.done), ("refused", &reloads.refused), ("failed", &reloads.failed)] {
        page.series(&labels(&[("result", result)]), count.load(Relaxed));
    }
    page.single("message_bytes", Kind::Gauge, "Bytes of messages in memory.", crate::message::live_bytes());
    write_runtime(page);
    page.set_prefix("rabbitmq_");
}

fn write_hooks(page: &mut Page, reader: &Reader<'_>) {
    let hooks = reader.broker().hooks.status();
    page.family("hook_calls_total", Kind::Counter, "Calls of hooks, by how they ended.");
    for hook in &hooks {
        let counts = hook.counts;
        for (result, count) in [
            ("passed", counts.passed),
            ("rewritten", counts.rewritten),
            ("dropped", counts.dropped),
            ("rejected", counts.rejected),
            ("dead_lettered", counts.dead_lettered),
            ("failed", counts.failed),
        ] {
            page.series(&labels(&[("hook", &hook.name), ("stage", hook.point.stage()), ("result", result)]), count);
        }
    }
    page.family(
        "hook_duration_seconds",
        Kind::Histogram,
        "Time in hooks, measured for one call in 16, and later in 128.",
    );
    for hook in &hooks {
        let sum = hook.counts.timed_nanos as f64 / 1e9;
        page.histogram(&labels(&[("hook", &hook.name), ("stage", hook.point.stage())]), &TIME_BOUNDS, &hook.times, sum);
    }
    page.family("hook_reloads_total", Kind::Counter, "Reloads of hooks, by what came of them.");
    let reloads = reader.broker().hooks.reloads();
    for (result, count) in
        [("replaced", reloads.replaced), ("unchanged", reloads.unchanged), ("refused", reloads.refused)]
    {
        page.series(&labels(&[("result", result)]), count);
    }
}

fn write_plugins(page: &mut Page, reader: &Reader<'_>) {
    let plugins = reader.broker().vhosts.registry().status();
    page.family("plugin_info", Kind::Gauge, "What a plugin offers.");
    for plugin in &plugins {
        let exchanges = plugin.exchange_types.iter().map(|name| ("exchange", name));
        let storages = plugin.storages.iter().map(|name| ("storage", name));
        let auth_backends = plugin.auth_backends.iter().map(|name| ("auth", name));
        for (kind, name) in exchanges.chain(storages).chain(auth_backends) {
            let pairs = [("name", &*plugin.name), ("kind", kind), ("offers", name), ("version", &plugin.version)];
            page.series(&labels(&pairs), 1_u64);
        }
    }
    page.family("plugin_state", Kind::Gauge, "1 for the state that a plugin is in.");
    for plugin in &plugins {
        for state in PluginState::ALL {
            let pairs = [("name", &*plugin.name), ("state", state.name())];
            page.series(&labels(&pairs), u64::from(state == plugin.state));
        }
    }
    page.family("plugin_faults_total", Kind::Counter, "Calls that the plugin failed in a way that it may not.");
    for plugin in &plugins {
        page.series(&labels(&[("name", &plugin.name)]), plugin.faults);
    }
    page.family(
        "route_duration_seconds",
        Kind::Histogram,
        "Time of exchange types for a route that is not remembered, measured for one in 1021.",
    );
    for plugin in plugins.iter().filter(|plugin| !plugin.exchange_types.is_empty()) {
        let RouteTimesRead { buckets, nanos } = plugin.route_times;
        page.histogram(&labels(&[("plugin", &plugin.name)]), &ROUTE_TIME_BOUNDS, &buckets, nanos as f64 / 1e9);
    }
    page.family("plugin_metric", Kind::Gauge, "What plugins count for themselves.");
    for plugin in &plugins {
        for (metric, value) in &plugin.figures {
            page.series(&labels(&[("name", &plugin.name), ("metric", metric)]), *value);
        }
    }
}

fn write_store(page: &mut Page, reader: &Reader<'_>) {
    let committer = &reader.broker().committer;
    let (status, counters) = (committer.storage_status(), committer.counters());
    page.family("storage_append_seconds", Kind::Histogram, "Time to store a batch of messages, with its sync.");
    page.histogram("", &counters::TIME_BOUNDS, &counters.times(), counters.append_seconds());
    page.family("storage_group_messages", Kind::Histogram, "Messages that were stored together.");
    page.histogram("", &GROUP_BOUNDS, &counters.groups(), counters.stored());
    let figure = |name| status.figure(name).unwrap_or(0);
    page.family("storage_fsync_seconds", Kind::Summary, "Time in syncs of the store.");
    page.summary("", figure("syncs"), figure("sync_nanos") as f64 / 1e9);
    for (name, value, help) in [
        ("storage_segments", figure("segments"), "Segments of the store."),
        ("storage_segment_bytes", status.file_bytes, "Bytes of the store's files."),
        ("storage_live_bytes", status.live_bytes, "Bytes of them that live messages take."),
        ("storage_live_messages", status.live_count, "Live messages in the store, counted once for each queue."),
        ("storage_damage", status.damage.len() as u64, "Damages that were found since the start."),
    ] {
        page.single(name, Kind::Gauge, help, value);
    }
    for (name, value, help) in [
        ("storage_loaded_messages_total", counters.loaded.load(Relaxed), "Messages read back for queues."),
        ("storage_copied_bytes_total", figure("copied_bytes"), "Bytes copied forward to free segments."),
        ("storage_removed_segments_total", figure("removed_segments"), "Segments removed."),
    ] {
        page.single(name, Kind::Counter, help, value);
    }
    page.single("storage_full", Kind::Gauge, "1 while the store has no room for messages.", status.is_full);
}

fn write_runtime(page: &mut Page) {
    let metrics = tokio::runtime::Handle::try_current().map(|runtime| runtime.metrics());
    let (workers, tasks, waiting) = metrics
        .map_or((0, 0, 0), |metrics| (metrics.num_workers(), metrics.num_alive_tasks(), metrics.global_queue_depth()));
    page.single("tokio_workers", Kind::Gauge, "Threads that run tasks.", workers);
    page.single("tokio_alive_tasks", Kind::Gauge, "Tasks.", tasks);
    page.single("tokio_queue_depth", Kind::Gauge, "Tasks that wait for a thread.", waiting);
}
