//! Storages: the tables of functions, and the thunks that a plugin fills them with.
//!
//! What waits crosses as a future that the host polls: a call makes it, `poll` moves it on, `drop_future` ends it. Until then
//! the host keeps the borrowed arguments alive. Answers go through a sink of the host, which copies.

use std::ffi::c_void;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::guard::{guard, panic_text};
use super::raw::{RawBytes, TextSink, WORD, status};
use super::runtime;
use super::waker::RawHostWaker;
use crate::config::Config;
use crate::error::Invalid;
use crate::storage::{
    Append, Durability, Mark, MessageSeq, Meta, QueueKey, Recovered, Settle, Storage, StorageError, StorageSpec,
    StorageType, StoredMessage, Wanted,
};

/// The functions of one kind of storage and of its storages. All may be called from any thread; `close` needs the storage
/// for itself, `poll` and `drop_future` the future.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct StorageTypeTable {
    pub(crate) size: u32,
    pub(crate) reserved: u32,
    pub(crate) open: unsafe extern "C" fn(
        handle: *mut c_void,
        config: RawBytes,
        folder: RawBytes,
        has_folder: u32,
        instance: *mut *mut c_void,
        sink: *const TextSink,
    ) -> u32,
    pub(crate) promise: unsafe extern "C" fn(instance: *mut c_void, promise: *mut u32, sink: *const TextSink) -> u32,
    pub(crate) status:
        unsafe extern "C" fn(instance: *mut c_void, answers: *const AnswerSink, sink: *const TextSink) -> u32,
    /// The batch is borrowed until the future is dropped.
    pub(crate) append: unsafe extern "C" fn(
        instance: *mut c_void,
        is_unsynced: u32,
        batch: *const RawAppend,
        count: usize,
        future: *mut *mut c_void,
        sink: *const TextSink,
    ) -> u32,
    pub(crate) settle: unsafe extern "C" fn(
        instance: *mut c_void,
        ranges: *const RawRange,
        count: usize,
        future: *mut *mut c_void,
        sink: *const TextSink,
    ) -> u32,
    pub(crate) delete_queue:
        unsafe extern "C" fn(instance: *mut c_void, queue: u64, future: *mut *mut c_void, sink: *const TextSink) -> u32,
    pub(crate) read: unsafe extern "C" fn(
        instance: *mut c_void,
        wanted: *const RawWanted,
        future: *mut *mut c_void,
        sink: *const TextSink,
    ) -> u32,
    pub(crate) mark: unsafe extern "C" fn(
        instance: *mut c_void,
        marks: *const RawTarget,
        count: usize,
        future: *mut *mut c_void,
        sink: *const TextSink,
    ) -> u32,
    /// Keys and values are borrowed until the future is dropped.
    pub(crate) put_meta: unsafe extern "C" fn(
        instance: *mut c_void,
        entries: *const RawMeta,
        count: usize,
        future: *mut *mut c_void,
        sink: *const TextSink,
    ) -> u32,
    pub(crate) recover:
        unsafe extern "C" fn(instance: *mut c_void, future: *mut *mut c_void, sink: *const TextSink) -> u32,
    /// Moves a future on, for as long as the disk takes unless it is one of `read`. Answers `PENDING` after keeping the waker, or how it ended; it is not polled again then.
    pub(crate) poll: unsafe extern "C" fn(
        future: *mut c_void,
        waker: *const RawHostWaker,
        answers: *const AnswerSink,
        sink: *const TextSink,
    ) -> u32,
    pub(crate) drop_future: unsafe extern "C" fn(future: *mut c_void, sink: *const TextSink) -> u32,
    pub(crate) close: unsafe extern "C" fn(instance: *mut c_void, sink: *const TextSink) -> u32,
}

const _: () = assert!(size_of::<StorageTypeTable>() == 8 + 13 * WORD);

impl StorageTypeTable {
    /// The table of a type whose handle is a `Box<dyn StorageType>` behind a pointer.
    pub(crate) const fn new() -> Self {
        Self {
            size: size_of::<Self>() as u32,
            reserved: 0,
            open,
            promise,
            status,
            append,
            settle,
            delete_queue,
            read,
            mark,
            put_meta,
            recover,
            poll,
            drop_future,
            close,
        }
    }
}

/// One message of a batch, borrowed.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawAppend {
    pub(crate) targets: *const RawTarget,
    pub(crate) targets_count: usize,
    pub(crate) stamp: u64,
    pub(crate) exchange: RawBytes,
    pub(crate) routing_key: RawBytes,
    pub(crate) properties: RawBytes,
    pub(crate) body: RawBytes,
}

const _: () = assert!(size_of::<RawAppend>() == 8 + 10 * WORD);

// SAFETY: the pointers lead to bytes that the host lends for reading, which any thread may do.
unsafe impl Send for RawAppend {}
// SAFETY: as above.
unsafe impl Sync for RawAppend {}

/// Queue and position: of a message, or of a mark.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawTarget {
    pub(crate) queue: u64,
    pub(crate) seq: u64,
}

/// Positions of a queue, both ends inclusive.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawRange {
    pub(crate) queue: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// What is to be read, copied before the call returns.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawWanted {
    pub(crate) queue: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) count_max: usize,
    pub(crate) bytes_max: usize,
}

const _: () = assert!(size_of::<RawWanted>() == 24 + 2 * WORD);

/// A metadata entry, borrowed.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawMeta {
    pub(crate) key: RawBytes,
    pub(crate) value: RawBytes,
    /// 0 when the entry is to be removed.
    pub(crate) has_value: u64,
}

const _: () = assert!(size_of::<RawMeta>() == 8 + 4 * WORD);

// SAFETY: the pointers lead to bytes that the host lends for reading, which any thread may do.
unsafe impl Send for RawMeta {}
// SAFETY: as above.
unsafe impl Sync for RawMeta {}

/// The live positions of one queue, borrowed for the time of one call of the sink.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawRecoveredQueue {
    pub(crate) queue: u64,
    pub(crate) marked: u64,
    /// 0 when nothing is marked.
    pub(crate) is_marked: u64,
    pub(crate) ranges: *const RawRange,
    pub(crate) ranges_count: usize,
}

const _: () = assert!(size_of::<RawRecoveredQueue>() == 24 + 2 * WORD);

/// A message that was read, borrowed for the time of one call of the sink.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawStored {
    pub(crate) seq: u64,
    pub(crate) stamp: u64,
    pub(crate) exchange: RawBytes,
    pub(crate) routing_key: RawBytes,
    pub(crate) properties: RawBytes,
    pub(crate) body: RawBytes,
}

const _: () = assert!(size_of::<RawStored>() == 16 + 8 * WORD);

/// Where a call leaves its answer: callbacks of the host, which copy. Grows at its end only.
#[derive(Debug)]
#[repr(C)]
pub struct AnswerSink {
    pub(crate) size: u32,
    pub(crate) reserved: u32,
    pub(crate) context: *mut c_void,
    pub(crate) message: unsafe extern "C" fn(context: *mut c_void, message: *const RawStored),
    pub(crate) meta: unsafe extern "C" fn(context: *mut c_void, key: RawBytes, value: RawBytes),
    pub(crate) queue: unsafe extern "C" fn(context: *mut c_void, queue: *const RawRecoveredQueue),
    /// A field table with how the storage fares.
    pub(crate) status: unsafe extern "C" fn(context: *mut c_void, table: RawBytes),
}

const _: () = assert!(size_of::<AnswerSink>() == 8 + 5 * WORD);

/// How a future ended, beside the statuses that every call has.
pub(crate) mod ended {
    pub(crate) const PENDING: u32 = 3;
    pub(crate) const FULL: u32 = 16;
    pub(crate) const FAILED: u32 = 17;
    pub(crate) const DAMAGED: u32 = 18;
}

/// What stands behind the handle of a type and of an instance: a fat pointer, made thin by one more box.
pub(crate) type TypeHandle = Box<dyn StorageType>;
type Instance = Arc<dyn Storage>;

/// What stands behind the pointer to a future.
type PluginFuture<'a> = Pin<Box<dyn Future<Output = Result<Answer, StorageError>> + Send + 'a>>;

/// What a future resolves to.
enum Answer {
    Nothing,
    Messages(Vec<StoredMessage>),
    Recovered(Recovered),
}

// SAFETY, for all thunks: the host calls them with a handle from this plugin's table, an instance that `open` made and
// `close` has not ended, or a future that one of the calls made and `drop_future` has not ended. Arguments live until the
// call returns; those of a call that makes a future live until that future is dropped, and the instance lives longer.

unsafe extern "C" fn open(
    handle: *mut c_void,
    config: RawBytes,
    folder: RawBytes,
    has_folder: u32,
    instance: *mut *mut c_void,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above.
    unsafe {
        guard(sink, || {
            let _entered = runtime::enter();
            let config = serde_json::from_slice(config.get())
                .map_err(|error| Invalid::new(format!("the broker's config is no JSON: {error}")))?;
            let folder = (has_folder != 0).then(|| path(folder.get()));
            let spec = StorageSpec { config: Config::new(config), folder };
            let opened: Instance = (*handle.cast_const().cast::<TypeHandle>()).open(&spec)?;
            *instance = Box::into_raw(Box::new(opened)).cast();
            Ok(())
        })
    }
}

unsafe extern "C" fn promise(instance: *mut c_void, promise: *mut u32, sink: *const TextSink) -> u32 {
    // SAFETY: see above.
    unsafe {
        guard(sink, || {
            *promise = match storage(instance).promise() {
                Durability::ProcessLifetime => 0,
                Durability::Os => 1,
                Durability::Synced => 2,
            };
            Ok(())
        })
    }
}

unsafe extern "C" fn status(instance: *mut c_void, answers: *const AnswerSink, sink: *const TextSink) -> u32 {
    // SAFETY: see above; the sink of answers is the host's and lives until this returns.
    unsafe {
        guard(sink, || {
            let table = super::spec::contents(&super::spec::status_table(&storage(instance).status()));
            ((*answers).status)((*answers).context, RawBytes::new(&table));
            Ok(())
        })
    }
}

unsafe extern "C" fn append(
    instance: *mut c_void,
    is_unsynced: u32,
    batch: *const RawAppend,
    count: usize,
    future: *mut *mut c_void,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above; names are UTF-8, since the host's are.
    unsafe {
        start(future, sink, || {
            let (storage, raw) = (storage(instance), slice(batch, count));
            let targets: Vec<(QueueKey, MessageSeq)> = raw
                .iter()
                .flat_map(|message| slice(message.targets, message.targets_count))
                .map(|target| (QueueKey(target.queue), MessageSeq(target.seq)))
                .collect();
            async move {
                let mut rest = targets.as_slice();
                let batch: Vec<Append<'_>> = raw
                    .iter()
                    .map(|message| {
                        let (mine, others) = rest.split_at_checked(message.targets_count).unwrap_or_default();
                        rest = others;
                        Append {
                            targets: mine,
                            stamp: message.stamp,
                            exchange: std::str::from_utf8_unchecked(message.exchange.get()),
                            routing_key: std::str::from_utf8_unchecked(message.routing_key.get()),
                            properties: message.properties.get(),
                            body: message.body.get(),
                        }
                    })
                    .collect();
                if is_unsynced == 0 {
                    storage.append(&batch).await?;
                } else {
                    storage.append_unsynced(&batch).await?;
                }
                Ok(Answer::Nothing)
            }
        })
    }
}

unsafe extern "C" fn settle(
    instance: *mut c_void,
    ranges: *const RawRange,
    count: usize,
    future: *mut *mut c_void,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above.
    unsafe {
        start(future, sink, || {
            let (storage, raw) = (storage(instance), slice(ranges, count));
            let ranges: Vec<Settle> = raw
                .iter()
                .map(|range| Settle {
                    queue: QueueKey(range.queue),
                    first: MessageSeq(range.first),
                    last: MessageSeq(range.last),
                })
                .collect();
            async move { storage.settle(&ranges).await.map(|()| Answer::Nothing) }
        })
    }
}

unsafe extern "C" fn delete_queue(
    instance: *mut c_void,
    queue: u64,
    future: *mut *mut c_void,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above.
    unsafe {
        start(future, sink, || {
            let storage = storage(instance);
            async move { storage.delete_queue(QueueKey(queue)).await.map(|()| Answer::Nothing) }
        })
    }
}

unsafe extern "C" fn read(
    instance: *mut c_void,
    wanted: *const RawWanted,
    future: *mut *mut c_void,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above.
    unsafe {
        start(future, sink, || {
            let (storage, raw) = (storage(instance), &*wanted);
            let wanted = Wanted {
                queue: QueueKey(raw.queue),
                first: MessageSeq(raw.first),
                last: MessageSeq(raw.last),
                count_max: raw.count_max,
                bytes_max: raw.bytes_max,
            };
            async move { storage.read(wanted).await.map(Answer::Messages) }
        })
    }
}

unsafe extern "C" fn mark(
    instance: *mut c_void,
    marks: *const RawTarget,
    count: usize,
    future: *mut *mut c_void,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above.
    unsafe {
        start(future, sink, || {
            let (storage, raw) = (storage(instance), slice(marks, count));
            let marks: Vec<Mark> =
                raw.iter().map(|mark| Mark { queue: QueueKey(mark.queue), last: MessageSeq(mark.seq) }).collect();
            async move { storage.mark(&marks).await.map(|()| Answer::Nothing) }
        })
    }
}

unsafe extern "C" fn put_meta(
    instance: *mut c_void,
    entries: *const RawMeta,
    count: usize,
    future: *mut *mut c_void,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above.
    unsafe {
        start(future, sink, || {
            let (storage, raw) = (storage(instance), slice(entries, count));
            let entries: Vec<Meta<'_>> = raw
                .iter()
                .map(|entry| Meta { key: entry.key.get(), value: (entry.has_value != 0).then(|| entry.value.get()) })
                .collect();
            async move { storage.put_meta(&entries).await.map(|()| Answer::Nothing) }
        })
    }
}

unsafe extern "C" fn recover(instance: *mut c_void, future: *mut *mut c_void, sink: *const TextSink) -> u32 {
    // SAFETY: see above.
    unsafe {
        start(future, sink, || {
            let storage = storage(instance);
            async move { storage.recover().await.map(Answer::Recovered) }
        })
    }
}

unsafe extern "C" fn poll(
    future: *mut c_void,
    waker: *const RawHostWaker,
    answers: *const AnswerSink,
    sink: *const TextSink,
) -> u32 {
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _entered = runtime::enter();
        // SAFETY: see above; the future is ours alone, the waker lives until this returns.
        let (future, waker) = unsafe { (&mut *future.cast::<PluginFuture<'_>>(), RawHostWaker::borrow(&waker)) };
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => ended::PENDING,
            Poll::Ready(Ok(answer)) => {
                // SAFETY: the sink of answers is the host's and lives until this returns.
                unsafe { answer.give(&*answers) };
                status::DONE
            }
            Poll::Ready(Err(error)) => {
                let (code, text) = match &error {
                    StorageError::Full(text) => (ended::FULL, text),
                    StorageError::Failed(text) => (ended::FAILED, text),
                    StorageError::Damaged(text) => (ended::DAMAGED, text),
                };
                // SAFETY: the sink is the host's and lives until this returns.
                unsafe { TextSink::tell(sink, text) };
                code
            }
        }
    }));
    polled.unwrap_or_else(|payload| {
        // SAFETY: as above.
        unsafe { TextSink::tell(sink, &panic_text(payload)) };
        status::PANICKED
    })
}

unsafe extern "C" fn drop_future(future: *mut c_void, sink: *const TextSink) -> u32 {
    // SAFETY: see above; the host does not use the future again.
    unsafe {
        guard(sink, || {
            let _entered = runtime::enter();
            drop(Box::from_raw(future.cast::<PluginFuture<'_>>()));
            Ok(())
        })
    }
}

unsafe extern "C" fn close(instance: *mut c_void, sink: *const TextSink) -> u32 {
    // SAFETY: see above; the host does not use the instance again.
    unsafe {
        guard(sink, || {
            let _entered = runtime::enter();
            drop(Box::from_raw(instance.cast::<Instance>()));
            Ok(())
        })
    }
}

/// Makes a future and leaves it with the host.
unsafe fn start<'a, F>(future: *mut *mut c_void, sink: *const TextSink, make: impl FnOnce() -> F) -> u32
where
    F: Future<Output = Result<Answer, StorageError>> + Send + 'a,
{
    // SAFETY: as for all thunks.
    unsafe {
        guard(sink, || {
            let _entered = runtime::enter();
            let made: PluginFuture<'a> = Box::pin(make());
            *future = Box::into_raw(Box::new(made)).cast();
            Ok(())
        })
    }
}

impl Answer {
    /// # Safety
    /// `sink` is the host's sink of this call.
    unsafe fn give(self, sink: &AnswerSink) {
        match self {
            Self::Nothing => {}
            Self::Messages(messages) => {
                for message in &messages {
                    let raw = RawStored {
                        seq: message.seq.0,
                        stamp: message.stamp,
                        exchange: RawBytes::new(message.exchange.as_bytes()),
                        routing_key: RawBytes::new(message.routing_key.as_bytes()),
                        properties: RawBytes::new(&message.properties),
                        body: RawBytes::new(&message.body),
                    };
                    // SAFETY: function and context are a pair, and the bytes live until it returns.
                    unsafe { (sink.message)(sink.context, &raw const raw) };
                }
            }
            Self::Recovered(recovered) => {
                for (key, value) in &recovered.meta {
                    // SAFETY: as above.
                    unsafe { (sink.meta)(sink.context, RawBytes::new(key), RawBytes::new(value)) };
                }
                for queue in &recovered.queues {
                    let range = |(first, last): &(MessageSeq, MessageSeq)| RawRange {
                        queue: queue.queue.0,
                        first: first.0,
                        last: last.0,
                    };
                    let ranges: Vec<RawRange> = queue.ranges.iter().map(range).collect();
                    let raw = RawRecoveredQueue {
                        queue: queue.queue.0,
                        marked: queue.marked.map_or(0, |marked| marked.0),
                        is_marked: queue.marked.is_some().into(),
                        ranges: ranges.as_ptr(),
                        ranges_count: ranges.len(),
                    };
                    // SAFETY: as above.
                    unsafe { (sink.queue)(sink.context, &raw const raw) };
                }
            }
        }
    }
}

unsafe fn storage<'a>(instance: *mut c_void) -> &'a dyn Storage {
    // SAFETY: `open` made the instance from a box of this type; nobody needs it for themselves but `close`.
    unsafe { &**instance.cast_const().cast::<Instance>() }
}

/// # Safety
/// These are `count` values that live for `'a`, or none.
pub(crate) const unsafe fn slice<'a, T>(start: *const T, count: usize) -> &'a [T] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts(start, count) }
}

#[cfg(unix)]
pub(crate) fn path(bytes: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;

    std::ffi::OsStr::from_bytes(bytes).into()
}

#[cfg(not(unix))]
pub(crate) fn path(bytes: &[u8]) -> std::path::PathBuf {
    String::from_utf8_lossy(bytes).into_owned().into()
}
