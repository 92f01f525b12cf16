//! Storage `memory`: keeps messages and metadata for as long as the broker runs, and says so.
//!
//! A message is kept once however many queues it goes to, and freed when the last of them has settled it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plugin_api::async_trait;
use plugin_api::error::Invalid;
use plugin_api::storage::{
    Append, Durability, Mark, MessageSeq, Meta, QueueKey, Recovered, RecoveredQueue, Settle, Storage, StorageError,
    StorageSpec, StorageType, StoredMessage, Wanted,
};

/// The kind of storage, as registered.
pub struct MemoryType;

impl StorageType for MemoryType {
    fn name(&self) -> &str {
        "memory"
    }

    fn description(&self) -> &str {
        "keeps messages as long as the broker runs"
    }

    fn open(&self, spec: &StorageSpec) -> Result<Arc<dyn Storage>, Invalid> {
        spec.config.expect_empty()?;
        Ok(Arc::new(Memory::default()))
    }
}

plugin_api::export_plugin!(storages: [MemoryType]);

/// One storage in memory.
#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<QueueKey, BTreeMap<MessageSeq, Arc<Kept>>>,
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The highest mark of each queue, until the queue is deleted.
    marks: BTreeMap<QueueKey, MessageSeq>,
}

/// A message without its positions.
struct Kept {
    stamp: u64,
    exchange: Box<str>,
    routing_key: Box<str>,
    properties: Box<[u8]>,
    body: Box<[u8]>,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        // No call leaves the maps half changed, so that a panic elsewhere does not matter.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Storage for Memory {
    async fn append(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        let kept: Vec<Arc<Kept>> = batch.iter().map(|message| Arc::new(Kept::new(message))).collect();
        let mut state = self.state();
        for (message, kept) in batch.iter().zip(&kept) {
            for (queue, seq) in message.targets {
                state.queues.entry(*queue).or_default().insert(*seq, Arc::clone(kept));
            }
        }
        Ok(())
    }

    async fn settle(&self, ranges: &[Settle]) -> Result<(), StorageError> {
        // Freed after the lock, since a range may hold millions.
        let mut freed = Vec::new();
        let mut state = self.state();
        for Settle { queue, first, last } in ranges {
            let Some(messages) = state.queues.get_mut(queue) else { continue };
            if first <= last {
                freed.extend(messages.extract_if(first..=last, |_, _| true).map(|(_, kept)| kept));
            }
            if messages.is_empty() {
                state.queues.remove(queue);
            }
        }
        drop(state);
        drop(freed);
        Ok(())
    }

    async fn delete_queue(&self, queue: QueueKey) -> Result<(), StorageError> {
        let freed = {
            let mut state = self.state();
            state.marks.remove(&queue);
            state.queues.remove(&queue)
        };
        drop(freed);
        Ok(())
    }

    async fn read(&self, wanted: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        let Wanted { queue, first, last, count_max, bytes_max } = wanted;
        let state = self.state();
        let Some(messages) = state.queues.get(&queue).filter(|_| first <= last) else { return Ok(Vec::new()) };
        let mut bytes_left = bytes_max;
        let mut found: Vec<StoredMessage> = Vec::new();
        for (seq, kept) in messages.range(first..=last).take(count_max) {
            match bytes_left.checked_sub(kept.bytes()) {
                Some(left) => bytes_left = left,
                None if found.is_empty() => bytes_left = 0,
                None => break,
            }
            found.push(kept.at(*seq));
        }
        Ok(found)
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), StorageError> {
        let mut state = self.state();
        for Mark { queue, last } in marks {
            let marked = state.marks.entry(*queue).or_insert(*last);
            *marked = (*marked).max(*last);
        }
        Ok(())
    }

    async fn put_meta(&self, entries: &[Meta<'_>]) -> Result<(), StorageError> {
        let mut state = self.state();
        for Meta { key, value } in entries {
            match value {
                Some(value) => state.meta.insert(key.to_vec(), value.to_vec()),
                None => state.meta.remove(*key),
            };
        }
        Ok(())
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        let state = self.state();
        Ok(Recovered {
            meta: state.meta.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            queues: state
                .queues
                .iter()
                .map(|(queue, messages)| {
                    let ranges = ranges(messages.keys().copied());
                    let last = ranges.last().map(|(_, last)| *last);
                    let marked = state.marks.get(queue).map(|mark| last.map_or(*mark, |last| last.min(*mark)));
                    RecoveredQueue { queue: *queue, ranges, marked }
                })
                .collect(),
        })
    }

    fn promise(&self) -> Durability {
        Durability::ProcessLifetime
    }
}

impl Kept {
    fn new(message: &Append<'_>) -> Self {
        Self {
            stamp: message.stamp,
            exchange: message.exchange.into(),
            routing_key: message.routing_key.into(),
            properties: message.properties.into(),
            body: message.body.into(),
        }
    }

    /// As [`StoredMessage::bytes`].
    const fn bytes(&self) -> usize {
        self.exchange.len() + self.routing_key.len() + self.properties.len() + self.body.len()
    }

    fn at(&self, seq: MessageSeq) -> StoredMessage {
        StoredMessage {
            seq,
            stamp: self.stamp,
            exchange: self.exchange.to_string(),
            routing_key: self.routing_key.to_string(),
            properties: self.properties.to_vec(),
            body: self.body.to_vec(),
        }
    }
}

/// Joins ascending positions into runs.
fn ranges(positions: impl Iterator<Item = MessageSeq>) -> Vec<(MessageSeq, MessageSeq)> {
    let mut ranges: Vec<(MessageSeq, MessageSeq)> = Vec::new();
    for seq in positions {
        match ranges.last_mut() {
            Some((_, last)) if last.0.checked_add(1) == Some(seq.0) => *last = seq,
            _ => ranges.push((seq, seq)),
        }
    }
    ranges
}
