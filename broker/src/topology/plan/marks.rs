//! Who has declared what: the names of files that a plan goes by before it removes anything.
//!
//! A file has an owner (`owner:`), and what is carried out of it is marked with that name. Marks are among the parameters that the broker keeps for itself, so they
//! survive restarts and are in no export. An object may have several owners; it is pruned by none of them while another is left. A mark
//! whose object is gone is dropped when marks are written next. Marks of queues and exchanges also have the number that the broker has given them, which it
//! gives to no other: what was deleted and declared again by somebody else is not the owner's, whatever its name. Other things are what they are by their
//! names alone.

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

/// Objects with the numbers by which they are known again; none where they are known by their names.
pub type Marks = BTreeMap<Object, Option<u64>>;

/// What an owner has declared so far.
#[must_use]
pub fn of(vhosts: &Vhosts, owner: &str) -> Marks {
    vhosts.internal(&format!("{PREFIX}{owner}")).map(|marks| read(&marks)).unwrap_or_default()
}

/// The number of what goes by this name now.
#[must_use]
pub fn number_of(vhosts: &Vhosts, object: &Object) -> Option<u64> {
    match object {
        Object::Queue(vhost, name) => vhosts.get(vhost)?.queue(name).map(|queue| queue.number),
        Object::Exchange(vhost, name) => vhosts.get(vhost)?.exchange(name).map(|exchange| exchange.number),
        _ => None,
    }
}

/// Whether what goes by this name now is what was marked.
#[must_use]
pub fn is_same(vhosts: &Vhosts, object: &Object, marked: Option<u64>) -> bool {
    marked.is_none() || number_of(vhosts, object) == marked
}

/// What all owners have declared and nobody has replaced since, each object with its owners.
#[must_use]
pub fn all(vhosts: &Vhosts) -> BTreeMap<Object, Vec<String>> {
    let mut owners: BTreeMap<Object, Vec<String>> = BTreeMap::new();
    for (name, marks) in vhosts.internals(PREFIX) {
        let owner = name.strip_prefix(PREFIX).unwrap_or_default();
        for (object, number) in read(&marks) {
            if is_same(vhosts, &object, number) {
                owners.entry(object).or_default().push(owner.to_owned());
            }
        }
    }
    owners
}

/// Writes what an owner has declared, if it is something else than before.
pub fn write(vhosts: &Vhosts, owner: &str, marks: &Marks) {
    if of(vhosts, owner) != *marks {
        let marks = marks.iter().map(|(object, number)| to_json(object, *number));
        vhosts.put_internal(&format!("{PREFIX}{owner}"), Json::Array(marks.collect()));
    }
}

/// Somebody has replaced an object for all who own it.
pub fn renew(vhosts: &Vhosts, owner: &str, object: &Object) {
    let mut marks = of(vhosts, owner);
    marks.insert(object.clone(), number_of(vhosts, object));
    write(vhosts, owner, &marks);
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
    if topology.sections.contains(&"parameters") {
        objects.extend(topology.parameters.iter().map(|(name, _)| Object::GlobalParameter(name.clone())));
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
            let parameters = vhost.parameters.iter();
            objects.extend(parameters.map(|decl| Object::Parameter(name(), decl.component.clone(), decl.name.clone())));
            objects.extend(vhost.exchanges.iter().map(|decl| Object::Exchange(name(), decl.name.clone())));
            objects.extend(vhost.queues.iter().map(|decl| Object::Queue(name(), decl.name.clone())));
            objects.extend(vhost.bindings.iter().map(|decl| Object::Binding(name(), BindingKey::of(decl))));
        }
    }
    objects
}

fn read(marks: &Json) -> Marks {
    marks.as_array().into_iter().flatten().filter_map(from_json).collect()
}

fn to_json(object: &Object, number: Option<u64>) -> Json {
    let mut mark = words(object);
    if let (Some(number), Some(words)) = (number, mark.as_array_mut()) {
        words.push(Json::from(number.to_string()));
    }
    mark
}

fn words(object: &Object) -> Json {
    match object {
        Object::Vhost(name) => json!(["vhost", name]),
        Object::User(name) => json!(["user", name]),
        Object::Permission(user, vhost) => json!(["permission", user, vhost]),
        Object::TopicPermission(user, vhost, exchange) => json!(["topic", user, vhost, exchange]),
        Object::Limits(vhost) => json!(["limits", vhost]),
        Object::Policy(vhost, PolicyKind::User, name) => json!(["policy", vhost, name]),
        Object::Policy(vhost, PolicyKind::Operator, name) => json!(["operator", vhost, name]),
        Object::GlobalParameter(name) => json!(["global-parameter", name]),
        Object::Parameter(vhost, component, name) => json!(["parameter", vhost, component, name]),
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
fn from_json(mark: &Json) -> Option<(Object, Option<u64>)> {
    let parts: Vec<&str> = mark.as_array()?.iter().map(Json::as_str).collect::<Option<_>>()?;
    // Marks of earlier versions have no numbers.
    let (parts, number) = match parts.as_slice() {
        [kind @ ("queue" | "exchange"), vhost, name, number] => (vec![*kind, *vhost, *name], number.parse().ok()),
        _ => (parts, None),
    };
    object_of(&parts).map(|object| (object, number))
}

fn object_of(parts: &[&str]) -> Option<Object> {
    let own = |part: &str| part.to_owned();
    Some(match parts {
        ["vhost", name] => Object::Vhost(own(name)),
        ["user", name] => Object::User(own(name)),
        ["permission", user, vhost] => Object::Permission(own(user), own(vhost)),
        ["topic", user, vhost, exchange] => Object::TopicPermission(own(user), own(vhost), own(exchange)),
        ["limits", vhost] => Object::Limits(own(vhost)),
        ["policy", vhost, name] => Object::Policy(own(vhost), PolicyKind::User, own(name)),
        ["operator", vhost, name] => Object::Policy(own(vhost), PolicyKind::Operator, own(name)),
        ["global-parameter", name] => Object::GlobalParameter(own(name)),
        ["parameter", vhost, component, name] => Object::Parameter(own(vhost), own(component), own(name)),
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
