//! What happens, in order: events change the facts, the oracles judge each, and the trace tells of it.

use crate::facts::{
    Answer, Boot, Channel, ChannelId, Connection, ConnectionId, Consumer, ConsumerId, Delivery, DeliveryId, End, Facts,
    NodeEnd, Publish, PublishId, Settled, Step, Sweep, Taker, Transaction, TransactionId,
};
use crate::oracle::{self, Oracle};
use crate::plan::{Plan, QueueIndex};
use crate::trace::Trace;

/// Something that happened, as a client or the simulator saw it.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    NodeStarted,
    NodeEnded(NodeEnd),
    /// The broker may notice from now on that this connection ends.
    ConnectionEnding(ConnectionId),
    /// The broker has noticed.
    ConnectionEnded(ConnectionId),
    /// The broker may end this channel from now on.
    ChannelEnding(ChannelId),
    ChannelEnded(ChannelId),
    /// A request was sent that the broker may refuse by closing the channel.
    ChannelAtRisk(ChannelId),
    /// It was not refused.
    ChannelSpared(ChannelId),
    /// The queue is there with its bindings, unless it was deleted after `since`, when the first of it was declared.
    QueueReady {
        queue: QueueIndex,
        since: Step,
    },
    Published(PublishId),
    /// A frame of the broker that settles publishes.
    ConfirmFrame {
        channel: ChannelId,
        tag: u64,
        multiple: bool,
        answer: Answer,
    },
    /// What it said about one publish, by a confirm or a commit.
    Answered(PublishId),
    /// How far a transaction is.
    Transaction {
        id: TransactionId,
        state: Transaction,
    },
    Returned(PublishId),
    /// The channel's limit for all its consumers is in force; 0 is none.
    GlobalLimit {
        channel: ChannelId,
        count: u16,
    },
    ConsumeSent(ConsumerId),
    ConsumeOk(ConsumerId),
    CancelSent(ConsumerId),
    Cancelled(ConsumerId),
    Delivered(DeliveryId),
    GotEmpty {
        channel: ChannelId,
        queue: QueueIndex,
    },
    Settled {
        deliveries: Vec<DeliveryId>,
        how: Settled,
    },
    /// What the client sent on this channel before `sent` has been processed.
    Processed {
        channel: ChannelId,
        sent: Step,
    },
    SweepSent {
        queue: QueueIndex,
        is_delete: bool,
    },
    SweepDone {
        queue: QueueIndex,
        is_delete: bool,
        count: u64,
    },
    /// Faults have stopped and nothing is on its way; nobody settles anything.
    Quiet,
    /// How the broker says a queue is while all is quiet.
    Status {
        queue: QueueIndex,
        ready: u64,
        consumers: u64,
    },
    /// From now on every queue has one consumer, its first, that acks everything.
    Draining,
    /// Every queue is empty and nobody has anything.
    Drained,
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    /// The file of the oracle.
    pub(crate) oracle: &'static str,
    pub(crate) text: String,
}

/// See the module.
pub(crate) struct History {
    pub(crate) facts: Facts,
    pub(crate) trace: Trace,
    oracles: Vec<Box<dyn Oracle>>,
    violation: Option<Violation>,
}

impl History {
    /// With all oracles, or one alone.
    pub(crate) fn new(plan: &Plan, trace: Trace, only: Option<&str>) -> Self {
        let mut oracles = oracle::all();
        oracles.retain(|oracle| only.is_none_or(|only| oracle.name() == only));
        Self { facts: Facts::new(plan), trace, oracles, violation: None }
    }

    /// The first promise that was broken.
    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Something is wrong.
    pub(crate) fn violate(&mut self, oracle: &'static str, text: String) {
        self.trace.line(self.facts.now_ms, "VIOLATION", || format!("{oracle}: {text}"));
        self.violation.get_or_insert(Violation { oracle, text });
    }

    /// Something has happened.
    pub(crate) fn note(&mut self, event: Event) {
        self.apply(&event);
        let facts = &self.facts;
        self.trace.event(facts, &event);
        let mut found = None;
        for oracle in &mut self.oracles {
            if let Err(text) = oracle.judge(facts, &event)
                && found.is_none()
            {
                found = Some((oracle.name(), text));
            }
        }
        if let Some((oracle, text)) = found {
            self.violate(oracle, text);
        }
    }

    pub(crate) fn connect(&mut self, client: usize) -> ConnectionId {
        self.facts.connections.push(Connection { client, channels: Vec::new(), end: End::default() });
        ConnectionId(self.facts.connections.len() - 1)
    }

    pub(crate) fn open_channel(&mut self, connection: ConnectionId, number: u16) -> ChannelId {
        let id = ChannelId(self.facts.channels.len());
        self.facts.channels.push(Channel {
            connection,
            boot: self.facts.boot(),
            number,
            end: End::default(),
            processed: 0,
            publish_count: 0,
            unknown: Vec::new(),
            unacked: Vec::new(),
            holds: Vec::new(),
        });
        let state = &mut self.facts.connections[connection.0];
        state.channels.push(id);
        if state.end.begun.is_some() {
            self.facts.begin_channel_end(id);
        }
        id
    }

    /// A publish is about to be sent.
    pub(crate) fn publish(&mut self, publish: Publish) -> PublishId {
        let id = PublishId(self.facts.publishes.len());
        let channel = &mut self.facts.channels[publish.channel.0];
        channel.publish_count += 1;
        channel.unknown.push(id);
        self.facts.publishes.push(publish);
        self.note(Event::Published(id));
        id
    }

    pub(crate) fn answer(&mut self, id: PublishId, answer: Answer) {
        let now_ms = self.facts.now_ms;
        let publish = &mut self.facts.publishes[id.0];
        publish.answer.get_or_insert(answer);
        publish.known_ms.get_or_insert(now_ms);
        self.note(Event::Answered(id));
    }

    /// The first transaction of a channel begins, or the next.
    pub(crate) fn begin_transaction(&mut self) -> TransactionId {
        self.facts.transactions.push(Transaction::Open);
        TransactionId(self.facts.transactions.len() - 1)
    }

    pub(crate) fn consume(&mut self, consumer: Consumer) -> ConsumerId {
        self.facts.hold(consumer.channel, consumer.queue, consumer.no_ack);
        self.facts.consumers.push(consumer);
        let id = ConsumerId(self.facts.consumers.len() - 1);
        self.note(Event::ConsumeSent(id));
        id
    }

    /// basic.get was sent.
    pub(crate) fn get(&mut self, channel: ChannelId, queue: QueueIndex, no_ack: bool) {
        self.facts.hold(channel, queue, no_ack);
    }

    /// A message has reached a client.
    pub(crate) fn deliver(&mut self, delivery: Delivery) -> DeliveryId {
        let id = DeliveryId(self.facts.deliveries.len());
        if !delivery.no_ack && matches!(delivery.taker, Taker::Consumer(_)) {
            self.facts.channels[delivery.channel.0].unacked.push(id);
        }
        self.facts.queues[delivery.queue.0].deliveries.entry(delivery.copy()).or_default().push(id);
        self.facts.deliveries.push(delivery);
        self.note(Event::Delivered(id));
        id
    }

    fn apply(&mut self, event: &Event) {
        let facts = &mut self.facts;
        let step = facts.step;
        match event {
            Event::NodeStarted => facts.boots.push(Boot { started: step, end: None }),
            Event::NodeEnded(end) => {
                if let Some(boot) = facts.boots.last_mut() {
                    boot.end = Some((*end, step));
                }
                for queue in &mut facts.queues {
                    queue.is_ready &= queue.plan.durable;
                    // What was asked of that run and not answered is done, or never will be.
                    for sweep in &mut queue.sweeps {
                        sweep.done.get_or_insert((step, u64::MAX));
                    }
                }
            }
            Event::ConnectionEnding(id) => {
                facts.connections[id.0].end.begun.get_or_insert(step);
                for channel in facts.connections[id.0].channels.clone() {
                    facts.begin_channel_end(channel);
                }
            }
            Event::ConnectionEnded(id) => {
                facts.connections[id.0].end.begun.get_or_insert(step);
                facts.connections[id.0].end.done.get_or_insert(step);
                for channel in facts.connections[id.0].channels.clone() {
                    facts.finish_channel_end(channel);
                }
            }
            Event::ChannelSpared(id) => facts.spare_channel(*id),
            Event::ChannelEnding(id) | Event::ChannelAtRisk(id) => facts.begin_channel_end(*id),
            Event::ChannelEnded(id) => facts.finish_channel_end(*id),
            Event::QueueReady { queue, since } => {
                let queue = &mut facts.queues[queue.0];
                let is_recent = |sweep: &Sweep| sweep.is_delete && sweep.done.is_none_or(|(done, _)| done >= *since);
                queue.is_ready |= !queue.sweeps.iter().any(is_recent);
            }
            Event::Transaction { id, state } => facts.transactions[id.0] = *state,
            Event::Returned(id) => facts.publishes[id.0].returned += 1,
            Event::ConsumeOk(id) => facts.consumers[id.0].is_registered = true,
            Event::CancelSent(id) => facts.consumers[id.0].cancel_sent = Some(step),
            Event::Cancelled(id) => facts.consumers[id.0].cancelled = Some(step),
            Event::Settled { deliveries, how } => {
                for id in deliveries {
                    let delivery = &mut facts.deliveries[id.0];
                    delivery.settled = Some((*how, step));
                    facts.channels[delivery.channel.0].unacked.retain(|unacked| unacked != id);
                }
            }
            Event::Processed { channel, sent } => {
                let channel = &mut facts.channels[channel.0];
                channel.processed = channel.processed.max(*sent);
                // What a transaction holds has no deadline yet.
                let (known, unknown) = channel.unknown.iter().partition(|id| {
                    let publish = &facts.publishes[id.0];
                    publish.transaction.is_none() && publish.at < *sent
                });
                channel.unknown = unknown;
                let known: Vec<PublishId> = known;
                for id in known {
                    facts.publishes[id.0].known_ms.get_or_insert(facts.now_ms);
                }
            }
            Event::SweepSent { queue, is_delete } => {
                let queue = &mut facts.queues[queue.0];
                queue.is_ready &= !is_delete;
                queue.sweeps.push(Sweep { is_delete: *is_delete, sent: step, done: None });
            }
            Event::SweepDone { queue, is_delete, count } => {
                let open = |sweep: &&mut Sweep| sweep.is_delete == *is_delete && sweep.done.is_none();
                if let Some(sweep) = facts.queues[queue.0].sweeps.iter_mut().find(open) {
                    sweep.done = Some((step, *count));
                }
            }
            Event::Status { queue, ready, .. } => facts.queues[queue.0].ready = *ready,
            Event::Published(_)
            | Event::ConfirmFrame { .. }
            | Event::Answered(_)
            | Event::GlobalLimit { .. }
            | Event::ConsumeSent(_)
            | Event::Delivered(_)
            | Event::GotEmpty { .. }
            | Event::Quiet
            | Event::Draining
            | Event::Drained => {}
        }
    }
}
