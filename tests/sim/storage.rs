//! `storage-log` on the simulated disk, on the caller's thread and in virtual time.
//!
//! A call waits for a while before it does its work and for a while behind it, so that crashes find messages before and after they
//! are on the disk, with and without their confirms.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plugin_api::async_trait;
use plugin_api::storage::{
    Append, Durability, Mark, Meta, QueueKey, Recovered, Settle, Storage, StorageError, StorageStatus, StoredMessage,
    Wanted,
};
use plugin_api::testing::Random;
use storage_log::{Commit, Log, Operation};

/// How long calls take.
#[derive(Debug)]
pub(crate) struct Rhythm {
    random: Random,
    /// The longest wait, in milliseconds; 0 answers at once.
    wait_ms_max: u32,
}

impl Rhythm {
    pub(crate) fn new(random: Random) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { random, wait_ms_max: 0 }))
    }

    /// Sets how long calls take at most, in milliseconds.
    pub(crate) fn set(rhythm: &Mutex<Self>, wait_ms_max: u32) {
        rhythm.lock().unwrap_or_else(PoisonError::into_inner).wait_ms_max = wait_ms_max;
    }
}

/// See the module.
pub(crate) struct SimStorage {
    log: Mutex<Log>,
    rhythm: Arc<Mutex<Rhythm>>,
    /// What is waited for before an append is answered.
    durability: Durability,
    /// What the log does in the background has failed, which it says to whoever comes next.
    has_failed: AtomicBool,
}

impl SimStorage {
    pub(crate) fn new(log: Log, rhythm: Arc<Mutex<Rhythm>>, durability: Durability) -> Self {
        Self { log: Mutex::new(log), rhythm, durability, has_failed: AtomicBool::new(false) }
    }

    /// What the log does when the broker ends in order.
    pub(crate) fn close(&self) {
        // A checkpoint that fails is one that the next start does without.
        drop(self.log().checkpoint());
    }

    /// What the log's thread does once in a while on a full disk, about whose room nobody tells it.
    pub(crate) fn look_for_room(&self) {
        let mut log = self.log();
        if log.is_full() {
            // Its failure is kept and answered to the next commit.
            if log.regain_room().is_err() {
                self.has_failed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Whether the log has failed in the background.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    async fn pause(&self) {
        let wait_ms = {
            let mut rhythm = self.rhythm.lock().unwrap_or_else(PoisonError::into_inner);
            let wait_ms_max = rhythm.wait_ms_max;
            // Most calls are fast; some wait.
            if wait_ms_max == 0 || rhythm.random.below(3) > 0 { 0 } else { 1 + rhythm.random.below(wait_ms_max) }
        };
        if wait_ms > 0 {
            tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(u64::from(wait_ms))).await;
        }
    }

    async fn commit(&self, operation: Operation) -> Result<(), StorageError> {
        self.pause().await;
        let result = {
            let mut log = self.log();
            let result = log.commit(vec![operation]).pop().unwrap_or(Ok(()));
            // The real one does this on its thread when it has time; its failure is kept and answered to the next commit.
            if log.maintain().is_err() {
                self.has_failed.store(true, Ordering::Relaxed);
            }
            result
        };
        self.pause().await;
        result
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Storage for SimStorage {
    async fn append(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        let commit = Commit::new(batch);
        self.commit(Operation::Append(commit, self.durability)).await
    }

    async fn append_unsynced(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        let commit = Commit::new(batch);
        self.commit(Operation::Append(commit, Durability::Os)).await
    }

    async fn settle(&self, ranges: &[Settle]) -> Result<(), StorageError> {
        self.commit(Operation::Settle(ranges.to_vec())).await
    }

    async fn delete_queue(&self, queue: QueueKey) -> Result<(), StorageError> {
        self.commit(Operation::Delete(queue)).await
    }

    async fn read(&self, wanted: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        self.pause().await;
        let read = self.log().read(&wanted);
        self.pause().await;
        read
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), StorageError> {
        self.commit(Operation::Mark(marks.to_vec())).await
    }

    async fn put_meta(&self, entries: &[Meta<'_>]) -> Result<(), StorageError> {
        self.commit(Operation::put_meta(entries)).await
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        Ok(self.log().recovered())
    }

    fn promise(&self) -> Durability {
        Durability::Synced
    }

    fn status(&self) -> StorageStatus {
        StorageStatus { is_full: self.log().is_full(), ..StorageStatus::default() }
    }
}
