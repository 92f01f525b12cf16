//! What an exchange counts.
//!
//! Several connections publish to one exchange, so these are shared atomics; each connection adds to them once a turn what it gathered
//! in between. How many messages went to each queue is counted by pair: what an exchange sent out is the sum of its pairs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::cells::shared;
use super::history::{BASIC, History, Rate};

/// The numbers of an exchange, in the order of its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ExchangeStat {
    /// Messages that publishers sent to it.
    PublishIn,
    /// Copies that it sent to queues.
    PublishOut,
    /// Publishes to it that were confirmed.
    Confirm,
    /// Messages that no queue took, returned.
    ReturnUnroutable,
    /// Messages that no queue took, dropped.
    DropUnroutable,
}

/// How many there are.
pub const EXCHANGE_STATS: usize = ExchangeStat::DropUnroutable as usize + 1;

/// Messages that went from one exchange to one queue.
#[derive(Debug, Default)]
pub struct Pair {
    count: AtomicU64,
    seen: AtomicU64,
    /// Messages in a thousand seconds.
    rate_milli: AtomicU64,
}

impl Pair {
    /// Adds what a connection gathered.
    #[inline]
    pub fn add(&self, count: u64) {
        shared(&self.count, count);
    }

    /// How many, and how many in a second at the last look.
    pub fn get(&self) -> (u64, Rate) {
        (self.count.load(Relaxed), self.rate_milli.load(Relaxed) as f64 / 1000.0)
    }

    fn look(&self, passed_ms: u64) {
        let count = self.count.load(Relaxed);
        let change = count.saturating_sub(self.seen.swap(count, Relaxed));
        let rate_milli = (change * 1_000_000).checked_div(passed_ms).unwrap_or(0);
        self.rate_milli.store(rate_milli, Relaxed);
    }
}

#[derive(Debug, Default)]
struct Pairs {
    by_queue: HashMap<u64, Arc<Pair>>,
    /// What went to queues that are gone.
    ended: u64,
    looked_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ExchangeStats {
    received: AtomicU64,
    confirmed: AtomicU64,
    returned: AtomicU64,
    dropped: AtomicU64,
    pairs: Mutex<Pairs>,
    /// Made with the first message.
    history: Mutex<Option<Box<History<EXCHANGE_STATS>>>>,
}

impl ExchangeStats {
    /// Publishers have sent so many messages.
    pub fn received(&self, count: u64) {
        shared(&self.received, count);
    }

    /// So many publishes were confirmed.
    pub fn confirmed(&self, count: u64) {
        shared(&self.confirmed, count);
    }

    /// No queue took a message; it went back, or nowhere.
    pub fn unroutable(&self, is_returned: bool) {
        shared(if is_returned { &self.returned } else { &self.dropped }, 1);
    }

    /// The counter of what goes to a queue, to be kept while the route is.
    pub fn pair(&self, queue: u64) -> Arc<Pair> {
        Arc::clone(self.pairs.lock().by_queue.entry(queue).or_default())
    }

    /// What went to each queue, by its number: how many, and how many in a second.
    pub fn to_queues(&self) -> Vec<(u64, u64, Rate)> {
        let pairs = self.pairs.lock();
        let each = pairs.by_queue.iter().map(|(&queue, pair)| (queue, pair.get()));
        each.map(|(queue, (count, rate))| (queue, count, rate)).collect()
    }

    /// What went to one queue.
    pub fn to_queue(&self, queue: u64) -> Option<(u64, Rate)> {
        self.pairs.lock().by_queue.get(&queue).map(|pair| pair.get())
    }

    /// All numbers, in the order of [`ExchangeStat`].
    pub fn row(&self) -> [u64; EXCHANGE_STATS] {
        let pairs = self.pairs.lock();
        let sent = pairs.ended + pairs.by_queue.values().map(|pair| pair.get().0).sum::<u64>();
        drop(pairs);
        let [received, confirmed, returned, dropped] =
            [&self.received, &self.confirmed, &self.returned, &self.dropped].map(|counter| counter.load(Relaxed));
        [received, sent, confirmed, returned, dropped]
    }

    /// Keeps what is seen now, and forgets queues that are gone.
    pub fn look(&self, now_ms: u64, is_there: impl Fn(u64) -> bool) {
        {
            let mut pairs = self.pairs.lock();
            let Pairs { by_queue, ended, looked_ms } = &mut *pairs;
            let passed_ms = now_ms.saturating_sub(std::mem::replace(looked_ms, now_ms));
            by_queue.retain(|&queue, pair| {
                pair.look(passed_ms);
                // Somebody who remembers a route to a queue that has ended may still hold its counter.
                let stays = is_there(queue) || Arc::strong_count(pair) > 1;
                *ended += if stays { 0 } else { pair.get().0 };
                stays
            });
        }
        let row = self.row();
        let mut history = self.history.lock();
        if history.is_some() || row.iter().any(|&value| value > 0) {
            history.get_or_insert_with(|| Box::new(History::new(BASIC))).push(now_ms, row);
        }
    }

    /// Asks its history, if it has one.
    pub fn history<R>(&self, ask: impl FnOnce(&History<EXCHANGE_STATS>) -> R) -> Option<R> {
        self.history.lock().as_ref().map(|history| ask(history))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_to_a_queue_that_is_gone_stays_in_the_sum() {
        let stats = ExchangeStats::default();
        stats.received(3);
        stats.pair(1).add(2);
        let held = stats.pair(2);
        held.add(5);
        stats.look(1000, |_| true);
        stats.look(2000, |queue| queue > 2);
        assert_eq!((stats.to_queue(1), stats.to_queue(2).map(|(count, _)| count)), (None, Some(5)));
        held.add(1);
        drop(held);
        stats.look(3000, |_| false);
        assert_eq!((stats.row(), stats.to_queues()), ([3, 8, 0, 0, 0], vec![]));
    }

    #[test]
    fn a_pair_knows_its_rate_at_the_last_look() {
        let stats = ExchangeStats::default();
        stats.look(5000, |_| true);
        stats.pair(1).add(50);
        stats.look(10_000, |_| true);
        assert_eq!(stats.to_queue(1), Some((50, 10.0)));
        stats.look(15_000, |_| true);
        assert_eq!(stats.to_queue(1), Some((50, 0.0)));
    }
}
