//! Each number is settled exactly once, and never before it was used (semantics 14.2, 14.9); a message that reaches no queue comes back
//! when it was mandatory, before its confirm, and no other does (semantics 12.7, 14.3). A nack has a reason: a queue that may refuse
//! (semantics 14.7), or a store that fails.

use std::collections::{BTreeMap, BTreeSet};

use super::Oracle;
use crate::facts::{Answer, ChannelId, Excuse, Facts, PublishId};
use crate::history::Event;
use crate::plan::QueueIndex;

#[derive(Default)]
pub(crate) struct Confirms {
    /// Numbers that are not settled.
    open: BTreeMap<ChannelId, BTreeSet<u64>>,
    /// What was nacked since all was quiet.
    nacked: Vec<PublishId>,
}

impl Oracle for Confirms {
    fn name(&self) -> &'static str {
        "confirms"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Published(id) => {
                let publish = facts.publish(*id);
                if let Some(number) = publish.number {
                    self.open.entry(publish.channel).or_default().insert(number);
                }
                Ok(())
            }
            Event::ConfirmFrame { channel, tag, multiple, .. } => {
                let open = self.open.entry(*channel).or_default();
                let is_known = if *multiple {
                    let before = open.len();
                    open.retain(|number| *number > *tag);
                    open.len() < before
                } else {
                    open.remove(tag)
                };
                let kind = if *multiple { "everything up to " } else { "" };
                if is_known { Ok(()) } else { Err(format!("the broker settles {kind}{tag}, which is not open")) }
            }
            Event::Answered(id) => {
                let publish = facts.publish(*id);
                if publish.answer == Some(Answer::Nacked) {
                    self.nacked.push(*id);
                }
                let is_unroutable = publish.targets.is_empty();
                // A queue that is being deleted takes nothing any more.
                let was_there = |(queue, is_certain): &(QueueIndex, bool)| {
                    !matches!(facts.excuse(*queue, *id, *is_certain), Some(Excuse::NoQueue | Excuse::Swept))
                };
                let is_routed = publish.targets.iter().any(was_there);
                let node_failed = publish.answer == Some(Answer::Nacked);
                match publish.returned {
                    0 if publish.is_mandatory && is_unroutable && !node_failed => {
                        Err(format!("message {} reached no queue, is confirmed, and did not come back", id.0))
                    }
                    1 if is_routed => Err(format!("message {} came back although a queue takes it", id.0)),
                    1 if !publish.is_mandatory => Err(format!("message {} came back and is not mandatory", id.0)),
                    0 | 1 => Ok(()),
                    times => Err(format!("message {} came back {times} times", id.0)),
                }
            }
            Event::Quiet => {
                let has_reason = |id: &PublishId| {
                    let publish = facts.publish(*id);
                    let refuses = publish.targets.iter().any(|(queue, _)| facts.queue(*queue).plan.may_refuse());
                    refuses || facts.node_end_since(publish.at).is_some()
                };
                match std::mem::take(&mut self.nacked).into_iter().find(|id| !has_reason(id)) {
                    Some(id) => Err(format!("message {} was nacked without a reason", id.0)),
                    None => Ok(()),
                }
            }
            Event::Returned(id) if facts.publish(*id).answer.is_some() => {
                Err(format!("message {} came back after its confirm", id.0))
            }
            _ => Ok(()),
        }
    }
}
