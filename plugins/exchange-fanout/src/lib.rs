//! The `fanout` exchange type: a message takes every binding, whatever its key.

use plugin_api::error::Invalid;
use plugin_api::exchange::{BindingSlot, BindingSpec, DependsOn, Exchange, ExchangeSpec, ExchangeType, Routes};
use plugin_api::message::Message;
use plugin_api::slots::{GroupId, SlotGroups};

/// The type, as registered.
pub struct Fanout;

impl ExchangeType for Fanout {
    fn name(&self) -> &str {
        "fanout"
    }

    fn description(&self) -> &str {
        "routes to every binding"
    }

    fn depends_on(&self) -> DependsOn {
        DependsOn::Nothing
    }

    fn open(&self, _spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        let mut slots = SlotGroups::new();
        let all = slots.open();
        Ok(Box::new(FanoutExchange { slots, all }))
    }
}

/// One fanout exchange: a single group of slots.
struct FanoutExchange {
    slots: SlotGroups,
    all: GroupId,
}

impl Exchange for FanoutExchange {
    fn bind(&mut self, slot: BindingSlot, _binding: &BindingSpec) -> Result<(), Invalid> {
        self.slots.insert(self.all, slot);
        Ok(())
    }

    fn unbind(&mut self, slot: BindingSlot) {
        self.slots.remove(slot);
    }

    fn route(&self, _message: &Message<'_>, routes: &mut Routes<'_>) {
        routes.extend(self.slots.slots(self.all));
    }
}

plugin_api::export_plugin!(exchange_types: [Fanout]);

#[cfg(test)]
mod tests {
    use plugin_api::testing::routes;

    use super::*;

    #[test]
    fn every_binding_is_taken_whatever_its_key() {
        let mut exchange = Fanout.open(&ExchangeSpec::default()).unwrap();
        (0..5).for_each(|slot| exchange.bind(BindingSlot(slot), &BindingSpec::to_queue("q", "a")).unwrap());
        exchange.unbind(BindingSlot(1));
        assert_eq!(routes(&*exchange, &Message::with_key("b")), [0, 2, 3, 4]);
    }
}
