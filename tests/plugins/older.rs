//! Plugin files of past ABIs, kept as they were built: a broker of today loads them.
//!
//! How they were made stands in `tests/fixtures/abi/README.md`. They are for Linux on x86_64; elsewhere there is nothing to test.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::path::PathBuf;
use std::sync::Arc;

use broker::plugin_host::inspect::inspect;
use broker::plugin_host::{LoadRequest, PluginState, Registry};
use plugin_api::exchange::{BindingSpec, ExchangeSpec};
use plugin_api::message::Message;

use crate::build;

/// A copy that nobody but its owner may change, whatever the checkout's modes are.
fn fixture(version: &str, name: &str) -> PathBuf {
    let source = build::repository().join("tests/fixtures/abi").join(version).join(name);
    assert!(source.metadata().unwrap().len() < 1_000_000, "{name} is small");
    build::copied(&source, &format!("abi-{version}-{name}"))
}

#[test]
fn exchange_type_of_abi_2_2_routes() {
    let path = fixture("2.2", "libexchange_topic.so");
    let stamp = inspect(&path, None).unwrap().stamp;
    assert_eq!((stamp.abi_major, stamp.abi_minor, stamp.unwinds, stamp.offers), (2, 2, true, 0));
    let mut registry = Registry::empty();
    let loaded = registry.load_file(&LoadRequest { path, ..LoadRequest::default() }).unwrap();
    assert_eq!(loaded.exchange_types, ["topic"]);
    let topic = registry.exchange_type("topic").unwrap();
    let mut exchange = topic.open(&ExchangeSpec { kind: "topic".into(), ..ExchangeSpec::default() }).unwrap();
    for (slot, key) in ["order.*.paid", "order.#", "other"].into_iter().enumerate() {
        exchange.bind(u32::try_from(slot).unwrap(), &BindingSpec::to_queue("q", key)).unwrap();
    }
    let mut routes = Vec::new();
    exchange.route(&Message::with_key("order.eu.paid"), &mut routes).unwrap();
    routes.sort_unstable();
    assert_eq!(routes, [0, 1]);
    exchange.unbind(1).unwrap();
    drop(exchange);
    assert_eq!(registry.status().pop().unwrap().state, PluginState::Registered);
}

#[test]
fn storage_of_abi_2_2_conforms() {
    let path = fixture("2.2", "libstorage_memory.so");
    let mut registry = Registry::empty();
    let loaded = registry.load_file(&LoadRequest { path, ..LoadRequest::default() }).unwrap();
    assert_eq!(loaded.storages, ["memory"]);
    let registry = Arc::new(registry);
    let opened = Arc::clone(&registry);
    let suite = plugin_api::testing::opened_storages("abi-2.2", move |spec| {
        opened.storage("memory", spec.config.as_json(), None).map_err(|error| error.to_string())
    });
    suite.run();
    assert_eq!(registry.status().pop().unwrap().state, PluginState::Registered);
}
