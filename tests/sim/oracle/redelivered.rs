//! `redelivered` says whether somebody may have had the message before (semantics 13.21).

use super::Oracle;
use crate::facts::{Facts, NodeEnd};
use crate::history::Event;

pub(crate) struct Redelivered;

impl Oracle for Redelivered {
    fn name(&self) -> &'static str {
        "redelivered"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Delivered(id) = event else { return Ok(()) };
        let delivery = facts.delivery(*id);
        let queue = facts.queue(delivery.queue);
        let seen = queue.deliveries.get(&delivery.copy()).map(Vec::as_slice).unwrap_or_default();
        let before = seen.iter().rev().find(|before| *before != id).map(|before| facts.delivery(*before));
        let name = || format!("message {} of {}", delivery.publish.0, queue.plan.name);
        // What arrives late from a channel that is ending may have been sent before the other had it.
        let is_late = facts.channel(delivery.channel).end.begun.is_some();
        match before {
            _ if is_late => Ok(()),
            Some(_) if facts.may_be_double(delivery) => Ok(()),
            // Marks of the last batches may be missing after a kill or a power cut.
            Some(before) if !delivery.redelivered => match facts.node_end_from(facts.channel(before.channel).boot) {
                None | Some(NodeEnd::Stopped) => Err(format!("{} was delivered before and does not say so", name())),
                Some(NodeEnd::Killed | NodeEnd::PowerCut) => Ok(()),
            },
            None if delivery.redelivered && !queue.unseen.may_concern(facts.publish(delivery.publish).at) => {
                Err(format!("{} says that it was delivered before, but nobody can have had it", name()))
            }
            _ => Ok(()),
        }
    }
}
