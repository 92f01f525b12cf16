//! How the log fares at scale, beside what the disk itself does in the same run: `cargo bench -p storage-log`.
//!
//! `-- rates`, `-- memory` or `-- reads` runs one part. `STORE_BENCH_DIR` names a folder on the disk to measure (that for
//! temporary files unless set), `STORE_BENCH_MESSAGES` the length of the backlog (1,000,000 messages of 1 KiB unless set).

mod disk;
mod scale;

use std::path::PathBuf;
use std::sync::Arc;

use plugin_api::config::Config;
use plugin_api::storage::{Append, MessageSeq, QueueKey, Settle, Storage, StorageSpec, StorageType, Wanted};
use plugin_api::testing::block_on;
use storage_log::LogType;

/// What one message carries.
const BODY_BYTES: usize = 1024;

/// Messages in a batch: what gathers while a disk syncs.
const BATCH: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["child", step, queues, folder] = arguments[..] {
        return scale::child(step, queues.parse().expect("a number of queues"), &PathBuf::from(folder));
    }
    let base = std::env::var_os("STORE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = base.join(format!("storage-log-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let wants = |part| arguments.is_empty() || arguments.contains(&part);
    if wants("rates") {
        disk::rates(&folder);
        disk::single(&folder);
    }
    if wants("memory") || wants("reads") {
        scale::backlogs(&folder);
    }
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}

fn open(folder: &std::path::Path) -> Arc<dyn Storage> {
    let spec = StorageSpec { folder: Some(folder.to_path_buf()), config: Config::default() };
    LogType.open(&spec).unwrap_or_else(|error| panic!("{error}"))
}

/// Appends `count` messages from number `first` on, round robin over the queues, `batch` at a time.
fn append(storage: &dyn Storage, numbers: std::ops::Range<u64>, queues: u64, batch: usize, is_synced: bool) {
    let body = [7; BODY_BYTES];
    let mut targets = Vec::with_capacity(batch);
    let mut next = numbers.start;
    while next < numbers.end {
        let until = numbers.end.min(next + batch as u64);
        targets.clear();
        targets.extend((next..until).map(|number| [(QueueKey(number % queues + 1), MessageSeq(number / queues))]));
        let messages: Vec<Append<'_>> = targets
            .iter()
            .map(|targets| Append {
                targets,
                stamp: 1_700_000_000_000,
                exchange: "orders",
                routing_key: "order.eu",
                properties: &[0x10, 0, 2],
                body: &body,
            })
            .collect();
        let appended =
            if is_synced { block_on(storage.append(&messages)) } else { block_on(storage.append_unsynced(&messages)) };
        appended.unwrap_or_else(|error| panic!("{error}"));
        next = until;
    }
}

/// Settles the messages that [`append`] made of these numbers, as ranges.
fn settle(storage: &dyn Storage, numbers: std::ops::Range<u64>, queues: u64) {
    let mut ranges: Vec<Settle> = Vec::new();
    for queue in 0..queues.min(numbers.end - numbers.start) {
        let first = numbers.start + queue;
        let count = (numbers.end - first).div_ceil(queues);
        let (first, queue) = (first / queues, first % queues + 1);
        ranges.push(Settle { queue: QueueKey(queue), first: MessageSeq(first), last: MessageSeq(first + count - 1) });
    }
    block_on(storage.settle(&ranges)).unwrap_or_else(|error| panic!("{error}"));
}

fn wanted(queue: u64, from: u64, count_max: usize, bytes_max: usize) -> Wanted {
    let (first, last) = (MessageSeq(from), MessageSeq(u64::MAX));
    Wanted { queue: QueueKey(queue), first, last, count_max, bytes_max }
}
