//! One route, without the ABI.

use crate::exchange::{Exchange, Routes};
use crate::message::Message;

/// The slots that `message` takes, sorted and each once: for tests of what a type's routing means.
pub fn routes(exchange: &dyn Exchange, message: &Message<'_>) -> Vec<u32> {
    let mut slots = Vec::new();
    Routes::append_to(&mut slots, |routes| exchange.route(message, routes));
    slots.sort_unstable();
    slots.dedup();
    slots
}
