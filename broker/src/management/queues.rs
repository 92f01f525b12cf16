//! Queues: listing, declaring, deleting, purging.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::caller::Caller;
use super::errors::ApiError;
use super::lists::{self, Paging};
use super::outlet::Desk;
use super::reply::Reply;
use crate::queue::{self, Input};
use crate::vhost::declare::QueueSpec;
use crate::vhost::error::Kind;
use crate::vhost::json_table::table_to_json;
use crate::vhost::policy::{NAME_BYTES_MAX, QueueType};
use crate::vhost::{Changed, Error, QueueRecord, Vhost};

type Row = (Arc<Vhost>, Arc<QueueRecord>);

pub(super) fn list(call: &Call) -> Answer {
    let mut rows: Vec<Row> = Vec::new();
    for vhost in call.listed_vhosts()? {
        let mut queues = vhost.queues();
        queues.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        rows.extend(queues.into_iter().map(|queue| (Arc::clone(&vhost), queue)));
    }
    lists::list(call, Paging::OnDemand, rows, |(_, queue)| &queue.name, |row| Json::Object(shown(call, row)))
}

/// The queue that the path names.
pub(super) fn named(call: &Call) -> Result<Row, ApiError> {
    let vhost = call.vhost()?;
    let queue = vhost.queue(call.named("queue")).ok_or_else(ApiError::object_not_found)?;
    Ok((vhost, queue))
}

pub(super) fn get(call: &Call) -> Answer {
    lists::one(call, Json::Object(shown(call, &named(call)?)))
}

/// What does not change with its messages.
fn shown(call: &Call, (vhost, queue): &Row) -> Map<String, Json> {
    let policy = queue.policy.read().clone();
    let name = |policy: &Option<Arc<crate::vhost::policy::Policy>>| {
        policy.as_ref().map_or(Json::Null, |policy| json!(policy.spec().name))
    };
    let kind = QueueType::of(&queue.arguments);
    let mut shown = Map::new();
    let mut put = |key: &str, value: Json| shown.insert(key.to_owned(), value);
    put("name", json!(queue.name.as_ref()));
    put("vhost", json!(vhost.name.as_ref()));
    put("type", json!(kind.name()));
    put("durable", json!(queue.durable));
    put("auto_delete", json!(queue.auto_delete));
    put("exclusive", json!(queue.owner.is_some()));
    put("internal", json!(false));
    put("arguments", Json::Object(table_to_json(&queue.arguments)));
    put("node", json!(call.api.node_name()));
    put("state", json!("running"));
    put("policy", name(&policy.policy));
    put("operator_policy", name(&policy.operator));
    put("effective_policy_definition", Json::Object(policy.effective()));
    if kind == QueueType::Quorum {
        let node = call.api.node_name();
        put("leader", json!(node));
        put("members", json!([node]));
        put("online", json!([node]));
    }
    shown
}

/// 400 for a name that no method of AMQP can carry.
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    if name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("name is longer than {NAME_BYTES_MAX} bytes")))
}

pub(super) fn put(call: &Call) -> Answer {
    let vhost = call.vhost_to_change()?;
    let fields = call.fields()?;
    let name = call.named("queue").to_owned();
    check_name(&name)?;
    if name.is_empty() {
        return Err(ApiError::bad_request("the name of a queue is missing"));
    }
    let is_new = vhost.queue(&name).is_none();
    let spec = QueueSpec {
        name,
        durable: fields.flag("durable")?.unwrap_or(false),
        // A request has no connection that it could belong to.
        exclusive: false,
        auto_delete: fields.flag("auto_delete")?.unwrap_or(false),
        arguments: fields.arguments("arguments")?,
    };
    let (_, changed) = vhost.declare_queue(&mut Caller::new(call, &vhost), spec, String::new)?;
    Ok(Reply::put(is_new).when_stored(changed))
}

pub(super) async fn delete(call: Arc<Call>) -> Answer {
    let vhost = call.vhost()?;
    let queue = vhost.deletable_queue(&mut Caller::new(&call, &vhost), call.named("queue"))?;
    let queue = queue.ok_or_else(ApiError::object_not_found)?;
    let (if_unused, if_empty) = (call.is_asked("if-unused"), call.is_asked("if-empty"));
    vhost.check_delete(&queue, if_unused, if_empty)?;
    let delete = |reply_to| Input::Delete { if_unused, if_empty, reply_to: Some(reply_to) };
    let (name, in_vhost) = (queue.name.to_string(), vhost.name.to_string());
    match Desk::new().ask(&queue, delete).await? {
        queue::Reply::InUse => Err(Error::InUse { kind: Kind::Queue, name, vhost: in_vhost }.into()),
        queue::Reply::NotEmpty => Err(Error::NotEmpty { name, vhost: in_vhost }.into()),
        queue::Reply::Gone => Err(ApiError::object_not_found()),
        _ => Ok(Reply::done().when_stored(if queue.durable { Changed::Durable } else { Changed::Transient })),
    }
}

pub(super) async fn purge(call: Arc<Call>) -> Answer {
    let vhost = call.vhost()?;
    vhost.queue(call.named("queue")).ok_or_else(ApiError::object_not_found)?;
    let queue = vhost.readable_queue(&mut Caller::new(&call, &vhost), call.named("queue"))?;
    match Desk::new().ask(&queue, Input::Purge).await? {
        queue::Reply::Gone => Err(ApiError::object_not_found()),
        _ => Ok(Reply::done()),
    }
}

/// Actions belong to mirrored queues, which nobody has any more.
pub(super) fn act(call: &Call) -> Answer {
    named(call)?;
    let fields = call.fields()?;
    let [action] = fields.require(["action"])?;
    let shown = action.as_str().map_or_else(|| action.to_string(), str::to_owned);
    Err(ApiError::bad_request("unknown").with("action", shown))
}
