//! The `x-modulus-hash` exchange type: the hash of the routing key, modulo the number of bindings, says which binding a message takes.
//! Bindings are counted in the order of their destinations' names; binding keys and arguments play no part.
//!
//! With one binding more or less most keys move. `x-consistent-hash` does not do that.

use plugin_api::error::Invalid;
use plugin_api::exchange::{
    AskedPer, BindingSlot, BindingSpec, DependsOn, DestinationKind, Exchange, ExchangeSpec, ExchangeType, Routes,
};
use plugin_api::hash::{self, Map};
use plugin_api::message::Message;

/// The type, as registered.
pub struct ModulusHash;

impl ExchangeType for ModulusHash {
    fn name(&self) -> &str {
        "x-modulus-hash"
    }

    fn description(&self) -> &str {
        "routes by the hash of the key modulo the number of bindings"
    }

    fn depends_on(&self) -> DependsOn {
        DependsOn::Key
    }

    fn asked_per(&self) -> AskedPer {
        AskedPer::Message
    }

    fn open(&self, _spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        Ok(Box::new(ModulusHashExchange::default()))
    }
}

/// One modulus hash exchange.
#[derive(Default)]
struct ModulusHashExchange {
    sorted: Vec<(Destination, BindingSlot)>,
    bindings: Map<BindingSlot, Destination>,
}

/// Exchanges before queues, each by name, as RabbitMQ sorts them. Which of several bindings to one destination comes first
/// makes no difference.
type Destination = (bool, String);

impl Exchange for ModulusHashExchange {
    fn bind(&mut self, slot: BindingSlot, binding: &BindingSpec) -> Result<(), Invalid> {
        self.unbind(slot);
        let destination = (binding.destination_kind == DestinationKind::Queue, binding.destination.clone());
        self.bindings.insert(slot, destination.clone());
        let entry = (destination, slot);
        let place = self.sorted.partition_point(|other| *other < entry);
        self.sorted.insert(place, entry);
        Ok(())
    }

    fn unbind(&mut self, slot: BindingSlot) {
        let Some(destination) = self.bindings.remove(&slot) else { return };
        if let Ok(place) = self.sorted.binary_search(&(destination, slot)) {
            self.sorted.remove(place);
        }
    }

    fn route(&self, message: &Message<'_>, routes: &mut Routes<'_>) {
        let count = self.sorted.len() as u64;
        if let Some(index) = hash::stable(message.routing_key.as_bytes()).checked_rem(count)
            && let Some((_, slot)) = self.sorted.get(index as usize)
        {
            routes.push(*slot);
        }
    }
}

plugin_api::export_plugin!(exchange_types: [ModulusHash]);

#[cfg(test)]
mod tests {
    use plugin_api::testing::routes;

    use super::*;

    fn bind(exchange: &mut dyn Exchange, slot: u32, queue: &str) {
        exchange.bind(BindingSlot(slot), &BindingSpec::to_queue(queue, slot.to_string())).unwrap();
    }

    fn owners(exchange: &dyn Exchange) -> Vec<Vec<u32>> {
        (0..10_000).map(|key| routes(exchange, &Message::with_key(&key.to_string()))).collect()
    }

    #[test]
    fn each_key_takes_one_destination_and_each_destination_as_many_keys() {
        let mut exchange = ModulusHash.open(&ExchangeSpec::default()).unwrap();
        (0..4).for_each(|slot| bind(&mut *exchange, slot, &format!("q{slot}")));
        let owners = owners(&*exchange);
        for slot in 0..4 {
            let count = owners.iter().filter(|slots| **slots == [slot]).count();
            assert!((2_300..2_700).contains(&count), "{count} of 10000 for slot {slot}");
        }
    }

    #[test]
    fn bindings_count_in_the_order_of_their_destinations() {
        let mut one = ModulusHash.open(&ExchangeSpec::default()).unwrap();
        ["a", "b", "c"].iter().zip(0..).for_each(|(queue, slot)| bind(&mut *one, slot, queue));
        let mut two = ModulusHash.open(&ExchangeSpec::default()).unwrap();
        for (slot, queue) in [(2, "c"), (0, "a"), (5, "x"), (1, "b")] {
            bind(&mut *two, slot, queue);
        }
        assert_ne!(owners(&*one), owners(&*two));
        two.unbind(BindingSlot(5));
        assert_eq!(owners(&*one), owners(&*two));
    }

    #[test]
    fn destination_that_is_bound_twice_has_two_shares() {
        let mut exchange = ModulusHash.open(&ExchangeSpec::default()).unwrap();
        [(0, "a"), (1, "b"), (2, "a")].iter().for_each(|(slot, queue)| bind(&mut *exchange, *slot, queue));
        let to_b = owners(&*exchange).iter().filter(|slots| **slots == [1]).count();
        assert!((3_100..3_600).contains(&to_b), "{to_b} of 10000");
    }
}
