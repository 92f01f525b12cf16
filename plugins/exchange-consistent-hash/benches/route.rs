//! What a route costs, across the ABI as the broker calls it: `cargo bench -p exchange-consistent-hash`.

use std::hint::black_box;

use plugin_api::abi::guest::{Guest, GuestExchange, Linkage};
use plugin_api::config::Config;
use plugin_api::exchange::{BindingSpec, ExchangeSpec};
use plugin_api::message::{Message, Properties, PropertiesBuf};
use plugin_api::testing::{FakeHost, nanos_per_call};
use plugin_api::value::Table;

fn main() {
    let messages: Vec<_> = (0..1024).map(|number| (format!("order.{number}"), PropertiesBuf::default(), 0)).collect();
    for count in [10, 100, 1_000] {
        for (title, weights) in [("one weight", 1), ("three weights", 3)] {
            let mut exchange = open(Table::new());
            for slot in 0..count {
                let weight = (1 + slot % weights).to_string();
                exchange.bind(slot, &BindingSpec::to_queue(format!("queue-{slot}"), weight)).expect("bound");
            }
            run(&format!("{count} bindings, {title}"), &exchange, &messages);
        }
    }
}

fn open(arguments: Table) -> GuestExchange {
    let host = FakeHost::new().table(Linkage::LinkedIn);
    let guest = Guest::linked(&exchange_consistent_hash::PLUGIN, host, &Config::default()).expect("registered");
    guest.exchange_types[0].open(&ExchangeSpec { arguments, ..ExchangeSpec::default() }).expect("opened")
}

fn run(title: &str, exchange: &GuestExchange, messages: &[(String, PropertiesBuf, usize)]) {
    let messages: Vec<_> =
        messages.iter().map(|(key, properties, bytes)| (key.as_str(), properties.encode(), vec![0; *bytes])).collect();
    let mut out = Vec::new();
    let nanos = nanos_per_call(4096, |call| {
        out.clear();
        let (routing_key, raw, body) = &messages[call as usize % messages.len()];
        let message = Message { properties: Properties::from_raw(raw), body, ..Message::with_key(routing_key) };
        exchange.route(black_box(&message), &mut out).expect("routed");
        black_box(&out);
    });
    println!("{title:>44} {nanos:>9.1} ns a route");
}
