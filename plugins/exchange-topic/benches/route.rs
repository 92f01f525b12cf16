//! What a route costs, across the ABI as the broker calls it: `cargo bench -p exchange-topic`.
//!
//! The figure should not grow with the number of bindings, but for what the memory of larger tables costs.

use std::hint::black_box;

use plugin_api::abi::guest::{Guest, GuestExchange, Linkage};
use plugin_api::config::Config;
use plugin_api::exchange::{BindingSpec, ExchangeSpec};
use plugin_api::message::Message;
use plugin_api::testing::{FakeHost, Random, nanos_per_call};

fn main() {
    println!("topic, a key of four words that one binding takes");
    for count in [10, 1_000, 10_000, 100_000] {
        let pattern = |k: u32| match k % 4 {
            0 => format!("t.{k}.*.v"),
            1 => format!("t.{k}.#"),
            2 => format!("*.{k}.x.v"),
            _ => format!("t.{k}.x.v"),
        };
        run(count, pattern, |k| format!("t.{k}.x.v"), 1);
    }
    println!("topic, patterns with # in front and in the middle, a key of eight words");
    for count in [10, 1_000, 10_000] {
        let pattern = |k: u32| if k.is_multiple_of(2) { format!("#.a.{k}.#.z") } else { format!("a.#.{k}.#.*") };
        run(count, pattern, |k| format!("a.b.a.{k}.c.d.e.z"), 1);
    }
}

fn run(count: u32, pattern: impl Fn(u32) -> String, key: impl Fn(u32) -> String, expected: usize) {
    let mut exchange = open();
    (0..count).for_each(|slot| exchange.bind(slot, &BindingSpec::to_queue("q", pattern(slot))).expect("bound"));
    let mut random = Random::new(1);
    let keys: Vec<String> = (0..4096).map(|_| key(random.below(count))).collect();
    let mut out = Vec::new();
    let nanos = nanos_per_call(4096, |call| {
        out.clear();
        let key = &keys[call as usize % keys.len()];
        exchange.route(black_box(&Message::with_key(key)), &mut out).expect("routed");
        assert_eq!(out.len(), expected, "{key}");
    });
    println!("{count:>8} bindings {nanos:>8.1} ns a route");
}

fn open() -> GuestExchange {
    let host = FakeHost::new().table(Linkage::LinkedIn);
    let guest = Guest::linked(&exchange_topic::PLUGIN, host, &Config::default()).expect("registered");
    guest.exchange_types[0].open(&ExchangeSpec::default()).expect("opened")
}
