//! The way of a message, told step by step, for people who ask why it goes where it goes.
//!
//! It is the way of every message ([`super::walk()`]), watched: what an exchange says there is what is shown of it, and where the message goes from it. In a broker an exchange
//! whose type has a state of its own (a history, a turn, messages that it puts off) is not asked, because asking would change that, and then nobody can say where the
//! message would go.

use std::sync::Arc;

use plugin_api::exchange::{DependsOn, DestinationKind, Wish};
use plugin_api::message::Message as View;

use super::exchange::{Exchange, Identity};
use super::walk::{Tables, Watcher, walk};
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

/// Explains the way of a message that is published to `start` with these keys. Each exchange is asked once: one with a state of its own might say something else the next
/// time.
pub fn explain(
    tables: &impl Tables,
    start: &Arc<Exchange>,
    message: &View<'_>,
    keys: &[&str],
    asking: Asking,
) -> Explanation {
    let mut steps = Steps { asking, steps: Vec::new() };
    let queues = match walk(tables, start, message, keys, &mut steps) {
        Ok(route) => route.queues,
        // Failures are borne.
        Err(_) => Vec::new(),
    };
    Explanation { steps: steps.steps, queues }
}

/// Writes down what it sees.
struct Steps {
    asking: Asking,
    steps: Vec<Step>,
}

impl Steps {
    fn push(&mut self, exchange: &Arc<Exchange>, mut bindings: Vec<JudgedBinding>, outcome: StepOutcome) {
        bindings.sort_by(|a, b| (b.is_match, key(&a.identity)).cmp(&(a.is_match, key(&b.identity))));
        self.steps.push(Step { exchange: Arc::clone(exchange), bindings, outcome });
    }

    fn push_unknown(&mut self, exchange: &Arc<Exchange>, outcome: StepOutcome) {
        let unknown = |identity| JudgedBinding { identity, is_match: None };
        self.push(exchange, exchange.bindings().into_iter().map(unknown).collect(), outcome);
    }
}

impl Watcher for Steps {
    fn may_ask(&mut self, exchange: &Arc<Exchange>) -> bool {
        let may = exchange.depends_on != DependsOn::State || self.asking == Asking::Freely;
        if !may {
            self.push_unknown(exchange, StepOutcome::DependsOnState);
        }
        may
    }

    fn named(&mut self, exchange: &Arc<Exchange>, queues: &mut dyn Iterator<Item = &Arc<QueueRecord>>) {
        let to: Vec<_> = queues.map(|queue| (DestinationKind::Queue, Arc::clone(&queue.name))).collect();
        let outcome = if to.is_empty() { StepOutcome::Nowhere } else { StepOutcome::Routed(to) };
        self.push(exchange, Vec::new(), outcome);
    }

    fn asked(&mut self, exchange: &Arc<Exchange>, slots: &[u32], wish: Option<&Wish>) {
        let mut to: Vec<(DestinationKind, Arc<str>)> = Vec::new();
        let mut bindings = Vec::new();
        for (identity, is_match) in exchange.judged(slots) {
            let end = (identity.destination_kind, Arc::<str>::from(&*identity.destination));
            if is_match && !to.contains(&end) {
                to.push(end);
            }
            bindings.push(JudgedBinding { identity, is_match: Some(is_match) });
        }
        let outcome = match wish {
            Some(Wish::Hold(_)) => StepOutcome::PutOff,
            _ if to.is_empty() => StepOutcome::Nowhere,
            _ => StepOutcome::Routed(to),
        };
        self.push(exchange, bindings, outcome);
    }

    fn alternate(&mut self, name: &Arc<str>, is_there: bool) {
        if let Some(step) = self.steps.last_mut() {
            let name = Arc::clone(name);
            step.outcome = if is_there { StepOutcome::Alternate(name) } else { StepOutcome::MissingAlternate(name) };
        }
    }

    fn failed(&mut self, exchange: &Arc<Exchange>, error: TypeError) -> Result<(), TypeError> {
        self.push_unknown(exchange, StepOutcome::Failed(error));
        Ok(())
    }
}

fn key(identity: &Identity) -> (DestinationKind, &str, &str, &[u8]) {
    (identity.destination_kind, &identity.destination, &identity.routing_key, &identity.arguments)
}
