//! A message comes back as often as its queue allows, and not once more, as long as the broker runs (semantics 13.22, 20.1).

use std::collections::BTreeMap;

use super::Oracle;
use crate::facts::{Copy, Facts};
use crate::history::Event;
use crate::plan::QueueIndex;

#[derive(Default)]
pub(crate) struct Attempts {
    /// Deliveries of each message in each queue, in each run of the broker.
    counts: BTreeMap<(QueueIndex, Copy, usize), u32>,
}

impl Oracle for Attempts {
    fn name(&self) -> &'static str {
        "attempts"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Delivered(id) = event else { return Ok(()) };
        let delivery = facts.delivery(*id);
        let plan = &facts.queue(delivery.queue).plan;
        let name = || format!("message {} of {}", delivery.publish.0, plan.name);
        let Some(limit) = plan.delivery_limit else {
            return match delivery.returns {
                Some(returns) => Err(format!("{} came back {returns} times, which nobody counts", name())),
                None => Ok(()),
            };
        };
        if delivery.returns.is_some_and(|returns| returns < 1 || returns > i64::from(limit)) {
            return Err(format!("{} says that it came back {:?} times, {limit} are allowed", name(), delivery.returns));
        }
        if delivery.returns.is_some() && !delivery.redelivered {
            return Err(format!("{} came back {:?} times and was never delivered", name(), delivery.returns));
        }
        let boot = facts.channel(delivery.channel).boot;
        let count = self.counts.entry((delivery.queue, delivery.copy(), boot)).or_default();
        *count += 1;
        if *count > limit + 1 {
            return Err(format!("{} is delivered {count} times, but may come back {limit} times", name()));
        }
        Ok(())
    }
}
