//! The log behind the storage trait: a [`Writer`], two threads that read, and futures that wait for them.
//!
//! What writes may block the thread that polls it for as long as the disk takes; what reads does not.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

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
use crate::writer::{Writer, ended};

/// A log with its threads. Dropping it writes a last checkpoint and waits for the threads.
pub struct LogStorage {
    shared: Arc<Shared>,
    writer: Writer,
    /// `None` while dropping, which ends the threads.
    reads: Option<Sender<Read>>,
    readers: Vec<JoinHandle<()>>,
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
        let folder = shared.disk.title();
        let failed = |error| OpenError::Io { folder: folder.clone(), doing: "starting a thread", error };
        let writer = Writer::start(log).map_err(failed)?;
        let (reads, wanted) = mpsc::channel();
        let wanted = Arc::new(Mutex::new(wanted));
        let mut storage = Self { shared, writer, reads: Some(reads), readers: Vec::new() };
        for _ in 0..READERS {
            let (shared, wanted) = (Arc::clone(&storage.shared), Arc::clone(&wanted));
            let run = move || read_all(&shared, &wanted);
            let reader = std::thread::Builder::new().name("log-read".to_owned()).spawn(run);
            storage.readers.push(reader.map_err(failed)?);
        }
        Ok(storage)
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
            let commit = Commit::encode(part, self.writer.buffer());
            if let Err(error) = self.writer.write(Operation::Append(commit, kept)).await {
                let written = batch.iter().take(done).flat_map(|message| message.targets);
                let ranges: Vec<Settle> =
                    written.map(|(queue, seq)| Settle { queue: *queue, first: *seq, last: *seq }).collect();
                if !ranges.is_empty() {
                    drop(self.writer.write(Operation::Settle(ranges)).await);
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
        self.writer.write(Operation::Settle(ranges.to_vec())).await
    }

    async fn delete_queue(&self, queue: QueueKey) -> Result<(), StorageError> {
        self.writer.write(Operation::Delete(queue)).await
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
        self.writer.write(Operation::Mark(marks.to_vec())).await
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
            self.writer.write(Operation::put_meta(part)).await?;
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
        let (file_bytes, live_bytes, live_count, segments) = {
            let index = self.shared.index();
            (index.file_bytes(), index.live_bytes(), index.live_count(), index.segments.len())
        };
        StorageStatus {
            is_full: self.shared.is_full.load(std::sync::atomic::Ordering::Relaxed),
            file_bytes,
            live_bytes,
            live_count,
            damage: self.shared.damage().iter().map(ToString::to_string).collect(),
            figures: self.shared.figures.all(segments),
        }
    }
}

impl Drop for LogStorage {
    fn drop(&mut self) {
        self.reads = None;
        for thread in self.readers.drain(..) {
            // A thread that panicked has said so in the log.
            drop(thread.join());
        }
    }
}

fn read_all(shared: &Shared, reads: &Mutex<Receiver<Read>>) {
    loop {
        let next = reads.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Read { wanted, answer }) = next else { return };
        let body_bytes =
            |read: &Result<Vec<StoredMessage>, StorageError>| read.iter().flatten().map(StoredMessage::bytes).sum();
        answer.send(shared.figures.reads.time(|| shared.read(&wanted), body_bytes));
    }
}

/// A frame is one read at recovery; larger batches are several frames.
pub(crate) const PART_BYTES_MAX: usize = 256 << 20;
const READERS: usize = 2;
