//! What a route costs, across the ABI as the broker calls it: `cargo bench -p exchange-consistent-hash`.

use plugin_api::message::PropertiesBuf;
use plugin_api::testing::RouteBench;
use plugin_api::value::Table;

fn main() {
    let messages: Vec<_> = (0..1024).map(|number| (format!("order.{number}"), PropertiesBuf::default(), 0)).collect();
    for count in [10, 100, 1_000] {
        for (title, weights) in [("one weight", 1), ("three weights", 3)] {
            let mut bench = RouteBench::open(&exchange_consistent_hash::PLUGIN, Table::new());
            bench.bind(count, |slot| (1 + slot % weights).to_string());
            bench.run(&format!("{count} bindings, {title}"), &messages);
        }
    }
}
