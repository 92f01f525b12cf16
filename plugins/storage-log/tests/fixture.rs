//! Every build reads a folder of each format, as it was written when the format was settled.
//!
//! `STORE_WRITE_FIXTURE=1` makes the folder of the newest format again, which is right only before it has been released.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugin_api::storage::{Append, Durability, Mark, MessageSeq, QueueKey, Settle, StoredMessage, Wanted};
use storage_log::disk::RealDisk;
use storage_log::{Commit, Log, Operation, Options, check};

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"))
}

fn options() -> Options {
    Options { segment_bytes: 4096, recycled_max: 0, seed: Some(1), mutant: None }
}

#[test]
fn format_1_is_read() {
    // It had no stamps and no marks.
    check_format(1, |_| 0, [None, None]);
}

#[test]
fn format_2_is_read() {
    if std::env::var_os("STORE_WRITE_FIXTURE").is_some() {
        write(&fixture(2));
    }
    check_format(2, stamp, [Some(MessageSeq(7)), Some(MessageSeq(19))]);
}

fn stamp(seq: u64) -> u64 {
    1_700_000_000_000 + seq
}

fn read(log: &Log, queue: u64) -> Vec<StoredMessage> {
    let (queue, first, last) = (QueueKey(queue), MessageSeq(0), MessageSeq(u64::MAX));
    log.read(&Wanted { queue, first, last, count_max: 100, bytes_max: usize::MAX }).unwrap()
}

fn check_format(format: u32, stamp: fn(u64) -> u64, marked: [Option<MessageSeq>; 2]) {
    let folder = std::env::temp_dir().join(format!("storage-log-format-{format}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(fixture(format)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let report = check(&folder).unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!(report.live_messages, 42);
    {
        let log = Log::open(Arc::new(RealDisk::new(&folder)), options()).unwrap();
        let recovered = log.recovered();
        assert_eq!(recovered.meta, [(b"queue/orders".to_vec(), b"durable".to_vec())]);
        let ranges: Vec<(u64, u64, u64)> = recovered
            .queues
            .iter()
            .flat_map(|queue| queue.ranges.iter().map(|(first, last)| (queue.queue.0, first.0, last.0)))
            .collect();
        assert_eq!(ranges, [(1, 0, 4), (1, 20, 39), (2, 3, 19)]);
        assert_eq!(recovered.queues.iter().map(|queue| queue.marked).collect::<Vec<_>>(), marked);
        for message in read(&log, 1) {
            assert_eq!(message.stamp, stamp(message.seq.0));
            assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("orders", "order.eu"));
            assert_eq!((message.properties, message.body), (vec![0x10, 0, 2], vec![message.seq.0 as u8; 150]));
        }
        assert_eq!(read(&log, 2).len(), 17);
        assert_eq!(log.damage(), []);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// All kinds of records, sealed segments and an open one, one body for two queues, and a tail behind the checkpoint.
fn write(folder: &Path) {
    drop(std::fs::remove_dir_all(folder));
    std::fs::create_dir_all(folder).unwrap();
    let mut log = Log::open(Arc::new(RealDisk::new(folder)), options()).unwrap();
    let mut done = |operation| assert_eq!(log.commit(vec![operation]), [Ok(())]);
    let both = [(b"queue/gone".to_vec(), Some(b"x".to_vec())), (b"queue/orders".to_vec(), Some(b"durable".to_vec()))];
    done(Operation::PutMeta(both.to_vec()));
    done(Operation::PutMeta(vec![(b"queue/gone".to_vec(), None)]));
    for seq in 0..40 {
        let both = [(QueueKey(1), MessageSeq(seq)), (QueueKey(2), MessageSeq(seq))];
        let third = [(QueueKey(3), MessageSeq(seq))];
        let body = vec![seq as u8; 150];
        let message = |targets| Append {
            targets,
            stamp: stamp(seq),
            exchange: "orders",
            routing_key: "order.eu",
            properties: &[0x10, 0, 2],
            body: &body,
        };
        let batch = [message(if seq < 20 { &both } else { &both[..1] }), message(&third)];
        done(Operation::Append(Commit::new(&batch), Durability::Synced));
    }
    let range =
        |queue, first, last| Settle { queue: QueueKey(queue), first: MessageSeq(first), last: MessageSeq(last) };
    done(Operation::Settle(vec![range(1, 5, 19), range(2, 0, 2)]));
    let mark = |queue, last| Mark { queue: QueueKey(queue), last: MessageSeq(last) };
    done(Operation::Mark(vec![mark(1, 7), mark(3, 9)]));
    log.checkpoint().unwrap();
    // Beyond its messages, of which the last is 19; a lower one changes nothing.
    assert_eq!(log.commit(vec![Operation::Mark(vec![mark(2, 99), mark(1, 6)])]), [Ok(())]);
    assert_eq!(log.commit(vec![Operation::Delete(QueueKey(3))]), [Ok(())]);
    drop(log);
    for name in ["lock", "reserve", "reserve-checkpoint"] {
        drop(std::fs::remove_file(folder.join(name)));
    }
}
