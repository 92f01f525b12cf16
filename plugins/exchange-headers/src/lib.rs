//! The `headers` exchange type: a binding names headers and values, and a message takes it when all of them, or any of
//! them, stand in its headers. The routing key plays no part.

mod canonical;
mod index;
mod matching;

use plugin_api::error::Invalid;
use plugin_api::exchange::{BindingSlot, BindingSpec, DependsOn, Exchange, ExchangeSpec, ExchangeType, Routes};
use plugin_api::message::Message;

use crate::index::Index;
use crate::matching::Matching;

/// The type, as registered.
pub struct Headers;

impl ExchangeType for Headers {
    fn name(&self) -> &str {
        "headers"
    }

    fn description(&self) -> &str {
        "routes by values of headers"
    }

    fn depends_on(&self) -> DependsOn {
        DependsOn::KeyAndHeaders
    }

    fn validate_binding(&self, _spec: &ExchangeSpec, binding: &BindingSpec) -> Result<(), Invalid> {
        Matching::of(&binding.arguments).map(|_| ())
    }

    fn open(&self, _spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        Ok(Box::new(HeadersExchange { index: Index::default() }))
    }
}

/// One headers exchange.
struct HeadersExchange {
    index: Index,
}

impl Exchange for HeadersExchange {
    fn bind(&mut self, slot: BindingSlot, binding: &BindingSpec) -> Result<(), Invalid> {
        self.index.insert(slot, &Matching::of(&binding.arguments)?);
        Ok(())
    }

    fn unbind(&mut self, slot: BindingSlot) {
        self.index.remove(slot);
    }

    fn route(&self, message: &Message<'_>, routes: &mut Routes<'_>) {
        self.index.walk(message.properties.headers(), routes);
    }
}

plugin_api::export_plugin!(exchange_types: [Headers]);
