//! Limits of vhosts and users (semantics 24.3).

use serde_json::{Map, Value as Json, json};

use super::body::integer;
use super::call::{Answer, Call};
use super::errors::ApiError;
use super::lists::{self, Paging};
use super::reply::Reply;
use super::users;
use crate::access::UserUpdate;
use crate::origin::Origin;
use crate::topology::schema::UserLimitsDecl;
use crate::vhost::Vhost;
use crate::vhost::settings::{VhostLimits, limits_from_json, limits_to_json};

pub(super) fn of_vhosts(call: &Call) -> Answer {
    let mut vhosts = match call.header_vhost() {
        Some(name) => call.broker().vhost(name).into_iter().collect(),
        None => call.broker().vhosts.list(),
    };
    vhosts.retain(|vhost| call.tags.is_monitor || call.may_enter(&vhost.name));
    answer(call, vhosts.iter().filter_map(|vhost| shown(vhost)).collect())
}

pub(super) fn of_vhost(call: &Call) -> Answer {
    answer(call, shown(&*call.vhost()?).into_iter().collect())
}

fn shown(vhost: &Vhost) -> Option<Json> {
    let limits = vhost.limits().to_json();
    (!limits.is_empty()).then(|| json!({"vhost": vhost.name.as_ref(), "value": limits}))
}

fn answer(call: &Call, rows: Vec<Json>) -> Answer {
    lists::list(call, Paging::None, rows, |_| "", Json::clone)
}

/// `{"value": n}`.
fn value(call: &Call) -> Result<i64, ApiError> {
    let fields = call.fields()?;
    let [value] = fields.require(["value"])?;
    integer("value", value)
}

pub(super) fn put(call: &Call) -> Answer {
    let vhost = call.vhost_to_change()?;
    let mut limits = vhost.limits().to_json();
    limits.insert(call.named("limit").to_owned(), json!(value(call)?));
    let changed = vhost.put_limits(VhostLimits::from_json(&limits)?, Origin::Runtime)?;
    Ok(Reply::done().when_stored(changed))
}

pub(super) fn delete(call: &Call) -> Answer {
    let vhost = call.vhost_to_change()?;
    let mut limits = vhost.limits().to_json();
    if limits.remove(call.named("limit")).is_none() {
        return Ok(Reply::done());
    }
    let changed = vhost.put_limits(VhostLimits::from_json(&limits)?, Origin::Runtime)?;
    Ok(Reply::done().when_stored(changed))
}

pub(super) fn of_users(call: &Call) -> Answer {
    answer(call, call.broker().access.records().iter().filter_map(users::limits).collect())
}

pub(super) fn of_user(call: &Call) -> Answer {
    let name = call.named("u");
    call.broker().access.user(name).ok_or_else(ApiError::object_not_found)?;
    let records = call.broker().access.records();
    answer(call, records.iter().filter(|record| record.name == name).filter_map(users::limits).collect())
}

/// The names of a user's limits.
const USER_LIMITS: [&str; 2] = ["max-connections", "max-channels"];

fn user_limits(call: &Call) -> Result<Map<String, Json>, ApiError> {
    let name = call.named("u");
    call.broker().access.user(name).ok_or_else(|| ApiError::not_found("user_not_found"))?;
    let UserLimitsDecl { max_connections, max_channels } = call.broker().access.limits_of(name);
    let [connections, channels] = USER_LIMITS;
    Ok(limits_to_json([(connections, max_connections), (channels, max_channels)]))
}

fn set_user_limits(call: &Call, limits: &Map<String, Json>) -> Answer {
    let [max_connections, max_channels] = limits_from_json(limits, USER_LIMITS, "user limits")?;
    let limits = UserLimitsDecl { max_connections, max_channels };
    let update = UserUpdate { limits: Some(limits), ..UserUpdate::default() };
    call.broker().access.put_user(call.named("u"), update)?;
    Ok(Reply::done().when_all_stored())
}

pub(super) fn put_user(call: &Call) -> Answer {
    let mut limits = user_limits(call)?;
    limits.insert(call.named("limit").to_owned(), json!(value(call)?));
    set_user_limits(call, &limits)
}

pub(super) fn delete_user(call: &Call) -> Answer {
    let mut limits = user_limits(call)?;
    match limits.remove(call.named("limit")) {
        Some(_) => set_user_limits(call, &limits),
        None => Ok(Reply::done()),
    }
}
