//! What appends, settling, reads and a start cost: `cargo bench -p storage-sqlite`.

#![allow(clippy::unwrap_used, reason = "a measurement fails as tests do")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use plugin_api::storage::{Append, MessageSeq, QueueKey, Settle, Storage, StorageSpec, StorageType, Wanted};
use plugin_api::testing::block_on;
use storage_sqlite::SqliteType;

fn main() {
    let folder = std::env::temp_dir().join(format!("sqlite-bench-{}", std::process::id()));
    for (name, queues, batch, rounds) in [
        ("one queue, 256 a batch", 1, 256, 400),
        ("1,000 queues, 256 a batch", 1000, 256, 400),
        ("one queue, 1 a batch", 1, 1, 1000),
    ] {
        run(&folder, name, queues, batch, rounds);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

fn run(folder: &Path, name: &str, queues: u64, batch: u64, rounds: u64) {
    let storage = open(folder);
    let body = [b'b'; 1024];
    let count = batch * rounds;
    let start = Instant::now();
    for round in 0..rounds {
        let targets: Vec<_> =
            (0..batch).map(|n| [(QueueKey((round * batch + n) % queues), MessageSeq(round * batch + n))]).collect();
        let messages: Vec<Append<'_>> = targets
            .iter()
            .map(|targets| Append {
                targets,
                stamp: 0,
                exchange: "x",
                routing_key: "k",
                properties: &[0, 0],
                body: &body,
            })
            .collect();
        block_on(storage.append(&messages)).unwrap();
    }
    say(name, "appended", count, start);
    drop(storage);
    let start = Instant::now();
    let storage = open(folder);
    let found = block_on(storage.recover()).unwrap();
    say(
        name,
        "recovered",
        found.queues.iter().flat_map(|queue| &queue.ranges).map(|(a, b)| b.0 - a.0 + 1).sum(),
        start,
    );
    let start = Instant::now();
    let (mut first, mut read) = (0, 0);
    loop {
        let (first_seq, last) = (MessageSeq(first), MessageSeq(u64::MAX));
        let wanted = Wanted { queue: QueueKey(0), first: first_seq, last, count_max: 4096, bytes_max: 1 << 20 };
        let found = block_on(storage.read(wanted)).unwrap();
        let Some(last) = found.last() else { break };
        (first, read) = (last.seq.0 + 1, read + found.len() as u64);
    }
    say(name, "read", read, start);
    let start = Instant::now();
    for round in 0..rounds {
        let settled: Vec<Settle> = (round * batch..(round + 1) * batch)
            .map(|n| Settle { queue: QueueKey(n % queues), first: MessageSeq(n), last: MessageSeq(n) })
            .collect();
        block_on(storage.settle(&settled)).unwrap();
    }
    say(name, "settled", count, start);
}

fn open(folder: &Path) -> Arc<dyn Storage> {
    let spec = StorageSpec { folder: Some(folder.to_path_buf()), ..StorageSpec::default() };
    SqliteType.open(&spec).unwrap()
}

fn say(name: &str, what: &str, count: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{name}: {what} {count} messages of 1 KiB, {:.0} a second, {seconds:.3} s", count as f64 / seconds);
}
