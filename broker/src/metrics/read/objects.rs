//! Queues, exchanges and vhosts.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::connections::idle_since;
use super::{MessageFacts, Number, Numbers, Reader};
use crate::metrics::exchanges::{EXCHANGE_STATS, ExchangeStat};
use crate::metrics::history::Rate;
use crate::metrics::node::{BYTES_AT, LENGTHS_AT};
use crate::metrics::stats::{STATS, Total};
use crate::queue::Report;
use crate::routing::Exchange;
use crate::vhost::{QueueRecord, Vhost};

/// A queue.
#[derive(Clone, Debug)]
pub struct QueueFacts {
    /// What it was declared with: name, durability, arguments.
    pub record: Arc<QueueRecord>,
    /// `classic` or `quorum`.
    pub kind: &'static str,
    /// Lengths, bytes, what is in memory and what lasts.
    pub report: Report,
    /// Messages, ready and unacked.
    pub lengths: Numbers<3>,
    /// What it counted; the keys are [`super::OF_QUEUE`].
    pub message_stats: MessageFacts,
    /// Share of the time in which messages could be handed out at once, 0 to 1: `consumer_utilisation` and `consumer_capacity`.
    pub utilisation: f64,
    /// The tag of the consumer that has it for itself.
    pub exclusive_consumer_tag: Option<Arc<str>>,
    /// The tag of the consumer that is served, where only one is.
    pub single_active_consumer_tag: Option<Arc<str>>,
    /// The number of the connection that owns it; [`Reader::connection_numbered`] knows more.
    pub owner: Option<u64>,
    /// The name of the policy that applies.
    pub policy: Option<String>,
    /// The name of the operator policy that applies.
    pub operator_policy: Option<String>,
    /// What both say together.
    pub effective_policy_definition: Map<String, Json>,
    /// Since when nobody has used it, in milliseconds since the epoch, if that is some time ago.
    pub idle_since_ms: Option<u64>,
}

impl QueueFacts {
    /// `running`, or `idle` when nobody has used it for some time.
    pub fn state(&self) -> &'static str {
        if self.idle_since_ms.is_some() { "idle" } else { "running" }
    }
}

/// What went from an exchange to a queue: `incoming` of a queue, `outgoing` of an exchange.
#[derive(Clone, Debug)]
pub struct IncomingFacts {
    /// From where.
    pub exchange: Arc<str>,
    /// To where.
    pub queue: Arc<str>,
    /// How many.
    pub publish: u64,
    /// How many in a second.
    pub rate: Rate,
}

/// An exchange.
#[derive(Clone, Debug)]
pub struct ExchangeFacts {
    /// What it was declared with.
    pub exchange: Arc<Exchange>,
    /// The name of the policy that applies.
    pub policy: Option<String>,
    stats: Numbers<EXCHANGE_STATS>,
}

impl ExchangeFacts {
    /// What it counted.
    pub fn get(&self, stat: ExchangeStat) -> Number<'_> {
        self.stats.get(stat as usize)
    }

    /// Whether anything was ever published to it.
    pub fn is_used(&self) -> bool {
        self.stats.values.iter().any(|&value| value > 0)
    }
}

/// A vhost.
#[derive(Clone, Debug)]
pub struct VhostFacts {
    /// Messages, ready and unacked, of all queues.
    pub lengths: Numbers<3>,
    /// What its connections counted.
    pub message_stats: MessageFacts,
    /// Bytes that its connections received and sent.
    pub bytes: Numbers<2>,
}

impl Reader<'_> {
    /// A queue; none for one that has just ended.
    pub fn queue(&self, record: &Arc<QueueRecord>) -> Option<QueueFacts> {
        let report = record.handle.report()?;
        let stats = record.handle.stats()?;
        let (ranges, now_ms) = (self.ranges, self.now_ms);
        let lengths = [report.ready + report.unacked, report.ready, report.unacked];
        let (lengths, message_stats, utilisation) = stats.history(|history| {
            (
                Numbers::of(lengths, &history.rows, STATS, ranges.lengths, now_ms),
                MessageFacts::of(report.stats, Some(&history.rows), ranges.msg_rates, now_ms),
                history.utilisation(&report),
            )
        });
        let consumers = if report.consumers > 0 { self.consumers_of(record.number) } else { &[] };
        let tag_of = |is_it: &dyn Fn(&super::ConsumerView) -> bool| {
            consumers.iter().find(|view| is_it(view)).map(|view| Arc::clone(&view.facts.tag))
        };
        let policy = record.policy.read();
        Some(QueueFacts {
            kind: if record.is_quorum() { "quorum" } else { "classic" },
            lengths,
            message_stats,
            utilisation,
            exclusive_consumer_tag: tag_of(&|view| view.facts.exclusive),
            single_active_consumer_tag: tag_of(&|view| {
                report.active_consumer.is_some_and(|active| {
                    active.connection == view.connection.number && active.source == view.facts.source
                })
            }),
            owner: record.owner,
            policy: policy.policy.as_ref().map(|policy| policy.spec().name.clone()),
            operator_policy: policy.operator.as_ref().map(|policy| policy.spec().name.clone()),
            effective_policy_definition: policy.effective(),
            idle_since_ms: idle_since(report.used_ms, self.now_ms),
            report,
            record: Arc::clone(record),
        })
    }

    /// Exchanges that sent messages to a queue.
    pub fn incoming(&self, vhost: &Vhost, queue: &QueueRecord) -> Vec<IncomingFacts> {
        let found = vhost.exchanges().into_iter().filter_map(|exchange| {
            let (publish, rate) = exchange.stats.to_queue(queue.number)?;
            Some(IncomingFacts { exchange: Arc::clone(&exchange.name), queue: Arc::clone(&queue.name), publish, rate })
        });
        found.filter(|facts| facts.publish > 0).collect()
    }

    /// Queues that an exchange sent messages to.
    pub fn outgoing(&self, vhost: &Vhost, exchange: &Exchange) -> Vec<IncomingFacts> {
        let names: hashbrown::HashMap<u64, Arc<str>> =
            vhost.queues().into_iter().map(|queue| (queue.number, Arc::clone(&queue.name))).collect();
        let found = exchange.stats.to_queues().into_iter().filter_map(|(queue, publish, rate)| {
            let queue = Arc::clone(names.get(&queue)?);
            Some(IncomingFacts { exchange: Arc::clone(&exchange.name), queue, publish, rate })
        });
        found.filter(|facts| facts.publish > 0).collect()
    }

    /// An exchange.
    pub fn exchange(&self, exchange: &Arc<Exchange>) -> ExchangeFacts {
        let row = exchange.stats.row();
        let stats = exchange
            .stats
            .history(|history| Numbers::of(row, history, 0, self.ranges.msg_rates, self.now_ms))
            .unwrap_or_else(|| Numbers::new(row));
        let policy = exchange.policy().policy.map(|policy| policy.spec().name.clone());
        ExchangeFacts { exchange: Arc::clone(exchange), policy, stats }
    }

    /// A vhost.
    pub fn vhost(&self, vhost: &Vhost) -> VhostFacts {
        let totals = self.sums().vhosts.get(&vhost.name).copied().unwrap_or_default();
        let lengths = lengths(vhost);
        let bytes = [Total::ReceivedBytes, Total::SentBytes].map(|total| totals.get(total));
        let (ranges, now_ms, stats) = (self.ranges, self.now_ms, totals.message_stats());
        let known = self.broker.metrics.vhost_history(&vhost.name, |history| VhostFacts {
            lengths: Numbers::of(lengths, history, LENGTHS_AT, ranges.lengths, now_ms),
            message_stats: MessageFacts::of(stats, Some(history), ranges.msg_rates, now_ms),
            bytes: Numbers::of(bytes, history, BYTES_AT, ranges.data_rates, now_ms),
        });
        known.unwrap_or_else(|| VhostFacts {
            lengths: Numbers::new(lengths),
            message_stats: MessageFacts(Numbers::new(stats.row())),
            bytes: Numbers::new(bytes),
        })
    }
}

/// Messages, ready and unacked, of all queues of a vhost.
fn lengths(vhost: &Vhost) -> [u64; 3] {
    let mut lengths = [0; 3];
    for report in vhost.queues().iter().filter_map(|queue| queue.handle.report()) {
        lengths[1] += report.ready;
        lengths[2] += report.unacked;
    }
    lengths[0] = lengths[1] + lengths[2];
    lengths
}
