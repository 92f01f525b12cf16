//! Storages: where persistent messages and definitions are kept.
//!
//! The broker hands over batches and tells a publisher "confirmed" when the future of its batch resolves. One call of
//! [`Storage::append`] is on its way at a time, and the next batch gathers meanwhile; the other calls may run beside it.
//! A storage knows nothing about exchanges, consumers or expiry: only queues, positions and bytes.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::config::Config;
use crate::error::Invalid;

/// A kind of storage, as the topology file names it.
pub trait StorageType: Send + Sync + 'static {
    /// The name under `storage.kind`. Asked once.
    fn name(&self) -> &str;

    /// One line for operators. Asked once.
    fn description(&self) -> &str;

    /// Makes the storage. Reading what it holds is for [`Storage::recover`], which follows.
    ///
    /// # Errors
    /// What is wrong with the configuration or the data folder; the broker does not start. That a disk fails is for
    /// [`Storage::recover`] to say, since the broker then ends with another exit code.
    fn open(&self, spec: &StorageSpec) -> Result<Arc<dyn Storage>, Invalid>;
}

/// What a storage is opened with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StorageSpec {
    /// What stands under `storage.config` in the topology file.
    pub config: Config,
    /// The folder that belongs to this storage alone; `None` when the broker was given none.
    pub folder: Option<PathBuf>,
}

/// One storage.
///
/// Futures that write ([`Storage::append`], [`Storage::append_unsynced`], [`Storage::settle`], [`Storage::delete_queue`],
/// [`Storage::mark`], [`Storage::put_meta`]) and that of [`Storage::recover`] may do their work within a poll, and block the thread that
/// polls them for as long as the disk takes: a change of thread costs as much as a part of a sync. The broker polls them on threads
/// that may be blocked. [`Storage::read`] must not block, nor may it wait for what writes.
///
/// Positions ([`MessageSeq`]) of a queue ascend with each append, but need not be consecutive.
#[async_trait]
pub trait Storage: Send + Sync {
    /// Keeps the messages of `batch`, each once however many queues it goes to. When the future resolves, they are kept
    /// as far as [`Storage::promise`] says; nothing may be confirmed before.
    async fn append(&self, batch: &[Append<'_>]) -> Result<(), StorageError>;

    /// As [`Self::append`], but promises no more than [`Durability::Os`]: the messages survive the broker, not a power cut.
    /// For messages whose owners chose speed, and for transient ones that must leave memory.
    async fn append_unsynced(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.append(batch).await
    }

    /// Forgets the messages in `ranges`; positions without a message are no error. May be lost in a crash: the messages
    /// are then delivered again.
    async fn settle(&self, ranges: &[Settle]) -> Result<(), StorageError>;

    /// Forgets all messages of `queue`. An unknown queue is no error. May be lost in a crash as settling may; whoever keeps
    /// a list of queues by [`Self::put_meta`] deletes those that are found without an entry.
    async fn delete_queue(&self, queue: QueueKey) -> Result<(), StorageError>;

    /// The live messages that are wanted, in ascending order. Ends early at `count_max`, or when the next message would pass
    /// `bytes_max`; but there is at least one when there is one and any is wanted.
    ///
    /// A damaged message is told once, by [`StorageError::Damaged`] when it is the first that would be read; it is no
    /// longer live then, so that the next read gets the rest. In front of a damaged message a read ends early, too.
    async fn read(&self, wanted: Wanted) -> Result<Vec<StoredMessage>, StorageError>;

    /// Remembers that messages of these queues may have been handed to somebody (semantics 13.21). A mark below an earlier
    /// one changes nothing; deleting a queue forgets its mark. May be lost in a crash as settling may: an earlier mark, or
    /// none, then stands.
    ///
    /// Storages that cannot do this need not: everything that comes back after a restart then looks untouched.
    async fn mark(&self, marks: &[Mark]) -> Result<(), StorageError> {
        let _ = marks;
        Ok(())
    }

    /// Sets metadata entries, or removes those without a value, in their order. Kept like an append when the future
    /// resolves, with one sync for all; all or nothing where they fit into one commit of the storage.
    async fn put_meta(&self, entries: &[Meta<'_>]) -> Result<(), StorageError>;

    /// What is there, asked before anything else. Message bodies come later, by [`Storage::read`].
    async fn recover(&self) -> Result<Recovered, StorageError>;

    /// What the end of a future means.
    fn promise(&self) -> Durability;

    /// How it fares; asked now and then, and cheap.
    fn status(&self) -> StorageStatus {
        StorageStatus::default()
    }
}

/// How a storage fares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StorageStatus {
    /// There is no room for messages at present; settling goes on.
    pub is_full: bool,
    /// What it takes of the disk.
    pub file_bytes: u64,
    /// What live messages take of that.
    pub live_bytes: u64,
    /// Live messages, counted once for each queue.
    pub live_count: u64,
    /// What it has found damaged since it was opened, one sentence each.
    pub damage: Vec<String>,
    /// Figures that people may want to see, by name. The broker shows these: `segments`, `reads`, `read_bytes`, `read_nanos`, `writes`,
    /// `written_bytes`, `write_nanos`, `syncs`, `sync_nanos`, `copied_bytes`, `removed_segments`; but for `segments` all count since
    /// the storage was opened.
    pub figures: Vec<(String, u64)>,
}

impl StorageStatus {
    /// The figure of that name, if the storage has it.
    pub fn figure(&self, name: &str) -> Option<u64> {
        self.figures.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

/// A queue, by a number that the broker never uses twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueKey(pub u64);

/// A position in a queue, ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageSeq(pub u64);

/// One message to keep, with all the places it goes to.
#[derive(Debug, Clone, Copy)]
pub struct Append<'a> {
    /// The queues, and the position in each.
    pub targets: &'a [(QueueKey, MessageSeq)],
    /// Comes back unchanged with the message. The broker keeps the time there at which the queue took it, in
    /// milliseconds since 1970.
    pub stamp: u64,
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// The routing key it was published with.
    pub routing_key: &'a str,
    /// The raw properties, see [`crate::message::Properties`].
    pub properties: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

/// Positions `first` to `last` of a queue, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settle {
    /// The queue.
    pub queue: QueueKey,
    /// The first position.
    pub first: MessageSeq,
    /// The last position; before `first` the range is empty.
    pub last: MessageSeq,
}

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The queue.
    pub queue: QueueKey,
    /// The first position.
    pub first: MessageSeq,
    /// The last position, inclusive; before `first` nothing is wanted.
    pub last: MessageSeq,
    /// At most so many messages.
    pub count_max: usize,
    /// At most so many bytes of names, properties and bodies; the first message is read however large it is.
    pub bytes_max: usize,
}

/// Messages up to `last` may have been handed to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The queue.
    pub queue: QueueKey,
    /// The last position, inclusive. It need not have been appended yet.
    pub last: MessageSeq,
}

/// A metadata entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta<'a> {
    /// What it is found by.
    pub key: &'a [u8],
    /// What it says; nothing removes the entry.
    pub value: Option<&'a [u8]>,
}

/// A message as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its position in the queue that was read.
    pub seq: MessageSeq,
    /// As it was appended with.
    pub stamp: u64,
    /// The exchange it was published to.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// The raw properties.
    pub properties: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
}

impl StoredMessage {
    /// What it counts for in [`Wanted::bytes_max`].
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.exchange.len() + self.routing_key.len() + self.properties.len() + self.body.len()
    }
}

/// What a storage holds when it is opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The metadata entries, sorted by key.
    pub meta: Vec<(Vec<u8>, Vec<u8>)>,
    /// The queues that have live messages, sorted by key.
    pub queues: Vec<RecoveredQueue>,
}

/// The live positions of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredQueue {
    /// The queue.
    pub queue: QueueKey,
    /// Runs of consecutive positions, both ends inclusive, ascending and not touching.
    pub ranges: Vec<(MessageSeq, MessageSeq)>,
    /// The highest mark, or the last live position where that comes first; none when nothing is marked.
    pub marked: Option<MessageSeq>,
}

/// How much a storage survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing is left when the broker ends.
    ProcessLifetime,
    /// Survives the broker, but not the machine: the operating system has it.
    Os,
    /// Survives a power cut: the disk has it.
    Synced,
}

/// Why a storage did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageError {
    /// There is no room. Nothing of the batch was kept; later calls may work again.
    Full(String),
    /// The storage can no longer promise anything, such as after a failed sync. Final: the broker stops confirming,
    /// ends, and recovers from what is there.
    Failed(String),
    /// Something that was kept cannot be read. The rest can.
    Damaged(String),
}

impl std::fmt::Display for StorageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(text) => write!(f, "storage is full: {text}"),
            Self::Failed(text) => write!(f, "storage failed: {text}"),
            Self::Damaged(text) => write!(f, "stored data is damaged: {text}"),
        }
    }
}

impl std::error::Error for StorageError {}
