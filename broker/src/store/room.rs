//! Storing messages also where room is scarce: what fits is stored in the order it came, and the rest waits.
//!
//! A message that does not fit holds back its own queue and no other. Nothing is dropped here, and nothing refused.

use std::time::Instant;

use plugin_api::storage::{Append as Record, QueueKey, Storage, StorageError};

use super::batch::{self, Pending};
use super::counters::Counters;

/// Queues whose next message is too large for the room that there is, while others find some.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    queues: Vec<QueueKey>,
    reason: String,
    /// So many retries do not concern them: a large message costs a lot to offer.
    waits: u32,
    /// How many times they were tried in vain.
    tries: u32,
}

impl HeldBack {
    /// Lets them be tried again, if it is time.
    pub(super) fn retry(&mut self) {
        match self.waits {
            0 => self.queues.clear(),
            _ => self.waits -= 1,
        }
    }

    /// Things have changed: all are tried again.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn hold(&mut self, queue: QueueKey, reason: &str) {
        if self.queues.is_empty() {
            self.waits = (1_u32 << self.tries.min(5)) - 1;
            self.tries += 1;
        }
        self.queues.push(queue);
        reason.clone_into(&mut self.reason);
    }

    /// The reason, if something of these is still held back.
    fn rest(&mut self, appends: &[Pending]) -> Option<String> {
        self.queues.retain(|queue| appends.iter().any(|(of, _)| of == queue));
        if self.queues.is_empty() {
            if self.waits == 0 {
                self.forget();
            }
            return None;
        }
        Some(self.reason.clone())
    }
}

/// Stores and confirms messages, those that need the sync and those that do not; the reason if there is no room for them.
///
/// When it is known that something finds no room, it is cautious: it tries small portions until it knows what.
pub(super) async fn append(
    storage: &dyn Storage,
    appends: &mut Vec<Pending>,
    held_back: &mut HeldBack,
    is_cautious: bool,
    counters: &Counters,
) -> Result<Option<String>, StorageError> {
    let mut full = None;
    // What does not wait for the disk does not wait for what does.
    for is_synced in [false, true] {
        let mut portion_bytes = if is_cautious { CAUTIOUS_BYTES } else { usize::MAX };
        let mut refusals = 0;
        loop {
            let is_mine =
                |(queue, append): &Pending| append.is_synced == is_synced && !held_back.queues.contains(queue);
            // Whole places of the list, never whole records: a record that several queues share would overtake what stands before
            // one of its places.
            let end = portion(appends, portion_bytes, is_mine);
            let mine = appends.iter().take(end).filter(|pending| is_mine(pending));
            let groups = batch::group(mine.clone());
            if groups.is_empty() {
                break;
            }
            let records: Vec<Record<'_>> = groups.iter().map(batch::record).collect();
            let start = Instant::now();
            let stored = match is_synced {
                true => storage.append(&records).await,
                false => storage.append_unsynced(&records).await,
            };
            let Some(reason) = or_full(stored)? else {
                counters.batch(mine.count(), start.elapsed());
                batch::answer(appends.extract_if(..end, |pending| is_mine(pending)), true);
                continue;
            };
            refusals += 1;
            if !is_cautious || refusals == REFUSALS_MAX {
                full = Some(reason);
                break;
            }
            let mut queues = mine.map(|(queue, _)| *queue);
            match (queues.next(), queues.next()) {
                (Some(queue), None) => {
                    held_back.hold(queue, &reason);
                    portion_bytes = CAUTIOUS_BYTES;
                }
                _ => portion_bytes = (portion_bytes / 8).max(1),
            }
        }
    }
    Ok(full.or_else(|| held_back.rest(appends)))
}

/// No room is no failure.
pub(super) fn or_full(stored: Result<(), StorageError>) -> Result<Option<String>, StorageError> {
    match stored {
        Ok(()) => Ok(None),
        Err(StorageError::Full(reason)) => Ok(Some(reason)),
        Err(error) => Err(error),
    }
}

/// How many places of the list make a portion of about so many bytes: at least one of those that count, or all.
fn portion(appends: &[Pending], bytes_max: usize, counts: impl Fn(&Pending) -> bool) -> usize {
    if bytes_max == usize::MAX {
        return appends.len();
    }
    let mut bytes = 0;
    let is_enough = |pending: &Pending| {
        bytes += if counts(pending) { pending.1.message.weight() } else { 0 };
        bytes >= bytes_max
    };
    appends.iter().position(is_enough).map_or(appends.len(), |last| last + 1)
}

/// What is worth a line of the log when something begins or ends to wait for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing persistent finds room.
    Full,
    /// One message finds none.
    TooLarge,
    /// There is room for all.
    Room,
    /// What waited was consumed, or its queue deleted.
    NothingWaits,
}

impl News {
    /// Of whether something waits now, and whether the storage says that it is full.
    pub(super) fn of(is_waiting: bool, is_full: bool) -> Self {
        match (is_waiting, is_full) {
            (true, true) => Self::Full,
            (true, false) => Self::TooLarge,
            (false, true) => Self::NothingWaits,
            (false, false) => Self::Room,
        }
    }
}

/// Where room is scarce, about so much is tried at a time: well below a segment, so that one that has been freed is enough.
const CAUTIOUS_BYTES: usize = 256 * 1024;
/// After so many refusals the disk is left alone until the next try.
const REFUSALS_MAX: usize = 8;
