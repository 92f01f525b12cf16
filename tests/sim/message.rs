//! What is in a message: who it is, and bytes that follow from that, so that every copy can be checked.

use tests::wire::value::{Table, Value};
use tests::wire::{Field, Properties};

use crate::facts::{Death, Publish, PublishId, Reason};
use crate::plan::QueueIndex;

/// A body has room for the message's number at least.
pub(crate) const BODY_BYTES_MIN: usize = 8;

/// The body of this message.
pub(crate) fn body(id: PublishId, bytes: usize) -> Vec<u8> {
    let mut body = (id.0 as u64).to_be_bytes().to_vec();
    body.extend((body.len()..bytes).map(|place| filler(id, place)));
    body
}

/// Its properties.
pub(crate) fn properties(id: PublishId, publish: &Publish) -> Properties {
    let mut properties = vec![("delivery-mode", Field::Number(if publish.is_persistent { 2 } else { 1 }))];
    properties.extend(publish.priority.map(|priority| ("priority", Field::Number(u64::from(priority)))));
    let expiration = publish.expiration_ms.map(|ms| Field::String(ms.to_string().into_bytes()));
    properties.extend(expiration.map(|expiration| ("expiration", expiration)));
    properties.push(("message-id", Field::String(format!("m{}", id.0).into_bytes())));
    properties
}

/// Whether the properties are those of the publish, but for what the broker changes in a dead letter (semantics 20.5).
///
/// # Errors
/// How they differ.
pub(crate) fn compare(id: PublishId, publish: &Publish, is_dead: bool, properties: &Properties) -> Result<(), String> {
    let mut sent = self::properties(id, publish);
    sent.retain(|(name, _)| !(is_dead && *name == "expiration"));
    let come: Vec<_> = properties.iter().filter(|(name, _)| *name != "headers").cloned().collect();
    if come == sent { Ok(()) } else { Err(format!("message {} comes with {come:?}, not with {sent:?}", id.0)) }
}

/// What the broker wrote into the headers: the message's death, and how often it came back. `queue_of` knows queues by their names.
///
/// # Errors
/// When a history of deaths is none of ours: each message dies once at most.
pub(crate) fn headers(
    properties: &Properties,
    queue_of: impl Fn(&[u8]) -> Option<QueueIndex>,
) -> Result<(Option<Death>, Option<i64>), String> {
    let headers = properties.iter().find_map(|(name, field)| match field {
        Field::Table(table) if *name == "headers" => Some(table),
        _ => None,
    });
    let Some(headers) = headers else { return Ok((None, None)) };
    let returns = match find(headers, "x-delivery-count") {
        Some(Value::I64(count)) => Some(*count),
        None => None,
        Some(other) => return Err(format!("x-delivery-count is {other:?}")),
    };
    let death = match find(headers, "x-death") {
        None => return Ok((None, returns)),
        Some(Value::Array(deaths)) if let [Value::Table(death)] = deaths.as_slice() => death,
        Some(other) => return Err(format!("x-death is {other:?}")),
    };
    let queue = match find(death, "queue") {
        Some(Value::Text(name)) => queue_of(name),
        _ => None,
    };
    let reason = match find(death, "reason") {
        Some(Value::Text(name)) => reason_of(name),
        _ => None,
    };
    match (queue, reason, find(death, "count")) {
        (Some(queue), Some(reason), Some(Value::I64(1))) => Ok((Some(Death { queue, reason }), returns)),
        _ => Err(format!("x-death says {death:?}")),
    }
}

fn find<'a>(table: &'a Table, wanted: &str) -> Option<&'a Value> {
    table.iter().find(|(name, _)| name == wanted.as_bytes()).map(|(_, value)| value)
}

fn reason_of(name: &[u8]) -> Option<Reason> {
    match name {
        b"rejected" => Some(Reason::Rejected),
        b"expired" => Some(Reason::Expired),
        b"maxlen" => Some(Reason::MaxLength),
        b"delivery_limit" => Some(Reason::DeliveryLimit),
        _ => None,
    }
}

/// Whose body this is.
///
/// # Errors
/// When it is nobody's, or damaged.
pub(crate) fn identify(properties: &Properties, body: &[u8]) -> Result<PublishId, String> {
    let number = body.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    let id = number.and_then(|number| usize::try_from(number).ok()).map(PublishId);
    let id = id.ok_or_else(|| format!("a body of {} bytes is no message of ours", body.len()))?;
    if let Some(place) = (8..body.len()).find(|place| body[*place] != filler(id, *place)) {
        return Err(format!("byte {place} of message {} is not what was sent", id.0));
    }
    let named = format!("m{}", id.0).into_bytes();
    match properties.iter().find(|(name, _)| *name == "message-id") {
        Some((_, Field::String(name))) if *name == named => Ok(id),
        other => Err(format!("message {} has the id {other:?}", id.0)),
    }
}

fn filler(id: PublishId, place: usize) -> u8 {
    (id.0.wrapping_mul(31).wrapping_add(place.wrapping_mul(7))) as u8
}
