//! Writing definitions, in an order that depends on nothing but what is there (semantics 28.1 to 28.8).

use plugin_api::exchange::DestinationKind;
use plugin_api::value::Table;
use serde_json::{Map, Value as Json, json};

use crate::access::{Access, PasswordHash, UserRecord};
use crate::routing::Exchange;
use crate::routing::exchange::Identity;
use crate::topology::schema::UserLimitsDecl;
use crate::vhost::Vhost;
use crate::vhost::json_table::table_to_json;
use crate::vhost::policy::{PolicyKind, PolicySpec, QueueType};
use crate::vhost::registry::Vhosts;
use crate::vhost::settings::limits_to_json;

/// What wrote the file.
#[derive(Clone, Debug)]
pub struct Product<'a> {
    /// Such as `RabbitMQ`: tools look at it.
    pub name: &'a str,
    /// Three numbers.
    pub version: &'a str,
}

/// Everything, or one vhost without its name and without users (semantics 28.12).
#[must_use]
pub fn export(access: &Access, vhosts: &Vhosts, product: &Product<'_>, only: Option<&str>) -> Json {
    let mut root = Map::new();
    let mut put = |key: &str, value: Json| root.insert(key.to_owned(), value);
    put("rabbit_version", json!(product.version));
    put("rabbitmq_version", json!(product.version));
    put("product_name", json!(product.name));
    put("product_version", json!(product.version));
    let list: Vec<_> = vhosts.list().into_iter().filter(|vhost| only.is_none_or(|only| *vhost.name == *only)).collect();
    let each = |of: fn(&Vhost) -> Vec<Map<String, Json>>| -> Json {
        let entries = list.iter().flat_map(|vhost| {
            of(vhost).into_iter().map(|mut entry| {
                if only.is_none() {
                    entry.insert("vhost".to_owned(), json!(vhost.name.as_ref()));
                }
                Json::Object(entry)
            })
        });
        Json::Array(entries.collect())
    };
    put("parameters", each(parameters));
    put("policies", each(policies));
    put("exchanges", each(exchanges));
    put("queues", each(queues));
    put("bindings", each(bindings));
    if only.is_none() {
        let users = access.records();
        put("vhosts", Json::Array(list.iter().map(|vhost| self::vhost(vhost)).collect()));
        put("permissions", Json::Array(users.iter().flat_map(|user| permissions(access, &user.name)).collect()));
        let topics = users.iter().flat_map(|user| topic_permissions(access, &user.name));
        put("topic_permissions", Json::Array(topics.collect()));
        put("users", Json::Array(users.iter().map(user).collect()));
        let parameters = vhosts.global_parameters().into_iter();
        put("global_parameters", parameters.map(|(name, value)| json!({"name": name, "value": value})).collect());
    }
    Json::Object(root)
}

fn object(value: Json) -> Map<String, Json> {
    match value {
        Json::Object(object) => object,
        _ => Map::new(),
    }
}

/// A user as definitions and lists show it.
#[must_use]
pub fn user(record: &UserRecord) -> Json {
    let hash = record.password.as_ref();
    let UserLimitsDecl { max_connections, max_channels } = record.limits;
    let mut user = object(json!({
        "name": record.name,
        "password_hash": hash.map(PasswordHash::to_stored).unwrap_or_default(),
        "hashing_algorithm": hash.map(PasswordHash::algorithm).unwrap_or_default().module_name(),
        "tags": record.tags,
        "limits": limits_to_json([("max-connections", max_connections), ("max-channels", max_channels)]),
    }));
    // RabbitMQ has this in its configuration; a user is as there unless it says otherwise.
    if record.loopback_only != (record.name == "guest") {
        user.insert("loopback_only".to_owned(), json!(record.loopback_only));
    }
    Json::Object(user)
}

fn permissions(access: &Access, user: &str) -> Vec<Json> {
    let permissions = access.permissions_of(user).into_iter();
    permissions
        .map(|decl| {
            json!({
                "user": user, "vhost": decl.vhost,
                "configure": decl.configure, "write": decl.write, "read": decl.read,
            })
        })
        .collect()
}

fn topic_permissions(access: &Access, user: &str) -> Vec<Json> {
    let permissions = access.topic_permissions_of(user).into_iter();
    permissions
        .map(|decl| {
            json!({
                "user": user, "vhost": decl.vhost, "exchange": decl.exchange,
                "write": decl.write, "read": decl.read,
            })
        })
        .collect()
}

fn vhost(vhost: &Vhost) -> Json {
    let metadata = vhost.metadata();
    let mut inner = object(json!({"description": metadata.description, "tags": metadata.tags}));
    if let Some(kind) = metadata.default_queue_type {
        inner.insert("default_queue_type".to_owned(), json!(kind.name()));
    }
    if metadata.protected_from_deletion {
        inner.insert("protected_from_deletion".to_owned(), json!(true));
    }
    json!({"name": vhost.name.as_ref(), "limits": vhost.limits().to_json(), "metadata": inner})
}

/// The parameters of a vhost. Limits and operator policies are parameters, too (semantics 23.10).
#[must_use]
pub fn parameters(vhost: &Vhost) -> Vec<Map<String, Json>> {
    let entry = |component: &str, name: &str, value: Json| {
        object(json!({"component": component, "name": name, "value": value}))
    };
    let mut entries = Vec::new();
    let limits = vhost.limits().to_json();
    if !limits.is_empty() {
        entries.push(entry("vhost-limits", "limits", Json::Object(limits)));
    }
    for policy in sorted(vhost, PolicyKind::Operator) {
        entries.push(entry("operator_policy", &policy.name, Json::Object(policy_value(&policy))));
    }
    entries.extend(vhost.parameters().into_iter().map(|((component, name), value)| entry(&component, &name, value)));
    entries
}

fn policies(vhost: &Vhost) -> Vec<Map<String, Json>> {
    let policies = sorted(vhost, PolicyKind::User).into_iter();
    policies
        .map(|policy| {
            let mut entry = policy_value(&policy);
            entry.insert("name".to_owned(), json!(policy.name));
            entry
        })
        .collect()
}

fn sorted(vhost: &Vhost, kind: PolicyKind) -> Vec<PolicySpec> {
    let mut policies: Vec<_> = vhost.policies(kind).iter().map(|policy| policy.spec().clone()).collect();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    policies
}

fn policy_value(policy: &PolicySpec) -> Map<String, Json> {
    object(json!({
        "pattern": policy.pattern,
        "apply-to": policy.apply_to.name(),
        "priority": policy.priority,
        "definition": policy.definition,
    }))
}

/// Without predeclared and internal ones (semantics 28.5).
fn exchanges(vhost: &Vhost) -> Vec<Map<String, Json>> {
    let mut exchanges = vhost.exchanges();
    exchanges.retain(|exchange| !exchange.name.is_empty() && !is_servers(exchange) && !exchange.spec.internal);
    exchanges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let entry = |spec: &plugin_api::exchange::ExchangeSpec| {
        object(json!({
            "name": spec.name, "type": spec.kind, "durable": spec.durable, "auto_delete": spec.auto_delete,
            "internal": spec.internal, "arguments": table_to_json(&spec.arguments),
        }))
    };
    exchanges.iter().map(|exchange| entry(&exchange.spec)).collect()
}

/// Without exclusive ones (semantics 28.6).
fn queues(vhost: &Vhost) -> Vec<Map<String, Json>> {
    let mut queues = vhost.queues();
    queues.retain(|queue| queue.owner.is_none());
    queues.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let entry = |queue: &crate::vhost::QueueRecord| {
        object(json!({
            "name": queue.name.as_ref(), "durable": queue.durable, "auto_delete": queue.auto_delete,
            "type": QueueType::of(&queue.arguments).name(), "arguments": table_to_json(&queue.arguments),
        }))
    };
    queues.iter().map(|queue| entry(queue)).collect()
}

/// Without those of queues and exchanges that are left out (semantics 28.7).
fn bindings(vhost: &Vhost) -> Vec<Map<String, Json>> {
    let is_there = |exchange: &Exchange| is_servers(exchange) || !exchange.spec.internal;
    let mut exchanges = vhost.exchanges();
    exchanges.retain(|exchange| is_there(exchange));
    exchanges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut entries = Vec::new();
    for exchange in exchanges {
        let mut bindings = exchange.bindings();
        bindings.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        for binding in bindings {
            let destination = &binding.destination;
            let (kind, has_end) = match binding.destination_kind {
                DestinationKind::Queue => {
                    ("queue", vhost.queue(destination).is_some_and(|queue| queue.owner.is_none()))
                }
                DestinationKind::Exchange => {
                    ("exchange", vhost.exchange(destination).is_some_and(|exchange| is_there(&exchange)))
                }
            };
            if !has_end {
                continue;
            }
            // The bytes are those of a table that was encoded here.
            let arguments = Table::decode(&binding.arguments).unwrap_or_default();
            entries.push(object(json!({
                "source": exchange.name.as_ref(), "destination": binding.destination, "destination_type": kind,
                "routing_key": binding.routing_key, "arguments": table_to_json(&arguments),
            })));
        }
    }
    entries
}

/// Every vhost has these.
fn is_servers(exchange: &Exchange) -> bool {
    exchange.name.starts_with("amq.")
}

fn key(identity: &Identity) -> (DestinationKind, &str, &str, &[u8]) {
    (identity.destination_kind, &identity.destination, &identity.routing_key, &identity.arguments)
}
