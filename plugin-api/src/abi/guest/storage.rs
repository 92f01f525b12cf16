//! A storage of a plugin, behind the same trait that its author implemented.

use std::ffi::c_void;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;

use super::super::raw::{RawBytes, TextSink, status};
use super::super::spec;
use super::super::storage::{
    AnswerSink, RawAppend, RawMeta, RawRange, RawRecoveredQueue, RawStored, RawTarget, RawWanted, StorageTypeTable,
    ended, slice,
};
use super::super::waker::RawHostWaker;
use super::{CallError, Handle, broken, call, failed};
use crate::storage::{
    Append, Durability, Mark, MessageSeq, Meta, QueueKey, Recovered, RecoveredQueue, Settle, Storage, StorageError,
    StorageSpec, StorageStatus, StoredMessage, Wanted,
};

/// A kind of storage of a plugin.
#[derive(Debug)]
pub struct GuestStorageType {
    pub(super) table: StorageTypeTable,
    pub(super) handle: Handle,
    pub(super) name: String,
    pub(super) description: String,
}

impl GuestStorageType {
    /// The name under `storage.kind`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One line for operators.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// See [`crate::storage::StorageType::open`].
    ///
    /// # Errors
    /// What the plugin says against it, or how it failed.
    pub fn open(&self, spec: &StorageSpec) -> Result<Arc<dyn Storage>, CallError> {
        self.open_watched(spec, Box::new(|_| {}))
    }

    /// As [`Self::open`]; `on_fault` hears of each call in which the plugin panics or breaks the rules of the ABI. Its caller hears
    /// [`StorageError::Failed`] as of a storage that failed by itself.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_watched(&self, spec: &StorageSpec, on_fault: OnFault) -> Result<Arc<dyn Storage>, CallError> {
        let config = spec.config.as_json().to_string();
        let folder = spec.folder.as_ref().map(|folder| folder.as_os_str().as_encoded_bytes());
        let (config, folder, has_folder) =
            (RawBytes::new(config.as_bytes()), RawBytes::new(folder.unwrap_or_default()), folder.is_some());
        let mut instance = std::ptr::null_mut();
        // SAFETY: table and handle belong together; bytes and place outlive the call.
        call(|sink| unsafe {
            (self.table.open)(self.handle.0, config, folder, has_folder.into(), &raw mut instance, sink)
        })?;
        if instance.is_null() {
            return Err(broken("open returned no storage"));
        }
        Ok(Arc::new(GuestStorage { table: self.table, instance: Handle(instance), on_fault }))
    }
}

/// Hears of a fault, on the thread that called.
pub type OnFault = Box<dyn Fn(&CallError) + Send + Sync>;

/// A storage within a plugin. Closed when it is dropped.
struct GuestStorage {
    table: StorageTypeTable,
    instance: Handle,
    on_fault: OnFault,
}

impl GuestStorage {
    /// A storage that does not answer as it should can promise nothing.
    #[cold]
    fn gone_wrong(&self, error: &CallError) -> StorageError {
        (self.on_fault)(error);
        StorageError::Failed(format!("the plugin {error}"))
    }

    fn start<'a>(
        &'a self,
        make: impl FnOnce(*mut c_void, *mut *mut c_void, *const TextSink) -> u32,
    ) -> Result<GuestFuture<'a>, StorageError> {
        let mut future = std::ptr::null_mut();
        call(|sink| make(self.instance.0, &raw mut future, sink)).map_err(|error| self.gone_wrong(&error))?;
        if future.is_null() {
            return Err(self.gone_wrong(&broken("a call returned no future")));
        }
        Ok(GuestFuture { storage: self, future: Handle(future), answers: Answers::default() })
    }
}

#[async_trait]
impl Storage for GuestStorage {
    async fn append(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        let batch = RawBatch::new(batch);
        // SAFETY: the batch is dropped after the future, which stands behind it.
        let started = self.start(|instance, future, sink| unsafe {
            (self.table.append)(instance, 0, batch.messages.as_ptr(), batch.messages.len(), future, sink)
        });
        started?.await.map(drop)
    }

    async fn append_unsynced(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        let batch = RawBatch::new(batch);
        // SAFETY: as in `append`.
        let started = self.start(|instance, future, sink| unsafe {
            (self.table.append)(instance, 1, batch.messages.as_ptr(), batch.messages.len(), future, sink)
        });
        started?.await.map(drop)
    }

    async fn settle(&self, ranges: &[Settle]) -> Result<(), StorageError> {
        let ranges: Vec<RawRange> = ranges
            .iter()
            .map(|range| RawRange { queue: range.queue.0, first: range.first.0, last: range.last.0 })
            .collect();
        // SAFETY: the ranges are dropped after the future, which stands behind them.
        let started = self.start(|instance, future, sink| unsafe {
            (self.table.settle)(instance, ranges.as_ptr(), ranges.len(), future, sink)
        });
        started?.await.map(drop)
    }

    async fn delete_queue(&self, queue: QueueKey) -> Result<(), StorageError> {
        // SAFETY: nothing is borrowed but the instance, which `self` keeps.
        let started =
            self.start(|instance, future, sink| unsafe { (self.table.delete_queue)(instance, queue.0, future, sink) });
        started?.await.map(drop)
    }

    async fn read(&self, wanted: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        let raw = RawWanted {
            queue: wanted.queue.0,
            first: wanted.first.0,
            last: wanted.last.0,
            count_max: wanted.count_max,
            bytes_max: wanted.bytes_max,
        };
        // SAFETY: what is wanted is copied before the call returns.
        let started =
            self.start(|instance, future, sink| unsafe { (self.table.read)(instance, &raw const raw, future, sink) });
        Ok(started?.await?.messages)
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), StorageError> {
        let marks: Vec<RawTarget> =
            marks.iter().map(|mark| RawTarget { queue: mark.queue.0, seq: mark.last.0 }).collect();
        // SAFETY: as in `settle`.
        let started = self.start(|instance, future, sink| unsafe {
            (self.table.mark)(instance, marks.as_ptr(), marks.len(), future, sink)
        });
        started?.await.map(drop)
    }

    async fn put_meta(&self, entries: &[Meta<'_>]) -> Result<(), StorageError> {
        let entries: Vec<RawMeta> = entries
            .iter()
            .map(|entry| RawMeta {
                key: RawBytes::new(entry.key),
                value: RawBytes::new(entry.value.unwrap_or_default()),
                has_value: entry.value.is_some().into(),
            })
            .collect();
        // SAFETY: the entries are dropped after the future, and what they borrow lives longer.
        let started = self.start(|instance, future, sink| unsafe {
            (self.table.put_meta)(instance, entries.as_ptr(), entries.len(), future, sink)
        });
        started?.await.map(drop)
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        // SAFETY: as in `delete_queue`.
        let started = self.start(|instance, future, sink| unsafe { (self.table.recover)(instance, future, sink) });
        Ok(started?.await?.recovered)
    }

    fn promise(&self) -> Durability {
        let mut promise = 0;
        // SAFETY: the instance is from this table's `open` and not closed; the place outlives the call.
        let asked = call(|sink| unsafe { (self.table.promise)(self.instance.0, &raw mut promise, sink) });
        if let Err(error) = &asked {
            (self.on_fault)(error);
        }
        match (asked, promise) {
            (Ok(()), 1) => Durability::Os,
            (Ok(()), 2) => Durability::Synced,
            // Whatever a later number means, to promise nothing is right.
            _ => Durability::ProcessLifetime,
        }
    }

    fn status(&self) -> StorageStatus {
        let mut answers = Answers::default();
        let sink = answers.sink();
        // SAFETY: as in `promise`; the sink of answers outlives the call.
        let asked = call(|text| unsafe { (self.table.status)(self.instance.0, &raw const sink, text) });
        if let Err(error) = &asked {
            (self.on_fault)(error);
            return StorageStatus::default();
        }
        answers.status
    }
}

impl Drop for GuestStorage {
    fn drop(&mut self) {
        // A panic while closing has been caught and told to the log by the plugin; there is nothing left to stop using.
        // SAFETY: the instance is from this table's `open`, is ours alone, and is not used again. Futures borrow `self`.
        let closed = call(|sink| unsafe { (self.table.close)(self.instance.0, sink) });
        if let Err(error) = closed {
            (self.on_fault)(&error);
        }
    }
}

/// A batch as it crosses. Borrows the messages, and owns their targets in one row.
struct RawBatch<'a> {
    messages: Vec<RawAppend>,
    _targets: Vec<RawTarget>,
    _borrowed: std::marker::PhantomData<&'a [u8]>,
}

impl<'a> RawBatch<'a> {
    fn new(batch: &'a [Append<'a>]) -> Self {
        let pairs = batch.iter().flat_map(|message| message.targets);
        let targets: Vec<RawTarget> = pairs.map(|(queue, seq)| RawTarget { queue: queue.0, seq: seq.0 }).collect();
        let mut rest = targets.as_slice();
        let messages = batch
            .iter()
            .map(|message| {
                let (mine, others) = rest.split_at_checked(message.targets.len()).unwrap_or_default();
                rest = others;
                RawAppend {
                    targets: mine.as_ptr(),
                    targets_count: mine.len(),
                    stamp: message.stamp,
                    exchange: RawBytes::new(message.exchange.as_bytes()),
                    routing_key: RawBytes::new(message.routing_key.as_bytes()),
                    properties: RawBytes::new(message.properties),
                    body: RawBytes::new(message.body),
                }
            })
            .collect();
        Self { messages, _targets: targets, _borrowed: std::marker::PhantomData }
    }
}

/// A future of the plugin. Dropped before what it borrows.
struct GuestFuture<'a> {
    storage: &'a GuestStorage,
    future: Handle,
    answers: Answers,
}

impl Future for GuestFuture<'_> {
    type Output = Result<Answers, StorageError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let waker = RawHostWaker::lend(context.waker());
        let sink = this.answers.sink();
        let mut text = Vec::new();
        // SAFETY: the future is from this table and not dropped; waker and sinks outlive the call.
        let code = unsafe {
            (this.storage.table.poll)(this.future.0, &raw const waker, &raw const sink, &TextSink::new(&mut text))
        };
        let sentence = || String::from_utf8_lossy(&text).into_owned();
        Poll::Ready(match code {
            ended::PENDING => return Poll::Pending,
            status::DONE => Ok(std::mem::take(&mut this.answers)),
            ended::FULL => Err(StorageError::Full(sentence())),
            ended::FAILED => Err(StorageError::Failed(sentence())),
            ended::DAMAGED => Err(StorageError::Damaged(sentence())),
            other => Err(this.storage.gone_wrong(&failed(other, &text))),
        })
    }
}

impl Drop for GuestFuture<'_> {
    fn drop(&mut self) {
        // SAFETY: the future is from this table, is ours alone, and is not used again.
        drop(call(|sink| unsafe { (self.storage.table.drop_future)(self.future.0, sink) }));
    }
}

/// What the plugin's future gave, in the host's memory.
#[derive(Default)]
struct Answers {
    messages: Vec<StoredMessage>,
    recovered: Recovered,
    status: StorageStatus,
}

impl Answers {
    /// A sink that adds to these answers. They must stay in place while it is used.
    const fn sink(&mut self) -> AnswerSink {
        AnswerSink {
            size: size_of::<AnswerSink>() as u32,
            reserved: 0,
            context: std::ptr::from_mut(self).cast(),
            message: add_message,
            meta: add_meta,
            queue: add_queue,
            status: set_status,
        }
    }
}

// SAFETY, for the callbacks: the context is the `Answers` of the sink, which nobody else uses during the call, and what
// is given lives until the callback returns.

unsafe extern "C" fn add_message(context: *mut c_void, message: *const RawStored) {
    // SAFETY: see above.
    let (answers, raw) = unsafe { (&mut *context.cast::<Answers>(), &*message) };
    // SAFETY: see above.
    let (exchange, routing_key, properties, body) =
        unsafe { (raw.exchange.get(), raw.routing_key.get(), raw.properties.get(), raw.body.get()) };
    answers.messages.push(StoredMessage {
        seq: MessageSeq(raw.seq),
        stamp: raw.stamp,
        exchange: String::from_utf8_lossy(exchange).into_owned(),
        routing_key: String::from_utf8_lossy(routing_key).into_owned(),
        properties: properties.to_vec(),
        body: body.to_vec(),
    });
}

unsafe extern "C" fn add_meta(context: *mut c_void, key: RawBytes, value: RawBytes) {
    // SAFETY: see above.
    let (answers, key, value) = unsafe { (&mut *context.cast::<Answers>(), key.get(), value.get()) };
    answers.recovered.meta.push((key.to_vec(), value.to_vec()));
}

unsafe extern "C" fn add_queue(context: *mut c_void, queue: *const RawRecoveredQueue) {
    // SAFETY: see above.
    let (answers, raw) = unsafe { (&mut *context.cast::<Answers>(), &*queue) };
    // SAFETY: see above.
    let ranges = unsafe { slice(raw.ranges, raw.ranges_count) };
    answers.recovered.queues.push(RecoveredQueue {
        queue: QueueKey(raw.queue),
        marked: (raw.is_marked != 0).then_some(MessageSeq(raw.marked)),
        ranges: ranges.iter().map(|range| (MessageSeq(range.first), MessageSeq(range.last))).collect(),
    });
}

unsafe extern "C" fn set_status(context: *mut c_void, table: RawBytes) {
    // SAFETY: see above.
    let (answers, table) = unsafe { (&mut *context.cast::<Answers>(), table.get()) };
    answers.status = spec::decode_status(table);
}

#[cfg(test)]
mod tests;
