//! `node`, `listeners`, `limits`, `storage` and `plugins`.

use std::path::PathBuf;

use super::{
    address::parse_listen,
    management::listen_at,
    reader::{Fields, Hint, Reader, Section},
    tls,
    yaml::{Node, Plain, Value},
};
use crate::topology::{
    check::{Item, Part},
    schema::{AMQPS_PORT, DefinitionsDecl, LimitsDecl, PluginDecl, StorageDecl, Topology},
};
use crate::vhost::quorum::QuorumQueues;
use crate::vhost::strict::TransientQueues;

pub(super) const NODE: Section = Section {
    what: "node",
    keys: &["product", "version", "cluster_name", "quorum_queues", "transient_queues"],
    hints: &[],
};

const TRANSIENT_QUEUES: [(&str, TransientQueues); 2] =
    [("allow", TransientQueues::Allowed), ("refuse", TransientQueues::Refused)];
const QUORUM_QUEUES: [(&str, QuorumQueues); 2] = [("local", QuorumQueues::Local), ("refuse", QuorumQueues::Refused)];

pub(super) const LISTENERS: Section = Section {
    what: "listeners",
    keys: &["amqp", "amqps", "proxy_protocol"],
    hints: &[
        ("ssl", Hint::Instead("did you mean 'amqps'?")),
        ("tls", Hint::Instead("it has a section of its own: 'tls: { certificate: …, key: … }'; addresses are 'amqps'")),
        ("http", Hint::Instead("it has a section of its own: 'management: { listen: … }'")),
        ("management", Hint::Instead("it has a section of its own: 'management: { listen: … }'")),
        ("metrics", Hint::Instead("it has a section of its own: 'metrics: { listen: … }'")),
    ],
};

pub(super) const LIMITS: Section = Section {
    what: "limits",
    keys: &[
        "frame_max_bytes",
        "channel_max",
        "heartbeat_secs",
        "handshake_timeout_secs",
        "message_bytes_max",
        "connections_max",
        "consumer_max_per_channel",
        "bindings_per_queue_max",
        "transaction_bytes_max",
        "shutdown_deadline_secs",
        "memory_watermark_bytes",
        "disk_free_bytes_min",
        "queue_memory_bytes",
    ],
    hints: &[
        ("frame_max", Hint::Instead("did you mean 'frame_max_bytes'?")),
        ("heartbeat", Hint::Instead("did you mean 'heartbeat_secs'?")),
        ("max_message_size", Hint::Instead("did you mean 'message_bytes_max'?")),
        ("vm_memory_high_watermark", Hint::Instead("did you mean 'memory_watermark_bytes'?")),
        ("disk_free_limit", Hint::Instead("did you mean 'disk_free_bytes_min'?")),
        ("connection_max", Hint::Instead("did you mean 'connections_max'?")),
        ("channels_max", Hint::Instead("did you mean 'channel_max', which is for each connection?")),
        ("consumers_max", Hint::Instead("did you mean 'consumer_max_per_channel'?")),
    ],
};

pub(super) const STORAGE: Section = Section {
    what: "storage",
    keys: &["kind", "plugin", "sha256", "data", "config"],
    hints: &[
        ("folder", Hint::Instead("did you mean 'data'?")),
        ("path", Hint::Instead("did you mean 'data'?")),
        ("dir", Hint::Instead("did you mean 'data'?")),
    ],
};

pub(super) const DEFINITIONS: Section =
    Section { what: "definitions", keys: &["path", "skip_if_unchanged"], hints: &[] };

pub(super) const PLUGIN: Section =
    Section { what: "a plugin", keys: &["path", "sha256", "required", "config"], hints: &[] };

/// AMQP 0-9-1 fixes the smallest frame; the largest is a matter of memory per connection.
const FRAME_MAX_BYTES: std::ops::RangeInclusive<u64> = 4096..=128 * 1024 * 1024;

/// RabbitMQ has the same upper bound; a message is held in memory as a whole.
const MESSAGE_BYTES_MAX: std::ops::RangeInclusive<u64> = 1..=512 * 1024 * 1024;

/// A transaction that cannot hold a message is none.
const TRANSACTION_BYTES_MAX: std::ops::RangeInclusive<u64> = 1024 * 1024..=1 << 50;

/// Less than this leaves no room for a broker at all.
const MEMORY_WATERMARK_BYTES: std::ops::RangeInclusive<u64> = 16 * 1024 * 1024..=1 << 50;

/// 0 leaves it to the storage to say that the disk is full; nobody has more than a pebibyte to keep free.
const DISK_FREE_BYTES_MIN: std::ops::RangeInclusive<u64> = 0..=1 << 50;

/// Every queue may keep a little in memory, so very small budgets would not be kept.
const QUEUE_MEMORY_BYTES: std::ops::RangeInclusive<u64> = 1024 * 1024..=1 << 50;

/// An hour is longer than anyone waits for a handshake or a shutdown.
const WAIT_SECS_MAX: u64 = 3600;

pub(super) fn node(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    let Some(fields) = reader.fields(node, &NODE) else { return };
    topology.node.product = fields.get("product").and_then(|node| reader.text(node));
    if let Some(choice) = fields.get("quorum_queues").and_then(|node| reader.choice(node, &QUORUM_QUEUES)) {
        topology.node.strict.quorum_queues = choice;
    }
    if let Some(choice) = fields.get("transient_queues").and_then(|node| reader.choice(node, &TRANSIENT_QUEUES)) {
        topology.node.strict.transient_queues = choice;
    }
    topology.node.cluster_name = fields.get("cluster_name").and_then(|node| reader.text(node));
    topology.node.version = fields.get("version").and_then(|node| {
        let version = reader.text(node)?;
        // Client libraries read three numbers without asking whether they are there.
        let is_version = version.split('.').count() == 3 && version.split('.').all(|part| part.parse::<u32>().is_ok());
        if !is_version {
            reader.error(node.span, format!("'{version}' is not a version"), "give three numbers, such as 4.2.0");
        }
        is_version.then_some(version)
    });
}

pub(super) fn listeners(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    let Some(fields) = reader.fields(node, &LISTENERS) else { return };
    if let Some(node) = fields.get("proxy_protocol") {
        topology.listeners.proxy_protocol = reader.flag(node).unwrap_or(false);
    }
    if let Some(node) = fields.get("amqps") {
        let listeners = &mut topology.listeners;
        listen_at(reader, node, AMQPS_PORT, &mut listeners.amqps);
        tls::check_listen(reader, node, &listeners.amqps, topology.tls.is_some());
    }
    let Some(node) = fields.get("amqp") else { return };
    if node.is_null() {
        return reader.wrong(node, "an address", "write ADDR:PORT, or leave 'amqp' out for port 5672");
    }
    topology.listeners.amqp.clear();
    for item in reader.items(node) {
        let Some(text) = reader.text(item) else { continue };
        match parse_listen(&text) {
            Ok(address) => {
                reader.place(Item::Listener(topology.listeners.amqp.len()), Part::Whole, item.span);
                topology.listeners.amqp.push(address);
            }
            Err(error) => reader.error(item.span, error, "write ADDR:PORT, or PORT for all interfaces"),
        }
    }
}

pub(super) fn limits(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    let Some(fields) = reader.fields(node, &LIMITS) else { return };
    let LimitsDecl {
        frame_max_bytes,
        channel_max,
        heartbeat_secs,
        handshake_timeout_secs,
        message_bytes_max,
        connections_max,
        consumer_max_per_channel,
        bindings_per_queue_max,
        transaction_bytes_max,
        shutdown_deadline_secs,
        memory_watermark_bytes,
        disk_free_bytes_min,
        queue_memory_bytes,
    } = &mut topology.limits;
    let mut size = |key, range| fields.get(key).and_then(|node| reader.size(node, range));
    set(frame_max_bytes, size("frame_max_bytes", FRAME_MAX_BYTES));
    set(message_bytes_max, size("message_bytes_max", MESSAGE_BYTES_MAX));
    if let Some(bytes) = size("memory_watermark_bytes", MEMORY_WATERMARK_BYTES) {
        *memory_watermark_bytes = Some(bytes);
    }
    if let Some(bytes) = size("disk_free_bytes_min", DISK_FREE_BYTES_MIN) {
        *disk_free_bytes_min = Some(bytes);
    }
    if let Some(bytes) = size("queue_memory_bytes", QUEUE_MEMORY_BYTES) {
        *queue_memory_bytes = Some(bytes);
    }
    set(transaction_bytes_max, size("transaction_bytes_max", TRANSACTION_BYTES_MAX));
    let mut number = |key, range| fields.get(key).and_then(|node| reader.number(node, range));
    set(channel_max, number("channel_max", 1..=u64::from(u16::MAX)));
    set(heartbeat_secs, number("heartbeat_secs", 0..=u64::from(u16::MAX)));
    set(handshake_timeout_secs, number("handshake_timeout_secs", 1..=WAIT_SECS_MAX));
    set(shutdown_deadline_secs, number("shutdown_deadline_secs", 0..=WAIT_SECS_MAX));
    set(consumer_max_per_channel, number("consumer_max_per_channel", 1..=u64::from(u32::MAX)));
    set(bindings_per_queue_max, number("bindings_per_queue_max", 1..=u64::from(u32::MAX)));
    let connections = number("connections_max", 1..=u64::from(u32::MAX));
    if let Some(connections) = connections.and_then(|number| u32::try_from(number).ok()) {
        *connections_max = Some(connections);
    }
}

pub(super) fn storage(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    if matches!(node.value, Value::Scalar(_)) {
        if let Some(kind) = reader.text(node) {
            topology.storage = StorageDecl { kind: Some(kind), ..StorageDecl::default() };
        }
        return;
    }
    let Some(fields) = reader.fields(node, &STORAGE) else { return };
    if let Some(kind) = fields.get("kind").and_then(|node| reader.text(node)) {
        topology.storage.kind = Some(kind);
    }
    if let Some(path) = fields.get("plugin").and_then(|node| storage_plugin(reader, node, &fields, topology)) {
        topology.storage.plugin = Some(path);
    }
    if let Some(node) = fields.get("data") {
        topology.storage.data = reader.path(node);
        if topology.storage.kind.as_deref() == Some("memory") {
            let cause = "storage 'memory' writes nothing into a data folder";
            reader.warning(node.span, cause, "use 'kind: log' to keep messages, or leave 'data' out");
        }
    }
    if let Some(config) = fields.get("config") {
        topology.storage.config = json(reader, config);
    }
}

pub(super) fn plugins(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    for item in reader.items(node) {
        if matches!(item.value, Value::Scalar(_)) {
            if let Some(path) = plugin_file(reader, item, true) {
                reader.place(Item::Plugin(topology.plugins.len()), Part::Whole, item.span);
                topology.plugins.push(PluginDecl {
                    path,
                    sha256: None,
                    required: true,
                    config: serde_json::Value::Null,
                });
            }
            continue;
        }
        let Some(fields) = reader.fields(item, &PLUGIN) else { continue };
        let required = fields.get("required").and_then(|node| reader.flag(node)).unwrap_or(true);
        let sha256 = fields.get("sha256").and_then(|node| sha256(reader, node));
        let config = fields.get("config").map_or(serde_json::Value::Null, |node| json(reader, node));
        match fields.get("path") {
            Some(path) => {
                if let Some(file) = plugin_file(reader, path, required) {
                    reader.place(Item::Plugin(topology.plugins.len()), Part::Whole, path.span);
                    let path = file;
                    topology.plugins.push(PluginDecl { path, sha256, required, config });
                }
            }
            None => reader.error(item.span, "a plugin needs a path", "add 'path: …' with its shared library"),
        }
    }
}

/// The file is loaded as if it stood among `plugins`.
fn storage_plugin(
    reader: &mut Reader<'_>,
    node: &Node,
    fields: &Fields<'_>,
    topology: &mut Topology,
) -> Option<PathBuf> {
    let path = plugin_file(reader, node, true)?;
    let sha256 = fields.get("sha256").and_then(|node| sha256(reader, node));
    reader.place(Item::Plugin(topology.plugins.len()), Part::Whole, node.span);
    let config = serde_json::Value::Null;
    topology.plugins.push(PluginDecl { path: path.clone(), sha256, required: true, config });
    Some(path)
}

/// A missing file is found here rather than by the loader, because here its place is known.
fn plugin_file(reader: &mut Reader<'_>, node: &Node, required: bool) -> Option<PathBuf> {
    let path = reader.path(node)?;
    if !path.is_file() {
        let cause = format!("no plugin file {}", path.display());
        let help = "paths are relative to this file's folder; build the plugin first";
        if required {
            reader.error(node.span, cause, help);
            return None;
        }
        reader.warning(node.span, cause, help);
    }
    Some(path)
}

fn sha256(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node)?;
    if text.len() == 64 && text.chars().all(|char| char.is_ascii_hexdigit()) {
        return Some(text.to_lowercase());
    }
    reader.error(node.span, "not a SHA-256 digest", "give the 64 hexadecimal digits that 'sha256sum FILE' prints");
    None
}

/// What is handed to a plugin as it is.
pub(super) fn json(reader: &mut Reader<'_>, node: &Node) -> serde_json::Value {
    use serde_json::Value as Json;
    reader.no_tag(node);
    match &node.value {
        Value::List(items) => Json::Array(items.iter().map(|item| json(reader, item)).collect()),
        Value::Mapping(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), json(reader, &entry.value))).collect())
        }
        Value::Scalar(scalar) => match node.plain() {
            Some(Plain::Null) | None => Json::Null,
            Some(Plain::Bool(value)) => Json::Bool(value),
            Some(Plain::Int(value)) => Json::from(value),
            // JSON has neither infinities nor integers beyond 64 bits; their text is the best that is left of them.
            Some(Plain::Float(value)) => {
                serde_json::Number::from_f64(value).map_or_else(|| Json::from(scalar.text.as_str()), Json::Number)
            }
            Some(Plain::HugeInt) => {
                scalar.text.parse::<u64>().map_or_else(|_| Json::from(scalar.text.as_str()), Json::from)
            }
            Some(Plain::Text(_)) => Json::from(scalar.text.as_str()),
        },
    }
}

/// A path, or a mapping.
pub(super) fn definitions(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    let (path, skip_if_unchanged) = if matches!(node.value, Value::Scalar(_)) {
        (Some(node), false)
    } else {
        let Some(fields) = reader.fields(node, &DEFINITIONS) else { return };
        let skip = fields.get("skip_if_unchanged").and_then(|node| reader.flag(node)).unwrap_or(false);
        (fields.get("path"), skip)
    };
    let Some(node) = path else {
        return reader.error(node.span, "definitions need a path", "add 'path: …' with a file or folder");
    };
    let Some(path) = reader.path(node) else { return };
    if !path.exists() {
        let cause = format!("no definitions {}", path.display());
        return reader.error(node.span, cause, "paths are relative to this file's folder");
    }
    topology.definitions = Some(DefinitionsDecl { path, skip_if_unchanged });
}

/// The ranges were checked against the types; a value that does not fit cannot come here and would change nothing.
fn set<T: TryFrom<u64>>(limit: &mut T, value: Option<u64>) {
    if let Some(value) = value.and_then(|value| T::try_from(value).ok()) {
        *limit = value;
    }
}
