//! What is told of changes in a vhost to whoever listens to [`crate::events`] (semantics 29.2).
//!
//! Changes note down what happened while the names are locked, and tell it when they are done, still under that lock: so events come in the order of
//! the changes. Nothing is noted while nobody listens.

use plugin_api::exchange::DestinationKind;
use plugin_api::value::{TABLE_DEPTH_MAX, Table, Value};
use serde_json::{Map, Value as Json};

use super::QueueRecord;
use super::json_table::{table_from_json, value_from_json};
use super::policy::{PolicySpec, QueueType};
use super::settings::{VhostLimits, VhostMetadata};
use crate::events::{Events, Kind, PERFORMED_BY, actor};
use crate::routing::Exchange;
use crate::routing::exchange::Identity;

/// Events of one change.
#[derive(Debug, Default)]
pub(super) struct Happened {
    pub(super) events: Events,
    noted: Vec<(Kind, Table)>,
}

impl Happened {
    pub(super) fn new(events: Events) -> Self {
        Self { events, noted: Vec::new() }
    }

    pub(super) fn note(&mut self, kind: Kind, properties: impl FnOnce() -> Table) {
        if self.events.is_watched() {
            self.noted.push((kind, properties()));
        }
    }

    /// As [`Self::note`], for a setting.
    pub(super) fn note_setting(&mut self, kind: Kind, properties: impl FnOnce() -> Table) {
        self.note(kind, || properties().with(PERFORMED_BY, &*actor()));
    }

    /// Forgets what nobody needs to hear.
    pub(super) fn clear(&mut self) {
        self.noted.clear();
    }

    /// Tells what was noted; `user` did it.
    pub(super) fn tell(&mut self, vhost: &str, user: Option<&str>) {
        for (kind, properties) in self.noted.drain(..) {
            self.events.tell(kind, Some(vhost), || match user {
                Some(user) => properties.with(PERFORMED_BY, user),
                None => properties,
            });
        }
    }
}

pub(super) fn queue_created(queue: &QueueRecord) -> Table {
    Table::new()
        .with("name", &*queue.name)
        .with("type", QueueType::of(&queue.arguments).name())
        .with("durable", queue.durable)
        .with("auto_delete", queue.auto_delete)
        .with("exclusive", queue.owner.is_some())
        .with("arguments", Value::Table(queue.arguments.clone()))
}

pub(super) fn queue_deleted(queue: &QueueRecord) -> Table {
    Table::new().with("name", &*queue.name).with("type", QueueType::of(&queue.arguments).name())
}

pub(super) fn exchange_created(exchange: &Exchange) -> Table {
    let spec = &exchange.spec;
    Table::new()
        .with("name", &*exchange.name)
        .with("type", spec.kind.as_str())
        .with("durable", spec.durable)
        .with("auto_delete", spec.auto_delete)
        .with("internal", spec.internal)
        .with("arguments", Value::Table(spec.arguments.clone()))
}

pub(super) fn exchange_deleted(exchange: &Exchange) -> Table {
    Table::new().with("name", &*exchange.name)
}

pub(super) fn binding(source: &Exchange, identity: &Identity) -> Table {
    let destination_kind = match identity.destination_kind {
        DestinationKind::Queue => "queue",
        DestinationKind::Exchange => "exchange",
    };
    Table::new()
        .with("source_name", &*source.name)
        .with("source_kind", "exchange")
        .with("destination_name", &*identity.destination)
        .with("destination_kind", destination_kind)
        .with("routing_key", &*identity.routing_key)
        .with("arguments", Value::Table(Table::decode(&identity.arguments).unwrap_or_default()))
}

pub(super) fn policy_set(policy: &PolicySpec) -> Table {
    Table::new()
        .with("name", policy.name.as_str())
        .with("pattern", policy.pattern.as_str())
        .with("apply-to", policy.apply_to.name())
        .with("priority", policy.priority)
        .with("definition", object(&policy.definition))
}

/// What RabbitMQ says of a queue that has another policy because of a change; `set` is the policy that was added or changed.
pub(super) fn queue_policy(queue: &QueueRecord, set: Option<&PolicySpec>) -> Table {
    // The name of a module here, as in RabbitMQ, unlike where a queue is made.
    let kind = format!("rabbit_{}_queue", QueueType::of(&queue.arguments).name());
    let mut table = Table::new().with("name", &*queue.name).with("type", kind).with(PERFORMED_BY, &*actor());
    if let Some(policy) = set {
        table.insert("pattern", policy.pattern.as_str());
        table.insert("apply-to", policy.apply_to.name());
        table.insert("priority", policy.priority);
        table.insert("definition", object(&policy.definition));
    }
    table
}

pub(super) fn limits(limits: VhostLimits) -> Table {
    let mut table = Table::new().with("name", "limits");
    for (name, value) in limits.to_json() {
        table.insert(&name, json(&value));
    }
    table
}

pub(super) fn vhost(name: &str, metadata: &VhostMetadata) -> Table {
    let tags = metadata.tags.iter().map(|tag| Value::from(tag.as_str())).collect();
    let table = Table::new()
        .with("name", name)
        .with("description", metadata.description.as_str())
        .with("tags", Value::Array(tags))
        .with("deletion_protection", metadata.protected_from_deletion);
    match metadata.default_queue_type {
        Some(kind) => table.with("default_queue_type", kind.name()),
        None => table,
    }
}

pub(super) fn parameter(component: &str, name: &str) -> Table {
    Table::new().with("component", component).with("name", name)
}

/// JSON as tables have it. What is nested deeper than a table may be is left out.
pub(super) fn json(value: &Json) -> Value {
    // The table that it goes into is a level itself.
    value_from_json(value, TABLE_DEPTH_MAX - 1).unwrap_or(Value::Void)
}

fn object(object: &Map<String, Json>) -> Value {
    table_from_json(object).map_or(Value::Void, Value::Table)
}
