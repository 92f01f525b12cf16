//! Durable definitions as the store keeps them: exchanges, queues and bindings of all vhosts, vhosts with their settings, and users (semantics 27.1,
//! 27.4).
//!
//! A key is a JSON array that names the thing, a value a JSON object that describes it; so a data folder can be read by people, and a
//! later version may add fields. Argument tables stand in it as their AMQP encoding in base64, which keeps every type
//! letter. What the topology file says of users, permissions, policies and limits is not here: it comes from the file at every start.

mod accounts;
mod settings;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use plugin_api::exchange::{BindingSpec, DestinationKind, ExchangeSpec};
use plugin_api::value::Table;
use serde::{Deserialize, Serialize};

use crate::access::{self, StoredAccounts};
use crate::routing::exchange::Identity;
use crate::vhost::policy::{PolicyKind, PolicySpec};
use crate::vhost::settings::{ParameterName, VhostLimits, VhostMetadata};
use crate::vhost::{Change, QueueRecord};

/// One entry of the store's metadata; without a value it is to be removed.
pub type Entry = (Vec<u8>, Option<Vec<u8>>);

/// An exchange as it was declared.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeDefinition {
    /// The declaration.
    pub spec: ExchangeSpec,
    /// Names in the store what the exchange keeps there; none in what an older version has written, whose exchanges kept nothing.
    pub number: Option<u64>,
}

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
    /// Who declared it, if that was written down.
    pub declared_by: Option<String>,
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
    pub exchanges: Vec<ExchangeDefinition>,
    /// All durable ones.
    pub queues: Vec<QueueDefinition>,
    /// All between durable ends.
    pub bindings: Vec<BindingDefinition>,
    /// What is said of the vhost; none if nobody has made it but the topology file.
    pub metadata: Option<VhostMetadata>,
    /// What there may be at most.
    pub limits: Option<VhostLimits>,
    /// All policies and operator policies.
    pub policies: Vec<(PolicyKind, PolicySpec)>,
    /// All other parameters.
    pub parameters: Vec<(ParameterName, serde_json::Value)>,
}

/// Everything that the store knows beside messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definitions {
    /// By name.
    pub vhosts: BTreeMap<String, VhostDefinitions>,
    /// Users with their permissions.
    pub accounts: StoredAccounts,
    /// Parameters of the broker as a whole.
    pub global_parameters: BTreeMap<String, serde_json::Value>,
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
    #[serde(default)]
    number: Option<u64>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    declared_by: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct BindingValue {
    arguments: String,
}

/// A parameter of the broker as a whole that nobody sees: users have been changed while the broker ran, so the default one is no longer made.
pub const DEFAULT_USERS_LEFT: &str = "internal_default_users_left";

/// The first part of a key.
mod kind {
    pub(super) const EXCHANGE: &str = "exchange";
    pub(super) const QUEUE: &str = "queue";
    pub(super) const BINDING: &str = "binding";
    pub(super) const GLOBAL_PARAMETER: &str = "global-parameter";
}

/// What a change of a vhost means for the store.
pub fn entry(vhost: &str, change: &Change) -> Entry {
    match change {
        Change::ExchangeAdded(exchange) => {
            let spec = &exchange.spec;
            let value = ExchangeValue {
                number: Some(exchange.number),
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
        Change::VhostPut(_)
        | Change::VhostRemoved
        | Change::PolicyPut(..)
        | Change::PolicyRemoved(..)
        | Change::LimitsPut(_)
        | Change::ParameterPut(..) => settings::entry(vhost, change),
    }
}

/// What a change of a user means for the store.
pub fn account_entry(change: &access::Change) -> Entry {
    accounts::entry(change)
}

/// What a changed parameter of the broker as a whole means for the store.
pub fn global_parameter_entry(name: &str, value: Option<&serde_json::Value>) -> Entry {
    (key(&[kind::GLOBAL_PARAMETER, name]), value.map(json))
}

fn queue_value(queue: &QueueRecord) -> QueueValue {
    QueueValue {
        number: queue.number,
        auto_delete: queue.auto_delete,
        arguments: encoded(&queue.arguments),
        declared_by: queue.declared_by.as_deref().map(str::to_owned),
    }
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

/// Reads all definitions. Keys of other kinds are left alone.
///
/// # Errors
/// The first definition that cannot be read.
pub fn read(meta: &[(Vec<u8>, Vec<u8>)]) -> Result<Definitions, Unreadable> {
    let mut definitions = Definitions::default();
    for (key, value) in meta {
        read_one(key, value, &mut definitions)
            .map_err(|reason| Unreadable { key: String::from_utf8_lossy(key).into_owned(), reason })?;
    }
    Ok(definitions)
}

fn read_one(key: &[u8], value: &[u8], definitions: &mut Definitions) -> Result<(), String> {
    let parts: Vec<String> = serde_json::from_slice(key).map_err(|error| format!("its key: {error}"))?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let vhosts = &mut definitions.vhosts;
    match parts[..] {
        [kind::EXCHANGE, vhost, name] => {
            let value: ExchangeValue = parse(value)?;
            let spec = ExchangeSpec {
                vhost: vhost.into(),
                name: name.into(),
                kind: value.kind,
                durable: true,
                auto_delete: value.auto_delete,
                internal: value.internal,
                arguments: decoded(&value.arguments)?,
            };
            let definition = ExchangeDefinition { spec, number: value.number };
            vhosts.entry(vhost.into()).or_default().exchanges.push(definition);
        }
        [kind::QUEUE, vhost, name] => {
            let value: QueueValue = parse(value)?;
            vhosts.entry(vhost.into()).or_default().queues.push(QueueDefinition {
                name: name.into(),
                number: value.number,
                auto_delete: value.auto_delete,
                arguments: decoded(&value.arguments)?,
                declared_by: value.declared_by,
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
        [kind::GLOBAL_PARAMETER, name] => {
            definitions.global_parameters.insert(name.into(), parse(value)?);
        }
        [kind::EXCHANGE | kind::QUEUE | kind::BINDING | kind::GLOBAL_PARAMETER, ..] => return Err(OTHER_PARTS.into()),
        _ => {
            if !settings::read(&parts, value, vhosts)? {
                accounts::read(&parts, value, &mut definitions.accounts)?;
            }
        }
    }
    Ok(())
}

const OTHER_PARTS: &str = "its key has another number of parts";

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
        let expected = VhostDefinitions { bindings: vec![expected], ..Default::default() };
        assert_eq!(read.vhosts, BTreeMap::from([("/".into(), expected)]));
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
        assert_eq!(read(&[(br#"["boot"]"#.to_vec(), b"7".to_vec())]), Ok(Definitions::default()));
    }
}
