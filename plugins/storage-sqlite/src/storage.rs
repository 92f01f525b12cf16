//! The database behind the storage trait: one [`Writer`], a few connections that read, and futures that wait for them.
//!
//! What writes does so within a poll and may block for as long as the disk takes, which the trait allows; what reads does not
//! block, and waits for nobody who writes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use plugin_api::async_trait;
use plugin_api::blocking::Threads;
use plugin_api::storage::{
    Append, Durability, Mark, Meta, QueueKey, Recovered, Settle, Storage, StorageError, StorageStatus, StoredMessage,
    Wanted,
};
use rusqlite::Connection;

use crate::database::{self, FILE};
use crate::error::OpenError;
use crate::figures::Figures;
use crate::options::Options;
use crate::read::{self, Damage};
use crate::room::Room;
use crate::writer::{Writer, failed_before};

/// A database with its threads. Dropping it carries SQLite's log over and waits for the threads.
pub struct SqliteStorage {
    /// Before what they use, so that they end first.
    reads: Threads,
    /// Gives room back to the disk, in between.
    tidy: Threads,
    is_ending: Arc<AtomicBool>,
    writer: Arc<Mutex<Writer>>,
    shared: Arc<Shared>,
    folder: PathBuf,
    _lock: File,
}

/// What those who read and who write have in common.
pub(crate) struct Shared {
    pub(crate) damage: Damage,
    pub(crate) figures: Figures,
    pub(crate) room: Room,
    /// As many as there are threads.
    readers: Mutex<Vec<Connection>>,
}

impl SqliteStorage {
    /// Opens the database of a folder.
    pub(crate) fn open(folder: &Path, options: Options) -> Result<Self, OpenError> {
        let lock = lock(folder)?;
        let room = Room::new(folder, options.wal_bytes);
        let connection = match database::open_writer(folder, &options) {
            // Even a start needs a little room.
            Err(OpenError::Disk(_)) if room.release() => database::open_writer(folder, &options)?,
            opened => opened?,
        };
        let shared = Arc::new(Shared {
            damage: Damage::default(),
            figures: Figures::default(),
            room,
            readers: Mutex::default(),
        });
        let writer = Writer::new(connection, Arc::clone(&shared), options)?;
        let disk = |text: String| OpenError::Disk(format!("opening '{}' failed: {text}", folder.display()));
        for _ in 0..READERS {
            let reader = database::open_reader(folder).map_err(|error| disk(error.to_string()))?;
            shared.readers().push(reader);
        }
        let reads = Threads::start("sqlite-read", READERS, usize::MAX).map_err(|error| disk(error.to_string()))?;
        let tidy = Threads::start("sqlite-tidy", 1, 1).map_err(|error| disk(error.to_string()))?;
        let (is_ending, writer) = (Arc::default(), Arc::new(Mutex::new(writer)));
        Ok(Self { reads, tidy, is_ending, writer, shared, folder: folder.to_path_buf(), _lock: lock })
    }

    /// A panic with the writer leaves nobody knowing what state it is in.
    fn write<T>(&self, work: impl FnOnce(&mut Writer) -> Result<T, StorageError>) -> Result<T, StorageError> {
        self.writer.lock().map_or_else(|_| Err(failed_before("a panic while writing")), |mut writer| work(&mut writer))
    }
}

impl SqliteStorage {
    /// After something was forgotten.
    fn forgotten(&self, done: Result<bool, StorageError>) -> Result<(), StorageError> {
        if done? {
            let (writer, is_ending) = (Arc::clone(&self.writer), Arc::clone(&self.is_ending));
            let step = move || writer.lock().is_ok_and(|mut writer| writer.give_back());
            // One that is refused finds another in the queue.
            drop(self.tidy.run(move || while !is_ending.load(Ordering::Relaxed) && step() {}));
        }
        Ok(())
    }
}

impl Drop for SqliteStorage {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, wanted: &Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        let start = Instant::now();
        let Some(mut reader) = self.readers().pop() else {
            return Err(StorageError::Failed("a panic while reading took a connection".to_owned()));
        };
        let read = read::read(&mut reader, &self.damage, wanted);
        self.readers().push(reader);
        self.figures.reads.done(start, read.iter().flatten().map(StoredMessage::bytes).sum());
        read
    }
}

#[async_trait]
impl Storage for SqliteStorage {
    async fn append(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.write(|writer| writer.append(batch, Durability::Synced))
    }

    async fn append_unsynced(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.write(|writer| writer.append(batch, Durability::Os))
    }

    async fn settle(&self, ranges: &[Settle]) -> Result<(), StorageError> {
        self.forgotten(self.write(|writer| writer.settle(ranges).map(|()| writer.has_much_to_spare())))
    }

    async fn delete_queue(&self, queue: QueueKey) -> Result<(), StorageError> {
        self.forgotten(self.write(|writer| writer.delete_queue(queue).map(|()| writer.has_much_to_spare())))
    }

    async fn read(&self, wanted: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        let shared = Arc::clone(&self.shared);
        let read = self.reads.run(move || shared.read(&wanted)).await;
        read.unwrap_or_else(|error| Err(StorageError::Failed(format!("reading messages failed: {error}"))))
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), StorageError> {
        self.write(|writer| writer.mark(marks))
    }

    async fn put_meta(&self, entries: &[Meta<'_>]) -> Result<(), StorageError> {
        self.write(|writer| writer.put_meta(entries))
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        self.write(Writer::recover)
    }

    fn promise(&self) -> Durability {
        Durability::Synced
    }

    fn status(&self) -> StorageStatus {
        let length = |name: &str| self.folder.join(name).metadata().map_or(0, |found| found.len());
        let (live_count, live_bytes) = self.shared.figures.live();
        StorageStatus {
            is_full: self.shared.room.is_full(),
            file_bytes: length(FILE) + length(&format!("{FILE}-wal")),
            live_bytes,
            live_count,
            damage: self.shared.damage.sentences(),
            figures: self.shared.figures.all(),
        }
    }
}

/// Keeps other brokers out. SQLite would let them in, and each would serve the other's messages.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let disk = |error: std::io::Error| OpenError::Disk(format!("locking '{}' failed: {error}", path.display()));
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(disk)?;
    match file.try_lock() {
        Ok(()) => {
            // For people; that it cannot be written changes nothing.
            drop(file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let holder = file.read_to_string(&mut holder).map_or("unknown", |_| holder.trim());
            let title = folder.display();
            Err(OpenError::Refused(format!(
                "the data folder '{title}' is in use by another broker (process {holder}): stop it, or name another folder"
            )))
        }
        Err(TryLockError::Error(error)) => Err(disk(error)),
    }
}

/// As many reads as are worth having under way on one disk.
const READERS: usize = 2;
