//! Messages of one channel come out of a queue in the order in which they were published (semantics 13.10), and those that come back take
//! their old places (semantics 13.20). With priorities this is so for each of them (semantics 21.1).

use std::collections::BTreeMap;

use super::{Oracle, delivered_while};
use crate::facts::{ChannelId, ConsumerId, Facts, PublishId, Taker};
use crate::history::Event;
use crate::plan::QueueIndex;

#[derive(Default)]
pub(crate) struct Order {
    /// The last message of each publishing channel that came to each consumer for the first time.
    first_time: BTreeMap<(ConsumerId, ChannelId, u8), PublishId>,
    /// The last message of each publishing channel that came out of each queue since it has one consumer only.
    drained: Option<BTreeMap<(QueueIndex, ChannelId, u8), PublishId>>,
}

impl Oracle for Order {
    fn name(&self) -> &'static str {
        "order"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Some(id) = delivered_while(&mut self.drained, event) else { return Ok(()) };
        let delivery = facts.delivery(id);
        let Taker::Consumer(consumer) = delivery.taker else { return Ok(()) };
        // Messages die in any order.
        if delivery.death.is_some() {
            return Ok(());
        }
        let (publish, plan) = (facts.publish(delivery.publish), &facts.queue(delivery.queue).plan);
        let (channel, level, name) = (publish.channel, plan.level(publish.priority), &plan.name);
        let (message, later) = match &mut self.drained {
            Some(drained) => (delivery.publish, drained.insert((delivery.queue, channel, level), delivery.publish)),
            // What comes back may stand before what came for the first time.
            None if delivery.redelivered => return Ok(()),
            None => (delivery.publish, self.first_time.insert((consumer, channel, level), delivery.publish)),
        };
        match later {
            Some(later) if later > message => {
                Err(format!("message {} of {name} comes behind {}, which was published later", message.0, later.0))
            }
            _ => Ok(()),
        }
    }
}
