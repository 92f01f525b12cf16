//! What a route costs, across the ABI as the broker calls it: `cargo bench -p exchange-delayed-message`.

use plugin_api::message::PropertiesBuf;
use plugin_api::testing::RouteBench;
use plugin_api::value::Table;

fn main() {
    let delayed = Some(Table::new().with("x-delay", 5000_i32));
    let delayed = PropertiesBuf { headers: delayed, ..PropertiesBuf::default() };
    for count in [10, 1_000] {
        let arguments = Table::new().with("x-delayed-type", "direct");
        let mut bench = RouteBench::open(&exchange_delayed_message::PLUGIN, arguments);
        bench.bind(count, |_| String::new());
        let messages = [("a".to_owned(), PropertiesBuf::default(), 16)];
        bench.run(&format!("{count} bindings, not delayed"), &messages);
        bench.run(&format!("{count} bindings, delayed"), &[("a".to_owned(), delayed.clone(), 16)]);
    }
}
