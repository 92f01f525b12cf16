//! A storage that misbehaves, through the ABI.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::super::{Guest, Linkage};
use super::*;
use crate::config::Config;
use crate::error::Invalid;
use crate::storage::StorageType;
use crate::testing::{FakeHost, block_on};

/// Does what the queue's number says.
struct Odd {
    wakers: Mutex<Vec<Waker>>,
}

struct OddType;

/// Futures that are alive.
static ALIVE: AtomicU32 = AtomicU32::new(0);

struct Alive;

impl Alive {
    fn new() -> Self {
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

impl StorageType for OddType {
    fn name(&self) -> &str {
        "odd"
    }

    fn description(&self) -> &str {
        "misbehaves"
    }

    fn open(&self, spec: &StorageSpec) -> Result<Arc<dyn Storage>, Invalid> {
        match spec.config.as_json().as_str() {
            Some("refuse") => Err(Invalid::new(format!("not in {:?}", spec.folder))),
            Some("panic") => panic!("told to open"),
            _ => Ok(Arc::new(Odd { wakers: Mutex::default() })),
        }
    }
}

#[async_trait]
impl Storage for Odd {
    async fn append(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        let text = batch.iter().map(|message| message.routing_key).collect::<Vec<_>>().join(",");
        let targets: Vec<u64> = batch.iter().flat_map(|message| message.targets).map(|(queue, _)| queue.0).collect();
        Err(StorageError::Full(format!("{text} {targets:?}")))
    }

    async fn settle(&self, ranges: &[Settle]) -> Result<(), StorageError> {
        assert!(ranges.is_empty(), "told to settle");
        Ok(())
    }

    /// Waits for a waker from another thread, so many times.
    async fn delete_queue(&self, queue: QueueKey) -> Result<(), StorageError> {
        let _alive = Alive::new();
        let mut left = queue.0;
        std::future::poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            let waker = context.waker().clone();
            self.wakers.lock().unwrap().push(waker.clone());
            std::thread::spawn(move || waker.wake());
            Poll::Pending
        })
        .await;
        Ok(())
    }

    async fn read(&self, wanted: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        let Wanted { queue, first, last, count_max, bytes_max } = wanted;
        Err(StorageError::Damaged(format!("{} {}-{} {count_max} {bytes_max}", queue.0, first.0, last.0)))
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), StorageError> {
        Err(StorageError::Full(format!(
            "{:?}",
            marks.iter().map(|mark| (mark.queue.0, mark.last.0)).collect::<Vec<_>>()
        )))
    }

    async fn put_meta(&self, entries: &[Meta<'_>]) -> Result<(), StorageError> {
        let text = entries.iter().map(|Meta { key, value }| format!("{key:?} {value:?}")).collect::<Vec<_>>();
        Err(StorageError::Failed(text.join(", ")))
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        Ok(Recovered {
            meta: vec![(b"k".to_vec(), vec![]), (vec![], b"v".to_vec())],
            queues: vec![RecoveredQueue {
                queue: QueueKey(3),
                ranges: vec![(MessageSeq(1), MessageSeq(2)), (MessageSeq(9), MessageSeq(u64::MAX))],
                marked: Some(MessageSeq(0)),
            }],
        })
    }

    fn promise(&self) -> Durability {
        Durability::Os
    }

    fn status(&self) -> StorageStatus {
        panic!("told to tell")
    }
}

#[allow(unreachable_pub, reason = "what the macro makes is for the root of a crate")]
mod odd {
    use super::*;

    crate::export_plugin!(storages: [OddType]);

    pub(super) fn kind() -> GuestStorageType {
        let host = FakeHost::new().table(Linkage::LinkedIn);
        Guest::linked(&PLUGIN, host, &Config::default()).unwrap().storages.pop().unwrap()
    }
}

fn spec(mood: &str) -> StorageSpec {
    StorageSpec { config: Config::new(mood.into()), folder: Some("/données".into()) }
}

#[test]
fn refusals_errors_and_panics_are_told_apart() {
    let kind = odd::kind();
    assert_eq!((kind.name(), kind.description()), ("odd", "misbehaves"));
    let refused = kind.open(&spec("refuse")).err().unwrap();
    assert_eq!(refused, CallError::Refused("not in Some(\"/données\")".into()));
    assert_eq!(kind.open(&spec("panic")).err().unwrap(), CallError::Panicked("told to open".into()));

    let storage = kind.open(&spec("")).unwrap();
    let targets = [1, 2, 3].map(|queue| (QueueKey(queue), MessageSeq(0)));
    let message =
        |routing_key, targets| Append { targets, stamp: 0, exchange: "", routing_key, properties: &[], body: &[] };
    let batch = [message("a", &targets[..2]), message("b", &[]), message("é", &targets[2..])];
    assert_eq!(block_on(storage.append(&batch)), Err(StorageError::Full("a,b,é [1, 2, 3]".into())));
    assert_eq!(block_on(storage.append_unsynced(&[])), Err(StorageError::Full(" []".into())), "append stands in");
    assert_eq!(block_on(storage.settle(&[])), Ok(()));
    let range = Settle { queue: QueueKey(1), first: MessageSeq(0), last: MessageSeq(0) };
    let panicked = StorageError::Failed("the plugin panicked: told to settle".into());
    assert_eq!(block_on(storage.settle(&[range])), Err(panicked));
    let (queue, first, last) = (QueueKey(1), MessageSeq(2), MessageSeq(u64::MAX));
    let read = block_on(storage.read(Wanted { queue, first, last, count_max: 4, bytes_max: 5 }));
    assert_eq!(read, Err(StorageError::Damaged("1 2-18446744073709551615 4 5".into())));
    let marks = [Mark { queue, last: first }, Mark { queue: QueueKey(8), last }];
    let marked = block_on(storage.mark(&marks));
    assert_eq!(marked, Err(StorageError::Full("[(1, 2), (8, 18446744073709551615)]".into())));
    let entries = [Meta { key: b"k", value: None }, Meta { key: b"", value: Some(b"") }];
    let put = block_on(storage.put_meta(&entries));
    assert_eq!(put, Err(StorageError::Failed("[107] None, [] Some([])".into())));
    assert_eq!((storage.promise(), storage.status()), (Durability::Os, StorageStatus::default()));
    let recovered = block_on(storage.recover()).unwrap();
    assert_eq!((recovered.meta.len(), recovered.queues[0].ranges.len()), (2, 2));
    assert_eq!((recovered.queues[0].queue, recovered.queues[0].marked), (QueueKey(3), Some(MessageSeq(0))));
}

#[test]
fn futures_are_woken_from_other_threads_and_end_when_dropped() {
    let storage = odd::kind().open(&spec("")).unwrap();
    assert_eq!(block_on(storage.delete_queue(QueueKey(20))), Ok(()));
    assert_eq!(ALIVE.load(Ordering::SeqCst), 0);
    let mut future = storage.delete_queue(QueueKey(5));
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(ALIVE.load(Ordering::SeqCst), 1);
    drop(future);
    assert_eq!(ALIVE.load(Ordering::SeqCst), 0);
}
