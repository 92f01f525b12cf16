//! Brings stored messages back into memory, for queues that ask.
//!
//! As many reads go side by side as [`Pager::run`] is running; the rest waits in line, so that ten thousand queues that wake up
//! together cost a few portions of memory and not ten thousand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use plugin_api::storage::{MessageSeq, Storage, StorageError, Wanted};
use tokio::sync::Notify;

use super::counters::Counters;
use super::{key, stamp};
use crate::metrics::cells::shared;
use crate::queue::{Handle, Input, Load, LoadedMessage, SeqRange};

/// A queue's wish.
#[derive(Debug)]
pub(super) struct Request {
    /// Who asks.
    pub(super) queue: Arc<dyn Handle>,
    /// Its number in the store.
    pub(super) number: u64,
    /// What it wants.
    pub(super) load: Load,
    /// Messages that are meant to be in the store and wait for room there.
    pub(super) waiting: BTreeMap<u64, LoadedMessage>,
}

/// See the module.
pub(super) struct Pager {
    storage: Arc<dyn Storage>,
    counters: Arc<Counters>,
    requests: Mutex<VecDeque<Request>>,
    wake: Notify,
}

/// One read gets so many messages at most.
const READ_COUNT_MAX: usize = 8192;

impl Pager {
    pub(super) fn new(storage: Arc<dyn Storage>, counters: Arc<Counters>) -> Self {
        Self { storage, counters, requests: Mutex::default(), wake: Notify::new() }
    }

    pub(super) fn ask(&self, request: Request) {
        self.requests.lock().push_back(request);
        self.wake.notify_one();
    }

    /// Whether nothing waits in line.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.lock().is_empty()
    }

    /// Answers requests one after the other. Ends when the storage has failed.
    pub(super) async fn run(&self) -> StorageError {
        loop {
            let request = self.requests.lock().pop_front();
            let Some(request) = request else {
                self.wake.notified().await;
                continue;
            };
            if let Err(error) = self.answer(request).await {
                return error;
            }
        }
    }

    async fn answer(&self, request: Request) -> Result<(), StorageError> {
        let Request { queue, number, load, mut waiting } = request;
        let mut messages: Vec<LoadedMessage> = Vec::new();
        let mut bytes_left = load.bytes_max;
        let mut through = 0;
        for &range in &load.ranges {
            let end = self.read(number, range, &mut bytes_left, &mut messages).await?;
            through = end;
            if end < range.last || bytes_left == 0 {
                break;
            }
        }
        waiting.retain(|&seq, _| seq <= through);
        if !waiting.is_empty() {
            // What was stored meanwhile is the same message.
            waiting.extend(messages.into_iter().map(|loaded| (loaded.seq, loaded)));
            messages = waiting.into_values().collect();
        }
        shared(&self.counters.loaded, messages.len() as u64);
        queue.post(Input::Loaded { id: load.id, through, messages });
        Ok(())
    }

    /// Reads a range until it or the bytes are at their end; returns the last place that is done with.
    async fn read(
        &self,
        number: u64,
        range: SeqRange,
        bytes_left: &mut usize,
        messages: &mut Vec<LoadedMessage>,
    ) -> Result<u64, StorageError> {
        let mut from = range.first;
        while from <= range.last {
            let wanted = Wanted {
                queue: key(number, range.level, range.stored),
                first: MessageSeq(from),
                last: MessageSeq(range.last),
                count_max: READ_COUNT_MAX,
                bytes_max: *bytes_left,
            };
            let portion = match self.storage.read(wanted).await {
                Ok(portion) => portion,
                // Told once; the next read goes on behind it. The rest of the queue is served.
                Err(StorageError::Damaged(damage)) => {
                    tracing::error!(queue = number, damage, "a stored message cannot be read; the rest is served");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(last) = portion.last() else { return Ok(range.last) };
            from = last.seq.0 + 1;
            for stored in portion {
                let (came_ms, message) = stamp::message(&stored);
                *bytes_left = bytes_left.saturating_sub(message.weight());
                messages.push(LoadedMessage { seq: stored.seq.0, came_ms, message });
            }
            if *bytes_left == 0 {
                break;
            }
        }
        Ok(from - 1)
    }
}
