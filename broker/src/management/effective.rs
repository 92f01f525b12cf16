//! `/api/config/effective`: the settings that the broker runs with, as text. RabbitMQ prints its Erlang environment there; these are the sections of a topology
//! file. What is in the broker is not part of it (`broker export` has that), and neither is anything that may hold a secret.

use axum::body::Body;
use serde_json::json;

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::reply::Reply;
use crate::config::plain;

pub(super) fn get(call: &Call) -> Answer {
    let (broker, node) = (call.broker(), &call.api.node);
    let mut settings = node.settings.clone();
    // What the file leaves to the machine, and what was set since.
    if let Some(limits) = settings.get_mut("limits").and_then(|limits| limits.as_object_mut()) {
        limits.insert("memory_watermark_bytes".into(), json!(broker.alarms.memory_watermark_bytes()));
        if let Some(bytes) = broker.alarms.disk_free_bytes_min() {
            limits.insert("disk_free_bytes_min".into(), json!(bytes));
        }
    }
    if let Some(node) = settings.get_mut("node").and_then(|node| node.as_object_mut()) {
        node.insert("cluster_name".into(), json!(broker.cluster_name()));
    }
    let listening = node.listeners.iter().map(|listener| (listener.protocol, listener.address.to_string()));
    let listening: Vec<String> = listening.map(|(protocol, address)| format!("{protocol} {address}")).collect();
    let head = format!(
        "# version: {}\n# topology file: {}\n# data folder: {}\n# listening: {}\n",
        env!("CARGO_PKG_VERSION"),
        node.topology.as_ref().map_or("none".into(), |path| path.display().to_string()),
        node.data.as_ref().map_or("none".into(), |path| path.display().to_string()),
        listening.join(", "),
    );
    let text = plain::write(&settings).map_err(|error| ApiError::unavailable(error.to_string()))?;
    Ok(Reply::stream("text/plain; charset=utf-8", Body::from(head + &text)))
}
