//! The broker at a glance: `/overview`, its version and its cluster's name.

use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::reply::Reply;
use super::{body, lists, nodes, stats};
use crate::metrics::node::GAUGES;
use crate::metrics::read::{Churn, MessageFacts, NodeGauge, Numbers, Reader, Together};
use crate::vhost::registry::CLUSTER_NAME;

pub(super) fn get(call: &Call) -> Answer {
    let broker = call.broker();
    let version = broker.identity.version.as_str();
    let reader = stats::reader(call)?;
    let mut overview = json!({
        "management_version": version,
        "rabbitmq_version": version,
        "product_name": broker.identity.product,
        "product_version": version,
        "rates_mode": "basic",
        "sample_retention_policies": {"global": [600, 3600, 28800, 86400], "basic": [600, 3600], "detailed": [600]},
        "exchange_types": nodes::exchange_types(broker),
        "cluster_name": call.broker().cluster_name(),
        "cluster_tags": {},
        "node_tags": {},
        "erlang_version": nodes::ERLANG_VERSION,
        "erlang_full_version": nodes::ERLANG_FULL_VERSION,
        "crypto_lib_version": nodes::CRYPTO_VERSION,
        "release_series_support_status": "supported",
        "disable_stats": stats::are_disabled(call),
        "enable_queue_totals": call.is_asked("enable_queue_totals"),
        "default_queue_type": "classic",
        "is_op_policy_updating_enabled": true,
        "statistics_db_event_queue": 0,
    });
    let Some(object) = overview.as_object_mut() else { return lists::one(call, overview) };
    if stats::are_disabled(call) {
        object.insert("node".into(), json!(call.api.node_name()));
        object.insert("object_totals".into(), names(call)?);
        return lists::one(call, overview);
    }
    match call.tags.is_monitor {
        true => totals(&reader, object),
        false => totals_of_visible(call, &reader, object)?,
    }
    if call.tags.is_monitor {
        object.insert("node".into(), json!(call.api.node_name()));
        object.insert("listeners".into(), nodes::listeners(&call.api));
        object.insert("contexts".into(), nodes::contexts(&call.api));
    }
    lists::one(call, overview)
}

const LENGTHS: [&str; 3] = ["messages", "messages_ready", "messages_unacknowledged"];

/// How many of what is known without asking queues.
fn names(call: &Call) -> Result<Json, ApiError> {
    let vhosts = if call.tags.is_monitor { call.broker().vhosts.list() } else { call.listed_vhosts()? };
    let (exchanges, queues) = vhosts
        .iter()
        .map(|vhost| vhost.counts())
        .fold((0, 0), |(exchanges, queues), counts| (exchanges + counts.0, queues + counts.1));
    let mut names = json!({"queues": queues, "exchanges": exchanges});
    if call.tags.is_monitor {
        names["connections"] = json!(call.broker().metrics.connections.list().len());
    }
    Ok(names)
}

fn totals(reader: &Reader<'_>, overview: &mut Map<String, Json>) {
    let facts = reader.overview();
    let mut message_stats = match stats::message_stats(&facts.message_stats, stats::Of::Others) {
        Some(Json::Object(shown)) => shown,
        Some(_) | None => Map::new(),
    };
    // Messages of all queues; those of each queue are not counted.
    for (name, gauge) in [("disk_reads", NodeGauge::DiskReads), ("disk_writes", NodeGauge::DiskWrites)] {
        stats::put(&mut message_stats, name, facts.gauges.get(gauge as usize));
    }
    overview.insert("message_stats".to_owned(), Json::Object(message_stats));
    overview.insert("queue_totals".to_owned(), lengths(&facts.queue_totals));
    overview.insert("churn_rates".to_owned(), churn(&facts.gauges));
    let totals = facts.object_totals;
    overview.insert(
        "object_totals".to_owned(),
        json!({
            "connections": totals.connections, "channels": totals.channels, "queues": totals.queues,
            "exchanges": totals.exchanges, "consumers": totals.consumers,
        }),
    );
}

fn lengths(numbers: &Numbers<3>) -> Json {
    let mut shown = Map::new();
    for (at, name) in LENGTHS.iter().enumerate() {
        stats::put(&mut shown, name, numbers.get(at));
    }
    Json::Object(shown)
}

fn churn(gauges: &Numbers<GAUGES>) -> Json {
    let mut shown = Map::new();
    for kind in Churn::ALL {
        stats::put(&mut shown, kind.name(), gauges.get(kind as usize));
    }
    Json::Object(shown)
}

/// Of the vhosts that the caller may enter. What came and went is the node's, as in RabbitMQ.
fn totals_of_visible(call: &Call, reader: &Reader<'_>, overview: &mut Map<String, Json>) -> Result<(), ApiError> {
    let vhosts = call.listed_vhosts()?;
    let (mut waiting, mut counted) = (Together::default(), Together::default());
    for vhost in &vhosts {
        let facts = reader.vhost(vhost);
        waiting.add(&facts.lengths);
        counted.add(&facts.message_stats.0);
    }
    let is_visible = |vhost: &str| vhosts.iter().any(|visible| *visible.name == *vhost);
    let connections = reader.connections();
    let own = connections.iter().filter(|facts| facts.opened().is_some_and(|opened| is_visible(&opened.vhost)));
    let (connections, channels) = own.fold((0, 0), |(count, channels), facts| (count + 1, channels + facts.channels));
    let queues: Vec<_> = vhosts.iter().flat_map(|vhost| vhost.queues()).collect();
    let consumers: u64 = queues.iter().filter_map(|queue| queue.handle.report()).map(|report| report.consumers).sum();
    let exchanges: usize = vhosts.iter().map(|vhost| vhost.counts().0).sum();
    let counted = MessageFacts(counted.sums());
    let message_stats = stats::message_stats(&counted, stats::Of::Others).unwrap_or_else(|| json!({}));
    overview.insert("message_stats".to_owned(), message_stats);
    overview.insert("queue_totals".to_owned(), lengths(&waiting.sums()));
    overview.insert("churn_rates".to_owned(), churn(&reader.node().gauges));
    let totals = json!({
        "connections": connections, "channels": channels, "queues": queues.len(), "exchanges": exchanges,
        "consumers": consumers,
    });
    overview.insert("object_totals".to_owned(), totals);
    Ok(())
}

pub(super) fn version(call: &Call) -> Answer {
    Ok(Reply::ok(Json::from(call.broker().identity.version.as_str())))
}

pub(super) fn cluster_name(call: &Call) -> Answer {
    lists::one(call, json!({"name": call.broker().cluster_name()}))
}

/// Connections that open from now on are told.
pub(super) fn set_cluster_name(call: &Call) -> Answer {
    let fields = call.fields()?;
    let [name] = fields.require(["name"])?;
    call.broker().vhosts.put_global_parameter(CLUSTER_NAME, Json::from(body::text("name", name)?))?;
    Ok(Reply::done().when_all_stored())
}
