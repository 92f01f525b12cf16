//! Group commit without timers: while one append is under way, the next batch gathers.
//!
//! Confirms of persistent messages leave here and nowhere else: acks are cumulative, so a second source could overtake the first
//! and confirm a message that is not stored yet. A publisher's credit comes back with its confirm, so that a slow store stops
//! publishers before memory grows. Transient messages never come here.

use std::sync::Arc;
use std::time::SystemTime;

use hashbrown::HashMap;
use parking_lot::Mutex;
use plugin_api::storage::{Append as Record, MessageSeq, Meta, QueueKey, Settle, Storage, StorageError};
use tokio::sync::{Notify, watch};

use super::definitions::{self, Entry};
use crate::message::Message;
use crate::queue::{Append, Notice, Numbers, Outlet, Reply, ReplyTo};
use crate::vhost::{Change, Ledger};

/// The store has failed; nothing is confirmed any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct Failure(pub String);

#[derive(Debug, Default)]
struct Gathered {
    appends: Vec<(QueueKey, Append)>,
    settled: Vec<(QueueKey, Vec<u64>)>,
    deleted: Vec<QueueKey>,
    definitions: Vec<Entry>,
    barriers: Vec<ReplyTo>,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.appends.is_empty()
            && self.settled.is_empty()
            && self.deleted.is_empty()
            && self.definitions.is_empty()
            && self.barriers.is_empty()
    }
}

impl Gathered {
    fn answer(self, is_stored: bool) {
        answer(self.appends, is_stored);
        for ReplyTo { outlet, channel } in self.barriers {
            let reply = if is_stored { Reply::Stored } else { Reply::StoreFailed };
            outlet.post(Notice::Reply { channel, reply });
        }
    }
}

impl Ledger for Committer {
    fn record(&self, vhost: &str, changes: Vec<Change>) {
        // Written down before the lock is taken, which every queue needs.
        let entries: Vec<Entry> = changes.iter().map(|change| definitions::entry(vhost, change)).collect();
        self.gathered.lock().definitions.extend(entries);
        self.wake.notify_one();
    }
}

/// See the module.
pub struct Committer {
    storage: Arc<dyn Storage>,
    gathered: Mutex<Gathered>,
    wake: Notify,
    failure: watch::Sender<Option<Failure>>,
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}

impl Committer {
    /// A committer for one storage. [`Self::run`] must be running for anything to be confirmed.
    pub fn new(storage: Arc<dyn Storage>) -> Arc<Self> {
        let (failure, _) = watch::channel(None);
        Arc::new(Self { storage, gathered: Mutex::default(), wake: Notify::new(), failure })
    }

    /// Takes what a queue wants stored and forgotten, in order; never waits.
    pub fn submit(&self, queue: u64, appends: impl Iterator<Item = Append>, settled: Vec<u64>) {
        let queue = QueueKey(queue);
        let mut gathered = self.gathered.lock();
        let was_empty = gathered.is_empty();
        gathered.appends.extend(appends.map(|append| (queue, append)));
        if !settled.is_empty() {
            gathered.settled.push((queue, settled));
        }
        let is_empty = gathered.is_empty();
        drop(gathered);
        if was_empty && !is_empty {
            self.wake.notify_one();
        }
    }

    /// A queue is gone, with everything that it stored.
    pub fn delete_queue(&self, queue: u64) {
        self.gathered.lock().deleted.push(QueueKey(queue));
        self.wake.notify_one();
    }

    /// Answers with [`Reply::Stored`] when everything that was submitted before is stored.
    pub fn barrier(&self, reply_to: ReplyTo) {
        self.gathered.lock().barriers.push(reply_to);
        self.wake.notify_one();
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

    /// Stores batch after batch, until the store fails.
    pub async fn run(self: Arc<Self>) {
        loop {
            let gathered = std::mem::take(&mut *self.gathered.lock());
            if gathered.is_empty() {
                self.wake.notified().await;
                continue;
            }
            let is_stored = self.store(&gathered).await;
            gathered.answer(is_stored.is_ok());
            match is_stored {
                Ok(()) => {}
                // Nothing of the batch was kept, and its publishers have been told. Room may come again.
                Err(StorageError::Full(reason)) => {
                    tracing::error!(reason, "the store is full; persistent messages are refused until there is room");
                }
                Err(error @ (StorageError::Failed(_) | StorageError::Damaged(_))) => {
                    tracing::error!(error = %error, "the store failed; nothing is confirmed any more");
                    self.failure.send_replace(Some(Failure(error.to_string())));
                    return self.refuse_for_ever().await;
                }
            }
        }
    }

    async fn store(&self, gathered: &Gathered) -> Result<(), StorageError> {
        // A queue's definition goes before its messages, and its end behind them.
        if !gathered.definitions.is_empty() {
            let entries: Vec<Meta<'_>> =
                gathered.definitions.iter().map(|(key, value)| Meta { key, value: value.as_deref() }).collect();
            self.storage.put_meta(&entries).await?;
        }
        // A full disk refuses messages, but what is done with must still be forgotten: that is what makes room.
        let appended = match self.append(&gathered.appends).await {
            Err(error @ (StorageError::Failed(_) | StorageError::Damaged(_))) => return Err(error),
            appended => appended,
        };
        let ranges: Vec<Settle> = gathered.settled.iter().flat_map(|(queue, seqs)| ranges(*queue, seqs)).collect();
        if !ranges.is_empty() {
            self.storage.settle(&ranges).await?;
        }
        for &queue in &gathered.deleted {
            self.storage.delete_queue(queue).await?;
        }
        appended
    }

    async fn append(&self, appends: &[(QueueKey, Append)]) -> Result<(), StorageError> {
        if appends.is_empty() {
            return Ok(());
        }
        let groups = group(appends);
        let stamp = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let records: Vec<Record<'_>> =
            groups.iter().map(|(message, targets)| record(message, targets, stamp)).collect();
        self.storage.append(&records).await
    }

    /// After a failure every publish is refused, so that no publisher waits for a confirm that cannot come.
    async fn refuse_for_ever(&self) {
        loop {
            let gathered = std::mem::take(&mut *self.gathered.lock());
            gathered.answer(false);
            self.wake.notified().await;
        }
    }
}

type Group<'a> = (&'a Message, Vec<(QueueKey, MessageSeq)>);

/// One record per message, however many queues hold it.
fn group(appends: &[(QueueKey, Append)]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::with_capacity(appends.len());
    let is_one_queue = appends.windows(2).all(|pair| pair[0].0 == pair[1].0);
    let mut place_of: HashMap<*const Message, usize> = HashMap::new();
    for (queue, append) in appends {
        let target = (*queue, MessageSeq(append.seq));
        if is_one_queue {
            groups.push((&append.message, vec![target]));
            continue;
        }
        let place = *place_of.entry(Arc::as_ptr(&append.message)).or_insert_with(|| {
            groups.push((&append.message, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(target);
    }
    groups
}

fn record<'a>(message: &'a Message, targets: &'a [(QueueKey, MessageSeq)], stamp: u64) -> Record<'a> {
    Record {
        targets,
        stamp,
        exchange: message.exchange(),
        routing_key: message.routing_key(),
        properties: message.properties().raw(),
        body: message.body(),
    }
}

/// Runs of neighbours as ranges.
fn ranges(queue: QueueKey, seqs: &[u64]) -> impl Iterator<Item = Settle> {
    seqs.chunk_by(|a, b| a + 1 == *b).filter_map(move |run| {
        let (first, last) = (*run.first()?, *run.last()?);
        Some(Settle { queue, first: MessageSeq(first), last: MessageSeq(last) })
    })
}

/// Tells publishers what became of their messages and gives their credit back, one notice per run of the same publisher.
fn answer(appends: Vec<(QueueKey, Append)>, is_taken: bool) {
    let mut run: Option<(Arc<dyn Outlet>, Vec<Numbers>, usize)> = None;
    let finish = |(outlet, numbers, bytes): (Arc<dyn Outlet>, Vec<Numbers>, usize)| {
        if !numbers.is_empty() {
            outlet.post(Notice::Confirmed { numbers, is_taken });
        }
        outlet.publishes_processed(bytes);
    };
    for (_, append) in appends {
        let Some(origin) = append.origin else { continue };
        if run.as_ref().is_some_and(|(outlet, ..)| !Arc::ptr_eq(outlet, &origin))
            && let Some(run) = run.take()
        {
            finish(run);
        }
        let (_, numbers, bytes) = run.get_or_insert_with(|| (origin, Vec::new(), 0));
        *bytes += append.message.weight();
        if append.number != 0 {
            Numbers::add(numbers, append.channel, append.number);
        }
    }
    if let Some(run) = run {
        finish(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Parts;

    #[test]
    fn settled_runs_become_ranges() {
        let ranges: Vec<(u64, u64)> =
            ranges(QueueKey(1), &[1, 2, 3, 7, 9, 10]).map(|range| (range.first.0, range.last.0)).collect();
        assert_eq!(ranges, [(1, 3), (7, 7), (9, 10)]);
    }

    #[test]
    fn a_message_for_many_queues_is_one_record() {
        let parts = Parts { exchange: "x", routing_key: "k", properties: &[0, 0] };
        let (one, other) = (Message::new(parts, b"1"), Message::new(parts, b"2"));
        let append = |queue, seq, message: &Arc<Message>| {
            let message = Arc::clone(message);
            (QueueKey(queue), Append { seq, message, origin: None, channel: 1, number: 0 })
        };
        let appends = [append(1, 5, &one), append(1, 6, &other), append(2, 9, &one)];
        let targets: Vec<Vec<(u64, u64)>> = group(&appends)
            .into_iter()
            .map(|(_, targets)| targets.into_iter().map(|(queue, seq)| (queue.0, seq.0)).collect())
            .collect();
        assert_eq!(targets, [vec![(1, 5), (2, 9)], vec![(1, 6)]]);
    }
}
