//! A publish without an answer is unknown, but what a channel sent to a queue arrives from the front: when a later message is there, an
//! earlier one of the same kind is there, too (semantics 14.11; order of a channel, AMQP 0-9-1 section 4.7).

use std::collections::BTreeMap;

use super::Oracle;
use crate::facts::{ChannelId, Copy, Excuse, Facts, NodeEnd, Publish, PublishId};
use crate::history::Event;
use crate::plan::QueueIndex;

pub(crate) struct Holes;

impl Oracle for Holes {
    fn name(&self) -> &'static str {
        "holes"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        if !matches!(event, Event::Drained) {
            return Ok(());
        }
        // For each channel, queue, kind and level: an earlier message that nobody saw.
        let mut unseen: BTreeMap<(ChannelId, QueueIndex, bool, u8), PublishId> = BTreeMap::new();
        for (index, publish) in facts.publishes.iter().enumerate() {
            let id = PublishId(index);
            for (queue, is_certain) in &publish.targets {
                if may_vanish(facts, *queue, publish) {
                    continue;
                }
                let level = facts.queue(*queue).plan.level(publish.priority);
                let line = (publish.channel, *queue, publish.is_persistent, level);
                if facts.queue(*queue).deliveries.contains_key(&Copy::of(id)) {
                    if let Some(hole) = unseen.get(&line) {
                        let name = &facts.queue(*queue).plan.name;
                        return Err(format!(
                            "message {index} reached {name}, but message {} before it did not",
                            hole.0
                        ));
                    }
                    continue;
                }
                let is_unknown =
                    matches!(facts.excuse(*queue, id, *is_certain), Some(Excuse::Unconfirmed | Excuse::Unanswered));
                // Somebody may have had it whom nobody can ask any more, and it ended with the broker.
                let may_have_been_seen =
                    facts.node_end_since(publish.at).is_some() && facts.queue(*queue).unseen.may_concern(publish.at);
                if is_unknown && !may_have_been_seen {
                    unseen.entry(line).or_insert(id);
                }
            }
        }
        Ok(())
    }
}

/// Whether it may be missing where a later one is not: it expired, was dropped or refused, or was of those that survive a power cut in any
/// order.
fn may_vanish(facts: &Facts, queue: QueueIndex, publish: &Publish) -> bool {
    let plan = &facts.queue(queue).plan;
    let is_unsynced = plan.is_os && facts.node_end_since(publish.at) == Some(NodeEnd::PowerCut);
    let may_die = plan.is_limited() || plan.delivery_limit.is_some() || facts.ttl_ms(queue, publish).is_some();
    is_unsynced || may_die
}
