//! What the broker relies on in every storage.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{FakeHost, Random, block_on};
use crate::abi::LinkedPlugin;
use crate::abi::guest::{Guest, Linkage};
use crate::config::Config;
use crate::storage::{
    Append, Durability, Mark, MessageSeq, Meta, QueueKey, Recovered, RecoveredQueue, Settle, Storage, StorageSpec,
    StorageType, StoredMessage, Wanted,
};

/// The suite for all storages of `plugin`, through the ABI as the broker calls them.
///
/// # Panics
/// When the plugin does not register.
#[must_use]
pub fn storages(plugin: &'static LinkedPlugin) -> StorageSuite {
    let guest = Guest::linked(plugin, FakeHost::new().table(Linkage::LinkedIn), &Config::default())
        .unwrap_or_else(|error| panic!("the plugin registers: {error}"));
    assert!(!guest.storages.is_empty(), "the plugin offers a storage");
    let mut suite = StorageSuite { kinds: Vec::new(), config: Config::default() };
    for storage in guest.storages {
        assert!(!storage.name().is_empty(), "the storage has a name");
        assert!(!storage.description().is_empty(), "the storage has a description");
        let name = storage.name().to_owned();
        suite = suite.and(&name, move |spec| storage.open(spec).map_err(|error| error.to_string()));
    }
    suite
}

/// The suite for a kind of storage, called as a Rust trait.
pub fn storage(storage_type: impl StorageType) -> StorageSuite {
    let name = storage_type.name().to_owned();
    opened_storages(&name, move |spec| storage_type.open(spec).map_err(|error| error.to_string()))
}

/// The suite for whatever `open` opens, such as a storage from a file.
pub fn opened_storages(
    name: &str,
    open: impl Fn(&StorageSpec) -> Result<Arc<dyn Storage>, String> + 'static,
) -> StorageSuite {
    StorageSuite { kinds: Vec::new(), config: Config::default() }.and(name, open)
}

type Open = dyn Fn(&StorageSpec) -> Result<Arc<dyn Storage>, String>;

/// The suite. Each test gets a folder of its own, which is removed afterwards.
pub struct StorageSuite {
    kinds: Vec<(String, Box<Open>)>,
    config: Config,
}

impl StorageSuite {
    /// The configuration of the storage.
    #[must_use]
    pub fn config(mut self, config: serde_json::Value) -> Self {
        self.config = Config::new(config);
        self
    }

    /// Runs everything.
    ///
    /// # Panics
    /// With the rule that is broken.
    pub fn run(&self) {
        self.kinds.iter().for_each(|(name, open)| Case { name, open, config: &self.config }.run());
    }

    fn and(mut self, name: &str, open: impl Fn(&StorageSpec) -> Result<Arc<dyn Storage>, String> + 'static) -> Self {
        self.kinds.push((name.to_owned(), Box::new(open)));
        self
    }
}

/// One kind of storage.
struct Case<'a> {
    name: &'a str,
    open: &'a Open,
    config: &'a Config,
}

impl Case<'_> {
    fn run(&self) {
        block_on(async {
            self.a_new_storage_is_empty().await;
            self.what_is_appended_can_be_read().await;
            self.a_read_ends_where_it_is_told().await;
            self.settled_messages_are_gone().await;
            self.a_deleted_queue_is_gone().await;
            self.meta_entries_are_set_and_removed().await;
            self.many_meta_entries_are_put_at_once().await;
            self.marks_rise_and_go_with_their_queue().await;
            self.unsynced_messages_are_there().await;
            self.contents_are_kept_as_they_are().await;
            self.calls_of_several_threads_do_not_disturb_each_other().await;
            self.random_calls_agree_with_a_model().await;
            self.opening_again_keeps_the_promise().await;
        });
    }

    async fn a_new_storage_is_empty(&self) {
        let storage = self.open();
        assert_eq!(storage.recovered().await, Recovered::default(), "a new storage is empty");
        assert_eq!(storage.read(1, 0, 10).await, [], "a queue that nobody wrote to is empty");
    }

    async fn what_is_appended_can_be_read(&self) {
        let storage = self.open();
        storage.append(&[(&[(1, 5), (2, 9)], "both"), (&[(1, 6)], "one"), (&[], "none")]).await;
        storage.append(&[(&[(1, 8)], "late")]).await;
        storage.append(&[]).await;
        assert_eq!(storage.read(1, 0, 10).await, [(5, "both"), (6, "one"), (8, "late")].map(owned));
        assert_eq!(
            storage.read(1, 6, 1).await,
            [(6, "one")].map(owned),
            "a read begins at `from`, and ends at the count"
        );
        assert_eq!(storage.read(1, 7, 10).await, [(8, "late")].map(owned), "`from` need not be a message");
        assert_eq!(storage.read(1, 0, 0).await, []);
        assert_eq!(storage.read(2, 0, 10).await, [(9, "both")].map(owned), "each queue has its own position");
        assert_eq!(storage.ranges().await, [(1, vec![(5, 6), (8, 8)]), (2, vec![(9, 9)])]);
    }

    async fn a_read_ends_where_it_is_told(&self) {
        let storage = self.open();
        // Of differing length, so that an average does not do; each counts its names and properties, too.
        let body = |seq: u64| "b".repeat(usize::try_from(seq * 37 % 100).unwrap_or_default());
        let seqs: Vec<u64> = (10..60).filter(|seq| seq % 7 != 0).collect();
        for chunk in seqs.chunks(9) {
            let bodies: Vec<([(u64, u64); 1], String)> = chunk.iter().map(|seq| ([(1, *seq)], body(*seq))).collect();
            let batch: Vec<(&[(u64, u64)], &str)> =
                bodies.iter().map(|(targets, body)| (&targets[..], body.as_str())).collect();
            storage.append(&batch).await;
        }
        for (first, last, count_max, bytes_max) in [
            (0, u64::MAX, 100, usize::MAX),
            (12, 30, 100, usize::MAX),
            (14, 14, 100, usize::MAX),
            (15, 15, 100, usize::MAX),
            (30, 12, 100, usize::MAX),
            (11, 40, 7, usize::MAX),
            (11, 40, 0, usize::MAX),
            (0, u64::MAX, 100, 0),
            (0, u64::MAX, 100, 1000),
            (0, u64::MAX, 3, 1000),
            (25, 50, 100, 2000),
        ] {
            let mut bytes = 0;
            let mut expected = Vec::new();
            for seq in seqs.iter().filter(|seq| (first..=last).contains(*seq)).take(count_max) {
                let message = owned((*seq, &body(*seq)));
                bytes += message.bytes();
                if bytes > bytes_max && !expected.is_empty() {
                    break;
                }
                expected.push(message);
            }
            let (first, last) = (MessageSeq(first), MessageSeq(last));
            let wanted = Wanted { queue: QueueKey(1), first, last, count_max, bytes_max };
            let found = storage.inner.read(wanted).await.unwrap_or_else(|error| panic!("read: {error}"));
            assert_eq!(found, expected, "{wanted:?}");
        }
    }

    async fn settled_messages_are_gone(&self) {
        let storage = self.open();
        for seq in 0..10 {
            storage.append(&[(&[(1, seq), (2, seq)], "m")]).await;
        }
        storage.settle(&[(1, 2, 4), (1, 7, 7), (2, 0, u64::MAX), (3, 0, 9), (1, 9, 8)]).await;
        assert_eq!(storage.ranges().await, [(1, vec![(0, 1), (5, 6), (8, 9)])], "ranges are inclusive; others stay");
        storage.settle(&[(1, 0, 9), (1, 0, 9)]).await;
        assert_eq!(storage.ranges().await, [], "settling twice does no harm");
    }

    async fn a_deleted_queue_is_gone(&self) {
        let storage = self.open();
        storage.append(&[(&[(1, 0), (2, 0)], "m")]).await;
        storage.delete(1).await;
        storage.delete(7).await;
        assert_eq!(storage.read(1, 0, 10).await, []);
        assert_eq!(storage.read(2, 0, 10).await, [(0, "m")].map(owned), "another queue keeps the message");
    }

    async fn meta_entries_are_set_and_removed(&self) {
        let storage = self.open();
        for (key, value) in
            [("b", Some("1")), ("a", Some("")), ("b", Some("2")), ("c", Some("3")), ("c", None), ("d", None)]
        {
            storage.put_meta(key, value).await;
        }
        let expected = [("a", ""), ("b", "2")].map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()));
        assert_eq!(storage.recovered().await.meta, expected, "entries are sorted, the last value counts");
    }

    async fn many_meta_entries_are_put_at_once(&self) {
        let storage = self.open();
        let keys: Vec<String> = (0..2000).map(|number| format!("key {number:04}")).collect();
        let value = |key: &'static [u8]| Some(key);
        let mut entries: Vec<Meta<'_>> =
            keys.iter().map(|key| Meta { key: key.as_bytes(), value: value(b"v") }).collect();
        // Later entries count, as if they were put one after the other.
        entries.push(Meta { key: b"key 0000", value: None });
        entries.push(Meta { key: b"key 0001", value: value(b"w") });
        storage.inner.put_meta(&entries).await.unwrap_or_else(|error| panic!("put_meta: {error}"));
        storage.inner.put_meta(&[]).await.unwrap_or_else(|error| panic!("put_meta: {error}"));
        let check = |meta: Vec<(Vec<u8>, Vec<u8>)>| {
            assert_eq!((meta.len(), &meta[0]), (1999, &(b"key 0001".to_vec(), b"w".to_vec())));
            assert!(meta[1..].iter().all(|(_, value)| value == b"v"), "entries are set");
        };
        check(storage.recovered().await.meta);
        if storage.inner.promise() != Durability::ProcessLifetime {
            check(storage.reopen(self).recovered().await.meta);
        }
    }

    /// A storage that keeps no marks passes, too; what it does keep must be right.
    async fn marks_rise_and_go_with_their_queue(&self) {
        let storage = self.open();
        let marked = async |storage: &Opened, queue: u64| {
            let queues = storage.recovered().await.queues;
            queues.into_iter().find(|found| found.queue.0 == queue).and_then(|found| found.marked).map(|seq| seq.0)
        };
        storage.append(&[(&[(1, 5), (2, 5), (3, 5)], "m"), (&[(1, 6), (2, 6)], "m"), (&[(1, 9)], "m")]).await;
        assert_eq!(marked(&storage, 1).await, None, "nothing is marked at first");
        storage.mark(&[(1, 6), (2, 5), (7, 1)]).await;
        if marked(&storage, 1).await.is_none() {
            return;
        }
        storage.mark(&[(1, 5)]).await;
        assert_eq!((marked(&storage, 1).await, marked(&storage, 2).await), (Some(6), Some(5)), "marks do not fall");
        assert_eq!(marked(&storage, 3).await, None, "each queue has its own mark");
        storage.mark(&[(3, 20)]).await;
        assert_eq!(marked(&storage, 3).await, Some(5), "no mark is beyond the last message");
        storage.append(&[(&[(3, 19)], "m")]).await;
        assert_eq!(marked(&storage, 3).await, Some(19), "a message may come behind its mark");
        storage.settle(&[(1, 5, 6)]).await;
        storage.delete(2).await;
        storage.append(&[(&[(2, 7), (4, 1)], "m")]).await;
        let mut storage = storage;
        for _ in 0..2 {
            let found = [marked(&storage, 1).await, marked(&storage, 2).await, marked(&storage, 4).await];
            assert_eq!(found, [Some(6), None, None], "a deleted queue has no mark");
            // It need not have survived an end without a sync; the append above syncs.
            if storage.inner.promise() == Durability::ProcessLifetime {
                return;
            }
            storage = storage.reopen(self);
        }
    }

    async fn unsynced_messages_are_there(&self) {
        let storage = self.open();
        let targets = [(QueueKey(1), MessageSeq(7))];
        let message = Append { targets: &targets, stamp: 0, exchange: "", routing_key: "", properties: &[], body: &[] };
        let appended = storage.inner.append_unsynced(&[message]).await;
        appended.unwrap_or_else(|error| panic!("append_unsynced: {error}"));
        assert_eq!(storage.ranges().await, [(1, vec![(7, 7)])]);
    }

    async fn contents_are_kept_as_they_are(&self) {
        let storage = self.open();
        let bodies: Vec<Vec<u8>> =
            [0, 1, 255, 4096, 3_000_000].map(|length: usize| vec![length as u8 | 1; length]).into();
        let long = "é".repeat(127);
        let targets: Vec<[(QueueKey, MessageSeq); 1]> =
            (u64::MAX - 4..=u64::MAX).map(|seq| [(QueueKey(u64::MAX), MessageSeq(seq))]).collect();
        let stamps = [0, 1, u64::MAX, 1 << 63, 1_700_000_000_000];
        let batch: Vec<Append<'_>> = bodies
            .iter()
            .zip(&targets)
            .zip(stamps)
            .map(|((body, targets), stamp)| Append {
                targets,
                stamp,
                exchange: &long,
                routing_key: "",
                properties: PROPERTIES,
                body,
            })
            .collect();
        storage.inner.append(&batch).await.unwrap_or_else(|error| panic!("append: {error}"));
        let mut found = Vec::new();
        // A read may answer less than was asked for when messages are large.
        while found.len() < bodies.len() {
            let next = u64::MAX - 4 + found.len() as u64;
            let read = storage.read(u64::MAX, next, 10).await;
            assert!(!read.is_empty(), "a read answers something when something is there");
            found.extend(read);
        }
        assert_eq!(found.iter().map(|message| message.stamp).collect::<Vec<_>>(), stamps);
        for ((message, body), seq) in found.iter().zip(&bodies).zip(u64::MAX - 4..=u64::MAX) {
            assert_eq!((message.seq.0, message.exchange.as_str(), message.routing_key.as_str()), (seq, &*long, ""));
            assert!(message.body == *body && message.properties == PROPERTIES, "body of {} bytes", body.len());
        }
    }

    async fn calls_of_several_threads_do_not_disturb_each_other(&self) {
        let storage = self.open();
        std::thread::scope(|scope| {
            for queue in 1..=4 {
                let storage = &storage.inner;
                scope.spawn(move || {
                    for seq in 0..50 {
                        let targets = [(QueueKey(queue), MessageSeq(seq))];
                        let body = seq.to_string();
                        let message = Append {
                            targets: &targets,
                            stamp: STAMP,
                            exchange: EXCHANGE,
                            routing_key: ROUTING_KEY,
                            properties: PROPERTIES,
                            body: body.as_bytes(),
                        };
                        block_on(storage.append(&[message])).unwrap_or_else(|error| panic!("append: {error}"));
                        let (first, last) = (MessageSeq(seq), MessageSeq(u64::MAX));
                        let wanted =
                            Wanted { queue: QueueKey(queue), first, last, count_max: 2, bytes_max: usize::MAX };
                        let read = block_on(storage.read(wanted));
                        assert_eq!(read, Ok(vec![owned((seq, &body))]), "what is appended can be read at once");
                    }
                });
            }
        });
        let expected: Vec<(u64, Vec<(u64, u64)>)> = (1..=4).map(|queue| (queue, vec![(0, 49)])).collect();
        assert_eq!(storage.ranges().await, expected);
    }

    async fn random_calls_agree_with_a_model(&self) {
        let storage = self.open();
        let mut model: Vec<Vec<u64>> = vec![Vec::new(); 4];
        let mut random = Random::new(3);
        for next in 0..400_u64 {
            let queue = random.below(4);
            let live = &mut model[queue as usize];
            match random.below(10) {
                0..6 => {
                    storage.append(&[(&[(queue.into(), next)], "m")]).await;
                    live.push(next);
                }
                6..9 => {
                    let first = next.saturating_sub(random.below(60).into());
                    let last = first + u64::from(random.below(20));
                    storage.settle(&[(queue.into(), first, last)]).await;
                    live.retain(|seq| !(first..=last).contains(seq));
                }
                _ => {
                    storage.delete(queue.into()).await;
                    live.clear();
                }
            }
            let from = next.saturating_sub(30);
            let expected: Vec<_> =
                live.iter().filter(|seq| **seq >= from).take(5).map(|seq| owned((*seq, "m"))).collect();
            assert_eq!(storage.read(queue.into(), from, 5).await, expected, "queue {queue} after call {next}");
        }
    }

    async fn opening_again_keeps_the_promise(&self) {
        let storage = self.open();
        storage.append(&[(&[(1, 0), (1, 1)], "m")]).await;
        storage.settle(&[(1, 0, 0)]).await;
        storage.put_meta("k", Some("v")).await;
        let promise = storage.inner.promise();
        let again = storage.reopen(self);
        let found = again.recovered().await;
        if promise == Durability::ProcessLifetime {
            assert_eq!(found, Recovered::default(), "a storage that promises nothing is empty when opened again");
            return;
        }
        assert_eq!(found.meta, [(b"k".to_vec(), b"v".to_vec())], "metadata is kept");
        let is_live = |seq: u64| {
            let covers = |(first, last): &(MessageSeq, MessageSeq)| (first.0..=last.0).contains(&seq);
            found.queues.iter().any(|queue| queue.queue == QueueKey(1) && queue.ranges.iter().any(covers))
        };
        // Message 0 may be back: settling need not survive.
        assert!(is_live(1), "an appended message is kept");
        assert_eq!(again.read(1, 1, 1).await, [owned((1, "m"))], "and can be read");
    }

    fn open(&self) -> Opened {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("storage-suite-{}-{}-{number}", self.name, std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).unwrap_or_else(|error| panic!("{}: {error}", folder.0.display()));
        Opened::new(self, folder)
    }
}

/// A storage with plain numbers and texts for arguments.
struct Opened {
    inner: Arc<dyn Storage>,
    folder: Folder,
}

impl Opened {
    fn new(suite: &Case<'_>, folder: Folder) -> Self {
        let spec = StorageSpec { config: suite.config.clone(), folder: Some(folder.0.clone()) };
        let inner = (suite.open)(&spec).unwrap_or_else(|error| panic!("the storage opens: {error}"));
        Self { inner, folder }
    }

    fn reopen(self, suite: &Case<'_>) -> Self {
        drop(self.inner);
        Self::new(suite, self.folder)
    }

    async fn append(&self, batch: &[(&[(u64, u64)], &str)]) {
        let targets: Vec<Vec<(QueueKey, MessageSeq)>> = batch
            .iter()
            .map(|(targets, _)| targets.iter().map(|(queue, seq)| (QueueKey(*queue), MessageSeq(*seq))).collect())
            .collect();
        let batch: Vec<Append<'_>> = batch
            .iter()
            .zip(&targets)
            .map(|((_, body), targets)| Append {
                targets,
                stamp: STAMP,
                exchange: EXCHANGE,
                routing_key: ROUTING_KEY,
                properties: PROPERTIES,
                body: body.as_bytes(),
            })
            .collect();
        self.inner.append(&batch).await.unwrap_or_else(|error| panic!("append: {error}"));
    }

    async fn settle(&self, ranges: &[(u64, u64, u64)]) {
        let ranges: Vec<Settle> = ranges
            .iter()
            .map(|(queue, first, last)| Settle {
                queue: QueueKey(*queue),
                first: MessageSeq(*first),
                last: MessageSeq(*last),
            })
            .collect();
        self.inner.settle(&ranges).await.unwrap_or_else(|error| panic!("settle: {error}"));
    }

    async fn delete(&self, queue: u64) {
        self.inner.delete_queue(QueueKey(queue)).await.unwrap_or_else(|error| panic!("delete_queue: {error}"));
    }

    async fn put_meta(&self, key: &str, value: Option<&str>) {
        let put = self.inner.put_meta(&[Meta { key: key.as_bytes(), value: value.map(str::as_bytes) }]).await;
        put.unwrap_or_else(|error| panic!("put_meta: {error}"));
    }

    async fn mark(&self, marks: &[(u64, u64)]) {
        let marks: Vec<Mark> =
            marks.iter().map(|(queue, last)| Mark { queue: QueueKey(*queue), last: MessageSeq(*last) }).collect();
        self.inner.mark(&marks).await.unwrap_or_else(|error| panic!("mark: {error}"));
    }

    async fn read(&self, queue: u64, from: u64, count_max: usize) -> Vec<StoredMessage> {
        let (first, last) = (MessageSeq(from), MessageSeq(u64::MAX));
        let wanted = Wanted { queue: QueueKey(queue), first, last, count_max, bytes_max: 16 << 20 };
        let read = self.inner.read(wanted).await;
        read.unwrap_or_else(|error| panic!("read: {error}"))
    }

    async fn recovered(&self) -> Recovered {
        self.inner.recover().await.unwrap_or_else(|error| panic!("recover: {error}"))
    }

    async fn ranges(&self) -> Vec<(u64, Vec<(u64, u64)>)> {
        let plain = |RecoveredQueue { queue, ranges, .. }: RecoveredQueue| {
            (queue.0, ranges.into_iter().map(|(first, last)| (first.0, last.0)).collect())
        };
        self.recovered().await.queues.into_iter().map(plain).collect()
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files, which is cleaned by others.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

const STAMP: u64 = 1_700_000_000_123;
const EXCHANGE: &str = "orders";
const ROUTING_KEY: &str = "order.eu";
const PROPERTIES: &[u8] = &[0x10, 0, 2];

fn owned((seq, body): (u64, &str)) -> StoredMessage {
    StoredMessage {
        seq: MessageSeq(seq),
        stamp: STAMP,
        exchange: EXCHANGE.to_owned(),
        routing_key: ROUTING_KEY.to_owned(),
        properties: PROPERTIES.to_vec(),
        body: body.as_bytes().to_vec(),
    }
}
