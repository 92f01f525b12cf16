//! The rules that the broker relies on, through the plugin's ABI.

use plugin_api::testing::{ExchangeSuite, exchange_types};
use plugin_api::value::Table;

fn suite() -> ExchangeSuite {
    let weights = ["1", "2", "10", "1", "10000", "7", "1", "3"];
    exchange_types(&exchange_consistent_hash::PLUGIN).bindings(weights.map(|weight| (weight, Table::new())))
}

#[test]
fn conformance() {
    suite().run();
    suite().arguments(Table::new().with("hash-header", "h")).run();
    suite().arguments(Table::new().with("hash-property", "message_id")).run();
}
