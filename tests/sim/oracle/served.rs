//! Nothing waits while somebody has room for it: when all is quiet, a queue with ready messages has no consumer that could take one
//! (semantics 13.8, 13.9).

use std::collections::BTreeMap;

use super::Oracle;
use crate::facts::{ChannelId, Consumer, ConsumerId, Facts, Taker};
use crate::history::Event;

#[derive(Default)]
pub(crate) struct Served {
    /// What all consumers of a channel may have together.
    limits: BTreeMap<ChannelId, u16>,
}

impl Oracle for Served {
    fn name(&self) -> &'static str {
        "served"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let (queue, ready) = match event {
            Event::GlobalLimit { channel, count } => {
                self.limits.insert(*channel, *count);
                return Ok(());
            }
            Event::Status { queue, ready, .. } if *ready > 0 => (*queue, *ready),
            _ => return Ok(()),
        };
        let plan = &facts.queue(queue).plan;
        let live = |(_, consumer): &(usize, &Consumer)| consumer.queue == queue && is_live(facts, consumer);
        let live: Vec<(usize, &Consumer)> = facts.consumers.iter().enumerate().filter(live).collect();
        // Who of several is the active one, only the broker knows.
        if plan.is_single_active && live.len() > 1 {
            return Ok(());
        }
        match live.into_iter().find(|(index, consumer)| self.has_room(facts, ConsumerId(*index), consumer)) {
            Some((index, _)) => Err(format!("{} has {ready} ready messages, and consumer {index} has room", plan.name)),
            None => Ok(()),
        }
    }
}

impl Served {
    fn has_room(&self, facts: &Facts, id: ConsumerId, consumer: &Consumer) -> bool {
        let unacked = &facts.channel(consumer.channel).unacked;
        let own = unacked.iter().filter(|unacked| facts.delivery(**unacked).taker == Taker::Consumer(id)).count();
        let prefetch = usize::from(consumer.prefetch_count);
        let limit = usize::from(self.limits.get(&consumer.channel).copied().unwrap_or(0));
        (consumer.no_ack || prefetch == 0 || own < prefetch) && (limit == 0 || unacked.len() < limit)
    }
}

fn is_live(facts: &Facts, consumer: &Consumer) -> bool {
    let is_open = facts.channel(consumer.channel).end.begun.is_none();
    consumer.is_registered && consumer.cancelled.is_none() && consumer.cancel_sent.is_none() && is_open
}
