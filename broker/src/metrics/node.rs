//! What the node as a whole counts, and everything that is counted anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::cells::shared;
use super::connections::Connections;
use super::history::{GLOBAL, History};
use super::logins::Logins;
use super::stats::STATS;

/// Counters of a vhost or the node that have a history: [`Stat::ALL`](super::Stat::ALL), then messages, ready and unacked, then bytes received
/// and sent.
pub const SUMS: usize = STATS + 5;
/// Where lengths stand in such a row.
pub const LENGTHS_AT: usize = STATS;
/// Where bytes stand.
pub const BYTES_AT: usize = STATS + 3;

/// Of the node beside that: churn in the order of [`super::read::Churn`], then [`super::read::NodeGauge`].
pub const GAUGES: usize = 20;

/// Where messages went that died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Strategy {
    /// Nowhere.
    Disabled,
    /// To another exchange.
    AtMostOnce,
}

/// Messages that died, by the type of their queue, strategy and reason.
#[derive(Debug, Default)]
pub struct Deaths([[[AtomicU64; 4]; 2]; 2]);

impl Deaths {
    /// So many died of each reason, in the order of [`DeathReason`](crate::queue::DeathReason).
    pub fn add(&self, is_quorum: bool, strategy: Strategy, counts: [u32; 4]) {
        let counters = &self.0[usize::from(is_quorum)][strategy as usize];
        counters.iter().zip(counts).for_each(|(counter, count)| shared(counter, u64::from(count)));
    }

    /// Of a type of queue by its place in [`QUEUE_TYPES`](super::stats::QUEUE_TYPES).
    pub fn get(&self, queue_type: usize, strategy: Strategy) -> [u64; 4] {
        let counters = self.0.get(queue_type).map(|by_strategy| &by_strategy[strategy as usize]);
        counters.map(|counters| counters.each_ref().map(|counter| counter.load(Relaxed))).unwrap_or_default()
    }
}

/// Queues since the start.
#[derive(Debug, Default)]
pub struct QueueChurn {
    declared: AtomicU64,
    created: AtomicU64,
    deleted: AtomicU64,
}

impl QueueChurn {
    /// One was declared, whether it was there or not.
    pub fn declared(&self) {
        shared(&self.declared, 1);
    }

    /// One is new.
    pub fn created(&self) {
        shared(&self.created, 1);
    }

    /// One is gone.
    pub fn deleted(&self) {
        shared(&self.deleted, 1);
    }

    /// Declared, created and deleted.
    pub fn get(&self) -> [u64; 3] {
        [&self.declared, &self.created, &self.deleted].map(|counter| counter.load(Relaxed))
    }
}

/// Everything that is counted, beside what queues and exchanges count for themselves.
#[derive(Debug)]
pub struct Metrics {
    /// When the process began, in milliseconds since the epoch.
    pub started_ms: u64,
    /// Who is connected, and what all have counted.
    pub connections: Connections,
    /// Who tried to log in.
    pub logins: Logins,
    /// What died.
    pub deaths: Deaths,
    node: Mutex<History<SUMS>>,
    gauges: Mutex<History<GAUGES>>,
    vhosts: Mutex<HashMap<Arc<str>, History<SUMS>>>,
}

impl Metrics {
    /// Nothing was counted yet.
    pub fn new(started_ms: u64) -> Arc<Self> {
        Arc::new(Self {
            started_ms,
            connections: Connections::default(),
            logins: Logins::default(),
            deaths: Deaths::default(),
            node: Mutex::new(History::new(GLOBAL)),
            gauges: Mutex::new(History::new(GLOBAL)),
            vhosts: Mutex::default(),
        })
    }

    /// Keeps what is seen now of the node and of each vhost; vhosts that are not named are forgotten.
    pub fn look(&self, now_ms: u64, node: [u64; SUMS], gauges: [u64; GAUGES], vhosts: Vec<(Arc<str>, [u64; SUMS])>) {
        self.node.lock().push(now_ms, node);
        self.gauges.lock().push(now_ms, gauges);
        let mut histories = self.vhosts.lock();
        let mut known = std::mem::take(&mut *histories);
        for (name, row) in vhosts {
            let mut history = known.remove(&name).unwrap_or_else(|| History::new(GLOBAL));
            history.push(now_ms, row);
            histories.insert(name, history);
        }
    }

    /// Asks the history of the node's sums.
    pub fn node_history<R>(&self, ask: impl FnOnce(&History<SUMS>) -> R) -> R {
        ask(&self.node.lock())
    }

    /// Asks the history of the node's churn and gauges.
    pub fn gauge_history<R>(&self, ask: impl FnOnce(&History<GAUGES>) -> R) -> R {
        ask(&self.gauges.lock())
    }

    /// Asks the history of a vhost, if it has one.
    pub fn vhost_history<R>(&self, name: &str, ask: impl FnOnce(&History<SUMS>) -> R) -> Option<R> {
        self.vhosts.lock().get(name).map(ask)
    }
}
