//! A consumer never has more unacked messages than it asked for, nor a channel with a limit for all its consumers (semantics 13.13, 13.15).
//!
//! What the client has received and not settled is at most what the broker counts, so each excess seen here is one.

use std::collections::BTreeMap;

use super::Oracle;
use crate::facts::{ChannelId, ConsumerId, DeliveryId, Facts, Taker};
use crate::history::Event;

#[derive(Default)]
pub(crate) struct Prefetch {
    limits: BTreeMap<ChannelId, u16>,
}

impl Oracle for Prefetch {
    fn name(&self) -> &'static str {
        "prefetch"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let id = match event {
            Event::GlobalLimit { channel, count } => {
                self.limits.insert(*channel, *count);
                return Ok(());
            }
            Event::Delivered(id) => *id,
            _ => return Ok(()),
        };
        let delivery = facts.delivery(id);
        let Taker::Consumer(consumer) = delivery.taker else { return Ok(()) };
        if delivery.no_ack {
            return Ok(());
        }
        let unacked = &facts.channel(delivery.channel).unacked;
        let is_of = |consumer: ConsumerId, taker: Taker| matches!(taker, Taker::Consumer(of) if of == consumer);
        let of_consumer = unacked.iter().filter(|id| is_of(consumer, facts.delivery(**id).taker)).count();
        // What was delivered of a queue that has been deleted since no longer counts, also where it arrives after that.
        let is_gone = |id: &DeliveryId| match facts.delivery(*id).taker {
            Taker::Consumer(consumer) => facts.may_be_orphaned(facts.consumer(consumer)),
            Taker::Getter => true,
        };
        let of_channel = unacked.iter().filter(|id| !is_gone(id)).count();
        let prefetch = usize::from(facts.consumer(consumer).prefetch_count);
        let limit = usize::from(self.limits.get(&delivery.channel).copied().unwrap_or(0));
        if prefetch > 0 && of_consumer > prefetch {
            return Err(format!("consumer {} has {of_consumer} unacked messages, its limit is {prefetch}", consumer.0));
        }
        if limit > 0 && of_channel > limit {
            return Err(format!("consumers of a channel have {of_channel} unacked messages, their limit is {limit}"));
        }
        Ok(())
    }
}
