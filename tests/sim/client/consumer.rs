//! What a channel does that consumes or fetches.

use std::collections::BTreeSet;

use tests::wire::Field;
use tests::wire::value::{Table, Value};

use super::channel::{Consuming, Request};
use super::connection::text;
use super::{Client, Context};
use crate::facts::{self, DeliveryId, Settled};
use crate::history::Event;
use crate::plan::{ConsumePlan, QueueIndex};

impl Client {
    pub(super) fn consume_step(&mut self, context: &mut Context<'_>, number: u16, plan: &ConsumePlan) {
        let Some(channel) = self.channel(number) else { return };
        let stage = channel.stage;
        channel.stage = stage + 1;
        match stage {
            0 => self.limit(context, number, plan.prefetch_count, false),
            1 if plan.global_prefetch_count > 0 => self.limit(context, number, plan.global_prefetch_count, true),
            2 if plan.is_transactional => self.select_transactions(context, number),
            1 | 2 => {}
            _ => {
                let missing = plan.queues.iter().find(|queue| !channel.subscribed.contains(queue)).copied();
                match missing {
                    Some(queue) if self.random.below(3) > 0 => self.consume(context, number, queue, plan),
                    _ => self.settle_step(context, number),
                }
            }
        }
    }

    pub(super) fn get_step(&mut self, context: &mut Context<'_>, number: u16, queues: &[QueueIndex]) {
        if self.random.below(2) == 0 {
            return self.settle_step(context, number);
        }
        let (queue, no_ack) = (*self.random.pick(queues), self.random.below(5) == 0);
        let Some(channel) = self.channel(number) else { return };
        let id = channel.id;
        context.history.get(id, queue, no_ack);
        let fields = [("queue", text(&context.plan.queues[queue.0].name)), ("no-ack", Field::Bit(no_ack))];
        self.request(context, number, Request::Get { queue, no_ack }, "basic.get", &fields);
    }

    /// Sets the limit of consumers to come, or of all consumers of the channel.
    pub(super) fn limit(&mut self, context: &mut Context<'_>, number: u16, count: u16, is_global: bool) {
        let Some(channel) = self.channel(number) else { return };
        if !is_global {
            channel.prefetch_count = count;
        }
        let fields = [("prefetch-count", Field::Number(u64::from(count))), ("global", Field::Bit(is_global))];
        let request = Request::Qos { global: is_global.then_some(count) };
        self.request(context, number, request, "basic.qos", &fields);
    }

    pub(super) fn consume(&mut self, context: &mut Context<'_>, number: u16, queue: QueueIndex, plan: &ConsumePlan) {
        let Some(channel) = self.channel(number) else { return };
        channel.subscribed.insert(queue);
        let consumer = facts::Consumer {
            channel: channel.id,
            queue,
            no_ack: plan.no_ack,
            prefetch_count: channel.prefetch_count,
            at: context.history.facts.step,
            is_registered: false,
            cancel_sent: None,
            cancelled: None,
        };
        let id = context.history.consume(consumer);
        let tag = format!("c{}", id.0);
        let mut arguments = Table::new();
        if let Some(priority) = plan.priority {
            arguments.push((b"x-priority".to_vec(), Value::I32(priority)));
        }
        let Some(channel) = self.channel(number) else { return };
        let consuming = Consuming { id, queue, no_ack: plan.no_ack, is_registered: false };
        channel.consumers.insert(tag.clone(), consuming);
        let fields = [
            ("queue", text(&context.plan.queues[queue.0].name)),
            ("consumer-tag", text(&tag)),
            ("no-ack", Field::Bit(plan.no_ack)),
            ("exclusive", Field::Bit(plan.is_exclusive)),
            ("arguments", Field::Table(arguments)),
        ];
        self.request(context, number, Request::Consume(id), "basic.consume", &fields);
    }

    /// Settles something, or does what consumers do now and then.
    fn settle_step(&mut self, context: &mut Context<'_>, number: u16) {
        let choice = self.random.below(200);
        match choice {
            0 => return self.close_channel(context, number),
            1 => return self.close(context),
            2..5 => return self.barrier(context, number),
            5 => return self.settle_unknown(context, number),
            6..9 => return self.cancel(context, number),
            9 => return self.recover(context, number),
            10..50 if self.end_transaction(context, number) => return,
            _ => {}
        }
        let Some(channel) = self.channel(number) else { return };
        let tags: Vec<u64> = channel.unacked.keys().copied().collect();
        if tags.is_empty() {
            return;
        }
        let tag = *self.random.pick(&tags);
        let (how, method) = match choice {
            10..110 => (Settled::Ack, "basic.ack"),
            110..160 => (Settled::Requeue, if choice.is_multiple_of(2) { "basic.nack" } else { "basic.reject" }),
            160..175 => (Settled::Discard, if choice.is_multiple_of(2) { "basic.nack" } else { "basic.reject" }),
            // Thinks it over.
            _ => return,
        };
        let multiple = method != "basic.reject" && self.random.below(3) == 0;
        self.settle(context, number, tag, multiple, how, method);
    }

    pub(super) fn settle(
        &mut self,
        context: &mut Context<'_>,
        number: u16,
        tag: u64,
        multiple: bool,
        how: Settled,
        method: &str,
    ) {
        let Some(channel) = self.channel(number) else { return };
        let settled: BTreeSet<u64> =
            if multiple { channel.unacked.range(..=tag).map(|(tag, _)| *tag).collect() } else { BTreeSet::from([tag]) };
        let settled: Vec<(u64, DeliveryId)> =
            settled.iter().filter_map(|tag| Some((*tag, channel.unacked.remove(tag)?))).collect();
        match &mut channel.transaction {
            Some(transaction) => transaction.settled.push((how, settled)),
            None => {
                let deliveries = settled.into_iter().map(|(_, id)| id).collect();
                context.history.note(Event::Settled { deliveries, how });
            }
        }
        let tag = ("delivery-tag", Field::Number(tag));
        let requeue = ("requeue", Field::Bit(how == Settled::Requeue));
        match method {
            "basic.ack" => self.call(context, number, method, &[tag, ("multiple", Field::Bit(multiple))]),
            "basic.nack" => self.call(context, number, method, &[tag, ("multiple", Field::Bit(multiple)), requeue]),
            _ => self.call(context, number, method, &[tag, requeue]),
        }
    }

    /// Puts back everything that the channel has.
    fn recover(&mut self, context: &mut Context<'_>, number: u16) {
        let Some(channel) = self.channel(number).filter(|channel| channel.transaction.is_none()) else { return };
        let deliveries = std::mem::take(&mut channel.unacked).into_values().collect();
        context.history.note(Event::Settled { deliveries, how: Settled::Requeue });
        self.request(context, number, Request::Recover, "basic.recover", &[("requeue", Field::Bit(true))]);
    }

    /// Closes the channel, and everything comes back.
    fn settle_unknown(&mut self, context: &mut Context<'_>, number: u16) {
        self.doom(context, number);
        self.call(context, number, "basic.ack", &[("delivery-tag", Field::Number(1_000_000))]);
    }

    fn cancel(&mut self, context: &mut Context<'_>, number: u16) {
        let Some(channel) = self.channel(number) else { return };
        let Some((tag, consuming)) = channel.consumers.iter().find(|(_, consuming)| consuming.is_registered) else {
            return;
        };
        let (tag, id) = (tag.clone(), consuming.id);
        context.history.note(Event::CancelSent(id));
        self.request(context, number, Request::Cancel(id), "basic.cancel", &[("consumer-tag", text(&tag))]);
    }
}
