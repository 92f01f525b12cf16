//! A stopwatch for benches of plugins, and what benches of exchange types have in common.

use std::hint::black_box;
use std::time::Instant;

use super::FakeHost;
use crate::abi::LinkedPlugin;
use crate::abi::guest::{Guest, GuestExchange, Linkage};
use crate::config::Config;
use crate::exchange::{BindingSpec, ExchangeSpec};
use crate::message::{Message, Properties, PropertiesBuf};
use crate::value::Table;

/// Nanoseconds a call: the best of many short rounds of `calls` calls, since everything that disturbs a round makes it
/// slower. `call` is given the number of the call.
pub fn nanos_per_call(calls: u32, mut call: impl FnMut(u32)) -> f64 {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..calls).for_each(&mut call);
            start.elapsed().as_secs_f64() * 1e9 / f64::from(calls.max(1))
        })
        .fold(f64::INFINITY, f64::min)
}

/// An exchange whose routes are timed, across the ABI as the broker calls it.
#[derive(Debug)]
pub struct RouteBench(GuestExchange);

/// A message to route: routing key, properties, and how many bytes its body has.
pub type RouteMessage = (String, PropertiesBuf, usize);

impl RouteBench {
    /// An exchange of the plugin's first type, without bindings.
    ///
    /// # Panics
    /// When the plugin does not register or refuses the arguments.
    #[must_use]
    pub fn open(plugin: &LinkedPlugin, arguments: Table) -> Self {
        let host = FakeHost::new().table(Linkage::LinkedIn);
        let guest = Guest::linked(plugin, host, &Config::default()).expect("registered");
        let spec = ExchangeSpec { arguments, ..ExchangeSpec::default() };
        Self(guest.exchange_types[0].open(&spec).expect("opened"))
    }

    /// Binds as many queues, each by the routing key that `key` gives for its number.
    ///
    /// # Panics
    /// When the exchange refuses a binding.
    pub fn bind(&mut self, count: u32, key: impl Fn(u32) -> String) {
        for slot in 0..count {
            self.0.bind(slot, &BindingSpec::to_queue(format!("queue-{slot}"), key(slot))).expect("bound");
        }
    }

    /// Routes the messages in turns and prints what one route takes.
    ///
    /// # Panics
    /// When the exchange fails to route.
    pub fn run(&self, title: &str, messages: &[RouteMessage]) {
        let messages: Vec<_> =
            messages.iter().map(|(key, properties, bytes)| (key, properties.encode(), vec![0; *bytes])).collect();
        let mut out = Vec::new();
        let nanos = nanos_per_call(4096, |call| {
            out.clear();
            let (routing_key, raw, body) = &messages[call as usize % messages.len()];
            let message = Message { properties: Properties::from_raw(raw), body, ..Message::with_key(routing_key) };
            self.0.route(black_box(&message), &mut out).expect("routed");
            black_box(&out);
        });
        println!("{title:>44} {nanos:>9.1} ns a route");
    }
}

/// So many that some run undisturbed on a busy machine.
const ROUNDS: u32 = 300;
