//! The hooks that the publishes to one exchange go through, in order.

use std::sync::Arc;
use std::time::Instant;

use plugin_api::message::Properties;

use super::decl::OnError;
use super::error::HookError;
use super::set::{Hook, SetInner};
use super::state::Decision;
use super::view::Rewrite;
use super::worker;

/// One publish, as the hooks get to see it.
#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    /// The vhost of the connection.
    pub vhost: &'a str,
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// The routing key the client sent.
    pub routing_key: &'a str,
    /// The user that the connection logged in with.
    pub user: &'a str,
    /// The properties as they came. They have been checked.
    pub properties: Properties<'a>,
    /// The body, whole.
    pub body: &'a [u8],
}

/// What is to become of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on as it came.
    Pass,
    /// It goes on, changed.
    Rewrite {
        /// The new routing key, if there is one.
        routing_key: Option<String>,
        /// The new raw properties, if there are any.
        properties: Option<Vec<u8>>,
    },
    /// It is dropped: to the publisher it is as if it had gone to no queue.
    Drop {
        /// The hook that dropped it.
        hook: String,
        /// The script's reason, or the failure.
        reason: String,
    },
    /// The publisher gets an error.
    Reject {
        /// The hook that rejected it.
        hook: String,
        /// The script's reason, or the failure.
        reason: String,
    },
}

/// The hooks of one exchange. Cheap to keep and to share; keeps its set of hooks alive.
#[derive(Debug)]
pub struct HookChain {
    set: Arc<SetInner>,
    /// Positions in the set, in the order of calls. Never empty.
    hooks: Box<[usize]>,
}

impl HookChain {
    pub(super) fn new(set: Arc<SetInner>, hooks: Vec<usize>) -> Self {
        Self { set, hooks: hooks.into() }
    }

    /// The names of the hooks in the order of calls.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.hooks().map(|(_, hook)| hook.decl.name.as_str())
    }

    /// The same hooks, each as a chain of its own, for whoever wants to see what each of them does.
    pub fn one_by_one(&self) -> impl Iterator<Item = Self> {
        self.hooks.iter().map(|index| Self { set: Arc::clone(&self.set), hooks: Box::new([*index]) })
    }

    /// Sends one publish through all hooks: what one changes is what the next one sees, and the first that drops or rejects
    /// ends it. Synchronous; takes at most the sum of the time limits. The interpreters belong to the calling thread.
    #[must_use]
    pub fn on_publish(&self, publish: &Publish<'_>) -> Outcome {
        let mut changed = Rewrite::default();
        for (index, hook) in self.hooks() {
            let current = Publish {
                routing_key: changed.routing_key.as_deref().unwrap_or(publish.routing_key),
                properties: changed.properties.as_deref().map_or(publish.properties, Properties::from_raw),
                ..*publish
            };
            match call(&self.set, index, hook, &current) {
                Ok(Decision::Pass(rewrite)) => {
                    changed.routing_key = rewrite.routing_key.or(changed.routing_key);
                    changed.properties = rewrite.properties.or(changed.properties);
                }
                Ok(Decision::Drop(reason)) => return Outcome::Drop { hook: hook.decl.name.clone(), reason },
                Ok(Decision::Reject(reason)) => return Outcome::Reject { hook: hook.decl.name.clone(), reason },
                Err(error) => match hook.decl.on_error {
                    OnError::Pass => {}
                    OnError::Drop => return Outcome::Drop { hook: hook.decl.name.clone(), reason: error.text },
                    OnError::Reject => return Outcome::Reject { hook: hook.decl.name.clone(), reason: error.text },
                },
            }
        }
        match changed {
            Rewrite { routing_key: None, properties: None } => Outcome::Pass,
            Rewrite { routing_key, properties } => Outcome::Rewrite { routing_key, properties },
        }
    }

    fn hooks(&self) -> impl Iterator<Item = (usize, &Hook)> {
        self.hooks.iter().filter_map(|index| Some((*index, self.set.hooks.get(*index)?)))
    }
}

/// One hook, one message: runs it in this thread's interpreter, counts, and logs a failure.
fn call(set: &Arc<SetInner>, index: usize, hook: &Hook, publish: &Publish<'_>) -> Result<Decision, HookError> {
    let now = Instant::now();
    let mut slot = worker::take(set, index, hook);
    let result = slot.state(set, hook).and_then(|state| state.on_publish(now, &hook.decl, publish));
    slot.count(&result, now);
    worker::put_back(set.id, index, hook, slot);
    result.map_err(|failure| hook.report(failure, now))
}
