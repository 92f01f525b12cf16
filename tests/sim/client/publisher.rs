//! What a channel does that publishes.

use tests::wire::Field;

use super::channel::Request;
use super::connection::text;
use super::{Client, Context};
use crate::facts::Publish;
use crate::message;
use crate::plan::{Answers, PublishPlan};

impl Client {
    pub(super) fn publish_step(&mut self, context: &mut Context<'_>, number: u16, plan: &PublishPlan) {
        let Some(channel) = self.channel(number) else { return };
        if plan.answers == Answers::Confirms && !channel.confirms {
            channel.confirms = true;
            return self.request(context, number, Request::ConfirmSelect, "confirm.select", &[]);
        }
        if plan.answers == Answers::Transactions && channel.transaction.is_none() {
            return self.select_transactions(context, number);
        }
        match self.random.below(200) {
            0 => self.close_channel(context, number),
            1 => self.close(context),
            2..8 => self.barrier(context, number),
            8 => self.publish_nowhere(context, number),
            9..50 if self.end_transaction(context, number) => {}
            _ => {
                let burst = if self.random.below(4) == 0 { 1 + self.random.below(8) } else { 1 };
                for _ in 0..burst {
                    self.publish(context, number, plan);
                }
            }
        }
    }

    pub(super) fn barrier(&mut self, context: &mut Context<'_>, number: u16) {
        self.request(context, number, Request::Barrier, "channel.flow", &[("active", Field::Bit(true))]);
    }

    fn publish(&mut self, context: &mut Context<'_>, number: u16, plan: &PublishPlan) {
        let is_blocked = self.conn.as_ref().is_none_or(|conn| conn.is_blocked);
        let Some(channel) = self.channel(number) else { return };
        if channel.unconfirmed.len() >= plan.unconfirmed_max || is_blocked || *context.publishes_left == 0 {
            return;
        }
        *context.publishes_left -= 1;
        let (id, confirms, publish_number) = (channel.id, channel.confirms, channel.next_number);
        let transaction = channel.transaction.as_ref().map(|transaction| transaction.id);
        let route = self.random.pick(&context.plan.routes);
        let is_mandatory = self.random.below(100) < plan.mandatory_percent;
        let is_persistent = self.random.below(100) < plan.persistent_percent;
        let has_expiration = self.random.below(100) < plan.expiration_percent;
        let expiration_ms = has_expiration.then(|| *self.random.pick(&[0, 50, 1_000, 20_000]));
        let has_priority = self.random.below(100) < plan.priority_percent;
        let priority = has_priority.then(|| self.random.below(12) as u8);
        let body_bytes = message::BODY_BYTES_MIN + self.random.below(plan.body_bytes_max) as usize;
        let facts = &context.history.facts;
        let targets = route.queues.iter().map(|queue| (*queue, facts.queue(*queue).is_ready)).collect();
        let publish = Publish {
            channel: id,
            position: facts.channel(id).publish_count,
            number: confirms.then_some(publish_number),
            at: facts.step,
            at_ms: context.now_ms,
            is_mandatory,
            is_persistent,
            expiration_ms,
            priority,
            transaction,
            body_bytes,
            route: (route.exchange.to_owned(), route.routing_key.clone()),
            targets,
            answer: None,
            known_ms: None,
            returned: 0,
        };
        let id = context.history.publish(publish);
        if let Some(channel) = self.channel(number) {
            if confirms {
                channel.next_number += 1;
                channel.unconfirmed.insert(publish_number, id);
            }
            if let Some(transaction) = &mut channel.transaction {
                transaction.publishes.push(id);
            }
        }
        let fields = [
            ("exchange", text(route.exchange)),
            ("routing-key", text(&route.routing_key)),
            ("mandatory", Field::Bit(is_mandatory)),
        ];
        let content = (message::properties(id, context.history.facts.publish(id)), message::body(id, body_bytes));
        self.with_sender(context, number, |_, sender| sender.content("basic.publish", &fields, Some(content)));
    }

    /// Closes the channel behind the publishes before it.
    fn publish_nowhere(&mut self, context: &mut Context<'_>, number: u16) {
        self.doom(context, number);
        let fields = [("exchange", text("x.missing"))];
        let content = (Vec::new(), Vec::new());
        self.with_sender(context, number, |_, sender| sender.content("basic.publish", &fields, Some(content)));
    }
}
