//! The committer in front of a storage that is full.

mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use plugin_api::async_trait;
use plugin_api::storage::{
    Append as Record, Durability, Mark, Meta, QueueKey, Recovered, Settle, Storage, StorageError, StorageStatus,
    StoredMessage, Wanted,
};

use super::{Barrier, Committer, StoreLedger, Submission};
use crate::message::{Message, Parts};
use crate::queue::{Append, Notice, Numbers, Outlet, Place, Reply, ReplyTo, SeqRange, Stored};
use crate::vhost::{Change, Ledger};

/// Has room for so many bytes of bodies, and says what it was given. Definitions find room, as in a log with a reserve.
#[derive(Default)]
struct Small {
    room_bytes: AtomicUsize,
    /// Bytes of bodies that appends came with, taken or not.
    offered_bytes: AtomicUsize,
    places: Mutex<Vec<(u64, u64)>>,
    settled: Mutex<Vec<(u64, u64)>>,
    panics: AtomicBool,
}

#[async_trait]
impl Storage for Small {
    async fn append(&self, batch: &[Record<'_>]) -> Result<(), StorageError> {
        assert!(!self.panics.load(Ordering::SeqCst), "told to");
        let bytes: usize = batch.iter().map(|record| record.body.len()).sum();
        self.offered_bytes.fetch_add(bytes, Ordering::SeqCst);
        if bytes > self.room_bytes.load(Ordering::SeqCst) {
            return Err(StorageError::Full("small".into()));
        }
        self.room_bytes.fetch_sub(bytes, Ordering::SeqCst);
        let places = batch.iter().flat_map(|record| record.targets).map(|(queue, seq)| (queue.0, seq.0));
        self.places.lock().extend(places);
        Ok(())
    }

    async fn append_unsynced(&self, batch: &[Record<'_>]) -> Result<(), StorageError> {
        self.append(batch).await
    }

    async fn settle(&self, ranges: &[Settle]) -> Result<(), StorageError> {
        self.settled.lock().extend(ranges.iter().map(|range| (range.first.0, range.last.0)));
        Ok(())
    }

    async fn delete_queue(&self, _: QueueKey) -> Result<(), StorageError> {
        Ok(())
    }

    async fn read(&self, _: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        Ok(Vec::new())
    }

    async fn mark(&self, _: &[Mark]) -> Result<(), StorageError> {
        Ok(())
    }

    async fn put_meta(&self, _: &[Meta<'_>]) -> Result<(), StorageError> {
        Ok(())
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        Ok(Recovered::default())
    }

    fn promise(&self) -> Durability {
        Durability::Synced
    }

    fn status(&self) -> StorageStatus {
        let is_full = self.room_bytes.load(Ordering::SeqCst) < BODY_BYTES;
        StorageStatus { is_full, ..StorageStatus::default() }
    }
}

/// A publisher: what was confirmed to it, and the credit that it got back.
#[derive(Debug, Default)]
struct Publisher {
    confirmed: Mutex<Vec<Numbers>>,
    processed_bytes: AtomicUsize,
}

impl Outlet for Publisher {
    fn post(&self, notice: Notice) {
        if let Notice::Confirmed { numbers, is_taken: true } = notice {
            self.confirmed.lock().extend(numbers);
        }
    }

    fn publishes_processed(&self, bytes: usize) {
        self.processed_bytes.fetch_add(bytes, Ordering::SeqCst);
    }
}

const BODY_BYTES: usize = 128 * 1024;

fn append(seq: u64, message: &Arc<Message>, publisher: &Arc<Publisher>) -> Append {
    let origin: Arc<dyn Outlet> = Arc::<Publisher>::clone(publisher);
    let (message, number, place) = (Arc::clone(message), seq, Place { level: 0, seq });
    Append {
        place,
        message,
        stored: Stored::Lasting,
        came_ms: 1,
        is_synced: true,
        origin: Some(origin),
        channel: 1,
        number,
    }
}

fn submit(committer: &Committer, queue: u64, appends: Vec<Append>, settled: &[SeqRange]) {
    let appends = appends.into_iter();
    committer.submit(Submission { queue, appends, settled, marks: &[], load: None });
}

/// Lets the committer work until nothing is left to do for it.
async fn settle_down() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn message() -> Arc<Message> {
    Message::new(Parts { exchange: "", routing_key: "q", properties: &[0, 0] }, &vec![0; BODY_BYTES])
}

#[tokio::test]
async fn a_full_disk_takes_what_fits_in_order_and_the_rest_later() {
    let storage = Arc::new(Small::default());
    let committer = Committer::new(Arc::<Small>::clone(&storage));
    tokio::spawn(Arc::clone(&committer).run());
    let publisher = Arc::new(Publisher::default());
    let message = message();
    submit(&committer, 1, (1..=9).map(|seq| append(seq, &message, &publisher)).collect(), &[]);
    settle_down().await;
    assert_eq!(*storage.places.lock(), []);
    // Room for five of nine.
    storage.room_bytes.store(5 * BODY_BYTES, Ordering::SeqCst);
    committer.retry();
    settle_down().await;
    assert_eq!(*storage.places.lock(), [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)], "what fits");
    assert_eq!(
        *publisher.confirmed.lock(),
        [(1, 2), (3, 4), (5, 5)].map(|(first, last)| Numbers { channel: 1, first, last })
    );
    assert_eq!(publisher.processed_bytes.load(Ordering::SeqCst), 5 * message.weight());
    // What is consumed while it waits is confirmed, and never written.
    submit(&committer, 1, Vec::new(), &[SeqRange { level: 0, first: 3, last: 6, stored: Stored::Lasting }]);
    settle_down().await;
    assert_eq!(*storage.settled.lock(), [(3, 5)]);
    storage.room_bytes.store(usize::MAX, Ordering::SeqCst);
    committer.retry();
    settle_down().await;
    assert_eq!(storage.places.lock()[5..], [(1, 7), (1, 8), (1, 9)]);
    assert_eq!(publisher.processed_bytes.load(Ordering::SeqCst), 9 * message.weight());
}

#[tokio::test]
async fn a_full_disk_is_not_offered_everything_again_and_again() {
    let storage = Arc::new(Small::default());
    let committer = Committer::new(Arc::<Small>::clone(&storage));
    tokio::spawn(Arc::clone(&committer).run());
    let (publisher, message) = (Arc::new(Publisher::default()), message());
    submit(&committer, 1, (1..=200).map(|seq| append(seq, &message, &publisher)).collect(), &[]);
    settle_down().await;
    let before = storage.offered_bytes.load(Ordering::SeqCst);
    assert_eq!(before, 200 * BODY_BYTES);
    for seq in 1..=10 {
        submit(&committer, 2, Vec::new(), &[SeqRange::one(0, seq, Stored::Lasting)]);
        settle_down().await;
    }
    assert_eq!(storage.offered_bytes.load(Ordering::SeqCst), before, "settling is no reason to try");
    committer.retry();
    settle_down().await;
    assert!(storage.offered_bytes.load(Ordering::SeqCst) - before <= 20 * BODY_BYTES);
}

#[tokio::test]
async fn a_message_of_two_queues_does_not_overtake_on_a_full_disk() {
    let storage = Arc::new(Small::default());
    let committer = Committer::new(Arc::<Small>::clone(&storage));
    tokio::spawn(Arc::clone(&committer).run());
    let publisher = Arc::new(Publisher::default());
    let (shared, filler) = (message(), message());
    submit(&committer, 1, vec![append(1, &shared, &publisher)], &[]);
    submit(&committer, 2, vec![append(8, &filler, &publisher), append(9, &filler, &publisher)], &[]);
    submit(&committer, 2, vec![append(10, &shared, &publisher)], &[]);
    settle_down().await;
    storage.room_bytes.store(3 * BODY_BYTES, Ordering::SeqCst);
    committer.retry();
    settle_down().await;
    let places: Vec<(u64, u64)> = storage.places.lock().clone();
    assert_eq!(places, [(1, 1), (2, 8), (2, 9)], "nothing of a queue is stored before what stands in front of it");
    // So what is settled in the store is all that the store has.
    submit(&committer, 2, Vec::new(), &[SeqRange { level: 0, first: 8, last: 10, stored: Stored::Lasting }]);
    settle_down().await;
    assert_eq!(*storage.settled.lock(), [(8, 9)]);
}

#[tokio::test]
async fn a_message_that_never_fits_holds_back_its_own_queue_alone() {
    let storage = Arc::new(Small::default());
    let committer = Committer::new(Arc::<Small>::clone(&storage));
    tokio::spawn(Arc::clone(&committer).run());
    let (publisher, small) = (Arc::new(Publisher::default()), message());
    let parts = Parts { exchange: "", routing_key: "q", properties: &[0, 0] };
    let large = Message::new(parts, &vec![0; 8 * BODY_BYTES]);
    submit(&committer, 1, vec![append(1, &large, &publisher), append(2, &small, &publisher)], &[]);
    submit(&committer, 2, vec![append(1, &small, &publisher)], &[]);
    submit(&committer, 3, vec![append(7, &small, &publisher)], &[]);
    settle_down().await;
    storage.room_bytes.store(4 * BODY_BYTES, Ordering::SeqCst);
    committer.retry();
    settle_down().await;
    assert_eq!(*storage.places.lock(), [(2, 1), (3, 7)]);
    storage.room_bytes.store(usize::MAX, Ordering::SeqCst);
    committer.retry();
    settle_down().await;
    assert_eq!(storage.places.lock()[2..], [(1, 1), (1, 2)]);
}

#[tokio::test]
async fn a_message_that_never_fits_is_seldom_offered_and_slows_nobody_down() {
    const LARGE_BYTES: usize = 8 * BODY_BYTES;
    let storage = Arc::new(Small::default());
    let committer = Committer::new(Arc::<Small>::clone(&storage));
    tokio::spawn(Arc::clone(&committer).run());
    let (publisher, small) = (Arc::new(Publisher::default()), message());
    storage.room_bytes.store(LARGE_BYTES - 1, Ordering::SeqCst);
    let parts = Parts { exchange: "", routing_key: "q", properties: &[0, 0] };
    let large = Message::new(parts, &vec![0; LARGE_BYTES]);
    submit(&committer, 1, vec![append(1, &large, &publisher)], &[]);
    settle_down().await;
    committer.retry();
    settle_down().await;
    let offered = || storage.offered_bytes.swap(0, Ordering::SeqCst);
    assert_eq!(offered(), 2 * LARGE_BYTES);
    for seq in 1..=5 {
        submit(&committer, 2, vec![append(seq, &small, &publisher)], &[]);
        settle_down().await;
        assert_eq!((storage.places.lock().len(), offered()), (seq as usize, BODY_BYTES), "no retry is needed");
    }
    for _ in 0..100 {
        committer.retry();
        settle_down().await;
    }
    assert!(offered() <= 8 * LARGE_BYTES);
    storage.room_bytes.store(usize::MAX, Ordering::SeqCst);
    for _ in 0..64 {
        committer.retry();
        settle_down().await;
    }
    assert_eq!(storage.places.lock().last(), Some(&(1, 1)));
    // When it is consumed while it waits, others of its queue need not wait for the next try.
    storage.room_bytes.store(LARGE_BYTES - 1, Ordering::SeqCst);
    submit(&committer, 1, vec![append(2, &large, &publisher), append(3, &small, &publisher)], &[]);
    settle_down().await;
    for _ in 0..3 {
        committer.retry();
        settle_down().await;
    }
    submit(&committer, 1, Vec::new(), &[SeqRange::one(0, 2, Stored::Lasting)]);
    settle_down().await;
    assert_eq!(storage.places.lock().last(), Some(&(1, 3)));
}

#[test]
fn the_end_of_waiting_is_not_taken_for_room() {
    use super::room::News;
    let news = [(true, true), (true, false), (false, true), (false, false)];
    let told = news.map(|(is_waiting, is_full)| News::of(is_waiting, is_full));
    assert_eq!(told, [News::Full, News::TooLarge, News::NothingWaits, News::Room]);
}

/// What a barrier's owner was told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<&'static str>>);

impl Outlet for Told {
    fn post(&self, notice: Notice) {
        self.0.lock().push(match notice {
            Notice::Reply { reply: Reply::Stored, .. } => "stored",
            _ => "something else",
        });
    }

    fn publishes_processed(&self, _: usize) {}
}

#[tokio::test]
async fn definitions_do_not_wait_for_messages_that_find_no_room() {
    let storage = Arc::new(Small::default());
    let committer = Committer::new(Arc::<Small>::clone(&storage));
    tokio::spawn(Arc::clone(&committer).run());
    let ledger = StoreLedger::new(Arc::clone(&committer));
    let (publisher, message) = (Arc::new(Publisher::default()), message());
    submit(&committer, 1, vec![append(1, &message, &publisher)], &[]);
    settle_down().await;
    // A consumer that must get in to make room declares first.
    ledger.record("/", vec![Change::QueueRemoved("q".into())]);
    let (declared, all) = (Arc::new(Told::default()), Arc::new(Told::default()));
    let reply_to = |outlet: &Arc<Told>| ReplyTo { outlet: Arc::<Told>::clone(outlet), channel: 1 };
    committer.barrier(Barrier::Definitions, reply_to(&declared));
    committer.barrier(Barrier::Everything, reply_to(&all));
    settle_down().await;
    assert_eq!((declared.0.lock().as_slice(), all.0.lock().as_slice()), (&["stored"][..], &[][..]));
    assert!(ledger.is_stored(), "and who declares what is there already need not wait");
    storage.room_bytes.store(BODY_BYTES, Ordering::SeqCst);
    committer.retry();
    settle_down().await;
    assert_eq!(*all.0.lock(), ["stored"]);
}
