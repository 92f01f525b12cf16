//! Exchanges: listing, declaring, deleting.

use std::sync::Arc;

use plugin_api::exchange::ExchangeSpec;
use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::lists::{self, Paging};
use super::reply::Reply;
use super::{connections, stats};
use crate::metrics::exchanges::ExchangeStat;
use crate::metrics::read::Reader;
use crate::routing::Exchange;
use crate::vhost::json_table::table_to_json;
use crate::vhost::{PREDECLARED, Vhost};

type Row = (Arc<Vhost>, Arc<Exchange>);

pub(super) fn list(call: &Call) -> Answer {
    let mut rows: Vec<Row> = Vec::new();
    for vhost in call.listed_vhosts()? {
        let mut exchanges = vhost.exchanges();
        exchanges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        rows.extend(exchanges.into_iter().map(|exchange| (Arc::clone(&vhost), exchange)));
    }
    let reader = stats::reader(call)?;
    lists::list(
        call,
        Paging::OnDemand,
        rows,
        |(_, exchange)| &exchange.name,
        |row| Json::Object(shown(call, &reader, row)),
    )
}

/// The exchange that the path names.
pub(super) fn named(call: &Call) -> Result<Row, ApiError> {
    let vhost = call.vhost()?;
    let exchange = vhost.exchange(call.named_exchange("exchange")).ok_or_else(ApiError::object_not_found)?;
    Ok((vhost, exchange))
}

pub(super) fn get(call: &Call) -> Answer {
    let (vhost, exchange) = named(call)?;
    let reader = stats::reader(call)?;
    let mut shown = shown(call, &reader, &(Arc::clone(&vhost), Arc::clone(&exchange)));
    if !stats::are_disabled(call) {
        let incoming = connections::incoming(call, reader.publishes_to(exchange.number));
        shown.insert("incoming".to_owned(), incoming);
        let outgoing = reader.outgoing(&vhost, &exchange).into_iter().map(|to| {
            let mut of = Map::new();
            stats::put_rate(&mut of, "publish", to.publish, to.rate);
            json!({"queue": {"name": to.queue, "vhost": vhost.name.as_ref()}, "stats": of})
        });
        shown.insert("outgoing".to_owned(), outgoing.collect());
    }
    lists::one(call, Json::Object(shown))
}

/// Who made the exchanges that every vhost has, as RabbitMQ calls it.
const INTERNAL_USER: &str = "rmq-internal";

fn shown(call: &Call, reader: &Reader<'_>, (vhost, exchange): &Row) -> Map<String, Json> {
    let spec = &exchange.spec;
    let is_predeclared = PREDECLARED.iter().any(|(name, ..)| *name == spec.name);
    let mut shown = Map::new();
    let mut put = |key: &str, value: Json| shown.insert(key.to_owned(), value);
    put("name", json!(spec.name));
    put("vhost", json!(vhost.name.as_ref()));
    put("type", json!(spec.kind));
    put("durable", json!(spec.durable));
    put("auto_delete", json!(spec.auto_delete));
    put("internal", json!(spec.internal));
    put("arguments", Json::Object(table_to_json(&spec.arguments)));
    // Who declared an exchange is not kept.
    put("user_who_performed_action", json!(if is_predeclared { INTERNAL_USER } else { "" }));
    if let Some(policy) = exchange.policy().policy {
        put("policy", json!(policy.spec().name));
    }
    // The name that RabbitMQ's plugin for delayed messages gives it; here any type may put messages off.
    if let Some(count) = vhost.held_count(exchange) {
        put("messages_delayed", json!(count));
    }
    let facts = reader.exchange(exchange);
    if facts.is_used() && !stats::are_disabled(call) {
        let mut of = Map::new();
        stats::put(&mut of, "publish_in", facts.get(ExchangeStat::PublishIn));
        stats::put(&mut of, "publish_out", facts.get(ExchangeStat::PublishOut));
        put("message_stats", Json::Object(of));
    }
    shown
}

pub(super) fn put(call: &Call) -> Answer {
    let vhost = call.vhost_to_change()?;
    let fields = call.fields()?;
    let name = call.named_exchange("exchange").to_owned();
    let is_new = vhost.exchange(&name).is_none();
    let spec = ExchangeSpec {
        vhost: vhost.name.to_string(),
        name,
        kind: fields.text("type")?.unwrap_or("direct").to_owned(),
        durable: fields.flag("durable")?.unwrap_or(false),
        auto_delete: fields.flag("auto_delete")?.unwrap_or(false),
        internal: fields.flag("internal")?.unwrap_or(false),
        arguments: fields.arguments("arguments")?,
    };
    super::queues::check_name(&spec.name)?;
    let changed = vhost.declare_exchange(&mut call.by(&vhost), spec)?;
    Ok(Reply::put(is_new).when_stored(changed))
}

pub(super) fn delete(call: &Call) -> Answer {
    let (vhost, exchange) = named(call)?;
    let changed = vhost.delete_exchange(&mut call.by(&vhost), &exchange.name, call.is_asked("if-unused"))?;
    Ok(Reply::done().when_stored(changed))
}
