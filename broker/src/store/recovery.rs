//! What the store knows when the broker starts: definitions, and which messages each queue has.
//!
//! Bodies are read of what exchanges have kept alone, which is little. Queues begin with their backlog in the store and fetch it when somebody
//! wants it, so a start takes as long with five million messages as with none.

use hashbrown::{HashMap, HashSet};
use plugin_api::storage::{MessageSeq, Meta, QueueKey, RecoveredQueue, Storage, StorageError, Wanted};

use super::definitions::{self, Definitions, Unreadable};
use super::{is_paged, level_of, number_of, stamp};
use crate::queue::{LoadedMessage, RestoredLevel};
use crate::vhost::held::history;

/// Everything that survived.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Definitions of vhosts, users and what is in them.
    pub definitions: Definitions,
    /// What each queue has left, and each exchange that keeps messages, by its number.
    pub backlogs: HashMap<u64, Backlog>,
    /// The first place for new messages: above every place that was ever used.
    pub first_seq: u64,
    /// The first number for new queues and exchanges: above all that are known, or that left anything.
    pub first_number: u64,
}

/// What an earlier run has left of a queue, or of an exchange that keeps messages.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    /// Messages that are in the store alone, by their levels.
    pub levels: Vec<RestoredLevel>,
    /// Messages that were read at once, by ascending place: what an exchange gets back.
    pub kept: Vec<LoadedMessage>,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The storage says so.
    #[error("the store cannot be recovered: {0}")]
    Storage(#[from] StorageError),
    /// Every start takes a share of the places for messages.
    #[error(
        "this data folder has been started {0} times, which is all that its format has numbers for: drain its queues and begin a new one"
    )]
    Worn(u64),
    /// A definition cannot be read.
    #[error(transparent)]
    Definition(#[from] Unreadable),
}

/// Each start gives its messages places of its own: the count of starts stands above so many bits, so no place is used twice however
/// many messages one run takes (17 trillion a queue).
const SEQ_BITS: u32 = 44;
/// The metadata entry that counts starts.
const BOOT_KEY: &[u8] = br#"["boot"]"#;

/// Reads everything, and counts the start.
///
/// # Errors
/// See [`RecoverError`]; nothing is changed then.
pub async fn recover(storage: &dyn Storage) -> Result<Recovery, RecoverError> {
    let recovered = storage.recover().await?;
    let definitions = definitions::read(&recovered.meta)?;
    let boots = recovered.meta.iter().find(|(key, _)| key == BOOT_KEY).and_then(|(_, value)| number(value));
    let boot = boots.unwrap_or(0) + 1;
    let vhosts = || definitions.vhosts.values();
    let exchanges: HashSet<u64> =
        vhosts().flat_map(|vhost| vhost.exchanges.iter().filter_map(|exchange| exchange.number)).collect();
    let queues = vhosts().flat_map(|vhost| vhost.queues.iter().map(|queue| queue.number));
    let known: HashSet<u64> = queues.chain(exchanges.iter().copied()).collect();
    let mut recovery = Recovery {
        first_seq: boot.checked_mul(1 << SEQ_BITS).ok_or(RecoverError::Worn(boot))?,
        first_number: known.iter().copied().max().unwrap_or(0) + 1,
        definitions,
        backlogs: HashMap::new(),
    };
    for RecoveredQueue { queue, ranges, marked } in recovered.queues {
        recovery.first_seq = recovery.first_seq.max(ranges.last().map_or(0, |(_, last)| last.0 + 1));
        recovery.first_number = recovery.first_number.max(number_of(queue) + 1);
        // Transient messages were there to be out of memory (semantics 27.2). A queue's definition goes last, so messages may be all
        // that is left of one that was being deleted.
        if is_paged(queue) || !known.contains(&number_of(queue)) {
            storage.delete_queue(queue).await?;
            continue;
        }
        let backlog = recovery.backlogs.entry(number_of(queue)).or_default();
        if exchanges.contains(&number_of(queue)) && level_of(queue) == history::LEVEL {
            for (first, last) in ranges {
                read_all(storage, queue, first, last, &mut backlog.kept).await?;
            }
            continue;
        }
        let level = RestoredLevel {
            level: level_of(queue),
            ranges: ranges.into_iter().map(|(first, last)| (first.0, last.0)).collect(),
            marked: marked.map_or(0, |seq| seq.0),
        };
        backlog.levels.push(level);
    }
    storage.put_meta(&[Meta { key: BOOT_KEY, value: Some(boot.to_string().as_bytes()) }]).await?;
    Ok(recovery)
}

/// Reads messages that are needed from the start.
async fn read_all(
    storage: &dyn Storage,
    queue: QueueKey,
    first: MessageSeq,
    last: MessageSeq,
    messages: &mut Vec<LoadedMessage>,
) -> Result<(), StorageError> {
    let mut from = first;
    while from <= last {
        let wanted = Wanted { queue, first: from, last, count_max: READ_COUNT_MAX, bytes_max: READ_BYTES_MAX };
        match storage.read(wanted).await {
            Ok(portion) => {
                let Some(end) = portion.last().map(|stored| stored.seq) else { return Ok(()) };
                from = MessageSeq(end.0 + 1);
                messages.extend(portion.iter().map(|stored| {
                    let (came_ms, message) = stamp::message(stored);
                    LoadedMessage { seq: stored.seq.0, came_ms, message }
                }));
            }
            // Told once; the next read goes on behind it.
            Err(StorageError::Damaged(damage)) => {
                tracing::error!(damage, "a message that an exchange has kept cannot be read; the rest is there");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One read gets so many messages at most, and about so many bytes.
const READ_COUNT_MAX: usize = 8192;
const READ_BYTES_MAX: usize = 1024 * 1024;

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::plugin_host::Registry;

    fn start(storage: &dyn Storage) -> Result<Recovery, RecoverError> {
        match pin!(recover(storage)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(recovery) => recovery,
            Poll::Pending => panic!("the storage in memory does not wait"),
        }
    }

    fn put(storage: &dyn Storage, boots: u64) {
        let value = boots.to_string();
        let entry = [Meta { key: BOOT_KEY, value: Some(value.as_bytes()) }];
        assert!(pin!(storage.put_meta(&entry)).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[test]
    fn every_start_has_places_of_its_own_until_there_are_none_left() {
        let storage = Registry::builtin().unwrap().storage("memory", &serde_json::Value::Null, None).unwrap();
        let first = start(&*storage).unwrap().first_seq;
        assert_eq!(start(&*storage).unwrap().first_seq, 2 * first);
        put(&*storage, (1 << 20) - 2);
        assert_eq!(start(&*storage).unwrap().first_seq, ((1 << 20) - 1) << SEQ_BITS);
        assert!(matches!(start(&*storage), Err(RecoverError::Worn(_))));
    }
}
