//! What has happened in a run, as the outside can know it: every publish, every delivery, every end of anything.
//!
//! Oracles read this and judge. A step is the simulator's count of turns; it orders everything that happened in a run.

use std::collections::BTreeMap;

use crate::plan::{DEAD, Overflow, Plan, QueueIndex, QueuePlan};

/// A count of turns.
pub(crate) type Step = u64;

/// An index into [`Facts::publishes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PublishId(pub(crate) usize);

/// An index into [`Facts::deliveries`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DeliveryId(pub(crate) usize);

/// An index into [`Facts::channels`]: one opening of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelId(pub(crate) usize);

/// An index into [`Facts::consumers`]: one basic.consume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConsumerId(pub(crate) usize);

/// An index into [`Facts::connections`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(crate) usize);

/// An index into [`Facts::transactions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TransactionId(pub(crate) usize);

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transaction {
    Open,
    /// tx.commit was sent, or tx.rollback.
    Committing,
    RollingBack,
    Committed,
    RolledBack,
    /// tx.commit was refused, because a queue had not taken a message.
    Refused,
}

/// A message in a queue: as it was published there, or as it came there from another queue in which it had died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Copy {
    pub(crate) publish: PublishId,
    pub(crate) died_in: Option<QueueIndex>,
}

impl Copy {
    /// As it was published.
    pub(crate) fn of(publish: PublishId) -> Self {
        Self { publish, died_in: None }
    }
}

/// What a message died of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Rejected,
    Expired,
    MaxLength,
    DeliveryLimit,
}

/// What a dead letter says of its death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) queue: QueueIndex,
    pub(crate) reason: Reason,
}

/// Why a message may not be in a queue although nobody removed it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excuse {
    /// The queue may not have been there when it was published.
    NoQueue,
    Nacked,
    /// The queue was purged or deleted.
    Swept,
    /// A consumer without acks was lost and may have had it.
    LostWithoutAck,
    /// Its transaction was not committed.
    NotCommitted,
    /// It may have expired there.
    Expired,
    /// The queue may have been too long.
    Dropped,
    /// It may have come back too often.
    Exhausted,
    /// The broker ended before it was confirmed.
    Unconfirmed,
    /// Its connection ended before anything was heard of it.
    Unanswered,
    /// The broker ended, and message or queue were transient.
    Transient,
    /// The power failed, and its queue does not sync.
    Unsynced,
}

/// What a publisher was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Acked,
    Nacked,
}

/// One basic.publish.
#[derive(Debug, Clone)]
pub(crate) struct Publish {
    pub(crate) channel: ChannelId,
    /// Its place among the publishes of the channel.
    pub(crate) position: u32,
    /// Its number for the confirm.
    pub(crate) number: Option<u64>,
    pub(crate) at: Step,
    pub(crate) at_ms: u64,
    pub(crate) is_mandatory: bool,
    pub(crate) is_persistent: bool,
    pub(crate) expiration_ms: Option<u32>,
    pub(crate) priority: Option<u8>,
    pub(crate) transaction: Option<TransactionId>,
    pub(crate) body_bytes: usize,
    /// Exchange and routing key.
    pub(crate) route: (String, String),
    /// Queues it should reach; with false where the queue may not have been there.
    pub(crate) targets: Vec<(QueueIndex, bool)>,
    /// A commit answers as confirms do.
    pub(crate) answer: Option<Answer>,
    /// When the client knew that the broker has it, in milliseconds.
    pub(crate) known_ms: Option<u64>,
    pub(crate) returned: u32,
}

/// How a delivery was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Ack,
    /// Rejected without requeue.
    Discard,
    Requeue,
}

/// Who got a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taker {
    Consumer(ConsumerId),
    Getter,
}

/// A message that reached a client.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) publish: PublishId,
    pub(crate) death: Option<Death>,
    pub(crate) queue: QueueIndex,
    pub(crate) taker: Taker,
    pub(crate) channel: ChannelId,
    pub(crate) redelivered: bool,
    pub(crate) no_ack: bool,
    /// The header that counts returns.
    pub(crate) returns: Option<i64>,
    pub(crate) at: Step,
    pub(crate) settled: Option<(Settled, Step)>,
}

/// The end of something, from when it may have begun for the broker until nothing more can come of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct End {
    pub(crate) begun: Option<Step>,
    pub(crate) done: Option<Step>,
}

/// One opening of a channel.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    pub(crate) connection: ConnectionId,
    pub(crate) boot: usize,
    pub(crate) number: u16,
    pub(crate) end: End,
    /// Everything that the client sent before this step has been processed.
    pub(crate) processed: Step,
    pub(crate) publish_count: u32,
    /// Publishes of which the client does not know yet that the broker has them.
    pub(crate) unknown: Vec<PublishId>,
    /// Deliveries that the client has not settled, gets not among them.
    pub(crate) unacked: Vec<DeliveryId>,
    /// Queues that deliver to it, with acks and without.
    pub(crate) holds: Vec<(QueueIndex, bool)>,
}

/// One basic.consume.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    pub(crate) channel: ChannelId,
    pub(crate) queue: QueueIndex,
    pub(crate) no_ack: bool,
    pub(crate) prefetch_count: u16,
    /// When basic.consume was sent.
    pub(crate) at: Step,
    /// The broker has said that it is one.
    pub(crate) is_registered: bool,
    /// The client has sent basic.cancel, the broker has answered.
    pub(crate) cancel_sent: Option<Step>,
    pub(crate) cancelled: Option<Step>,
}

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) client: usize,
    pub(crate) channels: Vec<ChannelId>,
    pub(crate) end: End,
}

/// How a run of the broker ended, the gravest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NodeEnd {
    /// In order.
    Stopped,
    /// Killed, or ended by itself because the store had failed; the system goes on.
    Killed,
    /// Everything that was not synced may be lost.
    PowerCut,
}

/// One run of the broker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Boot {
    pub(crate) started: Step,
    pub(crate) end: Option<(NodeEnd, Step)>,
}

/// Deliveries that no client saw may have happened until `last`, or still may while `open` is not 0.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unseen {
    open: u32,
    last: Option<Step>,
}

impl Unseen {
    /// Whether a message of that step may have been delivered without anybody seeing it.
    pub(crate) fn may_concern(self, published: Step) -> bool {
        self.open > 0 || self.last.is_some_and(|last| last >= published)
    }
}

/// What somebody did to a whole queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    pub(crate) is_delete: bool,
    pub(crate) sent: Step,
    /// When the broker had answered, with how many messages.
    pub(crate) done: Option<(Step, u64)>,
}

/// One queue.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    pub(crate) plan: QueuePlan,
    /// Whoever publishes now finds it there, with its bindings.
    pub(crate) is_ready: bool,
    pub(crate) unseen: Unseen,
    /// As `unseen`, of deliveries that need no ack.
    pub(crate) unseen_no_ack: Unseen,
    pub(crate) sweeps: Vec<Sweep>,
    /// As the broker said last.
    pub(crate) ready: u64,
    /// What reached clients of each message.
    pub(crate) deliveries: BTreeMap<Copy, Vec<DeliveryId>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) step: Step,
    pub(crate) now_ms: u64,
    pub(crate) queues: Vec<Queue>,
    pub(crate) publishes: Vec<Publish>,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) boots: Vec<Boot>,
    pub(crate) transactions: Vec<Transaction>,
}

impl Delivery {
    /// Which of the copies of its message this is.
    pub(crate) fn copy(&self) -> Copy {
        Copy { publish: self.publish, died_in: self.death.map(|death| death.queue) }
    }
}

impl Facts {
    pub(crate) fn new(plan: &Plan) -> Self {
        let queues = plan.queues.iter().map(|plan| Queue {
            plan: plan.clone(),
            is_ready: false,
            unseen: Unseen::default(),
            unseen_no_ack: Unseen::default(),
            sweeps: Vec::new(),
            ready: 0,
            deliveries: BTreeMap::new(),
        });
        Self {
            step: 0,
            now_ms: 0,
            queues: queues.collect(),
            publishes: Vec::new(),
            deliveries: Vec::new(),
            channels: Vec::new(),
            consumers: Vec::new(),
            connections: Vec::new(),
            boots: Vec::new(),
            transactions: Vec::new(),
        }
    }

    pub(crate) fn publish(&self, id: PublishId) -> &Publish {
        &self.publishes[id.0]
    }

    pub(crate) fn delivery(&self, id: DeliveryId) -> &Delivery {
        &self.deliveries[id.0]
    }

    pub(crate) fn channel(&self, id: ChannelId) -> &Channel {
        &self.channels[id.0]
    }

    pub(crate) fn consumer(&self, id: ConsumerId) -> &Consumer {
        &self.consumers[id.0]
    }

    pub(crate) fn queue(&self, index: QueueIndex) -> &Queue {
        &self.queues[index.0]
    }

    /// The number of the broker's current run, or of its last.
    pub(crate) fn boot(&self) -> usize {
        self.boots.len().saturating_sub(1)
    }

    /// Whether the broker has done what the client sent on this channel at that step.
    pub(crate) fn is_processed(&self, channel: ChannelId, sent: Step) -> bool {
        sent < self.channel(channel).processed
    }

    /// How the broker ended since that step, the gravest first; nothing if it did not.
    pub(crate) fn node_end_since(&self, step: Step) -> Option<NodeEnd> {
        self.boots.iter().filter_map(|boot| boot.end).filter(|(_, at)| *at >= step).map(|(end, _)| end).max()
    }

    /// As [`Self::node_end_since`], from the end of this run on. What reaches a client late is of the run that sent it.
    pub(crate) fn node_end_from(&self, boot: usize) -> Option<NodeEnd> {
        self.boots.iter().skip(boot).filter_map(|boot| boot.end).map(|(end, _)| end).max()
    }

    /// What reached clients of a message in a queue.
    pub(crate) fn seen(&self, queue: QueueIndex, copy: Copy) -> impl Iterator<Item = &Delivery> {
        self.queue(queue).deliveries.get(&copy).into_iter().flatten().map(|id| self.delivery(*id))
    }

    /// A client has decided that the message is done with in this queue: it acked it, got it without ack, or discarded it.
    pub(crate) fn is_removed(&self, queue: QueueIndex, copy: Copy) -> bool {
        self.seen(queue, copy)
            .any(|delivery| delivery.no_ack || matches!(delivery.settled, Some((Settled::Ack | Settled::Discard, _))))
    }

    /// As [`Self::is_removed`], but where a discarded message is wanted elsewhere, somebody has to be done with it there.
    pub(crate) fn is_done(&self, queue: QueueIndex, publish: PublishId) -> bool {
        let copy = Copy::of(publish);
        if self.queue(queue).plan.dead_letters.is_none() {
            return self.is_removed(queue, copy);
        }
        let is_acked = |delivery: &Delivery| delivery.no_ack || matches!(delivery.settled, Some((Settled::Ack, _)));
        self.seen(queue, copy).any(is_acked) || self.is_removed(DEAD, Copy { died_in: Some(queue), ..copy })
    }

    /// As [`Self::is_removed`], and nothing can have brought it back. To be asked when all is quiet.
    pub(crate) fn is_surely_removed(&self, queue: QueueIndex, copy: Copy) -> bool {
        self.seen(queue, copy).last().is_some_and(|delivery| {
            let channel = self.channel(delivery.channel);
            let is_removed = match delivery.settled {
                None => delivery.no_ack,
                Some((Settled::Requeue, _)) => false,
                // All is quiet, so what was settled on a channel that lives has been processed.
                Some((_, step)) => channel.end.begun.is_none() || step < channel.processed,
            };
            is_removed && self.node_end_from(channel.boot).is_none_or(|end| end == NodeEnd::Stopped)
        })
    }

    /// Whether this is a dead letter that may have been doubled: a crash in the middle of a death does that rather than losing it.
    pub(crate) fn may_be_double(&self, delivery: &Delivery) -> bool {
        let end = self.node_end_since(self.publish(delivery.publish).at);
        delivery.death.is_some() && end.is_some_and(|end| end != NodeEnd::Stopped)
    }

    /// Whether the consumer may be one of a queue that has been deleted since: what it holds is of no queue any more.
    pub(crate) fn may_be_orphaned(&self, consumer: &Consumer) -> bool {
        let ends_it = |sweep: &Sweep| sweep.is_delete && sweep.done.is_none_or(|(done, _)| done >= consumer.at);
        self.queue(consumer.queue).sweeps.iter().any(ends_it)
    }

    /// Whether a client has this delivery and has not settled it.
    pub(crate) fn holds(&self, delivery: &Delivery) -> bool {
        let is_open = self.channel(delivery.channel).end.done.is_none();
        is_open && delivery.settled.is_none() && !delivery.no_ack
    }

    /// How long the message may wait in this queue, in milliseconds.
    pub(crate) fn ttl_ms(&self, queue: QueueIndex, publish: &Publish) -> Option<u64> {
        let limits = [self.queue(queue).plan.message_ttl_ms, publish.expiration_ms];
        limits.into_iter().flatten().min().map(u64::from)
    }

    /// Whether its time in this queue may be up.
    pub(crate) fn may_be_expired(&self, queue: QueueIndex, publish: &Publish) -> bool {
        self.ttl_ms(queue, publish).is_some_and(|ttl_ms| publish.at_ms + ttl_ms <= self.now_ms)
    }

    /// Whether it may have come back more often than the queue allows.
    fn may_be_exhausted(&self, queue: QueueIndex, id: PublishId) -> bool {
        let (publish, state) = (self.publish(id), self.queue(queue));
        let returns = || self.seen(queue, Copy::of(id)).count() as u32;
        let may_have_returned = |limit| returns() > limit || state.unseen.may_concern(publish.at);
        state.plan.delivery_limit.is_some_and(may_have_returned)
    }

    /// Whether it may have died in this queue without a client's doing.
    pub(crate) fn may_have_died(&self, queue: QueueIndex, id: PublishId) -> bool {
        let plan = &self.queue(queue).plan;
        plan.is_limited() || self.may_be_expired(queue, self.publish(id)) || self.may_be_exhausted(queue, id)
    }

    /// Whether the queue was purged or deleted since, or may have been.
    pub(crate) fn is_swept(&self, queue: QueueIndex, publish: &Publish) -> bool {
        self.queue(queue).sweeps.iter().any(|sweep| sweep.done.is_none_or(|(done, _)| done >= publish.at))
    }

    /// Why the message may not be in this queue although nobody is done with it there; nothing when it must be there, or, if it died, in
    /// the queue of the dead.
    pub(crate) fn excuse(&self, queue: QueueIndex, id: PublishId, is_certain: bool) -> Option<Excuse> {
        let (publish, plan) = (self.publish(id), &self.queue(queue).plan);
        let node_end = self.node_end_since(publish.at);
        let is_lasting = publish.is_persistent && plan.durable;
        let is_accepted = publish.answer == Some(Answer::Acked);
        let dies_for_good = plan.dead_letters.is_none();
        let may_be_gone = |queue: QueueIndex| self.queue(queue).unseen_no_ack.may_concern(publish.at);
        let transaction = publish.transaction.map(|id| self.transactions[id.0]);
        // A queue that refuses says so by a nack; who asked for no confirms is not told.
        let may_be_refused = plan.may_refuse() && !is_accepted && plan.overflow == Overflow::Reject;
        let may_be_dropped = plan.is_limited() && dies_for_good && !(plan.may_refuse() && is_accepted);
        match () {
            () if !is_certain => Some(Excuse::NoQueue),
            () if publish.answer == Some(Answer::Nacked) => Some(Excuse::Nacked),
            () if self.is_swept(queue, publish) => Some(Excuse::Swept),
            () if may_be_gone(queue) || !dies_for_good && may_be_gone(DEAD) => Some(Excuse::LostWithoutAck),
            () if matches!(transaction, Some(Transaction::Committing | Transaction::Refused)) => {
                Some(Excuse::Unanswered)
            }
            () if transaction.is_some() && !is_accepted => Some(Excuse::NotCommitted),
            () if dies_for_good && self.may_be_expired(queue, publish) => Some(Excuse::Expired),
            () if may_be_dropped || may_be_refused => Some(Excuse::Dropped),
            () if dies_for_good && self.may_be_exhausted(queue, id) => Some(Excuse::Exhausted),
            () if !is_accepted && node_end.is_some() => Some(Excuse::Unconfirmed),
            () if !is_accepted && !self.is_processed(publish.channel, publish.at) => Some(Excuse::Unanswered),
            () if !is_lasting && node_end.is_some() => Some(Excuse::Transient),
            () if plan.is_os && node_end == Some(NodeEnd::PowerCut) => Some(Excuse::Unsynced),
            () => None,
        }
    }

    // What follows changes facts; `history` says when.

    pub(crate) fn hold(&mut self, channel: ChannelId, queue: QueueIndex, no_ack: bool) {
        let channel = &mut self.channels[channel.0];
        if channel.end.done.is_none() && !channel.holds.contains(&(queue, no_ack)) {
            channel.holds.push((queue, no_ack));
            if channel.end.begun.is_some() {
                self.unseen(queue, no_ack).open += 1;
            }
        }
    }

    /// The end of a channel may have begun for the broker.
    pub(crate) fn begin_channel_end(&mut self, id: ChannelId) {
        let step = self.step;
        let channel = &mut self.channels[id.0];
        if channel.end.begun.is_some() {
            return;
        }
        channel.end.begun = Some(step);
        for (queue, no_ack) in channel.holds.clone() {
            self.unseen(queue, no_ack).open += 1;
        }
    }

    /// The channel did not end after all, unless its connection does.
    pub(crate) fn spare_channel(&mut self, id: ChannelId) {
        let channel = &mut self.channels[id.0];
        if channel.end.done.is_some() || self.connections[channel.connection.0].end.begun.is_some() {
            return;
        }
        if channel.end.begun.take().is_some() {
            for (queue, no_ack) in channel.holds.clone() {
                self.unseen(queue, no_ack).open -= 1;
            }
        }
    }

    /// Nothing more can come of a channel.
    pub(crate) fn finish_channel_end(&mut self, id: ChannelId) {
        self.begin_channel_end(id);
        let step = self.step;
        let channel = &mut self.channels[id.0];
        if channel.end.done.is_some() {
            return;
        }
        channel.end.done = Some(step);
        for (queue, no_ack) in std::mem::take(&mut channel.holds) {
            let unseen = self.unseen(queue, no_ack);
            unseen.open -= 1;
            unseen.last = Some(step);
        }
    }

    fn unseen(&mut self, queue: QueueIndex, no_ack: bool) -> &mut Unseen {
        let queue = &mut self.queues[queue.0];
        if no_ack { &mut queue.unseen_no_ack } else { &mut queue.unseen }
    }
}
