//! Health checks: 200 with `ok`, or 503 with a reason (RabbitMQ: "Monitoring", health checks). Few of them can fail on one node.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Value as Json, json};

use super::Listener;
use super::call::{Answer, Call};
use super::errors::ApiError;
use super::reply::Reply;
use crate::tls::{self, Certificate};

fn ok() -> Answer {
    Ok(Reply::ok(json!({"status": "ok"})))
}

/// 503 with what is wrong.
fn failed(body: Json) -> Answer {
    Ok(Reply::json(StatusCode::SERVICE_UNAVAILABLE, body))
}

/// There is nothing that could be wrong.
pub(super) fn fine(_: &Call) -> Answer {
    ok()
}

/// Whether the vhost can be opened.
pub(super) fn aliveness(call: &Call) -> Answer {
    call.vhost()?;
    ok()
}

pub(super) fn leaders(call: &Call) -> Answer {
    call.vhost()?;
    ok()
}

pub(super) fn node(call: &Call) -> Answer {
    if call.named.iter().any(|(name, _)| *name == "node") {
        super::nodes::check_name(call)?;
    }
    match call.broker().alarms.reason() {
        None => ok(),
        Some(reason) => failed(json!({"status": "failed", "reason": format!("resource alarm(s) in effect: {reason}")})),
    }
}

pub(super) fn alarms(call: &Call) -> Answer {
    let (alarms, node) = (&call.broker().alarms, call.api.node_name());
    let raised = [("memory", alarms.is_memory_low()), ("disk", alarms.is_disk_low())];
    let raised: Vec<Json> = raised
        .into_iter()
        .filter(|(_, is_raised)| *is_raised)
        .map(|(resource, _)| json!({"node": node, "resource": resource}))
        .collect();
    if raised.is_empty() {
        return ok();
    }
    failed(json!({"status": "failed", "reason": "There are alarms in effect in the cluster", "alarms": raised}))
}

/// Vhosts run from the moment that they are there.
pub(super) fn vhosts(_: &Call) -> Answer {
    ok()
}

pub(super) fn quorum_critical(_: &Call) -> Answer {
    Ok(Reply::ok(json!({"status": "ok", "reason": "single node cluster"})))
}

pub(super) fn port(call: &Call) -> Answer {
    let port: u16 = call.named("port").parse().map_err(|_| ApiError::bad_request("Invalid port"))?;
    let ports: Vec<u16> = call.api.node.listeners.iter().map(|listener| listener.address.port()).collect();
    if ports.contains(&port) {
        return Ok(Reply::ok(json!({"status": "ok", "port": port})));
    }
    failed(json!({"status": "failed", "reason": "No active listener", "missing": port, "ports": ports}))
}

pub(super) fn protocols(call: &Call) -> Answer {
    let asked = call.named("protocols");
    let wanted: BTreeSet<String> = asked.split(',').map(|name| protocol(&name.to_lowercase()).to_owned()).collect();
    let active: BTreeSet<String> =
        call.api.node.listeners.iter().map(|listener| listener.protocol.to_owned()).collect();
    let missing: Vec<&String> = wanted.difference(&active).collect();
    if missing.is_empty() {
        return Ok(Reply::ok(json!({"status": "ok", "protocols": active, "protocol": asked})));
    }
    failed(json!({"status": "failed", "reason": "No active listener", "missing": missing, "protocols": active}))
}

/// The name under which a protocol is listened for.
fn protocol(name: &str) -> &str {
    match name {
        "amqp091" | "amqp0.9.1" | "amqp0-9-1" | "amqp0_9_1" | "amqp10" | "amqp1.0" | "amqp1-0" | "amqp1_0" => "amqp",
        "amqps" => "amqp/ssl",
        "management" | "management_ui" | "ui" | "http_api" | "http1" | "http1.1" => "http",
        "management_tls" | "management_ui_tls" | "http_api_tls" => "https",
        other => other,
    }
}

/// Whether the certificate of a listener, or of an authority that it trusts, ends so soon.
pub(super) fn certificates(call: &Call) -> Answer {
    let Ok(within) = call.named("within").parse::<u32>() else {
        return Err(ApiError::bad_request("Invalid expiration value."));
    };
    let seconds = match call.named("unit").to_lowercase().as_str() {
        "days" => DAY,
        "weeks" => 7 * DAY,
        "months" => 365 * DAY / 12,
        "years" => 365 * DAY,
        _ => {
            let reason = "Time unit not recognised. Supported units: days, weeks, months, years.";
            return Err(ApiError::bad_request(reason));
        }
    };
    let now = i64::try_from(call.broker().clock.wall_ms() / 1000).unwrap_or(i64::MAX);
    let until = now.saturating_add(i64::from(within).saturating_mul(seconds));
    let ending = |certificates: &[Certificate]| -> Vec<String> {
        let ending = certificates.iter().filter(|certificate| certificate.not_after < until);
        ending.map(|certificate| tls::utc(certificate.not_after, ' ')).collect()
    };
    let node = call.api.node_name();
    let expiring = |listener: &Listener| {
        let tls = listener.tls.as_ref()?;
        let loaded = tls.current();
        let (own, authorities) = (ending(&loaded.chain), ending(&loaded.authorities));
        (!own.is_empty() || !authorities.is_empty()).then(|| {
            json!({
                "node": node, "protocol": listener.protocol, "interface": listener.address.ip().to_string(),
                "port": listener.address.port(), "certfile": tls.decl().certificate, "certfile_expires_on": own,
                "cacertfile": tls.decl().ca, "cacertfile_expires_on": authorities,
            })
        })
    };
    let expired: Vec<Json> = call.api.node.listeners.iter().filter_map(expiring).collect();
    if expired.is_empty() {
        return ok();
    }
    failed(json!({"status": "failed", "reason": "Certificates expiring", "expired": expired}))
}

/// In seconds.
const DAY: i64 = 86_400;

pub(super) fn ready(call: &Call) -> Answer {
    if !call.api.node.listeners.iter().any(Listener::is_amqp) {
        return failed(json!({"status": "failed", "reason": "no active listeners for AMQP/AMQPS"}));
    }
    connections(call)
}

pub(super) fn connections(call: &Call) -> Answer {
    let (count, max) = (call.broker().connection_count(), call.broker().connections_max);
    if max.is_some_and(|max| count >= max as usize) {
        let reason = "node connection limit is reached";
        return failed(json!({"status": "failed", "reason": reason, "connections": count}));
    }
    Ok(Reply::ok(json!({"status": "ok", "connections": count})))
}

pub(super) fn cluster_size(_: &Call) -> Answer {
    Ok(Reply::ok(json!({"status": "ok", "online": 1, "target": 1})))
}
