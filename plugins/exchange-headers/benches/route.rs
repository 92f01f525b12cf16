//! What a route costs, across the ABI as the broker calls it: `cargo bench -p exchange-headers`.
//!
//! The figure should not grow with the number of bindings, but for what the memory of larger tables costs.

use std::hint::black_box;

use plugin_api::abi::guest::{Guest, GuestExchange, Linkage};
use plugin_api::config::Config;
use plugin_api::exchange::{BindingSpec, ExchangeSpec};
use plugin_api::message::{Message, Properties, PropertiesBuf};
use plugin_api::testing::{FakeHost, Random, nanos_per_call};
use plugin_api::value::Table;

fn main() {
    println!("headers, one header, all");
    for count in [10, 1_000, 10_000] {
        let tenant = |k: u32| Table::new().with("tenant", k.to_string());
        run(count, |k| tenant(k).with("x-match", "all"), tenant);
    }
    println!("headers, three of five headers, all; two of them are common");
    for count in [10, 1_000, 10_000] {
        let binding = |k: u32| Table::new().with("format", "pdf").with("tenant", i64::from(k)).with("signed", true);
        run(count, binding, |k| binding(k).with("trace", "4bf92f3577b34da6").with("retries", 0_i32));
    }
    println!("headers, any of three headers");
    for count in [10, 1_000, 10_000] {
        let binding = |k: u32| Table::new().with("a", i64::from(k)).with("b", i64::from(k)).with("c", k.to_string());
        run(count, |k| binding(k).with("x-match", "any"), binding);
    }
}

fn run(count: u32, binding: impl Fn(u32) -> Table, headers: impl Fn(u32) -> Table) {
    let mut exchange = open();
    (0..count).for_each(|slot| {
        let binding = BindingSpec { arguments: binding(slot), ..BindingSpec::to_queue("q", "") };
        exchange.bind(slot, &binding).expect("bound");
    });
    let mut random = Random::new(1);
    let raws: Vec<(u32, Vec<u8>)> = (0..4096)
        .map(|_| {
            let k = random.below(count);
            (k, PropertiesBuf { headers: Some(headers(k)), ..PropertiesBuf::default() }.encode())
        })
        .collect();
    let mut out = Vec::new();
    let nanos = nanos_per_call(4096, |call| {
        out.clear();
        let (k, raw) = &raws[call as usize % raws.len()];
        let message = Message { properties: Properties::from_raw(raw), ..Message::with_key("") };
        exchange.route(black_box(&message), &mut out).expect("routed");
        assert!(out.iter().all(|slot| slot == k) && !out.is_empty(), "{out:?} for {k}");
    });
    println!("{count:>8} bindings {nanos:>8.1} ns a route");
}

fn open() -> GuestExchange {
    let host = FakeHost::new().table(Linkage::LinkedIn);
    let guest = Guest::linked(&exchange_headers::PLUGIN, host, &Config::default()).expect("registered");
    guest.exchange_types[0].open(&ExchangeSpec::default()).expect("opened")
}
