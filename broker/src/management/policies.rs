//! Policies and operator policies (semantics 23).

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::body::{integer, text, wrong};
use super::call::{Answer, Call};
use super::errors::ApiError;
use super::lists::{self, Paging};
use super::reply::Reply;
use crate::origin::Origin;
use crate::vhost::policy::{ApplyTo, Policy, PolicyKind, PolicySpec};

pub(super) fn list(call: &Call) -> Answer {
    list_of(call, PolicyKind::User)
}

pub(super) fn list_operator(call: &Call) -> Answer {
    list_of(call, PolicyKind::Operator)
}

/// By priority, the lowest first, as RabbitMQ sorts them.
fn list_of(call: &Call, kind: PolicyKind) -> Answer {
    let mut rows: Vec<(Arc<str>, Arc<Policy>)> = Vec::new();
    for vhost in call.listed_vhosts()? {
        rows.extend(vhost.policies(kind).into_iter().map(|policy| (Arc::clone(&vhost.name), policy)));
    }
    rows.sort_by_key(|(_, policy)| policy.spec().priority);
    lists::list(
        call,
        Paging::None,
        rows,
        |(_, policy)| &policy.spec().name,
        |(vhost, policy)| shown(vhost, policy.spec()),
    )
}

/// A policy as lists show it.
pub(super) fn shown(vhost: &str, spec: &PolicySpec) -> Json {
    json!({
        "vhost": vhost, "name": spec.name, "pattern": spec.pattern, "apply-to": spec.apply_to.name(),
        "definition": spec.definition, "priority": spec.priority,
    })
}

pub(super) fn get(call: &Call) -> Answer {
    get_of(call, PolicyKind::User)
}

pub(super) fn get_operator(call: &Call) -> Answer {
    get_of(call, PolicyKind::Operator)
}

fn get_of(call: &Call, kind: PolicyKind) -> Answer {
    let vhost = call.vhost()?;
    let policy = vhost.policy(kind, call.named("policy")).ok_or_else(ApiError::object_not_found)?;
    lists::one(call, shown(&vhost.name, policy.spec()))
}

pub(super) fn put(call: &Call) -> Answer {
    put_of(call, PolicyKind::User, call.named("policy"), &call.fields()?.0)
}

pub(super) fn put_operator(call: &Call) -> Answer {
    put_of(call, PolicyKind::Operator, call.named("policy"), &call.fields()?.0)
}

/// `value` has pattern and definition, and may have priority and apply-to.
pub(super) fn put_of(call: &Call, kind: PolicyKind, name: &str, value: &serde_json::Map<String, Json>) -> Answer {
    let vhost = call.vhost_to_change()?;
    let fields = super::body::Fields(value.clone());
    let [pattern, definition] = fields.require(["pattern", "definition"])?;
    let Json::Object(definition) = definition else { return Err(wrong("definition", "an object", definition)) };
    let apply_to = match fields.text("apply-to")? {
        Some(name) => {
            ApplyTo::parse(name).map_err(|error| ApiError::bad_request(format!("Validation failed\n\n{error}\n")))?
        }
        None => ApplyTo::All,
    };
    let priority = fields.get("priority").map(|value| integer("priority", value)).transpose()?.unwrap_or(0);
    let spec = PolicySpec {
        name: name.to_owned(),
        pattern: text("pattern", pattern)?.to_owned(),
        apply_to,
        priority,
        definition: definition.clone(),
    };
    let is_new = vhost.policy(kind, name).is_none();
    let changed = vhost.put_policy(kind, spec, Origin::Runtime)?;
    Ok(Reply::put(is_new).when_stored(changed))
}

pub(super) fn delete(call: &Call) -> Answer {
    delete_of(call, PolicyKind::User, call.named("policy"))
}

pub(super) fn delete_operator(call: &Call) -> Answer {
    delete_of(call, PolicyKind::Operator, call.named("policy"))
}

pub(super) fn delete_of(call: &Call, kind: PolicyKind, name: &str) -> Answer {
    let changed = call.vhost()?.delete_policy(kind, name).ok_or_else(ApiError::object_not_found)?;
    Ok(Reply::done().when_stored(changed))
}
