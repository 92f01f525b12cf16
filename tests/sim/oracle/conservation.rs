//! Published = acked + ready + unacked + dead-lettered + dropped: when all is quiet, each queue has what it must have, and nothing beside
//! what it may have. The queue of the dead is counted together with those whose dead letters it takes.

use super::Oracle;
use crate::facts::{Copy, Facts, NodeEnd, PublishId};
use crate::history::Event;
use crate::plan::{DEAD, QueueIndex};

pub(crate) struct Conservation;

impl Oracle for Conservation {
    fn name(&self) -> &'static str {
        "conservation"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Status { queue, .. } = event else { return Ok(()) };
        let queues: Vec<QueueIndex> = match *queue {
            DEAD => {
                (0..facts.queues.len()).map(QueueIndex).filter(|queue| is_counted_with_dead(facts, *queue)).collect()
            }
            queue => vec![queue],
        };
        let Account { must, may } = account(facts, *queue);
        let ready: u64 = queues.iter().map(|queue| facts.queue(*queue).ready).sum();
        let unacked: u64 = queues.iter().map(|queue| unacked(facts, *queue)).sum();
        let there = ready + unacked;
        if there < must || there > must + may {
            let names: Vec<&str> = queues.iter().map(|queue| facts.queue(*queue).plan.name.as_str()).collect();
            return Err(format!(
                "{names:?} have {ready} ready and {unacked} unacked messages; {must} must be there and {may} more may be"
            ));
        }
        Ok(())
    }
}

fn is_counted_with_dead(facts: &Facts, queue: QueueIndex) -> bool {
    queue == DEAD || facts.queue(queue).plan.dead_letters.is_some()
}

struct Account {
    must: u64,
    may: u64,
}

impl Account {
    fn add(&mut self, must: u64, may: u64) {
        self.must += must;
        self.may += may;
    }
}

fn account(facts: &Facts, queue: QueueIndex) -> Account {
    let mut account = Account { must: 0, may: 0 };
    for (index, publish) in facts.publishes.iter().enumerate() {
        let id = PublishId(index);
        for (target, is_certain) in &publish.targets {
            let (target, is_certain) = (*target, *is_certain);
            if queue == DEAD && is_counted_with_dead(facts, target) {
                together(facts, target, id, is_certain, &mut account);
            } else if queue == target {
                alone(facts, target, id, is_certain, &mut account);
            }
        }
    }
    account
}

/// One queue, out of which messages may have died.
fn alone(facts: &Facts, queue: QueueIndex, id: PublishId, is_certain: bool, account: &mut Account) {
    let is_removed = facts.is_removed(queue, Copy::of(id));
    match facts.excuse(queue, id, is_certain) {
        None if !is_removed && !facts.may_have_died(queue, id) => account.add(1, 0),
        _ if is_removed && facts.is_surely_removed(queue, Copy::of(id)) => {}
        _ => account.add(0, 1),
    }
}

/// Where it was published, or where it came when it died.
fn together(facts: &Facts, queue: QueueIndex, id: PublishId, is_certain: bool, account: &mut Account) {
    let publish = facts.publish(id);
    let dead = Copy { publish: id, died_in: Some(queue) };
    // A crash in the middle of a death doubles the message rather than losing it.
    let crashes = facts
        .boots
        .iter()
        .filter_map(|boot| boot.end)
        .filter(|(end, at)| *at >= publish.at && *end != NodeEnd::Stopped);
    let doubles = crashes.count() as u64;
    let is_done = facts.is_done(queue, id);
    let is_surely_done = facts.is_surely_removed(DEAD, dead)
        || is_done && facts.is_surely_removed(queue, Copy::of(id)) && facts.seen(DEAD, dead).count() == 0;
    // It may die between two looks, and be seen by both or by none.
    let is_moving = facts.may_be_expired(queue, publish) && facts.seen(DEAD, dead).count() == 0;
    match facts.excuse(queue, id, is_certain) {
        _ if is_done && is_surely_done => account.add(0, doubles),
        None if !is_done && !is_moving => account.add(1, doubles),
        _ => account.add(0, 1 + u64::from(is_moving) + doubles),
    }
}

/// What clients hold.
fn unacked(facts: &Facts, queue: QueueIndex) -> u64 {
    let deliveries = facts.queue(queue).deliveries.values();
    deliveries.flatten().filter(|id| facts.holds(facts.delivery(**id))).count() as u64
}
