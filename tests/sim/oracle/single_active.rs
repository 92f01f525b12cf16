//! A queue with a single active consumer serves one consumer, until that one is gone (semantics 13.26, 13.27).

use std::collections::BTreeMap;

use super::Oracle;
use crate::facts::{ConsumerId, Facts, Taker};
use crate::history::Event;
use crate::plan::QueueIndex;

#[derive(Default)]
pub(crate) struct SingleActive {
    /// Whom each queue served last.
    active: BTreeMap<QueueIndex, ConsumerId>,
}

impl Oracle for SingleActive {
    fn name(&self) -> &'static str {
        "single_active"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Delivered(id) = event else { return Ok(()) };
        let delivery = facts.delivery(*id);
        let plan = &facts.queue(delivery.queue).plan;
        let Taker::Consumer(consumer) = delivery.taker else { return Ok(()) };
        // What reaches one that is going may have been sent long ago.
        if !plan.is_single_active || is_going(facts, consumer) {
            return Ok(());
        }
        match self.active.insert(delivery.queue, consumer) {
            Some(before) if before != consumer && !is_going(facts, before) => Err(format!(
                "{} serves consumer {} while consumer {} is the active one",
                plan.name, consumer.0, before.0
            )),
            _ => Ok(()),
        }
    }
}

/// Whether the broker may have lost it, or ended it.
fn is_going(facts: &Facts, id: ConsumerId) -> bool {
    let consumer = facts.consumer(id);
    consumer.cancel_sent.is_some()
        || consumer.cancelled.is_some()
        || facts.channel(consumer.channel).end.begun.is_some()
        || facts.may_be_orphaned(consumer)
}
