//! Moving messages from a queue to another, or to an exchange: `{to_queue or to_exchange, routing_key?, count?}`.
//!
//! A message leaves the queue when where it goes has confirmed it, so one may be doubled by a crash and none is lost. One that reaches no queue stays where it is,
//! and ends the move.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use smallvec::smallvec;

use super::super::call::{Answer, Call};
use super::super::errors::ApiError;
use super::super::messages::{Getter, hand_over};
use super::super::outlet::Desk;
use super::super::reply::Reply;
use crate::message::{Marks, Message, Parts};
use crate::queue::{self, Input, Notice, Settlement};
use crate::vhost::publish::{Published, without_bcc};

/// Then the answer says how far it came, and the client asks again.
const TIME_MAX: Duration = Duration::from_secs(30);

pub(in super::super) async fn shift(call: Arc<Call>) -> Answer {
    let vhost = call.vhost_to_change()?;
    let fields = call.fields()?;
    let (exchange, key) = match (fields.text("to_queue")?, fields.text("to_exchange")?) {
        (Some(queue), None) if !queue.is_empty() => {
            vhost
                .queue(queue)
                .ok_or_else(|| ApiError::not_found(format!("no queue '{queue}' in vhost '{}'", vhost.name)))?;
            if queue == call.named("queue") {
                return Err(ApiError::bad_request("to_queue is the queue itself"));
            }
            (String::new(), Some(queue.to_owned()))
        }
        (None, Some(exchange)) if !exchange.is_empty() => {
            (exchange.to_owned(), fields.text("routing_key")?.map(str::to_owned))
        }
        _ => return Err(ApiError::bad_request("one of to_queue and to_exchange should name where messages go")),
    };
    super::super::queues::check_name(key.as_deref().unwrap_or_default())?;
    let count = fields.integer("count")?.map_or(u64::MAX, |count| u64::try_from(count).unwrap_or(0));
    let refused = |error| ApiError::of_channel(&error);
    vhost.queue(call.named("queue")).ok_or_else(|| ApiError::not_found("queue_not_found"))?;
    let queue = vhost.readable_queue(&mut call.by(&vhost), call.named("queue")).map_err(refused)?;
    vhost.check_get(&queue).map_err(refused)?;
    let mut getter = Getter::new(&call, queue);
    let started = Instant::now();
    let (mut moved, mut stopped) = (0_u64, None);
    while moved < count {
        if started.elapsed() > TIME_MAX {
            stopped = Some("time");
            break;
        }
        let Some((ticket, message)) = getter.next().await? else { break };
        let message =
            if message.marks().has(Marks::HIDES_BCC) { without_bcc(&message).map_err(refused)? } else { message };
        let parts = message.parts();
        let parts = Parts { exchange: &exchange, routing_key: key.as_deref().unwrap_or(parts.routing_key), ..parts };
        let mut desk = Desk::new();
        let published = hand_over(&call, &vhost, Message::new(parts, message.body()), &desk)?;
        if !is_taken(published, &mut desk).await? {
            stopped = Some("not_taken");
            break;
        }
        getter.settle(ticket, Settlement::Remove);
        moved += 1;
    }
    Ok(Reply::ok(json!({"moved": moved, "stopped_by": stopped})))
}

/// Whether all queues that the message goes to have taken it.
async fn is_taken(published: Published, desk: &mut Desk) -> Result<bool, ApiError> {
    let Published::Routed(mut unanswered) = published else { return Ok(false) };
    let mut is_taken_by_all = true;
    while unanswered > 0 {
        if let Notice::Confirmed { is_taken, .. } = desk.notice().await? {
            unanswered -= 1;
            is_taken_by_all &= is_taken;
        }
    }
    Ok(is_taken_by_all)
}

impl Getter {
    /// The next message, which it holds until it is settled; none when there is none.
    async fn next(&mut self) -> Result<Option<(u64, Arc<Message>)>, ApiError> {
        let holder = self.holder;
        let get = |reply_to| Input::Get { holder, no_ack: false, reply_to };
        match self.desk.ask(&self.queue, get).await? {
            queue::Reply::Got { ticket, message, .. } => Ok(Some((ticket, message))),
            _ => Ok(None),
        }
    }

    fn settle(&self, ticket: u64, settlement: Settlement) {
        self.queue.handle.post(Input::Settle { holder: self.holder, tickets: smallvec![ticket], settlement });
    }
}
