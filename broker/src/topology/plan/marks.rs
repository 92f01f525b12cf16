//! Who has declared what: the names of files that a plan goes by before it removes anything.
//!
//! A file has an owner (`owner:`), and what is carried out of it is marked with that name. Marks are among the parameters that the broker keeps for itself, so they
//! survive restarts and are in no export. An object may have several owners; it is pruned by none of them while another is left. A mark
//! whose object is gone is dropped when marks are written next.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use plugin_api::exchange::DestinationKind;
use serde_json::{Value as Json, json};

use super::{BindingKey, Object};
use crate::topology::schema::Topology;
use crate::vhost::policy::PolicyKind;
use crate::vhost::registry::Vhosts;

/// Behind it the owner's name.
const PREFIX: &str = "internal_topology_owner:";

/// What an owner has declared so far.
#[must_use]
pub fn of(vhosts: &Vhosts, owner: &str) -> BTreeSet<Object> {
    vhosts.internal(&format!("{PREFIX}{owner}")).map(|marks| read(&marks)).unwrap_or_default()
}

/// What all owners have declared, each object with its owners.
#[must_use]
pub fn all(vhosts: &Vhosts) -> BTreeMap<Object, Vec<String>> {
    let mut owners: BTreeMap<Object, Vec<String>> = BTreeMap::new();
    for (name, marks) in vhosts.internals(PREFIX) {
        let owner = name.strip_prefix(PREFIX).unwrap_or_default();
        for object in read(&marks) {
            owners.entry(object).or_default().push(owner.to_owned());
        }
    }
    owners
}

/// Writes what an owner has declared, if it is something else than before.
pub fn write(vhosts: &Vhosts, owner: &str, objects: &BTreeSet<Object>) {
    if of(vhosts, owner) != *objects {
        vhosts.put_internal(&format!("{PREFIX}{owner}"), Json::Array(objects.iter().map(to_json).collect()));
    }
}

/// Everything that a file declares.
#[must_use]
pub fn declared(topology: &Topology) -> BTreeSet<Object> {
    let mut objects = BTreeSet::new();
    if topology.sections.contains(&"users") {
        for user in &topology.users {
            let name = || user.name.clone();
            objects.insert(Object::User(name()));
            objects.extend(user.permissions.iter().map(|decl| Object::Permission(name(), decl.vhost.clone())));
            let topics = user.topic_permissions.iter();
            objects
                .extend(topics.map(|decl| Object::TopicPermission(name(), decl.vhost.clone(), decl.exchange.clone())));
        }
    }
    if topology.sections.contains(&"vhosts") {
        for vhost in &topology.vhosts {
            let name = || vhost.name.clone();
            objects.insert(Object::Vhost(name()));
            if vhost.limits.is_some() {
                objects.insert(Object::Limits(name()));
            }
            let policies = vhost.policies.iter();
            objects.extend(policies.map(|(kind, spec)| Object::Policy(name(), *kind, spec.name.clone())));
            objects.extend(vhost.exchanges.iter().map(|decl| Object::Exchange(name(), decl.name.clone())));
            objects.extend(vhost.queues.iter().map(|decl| Object::Queue(name(), decl.name.clone())));
            objects.extend(vhost.bindings.iter().map(|decl| Object::Binding(name(), BindingKey::of(decl))));
        }
    }
    objects
}

fn read(marks: &Json) -> BTreeSet<Object> {
    marks.as_array().into_iter().flatten().filter_map(from_json).collect()
}

fn to_json(object: &Object) -> Json {
    match object {
        Object::Vhost(name) => json!(["vhost", name]),
        Object::User(name) => json!(["user", name]),
        Object::Permission(user, vhost) => json!(["permission", user, vhost]),
        Object::TopicPermission(user, vhost, exchange) => json!(["topic", user, vhost, exchange]),
        Object::Limits(vhost) => json!(["limits", vhost]),
        Object::Policy(vhost, PolicyKind::User, name) => json!(["policy", vhost, name]),
        Object::Policy(vhost, PolicyKind::Operator, name) => json!(["operator", vhost, name]),
        Object::Exchange(vhost, name) => json!(["exchange", vhost, name]),
        Object::Queue(vhost, name) => json!(["queue", vhost, name]),
        Object::Binding(vhost, key) => {
            let kind = match key.destination_kind {
                DestinationKind::Queue => "q",
                DestinationKind::Exchange => "e",
            };
            let arguments = STANDARD_NO_PAD.encode(&key.arguments);
            json!(["binding", vhost, key.source, kind, key.destination, key.routing_key, arguments])
        }
    }
}

/// None for what a later version has written.
fn from_json(mark: &Json) -> Option<Object> {
    let parts: Vec<&str> = mark.as_array()?.iter().map(Json::as_str).collect::<Option<_>>()?;
    let own = |part: &str| part.to_owned();
    Some(match parts.as_slice() {
        ["vhost", name] => Object::Vhost(own(name)),
        ["user", name] => Object::User(own(name)),
        ["permission", user, vhost] => Object::Permission(own(user), own(vhost)),
        ["topic", user, vhost, exchange] => Object::TopicPermission(own(user), own(vhost), own(exchange)),
        ["limits", vhost] => Object::Limits(own(vhost)),
        ["policy", vhost, name] => Object::Policy(own(vhost), PolicyKind::User, own(name)),
        ["operator", vhost, name] => Object::Policy(own(vhost), PolicyKind::Operator, own(name)),
        ["exchange", vhost, name] => Object::Exchange(own(vhost), own(name)),
        ["queue", vhost, name] => Object::Queue(own(vhost), own(name)),
        ["binding", vhost, source, kind, destination, routing_key, arguments] => {
            let destination_kind = match *kind {
                "q" => DestinationKind::Queue,
                "e" => DestinationKind::Exchange,
                _ => return None,
            };
            let key = BindingKey {
                source: own(source),
                destination_kind,
                destination: own(destination),
                routing_key: own(routing_key),
                arguments: STANDARD_NO_PAD.decode(arguments).ok()?,
            };
            Object::Binding(own(vhost), key)
        }
        _ => return None,
    })
}
