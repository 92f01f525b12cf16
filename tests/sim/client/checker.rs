//! The one client that looks at everything when the others rest: it asks how full queues are, and drains them.

use plugin_api::testing::Random;

use super::channel::Request;
use super::connection::{SETUP_CHANNEL, text};
use super::{Client, Context};
use crate::facts::Settled;
use crate::plan::{ClientPlan, ConsumePlan, QueueIndex};

/// The channel that drains.
const DRAIN_CHANNEL: u16 = 2;

/// See the module.
pub(crate) struct Checker(pub(crate) Client);

impl Checker {
    /// The client of this number, which has no work of its own.
    pub(crate) fn new(index: usize, plan: ClientPlan, random: Random) -> Self {
        Self(Client::new(index, plan, random))
    }

    /// Asks how full a queue is; the answer is an event.
    pub(crate) fn ask(&mut self, context: &mut Context<'_>, queue: QueueIndex) {
        let fields = [("queue", text(&context.plan.queues[queue.0].name)), ("passive", tests::wire::Field::Bit(true))];
        self.0.request(context, SETUP_CHANNEL, Request::Status(queue), "queue.declare", &fields);
    }

    /// Begins to drain every queue.
    pub(crate) fn begin_drain(&mut self, context: &mut Context<'_>) {
        self.0.new_channel(context, DRAIN_CHANNEL);
    }

    /// Goes on draining; false when there is nothing to do at present.
    pub(crate) fn drain(&mut self, context: &mut Context<'_>) -> bool {
        let Some(channel) = self.0.channel(DRAIN_CHANNEL) else { return false };
        if channel.request.is_some() || channel.is_closing {
            return false;
        }
        let queues = context.plan.queues.len();
        let stage = channel.stage;
        if stage <= queues {
            channel.stage += 1;
        }
        if stage == 0 {
            let prefetch = *self.0.random.pick(&[0, 1, 10]);
            self.0.limit(context, DRAIN_CHANNEL, prefetch, false);
            return true;
        }
        if stage <= queues {
            let queue = QueueIndex(stage - 1);
            let plan = ConsumePlan {
                queues: vec![queue],
                prefetch_count: 0,
                global_prefetch_count: 0,
                no_ack: false,
                is_exclusive: false,
                is_transactional: false,
                priority: None,
            };
            self.0.consume(context, DRAIN_CHANNEL, queue, &plan);
            return true;
        }
        let tags: Vec<u64> = channel.unacked.keys().copied().collect();
        if tags.is_empty() {
            return false;
        }
        let tag = *self.0.random.pick(&tags);
        let multiple = self.0.random.below(2) == 0;
        self.0.settle(context, DRAIN_CHANNEL, tag, multiple, Settled::Ack, "basic.ack");
        true
    }

    /// Whether it holds nothing.
    pub(crate) fn has_nothing(&mut self) -> bool {
        self.0.channel(DRAIN_CHANNEL).is_none_or(|channel| channel.unacked.is_empty())
    }

    /// Ends draining.
    pub(crate) fn end_drain(&mut self, context: &mut Context<'_>) {
        self.0.close_channel(context, DRAIN_CHANNEL);
    }
}
