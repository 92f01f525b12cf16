//! What a route costs, across the ABI as the broker calls it: `cargo bench -p exchange-random`.

use plugin_api::message::PropertiesBuf;
use plugin_api::testing::RouteBench;
use plugin_api::value::Table;

fn main() {
    let messages: Vec<_> = (0..1024).map(|number| (format!("order.{number}"), PropertiesBuf::default(), 0)).collect();
    for count in [10, 1_000] {
        let mut bench = RouteBench::open(&exchange_random::PLUGIN, Table::new());
        bench.bind(count, |_| String::new());
        bench.run(&format!("{count} bindings"), &messages);
    }
}
