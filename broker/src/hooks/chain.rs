//! The hooks that something goes through, in order.

use std::sync::Arc;

use plugin_api::message::Properties;

use super::decl::OnError;
use super::error::HookError;
use super::facts::{Connecting, Declaring};
use super::point::Point;
use super::set::{Hook, SetInner};
use super::state::{Decision, Given};
use super::view::{Origin, Publish, Rewrite};
use super::worker;

/// What is to become of a message.
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
    /// It is dropped: to the publisher it is as if it had gone to no queue, to a queue as if a consumer had acked it.
    Drop {
        /// The hook that dropped it.
        hook: String,
        /// The script's reason, or the failure.
        reason: String,
    },
    /// The publisher, or the consumer, gets an error.
    Reject {
        /// The hook that rejected it.
        hook: String,
        /// The script's reason, or the failure.
        reason: String,
    },
    /// It goes to the dead letters: a publish to `exchange`, a delivery where its queue sends them.
    DeadLetter {
        /// The hook that wants it so.
        hook: String,
        /// The script's reason, or the failure.
        reason: String,
        /// As declared; there for a publish.
        exchange: Option<String>,
    },
}

/// What one hook of a chain has made of a message, for people who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Its name.
    pub hook: String,
    /// Whether it is only watched: nothing comes of what it made.
    pub is_shadow: bool,
    /// What comes of the message by this hook, or would come of it.
    pub outcome: Outcome,
    /// Why the call failed, if it did; the outcome is then what `on_error` says.
    pub failure: Option<String>,
}

/// A client or a declaration that a hook refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The hook.
    pub hook: String,
    /// The script's reason, or the failure.
    pub reason: String,
}

/// The hooks of one point and one place. Cheap to keep and to share; keeps its set of hooks alive.
#[derive(Debug)]
pub struct HookChain {
    set: Arc<SetInner>,
    point: Point,
    /// Positions in the set, in the order of calls. Never empty.
    hooks: Box<[usize]>,
}

impl HookChain {
    pub(super) fn new(set: Arc<SetInner>, point: Point, hooks: Vec<usize>) -> Self {
        Self { set, point, hooks: hooks.into() }
    }

    /// The names of the hooks in the order of calls.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.hooks().map(|(_, hook)| hook.decl.name.as_str())
    }

    /// Sends one publish through all hooks: what one changes is what the next one sees, and the first that drops, rejects or
    /// dead-letters ends it. Synchronous; takes at most the sum of the time limits. The interpreters belong to the calling
    /// thread.
    #[must_use]
    pub fn on_publish(&self, publish: &Publish<'_>) -> Outcome {
        self.run(publish, None, None)
    }

    /// The same; what each hook made of it is added to `judgements`.
    #[must_use]
    pub fn on_publish_watched(&self, publish: &Publish<'_>, judgements: &mut Vec<Judgement>) -> Outcome {
        self.run(publish, None, Some(judgements))
    }

    /// The same for a message that comes out of a queue: a delivery or a dead letter.
    #[must_use]
    pub fn on_message(&self, message: &Publish<'_>, origin: Option<&Origin<'_>>) -> Outcome {
        self.run(message, origin, None)
    }

    fn run(
        &self,
        message: &Publish<'_>,
        origin: Option<&Origin<'_>>,
        mut judgements: Option<&mut Vec<Judgement>>,
    ) -> Outcome {
        let mut changed = Rewrite::default();
        for (index, hook) in self.hooks() {
            let current = Publish {
                routing_key: changed.routing_key.as_deref().unwrap_or(message.routing_key),
                properties: changed.properties.as_deref().map_or(message.properties, Properties::from_raw),
                ..*message
            };
            let called = call(&self.set, index, hook, Given::Message(&current, origin));
            if let Some(judgements) = judgements.as_deref_mut() {
                judgements.push(self.judgement(hook, &called));
            }
            if hook.decl.shadow {
                continue;
            }
            match called {
                Ok(Decision::Pass(rewrite)) => {
                    changed.routing_key = rewrite.routing_key.or(changed.routing_key);
                    changed.properties = rewrite.properties.or(changed.properties);
                }
                ended => {
                    if let Some(outcome) = self.end(hook, ended) {
                        return outcome;
                    }
                }
            }
        }
        match changed {
            Rewrite { routing_key: None, properties: None } => Outcome::Pass,
            Rewrite { routing_key, properties } => Outcome::Rewrite { routing_key, properties },
        }
    }

    #[cold]
    fn judgement(&self, hook: &Hook, called: &Result<Decision, HookError>) -> Judgement {
        let outcome = match called {
            Ok(Decision::Pass(Rewrite { routing_key: None, properties: None })) => Outcome::Pass,
            Ok(Decision::Pass(Rewrite { routing_key, properties })) => {
                Outcome::Rewrite { routing_key: routing_key.clone(), properties: properties.clone() }
            }
            ended => self.end(hook, ended.clone()).unwrap_or(Outcome::Pass),
        };
        let failure = called.as_ref().err().map(|error| error.text.clone());
        Judgement { hook: hook.decl.name.clone(), is_shadow: hook.decl.shadow, outcome, failure }
    }

    /// What a decision against a message, or a failure, comes to; none when the message goes on.
    #[cold]
    fn end(&self, hook: &Hook, ended: Result<Decision, HookError>) -> Option<Outcome> {
        let name = hook.decl.name.clone();
        let exchange = || hook.decl.dead_letter_exchange.clone();
        let outcome = match ended {
            Ok(Decision::Pass(_)) => return None,
            Ok(Decision::Drop(reason)) => Outcome::Drop { hook: name, reason },
            // A script that rejects a delivery does what a consumer does that rejects it.
            Ok(Decision::Reject(reason)) if self.point == Point::Publish => Outcome::Reject { hook: name, reason },
            Ok(Decision::Reject(reason) | Decision::DeadLetter(reason)) => {
                Outcome::DeadLetter { hook: name, reason, exchange: exchange() }
            }
            Err(error) => match (hook.decl.on_error, self.point) {
                (OnError::Pass, _) => return None,
                (OnError::Drop, _) => Outcome::Drop { hook: name, reason: error.text },
                // Nobody could be told, and anything else would lose it.
                (OnError::Reject | OnError::DeadLetter, Point::DeadLetter) => return None,
                (OnError::Reject, _) => Outcome::Reject { hook: name, reason: error.text },
                (OnError::DeadLetter, _) => {
                    Outcome::DeadLetter { hook: name, reason: error.text, exchange: exchange() }
                }
            },
        };
        Some(outcome)
    }

    /// Asks all hooks whether a client may come in.
    ///
    /// # Errors
    /// The first hook that refuses it, or fails with any `on_error` but `pass`.
    pub fn on_connect(&self, client: &Connecting<'_>) -> Result<(), Refusal> {
        self.ask(Given::Connecting(client))
    }

    /// Asks all hooks whether something may be declared.
    ///
    /// # Errors
    /// The first hook that refuses it, or fails with any `on_error` but `pass`.
    pub fn on_declare(&self, declaration: &Declaring<'_>) -> Result<(), Refusal> {
        self.ask(Given::Declaring(declaration))
    }

    fn ask(&self, given: Given<'_>) -> Result<(), Refusal> {
        for (index, hook) in self.hooks() {
            let reason = match call(&self.set, index, hook, given) {
                Ok(Decision::Pass(_)) => continue,
                Ok(Decision::Drop(reason) | Decision::Reject(reason) | Decision::DeadLetter(reason)) => reason,
                Err(_) if hook.decl.on_error == OnError::Pass => continue,
                Err(error) => error.text,
            };
            if !hook.decl.shadow {
                return Err(Refusal { hook: hook.decl.name.clone(), reason });
            }
        }
        Ok(())
    }

    fn hooks(&self) -> impl Iterator<Item = (usize, &Hook)> {
        self.hooks.iter().filter_map(|index| Some((*index, self.set.hooks.get(*index)?)))
    }
}

/// One hook, one call: runs it in this thread's interpreter, counts, keeps a record of some, and logs a failure.
fn call(set: &Arc<SetInner>, index: usize, hook: &Hook, given: Given<'_>) -> Result<Decision, HookError> {
    let mut slot = worker::take(set, index, hook);
    let started = slot.start();
    let result = slot.state(set, hook).and_then(|state| state.call(hook.point, &hook.decl, given));
    let (ended, is_kept) = slot.count(&result, started);
    worker::put_back(set.id, index, hook, slot);
    if is_kept {
        hook.keep_record(ended, &result, given);
    }
    result.map_err(|failure| hook.report(failure, given.vhost()))
}
