//! The storage with its threads: what the futures answer when the disk misbehaves.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::storage::{Append, MessageSeq, Meta, QueueKey, Settle, Storage, StorageError, Wanted};
use plugin_api::testing::block_on;
use storage_log::sim::{Faults, SimDisk};
use storage_log::{LogStorage, Options};

fn open(disk: &SimDisk) -> LogStorage {
    let options = Options { segment_bytes: 64 << 10, recycled_max: 2, seed: Some(1), mutant: None };
    LogStorage::open(Arc::new(disk.clone()), options).unwrap()
}

fn append(storage: &LogStorage, seqs: std::ops::Range<u64>) -> Result<(), StorageError> {
    let targets: Vec<[(QueueKey, MessageSeq); 1]> = seqs.map(|seq| [(QueueKey(1), MessageSeq(seq))]).collect();
    let message =
        |targets| Append { targets, stamp: 5, exchange: "x", routing_key: "k", properties: &[0, 0], body: &[7; 200] };
    let batch: Vec<Append<'_>> = targets.iter().map(|targets| message(targets)).collect();
    block_on(storage.append(&batch))
}

fn count(storage: &LogStorage) -> u64 {
    let recovered = block_on(storage.recover()).unwrap();
    recovered.queues.iter().flat_map(|queue| &queue.ranges).map(|(first, last)| last.0 - first.0 + 1).sum()
}

#[test]
fn failed_sync_confirms_nothing_ever_after_and_a_new_start_is_clean() {
    let disk = SimDisk::new(3);
    let storage = open(&disk);
    append(&storage, 0..10).unwrap();
    disk.set_faults(Faults { sync_fails_in: Some(0), ..Faults::default() });
    for round in 0..3 {
        let error = append(&storage, 10..20).unwrap_err();
        assert!(matches!(error, StorageError::Failed(_)), "round {round}: {error}");
    }
    let settled = Settle { queue: QueueKey(1), first: MessageSeq(0), last: MessageSeq(9) };
    assert!(matches!(block_on(storage.settle(&[settled])), Err(StorageError::Failed(_))));
    assert!(matches!(block_on(storage.put_meta(&[Meta { key: b"k", value: None }])), Err(StorageError::Failed(_))));
    drop(storage);
    disk.crash();
    let storage = open(&disk);
    let live = count(&storage);
    assert!(live == 10 || live == 20, "the failed batch is there as a whole or not at all, but {live} are");
    append(&storage, 30..40).unwrap();
}

#[test]
fn many_appends_share_syncs() {
    let disk = SimDisk::new(3);
    let storage = open(&disk);
    let before = disk.syncs();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let storage = &storage;
            scope.spawn(move || (0..50).for_each(|n| append(storage, thread * 50 + n..thread * 50 + n + 1).unwrap()));
        }
    });
    assert_eq!(count(&storage), 400);
    assert!(disk.syncs() - before < 420, "{} syncs for 400 appends", disk.syncs() - before);
}

#[test]
fn small_appends_seldom_reach_blocks_that_were_never_written_to() {
    let disk = SimDisk::new(3);
    let options = Options { segment_bytes: 1 << 20, recycled_max: 2, seed: Some(1), mutant: None };
    let storage = LogStorage::open(Arc::new(disk.clone()), options).unwrap();
    let before = disk.growths();
    (0..2000).for_each(|seq| append(&storage, seq..seq + 1).unwrap());
    assert!(disk.growths() - before < 10, "{} of 2000", disk.growths() - before);
}

#[test]
fn closing_leaves_nothing_to_replay() {
    let disk = SimDisk::new(3);
    let storage = open(&disk);
    append(&storage, 0..100).unwrap();
    let settled = Settle { queue: QueueKey(1), first: MessageSeq(0), last: MessageSeq(49) };
    block_on(storage.settle(&[settled])).unwrap();
    drop(storage);
    disk.crash();
    assert_eq!(count(&open(&disk)), 50, "a clean end makes settled ranges durable, too");
}

#[test]
fn room_comes_back_without_another_commit() {
    let disk = SimDisk::new(3);
    let storage = open(&disk);
    let empty = disk.used_bytes();
    for first in (0..10_000).step_by(100) {
        append(&storage, first..first + 100).unwrap();
    }
    assert!(disk.used_bytes() > empty + (2 << 20), "{} of {empty}", disk.used_bytes());
    // Whoever publishes may be stopped until there is room, so that nothing comes any more.
    let all = Settle { queue: QueueKey(1), first: MessageSeq(0), last: MessageSeq(9_999) };
    block_on(storage.settle(&[all])).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    // What may stay: three dead segments, and those that are kept for use again.
    while disk.used_bytes() > empty + 6 * (64 << 10) {
        assert!(Instant::now() < deadline, "{} bytes are left, {empty} at the beginning", disk.used_bytes());
        std::thread::yield_now();
    }
}

#[test]
fn refused_batch_leaves_nothing_behind() {
    let disk = SimDisk::new(3);
    let storage = open(&disk);
    append(&storage, 0..10).unwrap();
    disk.set_capacity(disk.used_bytes());
    let mut refused = None;
    for first in (10..2000).step_by(10) {
        if let Err(error) = append(&storage, first..first + 10) {
            refused = Some((first, error));
            break;
        }
    }
    let (first, error) = refused.unwrap();
    assert!(matches!(error, StorageError::Full(_)), "{error}");
    assert!(storage.status().is_full);
    assert_eq!(count(&storage), first);
    drop(storage);
    disk.crash();
    disk.set_capacity(u64::MAX);
    assert_eq!(count(&open(&disk)), first);
}

#[test]
fn reads_go_on_while_segments_are_sealed_copied_and_removed() {
    let disk = SimDisk::new(3);
    let storage = open(&disk);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let is_done = &is_done;
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for from in [0, 500] {
            let storage = &storage;
            scope.spawn(move || {
                let mut count = 0;
                while !is_done.load(order) || count == 0 {
                    let (first, last) = (MessageSeq(from), MessageSeq(u64::MAX));
                    let wanted = Wanted { queue: QueueKey(1), first, last, count_max: 100, bytes_max: usize::MAX };
                    let found = block_on(storage.read(wanted)).unwrap();
                    assert!(found.windows(2).all(|pair| pair[0].seq < pair[1].seq), "in ascending order");
                    assert!(found.iter().all(|message| message.seq.0 >= from && message.body == [7; 200]));
                    count += found.len();
                }
            });
        }
        for first in (0..20_000).step_by(20) {
            append(&storage, first..first + 20).unwrap();
            // All but one in a hundred, so that segments are copied forward and removed.
            if first % 100 == 80 {
                let (first, last) = (MessageSeq(first - 79), MessageSeq(first + 19));
                block_on(storage.settle(&[Settle { queue: QueueKey(1), first, last }])).unwrap();
            }
        }
        is_done.store(true, order);
    });
    assert_eq!(count(&storage), 200);
    assert_eq!(storage.status().damage, Vec::<String>::new());
    assert!(storage.status().file_bytes < 20 * (64 << 10), "{} bytes", storage.status().file_bytes);
}
