//! Published = removed + ready + unacked + dropped: when all is quiet, each queue has what it must have, and nothing beside what it may
//! have.

use super::Oracle;
use crate::facts::{Facts, PublishId, Taker};
use crate::history::Event;
use crate::plan::QueueIndex;

pub(crate) struct Conservation;

impl Oracle for Conservation {
    fn name(&self) -> &'static str {
        "conservation"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Status { queue, ready, .. } = event else { return Ok(()) };
        let Account { must, may } = account(facts, *queue);
        let unacked = unacked(facts, *queue);
        let there = *ready + unacked;
        if there < must || there > must + may {
            let name = &facts.queue(*queue).plan.name;
            return Err(format!(
                "{name} has {ready} ready and {unacked} unacked messages; {must} must be there and {may} more may be"
            ));
        }
        Ok(())
    }
}

struct Account {
    must: u64,
    may: u64,
}

fn account(facts: &Facts, queue: QueueIndex) -> Account {
    let mut account = Account { must: 0, may: 0 };
    for (index, publish) in facts.publishes.iter().enumerate() {
        let id = PublishId(index);
        let Some((_, is_certain)) = publish.targets.iter().find(|(target, _)| *target == queue) else { continue };
        let is_removed = facts.is_removed(queue, id);
        match facts.excuse(queue, id, *is_certain) {
            None if !is_removed => account.must += 1,
            _ if is_removed && facts.is_surely_removed(queue, id) => {}
            _ => account.may += 1,
        }
    }
    account
}

/// What clients hold.
fn unacked(facts: &Facts, queue: QueueIndex) -> u64 {
    let holds = |id: &crate::facts::DeliveryId| {
        let delivery = facts.delivery(*id);
        let is_open = facts.channel(delivery.channel).end.done.is_none();
        let is_unacked = delivery.settled.is_none() && !delivery.no_ack;
        is_open && is_unacked && matches!(delivery.taker, Taker::Consumer(_) | Taker::Getter)
    };
    let deliveries = facts.queue(queue).deliveries.values();
    deliveries.flatten().filter(|id| holds(id)).count() as u64
}
