//! Parameters of vhosts and of the broker as a whole. Operator policies and limits of vhosts are parameters, too (semantics 23.10), so they can be read
//! and changed here by whoever may change them there.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::body::wrong;
use super::call::{Answer, Call};
use super::errors::ApiError;
use super::lists::{self, Paging};
use super::policies;
use super::reply::Reply;
use crate::metrics::prometheus::permanent_id;
use crate::origin::Origin;
use crate::topology::definitions::exported_parameters;
use crate::vhost::Vhost;
use crate::vhost::policy::PolicyKind;
use crate::vhost::registry::INTERNAL_PREFIX;
use crate::vhost::settings::VhostLimits;

/// Components that are kept elsewhere.
const OPERATOR_POLICY: &str = "operator_policy";
const VHOST_LIMITS: &str = "vhost-limits";
/// Components of plugins that this broker does not have. What comes with definitions is kept, so that an export of RabbitMQ's can be imported;
/// setting one says what RabbitMQ says without the plugin, because nothing would ever be moved.
const FOREIGN: [&str; 4] = ["shovel", "federation", "federation-upstream", "federation-upstream-set"];
/// The name of the one parameter of [`VHOST_LIMITS`].
const LIMITS: &str = "limits";

type Row = (String, Json);

pub(super) fn list(call: &Call) -> Answer {
    let component = Some(call.named("component")).filter(|component| !component.is_empty());
    let mut rows: Vec<Row> = Vec::new();
    for vhost in call.listed_vhosts()? {
        rows.extend(
            of_vhost(&vhost).filter(|(_, row)| component.is_none_or(|component| row["component"] == component)),
        );
    }
    lists::list(call, Paging::None, rows, |(name, _)| name, |(_, row)| row.clone())
}

fn of_vhost(vhost: &Vhost) -> impl Iterator<Item = Row> + use<> {
    let name = Arc::clone(&vhost.name);
    exported_parameters(vhost).into_iter().map(move |mut row| {
        row.insert("vhost".to_owned(), json!(name.as_ref()));
        (row.get("name").and_then(Json::as_str).unwrap_or_default().to_owned(), Json::Object(row))
    })
}

fn find(call: &Call) -> Option<Json> {
    let vhost = call.broker().vhost(call.named("v"))?;
    let (component, name) = (call.named("component"), call.named("parameter"));
    let found = of_vhost(&vhost).find(|(of, row)| of == name && row["component"] == component);
    found.map(|(_, row)| row)
}

pub(super) fn get(call: &Call) -> Answer {
    lists::one(call, find(call).ok_or_else(ApiError::object_not_found)?)
}

pub(super) fn put(call: &Call) -> Answer {
    let vhost = call.vhost_to_change()?;
    let fields = call.fields()?;
    let [value] = fields.require(["value"])?;
    let (component, name) = (call.named("component"), call.named("parameter"));
    let is_new = find(call).is_none();
    match component {
        OPERATOR_POLICY => {
            only_administrators(call)?;
            policies::put_of(call, PolicyKind::Operator, name, object("value", value)?)
        }
        VHOST_LIMITS => {
            only_administrators(call)?;
            only_limits(name)?;
            let limits = VhostLimits::from_json(object("value", value)?)?;
            let changed = vhost.put_limits(limits, Origin::Runtime)?;
            Ok(Reply::put(is_new).when_stored(changed))
        }
        "policy" => Err(ApiError::bad_request("policies may not be set using this method")),
        foreign if FOREIGN.contains(&foreign) => {
            Err(ApiError::bad_request(format!("Validation failed\n\ncomponent {foreign} not found\n")))
        }
        _ => {
            let changed = vhost.put_parameter(component, name, value.clone())?;
            Ok(Reply::put(is_new).when_stored(changed))
        }
    }
}

pub(super) fn delete(call: &Call) -> Answer {
    let (vhost, component, name) = (call.vhost()?, call.named("component"), call.named("parameter"));
    find(call).ok_or_else(ApiError::object_not_found)?;
    match component {
        OPERATOR_POLICY => {
            only_administrators(call)?;
            policies::delete_of(call, PolicyKind::Operator, name)
        }
        VHOST_LIMITS => {
            only_administrators(call)?;
            let changed = vhost.put_limits(VhostLimits::default(), Origin::Runtime)?;
            Ok(Reply::done().when_stored(changed))
        }
        _ => {
            let changed = vhost.delete_parameter(component, name).ok_or_else(ApiError::object_not_found)?;
            Ok(Reply::done().when_stored(changed))
        }
    }
}

/// RabbitMQ lets policymakers change these here, although their own paths are for administrators; that is no rule but a gap.
fn only_administrators(call: &Call) -> Result<(), ApiError> {
    if call.tags.is_administrator { Ok(()) } else { Err(ApiError::not_authorised("Not administrator user")) }
}

fn only_limits(name: &str) -> Result<(), ApiError> {
    if name == LIMITS { Ok(()) } else { Err(ApiError::bad_request("the limits of a vhost are the parameter 'limits'")) }
}

fn object<'v>(key: &str, value: &'v Json) -> Result<&'v Map<String, Json>, ApiError> {
    value.as_object().ok_or_else(|| wrong(key, "an object", value))
}

// Of the broker as a whole

fn shown_global((name, value): &(String, Json)) -> Json {
    json!({"name": name, "value": value})
}

/// What is kept, and the cluster's lasting name, by which tools know a cluster again.
fn globals(call: &Call) -> BTreeMap<String, Json> {
    let mut all: BTreeMap<String, Json> = call.broker().vhosts.global_parameters().into_iter().collect();
    all.insert("internal_cluster_id".to_owned(), json!(permanent_id(&call.broker().identity.cluster_name)));
    all
}

pub(super) fn list_global(call: &Call) -> Answer {
    let rows: Vec<Row> = globals(call).into_iter().collect();
    lists::list(call, Paging::None, rows, |(name, _)| name, shown_global)
}

pub(super) fn get_global(call: &Call) -> Answer {
    let name = call.named("parameter");
    let value = globals(call).remove(name).ok_or_else(ApiError::object_not_found)?;
    lists::one(call, shown_global(&(name.to_owned(), value)))
}

pub(super) fn put_global(call: &Call) -> Answer {
    let name = call.named("parameter");
    let fields = call.fields()?;
    let [value] = fields.require(["value"])?;
    only_public(name)?;
    let is_new = !call.broker().vhosts.global_parameters().contains_key(name);
    call.broker().vhosts.put_global_parameter(name, value.clone())?;
    Ok(Reply::put(is_new).when_all_stored())
}

pub(super) fn delete_global(call: &Call) -> Answer {
    let name = call.named("parameter");
    if !call.broker().vhosts.global_parameters().contains_key(name) || only_public(name).is_err() {
        return Err(ApiError::object_not_found());
    }
    call.broker().vhosts.delete_global_parameter(name);
    Ok(Reply::done().when_all_stored())
}

/// The broker's own are nobody else's.
fn only_public(name: &str) -> Result<(), ApiError> {
    match name.starts_with(INTERNAL_PREFIX) {
        true => Err(ApiError::bad_request(format!("names that begin with '{INTERNAL_PREFIX}' are the broker's own"))),
        false => Ok(()),
    }
}
