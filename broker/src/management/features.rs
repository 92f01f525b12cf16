//! What RabbitMQ has flags and plugins for. Feature flags are what tools ask about before they use something; here everything is always on.

use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::lists::{self, Paging};
use super::reply::Reply;

/// Flags that clients ask for, each with what it stands for. Those of what this broker does not have (streams, mirrors) are missing, as
/// in a release that never knew them: whoever switches on everything that is listed succeeds.
const FLAGS: &[(&str, &str)] = &[
    ("classic_queue_type_delivery_support", "Bug fix for classic queue deliveries using mixed versions"),
    ("detailed_queues_endpoint", "Add a detailed queues HTTP API endpoint"),
    ("direct_exchange_routing_v2", "v2 direct exchange routing implementation"),
    ("drop_unroutable_metric", "Count unroutable publishes to be dropped in stats"),
    ("empty_basic_get_metric", "Count AMQP `basic.get` on empty queues in stats"),
    ("implicit_default_bindings", "Default bindings are now implicit, instead of being stored in the database"),
    ("listener_records_in_ets", "Store listener records in ETS instead of Mnesia"),
    ("maintenance_mode_status", "Maintenance mode status"),
    ("message_containers_deaths_v2", "Bug fix for dead letter cycle detection"),
    ("quorum_queue", "Support queues of type `quorum`"),
    ("rabbitmq_4.0.0", "Allows rolling upgrades from 3.13.x to 4.0.x"),
    ("rabbitmq_4.1.0", "Allows rolling upgrades to 4.1.x"),
    ("rabbitmq_4.2.0", "Allows rolling upgrades to 4.2.x"),
    ("tracking_records_in_ets", "Store tracking records in ETS instead of Mnesia"),
    ("user_limits", "Configure connection and channel limits for a user"),
    ("virtual_host_metadata", "Virtual host metadata (description, tags, etc)"),
];

fn shown(name: &str, description: &str) -> Json {
    json!({
        "name": name,
        "desc": description,
        "doc_url": "",
        "state": "enabled",
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
    if FLAGS.iter().any(|(known, _)| *known == name) {
        Ok(Reply::done())
    } else {
        Err(ApiError::bad_request("unsupported"))
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
