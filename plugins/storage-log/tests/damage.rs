//! What a folder looks like after accidents, and what is made of it: nothing damaged is served, nothing is cut silently.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::Arc;

use plugin_api::storage::{Append, Durability, MessageSeq, Meta, QueueKey, Recovered, StorageError, Wanted};
use storage_log::disk::Disk;
use storage_log::sim::SimDisk;
use storage_log::{Commit, Log, OpenError, Operation, Options, check_disk, stats_disk};

const SEGMENT_BYTES: u64 = 16 << 10;

fn options(seed: u64) -> Options {
    Options { segment_bytes: SEGMENT_BYTES, recycled_max: 2, seed: Some(seed), mutant: None }
}

fn open(disk: &SimDisk) -> Result<Log, OpenError> {
    Log::open(Arc::new(disk.clone()), options(9))
}

fn append(log: &mut Log, queue: u64, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        let targets = [(QueueKey(queue), MessageSeq(seq))];
        let body = vec![seq as u8; 300];
        let message =
            Append { targets: &targets, stamp: 9, exchange: "x", routing_key: "k", properties: &[0, 0], body: &body };
        assert_eq!(log.commit(vec![Operation::Append(Commit::new(&[message]), Durability::Synced)]), [Ok(())]);
    }
}

/// Ranges of queue 1.
fn ranges(recovered: &Recovered) -> Vec<(u64, u64)> {
    let queue = recovered.queues.iter().find(|queue| queue.queue == QueueKey(1));
    queue.map(|queue| queue.ranges.iter().map(|(first, last)| (first.0, last.0)).collect()).unwrap_or_default()
}

fn wanted(from: u64) -> Wanted {
    let (first, last) = (MessageSeq(from), MessageSeq(u64::MAX));
    Wanted { queue: QueueKey(1), first, last, count_max: 50, bytes_max: usize::MAX }
}

/// Everything that can be read from queue 1, and how often damage was told on the way.
fn read_all(log: &Log) -> (Vec<u64>, u32) {
    let (mut seqs, mut from, mut told) = (Vec::new(), 0, 0);
    loop {
        match log.read(&wanted(from)) {
            Ok(found) if found.is_empty() => return (seqs, told),
            Ok(found) => {
                for message in &found {
                    assert!(message.body == vec![message.seq.0 as u8; 300], "message {}", message.seq.0);
                    seqs.push(message.seq.0);
                    from = message.seq.0 + 1;
                }
            }
            Err(StorageError::Damaged(_)) => told += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A folder with 100 messages in several segments, closed or killed.
fn folder(is_closed: bool) -> SimDisk {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap();
    append(&mut log, 1, 0..100);
    log.commit(vec![Operation::PutMeta(vec![(b"k".to_vec(), Some(b"v".to_vec()))])]);
    if is_closed {
        log.checkpoint().unwrap();
    }
    drop(log);
    disk.kill();
    disk
}

fn names(disk: &SimDisk, prefix: &str, suffix: &str) -> Vec<String> {
    let all = disk.list().unwrap().into_iter().map(|(name, _)| name);
    let mut names: Vec<String> = all.filter(|name| name.starts_with(prefix) && name.ends_with(suffix)).collect();
    names.sort();
    names
}

/// The end of the last frame: behind it there are zeros alone.
fn frames_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn torn_tail_at_every_byte_loses_the_last_commit_alone() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap();
    append(&mut log, 1, 0..3);
    let name = names(&disk, "segment-", ".log").pop().unwrap();
    let before = frames_end(&disk.contents(&name).unwrap());
    append(&mut log, 1, 3..4);
    drop(log);
    disk.kill();
    let whole = disk.contents(&name).unwrap();
    let end = frames_end(&whole);
    assert!(end > before + 300);
    for cut in before..=end {
        let disk = disk.copy(2);
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        disk.put(&name, &bytes);
        let report = check_disk(&disk).unwrap();
        assert!(report.is_sound(), "cut at {cut}: {report}");
        let mut log = open(&disk).unwrap();
        assert_eq!(log.damage(), [], "cut at {cut}");
        let expected = if cut < end { (0, 2) } else { (0, 3) };
        assert_eq!(ranges(&log.recovered()), [expected], "cut at {cut}");
        append(&mut log, 1, 4..5);
        assert_eq!(read_all(&log).0.len() as u64, expected.1 + 2);
    }
}

#[test]
fn definitions_put_together_are_there_together() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap();
    append(&mut log, 1, 0..1);
    let name = names(&disk, "segment-", ".log").pop().unwrap();
    let before = frames_end(&disk.contents(&name).unwrap());
    let keys: Vec<String> = (0..5).map(|number| format!("key {number}")).collect();
    let entries: Vec<Meta<'_>> = keys.iter().map(|key| Meta { key: key.as_bytes(), value: Some(b"v") }).collect();
    let syncs = disk.syncs();
    assert_eq!(log.commit(vec![Operation::put_meta(&entries)]), [Ok(())]);
    assert_eq!(disk.syncs() - syncs, 1);
    drop(log);
    disk.kill();
    let whole = disk.contents(&name).unwrap();
    let end = frames_end(&whole);
    for cut in before..=end {
        let disk = disk.copy(2);
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        disk.put(&name, &bytes);
        let expected = if cut < end { 0 } else { 5 };
        assert_eq!(open(&disk).unwrap().recovered().meta.len(), expected, "cut at {cut}");
    }
}

#[test]
fn flipped_bits_in_the_log_are_found_and_not_served() {
    for is_closed in [true, false] {
        let disk = folder(is_closed);
        let segments = names(&disk, "segment-", ".log");
        assert!(segments.len() > 2);
        for name in &segments {
            let bytes = disk.contents(name).unwrap();
            let is_last = Some(name) == segments.last();
            // The last commit of a killed broker's log cannot be told from a torn one.
            let end = if is_last && !is_closed { frames_end(&bytes) - 400 } else { frames_end(&bytes) };
            for place in (1024..end).step_by(61) {
                let disk = disk.copy(2);
                disk.flip(name, place as u64 * 8 + 3);
                let report = check_disk(&disk).unwrap();
                let padding = report.is_sound();
                let log = open(&disk).unwrap();
                let (found, _) = read_all(&log);
                if padding {
                    assert_eq!(found.len(), 100, "only a byte that means nothing may go unnoticed: {name} {place}");
                    continue;
                }
                assert!(report.damage.iter().all(|damage| damage.file == *name), "{report}");
                assert!(found.len() >= 98, "{name} {place}: the rest is served, but {} are", found.len());
                // A record whose frame's header is damaged is sound, and is served.
                assert!(found.len() == 100 || !log.damage().is_empty(), "{name} {place}: the loss is told");
                drop(log);
                disk.kill();
                assert!(!check_disk(&disk).unwrap().is_sound(), "{name} {place}: nothing is cut");
            }
        }
    }
}

#[test]
fn flipped_bits_in_an_index_lose_nothing() {
    let disk = folder(true);
    for name in names(&disk, "segment-", ".index") {
        let bytes = disk.contents(&name).unwrap().len();
        for place in (0..bytes).step_by(7) {
            let disk = disk.copy(2);
            disk.flip(&name, place as u64 * 8 + 1);
            assert!(!check_disk(&disk).unwrap().is_sound(), "{name} {place}");
            let mut log = open(&disk).unwrap();
            assert_eq!(read_all(&log), ((0..100).collect(), 0), "{name} {place}");
            while log.maintain().unwrap() {}
            let is_noticed = !log.damage().is_empty();
            drop(log);
            disk.kill();
            assert!(!is_noticed || check_disk(&disk).unwrap().is_sound(), "{name} {place}: the index is made again");
        }
    }
}

#[test]
fn flipped_bits_in_a_checkpoint_let_the_older_one_stand_in() {
    let disk = folder(true);
    let checkpoints = names(&disk, "checkpoint-", "");
    assert_eq!(checkpoints.len(), 2);
    for name in &checkpoints {
        let bytes = disk.contents(name).unwrap().len();
        for place in (0..bytes).step_by(5) {
            let disk = disk.copy(2);
            disk.flip(name, place as u64 * 8);
            assert!(!check_disk(&disk).unwrap().is_sound(), "{name} {place}");
            let log = open(&disk).unwrap();
            assert_eq!(log.damage().is_empty(), name == &checkpoints[0], "{name} {place}: the newer one is missed");
            assert_eq!(log.recovered().meta, [(b"k".to_vec(), b"v".to_vec())]);
            assert_eq!(read_all(&log), ((0..100).collect(), 0), "{name} {place}");
        }
    }
}

#[test]
fn one_old_message_does_not_pin_the_disk() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap();
    for round in 0..200 {
        append(&mut log, 1, round * 40..round * 40 + 40);
        // One message a round stays, and with it a part of a segment.
        let range = plugin_api::storage::Settle {
            queue: QueueKey(1),
            first: MessageSeq(round * 40),
            last: MessageSeq(round * 40 + 38),
        };
        log.commit(vec![Operation::Settle(vec![range])]);
        while log.maintain().unwrap() {}
    }
    let used = disk.used_bytes();
    assert!(used < 40 * SEGMENT_BYTES, "{used} bytes for 200 messages of 300");
    let expected: Vec<u64> = (0..200).map(|round| round * 40 + 39).collect();
    assert_eq!(read_all(&log), (expected.clone(), 0));
    drop(log);
    disk.crash();
    let log = open(&disk).unwrap();
    assert_eq!(read_all(&log), (expected, 0));
}

#[test]
fn full_disk_refuses_messages_settles_and_recovers_by_itself() {
    let disk = SimDisk::new(1);
    disk.set_capacity(20 * SEGMENT_BYTES);
    let mut log = open(&disk).unwrap();
    let mut seq = 0;
    let full = loop {
        let targets = [(QueueKey(1), MessageSeq(seq))];
        let body = vec![seq as u8; 300];
        let message =
            Append { targets: &targets, stamp: 9, exchange: "x", routing_key: "k", properties: &[0, 0], body: &body };
        match log.commit(vec![Operation::Append(Commit::new(&[message]), Durability::Synced)]).remove(0) {
            Ok(()) => seq += 1,
            Err(error) => break error,
        }
        while log.maintain().unwrap() {}
    };
    assert!(matches!(full, StorageError::Full(_)), "{full}");
    assert!(log.is_full() && seq > 400);
    for first in (0..seq).step_by(10) {
        let (first, last) = (MessageSeq(first), MessageSeq(first + 9));
        let range = plugin_api::storage::Settle { queue: QueueKey(1), first, last };
        assert_eq!(log.commit(vec![Operation::Settle(vec![range])]), [Ok(())], "settling goes on");
        while log.maintain().unwrap() {}
    }
    assert!(!log.is_full(), "room is found again without being asked");
    append(&mut log, 1, seq + 10..seq + 300);
    drop(log);
    disk.crash();
    assert_eq!(ranges(&open(&disk).unwrap().recovered()), [(seq + 10, seq + 299)]);
}

#[test]
fn refusals_are_one_sentence_and_change_nothing() {
    let check = |change: &dyn Fn(&SimDisk), expected: &str| {
        let disk = folder(true);
        change(&disk);
        let before: Vec<_> = names(&disk, "", "").into_iter().map(|name| (disk.contents(&name), name)).collect();
        let error = open(&disk).err().unwrap_or_else(|| panic!("opens, but should say: {expected}")).to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        let after: Vec<_> = names(&disk, "", "").into_iter().map(|name| (disk.contents(&name), name)).collect();
        assert!(before == after, "something was changed: {error}");
    };
    check(&|disk| disk.put("notes.txt", b""), "holds files that are not the broker's (notes.txt)");
    check(&|disk| disk.set_read_only(true), "cannot be written to");
    check(&|disk| disk.take(&names(disk, "segment-", ".log")[0]), "is missing from data folder 'simulated'");
    check(&|disk| disk.take(names(disk, "segment-", ".log").last().unwrap()), "is missing from data folder");
    check(&|disk| names(disk, "checkpoint-", "").iter().for_each(|name| disk.take(name)), "but no checkpoint");
    check(
        &|disk| names(disk, "checkpoint-", "").iter().for_each(|name| disk.flip(name, 560)),
        "no checkpoint in data folder 'simulated' can be read",
    );
    let other = SimDisk::new(5);
    drop(Log::open(Arc::new(other.clone()), options(77)).unwrap());
    let strange = other.contents(&names(&other, "segment-", ".log")[0]).unwrap();
    check(&|disk| disk.put(&names(disk, "segment-", ".log")[0], &strange), "belongs to another data folder");
    check(
        &|disk| {
            let name = names(disk, "checkpoint-", "").pop().unwrap();
            let mut bytes = disk.contents(&name).unwrap();
            bytes[8] = 3;
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..64]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            disk.put(&name, &bytes);
        },
        "is of a newer format",
    );
    let disk = folder(true);
    let _first = open(&disk).unwrap();
    let error = open(&disk).err().unwrap().to_string();
    assert!(error.contains("is in use by another broker"), "{error}");
    assert!(matches!(check_disk(&SimDisk::new(3)), Err(OpenError::Empty { .. })));
}

#[test]
fn missing_index_is_made_again() {
    let disk = folder(true);
    let indexes = names(&disk, "segment-", ".index");
    indexes.iter().for_each(|name| disk.take(name));
    let log = open(&disk).unwrap();
    assert_eq!(read_all(&log), ((0..100).collect(), 0));
    assert!(indexes.iter().all(|name| disk.contents(name).is_some()));
}

#[test]
fn stats_count_what_is_there() {
    let stats = stats_disk(&folder(true)).unwrap();
    assert_eq!((stats.live_messages, stats.queues, stats.meta_entries), (100, 1, 1));
    assert!(stats.to_string().contains("100 in 1 queues"), "{stats}");
}
