//! Group commit without timers: while one append is under way, the next batch gathers.
//!
//! A storage may block whoever polls it, so [`Committer::run`] needs a thread of its own. While little is going on, connections carry
//! their messages out themselves, see [`super::turns`].
//!
//! Confirms of persistent messages leave here and nowhere else: acks are cumulative, so a second source could overtake the first
//! and confirm a message that is not stored yet. A publisher's credit comes back with its confirm, so that a slow store stops
//! publishers before memory grows. What a consumer has had before its turn to be written came is confirmed without the disk.
//!
//! When the disk is full, what wants room waits here and nothing is refused or dropped: its publishers get neither confirm nor credit,
//! consumers go on, what they settle makes room, and [`Committer::retry`] tries again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use plugin_api::storage::{Durability, Mark, MessageSeq, Meta, QueueKey, Settle, Storage, StorageError, StorageStatus};
use tokio::sync::{Notify, watch};

use super::batch::{self, Pending};
use super::counters::Counters;
use super::definitions::{self, Entry};
use super::gathered::{Barrier, Gathered};
use super::pager::{Pager, Request};
use super::room::{self, HeldBack, News};
use super::{KeysInUse, key, turns};
use crate::queue::{Append, Handle, Load, LoadedMessage, Place, ReplyTo, SeqRange, Stored};
use crate::vhost::{Change, Ledger};

/// The store has failed; nothing is confirmed any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct Failure(pub String);

/// What a queue wants of the store, in order.
#[derive(Debug)]
pub struct Submission<'a, A> {
    /// Its number.
    pub queue: u64,
    /// Messages to keep.
    pub appends: A,
    /// Messages to forget.
    pub settled: &'a [SeqRange],
    /// Lasting messages of these levels up to these places may be in somebody's hands.
    pub marks: &'a [Place],
    /// Messages that it wants back, and where to.
    pub load: Option<(Arc<dyn Handle>, Load)>,
}

impl Ledger for Committer {
    fn record(&self, vhost: &str, changes: Vec<Change>) {
        // Written down before the lock is taken, which every queue needs.
        self.define(changes.iter().map(|change| definitions::entry(vhost, change)).collect());
    }
}

/// What is being stored, and who stores it: one at a time.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// What was taken up and is not done: it found no room, or it is no hurry.
    batch: Gathered,
    held_back: HeldBack,
    has_failed: bool,
}

/// How much of a batch is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What somebody waits for. If nothing of that can be done, all of it.
    Urgent,
    /// All of it.
    All,
}

/// See the module.
pub struct Committer {
    storage: Arc<dyn Storage>,
    pager: Pager,
    counters: Arc<Counters>,
    gathered: Mutex<Gathered>,
    wake: Notify,
    work: tokio::sync::Mutex<Work>,
    /// How many messages the latest batch with any had: whether much is going on.
    latest_count: AtomicUsize,
    is_stopped: AtomicBool,
    /// Something waits for room.
    is_stuck: AtomicBool,
    retry: AtomicBool,
    failure: watch::Sender<Option<Failure>>,
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}

impl Committer {
    /// A committer for one storage. [`Self::run`] must be running for anything to be confirmed, and [`Self::page`] for anything to be loaded.
    pub fn new(storage: Arc<dyn Storage>) -> Arc<Self> {
        let (failure, _) = watch::channel(None);
        let counters = Arc::new(Counters::default());
        Arc::new(Self {
            pager: Pager::new(Arc::clone(&storage), Arc::clone(&counters)),
            counters,
            storage,
            gathered: Mutex::default(),
            wake: Notify::new(),
            work: tokio::sync::Mutex::default(),
            latest_count: AtomicUsize::new(0),
            is_stopped: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            retry: AtomicBool::new(false),
            failure,
        })
    }

    /// Takes what a queue wants; never waits.
    pub fn submit<A: Iterator<Item = Append>>(&self, submission: Submission<'_, A>) {
        let Submission { queue: number, appends, settled, marks, load } = submission;
        let mut gathered = self.gathered.lock();
        let was_empty = gathered.is_empty();
        gathered.appends.extend(appends.map(|append| (key(number, append.place.level, append.stored), append)));
        gathered.settled.extend(settled.iter().map(|range| Settle {
            queue: key(number, range.level, range.stored),
            first: MessageSeq(range.first),
            last: MessageSeq(range.last),
        }));
        for &Place { level, seq } in marks {
            let queue = key(number, level, Stored::Lasting);
            match gathered.marks.last_mut() {
                Some(mark) if mark.queue == queue => mark.last = MessageSeq(seq),
                _ => gathered.marks.push(Mark { queue, last: MessageSeq(seq) }),
            }
        }
        gathered.loads.extend(load.map(|(handle, load)| (number, handle, load)));
        self.call(gathered, was_empty);
    }

    /// Sees to it that somebody carries out what was gathered; where there was something before, somebody was called.
    fn call(&self, gathered: MutexGuard<'_, Gathered>, was_empty: bool) {
        if was_empty && gathered.is_empty() {
            return;
        }
        let (is_urgent, waiting) = (gathered.urgent_count() > 0, gathered.appends.len());
        drop(gathered);
        let is_little = is_urgent && turns::is_little(waiting.max(self.latest_count.load(Ordering::Relaxed)));
        if turns::must_wake(is_little, was_empty) {
            self.wake.notify_one();
        }
    }

    /// Has [`Self::run`] look at what was gathered.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn wake_if_gathered(&self) {
        if !self.gathered.lock().is_empty() {
            self.wake.notify_one();
        }
    }

    /// A queue is gone, with everything that it has stored.
    pub fn delete_queue(&self, queue: u64, keys: &KeysInUse) {
        let mut gathered = self.gathered.lock();
        let was_empty = gathered.is_empty();
        gathered.deleted.extend(keys.of(queue));
        self.call(gathered, was_empty);
    }

    /// Takes definitions that are to be stored or removed, in order; never waits.
    pub fn define(&self, entries: Vec<Entry>) {
        let mut gathered = self.gathered.lock();
        let was_empty = gathered.is_empty();
        gathered.definitions.extend(entries);
        self.call(gathered, was_empty);
    }

    /// Answers with [`Reply::Stored`] when what the barrier waits for is stored.
    pub fn barrier(&self, barrier: Barrier, reply_to: ReplyTo) {
        let mut gathered = self.gathered.lock();
        let was_empty = gathered.is_empty();
        gathered.barriers.push((barrier, reply_to));
        self.call(gathered, was_empty);
    }

    /// Tries again what waits for room; to be called now and then.
    pub fn retry(&self) {
        if self.is_stuck.load(Ordering::Relaxed) {
            self.retry.store(true, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }

    /// Whether something waits for room.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }

    /// Whether nothing is gathered and nobody waits for a load. What is under way is not seen here.
    pub fn is_idle(&self) -> bool {
        self.gathered.lock().is_empty() && self.pager.is_idle()
    }

    /// What a confirm means.
    pub fn promise(&self) -> Durability {
        self.storage.promise()
    }

    /// What it has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How the storage fares.
    pub fn storage_status(&self) -> StorageStatus {
        self.storage.status()
    }

    /// Resolves when the store has failed.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.failure.subscribe();
        loop {
            if let Some(failure) = failure.borrow_and_update().clone() {
                return failure;
            }
            if failure.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Loads what queues want back, one wish after the other, until the store fails. As many of these may run as there may be reads
    /// at a time.
    pub async fn page(self: Arc<Self>) {
        let error = self.pager.run().await;
        tracing::error!(error = %error, "the store cannot be read");
        self.failure.send_replace(Some(Failure(error.to_string())));
    }

    /// Stores batch after batch until [`Self::stop`]; after a failure it refuses everything. It blocks its thread as the storage does.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            if self.is_stopped.load(Ordering::Relaxed) {
                return;
            }
            let mut work = self.work.lock().await;
            self.carry_out(&mut work, Part::All).await;
        }
    }

    /// Ends [`Self::run`], whatever is left.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// The right to carry out what was gathered, if nobody is at it.
    pub(super) fn try_work(&self) -> Option<tokio::sync::MutexGuard<'_, Work>> {
        self.work.try_lock().ok()
    }

    /// Carries out what was gathered and what was left before. True if something is left that is no hurry.
    pub(super) async fn carry_out(&self, work: &mut Work, part: Part) -> bool {
        let Work { batch, held_back, has_failed } = work;
        let _watched = Watched(self);
        batch.extend(std::mem::take(&mut *self.gathered.lock()));
        if !*has_failed {
            let is_retry = self.retry.swap(false, Ordering::Relaxed);
            match self.store(batch, held_back, is_retry, part).await {
                Ok(is_done) => return !is_done,
                Err(error) => {
                    tracing::error!(error = %error, "the store failed; nothing is confirmed any more");
                    self.failure.send_replace(Some(Failure(error.to_string())));
                    *has_failed = true;
                }
            }
        }
        // No publisher waits for a confirm that cannot come.
        batch.refuse();
        *batch = Gathered::default();
        false
    }

    /// Carries out a batch; false if a part is left that is no hurry. What finds no room stays in it, and is tried again when somebody
    /// says so: each try makes the storage look for room.
    async fn store(
        &self,
        batch: &mut Gathered,
        held_back: &mut HeldBack,
        is_retry: bool,
        part: Part,
    ) -> Result<bool, StorageError> {
        let urgent_count = batch.urgent_count();
        let consumed = batch::take_consumed(&mut batch.appends, &mut batch.settled, &batch.deleted);
        if !consumed.is_empty() {
            held_back.forget();
        }
        batch::answer(consumed.into_iter(), true);
        if !batch.appends.is_empty() {
            self.latest_count.store(batch.appends.len(), Ordering::Relaxed);
        }
        // A queue's definition goes before its messages, and its end behind them.
        let mut full = self.store_definitions(&mut batch.definitions).await?;
        let is_defined = full.is_none();
        let is_stuck = self.is_stuck.load(Ordering::Relaxed);
        let may_have_room = is_retry || !is_stuck || !self.storage.status().is_full;
        let has_tried = is_defined && (may_have_room || batch.appends.is_empty());
        if has_tried {
            if is_retry {
                held_back.retry();
            }
            full = room::append(&*self.storage, &mut batch.appends, held_back, is_stuck && is_retry, &self.counters)
                .await?;
        }
        if has_tried || !is_defined {
            self.tell_of_room(full.as_deref());
        }
        batch.answer_barriers(true, |barrier| barrier == Barrier::Definitions && is_defined);
        if part == Part::Urgent && batch.urgent_count() < urgent_count && !batch.is_empty() {
            return Ok(false);
        }
        // What is done with is forgotten also on a full disk: that is what makes room.
        if !batch.settled.is_empty() {
            self.storage.settle(&batch.settled).await?;
            batch.settled.clear();
        }
        if !batch.marks.is_empty() {
            self.storage.mark(&batch.marks).await?;
            batch.marks.clear();
        }
        for queue in batch.deleted.drain(..) {
            self.storage.delete_queue(queue).await?;
        }
        batch.answer_barriers(true, |barrier| barrier == Barrier::Everything && has_tried && full.is_none());
        for (number, queue, load) in batch.loads.drain(..) {
            let waiting = waiting(&batch.appends, number, &load);
            self.pager.ask(Request { queue, number, load, waiting });
        }
        Ok(true)
    }

    /// Stores definitions; the reason if there is no room for them.
    async fn store_definitions(&self, definitions: &mut Vec<Entry>) -> Result<Option<String>, StorageError> {
        if definitions.is_empty() {
            return Ok(None);
        }
        let entries: Vec<Meta<'_>> =
            definitions.iter().map(|(key, value)| Meta { key, value: value.as_deref() }).collect();
        let stored = self.storage.put_meta(&entries).await;
        if stored.is_ok() {
            definitions.clear();
        }
        room::or_full(stored)
    }

    fn tell_of_room(&self, full: Option<&str>) {
        let was_stuck = self.is_stuck.swap(full.is_some(), Ordering::Relaxed);
        if was_stuck == full.is_some() {
            return;
        }
        let reason = full.unwrap_or_default();
        match News::of(full.is_some(), self.storage.status().is_full) {
            News::Full => {
                tracing::error!(
                    reason,
                    "the store is full: publishers of persistent messages wait until there is room"
                );
            }
            News::TooLarge => {
                tracing::error!(
                    reason,
                    "a message is too large for the room in the store: its queue waits, others go on"
                );
            }
            News::Room => tracing::warn!("the store has room again"),
            News::NothingWaits => tracing::warn!("nothing waits for room in the store any more, which is still full"),
        }
    }
}

/// Whoever carries out a batch may be a connection, whose end is no news. Half a batch is: nobody knows what became of it.
struct Watched<'a>(&'a Committer);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "a panic in the middle of a batch";
            tracing::error!(reason, "the store failed; nothing is confirmed any more");
            self.0.failure.send_replace(Some(Failure(reason.to_owned())));
        }
    }
}

/// What a load asks for and the store does not have yet, for want of room.
fn waiting(appends: &[Pending], number: u64, load: &Load) -> BTreeMap<u64, LoadedMessage> {
    let is_wanted = |queue: QueueKey, seq: u64| {
        // The ranges of a load ascend.
        let range = load.ranges.get(load.ranges.partition_point(|range| range.last < seq));
        range.is_some_and(|range| key(number, range.level, range.stored) == queue && range.first <= seq)
    };
    let wanted = appends.iter().filter(|(queue, append)| is_wanted(*queue, append.place.seq));
    let loaded = |append: &Append| {
        let (seq, message) = (append.place.seq, Arc::clone(&append.message));
        (seq, LoadedMessage { seq, came_ms: append.came_ms, message })
    };
    wanted.map(|(_, append)| loaded(append)).collect()
}
