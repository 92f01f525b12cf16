//! The management API over real sockets: its rules, who may call what, bad input, and Debian's `rabbitmqadmin`; with a real RabbitMQ
//! as the oracle of statuses and shapes.

#![allow(clippy::unwrap_used, reason = "a helper that panics fails its test, which is what it is for")]

mod answers;
mod bad_input;
mod beyond;
mod fuzz;
mod golden;
mod lists;
mod matrix;
mod messages;
mod oracle;
mod rabbitmqadmin;
mod resources;
mod rules;
mod shape;
mod tools;
mod visibility;

use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::http::Http;

/// A broker with the API on a free port, and guest at it.
fn broker() -> (BrokerProcess, Http) {
    let broker = BrokerOptions::default().http().start().expect("the broker starts");
    let http = Http::new(broker.http());
    (broker, http)
}

/// A broker with this topology.
fn broker_with(topology: &str) -> (BrokerProcess, Http) {
    let folder = tests::temp::TempDir::new("management");
    let path = folder.write("topology.yaml", topology);
    let broker = BrokerOptions::default().http().topology(path).start().expect("the broker starts");
    let http = Http::new(broker.http());
    (broker, http)
}

/// Of messages that were got or browsed: payload, and whether it is marked as redelivered.
fn payloads(messages: &serde_json::Value) -> Vec<(String, bool)> {
    let one = |message: &serde_json::Value| {
        (message["payload"].as_str().unwrap().to_owned(), message["redelivered"].as_bool().unwrap())
    };
    messages.as_array().unwrap().iter().map(one).collect()
}

/// One of [`payloads`].
fn m(payload: &str, redelivered: bool) -> (String, bool) {
    (payload.to_owned(), redelivered)
}
