//! What is this storage's own: shared bodies, damage, other people's files, and a full disk.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use plugin_api::config::Config;
use plugin_api::serde_json::{Value, json};
use plugin_api::storage::{
    Append, Mark, MessageSeq, QueueKey, Settle, Storage, StorageError, StorageSpec, StorageType, StoredMessage, Wanted,
};
use plugin_api::testing::block_on;
use rusqlite::Connection;
use storage_sqlite::SqliteType;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("storage-sqlite-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("messages.sqlite")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn try_open(folder: &Path, config: Value) -> Result<Arc<dyn Storage>, String> {
    let spec = StorageSpec { config: Config::new(config), folder: Some(folder.to_path_buf()) };
    SqliteType.open(&spec).map_err(|error| error.text)
}

fn open(folder: &Folder) -> Arc<dyn Storage> {
    try_open(&folder.0, Value::Null).unwrap()
}

fn append(storage: &dyn Storage, targets: &[(u64, u64)], body: &[u8]) -> Result<(), StorageError> {
    let targets: Vec<_> = targets.iter().map(|(queue, seq)| (QueueKey(*queue), MessageSeq(*seq))).collect();
    let message = Append { targets: &targets, stamp: 7, exchange: "x", routing_key: "k", properties: &[0, 0], body };
    block_on(storage.append(&[message]))
}

fn settle(storage: &dyn Storage, queue: u64, first: u64, last: u64) {
    let range = Settle { queue: QueueKey(queue), first: MessageSeq(first), last: MessageSeq(last) };
    block_on(storage.settle(&[range])).unwrap();
}

fn read(storage: &dyn Storage, queue: u64, first: u64) -> Result<Vec<StoredMessage>, StorageError> {
    let (first, last) = (MessageSeq(first), MessageSeq(u64::MAX));
    block_on(storage.read(Wanted { queue: QueueKey(queue), first, last, count_max: 100, bytes_max: usize::MAX }))
}

fn seqs(read: Result<Vec<StoredMessage>, StorageError>) -> Vec<u64> {
    read.unwrap().iter().map(|message| message.seq.0).collect()
}

fn count(folder: &Folder, table: &str) -> i64 {
    let connection = Connection::open(folder.file()).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn a_body_is_kept_once_and_goes_with_its_last_place() {
    let folder = Folder::new();
    let storage = open(&folder);
    append(&*storage, &[(1, 1), (2, 1), (3, 1)], b"shared").unwrap();
    append(&*storage, &[(1, 2)], b"alone").unwrap();
    assert_eq!((count(&folder, "messages"), count(&folder, "places"), count(&folder, "shared")), (2, 4, 1));
    settle(&*storage, 1, 0, 9);
    settle(&*storage, 3, 0, 9);
    assert_eq!((count(&folder, "messages"), count(&folder, "places"), count(&folder, "shared")), (1, 1, 1));
    assert_eq!(read(&*storage, 2, 0).unwrap().first().unwrap().body, b"shared");
    block_on(storage.delete_queue(QueueKey(2))).unwrap();
    assert_eq!((count(&folder, "messages"), count(&folder, "places"), count(&folder, "shared")), (0, 0, 0));
}

#[test]
fn status_counts_what_is_live_also_after_a_start() {
    let folder = Folder::new();
    let storage = open(&folder);
    for first in (0..5000).step_by(500) {
        let targets: Vec<_> = (first..first + 500).map(|seq| [(QueueKey(1), MessageSeq(seq))]).collect();
        let message = |targets| Append {
            targets,
            stamp: 7,
            exchange: "x",
            routing_key: "k",
            properties: &[0, 0],
            body: b"12345678",
        };
        let batch: Vec<Append<'_>> = targets.iter().map(|targets| message(targets)).collect();
        block_on(storage.append(&batch)).unwrap();
    }
    // More than is forgotten in one transaction.
    settle(&*storage, 1, 0, 4989);
    let check = |storage: &dyn Storage| {
        let status = storage.status();
        assert_eq!((status.live_count, status.live_bytes, status.is_full), (10, 10 * 12, false));
        assert!(status.file_bytes > 0 && status.damage.is_empty());
    };
    check(&*storage);
    assert_eq!(storage.status().figure("writes"), Some(10));
    block_on(storage.mark(&[Mark { queue: QueueKey(1), last: MessageSeq(4992) }])).unwrap();
    drop(storage);
    let storage = open(&folder);
    let recovered = block_on(storage.recover()).unwrap();
    assert_eq!(recovered.queues.first().unwrap().marked, Some(MessageSeq(4992)));
    check(&*storage);
}

#[test]
fn damaged_message_is_told_once_kept_aside_and_never_served() {
    let folder = Folder::new();
    let storage = open(&folder);
    for seq in 1..=4 {
        append(&*storage, &[(1, seq)], b"a body").unwrap();
    }
    drop(storage);
    let connection = Connection::open(folder.file()).unwrap();
    connection.execute("UPDATE messages SET body = x'00' WHERE id = 2", []).unwrap();
    connection.execute("DELETE FROM messages WHERE id = 3", []).unwrap();
    drop(connection);

    let storage = open(&folder);
    assert_eq!(seqs(read(&*storage, 1, 0)), [1], "a read ends in front of it");
    let told = read(&*storage, 1, 2).unwrap_err();
    assert_eq!(told, StorageError::Damaged("message 2 of queue 1: its checksum is wrong".to_owned()));
    let told = read(&*storage, 1, 2).unwrap_err();
    assert_eq!(told, StorageError::Damaged("message 3 of queue 1: its contents are missing".to_owned()));
    assert_eq!(seqs(read(&*storage, 1, 2)), [4], "the rest is served");
    assert_eq!(storage.status().damage.len(), 2);
    append(&*storage, &[(1, 5)], b"next").unwrap();
    drop(storage);
    assert_eq!(count(&folder, "damaged"), 2, "it is kept for people to look at");
    let storage = open(&folder);
    assert_eq!(seqs(read(&*storage, 1, 0)), [1, 4, 5], "and is not told again");
}

#[test]
fn folder_in_use_or_of_something_else_is_refused_with_a_sentence() {
    let folder = Folder::new();
    let storage = open(&folder);
    let error = try_open(&folder.0, Value::Null).err().unwrap();
    assert!(error.contains(&format!("is in use by another broker (process {})", std::process::id())), "{error}");
    drop(storage);
    drop(open(&folder));

    let set = |sql: &str| Connection::open(folder.file()).unwrap().execute_batch(sql).unwrap();
    set("PRAGMA user_version = 2");
    let error = try_open(&folder.0, Value::Null).err().unwrap();
    assert!(error.contains("has format 2, and this plugin knows format 1"), "{error}");
    set("PRAGMA application_id = 77");
    let error = try_open(&folder.0, Value::Null).err().unwrap();
    assert!(error.contains("is a database of something else"), "{error}");
    std::fs::write(folder.file(), vec![b'x'; 8192]).unwrap();
    let error = try_open(&folder.0, Value::Null).err().unwrap();
    assert!(error.contains("is no database: move it away"), "{error}");
}

#[test]
fn no_folder_and_wrong_settings_are_refused() {
    let error = SqliteType.open(&StorageSpec::default()).err().unwrap().text;
    assert_eq!(error, "needs a data folder: give one with --data DIR");
    let folder = Folder::new();
    let error = try_open(&folder.0, json!({ "cache_bytes": 1 })).err().unwrap();
    assert!(error.starts_with("cache_bytes must be from 1048576 to"), "{error}");
}

#[test]
fn a_process_that_was_killed_leaves_its_last_append() {
    let folder = Folder::new();
    let storage = open(&folder);
    append(&*storage, &[(1, 1)], b"kept").unwrap();
    // What kill -9 leaves: no destructor carries the log over.
    let copy = Folder::new();
    for name in ["messages.sqlite", "messages.sqlite-wal"] {
        std::fs::copy(folder.0.join(name), copy.0.join(name)).unwrap();
    }
    drop(storage);
    let storage = open(&copy);
    assert_eq!(seqs(read(&*storage, 1, 0)), [1]);
}

#[test]
fn drained_database_gives_its_room_back() {
    let folder = Folder::new();
    let storage = try_open(&folder.0, json!({ "wal_bytes": 1 << 20 })).unwrap();
    let body = vec![7; 100_000];
    for seq in 0..100 {
        append(&*storage, &[(1, seq)], &body).unwrap();
    }
    let length = || folder.file().metadata().unwrap().len();
    assert!(length() > 5_000_000, "{}", length());
    settle(&*storage, 1, 0, 98);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while length() > 3_000_000 {
        assert!(std::time::Instant::now() < deadline, "the file still has {} bytes", length());
        std::thread::yield_now();
    }
    assert_eq!(read(&*storage, 1, 0).unwrap().first().unwrap().body, body);
}
