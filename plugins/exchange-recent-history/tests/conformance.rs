//! The rules that the broker relies on, through the plugin's ABI.

use plugin_api::testing::exchange_types;
use plugin_api::value::Table;

#[test]
fn conformance() {
    exchange_types(&exchange_recent_history::PLUGIN).run();
    exchange_types(&exchange_recent_history::PLUGIN)
        .arguments(Table::new().with("x-recent-history-length", 1_i32))
        .run();
}
