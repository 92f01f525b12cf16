//! Queues: listing, declaring, deleting, purging.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::lists::{self, Paging};
use super::messages::Getter;
use super::outlet::Desk;
use super::reply::Reply;
use super::{connections, stats};
use crate::metrics::read::{QueueFacts, Reader};
use crate::queue::{self, Input};
use crate::vhost::declare::QueueSpec;
use crate::vhost::error::Kind;
use crate::vhost::json_table::table_to_json;
use crate::vhost::policy::{NAME_BYTES_MAX, QueueType};
use crate::vhost::{Changed, Error, QueueRecord, Vhost};

type Row = (Arc<Vhost>, Arc<QueueRecord>);

pub(super) fn list(call: &Call) -> Answer {
    list_of(call, |_| true)
}

/// Those that the user of the path has declared, whether there is still such a user or not.
pub(super) fn of_user(call: &Call) -> Answer {
    let user = call.named("u");
    list_of(call, |queue| queue.declared_by.as_deref() == Some(user))
}

fn list_of(call: &Call, is_wanted: impl Fn(&QueueRecord) -> bool) -> Answer {
    let mut rows: Vec<Row> = Vec::new();
    for vhost in call.listed_vhosts()? {
        let mut queues = vhost.queues();
        queues.retain(|queue| is_wanted(queue));
        queues.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        rows.extend(queues.into_iter().map(|queue| (Arc::clone(&vhost), queue)));
    }
    let reader = stats::reader(call)?;
    lists::list(call, Paging::OnDemand, rows, |(_, queue)| &queue.name, |row| Json::Object(shown(call, &reader, row)))
}

/// The queue that the path names.
pub(super) fn named(call: &Call) -> Result<Row, ApiError> {
    let vhost = call.vhost()?;
    let queue = vhost.queue(call.named("queue")).ok_or_else(ApiError::object_not_found)?;
    Ok((vhost, queue))
}

pub(super) fn get(call: &Call) -> Answer {
    let (vhost, queue) = named(call)?;
    let reader = stats::reader(call)?;
    let mut shown = shown(call, &reader, &(Arc::clone(&vhost), Arc::clone(&queue)));
    if !stats::are_disabled(call) {
        let consumers = reader.consumers_of(queue.number);
        let consumers = consumers.iter().map(|consumer| connections::shown_consumer(call, consumer)).collect();
        shown.insert("consumer_details".to_owned(), consumers);
        let incoming = reader.incoming(&vhost, &queue).into_iter().map(|from| {
            let mut of = Map::new();
            stats::put_rate(&mut of, "publish", from.publish, from.rate);
            json!({"exchange": {"name": from.exchange, "vhost": vhost.name.as_ref()}, "stats": of})
        });
        shown.insert("incoming".to_owned(), incoming.collect());
        let deliveries = reader.deliveries_from(queue.number);
        shown.insert("deliveries".to_owned(), connections::deliveries(call, deliveries));
    }
    lists::one(call, Json::Object(shown))
}

/// What was declared, and unless the client does not want them, its numbers.
fn shown(call: &Call, reader: &Reader<'_>, row: &Row) -> Map<String, Json> {
    let mut shown = declared(call, row);
    if stats::are_disabled(call) && !call.is_asked("enable_queue_totals") {
        return shown;
    }
    let Some(facts) = reader.queue(&row.1) else { return shown };
    if stats::are_disabled(call) {
        for (at, name) in LENGTHS.iter().enumerate() {
            shown.insert((*name).to_owned(), json!(facts.lengths.get(at).value));
        }
    } else {
        add_numbers(call, reader, &facts, &mut shown);
    }
    shown
}

const LENGTHS: [&str; 3] = ["messages", "messages_ready", "messages_unacknowledged"];

fn add_numbers(call: &Call, reader: &Reader<'_>, facts: &QueueFacts, shown: &mut Map<String, Json>) {
    for (at, name) in LENGTHS.iter().enumerate() {
        stats::put(shown, name, facts.lengths.get(at));
    }
    let report = &facts.report;
    let mut put = |key: &str, value: Json| shown.insert(key.to_owned(), value);
    let (messages, bytes) = (report.ready + report.unacked, report.ready_bytes + report.unacked_bytes);
    let in_memory = report.ready_ram + report.unacked_ram;
    put("messages_ram", json!(in_memory));
    put("messages_ready_ram", json!(report.ready_ram));
    put("messages_unacknowledged_ram", json!(report.unacked_ram));
    put("messages_persistent", json!(report.persistent));
    put("messages_paged_out", json!(messages.saturating_sub(in_memory)));
    put("message_bytes", json!(bytes));
    put("message_bytes_ready", json!(report.ready_bytes));
    put("message_bytes_unacknowledged", json!(report.unacked_bytes));
    put("message_bytes_ram", json!(report.ram_bytes));
    put("message_bytes_persistent", json!(report.persistent_bytes));
    put("message_bytes_paged_out", json!(bytes.saturating_sub(report.ram_bytes)));
    put("memory", json!(report.memory_bytes));
    put("consumers", json!(report.consumers));
    put("consumer_capacity", json!(facts.utilisation));
    put("consumer_utilisation", json!(facts.utilisation));
    put("head_message_timestamp", json!(report.head_timestamp));
    put("exclusive_consumer_tag", json!(facts.exclusive_consumer_tag));
    put("single_active_consumer_tag", json!(facts.single_active_consumer_tag));
    if facts.kind == QueueType::Quorum.name() {
        put("single_active_consumer_ctag", json!(facts.single_active_consumer_tag));
        put("messages_dlx", json!(0));
        put("message_bytes_dlx", json!(0));
        put("open_files", json!({call.api.node_name(): 0}));
    } else {
        put("recoverable_slaves", Json::Null);
    }
    put("state", json!(facts.state()));
    if let Some(since_ms) = facts.idle_since_ms {
        put("idle_since", json!(stats::time(since_ms)));
    }
    if let Some(message_stats) = stats::message_stats(&facts.message_stats, stats::Of::Queue) {
        put("message_stats", message_stats);
    }
    let owner = facts.owner.and_then(|number| reader.connection_numbered(number));
    if let Some(owner) = owner.as_ref().and_then(connections::owner) {
        put("owner_pid_details", owner);
    }
}

/// What does not change with its messages.
fn declared(call: &Call, (vhost, queue): &Row) -> Map<String, Json> {
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
    let (_, changed) = vhost.declare_queue(&mut call.by(&vhost), spec, String::new)?;
    Ok(Reply::put(is_new).when_stored(changed))
}

pub(super) async fn delete(call: Arc<Call>) -> Answer {
    let vhost = call.vhost()?;
    let queue = vhost.deletable_queue(&mut call.by(&vhost), call.named("queue"))?;
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
    let queue = vhost.readable_queue(&mut call.by(&vhost), call.named("queue"))?;
    // As LavinMQ has it; RabbitMQ ignores the parameter and drops all.
    if let Some(count) = call.query("count") {
        let wrong = |_| ApiError::bad_request(format!("count should be a number of messages, not '{count}'"));
        let count = count.parse().map_err(wrong)?;
        vhost.check_get(&queue).map_err(|error| ApiError::of_channel(&error))?;
        Getter::new(&call, queue).drop_first(count).await?;
        return Ok(Reply::done());
    }
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
