//! A dead letter says the truth about its death: where, and of what (semantics 20.1, 20.6).

use super::Oracle;
use crate::facts::{Copy, Facts, Reason, Settled};
use crate::history::Event;

pub(crate) struct Deaths;

impl Oracle for Deaths {
    fn name(&self) -> &'static str {
        "deaths"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Delivered(id) = event else { return Ok(()) };
        let delivery = facts.delivery(*id);
        let Some(death) = delivery.death else { return Ok(()) };
        let (publish, queue) = (facts.publish(delivery.publish), facts.queue(death.queue));
        let mut seen = facts.seen(death.queue, Copy::of(delivery.publish));
        let is_possible = match death.reason {
            Reason::Rejected => seen.any(|seen| matches!(seen.settled, Some((Settled::Discard, _)))),
            Reason::Expired => facts.ttl_ms(death.queue, publish).is_some(),
            Reason::MaxLength => queue.plan.is_limited(),
            Reason::DeliveryLimit => queue
                .plan
                .delivery_limit
                .is_some_and(|limit| seen.count() as u32 > limit || queue.unseen.may_concern(publish.at)),
        };
        if queue.plan.dead_letters.is_some() && is_possible {
            return Ok(());
        }
        let name = &queue.plan.name;
        Err(format!(
            "message {} says that it died in {name} of {:?}, which cannot be",
            delivery.publish.0, death.reason
        ))
    }
}
