//! What RabbitMQ has flags and plugins for. Feature flags are what tools ask about before they use something; here everything is always on.

use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::lists::{self, Paging};
use super::reply::Reply;

/// Flags that clients ask for, each with what it stands for.
const FLAGS: &[(&str, &str)] = &[
    ("classic_mirrored_queue_version", "Support setting version for classic mirrored queues"),
    ("classic_queue_type_delivery_support", "Bug fix for classic queue deliveries using mixed versions"),
    ("detailed_queues_endpoint", "Add a detailed queues HTTP API endpoint"),
    ("direct_exchange_routing_v2", "v2 direct exchange routing implementation"),
    ("drop_unroutable_metric", "Count unroutable publishes to be dropped in stats"),
    ("empty_basic_get_metric", "Count AMQP `basic.get` on empty queues in stats"),
    ("implicit_default_bindings", "Default bindings are now implicit, instead of being stored in the database"),
    ("listener_records_in_ets", "Store listener records in ETS instead of Mnesia"),
    ("maintenance_mode_status", "Maintenance mode status"),
    ("quorum_queue", "Support queues of type `quorum`"),
    ("restart_streams", "Support for restarting streams with optional preferred next leader argument"),
    ("stream_queue", "Support queues of type `stream`"),
    ("tracking_records_in_ets", "Store tracking records in ETS instead of Mnesia"),
    ("user_limits", "Configure connection and channel limits for a user"),
    ("virtual_host_metadata", "Virtual host metadata (description, tags, etc)"),
];

/// Flags of what this broker does not have.
const DISABLED: &[&str] = &["stream_queue", "restart_streams", "classic_mirrored_queue_version"];

fn shown(name: &str, description: &str) -> Json {
    json!({
        "name": name,
        "desc": description,
        "doc_url": "",
        "state": if DISABLED.contains(&name) { "disabled" } else { "enabled" },
        "stability": "stable",
        "require_level": "none",
        "provided_by": "broker",
    })
}

pub(super) fn flags(call: &Call) -> Answer {
    let rows = FLAGS.to_vec();
    lists::list(call, Paging::None, rows, |(name, _)| name, |(name, description)| shown(name, description))
}

/// Flags that are on can be switched on again.
pub(super) fn enable(call: &Call) -> Answer {
    let name = call.named("flag");
    match FLAGS.iter().any(|(known, _)| *known == name) {
        true if DISABLED.contains(&name) => Err(ApiError::bad_request("unsupported")),
        true => Ok(Reply::done()),
        false => Err(ApiError::bad_request("unknown_feature_flag")),
    }
}

/// A list of what there is none of.
pub(super) fn nothing(call: &Call) -> Answer {
    if call.named.iter().any(|(name, _)| *name == "v") {
        call.vhost()?;
    }
    Ok(Reply::ok(json!([])))
}

/// Something that is so already.
pub(super) fn done(_: &Call) -> Answer {
    Ok(Reply::done())
}
