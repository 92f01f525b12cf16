//! The `x-recent-history` exchange type: a fanout that remembers the last messages and hands them to each new binding.
//!
//! The history lives in memory. The broker keeps the persistent messages of a durable exchange over a restart.

mod history;

use std::sync::Mutex;

use plugin_api::error::{Invalid, value_as_erlang};
use plugin_api::exchange::{
    AskedPer, BindingSlot, BindingSpec, Deliveries, DependsOn, Exchange, ExchangeSpec, ExchangeType, Routes,
};
use plugin_api::message::{Message, Properties};
use plugin_api::slots::{GroupId, SlotGroups};
use plugin_api::value::{Table, Value, ValueRef};

use crate::history::{History, Remembered};

/// How many messages are remembered when nothing is said, as in RabbitMQ.
const LENGTH_DEFAULT: usize = 20;

/// What the messages of one exchange may take, in bytes. The oldest go first; RabbitMQ knows no such limit.
pub const HISTORY_BYTES_MAX: usize = 64 * 1024 * 1024;

const LENGTH: &str = "x-recent-history-length";
const NO_STORE: &str = "x-recent-history-no-store";

/// The type, as registered.
pub struct RecentHistory;

impl ExchangeType for RecentHistory {
    fn name(&self) -> &str {
        "x-recent-history"
    }

    fn description(&self) -> &str {
        "routes to every binding, and hands the last messages to new ones"
    }

    /// The route itself depends on nothing, but every message has to pass to be remembered.
    fn depends_on(&self) -> DependsOn {
        DependsOn::State
    }

    fn asked_per(&self) -> AskedPer {
        AskedPer::Message
    }

    fn validate(&self, spec: &ExchangeSpec) -> Result<(), Invalid> {
        length(&spec.arguments).map(drop)
    }

    fn open(&self, spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        let count_max = length(&spec.arguments)?;
        let history = Mutex::new(History::new(count_max, HISTORY_BYTES_MAX));
        let mut slots = SlotGroups::new();
        let all = slots.open();
        Ok(Box::new(RecentHistoryExchange { slots, all, count_max: count_max as u64, history }))
    }
}

/// One recent history exchange.
struct RecentHistoryExchange {
    slots: SlotGroups,
    all: GroupId,
    count_max: u64,
    /// Held for as long as it takes to put one message in.
    history: Mutex<History>,
}

impl Exchange for RecentHistoryExchange {
    fn restore(&mut self, message: &Message<'_>) {
        let history = self.history.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(history.push(Remembered::of(message)));
    }

    fn bind(&mut self, slot: BindingSlot, _binding: &BindingSpec) -> Result<(), Invalid> {
        self.slots.insert(self.all, slot);
        Ok(())
    }

    fn bound(&mut self, _slot: BindingSlot, deliveries: &mut Deliveries<'_>) {
        // A panic while the lock was held cannot have left a message half in: it is made before.
        let history = self.history.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        history.messages().for_each(|message| deliveries.push(&message));
    }

    fn unbind(&mut self, slot: BindingSlot) {
        self.slots.remove(slot);
    }

    fn route(&self, message: &Message<'_>, routes: &mut Routes<'_>) {
        if is_wanted(message.properties) {
            let remembered = Remembered::of(message);
            // What is forgotten is freed after the lock.
            let _forgotten = self.history.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(remembered);
            routes.keep(self.count_max, HISTORY_BYTES_MAX as u64);
        }
        routes.extend(self.slots.slots(self.all));
    }
}

/// Whether a message is to be remembered. One with properties that cannot be read could not be published again.
fn is_wanted(properties: Properties<'_>) -> bool {
    let no_store = properties.headers().and_then(|headers| headers.get(NO_STORE)) == Some(ValueRef::Bool(true));
    !no_store && properties.check().is_ok()
}

/// How many messages an exchange with these arguments remembers.
///
/// # Errors
/// RabbitMQ's text; it takes the signed integer types.
fn length(arguments: &Table) -> Result<usize, Invalid> {
    let Some(value) = arguments.get(LENGTH) else { return Ok(LENGTH_DEFAULT) };
    let number = match value {
        Value::I8(_) | Value::I16(_) | Value::I32(_) | Value::I64(_) => value.as_i64().unwrap_or_default(),
        _ => 0,
    };
    match usize::try_from(number) {
        Ok(length @ 1..) => Ok(length),
        _ => {
            let printed = value_as_erlang(value);
            Err(Invalid::new(format!("Invalid argument {printed}, '{LENGTH}' must be a positive integer")))
        }
    }
}

plugin_api::export_plugin!(exchange_types: [RecentHistory]);

#[cfg(test)]
mod tests;
