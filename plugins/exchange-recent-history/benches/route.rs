//! What a route costs, across the ABI as the broker calls it: `cargo bench -p exchange-recent-history`.

use plugin_api::message::PropertiesBuf;
use plugin_api::testing::RouteBench;
use plugin_api::value::Table;

fn main() {
    let no_store = Some(Table::new().with("x-recent-history-no-store", true));
    let no_store = PropertiesBuf { headers: no_store, ..PropertiesBuf::default() };
    for count in [10, 1_000] {
        let mut bench = RouteBench::open(&exchange_recent_history::PLUGIN, Table::new());
        bench.bind(count, |_| String::new());
        for bytes in [16, 1024, 16 * 1024] {
            let messages = [("order".to_owned(), PropertiesBuf::default(), bytes)];
            bench.run(&format!("{count} bindings, {bytes} bytes"), &messages);
        }
        let messages = [("order".to_owned(), no_store.clone(), 16)];
        bench.run(&format!("{count} bindings, 16 bytes, no store"), &messages);
    }
}
