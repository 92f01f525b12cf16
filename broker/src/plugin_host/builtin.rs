//! The plugins that are part of the binary.
//!
//! An explicit list: what is not named here is not in the broker. Their entries are called as a file's would be.

use plugin_api::abi::LinkedPlugin;

/// The exchange types that every AMQP client expects, those of RabbitMQ's plugins, and the storages.
pub static PLUGINS: [&LinkedPlugin; 11] = [
    &exchange_direct::PLUGIN,
    &exchange_fanout::PLUGIN,
    &exchange_topic::PLUGIN,
    &exchange_headers::PLUGIN,
    &exchange_consistent_hash::PLUGIN,
    &exchange_delayed_message::PLUGIN,
    &exchange_modulus_hash::PLUGIN,
    &exchange_random::PLUGIN,
    &exchange_recent_history::PLUGIN,
    &storage_memory::PLUGIN,
    &storage_log::PLUGIN,
];
