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
