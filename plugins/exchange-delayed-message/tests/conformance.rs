//! The rules that the broker relies on, through the plugin's ABI.

use plugin_api::testing::exchange_types;
use plugin_api::value::Table;

#[test]
fn conformance() {
    exchange_types(&exchange_delayed_message::PLUGIN)
        .arguments(Table::new().with("x-delayed-type", "direct"))
        .message("a", Some(Table::new().with("x-delay", 1000_i32)))
        .run();
}
