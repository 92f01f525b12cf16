//! What the store knows when the broker starts: definitions, and which messages each queue has.
//!
//! No body is read here. Queues begin with their backlog in the store and fetch it when somebody wants it, so a start takes as long
//! with five million messages as with none.

use hashbrown::{HashMap, HashSet};
use plugin_api::storage::{Meta, RecoveredQueue, Storage, StorageError};

use super::definitions::{self, Definitions, Unreadable, VhostDefinitions};
use super::{is_paged, level_of, number_of};
use crate::queue::{Restored, RestoredLevel};

/// Everything that survived.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Definitions of vhosts, users and what is in them.
    pub definitions: Definitions,
    /// What each queue has left, and each exchange that keeps messages, by its number. `first_seq` is not filled in.
    pub backlogs: HashMap<u64, Restored>,
    /// The first place for new messages: above every place that was ever used.
    pub first_seq: u64,
    /// The first number for new queues and exchanges: above all that are known, or that left anything.
    pub first_number: u64,
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
    let numbers = |vhost: &VhostDefinitions| {
        let queues = vhost.queues.iter().map(|queue| queue.number);
        queues.chain(vhost.exchanges.iter().filter_map(|exchange| exchange.number)).collect::<Vec<u64>>()
    };
    let known: HashSet<u64> = definitions.vhosts.values().flat_map(numbers).collect();
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
        let level = RestoredLevel {
            level: level_of(queue),
            ranges: ranges.into_iter().map(|(first, last)| (first.0, last.0)).collect(),
            marked: marked.map_or(0, |seq| seq.0),
        };
        recovery.backlogs.entry(number_of(queue)).or_default().levels.push(level);
    }
    storage.put_meta(&[Meta { key: BOOT_KEY, value: Some(boot.to_string().as_bytes()) }]).await?;
    Ok(recovery)
}

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
