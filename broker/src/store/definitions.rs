//! Durable definitions as the store keeps them: exchanges, queues and bindings of all vhosts (semantics 27.1, 27.4).
//!
//! A key is a JSON array that names the thing, a value a JSON object that describes it; so a data folder can be read by people, and a
//! later version may add fields. Argument tables stand in it as their AMQP encoding in base64, which keeps every type
//! letter. Users and permissions come from the topology file at every start and are not kept here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use plugin_api::exchange::{BindingSpec, DestinationKind, ExchangeSpec};
use plugin_api::value::Table;
use serde::{Deserialize, Serialize};

use crate::routing::exchange::Identity;
use crate::vhost::{Change, QueueRecord};

/// One entry of the store's metadata; without a value it is to be removed.
pub type Entry = (Vec<u8>, Option<Vec<u8>>);

/// A queue as it was declared.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueDefinition {
    /// Its name.
    pub name: String,
    /// Names the queue's messages in the store.
    pub number: u64,
    /// Ends with its last consumer.
    pub auto_delete: bool,
    /// As declared.
    pub arguments: Table,
}

/// A binding between two durable ends.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingDefinition {
    /// The exchange that it leads from.
    pub source: String,
    /// The rest.
    pub binding: BindingSpec,
}

/// What the store knows of one vhost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VhostDefinitions {
    /// All durable ones but those that every vhost has.
    pub exchanges: Vec<ExchangeSpec>,
    /// All durable ones.
    pub queues: Vec<QueueDefinition>,
    /// All between durable ends.
    pub bindings: Vec<BindingDefinition>,
}

/// Definitions that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the definition {key} in the data folder cannot be read: {reason}; it was written by another version, or the folder is damaged"
)]
pub struct Unreadable {
    /// Its key, as far as it is text.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct ExchangeValue {
    kind: String,
    auto_delete: bool,
    internal: bool,
    arguments: String,
}

#[derive(Serialize, Deserialize)]
struct QueueValue {
    number: u64,
    auto_delete: bool,
    arguments: String,
}

#[derive(Serialize, Deserialize)]
struct BindingValue {
    arguments: String,
}

/// The first part of a key.
mod kind {
    pub(super) const EXCHANGE: &str = "exchange";
    pub(super) const QUEUE: &str = "queue";
    pub(super) const BINDING: &str = "binding";
}

/// What a change of a vhost means for the store.
pub fn entry(vhost: &str, change: &Change) -> Entry {
    match change {
        Change::ExchangeAdded(exchange) => {
            let spec = &exchange.spec;
            let value = ExchangeValue {
                kind: spec.kind.clone(),
                auto_delete: spec.auto_delete,
                internal: spec.internal,
                arguments: encoded(&spec.arguments),
            };
            (key(&[kind::EXCHANGE, vhost, &spec.name]), Some(json(&value)))
        }
        Change::ExchangeRemoved(name) => (key(&[kind::EXCHANGE, vhost, name]), None),
        Change::QueueAdded(queue) => (key(&[kind::QUEUE, vhost, &queue.name]), Some(json(&queue_value(queue)))),
        Change::QueueRemoved(name) => (key(&[kind::QUEUE, vhost, name]), None),
        Change::BindingAdded { source, identity, arguments } => {
            let value = BindingValue { arguments: encoded(arguments) };
            (binding_key(vhost, source, identity), Some(json(&value)))
        }
        Change::BindingRemoved { source, identity } => (binding_key(vhost, source, identity), None),
    }
}

fn queue_value(queue: &QueueRecord) -> QueueValue {
    QueueValue { number: queue.number, auto_delete: queue.auto_delete, arguments: encoded(&queue.arguments) }
}

fn binding_key(vhost: &str, source: &str, identity: &Identity) -> Vec<u8> {
    let kind = match identity.destination_kind {
        DestinationKind::Queue => "queue",
        DestinationKind::Exchange => "exchange",
    };
    let arguments = BASE64.encode(&identity.arguments);
    key(&[kind::BINDING, vhost, source, kind, &identity.destination, &identity.routing_key, &arguments])
}

fn key(parts: &[&str]) -> Vec<u8> {
    json(&parts)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings, numbers and booleans can be written as JSON")
}

fn encoded(arguments: &Table) -> String {
    let mut bytes = Vec::new();
    arguments.encode(&mut bytes);
    BASE64.encode(bytes)
}

/// Reads all definitions, by vhost. Keys of other kinds are left alone.
///
/// # Errors
/// The first definition that cannot be read.
pub fn read(meta: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<(String, VhostDefinitions)>, Unreadable> {
    let mut vhosts: std::collections::BTreeMap<String, VhostDefinitions> = std::collections::BTreeMap::new();
    for (key, value) in meta {
        read_one(key, value, &mut vhosts)
            .map_err(|reason| Unreadable { key: String::from_utf8_lossy(key).into_owned(), reason })?;
    }
    Ok(vhosts.into_iter().collect())
}

fn read_one(
    key: &[u8],
    value: &[u8],
    vhosts: &mut std::collections::BTreeMap<String, VhostDefinitions>,
) -> Result<(), String> {
    let parts: Vec<String> = serde_json::from_slice(key).map_err(|error| format!("its key: {error}"))?;
    match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [kind::EXCHANGE, vhost, name] => {
            let value: ExchangeValue = parse(value)?;
            vhosts.entry(vhost.into()).or_default().exchanges.push(ExchangeSpec {
                vhost: vhost.into(),
                name: name.into(),
                kind: value.kind,
                durable: true,
                auto_delete: value.auto_delete,
                internal: value.internal,
                arguments: decoded(&value.arguments)?,
            });
        }
        [kind::QUEUE, vhost, name] => {
            let value: QueueValue = parse(value)?;
            vhosts.entry(vhost.into()).or_default().queues.push(QueueDefinition {
                name: name.into(),
                number: value.number,
                auto_delete: value.auto_delete,
                arguments: decoded(&value.arguments)?,
            });
        }
        [kind::BINDING, vhost, source, destination_kind, destination, routing_key, _] => {
            let value: BindingValue = parse(value)?;
            vhosts.entry(vhost.into()).or_default().bindings.push(BindingDefinition {
                source: source.into(),
                binding: BindingSpec {
                    destination: destination.into(),
                    destination_kind: match destination_kind {
                        "queue" => DestinationKind::Queue,
                        "exchange" => DestinationKind::Exchange,
                        other => return Err(format!("a binding to a '{other}'")),
                    },
                    routing_key: routing_key.into(),
                    arguments: decoded(&value.arguments)?,
                },
            });
        }
        [kind::EXCHANGE | kind::QUEUE | kind::BINDING, ..] => return Err("its key has another number of parts".into()),
        _ => {}
    }
    Ok(())
}

fn parse<T: for<'de> Deserialize<'de>>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

fn decoded(arguments: &str) -> Result<Table, String> {
    let bytes = BASE64.decode(arguments).map_err(|error| format!("its arguments: {error}"))?;
    Table::decode(&bytes).map_err(|error| format!("its arguments: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::value::Value;

    #[test]
    fn a_binding_comes_back_as_it_was() {
        let binding = BindingSpec {
            destination: "q\"\u{e4}".into(),
            destination_kind: DestinationKind::Queue,
            routing_key: "a.#".into(),
            arguments: Table::new().with("x-match", "all").with("size", Value::I16(7)),
        };
        let change = Change::BindingAdded {
            source: "orders".into(),
            identity: Identity::of(&binding),
            arguments: binding.arguments.clone(),
        };
        let (key, value) = entry("/", &change);
        let read = read(&[(key.clone(), value.expect("it is added"))]).expect("it can be read");
        let expected = BindingDefinition { source: "orders".into(), binding: binding.clone() };
        assert_eq!(read, [("/".into(), VhostDefinitions { bindings: vec![expected], ..Default::default() })]);
        let removed = Change::BindingRemoved { source: "orders".into(), identity: Identity::of(&binding) };
        assert_eq!(entry("/", &removed), (key, None));
    }

    #[test]
    fn a_damaged_definition_is_named() {
        let key = br#"["queue","/","orders"]"#.to_vec();
        let error = read(&[(key, b"{}".to_vec())]).expect_err("a number is missing");
        assert!(error.to_string().contains(r#"["queue","/","orders"]"#), "{error}");
    }

    #[test]
    fn keys_of_other_kinds_are_left_alone() {
        assert_eq!(read(&[(br#"["boot"]"#.to_vec(), b"7".to_vec())]), Ok(Vec::new()));
    }
}
