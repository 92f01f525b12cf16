//! The `x-consistent-hash` exchange type: each routing key (or header, or property) belongs to one destination, and keeps to it while
//! others come and go. The binding key is the destination's weight: its share of the keys.

mod hashed;
mod ring;

use plugin_api::error::{Invalid, as_erlang};
use plugin_api::exchange::{
    AskedPer, BindingSlot, BindingSpec, DependsOn, Exchange, ExchangeSpec, ExchangeType, Routes,
};
use plugin_api::message::Message;

use crate::hashed::Hashed;
use crate::ring::Ring;

/// The heaviest destination, as RabbitMQ has it.
const WEIGHT_MAX: u32 = 10_000;

/// The type, as registered.
pub struct ConsistentHash;

impl ExchangeType for ConsistentHash {
    fn name(&self) -> &str {
        "x-consistent-hash"
    }

    fn description(&self) -> &str {
        "routes each key to one of the bindings, and the same key to the same one"
    }

    fn depends_on(&self) -> DependsOn {
        DependsOn::State
    }

    fn depends_on_for(&self, spec: &ExchangeSpec) -> DependsOn {
        Hashed::of(&spec.arguments).map_or(DependsOn::State, |hashed| hashed.depends_on())
    }

    fn asked_per(&self) -> AskedPer {
        AskedPer::Message
    }

    fn validate(&self, spec: &ExchangeSpec) -> Result<(), Invalid> {
        Hashed::of(&spec.arguments).map(drop)
    }

    fn validate_binding(&self, _spec: &ExchangeSpec, binding: &BindingSpec) -> Result<(), Invalid> {
        weight(&binding.routing_key).map(drop)
    }

    fn open(&self, spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        Ok(Box::new(ConsistentHashExchange { hashed: Hashed::of(&spec.arguments)?, ring: Ring::default() }))
    }
}

/// One consistent hash exchange.
struct ConsistentHashExchange {
    hashed: Hashed,
    ring: Ring,
}

impl Exchange for ConsistentHashExchange {
    fn bind(&mut self, slot: BindingSlot, binding: &BindingSpec) -> Result<(), Invalid> {
        let weight = weight(&binding.routing_key)?;
        self.ring.insert(slot, (binding.destination_kind, &binding.destination), weight);
        Ok(())
    }

    fn unbind(&mut self, slot: BindingSlot) {
        self.ring.remove(slot);
    }

    fn route(&self, message: &Message<'_>, routes: &mut Routes<'_>) {
        if let Some(slot) = self.ring.owner(self.hashed.hash(message)) {
            routes.push(slot);
        }
    }
}

/// The weight that a binding key stands for: a decimal number, with a sign if somebody likes.
fn weight(routing_key: &str) -> Result<u32, Invalid> {
    let digits = routing_key.strip_prefix(['+', '-']).unwrap_or(routing_key);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Invalid::new(format!("The binding key must be an integer: {}", as_erlang(routing_key.as_bytes()))));
    }
    // Digits that are no number of this size are too large, or too small with a minus.
    let number = routing_key.parse::<i64>();
    match number.unwrap_or(if routing_key.starts_with('-') { i64::MIN } else { i64::MAX }) {
        ..1 => Err(Invalid::new("The binding key must be greater than 0")),
        number => match u32::try_from(number) {
            Ok(weight) if weight <= WEIGHT_MAX => Ok(weight),
            _ => Err(Invalid::new(format!("The binding key must not exceed {WEIGHT_MAX}"))),
        },
    }
}

plugin_api::export_plugin!(exchange_types: [ConsistentHash]);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(key: &str, expected: &str) {
        assert_eq!(weight(key).unwrap_err().text, expected);
    }

    #[test]
    fn binding_key_is_a_weight() {
        for (key, expected) in [("1", 1), ("010", 10), ("+7", 7), ("10000", 10_000)] {
            assert_eq!(weight(key), Ok(expected));
        }
        refused("0", "The binding key must be greater than 0");
        refused("-3", "The binding key must be greater than 0");
        refused("-99999999999999999999", "The binding key must be greater than 0");
        refused("10001", "The binding key must not exceed 10000");
        refused("99999999999999999999", "The binding key must not exceed 10000");
        refused("", "The binding key must be an integer: <<>>");
        refused("ten", "The binding key must be an integer: <<\"ten\">>");
        refused("1.5", "The binding key must be an integer: <<\"1.5\">>");
        refused("1 ", "The binding key must be an integer: <<\"1 \">>");
        refused("é", "The binding key must be an integer: <<\"é\"/utf8>>");
    }

    #[test]
    fn only_a_property_or_the_body_keeps_routes_from_being_remembered() {
        let depends_on =
            |arguments| ConsistentHash.depends_on_for(&ExchangeSpec { arguments, ..ExchangeSpec::default() });
        let table = plugin_api::value::Table::new;
        assert_eq!(depends_on(table()), DependsOn::Key);
        assert_eq!(depends_on(table().with("hash-header", "h")), DependsOn::KeyAndHeaders);
        assert_eq!(depends_on(table().with("hash-property", "message_id")), DependsOn::State);
    }
}
