//! The simulator: connections, queues, store and clients in one thread, on a virtual clock, with faults that follow from a seed.
//!
//! `README.md` says how it works. As a test it runs a thousand seeds and shows that every oracle notices a planted defect:
//! `cargo test -p tests --test sim`. With arguments it runs what they say: `cargo test -p tests --test sim -- --seed 7 --trace`.

#![expect(dead_code, reason = "what happened is also written down for the trace, which shows it by its debug form")]

mod accidents;
mod client;
mod clock;
mod command;
mod defect;
mod facts;
mod faults;
mod history;
mod meddler;
mod message;
mod network;
mod node;
mod oracle;
mod phases;
mod plan;
mod storage;
mod tasks;
mod trace;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::main()
}
