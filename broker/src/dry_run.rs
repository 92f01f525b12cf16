//! A publish without a message: what hooks, exchanges and bindings would do with it, step by step.
//!
//! Permissions, hooks and routing are those of every publish ([`crate::vhost`], [`crate::hooks`]); nothing reaches a queue. It is behind `/api/x/route`, `broker
//! route` and `broker test`, in a running broker as well as in a topology file carried out where nobody is ([`crate::topology::scratch`]). Hooks run for real, because what they do decides the
//! way, and count it as a call.

mod reasons;
mod shown;

use std::sync::Arc;

pub use self::shown::to_json;
use crate::hooks::{HookSet, Outcome, Publish};
use crate::message::{Message, Parts};
use crate::routing::explain::{Asking, Explanation};
use crate::vhost::authority::Authority;
use crate::vhost::publish::extra_keys_of;
use crate::vhost::{Error, Vhost};

/// What one hook did.
#[derive(Clone, Debug)]
pub struct HookStep {
    /// Its name.
    pub hook: String,
    /// The message as it came to the hook.
    pub before: Arc<Message>,
    /// What it made of it.
    pub outcome: HookOutcome,
}

/// What a hook made of a message.
#[derive(Clone, Debug)]
pub enum HookOutcome {
    /// It goes on as it came.
    Passed,
    /// It goes on like this.
    Rewritten(Arc<Message>),
    /// It is dropped, for this reason.
    Dropped(String),
    /// It is refused, for this reason.
    Rejected(String),
    /// It goes to the dead letters.
    DeadLettered {
        /// For this reason.
        reason: String,
        /// The exchange that gets it.
        exchange: Option<String>,
    },
}

/// See the module.
#[derive(Debug)]
pub struct DryRun {
    /// What each hook did, in the order of calls.
    pub hooks: Vec<HookStep>,
    /// The routing key behind the hooks, then those of CC and BCC.
    pub keys: Vec<String>,
    /// The message behind the hooks.
    pub message: Arc<Message>,
    /// The way from there; none when a hook has ended it.
    pub way: Option<Explanation>,
}

/// Publishes `message` as far as routing goes.
///
/// # Errors
/// What a publish would be refused with: the same permissions are asked for, so who asks learns no more than who publishes.
pub fn dry_run(
    vhost: &Vhost,
    hooks: &HookSet,
    by: &mut dyn Authority,
    message: Arc<Message>,
    asking: Asking,
) -> Result<DryRun, Error> {
    let keys = keys_of(&message)?;
    let start = vhost.publishable_exchange(by, message.exchange(), &borrowed(&keys))?;
    let (steps, message, is_over) = run_hooks(vhost, hooks, by.user(), message);
    let keys = if is_over { keys } else { keys_of(&message)? };
    let way = (!is_over).then(|| vhost.explain(&start, &message, &borrowed(&keys), asking));
    Ok(DryRun { hooks: steps, keys, message, way })
}

fn keys_of(message: &Message) -> Result<Vec<String>, Error> {
    let mut keys = vec![message.routing_key().to_owned()];
    keys.extend(extra_keys_of(message)?);
    Ok(keys)
}

fn borrowed(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

/// What each hook did, the message behind them, and whether one of them ended it.
fn run_hooks(
    vhost: &Vhost,
    hooks: &HookSet,
    user: &str,
    mut message: Arc<Message>,
) -> (Vec<HookStep>, Arc<Message>, bool) {
    let mut steps = Vec::new();
    let Some(chain) = hooks.chain(&vhost.name, message.exchange()) else { return (steps, message, false) };
    for single in chain.one_by_one() {
        let outcome = single.on_publish(&Publish {
            vhost: &vhost.name,
            exchange: message.exchange(),
            routing_key: message.routing_key(),
            user,
            properties: message.properties(),
            body: message.body(),
        });
        let outcome = match outcome {
            Outcome::Pass => HookOutcome::Passed,
            Outcome::Rewrite { routing_key, properties } => {
                let old = message.parts();
                let parts = Parts {
                    routing_key: routing_key.as_deref().unwrap_or(old.routing_key),
                    properties: properties.as_deref().unwrap_or(old.properties),
                    ..old
                };
                HookOutcome::Rewritten(Message::new(parts, message.body()))
            }
            Outcome::Drop { reason, .. } => HookOutcome::Dropped(reason),
            Outcome::Reject { reason, .. } => HookOutcome::Rejected(reason),
            Outcome::DeadLetter { reason, exchange, .. } => HookOutcome::DeadLettered { reason, exchange },
        };
        let hook = single.names().next().unwrap_or_default().to_owned();
        let before = Arc::clone(&message);
        let is_over = !matches!(outcome, HookOutcome::Passed | HookOutcome::Rewritten(_));
        if let HookOutcome::Rewritten(after) = &outcome {
            message = Arc::clone(after);
        }
        steps.push(HookStep { hook, before, outcome });
        if is_over {
            return (steps, message, true);
        }
    }
    (steps, message, false)
}
