//! The firehose: copies of what is published and delivered in a vhost, for whoever wants to watch (semantics 29.1).
//!
//! While tracing is on, every publish goes to `amq.rabbitmq.trace` with the key `publish.EXCHANGE`, and every delivery with
//! `deliver.QUEUE`. A copy has the body as it was; everything else stands in its headers. What comes through the trace
//! exchange itself is not traced. Off at every start, unless the topology says otherwise.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use plugin_api::message::{Properties, PropertiesBuf};
use plugin_api::value::{Table, Value};

use super::Vhost;
use crate::message::{Message, Parts};

/// The exchange that copies go to.
pub const TRACE_EXCHANGE: &str = "amq.rabbitmq.trace";

/// Whose channel a message came from or goes to.
#[derive(Clone, Copy, Debug)]
pub struct Traced<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The connection's name.
    pub connection: &'a str,
    /// The channel.
    pub channel: u16,
    /// The connection's user.
    pub user: &'a str,
}

impl Vhost {
    /// Whether publishes and deliveries are copied.
    #[inline]
    pub fn is_traced(&self) -> bool {
        self.is_traced.load(Ordering::Relaxed)
    }

    /// Switches the copies on or off.
    pub fn set_tracing(&self, is_traced: bool) {
        self.is_traced.store(is_traced, Ordering::Relaxed);
        // Publishers look when they look for other changes.
        self.generation.fetch_add(1, Ordering::Release);
        tracing::info!(vhost = %self.name, is_traced, "tracing");
    }

    /// Copies a publish, which went to these queues.
    pub fn trace_publish(&self, by: Traced<'_>, message: &Message, queues: &[Arc<str>]) {
        let routed = Value::Array(queues.iter().map(|queue| Value::from(&**queue)).collect());
        self.trace(by, message, format!("publish.{}", message.exchange()), ("routed_queues", routed));
    }

    /// Copies a delivery from a queue.
    pub fn trace_delivery(&self, by: Traced<'_>, message: &Message, queue: &str, redelivered: bool) {
        if message.exchange() != TRACE_EXCHANGE {
            let redelivered = Value::I32(i32::from(redelivered));
            self.trace(by, message, format!("deliver.{queue}"), ("redelivered", redelivered));
        }
    }

    fn trace(&self, by: Traced<'_>, message: &Message, key: String, (name, value): (&str, Value)) {
        let Some(exchange) = self.exchange(TRACE_EXCHANGE) else { return };
        let keys = super::publish::extra_keys(message.properties()).ok().flatten().unwrap_or_default().keys;
        let keys = std::iter::once(message.routing_key()).chain(keys.iter().map(String::as_str)).map(Value::from);
        let headers = Table::new()
            .with("exchange_name", message.exchange())
            .with("routing_keys", Value::Array(keys.collect()))
            .with("properties", Value::Table(table_of(message.properties())))
            .with("node", by.node)
            .with("vhost", &*self.name)
            .with("connection", by.connection)
            .with("channel", Value::I32(i32::from(by.channel)))
            .with("user", by.user)
            .with(name, value);
        let properties = PropertiesBuf { headers: Some(headers), ..PropertiesBuf::default() }.encode();
        // An exchange's or queue's name may be as long as a key alone.
        let key = cut(&key, KEY_BYTES_MAX);
        let parts = Parts { exchange: TRACE_EXCHANGE, routing_key: key, properties: &properties };
        self.publish_inside(&exchange, &Message::new(parts, message.body()));
    }
}

/// The longest routing key.
const KEY_BYTES_MAX: usize = 255;

fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

/// Properties as a table, under the names that RabbitMQ gives them. BCC stays out of sight.
fn table_of(properties: Properties<'_>) -> Table {
    let Ok(mut properties) = properties.to_owned() else { return Table::new() };
    if let Some(headers) = &mut properties.headers {
        headers.remove("BCC");
    }
    let text = |value: Option<Vec<u8>>| value.map(Value::LongString);
    let octet = |value: Option<u8>| value.map(|value| Value::I32(i32::from(value)));
    let timestamp = properties.timestamp.map(|seconds| match i32::try_from(seconds) {
        Ok(seconds) => Value::I32(seconds),
        Err(_) => Value::Timestamp(seconds),
    });
    let entries = [
        ("content_type", text(properties.content_type)),
        ("content_encoding", text(properties.content_encoding)),
        ("headers", properties.headers.map(Value::Table)),
        ("delivery_mode", octet(properties.delivery_mode)),
        ("priority", octet(properties.priority)),
        ("correlation_id", text(properties.correlation_id)),
        ("reply_to", text(properties.reply_to)),
        ("expiration", text(properties.expiration)),
        ("message_id", text(properties.message_id)),
        ("timestamp", timestamp),
        ("type", text(properties.kind)),
        ("user_id", text(properties.user_id)),
        ("app_id", text(properties.app_id)),
        ("cluster_id", text(properties.cluster_id)),
    ];
    entries.into_iter().fold(Table::new(), |table, (name, value)| match value {
        Some(value) => table.with(name, value),
        None => table,
    })
}
