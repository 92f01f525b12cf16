//! What a channel does that purges and deletes.

use super::channel::Request;
use super::connection::text;
use super::{Client, Context, setup};
use crate::history::Event;
use crate::plan::QueueIndex;

impl Client {
    pub(super) fn disturb_step(&mut self, context: &mut Context<'_>, number: u16) {
        let queue = QueueIndex(self.random.below(context.plan.queues.len() as u32) as usize);
        let plan = &context.plan.queues[queue.0];
        match self.random.below(40) {
            0 if plan.is_purged => self.sweep(context, number, queue, false),
            1 if plan.is_deleted => {
                self.sweep(context, number, queue, true);
                // It is there again soon.
                let steps = setup::one_queue(context.plan, queue, false);
                if let Some(channel) = self.channel(number) {
                    channel.setup.extend(steps);
                }
            }
            2 => self.barrier(context, number),
            3 => self.close_channel(context, number),
            4..6 => self.status(context, number, queue),
            _ => {}
        }
    }

    /// Asks how full a queue is.
    pub(super) fn status(&mut self, context: &mut Context<'_>, number: u16, queue: QueueIndex) {
        if context.plan.queues[queue.0].is_deleted {
            return;
        }
        let fields = [("queue", text(&context.plan.queues[queue.0].name)), ("passive", tests::wire::Field::Bit(true))];
        self.request(context, number, Request::Status(queue), "queue.declare", &fields);
    }

    fn sweep(&mut self, context: &mut Context<'_>, number: u16, queue: QueueIndex, is_delete: bool) {
        context.history.note(Event::SweepSent { queue, is_delete });
        let fields = [("queue", text(&context.plan.queues[queue.0].name))];
        let method = if is_delete { "queue.delete" } else { "queue.purge" };
        self.request(context, number, Request::Sweep { queue, is_delete }, method, &fields);
    }
}
