//! The broker at a glance: `/overview`, its version and its cluster's name.

use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::reply::Reply;
use super::{body, lists, nodes, stats};
use crate::metrics::Stat;
use crate::metrics::read::{Churn, Number, Reader};
use crate::vhost::registry::CLUSTER_NAME;

/// Where tools keep the name of a cluster, as in RabbitMQ.

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
        "disable_stats": false,
        "enable_queue_totals": false,
        "default_queue_type": "classic",
        "is_op_policy_updating_enabled": true,
        "statistics_db_event_queue": 0,
    });
    let Some(object) = overview.as_object_mut() else { return lists::one(call, overview) };
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

fn totals(reader: &Reader<'_>, overview: &mut Map<String, Json>) {
    let facts = reader.overview();
    let mut put = |key: &str, value: Json| overview.insert(key.to_owned(), value);
    // Nothing here is read from disk on behalf of one message, so there are no such counters.
    put("message_stats", stats::message_stats(&facts.message_stats, stats::Of::Others).unwrap_or_else(|| json!({})));
    let mut lengths = Map::new();
    for (at, name) in LENGTHS.iter().enumerate() {
        stats::put(&mut lengths, name, facts.queue_totals.get(at));
    }
    put("queue_totals", Json::Object(lengths));
    let mut churn = Map::new();
    for kind in Churn::ALL {
        stats::put(&mut churn, kind.name(), facts.gauges.get(kind as usize));
    }
    put("churn_rates", Json::Object(churn));
    let totals = facts.object_totals;
    put(
        "object_totals",
        json!({
            "connections": totals.connections, "channels": totals.channels, "queues": totals.queues,
            "exchanges": totals.exchanges, "consumers": totals.consumers,
        }),
    );
}

/// Of the vhosts that the caller may enter.
fn totals_of_visible(call: &Call, reader: &Reader<'_>, overview: &mut Map<String, Json>) -> Result<(), ApiError> {
    let vhosts = call.listed_vhosts()?;
    let mut lengths = [(0, 0.0); 3];
    let mut counted = [(0, 0.0); Stat::ALL.len()];
    for vhost in &vhosts {
        let facts = reader.vhost(vhost);
        let add = |sum: &mut (u64, f64), number: Number<'_>| *sum = (sum.0 + number.value, sum.1 + number.rate);
        lengths.iter_mut().enumerate().for_each(|(at, sum)| add(sum, facts.lengths.get(at)));
        counted.iter_mut().zip(Stat::ALL).for_each(|(sum, stat)| add(sum, facts.message_stats.get(stat)));
    }
    let object = |names: &[&str], sums: &[(u64, f64)]| {
        let mut shown = Map::new();
        names.iter().zip(sums).for_each(|(name, (value, rate))| stats::put_rate(&mut shown, name, *value, *rate));
        Json::Object(shown)
    };
    let is_visible = |vhost: &str| vhosts.iter().any(|visible| *visible.name == *vhost);
    let connections = reader.connections();
    let own = connections.iter().filter(|facts| facts.opened().is_some_and(|opened| is_visible(&opened.vhost)));
    let (connections, channels) = own.fold((0, 0), |(count, channels), facts| (count + 1, channels + facts.channels));
    let queues: Vec<_> = vhosts.iter().flat_map(|vhost| vhost.queues()).collect();
    let consumers: u64 = queues.iter().filter_map(|queue| queue.handle.report()).map(|report| report.consumers).sum();
    let exchanges: usize = vhosts.iter().map(|vhost| vhost.counts().0).sum();
    let has_counted = counted.iter().any(|(value, _)| *value > 0);
    let message_stats = if has_counted { object(&Stat::ALL.map(Stat::name), &counted) } else { json!({}) };
    overview.insert("message_stats".to_owned(), message_stats);
    overview.insert("queue_totals".to_owned(), object(&LENGTHS, &lengths));
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
