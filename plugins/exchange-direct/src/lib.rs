//! The `direct` exchange type: a message takes the bindings whose key equals its routing key, byte for byte.
//!
//! Bindings with equal keys form a group, and a hash map leads from the key to it; the number of bindings does not matter.

use std::sync::Arc;

use plugin_api::error::Invalid;
use plugin_api::exchange::{BindingSlot, BindingSpec, DependsOn, Exchange, ExchangeSpec, ExchangeType, Routes};
use plugin_api::hash::Map;
use plugin_api::message::Message;
use plugin_api::slots::{GroupId, SlotGroups};

/// The type, as registered.
pub struct Direct;

impl ExchangeType for Direct {
    fn name(&self) -> &str {
        "direct"
    }

    fn description(&self) -> &str {
        "routes by equal keys"
    }

    fn depends_on(&self) -> DependsOn {
        DependsOn::Key
    }

    fn open(&self, _spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        Ok(Box::new(DirectExchange::default()))
    }
}

/// One direct exchange.
#[derive(Default)]
struct DirectExchange {
    by_key: Map<Arc<str>, GroupId>,
    /// The key of each group, by its number.
    keys: Vec<Arc<str>>,
    groups: SlotGroups,
}

impl DirectExchange {
    fn group(&mut self, key: &str) -> GroupId {
        if let Some(group) = self.by_key.get(key) {
            return *group;
        }
        let (key, group) = (Arc::from(key), self.groups.open());
        self.by_key.insert(Arc::clone(&key), group);
        match self.keys.get_mut(group.0 as usize) {
            Some(place) => *place = key,
            None => self.keys.push(key),
        }
        group
    }
}

impl Exchange for DirectExchange {
    fn bind(&mut self, slot: BindingSlot, binding: &BindingSpec) -> Result<(), Invalid> {
        let group = self.group(&binding.routing_key);
        self.groups.insert(group, slot);
        Ok(())
    }

    fn unbind(&mut self, slot: BindingSlot) {
        let Some(group) = self.groups.remove(slot) else { return };
        if self.groups.slots(group).is_empty()
            && let Some(key) = self.keys.get(group.0 as usize)
        {
            self.by_key.remove(key);
            self.groups.close(group);
        }
    }

    fn route(&self, message: &Message<'_>, routes: &mut Routes<'_>) {
        if let Some(group) = self.by_key.get(message.routing_key) {
            routes.extend(self.groups.slots(*group));
        }
    }
}

plugin_api::export_plugin!(exchange_types: [Direct]);

#[cfg(test)]
mod tests {
    use plugin_api::testing::routes;

    use super::*;

    #[test]
    fn keys_are_equal_byte_for_byte() {
        let mut exchange = DirectExchange::default();
        for (slot, key) in ["a", "a", "A", "", "a.b", "#"].into_iter().enumerate() {
            exchange.bind(BindingSlot(u32::try_from(slot).unwrap()), &BindingSpec::to_queue("q", key)).unwrap();
        }
        let check =
            |key: &str, expected: &[u32]| assert_eq!(routes(&exchange, &Message::with_key(key)), expected, "'{key}'");
        check("a", &[0, 1]);
        check("A", &[2]);
        check("", &[3]);
        check("a.b", &[4]);
        check("#", &[5]);
        check("a ", &[]);
    }

    #[test]
    fn nothing_is_left_of_a_key_without_bindings() {
        let mut exchange = DirectExchange::default();
        (0..100)
            .for_each(|slot| exchange.bind(BindingSlot(slot), &BindingSpec::to_queue("q", slot.to_string())).unwrap());
        (0..100).for_each(|slot| exchange.unbind(BindingSlot(slot)));
        assert!(exchange.by_key.is_empty());
        exchange.bind(BindingSlot(0), &BindingSpec::to_queue("q", "new")).unwrap();
        assert_eq!(exchange.keys.len(), 100, "groups are used again");
    }
}
