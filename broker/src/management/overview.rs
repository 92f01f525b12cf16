//! The broker at a glance: `/overview`, its version and its cluster's name.

use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::reply::Reply;
use super::{body, lists, nodes};

/// Where tools keep the name of a cluster, as in RabbitMQ.
const CLUSTER_NAME: &str = "cluster_name";

pub(super) fn get(call: &Call) -> Answer {
    let broker = call.broker();
    let version = broker.identity.version.as_str();
    let vhosts = call.listed_vhosts()?;
    let (exchanges, queues) =
        vhosts.iter().map(|vhost| vhost.counts()).fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
    let connections: usize = vhosts.iter().map(|vhost| broker.census.of_vhost(&vhost.name)).sum();
    let mut overview = json!({
        "management_version": version,
        "rabbitmq_version": version,
        "product_name": broker.identity.product,
        "product_version": version,
        "rates_mode": "basic",
        "sample_retention_policies": {"global": [600, 3600, 28800, 86400], "basic": [600, 3600], "detailed": [600]},
        "exchange_types": nodes::exchange_types(broker),
        "cluster_name": name(call),
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
        "object_totals": {
            "connections": connections,
            "queues": queues,
            "exchanges": exchanges,
        },
    });
    if call.tags.is_monitor
        && let Some(object) = overview.as_object_mut()
    {
        object.insert("node".into(), json!(call.api.node_name()));
        object.insert("listeners".into(), nodes::listeners(&call.api));
        object.insert("contexts".into(), nodes::contexts(&call.api));
    }
    lists::one(call, overview)
}

pub(super) fn version(call: &Call) -> Answer {
    Ok(Reply::ok(Json::from(call.broker().identity.version.as_str())))
}

/// What was set last, or what the topology says.
pub(super) fn name(call: &Call) -> String {
    let set = call.broker().vhosts.global_parameters().remove(CLUSTER_NAME);
    let set = set.and_then(|name| name.as_str().map(str::to_owned));
    set.unwrap_or_else(|| call.broker().identity.cluster_name.clone())
}

pub(super) fn cluster_name(call: &Call) -> Answer {
    lists::one(call, json!({"name": name(call)}))
}

/// Connections that open are told the name from the next start on.
pub(super) fn set_cluster_name(call: &Call) -> Answer {
    let fields = call.fields()?;
    let [name] = fields.require(["name"])?;
    call.broker().vhosts.put_global_parameter(CLUSTER_NAME, Json::from(body::text("name", name)?))?;
    Ok(Reply::done().when_all_stored())
}
