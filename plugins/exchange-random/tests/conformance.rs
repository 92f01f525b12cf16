//! The rules that the broker relies on, through the plugin's ABI.

use plugin_api::value::Table;

#[test]
fn conformance() {
    // Local queues are bound without a key.
    let bindings = (0..8).map(|number| ("", Table::new().with("number", number)));
    plugin_api::testing::exchange_types(&exchange_random::PLUGIN).bindings(bindings).run();
}
