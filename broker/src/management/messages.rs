//! Publishing one message, and getting some: by the same entries as AMQP, with the same checks and in RabbitMQ's JSON.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plugin_api::message::PropertiesBuf;
use serde_json::{Map, Value as Json, json};

use super::body::{Fields, integer, text, wrong};
use super::call::{Answer, Call};
use super::errors::ApiError;
use super::outlet::Desk;
use super::reply::Reply;
use crate::message::{Marks, Message, Parts};
use crate::metrics::sizes::BodySizes;
use crate::metrics::{Stat, Total, Totals};
use crate::queue::{self, HolderId, Input, Notice, Settlement};
use crate::runtime::Broker;
use crate::vhost::firehose::Traced;
pub(super) use crate::vhost::json_properties::shown_properties;
use crate::vhost::json_table::table_from_json;
use crate::vhost::publish::{Context, Published, Publisher, without_bcc};
use crate::vhost::{QueueRecord, Vhost};

/// The channel that a request is to whatever answers it.
const CHANNEL: u16 = 1;
/// What the messages of one answer may have in all; then it ends, and the rest is left where it is.
const PAYLOADS_BYTES_MAX: usize = 64 * 1024 * 1024;

// Publishing

pub(super) async fn publish(call: Arc<Call>) -> Answer {
    let vhost = call.vhost_to_change()?;
    let exchange = call.named_exchange("exchange");
    if vhost.exchange(exchange).is_none() {
        return Err(ApiError::not_found("exchange_not_found"));
    }
    if let Some(reason) = call.broker().alarms.reason() {
        // Connections that publish wait; a request that waited would only fill memory, too.
        return Err(ApiError::unavailable(format!("publishing is stopped: {reason}")));
    }
    let message = message(&call, exchange, &call.fields()?)?;
    let mut desk = Desk::new();
    let published = hand_over(&call, &vhost, message, &desk)?;
    let Published::Routed(mut unanswered) = published else {
        return match published {
            Published::Rejected => Err(rejected()),
            _ => {
                count(call.broker(), &vhost, [(Total::Confirmed, 1)]);
                Ok(Reply::ok(json!({"routed": false})))
            }
        };
    };
    while unanswered > 0 {
        if let Notice::Confirmed { is_taken, .. } = desk.notice().await? {
            unanswered -= 1;
            if !is_taken {
                return Err(rejected());
            }
        }
    }
    count(call.broker(), &vhost, [(Total::Confirmed, 1)]);
    Ok(Reply::ok(json!({"routed": true})))
}

/// Counts for the node and the vhost, as a connection would.
fn count(broker: &Broker, vhost: &Vhost, counted: impl IntoIterator<Item = (Total, u64)>) {
    let mut totals = Totals::default();
    counted.into_iter().for_each(|(total, amount)| totals.add(total, amount));
    broker.metrics.connections.add_outside(&vhost.name, totals);
}

fn count_published(
    broker: &Broker,
    vhost: &Vhost,
    publisher: &mut Publisher,
    body_bytes: usize,
    published: &Published,
) {
    let mut totals = Totals::default();
    let mut sizes = BodySizes::default();
    sizes.note(body_bytes);
    let bytes = sizes.take(|class, count| totals.add(Total::Size(class), count));
    totals.add(Total::BodyBytes, bytes);
    for (exchange, counts) in publisher.take_counts() {
        totals.add(Total::Received, counts.received);
        totals.add(Total::ReceivedConfirm, counts.confirming);
        totals.add(Total::Routed, counts.copies);
        exchange.stats.received(counts.received);
    }
    if *published == Published::Unroutable {
        // RabbitMQ publishes as mandatory here, and says of what comes back that it was not routed.
        totals.add(Total::UnroutableReturned, 1);
        if let Some(exchange) = publisher.last_exchange() {
            exchange.stats.unroutable(true);
        }
    }
    broker.metrics.connections.add_outside(&vhost.name, totals);
}

fn rejected() -> ApiError {
    ApiError::bad_request("rejected Unable to publish message. Check queue limits.")
}

/// Checks, routes and posts it.
pub(super) fn hand_over(call: &Call, vhost: &Vhost, message: Arc<Message>, desk: &Desk) -> Result<Published, ApiError> {
    let broker = call.broker();
    let context =
        Context { vhost, hooks: &broker.hooks, access_generation: broker.access.generation(), reply_name: &|_| None };
    let mut publisher = Publisher::default();
    let body_bytes = message.body().len();
    let published = publisher
        .publish(&context, &mut call.by(vhost), CHANNEL, 1, None, message)
        .map_err(|error| ApiError::of_channel(&error))?;
    publisher.flush(&desk.outlet(), |_| {});
    count_published(broker, vhost, &mut publisher, body_bytes, &published);
    for trace in publisher.take_traces() {
        let by = Traced {
            node: &broker.identity.cluster_name,
            connection: "HTTP",
            channel: trace.channel,
            user: &call.user.name,
        };
        vhost.trace_publish(by, &trace.message, &trace.queues);
    }
    Ok(published)
}

/// The message that a body describes.
pub(super) fn message(call: &Call, exchange: &str, fields: &Fields) -> Result<Arc<Message>, ApiError> {
    let [key, properties, payload, encoding] =
        fields.require(["routing_key", "properties", "payload", "payload_encoding"])?;
    let Some(payload) = payload.as_str() else { return Err(ApiError::bad_request("payload_not_string")) };
    let body = match encoding {
        Json::String(encoding) if encoding == "string" => payload.as_bytes().to_vec(),
        Json::String(encoding) if encoding == "base64" => {
            STANDARD.decode(payload).map_err(|_| ApiError::bad_request("payload is not base64"))?
        }
        other => {
            let shown = other.as_str().map_or_else(|| other.to_string(), |text| format!("<<\"{text}\">>"));
            return Err(ApiError::bad_request(format!("{{unsupported_encoding,{shown}}}")));
        }
    };
    let routing_key = text("routing_key", key)?;
    super::queues::check_name(routing_key)?;
    let max = call.broker().limits.message_bytes_max;
    if body.len() as u64 > max {
        let text = format!("message size {} is larger than configured max size {max}", body.len());
        return Err(ApiError::bad_request(format!("406 PRECONDITION_FAILED - {text}")));
    }
    let properties = match properties {
        Json::Object(properties) => self::properties(properties)?.encode(),
        // As some languages write an empty map.
        Json::Array(items) if items.is_empty() => PropertiesBuf::default().encode(),
        other => return Err(wrong("properties", "an object", other)),
    };
    Ok(Message::new(Parts { exchange, routing_key, properties: &properties }, &body))
}

/// A short string of a message.
const SHORT_BYTES_MAX: usize = 255;

fn properties(object: &Map<String, Json>) -> Result<PropertiesBuf, ApiError> {
    let get = |key: &str| object.get(key).filter(|value| !value.is_null());
    let short = |key: &str| -> Result<Option<Vec<u8>>, ApiError> {
        let Some(value) = get(key) else { return Ok(None) };
        let Some(text) = value.as_str() else { return Err(ApiError::bad_request(format!("{{not_string,{key}}}"))) };
        if text.len() > SHORT_BYTES_MAX {
            return Err(ApiError::bad_request(format!("{key} is longer than {SHORT_BYTES_MAX} bytes")));
        }
        Ok(Some(text.as_bytes().to_vec()))
    };
    let number = |key: &str, max: u64| -> Result<Option<u64>, ApiError> {
        let Some(value) = get(key) else { return Ok(None) };
        match value.as_u64().filter(|number| *number <= max) {
            Some(number) => Ok(Some(number)),
            None => Err(ApiError::bad_request(format!("{{not_int,{key}}}"))),
        }
    };
    let octet = |key: &str| -> Result<Option<u8>, ApiError> {
        Ok(number(key, u64::from(u8::MAX))?.and_then(|number| u8::try_from(number).ok()))
    };
    let headers = match get("headers") {
        None => None,
        Some(Json::Array(items)) if items.is_empty() => None,
        Some(Json::Object(headers)) => {
            Some(table_from_json(headers).map_err(|error| ApiError::bad_request(format!("headers: {error}")))?)
        }
        Some(other) => return Err(wrong("headers", "an object", other)),
    };
    Ok(PropertiesBuf {
        content_type: short("content_type")?,
        content_encoding: short("content_encoding")?,
        headers,
        delivery_mode: octet("delivery_mode")?,
        priority: octet("priority")?,
        correlation_id: short("correlation_id")?,
        reply_to: short("reply_to")?,
        expiration: short("expiration")?,
        message_id: short("message_id")?,
        timestamp: number("timestamp", u64::MAX)?,
        kind: short("type")?,
        user_id: short("user_id")?,
        app_id: short("app_id")?,
        cluster_id: short("cluster_id")?,
    })
}

// Getting

/// What happens to messages that were got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AckMode {
    AckRequeueTrue,
    AckRequeueFalse,
    RejectRequeueTrue,
    RejectRequeueFalse,
}

impl AckMode {
    fn parse(value: &Json) -> Result<Self, ApiError> {
        match value.as_str() {
            Some("ack_requeue_true") => Ok(Self::AckRequeueTrue),
            Some("ack_requeue_false") => Ok(Self::AckRequeueFalse),
            Some("reject_requeue_true") => Ok(Self::RejectRequeueTrue),
            Some("reject_requeue_false") => Ok(Self::RejectRequeueFalse),
            _ => {
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                Err(ApiError::bad_request(format!(
                    "Invalid ackmode value: {shown}. Valid values are: ack_requeue_true, ack_requeue_false, reject_requeue_true, reject_requeue_false"
                )))
            }
        }
    }

    /// None for messages that are settled when they are got.
    fn settlement(self) -> Option<Settlement> {
        match self {
            Self::AckRequeueFalse => None,
            Self::AckRequeueTrue | Self::RejectRequeueTrue => Some(Settlement::Requeue),
            Self::RejectRequeueFalse => Some(Settlement::Reject),
        }
    }
}

/// How payloads are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) is_always_base64: bool,
    /// Payloads are cut to so many bytes.
    pub(super) truncate: Option<usize>,
}

pub(super) async fn get(call: Arc<Call>) -> Answer {
    let vhost = call.vhost_to_change()?;
    if vhost.queue(call.named("queue")).is_none() {
        return Err(ApiError::not_found("queue_not_found"));
    }
    let fields = call.fields()?;
    let [mode, count, encoding] = fields.require(["ackmode", "count", "encoding"])?;
    let mode = AckMode::parse(mode)?;
    let count = integer("count", count)?;
    let is_always_base64 = match encoding.as_str() {
        Some("auto") => false,
        Some("base64") => true,
        _ => return Err(ApiError::bad_request("Unsupported encoding. Please use auto or base64.")),
    };
    let truncate = fields.integer("truncate")?.map(|bytes| usize::try_from(bytes).unwrap_or(0));
    let shape = Shape { is_always_base64, truncate };
    let refused = |error| ApiError::of_channel(&error);
    let queue = vhost.readable_queue(&mut call.by(&vhost), call.named("queue")).map_err(refused)?;
    vhost.check_get(&queue).map_err(refused)?;
    let kind = usize::from(queue.is_quorum());
    let getter = Getter::new(&call, queue);
    // A negative count takes all there is, as in RabbitMQ.
    let mut counts = [0; 3];
    let answer = getter.get(u64::try_from(count).unwrap_or(u64::MAX), mode, shape, &mut counts).await;
    let got = if mode.settlement().is_none() { Stat::GetNoAck } else { Stat::Get };
    let counted = [got, Stat::Redeliver, Stat::GetEmpty].map(|stat| Total::Delivery(kind, stat));
    self::count(call.broker(), &vhost, counted.into_iter().zip(counts));
    answer
}

/// Holds what was got until it is settled. What is not goes back when the request ends in whatever way.
#[derive(Debug)]
pub(super) struct Getter {
    pub(super) holder: HolderId,
    pub(super) queue: Arc<QueueRecord>,
    pub(super) desk: Desk,
}

impl Drop for Getter {
    fn drop(&mut self) {
        let (holders, reply_to) = (vec![self.holder], self.desk.reply_to());
        self.queue.handle.post(Input::Detach { holders, reply_to });
    }
}

impl Getter {
    pub(super) fn new(call: &Call, queue: Arc<QueueRecord>) -> Self {
        let connection = call.broker().census.take_number();
        Self { holder: HolderId { connection, source: 1 }, queue, desk: Desk::new() }
    }

    /// Counts what was got, what of that had been handed out before, and whether the queue was found empty.
    async fn get(mut self, count: u64, mode: AckMode, shape: Shape, counts: &mut [u64; 3]) -> Answer {
        let [got, redeliveries, found_empty] = counts;
        let (holder, no_ack) = (self.holder, mode.settlement().is_none());
        let (mut messages, mut tickets, mut bytes) = (Vec::new(), Vec::new(), 0);
        while (messages.len() as u64) < count && bytes < PAYLOADS_BYTES_MAX {
            let get = |reply_to| Input::Get { holder, no_ack, reply_to };
            match self.desk.ask(&self.queue, get).await? {
                queue::Reply::Got { ticket, redelivered, message, remaining, .. } => {
                    bytes += message.weight();
                    *got += 1;
                    *redeliveries += u64::from(redelivered);
                    tickets.push(ticket);
                    // A message that dies in the queue needs its header BCC until then; nobody may see it.
                    let message = if message.marks().has(Marks::HIDES_BCC) {
                        without_bcc(&message).map_err(|error| ApiError::of_channel(&error))?
                    } else {
                        message
                    };
                    messages.push(shown(&message, redelivered, remaining, shape));
                }
                _ => {
                    *found_empty += 1;
                    break;
                }
            }
        }
        // All of them last, so that none that goes back is got again.
        if let Some(settlement) = mode.settlement().filter(|_| !tickets.is_empty()) {
            self.queue.handle.post(Input::Settle { holder, tickets: tickets.into(), settlement });
        }
        Ok(Reply::ok(Json::Array(messages)))
    }
}

impl Getter {
    /// Takes so many ready messages out of the queue, those at its head first, and shows them to nobody. They are no dead letters, as those of a purge
    /// are not; what cannot be dropped in the time of a request stays.
    pub(super) async fn drop_first(mut self, count: u64) -> Result<(), ApiError> {
        let holder = self.holder;
        for _ in 0..count {
            let get = |reply_to| Input::Get { holder, no_ack: true, reply_to };
            if !matches!(self.desk.ask(&self.queue, get).await?, queue::Reply::Got { .. }) {
                break;
            }
        }
        Ok(())
    }
}

pub(super) fn shown(message: &Message, redelivered: bool, remaining: usize, shape: Shape) -> Json {
    let body = message.body();
    let part = shape.truncate.and_then(|bytes| body.get(..bytes)).unwrap_or(body);
    let (payload, encoding) = match std::str::from_utf8(part) {
        Ok(text) if !shape.is_always_base64 => (text.to_owned(), "string"),
        _ => (STANDARD.encode(part), "base64"),
    };
    json!({
        "payload_bytes": body.len(),
        "redelivered": redelivered,
        "exchange": message.exchange(),
        "routing_key": message.routing_key(),
        "message_count": remaining,
        "properties": shown_properties(message.properties()),
        "payload": payload,
        "payload_encoding": encoding,
    })
}

#[cfg(test)]
mod tests {
    use plugin_api::message::Properties;

    use super::*;

    fn read(value: Json) -> Result<PropertiesBuf, ApiError> {
        properties(value.as_object().unwrap())
    }

    #[test]
    fn properties_come_back_as_they_were() {
        let value = json!({
            "content_type": "text/plain", "headers": {"n": 1, "t": {"x": "y"}}, "delivery_mode": 2, "priority": 3,
            "timestamp": 1_700_000_000, "type": "order", "app_id": "a", "correlation_id": "c", "reply_to": "r",
            "expiration": "1000", "message_id": "m", "user_id": "u", "cluster_id": "l", "content_encoding": "gzip",
        });
        let raw = read(value.clone()).unwrap().encode();
        assert_eq!(Json::Object(shown_properties(Properties::from_raw(&raw))), value);
        let raw = read(json!({"priority": null, "headers": []})).unwrap().encode();
        assert!(shown_properties(Properties::from_raw(&raw)).is_empty());
    }

    #[test]
    fn wrong_types_of_properties_are_refused() {
        let check = |value: Json, reason: &str| assert_eq!(read(value), Err(ApiError::bad_request(reason)));
        check(json!({"delivery_mode": "2"}), "{not_int,delivery_mode}");
        check(json!({"priority": 300}), "{not_int,priority}");
        check(json!({"expiration": 1000}), "{not_string,expiration}");
        assert!(read(json!({"headers": [1]})).is_err());
        assert!(read(json!({"app_id": "x".repeat(256)})).is_err());
    }
}
