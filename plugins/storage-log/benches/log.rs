//! How fast the log takes messages, beside what the disk itself can do, and how soon it is ready after a restart.
//!
//! `cargo bench -p storage-log` runs all of it in the folder for temporary files; `STORE_BENCH_DIR` names another, and
//! `STORE_BENCH_MESSAGES` the number of messages for the recovery (5,000,000 unless set).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use plugin_api::config::Config;
use plugin_api::storage::{Append, MessageSeq, QueueKey, Storage, StorageSpec, StorageType, Wanted};
use plugin_api::testing::block_on;
use storage_log::LogType;

const BODY_BYTES: usize = 1024;
const BATCH: usize = 256;
const ROUND: usize = 40 * BATCH;
const ROUNDS: usize = 5;

fn main() {
    let base = std::env::var_os("STORE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = base.join(format!("storage-log-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    append_rates(&folder);
    recovery(&folder);
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}

fn open(folder: &Path) -> Arc<dyn Storage> {
    let spec = StorageSpec { folder: Some(folder.to_path_buf()), config: Config::default() };
    LogType.open(&spec).unwrap_or_else(|error| panic!("{error}"))
}

/// Appends `count` messages from `first` on, round robin over the queues.
fn append(storage: &dyn Storage, first: u64, count: usize, queues: u64, body: &[u8]) {
    let targets: Vec<[(QueueKey, MessageSeq); 1]> =
        (first..).take(count).map(|number| [(QueueKey(number % queues + 1), MessageSeq(number / queues))]).collect();
    for chunk in targets.chunks(BATCH) {
        let batch: Vec<Append<'_>> = chunk
            .iter()
            .map(|targets| Append {
                targets,
                stamp: 1,
                exchange: "orders",
                routing_key: "order.eu",
                properties: &[0x10, 0, 2],
                body,
            })
            .collect();
        block_on(storage.append(&batch)).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Rates alternate within the same run, since disks and neighbours change.
fn append_rates(folder: &Path) {
    let body = vec![7; BODY_BYTES];
    let raw = File::create(folder.join("raw")).expect("a file can be made");
    let block = vec![7; BATCH * (BODY_BYTES + 80)];
    let mut position = 0;
    let mut storages: Vec<(u64, Arc<dyn Storage>, f64)> =
        [1, 1000, 10_000].map(|queues| (queues, open(&folder.join(format!("queues-{queues}"))), 0.0)).into();
    let mut raw_seconds = 0.0;
    for round in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..ROUND / BATCH {
            raw.write_all_at(&block, position).expect("the file can be written");
            raw.sync_data().expect("the file can be synced");
            position += block.len() as u64;
        }
        raw_seconds += start.elapsed().as_secs_f64();
        for (queues, storage, seconds) in &mut storages {
            let start = Instant::now();
            append(&**storage, (round * ROUND) as u64, ROUND, *queues, &body);
            *seconds += start.elapsed().as_secs_f64();
        }
    }
    let all = (ROUND * ROUNDS) as f64;
    let raw_rate = all / raw_seconds;
    println!("raw append + fdatasync, {BATCH} a batch: {raw_rate:.0} messages/s");
    for (queues, _, seconds) in &storages {
        let rate = all / seconds;
        println!("log, {queues} queues: {rate:.0} messages/s, {:.2} of raw", rate / raw_rate);
    }
    std::fs::remove_file(folder.join("raw")).expect("the file can be removed");
}

fn recovery(folder: &Path) {
    let count =
        std::env::var("STORE_BENCH_MESSAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000_000_usize);
    // Bodies are not read at a start, so that short ones save the disk.
    let body = [7; 64];
    for queues in [1, 10_000] {
        let folder = folder.join(format!("recovery-{queues}"));
        let storage = open(&folder);
        let start = Instant::now();
        let part = 100 * BATCH;
        for first in (0..count).step_by(part) {
            let targets: Vec<[(QueueKey, MessageSeq); 1]> = (first as u64..)
                .take(part.min(count - first))
                .map(|number| [(QueueKey(number % queues + 1), MessageSeq(number / queues))])
                .collect();
            let batch: Vec<Append<'_>> = targets
                .iter()
                .map(|targets| Append {
                    targets,
                    stamp: 1,
                    exchange: "orders",
                    routing_key: "k",
                    properties: &[0, 0],
                    body: &body,
                })
                .collect();
            block_on(storage.append_unsynced(&batch)).unwrap_or_else(|error| panic!("{error}"));
        }
        println!("{count} messages in {queues} queues written in {:.1} s", start.elapsed().as_secs_f64());
        drop(storage);
        let start = Instant::now();
        let storage = open(&folder);
        let recovered = block_on(storage.recover()).unwrap_or_else(|error| panic!("{error}"));
        let first = block_on(storage.read(wanted(0, 1))).unwrap_or_else(|error| panic!("{error}"));
        assert!(first.len() == 1 && recovered.queues.len() as u64 == queues);
        println!("  opened and first message read in {:.3} s", start.elapsed().as_secs_f64());
        let start = Instant::now();
        let (mut from, mut read) = (0, 0);
        while read < 500_000_usize.min(count / usize::try_from(queues).unwrap_or(1)) {
            let found = block_on(storage.read(wanted(from, 1000))).unwrap_or_else(|error| panic!("{error}"));
            let Some(last) = found.last() else { break };
            (from, read) = (last.seq.0 + 1, read + found.len());
        }
        println!("  paging in one queue: {:.0} messages/s", read as f64 / start.elapsed().as_secs_f64());
        drop(storage);
        std::fs::remove_dir_all(&folder).expect("the folder can be removed");
    }
}

fn wanted(from: u64, count_max: usize) -> Wanted {
    let (first, last) = (MessageSeq(from), MessageSeq(u64::MAX));
    Wanted { queue: QueueKey(1), first, last, count_max, bytes_max: 8 << 20 }
}
