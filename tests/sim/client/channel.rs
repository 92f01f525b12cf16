//! What a client knows of one channel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Context;
use super::setup::Step;
use crate::facts::{ChannelId, ConsumerId, DeliveryId, PublishId, Settled, TransactionId};
use crate::plan::{QueueIndex, Work};

/// A piece of work that wants a channel, again and again.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) work: Work,
    /// The number of its channel, if it has one.
    pub(super) channel: Option<u16>,
    pub(super) open_at_ms: u64,
}

impl Slot {
    pub(super) fn new(work: Work) -> Self {
        Self { work, channel: None, open_at_ms: 0 }
    }
}

/// A request that the broker has yet to answer.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Open,
    Close,
    Setup(Step),
    ConfirmSelect,
    TxSelect,
    Commit,
    Rollback,
    /// A limit for all consumers, or for each of those to come.
    Qos {
        global: Option<u16>,
    },
    Consume(ConsumerId),
    Cancel(ConsumerId),
    Recover,
    Get {
        queue: QueueIndex,
        no_ack: bool,
    },
    Sweep {
        queue: QueueIndex,
        is_delete: bool,
    },
    /// Has no effect; its answer says that everything before it is done.
    Barrier,
    /// How full a queue is.
    Status(QueueIndex),
}

impl Request {
    /// Whether the broker may close the channel over it: others may have deleted the queue, or consume from it exclusively, and a queue may
    /// refuse what a transaction brings. Until it is answered, others may have what the channel has.
    pub(super) fn is_risky(&self, context: &Context<'_>) -> bool {
        let queue = |queue: QueueIndex| &context.plan.queues[queue.0];
        match self {
            Self::Consume(consumer) => {
                let queue = queue(context.history.facts.consumer(*consumer).queue);
                queue.is_deleted || queue.is_exclusive
            }
            Self::Get { queue: of, .. } | Self::Sweep { queue: of, .. } => queue(*of).is_deleted,
            // What is on its way to the client may reach somebody else before it.
            Self::Commit | Self::Recover => true,
            Self::Setup(Step::Bind { binding, .. }) => queue(context.plan.bindings[*binding].queue).is_deleted,
            _ => false,
        }
    }

    /// The method that answers it.
    pub(super) fn reply(&self) -> &'static str {
        match self {
            Self::Open => "channel.open-ok",
            Self::Close => "channel.close-ok",
            Self::Setup(step) => step.reply(),
            Self::ConfirmSelect => "confirm.select-ok",
            Self::TxSelect => "tx.select-ok",
            Self::Commit => "tx.commit-ok",
            Self::Rollback => "tx.rollback-ok",
            Self::Qos { .. } => "basic.qos-ok",
            Self::Consume(_) => "basic.consume-ok",
            Self::Cancel(_) => "basic.cancel-ok",
            Self::Recover => "basic.recover-ok",
            Self::Get { .. } => "basic.get-ok",
            Self::Sweep { is_delete: false, .. } => "queue.purge-ok",
            Self::Sweep { is_delete: true, .. } => "queue.delete-ok",
            Self::Barrier => "channel.flow-ok",
            Self::Status(_) => "queue.declare-ok",
        }
    }
}

/// A consumer of the channel.
#[derive(Debug)]
pub(super) struct Consuming {
    pub(super) id: ConsumerId,
    pub(super) queue: QueueIndex,
    pub(super) no_ack: bool,
    /// The broker has said that it is one.
    pub(super) is_registered: bool,
}

/// What a transaction holds.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: TransactionId,
    pub(super) publishes: Vec<PublishId>,
    /// Settlements, with their delivery tags.
    pub(super) settled: Vec<(Settled, Vec<(u64, DeliveryId)>)>,
}

impl Transaction {
    pub(super) fn new(id: TransactionId) -> Self {
        Self { id, publishes: Vec::new(), settled: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.publishes.is_empty() && self.settled.is_empty()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: ChannelId,
    /// The request under way, and when it was sent.
    pub(super) request: Option<(Request, crate::facts::Step)>,
    /// What is to be declared before anything else.
    pub(super) setup: VecDeque<Step>,
    pub(super) next_act_ms: u64,
    pub(super) is_closing: bool,
    /// The client has done something for which the broker closes the channel.
    pub(super) is_doomed: bool,
    pub(super) confirms: bool,
    pub(super) next_number: u64,
    pub(super) unconfirmed: BTreeMap<u64, PublishId>,
    pub(super) transaction: Option<Transaction>,
    pub(super) last_tag: u64,
    pub(super) unacked: BTreeMap<u64, DeliveryId>,
    pub(super) consumers: BTreeMap<String, Consuming>,
    /// How much of its beginning it has done: limits and consumers are asked for one after the other.
    pub(super) stage: usize,
    /// Queues that it consumes from or has asked to.
    pub(super) subscribed: BTreeSet<QueueIndex>,
    pub(super) prefetch_count: u16,
}

impl Channel {
    pub(super) fn new(id: ChannelId, now: crate::facts::Step) -> Self {
        Self {
            id,
            request: Some((Request::Open, now)),
            setup: VecDeque::new(),
            next_act_ms: 0,
            is_closing: false,
            is_doomed: false,
            confirms: false,
            next_number: 1,
            unconfirmed: BTreeMap::new(),
            transaction: None,
            last_tag: 0,
            unacked: BTreeMap::new(),
            consumers: BTreeMap::new(),
            stage: 0,
            subscribed: BTreeSet::new(),
            prefetch_count: 0,
        }
    }

    /// Nothing is under way.
    pub(super) fn is_at_rest(&self) -> bool {
        self.request.is_none() && self.setup.is_empty() && self.unconfirmed.is_empty() && !self.is_doomed
    }
}
