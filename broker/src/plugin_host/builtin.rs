//! The plugins that are part of the binary.
//!
//! An explicit list: what is not named here is not in the broker. Their entries are called as a file's would be.

use plugin_api::abi::LinkedPlugin;
use plugin_api::storage::StorageType;

/// The exchange types that every AMQP client expects.
pub static PLUGINS: [&LinkedPlugin; 4] =
    [&exchange_direct::PLUGIN, &exchange_fanout::PLUGIN, &exchange_topic::PLUGIN, &exchange_headers::PLUGIN];

/// The storages. They are called as Rust traits, since they do not cross the ABI yet.
pub(super) fn storages() -> Vec<Box<dyn StorageType>> {
    vec![Box::new(storage_memory::MemoryType)]
}
