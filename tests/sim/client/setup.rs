//! Declarations: what every client does first on a new connection, and again when it has deleted something.

use std::collections::VecDeque;

use tests::wire::Field;

use super::Context;
use super::channel::Request;
use super::connection::{Sender, text};
use crate::facts;
use crate::history::Event;
use crate::plan::{EXCHANGES, Plan, QueueIndex};

/// One declaration.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Exchange(usize),
    Queue { queue: QueueIndex, is_passive: bool },
    Bind { binding: usize, is_last: bool, since: facts::Step },
}

impl Step {
    pub(super) fn reply(&self) -> &'static str {
        match self {
            Self::Exchange(_) => "exchange.declare-ok",
            Self::Queue { .. } => "queue.declare-ok",
            Self::Bind { .. } => "queue.bind-ok",
        }
    }
}

/// Everything that a client needs.
pub(super) fn everything(context: &Context<'_>, is_passive: bool) -> VecDeque<Step> {
    let exchanges = (0..EXCHANGES.len()).map(Step::Exchange);
    let queues = (0..context.plan.queues.len()).map(QueueIndex).flat_map(|queue| {
        let state = context.history.facts.queue(queue);
        // What was there as something durable must be there after every restart, also where nobody declares it again.
        let is_kept = state.plan.durable && state.is_ready && !state.plan.is_deleted;
        one_queue(context.plan, queue, is_passive && is_kept)
    });
    exchanges.chain(queues).collect()
}

/// A queue with its bindings.
pub(super) fn one_queue(plan: &Plan, queue: QueueIndex, is_passive: bool) -> Vec<Step> {
    let mut steps = vec![Step::Queue { queue, is_passive }];
    let bindings: Vec<usize> = (0..plan.bindings.len()).filter(|index| plan.bindings[*index].queue == queue).collect();
    let last = bindings.last().copied();
    steps.extend(bindings.iter().map(|&binding| Step::Bind { binding, is_last: Some(binding) == last, since: 0 }));
    steps
}

/// Sends a step; what was answered is told by [`done`].
pub(super) fn send(context: &Context<'_>, sender: &mut Sender<'_>, step: &Step) {
    let plan = context.plan;
    match step {
        Step::Exchange(index) => {
            let (name, kind) = EXCHANGES[*index];
            let fields = [("exchange", text(name)), ("type", text(kind)), ("durable", Field::Bit(true))];
            sender.call("exchange.declare", &fields);
        }
        Step::Queue { queue, is_passive } => {
            let queue = &plan.queues[queue.0];
            let fields = [
                ("queue", text(&queue.name)),
                ("passive", Field::Bit(*is_passive)),
                ("durable", Field::Bit(queue.durable)),
                ("arguments", Field::Table(queue.arguments())),
            ];
            sender.call("queue.declare", &fields);
        }
        Step::Bind { binding, .. } => {
            let binding = &plan.bindings[*binding];
            let fields = [
                ("queue", text(&plan.queues[binding.queue.0].name)),
                ("exchange", text(binding.exchange)),
                ("routing-key", text(&binding.routing_key)),
            ];
            sender.call("queue.bind", &fields);
        }
    }
}

/// A step was answered; `rest` are those behind it.
pub(super) fn done(context: &mut Context<'_>, request: &Request, sent: facts::Step, rest: &mut VecDeque<Step>) {
    let Request::Setup(step) = request else { return };
    match step {
        Step::Exchange(_) => {}
        Step::Queue { queue, .. } => {
            let mut has_bindings = false;
            for step in rest.iter_mut().take_while(|step| matches!(step, Step::Bind { .. })) {
                has_bindings = true;
                if let Step::Bind { since, .. } = step {
                    *since = sent;
                }
            }
            if !has_bindings {
                context.history.note(Event::QueueReady { queue: *queue, since: sent });
            }
        }
        Step::Bind { binding, is_last, since } => {
            if *is_last {
                let queue = context.plan.bindings[*binding].queue;
                context.history.note(Event::QueueReady { queue, since: *since });
            }
        }
    }
}
