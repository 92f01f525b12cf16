//! Messages on their way to one queue, and how many of them each exchange has sent.

use std::sync::Arc;

use super::super::QueueRecord;
use crate::metrics::exchanges::Pair;
use crate::queue::{Burst, Incoming};
use crate::routing::Exchange;

/// A queue's batch remembers so many exchanges.
const BATCH_SOURCES_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) queue: Arc<QueueRecord>,
    pub(super) messages: Burst<Incoming>,
    /// Where its messages come from; the last one first looked at.
    sources: Vec<BatchSource>,
    last_source: usize,
}

/// An exchange that sends messages to a queue.
#[derive(Debug)]
struct BatchSource {
    exchange: u64,
    pair: Arc<Pair>,
    /// Not added to the pair yet.
    count: u64,
}

impl Batch {
    pub(super) fn new(queue: Arc<QueueRecord>) -> Self {
        Self { queue, messages: Burst::new(), sources: Vec::new(), last_source: 0 }
    }

    /// A message comes from this exchange.
    #[inline]
    fn count(&mut self, exchange: &Exchange) {
        match self.sources.get_mut(self.last_source) {
            Some(source) if source.exchange == exchange.number => source.count += 1,
            _ => self.count_other(exchange),
        }
    }

    fn count_other(&mut self, exchange: &Exchange) {
        let known = self.sources.iter().position(|source| source.exchange == exchange.number);
        self.last_source = known.unwrap_or_else(|| {
            if self.sources.len() >= BATCH_SOURCES_MAX {
                self.spend();
                self.sources.clear();
            }
            let pair = exchange.stats.pair(self.queue.number);
            self.sources.push(BatchSource { exchange: exchange.number, pair, count: 0 });
            self.sources.len() - 1
        });
        if let Some(source) = self.sources.get_mut(self.last_source) {
            source.count += 1;
        }
    }

    pub(super) fn spend(&mut self) {
        for source in &mut self.sources {
            source.pair.add(std::mem::take(&mut source.count));
        }
    }
}

#[inline]
pub(super) fn put_one(
    batches: &mut [Batch],
    filled: &mut Vec<usize>,
    place: usize,
    exchange: &Exchange,
    incoming: Incoming,
) {
    let batch = &mut batches[place];
    if batch.messages.is_empty() {
        filled.push(place);
    }
    batch.count(exchange);
    batch.messages.push(incoming);
}
