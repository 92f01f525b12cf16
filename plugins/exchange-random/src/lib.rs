//! The `x-random` exchange type: each message takes one binding, chosen by chance. Binding keys and arguments play no part.
//!
//! `x-local-random` does the same among the queues of the node that the publisher is connected to. A node has all queues that a
//! message can reach, so the difference is what can be bound: queues, and without a key.

mod chance;

use plugin_api::error::Invalid;
use plugin_api::exchange::{
    AskedPer, BindingSlot, BindingSpec, DependsOn, DestinationKind, Exchange, ExchangeSpec, ExchangeType, Routes, Takes,
};
use plugin_api::message::Message;
use plugin_api::slots::{GroupId, SlotGroups};

/// The type, as registered.
pub struct Random;

impl ExchangeType for Random {
    fn name(&self) -> &str {
        "x-random"
    }

    fn description(&self) -> &str {
        "routes to one binding by chance"
    }

    fn depends_on(&self) -> DependsOn {
        DependsOn::State
    }

    fn asked_per(&self) -> AskedPer {
        AskedPer::Message
    }

    fn open(&self, _spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        let mut slots = SlotGroups::new();
        let all = slots.open();
        Ok(Box::new(RandomExchange { slots, all }))
    }
}

/// The type for queues of this node, as registered.
pub struct LocalRandom;

impl ExchangeType for LocalRandom {
    fn name(&self) -> &str {
        "x-local-random"
    }

    fn description(&self) -> &str {
        "routes to one queue of this node by chance"
    }

    fn depends_on(&self) -> DependsOn {
        Random.depends_on()
    }

    fn asked_per(&self) -> AskedPer {
        Random.asked_per()
    }

    /// What others keep is not local.
    fn takes(&self) -> Takes {
        Takes::ClassicQueues
    }

    /// In RabbitMQ's words.
    fn validate_binding(&self, _spec: &ExchangeSpec, binding: &BindingSpec) -> Result<(), Invalid> {
        if !binding.routing_key.is_empty() {
            return Err(Invalid::new(format!("Non empty binding '{}' key not permitted", binding.routing_key)));
        }
        match binding.destination_kind {
            DestinationKind::Queue => Ok(()),
            DestinationKind::Exchange => Err("Destination not found".into()),
        }
    }

    fn open(&self, spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        Random.open(spec)
    }
}

/// One random exchange: a single group of slots.
struct RandomExchange {
    slots: SlotGroups,
    all: GroupId,
}

impl Exchange for RandomExchange {
    fn bind(&mut self, slot: BindingSlot, _binding: &BindingSpec) -> Result<(), Invalid> {
        self.slots.insert(self.all, slot);
        Ok(())
    }

    fn unbind(&mut self, slot: BindingSlot) {
        self.slots.remove(slot);
    }

    fn route(&self, _message: &Message<'_>, routes: &mut Routes<'_>) {
        if let Some(slot) = chance::pick(self.slots.slots(self.all)) {
            routes.push(*slot);
        }
    }
}

plugin_api::export_plugin!(exchange_types: [Random, LocalRandom]);

#[cfg(test)]
mod tests {
    use plugin_api::testing::routes;

    use super::*;

    fn exchange(queues: &[&str]) -> Box<dyn Exchange> {
        let mut exchange = Random.open(&ExchangeSpec::default()).unwrap();
        for (slot, queue) in (0..).zip(queues) {
            exchange.bind(BindingSlot(slot), &BindingSpec::to_queue(*queue, slot.to_string())).unwrap();
        }
        exchange
    }

    fn counts(exchange: &dyn Exchange, slots: usize) -> Vec<u32> {
        let mut counts = vec![0; slots];
        for _ in 0..10_000 {
            let taken = routes(exchange, &Message::with_key("any"));
            assert_eq!(taken.len(), 1, "a message takes exactly one binding");
            counts[taken[0] as usize] += 1;
        }
        counts
    }

    #[test]
    fn every_binding_is_as_likely_as_the_others() {
        let counts = counts(&*exchange(&["a", "b", "c", "a"]), 4);
        // Six standard deviations of a quarter of 10,000.
        assert!(counts.iter().all(|count| (2_240..2_760).contains(count)), "{counts:?}");
    }

    #[test]
    fn local_queues_are_bound_without_a_key() {
        let judge = |binding: &BindingSpec| {
            LocalRandom.validate_binding(&ExchangeSpec::default(), binding).map_err(|error| error.text)
        };
        assert_eq!(judge(&BindingSpec::to_queue("q", "")), Ok(()));
        assert_eq!(judge(&BindingSpec::to_queue("q", "k")), Err("Non empty binding 'k' key not permitted".into()));
        let to_exchange = BindingSpec { destination_kind: DestinationKind::Exchange, ..BindingSpec::to_queue("x", "") };
        assert_eq!(judge(&to_exchange), Err("Destination not found".into()));
    }

    #[test]
    fn unbound_slots_are_not_taken() {
        let mut exchange = exchange(&["a", "b", "c"]);
        exchange.unbind(BindingSlot(0));
        let left = counts(&*exchange, 3);
        assert!(left[0] == 0 && left[1] > 4_000 && left[2] > 4_000, "{left:?}");
        exchange.unbind(BindingSlot(1));
        assert_eq!(counts(&*exchange, 3), [0, 0, 10_000]);
        exchange.unbind(BindingSlot(2));
        assert!(routes(&*exchange, &Message::with_key("any")).is_empty());
    }
}
