//! The `topic` exchange type: binding keys are patterns over the words between dots, where `*` stands for exactly one word
//! and `#` for any number of words, also none.
//!
//! Patterns are kept in a trie, so that a route costs what its key and the patterns that still fit cost, not what the
//! number of bindings would.

mod trie;
mod words;

use plugin_api::error::Invalid;
use plugin_api::exchange::{BindingSlot, BindingSpec, DependsOn, Exchange, ExchangeSpec, ExchangeType, Routes};
use plugin_api::message::Message;

use crate::trie::Trie;

/// The type, as registered.
pub struct Topic;

impl ExchangeType for Topic {
    fn name(&self) -> &str {
        "topic"
    }

    fn description(&self) -> &str {
        "routes by patterns over the words of the key"
    }

    fn depends_on(&self) -> DependsOn {
        DependsOn::Key
    }

    fn open(&self, _spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        Ok(Box::new(TopicExchange { trie: Trie::new() }))
    }
}

/// One topic exchange.
struct TopicExchange {
    trie: Trie,
}

impl Exchange for TopicExchange {
    fn bind(&mut self, slot: BindingSlot, binding: &BindingSpec) -> Result<(), Invalid> {
        self.trie.insert(binding.routing_key.as_bytes(), slot);
        Ok(())
    }

    fn unbind(&mut self, slot: BindingSlot) {
        self.trie.remove(slot);
    }

    fn route(&self, message: &Message<'_>, routes: &mut Routes<'_>) {
        self.trie.walk(message.routing_key.as_bytes(), |slots| routes.extend(slots));
    }
}

plugin_api::export_plugin!(exchange_types: [Topic]);
