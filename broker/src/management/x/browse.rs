//! Looking into a queue: the messages that are next in line, as they are. Nothing is handed out, so nothing becomes redelivered or changes its place.
//! Messages that only the store has are not fetched for it; the answer says how many are ready in all.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::super::call::{Answer, Call};
use super::super::errors::ApiError;
use super::super::messages::{self, Shape};
use super::super::outlet::Desk;
use super::super::reply::Reply;
use crate::message::Marks;
use crate::queue::{self, Input};
use crate::vhost::publish::without_bcc;

/// Messages of an answer, unless the client wants fewer or more.
const COUNT: usize = 20;
const COUNT_MAX: usize = 1000;
/// Of a payload, unless the client says otherwise: enough to recognise a message.
const TRUNCATE_BYTES: usize = 50_000;

pub(in super::super) async fn browse(call: Arc<Call>) -> Answer {
    let vhost = call.vhost()?;
    vhost.queue(call.named("queue")).ok_or_else(ApiError::object_not_found)?;
    let refused = |error| ApiError::of_channel(&error);
    let queue = vhost.readable_queue(&mut call.by(&vhost), call.named("queue")).map_err(refused)?;
    let number = |name: &str, default: usize| match call.query(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| ApiError::bad_request(format!("{name} should be a whole number"))),
    };
    let count = number("count", COUNT)?.min(COUNT_MAX);
    let shape = Shape {
        is_always_base64: call.query("encoding") == Some("base64"),
        truncate: Some(number("truncate", TRUNCATE_BYTES)?),
    };
    match Desk::new().ask(&queue, |reply_to| Input::Browse { count, reply_to }).await? {
        queue::Reply::Browsed { messages, ready } => {
            let mut shown: Vec<Json> = Vec::new();
            for (at, (message, redelivered)) in messages.into_iter().enumerate() {
                let message = if message.marks().has(Marks::HIDES_BCC) {
                    without_bcc(&message).map_err(refused)?
                } else {
                    message
                };
                shown.push(messages::shown(&message, redelivered, ready.saturating_sub(at + 1), shape));
            }
            Ok(Reply::ok(json!({"ready": ready, "messages": shown})))
        }
        _ => Err(ApiError::object_not_found()),
    }
}
