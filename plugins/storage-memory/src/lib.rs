//! Storage `memory`: keeps messages and metadata for as long as the broker runs, and says so.
//!
//! A message is kept once however many queues it goes to, and freed when the last of them has settled it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plugin_api::async_trait;
use plugin_api::error::Invalid;
use plugin_api::storage::{
    Append, Durability, MessageSeq, QueueKey, Recovered, RecoveredQueue, Settle, Storage, StorageError, StorageSpec,
    StorageType, StoredMessage,
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
}

/// A message without its positions.
struct Kept {
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
        let freed = self.state().queues.remove(&queue);
        drop(freed);
        Ok(())
    }

    async fn read(
        &self,
        queue: QueueKey,
        from: MessageSeq,
        count_max: usize,
    ) -> Result<Vec<StoredMessage>, StorageError> {
        let state = self.state();
        let Some(messages) = state.queues.get(&queue) else { return Ok(Vec::new()) };
        let found = messages.range((Bound::Included(from), Bound::Unbounded)).take(count_max);
        Ok(found.map(|(seq, kept)| kept.at(*seq)).collect())
    }

    async fn put_meta(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), StorageError> {
        let mut state = self.state();
        match value {
            Some(value) => state.meta.insert(key.to_vec(), value.to_vec()),
            None => state.meta.remove(key),
        };
        Ok(())
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        let state = self.state();
        Ok(Recovered {
            meta: state.meta.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            queues: state
                .queues
                .iter()
                .map(|(queue, messages)| RecoveredQueue { queue: *queue, ranges: ranges(messages.keys().copied()) })
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
            exchange: message.exchange.into(),
            routing_key: message.routing_key.into(),
            properties: message.properties.into(),
            body: message.body.into(),
        }
    }

    fn at(&self, seq: MessageSeq) -> StoredMessage {
        StoredMessage {
            seq,
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
