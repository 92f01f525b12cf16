//! The way of a message, told step by step, for people who ask why it goes where it goes.
//!
//! The walk is that of [`super::walk`], except that nothing is kept or changed: an exchange whose type has a state of its own (a history, a turn, messages that
//! it puts off) is not asked, because asking would change that.

use std::collections::VecDeque;
use std::sync::Arc;

use plugin_api::exchange::{DependsOn, DestinationKind};
use plugin_api::message::Message as View;

use super::exchange::{Destination, Exchange, Identity};
use super::walk::Tables;
use crate::plugin_host::TypeError;
use crate::vhost::QueueRecord;

/// One exchange on the way.
#[derive(Debug)]
pub struct Step {
    /// Which.
    pub exchange: Arc<Exchange>,
    /// The bindings that start there, in no order; the default exchange has none.
    pub bindings: Vec<Identity>,
    /// What became of the message there.
    pub outcome: StepOutcome,
}

/// What an exchange does with a message.
#[derive(Debug)]
pub enum StepOutcome {
    /// It goes to these.
    Routed(Vec<(DestinationKind, Arc<str>)>),
    /// Nothing matches, and it goes to the alternate exchange.
    Alternate(Arc<str>),
    /// Nothing matches, and the alternate exchange does not exist.
    MissingAlternate(Arc<str>),
    /// Nothing matches.
    Nowhere,
    /// It cannot be known without changing something.
    DependsOnState,
    /// Its type has failed.
    Failed(TypeError),
}

/// The whole way.
#[derive(Debug, Default)]
pub struct Explanation {
    /// In the order in which exchanges are visited.
    pub steps: Vec<Step>,
    /// The queues that are reached, each once.
    pub queues: Vec<Arc<QueueRecord>>,
}

/// Explains the way of a message that is published to `start` with these keys.
pub fn explain(tables: &impl Tables, start: &Arc<Exchange>, message: &View<'_>, keys: &[&str]) -> Explanation {
    let mut explanation = Explanation::default();
    let mut seen = vec![start.number];
    let mut waiting = VecDeque::from([Arc::clone(start)]);
    while let Some(exchange) = waiting.pop_front() {
        let mut found = Vec::new();
        let outcome = if exchange.is_default() {
            let queues = keys.iter().filter_map(|key| tables.queue(key));
            found.extend(queues.map(|queue| Destination::Queue(Arc::clone(queue))));
            None
        } else if exchange.depends_on == DependsOn::State {
            Some(StepOutcome::DependsOnState)
        } else {
            let asked =
                exchange.destinations(message, keys, &mut Vec::new(), |destination| found.push(destination.clone()));
            asked.err().map(StepOutcome::Failed)
        };
        let mut go_on = |exchange: &Arc<Exchange>| {
            if !seen.contains(&exchange.number) {
                seen.push(exchange.number);
                waiting.push_back(Arc::clone(exchange));
            }
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            None if found.is_empty() => match exchange.alternate() {
                None => StepOutcome::Nowhere,
                Some(name) => match tables.exchange(&name) {
                    None => StepOutcome::MissingAlternate(name),
                    Some(alternate) => {
                        go_on(alternate);
                        StepOutcome::Alternate(name)
                    }
                },
            },
            None => {
                for destination in &found {
                    match destination {
                        Destination::Exchange(next) => go_on(next),
                        Destination::Queue(queue) => {
                            if explanation.queues.iter().all(|known| known.number != queue.number) {
                                explanation.queues.push(Arc::clone(queue));
                            }
                        }
                    }
                }
                StepOutcome::Routed(found.iter().map(|to| (to.kind(), Arc::clone(to.name()))).collect())
            }
        };
        let bindings = exchange.bindings();
        explanation.steps.push(Step { exchange, bindings, outcome });
    }
    explanation
}
