//! How often a message came back, and the message as it is handed out (semantics 13.22, 30.2).
//!
//! Every return counts: a requeue, and the end of the channel or connection that had it. Above the queue's limit the message dies. The
//! count lives with the message in memory; after a restart of the broker it begins again.

use std::sync::Arc;

use plugin_api::value::Value;

use super::ports::DeathReason;
use super::ready::{Entry, Hot};
use super::{Effects, Queue};
use crate::message::{Marks, Message, Parts};

/// The header that says how often a message came back.
const DELIVERY_COUNT: &str = "x-delivery-count";

impl Queue {
    /// Messages come back from whoever had them, and stand where they stood before (semantics 13.20). What is dropped for it is dropped
    /// before anybody gets anything.
    pub(super) fn take_back(&mut self, entries: Vec<Entry>, effects: &mut Effects) {
        for entry in entries {
            let returns = entry.returns.saturating_add(1);
            let entry = Entry { redelivered: true, returns, ..entry };
            match self.options.delivery_limit {
                Some(limit) if u32::from(returns) > limit => self.die(entry, DeathReason::DeliveryLimit, effects),
                _ => self.ready.put_back(entry),
            }
        }
        self.trim(effects);
    }

    /// The message as its consumer gets it, where that is not the one that the queue keeps.
    #[inline]
    pub(super) fn as_delivered(&self, hot: &Hot) -> Option<Arc<Message>> {
        let is_counted = hot.returns > 0 && self.options.counts_deliveries;
        if !is_counted && !hot.message.marks().has(Marks::HIDES_BCC) {
            return None;
        }
        changed(&hot.message, is_counted.then_some(hot.returns))
    }
}

/// Without the keys that nobody may see, and with the count of returns if there is one. None when the properties cannot be read.
fn changed(message: &Message, returns: Option<u16>) -> Option<Arc<Message>> {
    let mut properties = message.properties().to_owned().ok()?;
    let headers = properties.headers.get_or_insert_default();
    if message.marks().has(Marks::HIDES_BCC) {
        headers.remove("BCC");
    }
    if let Some(returns) = returns {
        headers.insert(DELIVERY_COUNT, Value::I64(i64::from(returns)));
    }
    let parts = Parts { properties: &properties.encode(), ..message.parts() };
    Some(Message::marked(parts, message.body(), message.marks().without(Marks::HIDES_BCC)))
}
