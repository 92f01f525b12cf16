//! No message expires before its time (semantics 18.1), and none is delivered after it (semantics 18.3).
//!
//! What vanishes before its time without leaving a dead letter is for the oracle of loss: only what may have expired has an excuse there.

use super::Oracle;
use crate::facts::{Facts, Reason};
use crate::history::Event;

#[derive(Default)]
pub(crate) struct Ttl {
    /// Since when queues are being drained, in milliseconds: nothing waits for anything any more.
    draining_since_ms: Option<u64>,
}

impl Oracle for Ttl {
    fn name(&self) -> &'static str {
        "ttl"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let id = match event {
            Event::Draining => {
                self.draining_since_ms = Some(facts.now_ms);
                return Ok(());
            }
            Event::Drained => {
                self.draining_since_ms = None;
                return Ok(());
            }
            Event::Delivered(id) => *id,
            _ => return Ok(()),
        };
        let delivery = facts.delivery(id);
        let publish = facts.publish(delivery.publish);
        let died_in = delivery.death.filter(|death| death.reason == Reason::Expired).map(|death| death.queue);
        if let Some(queue) = died_in {
            let may_be_up = facts.may_be_expired(queue, publish);
            let name = &facts.queue(queue).plan.name;
            return if may_be_up {
                Ok(())
            } else {
                Err(format!("message {} expired in {name} before its time", delivery.publish.0))
            };
        }
        let latest_ms = publish.known_ms.zip(facts.ttl_ms(delivery.queue, publish)).map(|(known, ttl)| known + ttl);
        match (self.draining_since_ms, latest_ms) {
            (Some(since_ms), Some(latest_ms)) if delivery.death.is_none() && latest_ms < since_ms => {
                let name = &facts.queue(delivery.queue).plan.name;
                Err(format!(
                    "message {} of {name} is delivered at {}, its time was up at {latest_ms}",
                    delivery.publish.0, facts.now_ms
                ))
            }
            _ => Ok(()),
        }
    }
}
