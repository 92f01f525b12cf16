//! The exchanges that the broker itself publishes to: what happens (`amq.rabbitmq.event`, semantics 29.2) and the log (`amq.rabbitmq.log`, 29.3).
//!
//! Both are topic exchanges of the vhosts that ask for them, internal and durable like the predeclared ones. What they say is of the whole broker, so
//! whoever may bind to them hears of other vhosts, too; RabbitMQ does the same. Nothing is put together while nothing is bound.

use std::sync::Arc;

use plugin_api::exchange::ExchangeSpec;
use plugin_api::message::PropertiesBuf;
use plugin_api::value::Table;

use super::Vhost;
use crate::events::{Event, LogLine};
use crate::message::{Message, Parts};
use crate::plugin_host::TypeError;
use crate::routing::Exchange;

/// Where events go.
pub const EVENT_EXCHANGE: &str = "amq.rabbitmq.event";
/// Where lines of the log go.
pub const LOG_EXCHANGE: &str = "amq.rabbitmq.log";

impl Vhost {
    /// Makes one of the two exchanges; before durable bindings are restored, which may come from it.
    ///
    /// # Errors
    /// The built-in exchange type cannot be opened.
    pub fn add_broker_exchange(&self, name: &str) -> Result<(), TypeError> {
        let spec = ExchangeSpec {
            vhost: self.name.to_string(),
            name: name.into(),
            kind: super::declare::TOPIC.into(),
            durable: true,
            internal: true,
            ..ExchangeSpec::default()
        };
        let missing = || TypeError::Faulted("the built-in exchange type 'topic' is missing".into());
        let types = self.registry.exchange_types(&spec)?.ok_or_else(missing)?;
        let exchange = Arc::new(Exchange::open(self.numbers.next(), spec, &types)?);
        let mut tables = self.tables.write();
        tables.add_exchange(exchange);
        // As of the predeclared ones: it is there because the configuration says so, and not because somebody declared it.
        tables.changes.clear();
        self.changed(tables);
        Ok(())
    }

    /// Publishes an event as RabbitMQ's event exchange does: everything in the headers, an empty body.
    pub fn publish_event(&self, event: &Event) {
        let Some(exchange) = self.bound_exchange(EVENT_EXCHANGE) else { return };
        let at_ms = i64::try_from(event.at_ms).unwrap_or(i64::MAX);
        let properties = PropertiesBuf {
            headers: Some(event.properties.clone().with("timestamp_in_ms", at_ms)),
            delivery_mode: Some(2),
            timestamp: Some(event.at_ms / 1000),
            ..PropertiesBuf::default()
        };
        self.publish_own(&exchange, event.kind.key(), properties, b"");
    }

    /// Publishes a line of the log under its level; `node` is the broker's name.
    pub fn publish_log(&self, node: &str, line: &LogLine) {
        let Some(exchange) = self.bound_exchange(LOG_EXCHANGE) else { return };
        let properties = PropertiesBuf {
            content_type: Some(b"text/plain".to_vec()),
            headers: Some(Table::new().with("node", node)),
            timestamp: Some(line.at_ms / 1000),
            ..PropertiesBuf::default()
        };
        self.publish_own(&exchange, line.level, properties, line.text.as_bytes());
    }

    fn bound_exchange(&self, name: &str) -> Option<Arc<Exchange>> {
        self.exchange(name).filter(|exchange| exchange.binding_count() > 0)
    }

    fn publish_own(&self, exchange: &Arc<Exchange>, routing_key: &str, properties: PropertiesBuf, body: &[u8]) {
        let parts = Parts { exchange: &exchange.name, routing_key, properties: &properties.encode() };
        self.publish_inside(exchange, &Message::new(parts, body));
    }
}
