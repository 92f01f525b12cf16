//! The one node of the cluster: what exporters and dashboards ask of it.
//!
//! What only an Erlang machine has is zero, so that typed readers find every field.

use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::{Listener, Management, lists, stats};
use crate::metrics::read::{Churn, NodeGauge, Reader};
use crate::runtime::{Broker, process};

/// Readers expect text; there is no Erlang.
pub(super) const ERLANG_VERSION: &str = "none";
/// As [`ERLANG_VERSION`].
pub(super) const ERLANG_FULL_VERSION: &str = "none (this broker is not written in Erlang)";
/// As [`ERLANG_VERSION`].
pub(super) const CRYPTO_VERSION: &str = "none";

/// The node's name as tools expect one: `NAME@HOST`. A cluster's name that has no host becomes one on this machine.
pub(super) fn name(cluster_name: &str) -> String {
    if cluster_name.contains('@') { cluster_name.to_owned() } else { format!("{cluster_name}@localhost") }
}

/// 404 for the name of another node.
pub(super) fn check_name(call: &Call) -> Result<(), ApiError> {
    if call.named("node") == call.api.node_name() { Ok(()) } else { Err(ApiError::object_not_found()) }
}

pub(super) fn list(call: &Call) -> Answer {
    let reader = stats::reader(call)?;
    let show = |_: &String| node(&call.api, &reader, stats::are_disabled(call));
    lists::list(call, lists::Paging::None, vec![call.api.node_name()], |name| name, show)
}

pub(super) fn get(call: &Call) -> Answer {
    check_name(call)?;
    lists::one(call, node(&call.api, &stats::reader(call)?, stats::are_disabled(call)))
}

/// Exchange types with what they say of themselves.
pub(super) fn exchange_types(broker: &Broker) -> Json {
    let registry = broker.vhosts.registry();
    let names = registry.exchange_type_names().into_iter();
    let types = names.filter_map(|name| registry.exchange_type(&name));
    types.map(|kind| json!({"name": kind.name(), "description": kind.description(), "enabled": true})).collect()
}

pub(super) fn listeners(api: &Management) -> Json {
    let node = api.node_name();
    let listener = |Listener { protocol, address, tls }: &Listener| {
        json!({
            "node": node, "protocol": protocol, "ip_address": address.ip().to_string(), "port": address.port(),
            "tls": tls.is_some(), "socket_opts": {"nodelay": true},
        })
    };
    api.node.listeners.iter().map(listener).collect()
}

/// Where pages and the API are; the port is text, as in RabbitMQ.
pub(super) fn contexts(api: &Management) -> Json {
    let context = |Listener { address, tls, .. }: &Listener| {
        // The files' names, as RabbitMQ shows them; never what is in a key.
        let ssl_opts = tls.as_ref().map_or_else(
            || json!([]),
            |tls| json!({"certfile": tls.decl().certificate, "keyfile": tls.decl().key, "cacertfile": tls.decl().ca}),
        );
        json!({
            "description": "RabbitMQ Management", "path": "/", "port": address.port().to_string(),
            "ip": address.ip().to_string(), "node": api.node_name(), "ssl_opts": ssl_opts,
        })
    };
    api.node.listeners.iter().filter(|listener| listener.is_http()).map(context).collect()
}

/// This broker's plugins, and RabbitMQ's names of those whose work is done here, which is what tools look for.
fn enabled_plugins(api: &Management) -> Vec<String> {
    let mut names: Vec<String> = api.broker.vhosts.registry().status().into_iter().map(|plugin| plugin.name).collect();
    let known =
        RABBITMQ_PLUGINS.iter().filter(|(_, ours)| ours.is_none_or(|ours| names.iter().any(|name| name == ours)));
    let known: Vec<String> = known.map(|(name, _)| (*name).to_owned()).collect();
    names.extend(known);
    names.sort_unstable();
    names
}

/// Plugins of RabbitMQ, each with the plugin that does its work here if it is one.
const RABBITMQ_PLUGINS: &[(&str, Option<&str>)] = &[
    ("rabbitmq_management", None),
    ("rabbitmq_management_agent", None),
    ("rabbitmq_consistent_hash_exchange", Some("exchange_consistent_hash")),
    ("rabbitmq_delayed_message_exchange", Some("exchange_delayed_message")),
    ("rabbitmq_random_exchange", Some("exchange_random")),
    ("rabbitmq_recent_history_exchange", Some("exchange_recent_history")),
];

/// The node; of a client that wants no statistics only that it is there.
fn node(api: &Management, reader: &Reader<'_>, are_disabled: bool) -> Json {
    let broker = &api.broker;
    let mut node = object(json!({
        "name": api.node_name(), "type": "disc", "running": true, "being_drained": false,
    }));
    if are_disabled {
        return Json::Object(node);
    }
    let facts = reader.node();
    let process = facts.process;
    node.extend(object(json!({
        "os_pid": process.id.to_string(),
        "fd_total": process.max_fds,
        "sockets_total": process.max_fds,
        "mem_limit": facts.mem_limit,
        "mem_alarm": facts.mem_alarm,
        "mem_calculation_strategy": "rss",
        "disk_free_limit": facts.disk_free_limit,
        "disk_free_alarm": facts.disk_free_alarm,
        "proc_total": THREADS_MAX,
        "run_queue": facts.waiting_tasks,
        "processors": facts.processors,
        "uptime": facts.uptime_ms,
        "rates_mode": "basic",
        "enabled_plugins": enabled_plugins(api),
        "exchange_types": exchange_types(broker),
        "auth_mechanisms": auth_mechanisms(broker),
        "applications": [{"name": "broker", "description": env!("CARGO_PKG_DESCRIPTION"), "version": env!("CARGO_PKG_VERSION")}],
        "contexts": contexts(api),
        "log_files": ["<stderr>"],
        "config_files": api.node.topology.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
        "db_dir": api.node.data.as_ref().map(|folder| folder.display().to_string()).unwrap_or_default(),
        "net_ticktime": 60,
        "partitions": [],
        "cluster_links": [],
        "metrics_gc_queue_length": {},
        "rabbitmq_version": broker.identity.version,
        "erlang_version": ERLANG_VERSION,
        "erlang_full_version": ERLANG_FULL_VERSION,
        "crypto_lib_version": CRYPTO_VERSION,
        "ra_open_file_metrics": {"ra_log_wal": 0, "ra_log_segment_writer": 0},
    })));
    for churn in Churn::ALL {
        stats::put(&mut node, churn.name(), facts.gauges.get(churn as usize));
    }
    for (name, gauge) in [
        ("mem_used", NodeGauge::MemUsed),
        ("fd_used", NodeGauge::FdUsed),
        ("sockets_used", NodeGauge::SocketsUsed),
        ("disk_free", NodeGauge::DiskFree),
        ("proc_used", NodeGauge::ProcUsed),
        ("context_switches", NodeGauge::ContextSwitches),
        ("io_read_count", NodeGauge::IoReadCount),
        ("io_read_bytes", NodeGauge::IoReadBytes),
        ("io_write_count", NodeGauge::IoWriteCount),
        ("io_write_bytes", NodeGauge::IoWriteBytes),
        ("io_sync_count", NodeGauge::IoSyncCount),
        ("msg_store_read_count", NodeGauge::DiskReads),
        ("msg_store_write_count", NodeGauge::DiskWrites),
    ] {
        stats::put(&mut node, name, facts.gauges.get(gauge as usize));
    }
    for name in ERLANG_COUNTERS {
        stats::put_rate(&mut node, name, 0, 0.0);
    }
    let [read, write, sync] = facts.io_mean_ms;
    let known = [("io_read_avg_time", read), ("io_write_avg_time", write), ("io_sync_avg_time", sync)];
    for (name, mean) in known.into_iter().chain(ERLANG_AVERAGES.iter().map(|name| (*name, 0.0))) {
        node.insert(name.to_owned(), json!(mean));
        node.insert(format!("{name}_details"), json!({"rate": mean}));
    }
    Json::Object(node)
}

/// What Linux allows by default; nobody comes near it here.
const THREADS_MAX: u64 = 32_768;

/// Counters that exporters read and that nothing here counts.
const ERLANG_COUNTERS: &[&str] = &[
    "gc_num",
    "gc_bytes_reclaimed",
    "io_seek_count",
    "io_reopen_count",
    "io_file_handle_open_attempt_count",
    "mnesia_ram_tx_count",
    "mnesia_disk_tx_count",
    "queue_index_read_count",
    "queue_index_write_count",
];

/// Times in milliseconds, of the same kind.
const ERLANG_AVERAGES: &[&str] = &["io_seek_avg_time", "io_file_handle_open_attempt_avg_time"];

fn auth_mechanisms(broker: &Broker) -> Json {
    let offered = broker.identity.mechanisms.split_whitespace();
    let description = |name: &str| match name {
        "PLAIN" => "SASL PLAIN authentication mechanism",
        "AMQPLAIN" => "QPid AMQPLAIN mechanism",
        _ => "",
    };
    offered.map(|name| json!({"name": name, "description": description(name), "enabled": true})).collect()
}

/// What readers want of memory by kind; all that is known is what messages take, and the rest.
pub(super) fn memory(call: &Call) -> Answer {
    check_name(call)?;
    let (rss, messages) = (process::read().resident_bytes, crate::message::live_bytes());
    let mut memory = object(json!({
        "binary": messages,
        "other_proc": rss.saturating_sub(messages),
        "strategy": "rss",
        "total": {"erlang": rss, "rss": rss, "allocated": rss},
    }));
    for name in MEMORY_KINDS {
        memory.insert((*name).to_owned(), json!(0));
    }
    lists::one(call, json!({"memory": memory}))
}

/// The same in percent.
pub(super) fn memory_relative(call: &Call) -> Answer {
    check_name(call)?;
    let (rss, messages) = (process::read().resident_bytes, crate::message::live_bytes());
    let percent = (messages.min(rss) * 100).checked_div(rss).unwrap_or(0);
    let mut memory = object(json!({"binary": percent, "other_proc": 100 - percent, "total": 100}));
    for name in MEMORY_KINDS {
        memory.insert((*name).to_owned(), json!(0));
    }
    lists::one(call, json!({"memory": memory}))
}

const MEMORY_KINDS: &[&str] = &[
    "connection_readers",
    "connection_writers",
    "connection_channels",
    "connection_other",
    "queue_procs",
    "quorum_queue_procs",
    "quorum_queue_dlx_procs",
    "stream_queue_procs",
    "stream_queue_replica_reader_procs",
    "stream_queue_coordinator_procs",
    "plugins",
    "metadata_store",
    "metrics",
    "mgmt_db",
    "mnesia",
    "quorum_ets",
    "metadata_store_ets",
    "other_ets",
    "msg_index",
    "code",
    "atom",
    "other_system",
    "allocated_unused",
    "reserved_unallocated",
];

fn object(value: Json) -> Map<String, Json> {
    match value {
        Json::Object(object) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_a_host() {
        assert_eq!(name("broker"), "broker@localhost");
        assert_eq!(name("rabbit@host"), "rabbit@host");
    }
}
