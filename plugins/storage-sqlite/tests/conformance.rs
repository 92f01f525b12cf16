//! The rules that the broker relies on, through the plugin's ABI and without it.

#[test]
fn conformance() {
    plugin_api::testing::storages(&storage_sqlite::PLUGIN).run();
}

#[test]
fn conformance_as_a_trait() {
    plugin_api::testing::storage(storage_sqlite::SqliteType).run();
}
