//! How hooks fare, and what they decided last.

use plugin_api::message::Properties;
use serde_json::{Value as Json, json};

use super::super::call::{Answer, Call};
use super::super::errors::ApiError;
use super::super::lists::{self, Paging};
use super::super::messages;
use super::super::reply::Reply;
use crate::access::{Permission, Resource};
use crate::hooks::{HookError, HookStatus, MessageSnapshot, Record, Scope, Snapshot};

/// One row for each hook and each point that its script has.
pub(in super::super) fn hooks(call: &Call) -> Answer {
    lists::list(call, Paging::None, call.broker().hooks.status(), |hook| &hook.name, hook)
}

/// The last calls of one hook at all its points, a sample with message before and after, latest first: those that the caller may see.
pub(in super::super) fn records(call: &Call) -> Answer {
    let name = call.named("hook");
    let all = call.broker().hooks.status();
    let hooks: Vec<&HookStatus> = all.iter().filter(|hook| hook.name == name).collect();
    if hooks.is_empty() {
        return Err(ApiError::object_not_found());
    }
    let mut rows: Vec<(u64, Json)> =
        hooks.iter().flat_map(|hook| visible(call, hook).map(|shown| (shown.at_ms, record(hook, shown)))).collect();
    rows.sort_by_key(|(at_ms, _)| std::cmp::Reverse(*at_ms));
    Ok(Reply::ok(Json::Array(rows.into_iter().map(|(_, row)| row).collect())))
}

/// A record has the headers of a message, so it is for who could get them otherwise: by consuming from the queue, or by binding one to the exchange.
fn visible<'a>(call: &'a Call, hook: &'a HookStatus) -> impl Iterator<Item = &'a Record> {
    let access = &call.broker().access;
    let may_read = |resource, vhost: &str, name: &str| match name {
        "" => access.permits(&call.user, vhost, Permission::Read, resource, "amq.default"),
        name => access.permits(&call.user, vhost, Permission::Read, resource, name),
    };
    hook.records.iter().map(|record| &**record).filter(move |record| {
        call.tags.is_administrator
            || call.may_enter(&record.vhost)
                && match &record.before {
                    Snapshot::Text(_) => true,
                    Snapshot::Message(MessageSnapshot { vhost, queue: Some(queue), .. }) => {
                        may_read(Resource::Queue, vhost, queue)
                    }
                    Snapshot::Message(message) => may_read(Resource::Exchange, &message.vhost, &message.exchange),
                }
    })
}

fn hook(status: &HookStatus) -> Json {
    let counts = status.counts;
    let scope = match &status.scope {
        Scope::Broker => json!({"kind": "broker"}),
        Scope::Vhost(vhost) => json!({"kind": "vhost", "vhost": vhost}),
        Scope::Exchange { vhost, exchange } => json!({"kind": "exchange", "vhost": vhost, "exchange": exchange}),
        Scope::Queue { vhost, queue } => json!({"kind": "queue", "vhost": vhost, "queue": queue}),
    };
    json!({
        "name": status.name,
        "point": status.point.function(),
        "state": if status.shadow { "shadow" } else { "active" },
        "script": status.script.display().to_string(),
        "scope": scope,
        "vhost": scope.get("vhost"),
        "on_error": status.on_error.to_string(),
        "workers": status.worker_count,
        "calls": counts.calls(),
        "passed": counts.passed,
        "rewritten": counts.rewritten,
        "dropped": counts.dropped,
        "rejected": counts.rejected,
        "dead_lettered": counts.dead_lettered,
        "failed": counts.failed,
        "errors": counts.failed,
        "time_limit_reached": counts.time_limit_reached,
        "memory_limit_reached": counts.memory_limit_reached,
        "mean_microseconds": counts.mean_time().map(|time| time.as_nanos() as f64 / 1000.0),
        "last_error": status.last_error.as_ref().map(HookError::to_string),
    })
}

fn record(hook: &HookStatus, record: &Record) -> Json {
    json!({
        "at_ms": record.at_ms,
        "point": hook.point.function(),
        "state": if hook.shadow { "shadow" } else { "active" },
        "result": record.result,
        "reason": record.reason,
        "before": snapshot(&record.before),
        "after": record.after.as_ref().map(snapshot),
    })
}

fn snapshot(snapshot: &Snapshot) -> Json {
    match snapshot {
        Snapshot::Text(text) => json!(text),
        Snapshot::Message(message) => json!({
            "vhost": message.vhost,
            "exchange": message.exchange,
            "routing_key": message.routing_key,
            "queue": message.queue,
            "user": message.user,
            "properties": message.properties.as_deref().map(|raw| messages::shown_properties(Properties::from_raw(raw))),
            "payload_bytes": message.body_bytes,
        }),
    }
}
