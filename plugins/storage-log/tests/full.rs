//! A disk that is full must have room again when everything in it has been settled, wherever the last byte went.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::Arc;

use plugin_api::storage::{Append, Durability, MessageSeq, QueueKey, Settle, StorageError};
use storage_log::sim::SimDisk;
use storage_log::{Commit, Log, Operation, Options};

fn append(log: &mut Log, queue: u64, seq: u64, bytes: usize) -> Result<(), StorageError> {
    let targets = [(QueueKey(queue), MessageSeq(seq))];
    let body = vec![seq as u8; bytes];
    let message =
        Append { targets: &targets, stamp: 0, exchange: "", routing_key: "k", properties: &[0, 0], body: &body };
    let result = log.commit(vec![Operation::Append(Commit::new(&[message]), Durability::Synced)]).remove(0);
    log.maintain().unwrap();
    result
}

#[test]
fn settling_everything_makes_room_whatever_the_size_of_the_disk() {
    for step in 0..200 {
        let disk = SimDisk::new(1);
        // On the larger half, checkpoints grow beyond what is set aside for one.
        let capacity = if step % 2 == 0 { 100_000 } else { 500_000 } + step * 331;
        disk.set_capacity(capacity);
        let options = Options { segment_bytes: 4096, recycled_max: 2, seed: Some(step), mutant: None };
        let mut log = Log::open(Arc::new(disk.clone()), options).unwrap();
        // Every other message is settled at once, so that checkpoints have many ranges to tell of and grow.
        let mut seq = 0;
        while append(&mut log, seq % 40, seq, 100 + (seq as usize * 37 + step as usize) % 900).is_ok() {
            if seq % 3 == 0 {
                let range = Settle { queue: QueueKey(seq % 40), first: MessageSeq(seq), last: MessageSeq(seq) };
                assert_eq!(log.commit(vec![Operation::Settle(vec![range])]), [Ok(())]);
                log.maintain().unwrap();
            }
            seq += 1;
            assert!(seq < 100_000, "the disk never fills");
        }
        for queue in 0..40 {
            let all = Settle { queue: QueueKey(queue), first: MessageSeq(0), last: MessageSeq(u64::MAX) };
            assert_eq!(log.commit(vec![Operation::Settle(vec![all])]), [Ok(())]);
            log.maintain().unwrap();
        }
        let is_taken = (0..10).any(|_| append(&mut log, 50, 1_000_000, 100).is_ok());
        assert!(is_taken, "a disk of {capacity} bytes stays full: {}", disk.used_bytes());
    }
}

#[test]
fn a_commit_too_large_for_any_room_does_not_make_the_disk_full() {
    let disk = SimDisk::new(1);
    disk.set_capacity(100_000);
    let options = Options { segment_bytes: 4096, recycled_max: 2, seed: Some(1), mutant: None };
    let mut log = Log::open(Arc::new(disk), options).unwrap();
    for seq in 0..20 {
        let error = append(&mut log, 1, seq, 200_000).unwrap_err();
        assert!(matches!(&error, StorageError::Full(text) if text.contains("too large")), "{error}");
        assert!(!log.is_full(), "others have room");
        append(&mut log, 2, seq, 100).unwrap();
    }
    // Where there is no room for others either, it is full.
    let last = (0..10_000).map(|seq| append(&mut log, 3, seq, 1000)).find_map(Result::err);
    assert!(matches!(last, Some(StorageError::Full(_))) && log.is_full());
    assert!(append(&mut log, 1, 20, 200_000).is_err() && log.is_full());
}
