//! The management API over real sockets: its rules, who may call what, bad input, and Debian's `rabbitmqadmin`; with a real RabbitMQ
//! as the oracle of statuses and shapes.

#![allow(clippy::unwrap_used, reason = "a helper that panics fails its test, which is what it is for")]

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
