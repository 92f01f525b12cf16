//! Exchanges: listing, declaring, deleting.

use std::sync::Arc;

use plugin_api::exchange::ExchangeSpec;
use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::caller::Caller;
use super::errors::ApiError;
use super::lists::{self, Paging};
use super::reply::Reply;
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
    lists::list(call, Paging::OnDemand, rows, |(_, exchange)| &exchange.name, |row| Json::Object(shown(row)))
}

/// The exchange that the path names.
pub(super) fn named(call: &Call) -> Result<Row, ApiError> {
    let vhost = call.vhost()?;
    let exchange = vhost.exchange(call.named_exchange("exchange")).ok_or_else(ApiError::object_not_found)?;
    Ok((vhost, exchange))
}

pub(super) fn get(call: &Call) -> Answer {
    lists::one(call, Json::Object(shown(&named(call)?)))
}

/// Who made the exchanges that every vhost has, as RabbitMQ calls it.
const INTERNAL_USER: &str = "rmq-internal";

fn shown((vhost, exchange): &Row) -> Map<String, Json> {
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
    let changed = vhost.declare_exchange(&mut Caller::new(call, &vhost), spec)?;
    Ok(Reply::put(is_new).when_stored(changed))
}

pub(super) fn delete(call: &Call) -> Answer {
    let (vhost, exchange) = named(call)?;
    let changed = vhost.delete_exchange(&mut Caller::new(call, &vhost), &exchange.name, call.is_asked("if-unused"))?;
    Ok(Reply::done().when_stored(changed))
}
