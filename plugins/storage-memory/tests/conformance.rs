//! The rules that the broker relies on.

#[test]
fn conformance() {
    plugin_api::testing::storage(storage_memory::MemoryType).run();
}
