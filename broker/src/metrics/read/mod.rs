//! What people and tools may read: facts and numbers of every object, as plain values.
//!
//! A [`Reader`] answers one request. It asks queues how they are without waiting for them and sums up what connections have counted, so
//! what it says of different objects is of slightly different moments. It knows no JSON, no permissions and no order of lists: those
//! are the business of whoever answers the client.

mod connections;
mod node;
mod objects;
mod sums;

use std::cell::OnceCell;
use std::sync::Arc;

use hashbrown::HashMap;

pub use self::connections::{
    ChannelFacts, ConnectionFacts, ConnectionState, ConsumerView, FromQueueFacts, ToExchangeFacts,
};
pub(crate) use self::node::gauges;
pub use self::node::{Churn, NodeFacts, NodeGauge, ObjectTotals, OverviewFacts};
pub use self::objects::{ExchangeFacts, IncomingFacts, QueueFacts, VhostFacts};
pub use self::sums::{ChannelSums, QueueSums};
use super::connections::{ConnectionStats, Sums};
use super::history::{History, Range, Rate, Sampled};
use super::stats::{MessageStats, STATS, Stat};
use crate::runtime::Broker;

/// Samples that the client asked for beside rates, by what they are of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ranges {
    /// Lengths of queues: `lengths_age` and `lengths_incr`.
    pub lengths: Option<Range>,
    /// Messages: `msg_rates_age` and `msg_rates_incr`.
    pub msg_rates: Option<Range>,
    /// Bytes: `data_rates_age` and `data_rates_incr`.
    pub data_rates: Option<Range>,
    /// The node: `node_stats_age` and `node_stats_incr`.
    pub node_stats: Option<Range>,
}

/// Numbers with their change in a second, and with samples where they were asked for.
#[derive(Clone, Debug)]
pub struct Numbers<const N: usize> {
    /// As they are now.
    pub values: [u64; N],
    /// Change in a second at the last look.
    pub rates: [Rate; N],
    /// Over the range that was asked for.
    pub sampled: Option<Box<[Sampled; N]>>,
}

impl<const N: usize> Numbers<N> {
    fn new(values: [u64; N]) -> Self {
        Self { values, rates: [0.0; N], sampled: None }
    }

    /// A part of a row of a history, from `from` on, with the values of now.
    fn of<const M: usize>(
        values: [u64; N],
        history: &History<M>,
        from: usize,
        range: Option<Range>,
        now_ms: u64,
    ) -> Self {
        let rates = history.rates(now_ms);
        let rates = std::array::from_fn(|at| rates.get(from + at).copied().unwrap_or(0.0));
        let sampled = range.map(|range| {
            let mut all = history.sampled(range, now_ms);
            Box::new(std::array::from_fn(|at| all.get_mut(from + at).map(std::mem::take).unwrap_or_default()))
        });
        Self { values, rates, sampled }
    }

    /// One of them.
    pub fn get(&self, at: usize) -> Number<'_> {
        Number {
            value: self.values.get(at).copied().unwrap_or(0),
            rate: self.rates.get(at).copied().unwrap_or(0.0),
            sampled: self.sampled.as_ref().and_then(|sampled| sampled.get(at)),
        }
    }
}

/// Numbers of several objects together, each with what is known of it over time.
#[derive(Clone, Debug)]
pub struct Together<const N: usize>(Numbers<N>);

impl<const N: usize> Default for Together<N> {
    fn default() -> Self {
        Self(Numbers::new([0; N]))
    }
}

impl<const N: usize> Together<N> {
    /// With those of one more.
    pub fn add(&mut self, other: &Numbers<N>) {
        let this = &mut self.0;
        this.values.iter_mut().zip(other.values).for_each(|(sum, value)| *sum += value);
        this.rates.iter_mut().zip(other.rates).for_each(|(sum, rate)| *sum += rate);
        match (&mut this.sampled, &other.sampled) {
            (Some(sums), Some(others)) => sums.iter_mut().zip(&**others).for_each(|(sum, other)| sum.add(other)),
            (sums @ None, Some(others)) => *sums = Some(others.clone()),
            (_, None) => {}
        }
    }

    /// The sums.
    pub fn sums(self) -> Numbers<N> {
        self.0
    }
}

/// One number with what is known of it over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number<'a> {
    /// As it is now.
    pub value: u64,
    /// Change in a second at the last look.
    pub rate: Rate,
    /// Over the range that was asked for.
    pub sampled: Option<&'a Sampled>,
}

/// `message_stats`.
#[derive(Clone, Debug)]
pub struct MessageFacts(pub Numbers<STATS>);

impl MessageFacts {
    fn of<const M: usize>(
        stats: MessageStats,
        history: Option<&History<M>>,
        range: Option<Range>,
        now_ms: u64,
    ) -> Self {
        let row = stats.row();
        Self(history.map_or_else(|| Numbers::new(row), |history| Numbers::of(row, history, 0, range, now_ms)))
    }

    /// One of them.
    pub fn get(&self, stat: Stat) -> Number<'_> {
        self.0.get(stat as usize)
    }

    /// Whether nothing was ever counted.
    pub fn is_empty(&self) -> bool {
        self.0.values.iter().all(|&value| value == 0)
    }
}

/// The keys of `message_stats` for a queue.
pub const OF_QUEUE: [Stat; 9] = [
    Stat::Publish,
    Stat::Deliver,
    Stat::DeliverNoAck,
    Stat::DeliverGet,
    Stat::Get,
    Stat::GetNoAck,
    Stat::GetEmpty,
    Stat::Ack,
    Stat::Redeliver,
];

/// Answers one request, see the module.
#[derive(Debug)]
pub struct Reader<'a> {
    broker: &'a Broker,
    now_ms: u64,
    ranges: Ranges,
    live: OnceCell<Vec<Arc<ConnectionStats>>>,
    by_queue: OnceCell<HashMap<u64, Vec<ConsumerView>>>,
    sums: OnceCell<Sums>,
}

impl<'a> Reader<'a> {
    /// Reads now.
    pub fn new(broker: &'a Broker, ranges: Ranges) -> Self {
        let now_ms = broker.clock.wall_ms();
        let (live, by_queue, sums) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { broker, now_ms, ranges, live, by_queue, sums }
    }

    /// The time of the answer, in milliseconds since the epoch.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The broker that it reads.
    pub(crate) fn broker(&self) -> &'a Broker {
        self.broker
    }

    pub(crate) fn live(&self) -> &[Arc<ConnectionStats>] {
        self.live.get_or_init(|| self.broker.metrics.connections.list())
    }

    /// What all connections together have counted, of the node and of each vhost.
    pub fn sums(&self) -> &Sums {
        self.sums.get_or_init(|| self.broker.metrics.connections.sums())
    }
}
