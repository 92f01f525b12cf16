//! Connections, their channels and consumers: listing them, and closing connections (semantics 5.20).
//!
//! Whoever monitors sees all; others see their own. Only an administrator closes what is another's.

use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::lists::{self, Paging};
use super::reply::Reply;
use super::stats;
use crate::metrics::Stat;
use crate::metrics::connections::{ConnectionStats, Opened};
use crate::metrics::read::{ChannelFacts, ConnectionFacts, ConsumerView, FromQueueFacts, ToExchangeFacts};
use crate::vhost::json_table::table_to_json;

/// What clients hear when nobody gave a reason, as from RabbitMQ.
const REASON: &str = "Closed via management plugin";
/// What readers expect that do not take nothing for an answer.
const CONSUMER_TIMEOUT_MS: u64 = 1_800_000;

/// Whether the caller may see what is a user's in a vhost.
pub(super) fn may_see(call: &Call, opened: &Opened) -> bool {
    let is_in_path = call.named.iter().any(|(name, _)| *name == "v");
    let vhost = if is_in_path { Some(call.named("v")) } else { call.header_vhost() };
    vhost.is_none_or(|vhost| *opened.vhost == *vhost) && (call.tags.is_monitor || *opened.user == *call.user.name)
}

// Connections

pub(super) fn list(call: &Call) -> Answer {
    rows(call, Paging::OnDemand)
}

fn rows(call: &Call, paging: Paging) -> Answer {
    let mut rows: Vec<(ConnectionFacts, String)> = Vec::new();
    for facts in stats::reader(call)?.connections() {
        if let Some(opened) = facts.opened().filter(|opened| may_see(call, opened)) {
            let name = opened.name.to_string();
            rows.push((facts, name));
        }
    }
    rows.sort_by(|a, b| {
        (a.0.opened().map(|opened| &opened.vhost), &a.1).cmp(&(b.0.opened().map(|opened| &opened.vhost), &b.1))
    });
    lists::list(call, paging, rows, |(_, name)| name, |(facts, _)| shown(call, facts))
}

/// Those of a vhost that the caller may enter; RabbitMQ has no pages here.
pub(super) fn of_vhost(call: &Call) -> Answer {
    call.vhost()?;
    rows(call, Paging::None)
}

pub(super) fn get(call: &Call) -> Answer {
    let facts = find(call, call.tags.is_monitor)?;
    lists::one(call, shown(call, &facts))
}

/// The connection that the path names. `is_exempt` is whether the caller may do that with others', too.
fn find(call: &Call, is_exempt: bool) -> Result<ConnectionFacts, ApiError> {
    let facts = stats::reader(call)?.connection(call.named("connection")).ok_or_else(ApiError::object_not_found)?;
    let opened = facts.opened().ok_or_else(ApiError::object_not_found)?;
    only_own(call, is_exempt, &opened.user)?;
    Ok(facts)
}

fn only_own(call: &Call, is_exempt: bool, user: &str) -> Result<(), ApiError> {
    if is_exempt || user == call.user.name {
        Ok(())
    } else {
        Err(ApiError::not_authorised("User not authorised to access object"))
    }
}

pub(super) fn close(call: &Call) -> Answer {
    let facts = find(call, call.tags.is_administrator)?;
    call.broker().close_connection(facts.number, reason(call));
    Ok(Reply::done())
}

/// What `X-Reason` says.
fn reason(call: &Call) -> &str {
    let given = call.headers.get("x-reason").and_then(|value| value.to_str().ok());
    given.filter(|reason| !reason.is_empty()).unwrap_or(REASON)
}

/// Names alone, as RabbitMQ answers here.
pub(super) fn of_user(call: &Call) -> Answer {
    let user = call.named("u");
    only_own(call, call.tags.is_monitor, user)?;
    let node = call.api.node_name();
    let mut rows: Vec<(String, Json)> = Vec::new();
    for facts in stats::reader(call)?.connections() {
        if let Some(opened) = facts.opened().filter(|opened| *opened.user == *user && may_see(call, opened)) {
            let (name, vhost) = (&*opened.name, &*opened.vhost);
            rows.push((name.to_owned(), json!({"name": name, "vhost": vhost, "user": user, "node": node})));
        }
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    lists::list(call, Paging::OnDemand, rows, |(name, _)| name, |(_, row)| row.clone())
}

pub(super) fn close_of_user(call: &Call) -> Answer {
    let user = call.named("u");
    only_own(call, call.tags.is_administrator, user)?;
    for facts in stats::reader(call)?.connections() {
        if facts.opened().is_some_and(|opened| *opened.user == *user) {
            call.broker().close_connection(facts.number, reason(call));
        }
    }
    Ok(Reply::done())
}

fn shown(call: &Call, facts: &ConnectionFacts) -> Json {
    let Some(opened) = facts.opened() else { return json!({}) };
    let tls = opened.tls.as_ref();
    let mut shown = Map::new();
    let mut put = |name: &str, value: Json| shown.insert(name.to_owned(), value);
    put("name", json!(opened.name));
    put("node", json!(call.api.node_name()));
    put("protocol", json!("AMQP 0-9-1"));
    put("type", json!("network"));
    put("user", json!(opened.user));
    put("user_who_performed_action", json!(opened.user));
    put("vhost", json!(opened.vhost));
    put("state", json!(facts.state.name()));
    put("connected_at", json!(opened.connected_at_ms));
    put("client_properties", Json::Object(table_to_json(&opened.client_properties)));
    if let Some(name) = &opened.client_name {
        put("user_provided_name", json!(name));
    }
    put("host", json!(opened.local.map(|local| local.ip().to_canonical().to_string()).unwrap_or_default()));
    put("port", json!(opened.local.map_or(0, |local| local.port())));
    put("peer_host", json!(opened.peer.ip().to_canonical().to_string()));
    put("peer_port", json!(opened.peer.port()));
    put("channels", json!(facts.channels));
    put("channel_max", json!(opened.channel_max));
    put("frame_max", json!(opened.frame_max));
    put("timeout", json!(opened.timeout_secs));
    put("auth_mechanism", json!(opened.auth_mechanism));
    put("ssl", json!(tls.is_some()));
    put("ssl_protocol", json!(tls.map(|tls| &tls.protocol)));
    put("ssl_cipher", json!(tls.map(|tls| &tls.cipher)));
    put("ssl_hash", json!(tls.map(|tls| &tls.hash)));
    put("ssl_key_exchange", json!(tls.map(|tls| &tls.key_exchange)));
    put("peer_cert_subject", json!(tls.and_then(|tls| tls.peer_cert_subject.as_ref())));
    put("peer_cert_issuer", json!(tls.and_then(|tls| tls.peer_cert_issuer.as_ref())));
    put("peer_cert_validity", json!(tls.and_then(|tls| tls.peer_cert_validity.as_ref())));
    if stats::are_disabled(call) {
        return Json::Object(shown);
    }
    put("recv_cnt", json!(facts.reads));
    put("send_cnt", json!(facts.writes));
    put("send_pend", json!(facts.unsent_bytes));
    stats::put(&mut shown, "recv_oct", facts.bytes.get(0));
    stats::put(&mut shown, "send_oct", facts.bytes.get(1));
    Json::Object(shown)
}

fn peer(opened: &Opened) -> Json {
    json!({
        "name": opened.name, "peer_host": opened.peer.ip().to_canonical().to_string(), "peer_port": opened.peer.port(),
    })
}

/// The connection of a number, as exclusive queues show their owner.
pub(super) fn owner(facts: &ConnectionFacts) -> Option<Json> {
    facts.opened().map(peer)
}

/// A channel as consumers and `incoming` show it.
fn channel_details(call: &Call, stats: &ConnectionStats, number: u16) -> Json {
    let Some(opened) = stats.opened() else { return json!({}) };
    json!({
        "name": format!("{} ({number})", opened.name),
        "number": number,
        "user": opened.user,
        "connection_name": opened.name,
        "peer_host": opened.peer.ip().to_canonical().to_string(),
        "peer_port": opened.peer.port(),
        "node": call.api.node_name(),
    })
}

// Channels

fn channel_rows(call: &Call, paging: Paging, channels: Vec<ChannelFacts>) -> Answer {
    let mut rows = channels;
    rows.retain(|channel| channel.opened().is_some_and(|opened| may_see(call, opened)));
    rows.sort_by(|a, b| {
        let key = |channel: &ChannelFacts| channel.opened().map(|opened| (opened.vhost.clone(), opened.name.clone()));
        (key(a), a.number).cmp(&(key(b), b.number))
    });
    lists::list(call, paging, rows, |channel| &channel.name, |channel| Json::Object(shown_channel(call, channel)))
}

pub(super) fn channels(call: &Call) -> Answer {
    channel_rows(call, Paging::OnDemand, stats::reader(call)?.channels())
}

/// Those of a vhost that the caller may enter; RabbitMQ has no pages here.
pub(super) fn channels_of_vhost(call: &Call) -> Answer {
    call.vhost()?;
    channel_rows(call, Paging::None, stats::reader(call)?.channels())
}

pub(super) fn channels_of_connection(call: &Call) -> Answer {
    let connection = find(call, call.tags.is_monitor)?;
    channel_rows(call, Paging::None, stats::reader(call)?.channels_of(&connection))
}

pub(super) fn channel(call: &Call) -> Answer {
    let reader = stats::reader(call)?;
    let channel = reader.channel(call.named("channel")).ok_or_else(ApiError::object_not_found)?;
    let opened = channel.opened().ok_or_else(ApiError::object_not_found)?;
    only_own(call, call.tags.is_monitor, &opened.user)?;
    let mut shown = shown_channel(call, &channel);
    if stats::are_disabled(call) {
        return lists::one(call, Json::Object(shown));
    }
    let of_channel = |consumer: &&ConsumerView| consumer.channel_name() == channel.name;
    let consumers = reader.consumers();
    let consumers: Vec<Json> =
        consumers.iter().filter(of_channel).map(|consumer| shown_consumer(call, consumer)).collect();
    shown.insert("consumer_details".to_owned(), json!(consumers));
    let vhost = &opened.vhost;
    let publishes = reader
        .publishes(&channel)
        .into_iter()
        .map(|to| json!({"exchange": {"name": to.exchange, "vhost": vhost}, "stats": publish_stats(&to)}));
    shown.insert("publishes".to_owned(), publishes.collect());
    let deliveries = reader
        .deliveries(&channel)
        .into_iter()
        .map(|from| json!({"queue": {"name": from.queue, "vhost": vhost}, "stats": delivery_stats(&from)}));
    shown.insert("deliveries".to_owned(), deliveries.collect());
    lists::one(call, Json::Object(shown))
}

fn shown_channel(call: &Call, channel: &ChannelFacts) -> Map<String, Json> {
    let mut shown = Map::new();
    let Some(opened) = channel.opened() else { return shown };
    let mut put = |name: &str, value: Json| shown.insert(name.to_owned(), value);
    put("name", json!(channel.name));
    put("number", json!(channel.number));
    put("connection_details", peer(opened));
    put("vhost", json!(opened.vhost));
    put("user", json!(opened.user));
    put("user_who_performed_action", json!(opened.user));
    put("node", json!(call.api.node_name()));
    put("state", json!(channel.state.name()));
    put("consumer_count", json!(channel.consumer_count));
    put("confirm", json!(channel.confirm));
    put("transactional", json!(channel.transactional));
    put("prefetch_count", json!(channel.prefetch_count));
    put("global_prefetch_count", json!(channel.global_prefetch_count));
    put("messages_unacknowledged", json!(channel.messages_unacknowledged));
    put("messages_unconfirmed", json!(channel.messages_unconfirmed));
    put("messages_uncommitted", json!(channel.messages_uncommitted));
    put("acks_uncommitted", json!(channel.acks_uncommitted));
    put("pending_raft_commands", json!(0));
    if let Some(since_ms) = channel.idle_since_ms {
        put("idle_since", json!(stats::time(since_ms)));
    }
    if let Some(message_stats) = stats::message_stats(&channel.message_stats, stats::Of::Others)
        && !stats::are_disabled(call)
    {
        put("message_stats", message_stats);
    }
    shown
}

fn publish_stats(to: &ToExchangeFacts) -> Map<String, Json> {
    let mut shown = Map::new();
    for (at, stat) in Stat::OF_PUBLISHING.iter().enumerate() {
        stats::put(&mut shown, stat.name(), to.stats.get(at));
    }
    shown
}

fn delivery_stats(from: &FromQueueFacts) -> Map<String, Json> {
    let mut shown = Map::new();
    for (at, stat) in Stat::OF_DELIVERY.iter().enumerate() {
        stats::put(&mut shown, stat.name(), from.stats.get(at));
    }
    // The first four are what is handed out.
    let all = (0..4).map(|at| from.stats.get(at));
    let (value, rate) = all.fold((0, 0.0), |(value, rate), number| (value + number.value, rate + number.rate));
    stats::put_rate(&mut shown, Stat::DeliverGet.name(), value, rate);
    shown
}

/// `incoming` of an exchange: what channels published to it.
pub(super) fn incoming(call: &Call, publishes: Vec<ToExchangeFacts>) -> Json {
    let one = |to: ToExchangeFacts| json!({"channel_details": channel_details(call, &to.connection, to.channel), "stats": publish_stats(&to)});
    publishes.into_iter().map(one).collect()
}

/// `deliveries` of a queue: what channels got from it.
pub(super) fn deliveries(call: &Call, deliveries: Vec<FromQueueFacts>) -> Json {
    let one = |from: FromQueueFacts| json!({"channel_details": channel_details(call, &from.connection, from.channel), "stats": delivery_stats(&from)});
    deliveries.into_iter().map(one).collect()
}

// Consumers

pub(super) fn consumers(call: &Call) -> Answer {
    if call.named.iter().any(|(name, _)| *name == "v") {
        call.vhost()?;
    }
    let mut rows = stats::reader(call)?.consumers();
    rows.retain(|consumer| consumer.opened().is_some_and(|opened| may_see(call, opened)));
    lists::list(call, Paging::None, rows, |consumer| &consumer.facts.tag, |consumer| shown_consumer(call, consumer))
}

pub(super) fn shown_consumer(call: &Call, consumer: &ConsumerView) -> Json {
    let facts = &consumer.facts;
    let vhost = consumer.opened().map(|opened| opened.vhost.to_string()).unwrap_or_default();
    json!({
        "consumer_tag": facts.tag,
        "queue": {"name": facts.queue, "vhost": vhost},
        "ack_required": facts.ack_required,
        "active": consumer.active,
        "activity_status": consumer.activity_status,
        "exclusive": facts.exclusive,
        "prefetch_count": facts.prefetch_count,
        "arguments": table_to_json(&facts.arguments),
        "consumer_timeout": consumer.consumer_timeout_ms.unwrap_or(CONSUMER_TIMEOUT_MS),
        "channel_details": channel_details(call, &consumer.connection, consumer.channel),
    })
}
