//! What the store knows when the broker starts: definitions, and the messages of each queue in order.
//!
//! Bodies of all messages are read into memory here; a queue that is longer than memory has no place yet.

use std::sync::Arc;

use hashbrown::HashMap;
use plugin_api::storage::{MessageSeq, Meta, RecoveredQueue, Storage, StorageError, Wanted};

use super::definitions::{self, Unreadable, VhostDefinitions};
use crate::message::{Message, Parts};

/// Everything that survived.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Definitions by vhost.
    pub vhosts: Vec<(String, VhostDefinitions)>,
    /// Messages by the number of their queue, each with its place, in order.
    pub messages: HashMap<u64, Vec<(u64, Arc<Message>)>>,
    /// The first place for new messages: above every place that was ever used.
    pub first_seq: u64,
    /// The first number for new queues and exchanges: above those of all recovered queues.
    pub first_number: u64,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The storage says so.
    #[error("the store cannot be recovered: {0}")]
    Storage(#[from] StorageError),
    /// A definition cannot be read.
    #[error(transparent)]
    Definition(#[from] Unreadable),
}

/// Each start gives its messages places of its own: the count of starts stands above so many bits, so no place is used twice however
/// many messages one run takes (17 trillion a queue).
const SEQ_BITS: u32 = 44;
/// Messages are read in portions of so many.
const READ_COUNT: usize = 1024;
const READ_BYTES: usize = 8 << 20;
/// The metadata entry that counts starts.
const BOOT_KEY: &[u8] = br#"["boot"]"#;

/// Reads everything, and counts the start.
///
/// # Errors
/// See [`RecoverError`]; nothing is changed then.
pub async fn recover(storage: &dyn Storage) -> Result<Recovery, RecoverError> {
    let recovered = storage.recover().await?;
    let vhosts = definitions::read(&recovered.meta)?;
    let boots = recovered.meta.iter().find(|(key, _)| key == BOOT_KEY).and_then(|(_, value)| number(value));
    let boot = boots.unwrap_or(0) + 1;
    let known: Vec<u64> = vhosts.iter().flat_map(|(_, vhost)| vhost.queues.iter().map(|queue| queue.number)).collect();
    let mut recovery = Recovery {
        first_seq: boot << SEQ_BITS,
        first_number: known.iter().copied().max().unwrap_or(0) + 1,
        vhosts,
        messages: HashMap::new(),
    };
    for queue in &recovered.queues {
        recovery.first_seq = recovery.first_seq.max(queue.ranges.last().map_or(0, |(_, last)| last.0 + 1));
        // A queue's definition goes last, so its messages may be all that is left of one that was being deleted.
        if !known.contains(&queue.queue.0) {
            storage.delete_queue(queue.queue).await?;
            continue;
        }
        let messages = read(storage, queue).await?;
        recovery.messages.insert(queue.queue.0, messages);
    }
    storage.put_meta(&[Meta { key: BOOT_KEY, value: Some(boot.to_string().as_bytes()) }]).await?;
    Ok(recovery)
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

async fn read(storage: &dyn Storage, queue: &RecoveredQueue) -> Result<Vec<(u64, Arc<Message>)>, StorageError> {
    let RecoveredQueue { queue: key, ranges, .. } = queue;
    let mut messages = Vec::new();
    let (Some((MessageSeq(first), _)), Some((_, MessageSeq(last)))) = (ranges.first(), ranges.last()) else {
        return Ok(messages);
    };
    let mut from = *first;
    while from <= *last {
        let (queue, first, last) = (*key, MessageSeq(from), MessageSeq(*last));
        let wanted = Wanted { queue, first, last, count_max: READ_COUNT, bytes_max: READ_BYTES };
        let portion = match storage.read(wanted).await {
            Ok(portion) => portion,
            // Told once; the next read goes on behind it. The rest of the queue is served.
            Err(StorageError::Damaged(text)) => {
                tracing::error!(queue = key.0, damage = text, "a stored message cannot be read");
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(end) = portion.last().map(|message| message.seq.0) else { break };
        messages.extend(portion.into_iter().map(|stored| {
            let parts =
                Parts { exchange: &stored.exchange, routing_key: &stored.routing_key, properties: &stored.properties };
            (stored.seq.0, Message::new(parts, &stored.body))
        }));
        from = end + 1;
    }
    Ok(messages)
}
