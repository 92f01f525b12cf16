//! The log behind the storage trait: a thread that writes, two that read, and futures that wait for them.
//!
//! Encoding happens on the caller's thread, all calls of the disk on ours. Whatever has come while a sync was under way is
//! written and synced together next; nothing waits on purpose.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use plugin_api::async_trait;
use plugin_api::storage::{
    Append, Durability, Mark, Meta, QueueKey, Recovered, Settle, Storage, StorageError, StorageStatus, StoredMessage,
    Wanted,
};

use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::record;
use crate::log::Log;
use crate::oneshot;
use crate::operation::{Commit, Operation};
use crate::options::Options;
use crate::shared::Shared;

/// A log with its threads. Dropping it writes a last checkpoint and waits for the threads.
pub struct LogStorage {
    shared: Arc<Shared>,
    /// `None` while dropping, which ends the threads.
    writes: Option<Sender<Write>>,
    reads: Option<Sender<Read>>,
    threads: Vec<JoinHandle<()>>,
    buffers: Arc<Buffers>,
}

struct Write {
    operation: Operation,
    answer: oneshot::Sender<Result<(), StorageError>>,
}

struct Read {
    wanted: Wanted,
    answer: oneshot::Sender<Result<Vec<StoredMessage>, StorageError>>,
}

impl LogStorage {
    /// Opens a folder and starts the threads.
    ///
    /// # Errors
    /// What speaks against the folder.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<Self, OpenError> {
        let log = Log::open(disk, options)?;
        let shared = Arc::clone(&log.shared);
        let buffers = Arc::new(Buffers::default());
        let (writes, written) = mpsc::channel();
        let (reads, wanted) = mpsc::channel();
        let wanted = Arc::new(Mutex::new(wanted));
        let mut storage = Self { shared, writes: Some(writes), reads: Some(reads), threads: Vec::new(), buffers };
        let pool = Arc::clone(&storage.buffers);
        storage.start("log-write", move || write_all(log, &written, &pool))?;
        for _ in 0..READERS {
            let (shared, wanted) = (Arc::clone(&storage.shared), Arc::clone(&wanted));
            storage.start("log-read", move || read_all(&shared, &wanted))?;
        }
        Ok(storage)
    }

    fn start(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let folder = self.shared.disk.title();
        self.threads.push(spawned.map_err(|error| OpenError::Io { folder, doing: "starting a thread", error })?);
        Ok(())
    }

    async fn write(&self, operation: Operation) -> Result<(), StorageError> {
        let (answer, receiver) = oneshot::channel();
        let sent = self.writes.as_ref().map(|writes| writes.send(Write { operation, answer }));
        match sent {
            Some(Ok(())) => receiver.await.unwrap_or_else(|| Err(ended())),
            _ => Err(ended()),
        }
    }

    /// Splits what would not fit into one frame; what was written of a refused batch is settled again.
    async fn append_all(&self, batch: &[Append<'_>], kept: Durability) -> Result<(), StorageError> {
        let mut done = 0;
        while let Some(rest) = batch.get(done..).filter(|rest| !rest.is_empty()) {
            let mut bytes = 0;
            let fits = |message: &&Append<'_>| {
                bytes += record::message_bytes(message);
                bytes <= PART_BYTES_MAX
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let part = rest.get(..count).unwrap_or(rest);
            let commit = Commit::encode(part, self.buffers.take());
            if let Err(error) = self.write(Operation::Append(commit, kept)).await {
                let written = batch.iter().take(done).flat_map(|message| message.targets);
                let ranges: Vec<Settle> =
                    written.map(|(queue, seq)| Settle { queue: *queue, first: *seq, last: *seq }).collect();
                if !ranges.is_empty() {
                    drop(self.write(Operation::Settle(ranges)).await);
                }
                return Err(error);
            }
            done += count;
        }
        Ok(())
    }
}

#[async_trait]
impl Storage for LogStorage {
    async fn append(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.append_all(batch, Durability::Synced).await
    }

    async fn append_unsynced(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.append_all(batch, Durability::Os).await
    }

    async fn settle(&self, ranges: &[Settle]) -> Result<(), StorageError> {
        self.write(Operation::Settle(ranges.to_vec())).await
    }

    async fn delete_queue(&self, queue: QueueKey) -> Result<(), StorageError> {
        self.write(Operation::Delete(queue)).await
    }

    async fn read(&self, wanted: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        let (answer, receiver) = oneshot::channel();
        let sent = self.reads.as_ref().map(|reads| reads.send(Read { wanted, answer }));
        match sent {
            Some(Ok(())) => receiver.await.unwrap_or_else(|| Err(ended())),
            _ => Err(ended()),
        }
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), StorageError> {
        self.write(Operation::Mark(marks.to_vec())).await
    }

    async fn put_meta(&self, entries: &[Meta<'_>]) -> Result<(), StorageError> {
        let mut rest = entries;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |entry: &&Meta<'_>| {
                bytes += entry.key.len() + entry.value.map_or(0, <[u8]>::len) + record::META_BYTES;
                bytes <= PART_BYTES_MAX
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (part, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            self.write(Operation::put_meta(part)).await?;
            rest = others;
        }
        Ok(())
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        Ok(self.shared.index().recovered())
    }

    fn promise(&self) -> Durability {
        Durability::Synced
    }

    fn status(&self) -> StorageStatus {
        let (file_bytes, live_bytes, live_count) = {
            let index = self.shared.index();
            (index.file_bytes(), index.live_bytes(), index.live_count())
        };
        StorageStatus {
            is_full: self.shared.is_full.load(std::sync::atomic::Ordering::Relaxed),
            file_bytes,
            live_bytes,
            live_count,
            damage: self.shared.damage().iter().map(ToString::to_string).collect(),
        }
    }
}

impl Drop for LogStorage {
    fn drop(&mut self) {
        self.writes = None;
        self.reads = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so in the log.
            drop(thread.join());
        }
    }
}

fn write_all(mut log: Log, writes: &Receiver<Write>, buffers: &Buffers) {
    loop {
        // A full disk may get room from others, about which nobody tells.
        let first = if log.shared.is_full.load(std::sync::atomic::Ordering::Relaxed) {
            match writes.recv_timeout(FULL_RETRY) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    // Its failure is kept and answered to the next commit.
                    drop(log.regain_room());
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        } else {
            match writes.recv() {
                Ok(first) => first,
                Err(_) => break,
            }
        };
        let mut operations = Vec::new();
        let mut answers = Vec::new();
        let mut bytes = 0;
        for write in std::iter::once(first).chain(std::iter::from_fn(|| writes.try_recv().ok())) {
            bytes += match &write.operation {
                Operation::Append(commit, _) => commit.payload_bytes(),
                Operation::Settle(_) | Operation::Delete(_) | Operation::Mark(_) | Operation::PutMeta(_) => 0,
            };
            operations.push(write.operation);
            answers.push(write.answer);
            if bytes >= GROUP_BYTES_MAX || operations.len() >= GROUP_COUNT_MAX {
                break;
            }
        }
        let (results, used) = log.commit_reusing(operations);
        answers.into_iter().zip(results).for_each(|(answer, result)| answer.send(result));
        used.into_iter().for_each(|buffer| buffers.give(buffer));
        // Its failure is kept and answered to the next commit.
        drop(log.maintain());
    }
    // The next start then has nothing to replay.
    drop(log.checkpoint());
}

fn read_all(shared: &Shared, reads: &Mutex<Receiver<Read>>) {
    loop {
        let next = reads.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Read { wanted, answer }) = next else { return };
        answer.send(shared.read(&wanted));
    }
}

fn ended() -> StorageError {
    StorageError::Failed("the log's thread has ended".to_owned())
}

/// Buffers of commits, used again: a fresh one of this size costs more page faults than the commit costs otherwise.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < BUFFERS_MAX && buffer.capacity() <= BUFFER_BYTES_MAX {
            buffers.push(buffer);
        }
    }
}

/// A frame is one read at recovery; larger batches are several frames.
pub(crate) const PART_BYTES_MAX: usize = 256 << 20;
const GROUP_BYTES_MAX: usize = 16 << 20;
const GROUP_COUNT_MAX: usize = 4096;
const BUFFERS_MAX: usize = 4;
const BUFFER_BYTES_MAX: usize = 4 << 20;
const READERS: usize = 2;
const FULL_RETRY: Duration = Duration::from_secs(1);
