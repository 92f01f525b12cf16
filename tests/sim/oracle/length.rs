//! A queue is not longer than it may be (semantics 19.2, 19.3), and what it refused does not come (semantics 19.4).

use super::Oracle;
use crate::facts::{Answer, Delivery, DeliveryId, Facts, Settled};
use crate::history::Event;
use crate::plan::QueueIndex;

pub(crate) struct Length;

impl Oracle for Length {
    fn name(&self) -> &'static str {
        "length"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Status { queue, ready, .. } => too_long(facts, *queue, *ready),
            Event::Delivered(id) => refused(facts, *id),
            _ => Ok(()),
        }
    }
}

fn too_long(facts: &Facts, queue: QueueIndex, ready: u64) -> Result<(), String> {
    let state = facts.queue(queue);
    let Some(limit) = state.plan.length_limit() else { return Ok(()) };
    // What comes back is not refused.
    let returned = if state.plan.may_refuse() {
        if state.unseen.may_concern(0) {
            return Ok(());
        }
        let has_returned = |delivery: &Delivery| {
            let has_ended = facts.channel(delivery.channel).end.begun.is_some();
            has_ended || matches!(delivery.settled, Some((Settled::Requeue, _)))
        };
        let deliveries = state.deliveries.values();
        deliveries.filter(|ids| ids.iter().any(|id| has_returned(facts.delivery(*id)))).count() as u64
    } else {
        0
    };
    if ready <= limit + returned {
        return Ok(());
    }
    Err(format!("{} has {ready} ready messages; {limit} may be, and {returned} came back", state.plan.name))
}

fn refused(facts: &Facts, id: DeliveryId) -> Result<(), String> {
    let delivery = facts.delivery(id);
    let publish = facts.publish(delivery.publish);
    // A store that has failed refuses what may be there after all.
    let is_refused = publish.answer == Some(Answer::Nacked) && facts.node_end_since(publish.at).is_none();
    let has_one_target = matches!(publish.targets.as_slice(), [(queue, _)] if *queue == delivery.queue);
    if is_refused && has_one_target && delivery.death.is_none() {
        let name = &facts.queue(delivery.queue).plan.name;
        return Err(format!("message {} was refused by {name} and comes from there", delivery.publish.0));
    }
    Ok(())
}
