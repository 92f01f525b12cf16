//! A publish without a message: what hooks, exchanges and bindings would do with it, step by step.
//!
//! Permissions, hooks and routing are those of every publish ([`crate::vhost`], [`crate::hooks`]); nothing reaches a queue. It is behind `/api/x/route`, `broker
//! route` and `broker test`, in a running broker as well as in a topology file carried out where nobody is ([`crate::topology::scratch`]). Hooks run for real, because what they do decides the
//! way: it counts as a call, and what they count in `broker.shared` is counted.

mod reasons;
mod shown;

use std::sync::Arc;

pub use self::shown::to_json;
use crate::hooks::{HookSet, Judgement, Outcome};
use crate::message::Message;
use crate::routing::Exchange;
use crate::routing::explain::{Asking, Explanation, Step, StepOutcome};
use crate::vhost::authority::Authority;
use crate::vhost::publish::{Hooked, extra_keys_of, rewritten, run_hooks};
use crate::vhost::{Error, Vhost};

/// What one hook did.
#[derive(Clone, Debug)]
pub struct HookStep {
    /// What it made of the message.
    pub judgement: Judgement,
    /// The message as it came to the hook.
    pub before: Arc<Message>,
    /// The message as the hook has changed it, or would have if it were not only watched.
    pub after: Option<Arc<Message>>,
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
    /// The exchange to which a hook has sent it as a dead letter; the way begins there, and if it ends nowhere the publish is refused.
    pub dead_letter_exchange: Option<String>,
    /// The way from there; none when a hook has ended it, or when there is no exchange for the dead letter.
    pub way: Option<Explanation>,
}

impl DryRun {
    /// Whether a dead letter would be lost, so that the publish is refused instead.
    #[must_use]
    pub fn is_dead_letter_lost(&self) -> bool {
        let is_taken = |way: &Explanation| {
            let keeps = |step: &Step| matches!(step.outcome, StepOutcome::PutOff | StepOutcome::DependsOnState);
            !way.queues.is_empty() || way.steps.iter().any(keeps)
        };
        self.dead_letter_exchange.is_some() && !self.way.as_ref().is_some_and(is_taken)
    }
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
    let mut judgements = Vec::new();
    let hooked = match hooks.chain(&vhost.name, message.exchange()) {
        None => Hooked::Passes,
        Some(chain) => run_hooks(&chain, &vhost.name, by.user(), &message, Some(&mut judgements)),
    };
    let hooks = steps(judgements, &message);
    let explain = |start: &Arc<Exchange>, message: &Arc<Message>, keys: &[String]| {
        vhost.explain(start, message, &borrowed(keys), asking)
    };
    let (keys, message, dead_letter_exchange, way) = match hooked {
        Hooked::Passes => {
            let way = explain(&start, &message, &keys);
            (keys, message, None, Some(way))
        }
        Hooked::Rewritten(message) => {
            let keys = keys_of(&message)?;
            let way = explain(&start, &message, &keys);
            (keys, message, None, Some(way))
        }
        Hooked::DeadLettered(exchange, message) => {
            // CC and BCC are not asked for, as in a publish.
            let keys = vec![message.routing_key().to_owned()];
            let way = vhost.exchange(&exchange).map(|start| explain(&start, &message, &keys));
            (keys, message, Some(exchange), way)
        }
        Hooked::Ends(_) => (keys, message, None, None),
    };
    Ok(DryRun { hooks, keys, message, dead_letter_exchange, way })
}

fn keys_of(message: &Message) -> Result<Vec<String>, Error> {
    let mut keys = vec![message.routing_key().to_owned()];
    keys.extend(extra_keys_of(message)?);
    Ok(keys)
}

fn borrowed(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

/// What each hook did, with the message as it came to it.
fn steps(judgements: Vec<Judgement>, message: &Arc<Message>) -> Vec<HookStep> {
    let mut current = Arc::clone(message);
    let step = |judgement: Judgement| {
        let before = Arc::clone(&current);
        let after = match &judgement.outcome {
            Outcome::Rewrite { routing_key, properties } => {
                Some(rewritten(&before, routing_key.as_deref(), properties.as_deref()))
            }
            _ => None,
        };
        if let Some(after) = after.as_ref().filter(|_| !judgement.is_shadow) {
            current = Arc::clone(after);
        }
        HookStep { judgement, before, after }
    };
    judgements.into_iter().map(step).collect()
}
