//! A publish and its hooks: what is made of their outcome before the message is routed.

use std::sync::Arc;

use plugin_api::exchange::Wish;
use plugin_api::value::Value;

use super::super::error::Error;
use super::{Context, Published, Publisher, Resolved, Routed, hiding_bcc};
use crate::hooks::{HookChain, Judgement, Outcome, Publish};
use crate::message::{Message, Parts};

/// What becomes of a publish behind its hooks.
#[derive(Debug)]
pub enum Hooked {
    /// It goes on as it came.
    Passes,
    /// It goes on like this.
    Rewritten(Arc<Message>),
    /// It goes to this exchange instead, whatever becomes of other messages with its key.
    DeadLettered(String, Arc<Message>),
    /// It goes nowhere.
    Ends(Published),
}

/// Sends a publish of a user through its hooks. What each of them made of it is added to `judgements`, if somebody wants to know.
pub fn run(
    hooks: &HookChain,
    vhost: &str,
    user: &str,
    message: &Arc<Message>,
    judgements: Option<&mut Vec<Judgement>>,
) -> Hooked {
    let publish = Publish {
        vhost,
        exchange: message.exchange(),
        routing_key: message.routing_key(),
        user,
        properties: message.properties(),
        body: message.body(),
    };
    let outcome = match judgements {
        None => hooks.on_publish(&publish),
        Some(judgements) => hooks.on_publish_watched(&publish, judgements),
    };
    let tell = |what: &str, hook: &str, reason: &str| {
        tracing::debug!(vhost, exchange = message.exchange(), hook, reason, "hook {what} a message");
    };
    match outcome {
        Outcome::Pass => Hooked::Passes,
        Outcome::Rewrite { routing_key, properties } => {
            Hooked::Rewritten(rewritten(message, routing_key.as_deref(), properties.as_deref()))
        }
        Outcome::Drop { hook, reason } => {
            tell("dropped", &hook, &reason);
            Hooked::Ends(Published::Dropped)
        }
        Outcome::Reject { hook, reason } => {
            tell("rejected", &hook, &reason);
            Hooked::Ends(Published::Rejected)
        }
        Outcome::DeadLetter { hook, reason, exchange } => {
            tell("dead-lettered", &hook, &reason);
            match exchange.and_then(|exchange| Some((dead_lettered(message, &exchange, &hook, &reason)?, exchange))) {
                Some((message, exchange)) => Hooked::DeadLettered(exchange, message),
                None => Hooked::Ends(Published::Rejected),
            }
        }
    }
}

/// The message as hooks have changed it; its marks stay.
pub fn rewritten(message: &Message, routing_key: Option<&str>, properties: Option<&[u8]>) -> Arc<Message> {
    let old = message.parts();
    let parts = Parts {
        routing_key: routing_key.unwrap_or(old.routing_key),
        properties: properties.unwrap_or(old.properties),
        ..old
    };
    Message::marked(parts, message.body(), message.marks())
}

/// The message on its way to the dead letters: which hook sent it there and why, and where it was published to. It does not expire there.
/// None if its properties cannot be read.
fn dead_lettered(message: &Message, exchange: &str, hook: &str, reason: &str) -> Option<Arc<Message>> {
    let mut properties = message.properties().to_owned().ok()?;
    properties.expiration = None;
    let mut headers = properties.headers.take().unwrap_or_default();
    for (name, value) in [
        ("x-hook", hook),
        ("x-hook-reason", reason),
        ("x-hook-exchange", message.exchange()),
        ("x-hook-routing-key", message.routing_key()),
    ] {
        headers.insert(name, Value::from(value));
    }
    properties.headers = Some(headers);
    let parts = Parts { exchange, routing_key: message.routing_key(), properties: &properties.encode() };
    Some(Message::marked(parts, message.body(), message.marks()))
}

impl Publisher {
    /// Finds out where a message goes that a hook has sent to the dead letters. The operator wants it so, so the publisher needs no permission
    /// there; if nobody takes it, the publisher hears that it was not taken.
    pub(super) fn route_dead_letter(
        &mut self,
        context: &Context<'_>,
        (channel, number): (u16, u64),
        exchange: &str,
        message: &Arc<Message>,
    ) -> Result<Resolved, Error> {
        let vhost = context.vhost;
        let lost = |why: &str| {
            tracing::warn!(vhost = %vhost.name, exchange, "a hook's dead letter {why}, so its publish is refused");
            Ok(Resolved::Ends(Published::Rejected))
        };
        let Some(start) = vhost.exchange(exchange) else { return lost("has no exchange to go to") };
        let routed = vhost.route(&start, message, &[message.routing_key()]);
        let route = routed.map_err(|(name, error)| Error::RouteFailed {
            name: name.to_string(),
            vhost: vhost.name.to_string(),
            error,
        })?;
        if route.queues.is_empty() && !route.wishes.iter().any(|(_, wish)| matches!(wish, Wish::Hold(_))) {
            return lost("reaches no queue");
        }
        let put_off = |(exchange, wish): (_, Wish)| vhost.put_off(exchange, &wish, message, (channel, number));
        let held = route.wishes.into_iter().map(put_off).collect();
        let places = route.queues.iter().map(|queue| self.place(queue)).collect();
        Ok(Resolved::Goes(Routed { places, held, message: hiding_bcc(message) }))
    }
}
