//! A queue with priorities hands out the highest first (semantics 21.2).
//!
//! This is judged while queues are drained, when everything is there before anybody consumes.

use std::collections::BTreeMap;

use super::{Oracle, delivered_while};
use crate::facts::Facts;
use crate::history::Event;
use crate::plan::QueueIndex;

#[derive(Default)]
pub(crate) struct Priority {
    /// The lowest level that each queue has handed out since it is being drained.
    drained: Option<BTreeMap<QueueIndex, u8>>,
}

impl Oracle for Priority {
    fn name(&self) -> &'static str {
        "priority"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Some(id) = delivered_while(&mut self.drained, event) else { return Ok(()) };
        let delivery = facts.delivery(id);
        let plan = &facts.queue(delivery.queue).plan;
        let (Some(drained), Some(_)) = (&mut self.drained, plan.max_priority) else { return Ok(()) };
        let level = plan.level(facts.publish(delivery.publish).priority);
        match drained.insert(delivery.queue, level) {
            Some(before) if before < level => Err(format!(
                "message {} of {} has priority {level} and comes behind one of priority {before}",
                delivery.publish.0, plan.name
            )),
            _ => Ok(()),
        }
    }
}
