//! Every build reads a folder of format 1, as it was written when the format was settled.
//!
//! `STORE_WRITE_FIXTURE=1` makes the folder again, which is right only before the format has been released.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugin_api::storage::{Append, Durability, MessageSeq, QueueKey, Settle};
use storage_log::disk::RealDisk;
use storage_log::{Commit, Log, Operation, Options, check};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

fn options() -> Options {
    Options { segment_bytes: 4096, recycled_max: 0, seed: Some(1), mutant: None }
}

#[test]
fn format_1_is_read() {
    if std::env::var_os("STORE_WRITE_FIXTURE").is_some() {
        write(&fixture());
    }
    let folder = std::env::temp_dir().join(format!("storage-log-format-1-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(fixture()).unwrap() {
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
        for message in log.read(QueueKey(1), MessageSeq(0), 100).unwrap() {
            assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("orders", "order.eu"));
            assert_eq!((message.properties, message.body), (vec![0x10, 0, 2], vec![message.seq.0 as u8; 150]));
        }
        assert_eq!(log.read(QueueKey(2), MessageSeq(0), 100).unwrap().len(), 17);
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
    done(Operation::PutMeta(b"queue/gone".to_vec(), Some(b"x".to_vec())));
    done(Operation::PutMeta(b"queue/orders".to_vec(), Some(b"durable".to_vec())));
    done(Operation::PutMeta(b"queue/gone".to_vec(), None));
    for seq in 0..40 {
        let both = [(QueueKey(1), MessageSeq(seq)), (QueueKey(2), MessageSeq(seq))];
        let third = [(QueueKey(3), MessageSeq(seq))];
        let body = vec![seq as u8; 150];
        let message = |targets| Append {
            targets,
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
    log.checkpoint().unwrap();
    assert_eq!(log.commit(vec![Operation::Delete(QueueKey(3))]), [Ok(())]);
    drop(log);
    for name in ["lock", "reserve", "reserve-checkpoint"] {
        drop(std::fs::remove_file(folder.join(name)));
    }
}
