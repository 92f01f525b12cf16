//! The rules that the broker relies on, through the plugin's ABI.

use plugin_api::value::Table;

#[test]
fn conformance() {
    let bindings = (0..8_i64).map(|number| ("", Table::new().with("weight", number + 1)));
    plugin_api::testing::exchange_types(&exchange_weighted::PLUGIN).bindings(bindings).run();
}
