//! What was confirmed is there until somebody removes it, through crashes and restarts, or in the queue of the dead where it died of a
//! reason; so is what was processed, as long as the broker runs. A publish without an answer is unknown, not lost.

use super::Oracle;
use crate::facts::{Copy, Facts, PublishId};
use crate::history::Event;

pub(crate) struct Loss;

impl Oracle for Loss {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        if !matches!(event, Event::Drained) {
            return Ok(());
        }
        for (index, publish) in facts.publishes.iter().enumerate() {
            let id = PublishId(index);
            for (queue, is_certain) in &publish.targets {
                if !facts.is_done(*queue, id) && facts.excuse(*queue, id, *is_certain).is_none() {
                    let answer = if publish.answer.is_some() { "confirmed" } else { "processed" };
                    let seen = facts.seen(*queue, Copy::of(id)).count();
                    let name = &facts.queue(*queue).plan.name;
                    return Err(format!(
                        "message {index} was {answer}, is not in {name} any more, and nobody removed it ({seen} deliveries)"
                    ));
                }
            }
        }
        Ok(())
    }
}
