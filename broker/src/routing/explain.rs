//! The way of a message, told step by step, for people who ask why it goes where it goes.
//!
//! Which queues are reached is what [`super::walk`] says, the way of every message. Beside it each exchange on the way is asked about its bindings. In a broker an exchange
//! whose type has a state of its own (a history, a turn, messages that it puts off) is not asked, because asking would change that, and then nobody can say where the
//! message would go.

use std::collections::VecDeque;
use std::sync::Arc;

use plugin_api::exchange::{DependsOn, DestinationKind, Wish};
use plugin_api::message::Message as View;

use super::exchange::{Exchange, Identity, Judged};
use super::walk::{Tables, route};
use crate::plugin_host::TypeError;
use crate::vhost::QueueRecord;

/// One exchange on the way.
#[derive(Debug)]
pub struct Step {
    /// Which.
    pub exchange: Arc<Exchange>,
    /// The bindings that start there, those that match first; the default exchange has none.
    pub bindings: Vec<JudgedBinding>,
    /// What became of the message there.
    pub outcome: StepOutcome,
}

/// A binding, and whether the message matches it.
#[derive(Clone, Debug)]
pub struct JudgedBinding {
    /// Which.
    pub identity: Identity,
    /// None where the exchange was not asked.
    pub is_match: Option<bool>,
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
    /// It is put off, and comes to this exchange again later.
    PutOff,
    /// It cannot be known without changing something.
    DependsOnState,
    /// Its type has failed.
    Failed(TypeError),
}

/// Whether exchanges with a state of their own may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// They serve messages.
    Carefully,
    /// Nobody uses them.
    Freely,
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
pub fn explain(
    tables: &impl Tables,
    start: &Arc<Exchange>,
    message: &View<'_>,
    keys: &[&str],
    asking: Asking,
) -> Explanation {
    let mut explanation = Explanation::default();
    let mut seen = vec![start.number];
    let mut waiting = VecDeque::from([Arc::clone(start)]);
    let mut is_known = true;
    while let Some(exchange) = waiting.pop_front() {
        let mut to: Vec<(DestinationKind, Arc<str>)> = Vec::new();
        let mut bindings = Vec::new();
        let mut outcome = None;
        if exchange.is_default() {
            let queues = keys.iter().filter_map(|key| tables.queue(key));
            to.extend(queues.map(|queue| (DestinationKind::Queue, Arc::clone(&queue.name))));
        } else if exchange.depends_on == DependsOn::State && asking == Asking::Carefully {
            let unknown = |identity| JudgedBinding { identity, is_match: None };
            bindings.extend(exchange.bindings().into_iter().map(unknown));
            outcome = Some(StepOutcome::DependsOnState);
        } else {
            match exchange.judged(message, keys) {
                Ok(Judged { bindings: judged, wish }) => {
                    for (identity, is_match) in judged {
                        let end = (identity.destination_kind, Arc::<str>::from(&*identity.destination));
                        if is_match && !to.contains(&end) {
                            to.push(end);
                        }
                        bindings.push(JudgedBinding { identity, is_match: Some(is_match) });
                    }
                    if matches!(wish, Some(Wish::Hold(_))) {
                        outcome = Some(StepOutcome::PutOff);
                    }
                }
                Err(error) => outcome = Some(StepOutcome::Failed(error)),
            }
        }
        bindings.sort_by(|a, b| (b.is_match, key(&a.identity)).cmp(&(a.is_match, key(&b.identity))));
        is_known &= !matches!(outcome, Some(StepOutcome::DependsOnState | StepOutcome::Failed(_)));
        let mut go_on = |exchange: &Arc<Exchange>| {
            if !seen.contains(&exchange.number) {
                seen.push(exchange.number);
                waiting.push_back(Arc::clone(exchange));
            }
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            None if to.is_empty() => match exchange.alternate() {
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
                let exchanges = to.iter().filter(|(kind, _)| *kind == DestinationKind::Exchange);
                exchanges.filter_map(|(_, name)| tables.exchange(name)).for_each(go_on);
                StepOutcome::Routed(to)
            }
        };
        explanation.steps.push(Step { exchange, bindings, outcome });
    }
    let asked = is_known.then(|| route(tables, start, message, keys));
    explanation.queues = match asked {
        Some(Ok(route)) => route.queues,
        Some(Err(_)) | None => known(tables, &explanation.steps),
    };
    explanation
}

/// The queues that are reached for certain, where something on the way was not asked.
fn known(tables: &impl Tables, steps: &[Step]) -> Vec<Arc<QueueRecord>> {
    let mut queues: Vec<Arc<QueueRecord>> = Vec::new();
    for step in steps {
        let StepOutcome::Routed(to) = &step.outcome else { continue };
        let names = to.iter().filter(|(kind, _)| *kind == DestinationKind::Queue).map(|(_, name)| name);
        for queue in names.filter_map(|name| tables.queue(name)) {
            if queues.iter().all(|known| known.number != queue.number) {
                queues.push(Arc::clone(queue));
            }
        }
    }
    queues
}

fn key(identity: &Identity) -> (DestinationKind, &str, &str, &[u8]) {
    (identity.destination_kind, &identity.destination, &identity.routing_key, &identity.arguments)
}
