//! A message is in one place at a time: while somebody holds it nobody else gets it, and once its ack has been processed it never comes
//! again while the broker runs, nor after it was stopped in order. What has died is where dead letters go, and nowhere else.

use std::collections::BTreeMap;

use super::Oracle;
use crate::facts::{Copy, DeliveryId, Facts, NodeEnd, Settled, Taker};
use crate::history::Event;
use crate::plan::{DEAD, QueueIndex};

#[derive(Default)]
pub(crate) struct Once {
    /// The last delivery of each message in each queue.
    last: BTreeMap<(QueueIndex, Copy), DeliveryId>,
}

impl Oracle for Once {
    fn name(&self) -> &'static str {
        "once"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Delivered(id) = event else { return Ok(()) };
        let delivery = facts.delivery(*id);
        let before = self.last.insert((delivery.queue, delivery.copy()), *id);
        let publish = facts.publish(delivery.publish);
        let origin = delivery.death.map_or(delivery.queue, |death| death.queue);
        let reaches = publish.targets.iter().any(|(queue, _)| *queue == origin);
        let name = || format!("message {} of {}", delivery.publish.0, facts.queue(delivery.queue).plan.name);
        if !reaches {
            return Err(format!("{} was never routed there", name()));
        }
        // What arrives late from a channel that is ending may have been sent before the other had it.
        if facts.channel(delivery.channel).end.begun.is_some() {
            return Ok(());
        }
        if facts.may_be_double(delivery) {
            return Ok(());
        }
        let died = Copy { died_in: Some(origin), ..Copy::of(delivery.publish) };
        let may_have_come_back = facts.node_end_since(publish.at).is_some_and(|end| end != NodeEnd::Stopped);
        if delivery.death.is_none() && self.last.contains_key(&(DEAD, died)) && !may_have_come_back {
            return Err(format!("{} comes from there although it has died", name()));
        }
        let Some(before) = before.map(|before| facts.delivery(before)) else { return Ok(()) };
        let had_it = match before.taker {
            Taker::Consumer(consumer) => format!("consumer {}", consumer.0),
            Taker::Getter => "a getter".to_owned(),
        };
        // Acks that were not written are lost with the process; what was stopped in order has written them.
        let (boot_before, boot) = (facts.channel(before.channel).boot, facts.channel(delivery.channel).boot);
        let kept_acks = facts.node_end_from(boot_before).is_none_or(|end| end == NodeEnd::Stopped);
        let was_processed = |step| facts.is_processed(before.channel, step);
        match before.settled {
            None if before.no_ack && kept_acks => {
                Err(format!("{} went to {had_it} without ack and comes again", name()))
            }
            None if boot_before == boot && facts.channel(before.channel).end.begun.is_none() => {
                Err(format!("{} comes again although {had_it} holds it", name()))
            }
            Some((Settled::Ack | Settled::Discard, step)) if was_processed(step) && kept_acks => {
                Err(format!("{} was settled by {had_it} and comes again", name()))
            }
            _ => Ok(()),
        }
    }
}
