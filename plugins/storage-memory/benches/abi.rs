//! What it costs that a storage is behind the plugin ABI: `cargo bench -p storage-memory`.

use std::hint::black_box;

use plugin_api::abi::guest::{Guest, Linkage};
use plugin_api::config::Config;
use plugin_api::storage::{Append, MessageSeq, QueueKey, Settle, StorageSpec, StorageType};
use plugin_api::testing::{FakeHost, block_on};
use storage_memory::{MemoryType, PLUGIN};

/// Messages in a batch: what gathers while a disk syncs.
const BATCH: usize = 256;

/// Storage in memory, so that nothing but the crossing counts: the same calls as a trait and through the ABI.
fn main() {
    let host = FakeHost::new().table(Linkage::LinkedIn);
    let guest = Guest::linked(&PLUGIN, host, &Config::default()).unwrap_or_else(|error| panic!("{error}"));
    let spec = StorageSpec::default();
    let kinds = [
        ("trait", MemoryType.open(&spec).unwrap_or_else(|error| panic!("{error}"))),
        ("ABI", guest.storages[0].open(&spec).unwrap_or_else(|error| panic!("{error}"))),
    ];
    let body = [7; 16];
    let targets: Vec<[(QueueKey, MessageSeq); 1]> =
        (0..BATCH as u64).map(|seq| [(QueueKey(1), MessageSeq(seq))]).collect();
    let batch: Vec<Append<'_>> = targets
        .iter()
        .map(|targets| Append { targets, stamp: 1, exchange: "x", routing_key: "k", properties: &[0, 0], body: &body })
        .collect();
    let none = [Settle { queue: QueueKey(9), first: MessageSeq(0), last: MessageSeq(0) }];
    for (name, storage) in &kinds {
        let nanos = plugin_api::testing::nanos_per_call(20, |_| {
            drop(black_box(block_on(storage.append(black_box(&batch)))));
        });
        let small = plugin_api::testing::nanos_per_call(200, |_| {
            drop(black_box(block_on(storage.settle(black_box(&none)))));
        });
        println!("{name}: append of {BATCH} messages {nanos:.0} ns, settle of one range {small:.0} ns");
    }
}
