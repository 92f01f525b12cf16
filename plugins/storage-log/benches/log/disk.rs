//! Rates beside those of the disk itself, taken in turns, since disks and neighbours change.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use plugin_api::storage::Storage;

use super::{BATCH, BODY_BYTES, append, open, settle};

/// Messages of one turn.
const ROUND: usize = 160 * BATCH;
const ROUNDS: u64 = 6;

/// What a record takes beside the body, about.
const OVERHEAD_BYTES: usize = 80;

/// Settling follows appending at this distance, as consumers follow publishers.
const LAG: u64 = 4 * BATCH as u64;

/// Appends with settles of one queue and of many, beside appends of the same bytes to a file that grows, and to one that is
/// written again from its start as segments are that are used again, the fastest that the disk has.
pub(crate) fn rates(folder: &Path) {
    let (grows, again) = (Raw::new(folder, BATCH, true), Raw::new(folder, BATCH, false));
    let kinds = [1, 100, 10_000];
    let mut storages = kinds.map(|queues| (queues, open(&folder.join(format!("rates-{queues}"))), Turn::default()));
    let (mut raw, mut raw_again) = (Turn::default(), Turn::default());
    // The first round is for warming up.
    for round in 0..=ROUNDS {
        raw.add(Turn::of(|| (0..ROUND / BATCH).for_each(|_| grows.append())), round);
        raw_again.add(Turn::of(|| (0..ROUND / BATCH).for_each(|_| again.append())), round);
        for (queues, storage, all) in &mut storages {
            let first = round * ROUND as u64;
            all.add(Turn::of(|| append_and_settle(&**storage, first, *queues)), round);
        }
    }
    let count = ROUNDS as f64 * ROUND as f64;
    println!(
        "persistent messages of {BODY_BYTES} bytes, {BATCH} a batch, settled     messages/s  of raw append  us CPU each"
    );
    println!("  raw append and fdatasync of the same bytes         {}", raw.row(count, &raw));
    println!("  raw write over old bytes and fdatasync             {}", raw_again.row(count, &raw));
    for (queues, _, turn) in &storages {
        println!("  log, {queues:>6} queues                                 {}", turn.row(count, &raw));
    }
    let secs = |place: usize| storages.get(place).map_or(0.0, |(_, _, turn)| turn.wall.as_secs_f64());
    println!("  10,000 queues beside one: {:.0} %", secs(0) / secs(2) * 100.0);
}

fn append_and_settle(storage: &dyn Storage, first: u64, queues: u64) {
    for start in (first..first + ROUND as u64).step_by(BATCH) {
        append(storage, start..start + BATCH as u64, queues, BATCH, true);
        if start >= LAG {
            settle(storage, start - LAG..start - LAG + BATCH as u64, queues);
        }
    }
}

/// A batch of one, which waits for one sync and whatever the log adds to it.
pub(crate) fn single(folder: &Path) {
    let (raw, again) = (Raw::new(folder, 1, true), Raw::new(folder, 1, false));
    let storage = open(&folder.join("single"));
    let (mut raw_turn, mut again_turn, mut turn) = (Turn::default(), Turn::default(), Turn::default());
    for round in 0..=400_u64 {
        raw_turn.add(Turn::of(|| (0..5).for_each(|_| raw.append())), round);
        again_turn.add(Turn::of(|| (0..5).for_each(|_| again.append())), round);
        turn.add(Turn::of(|| append(&*storage, round * 5..round * 5 + 5, 1, 1, true)), round);
    }
    let micros = |turn: &Turn| turn.wall.as_secs_f64() / 2000.0 * 1e6;
    println!("a batch of one");
    println!("  raw append and fdatasync  {:>8.0} us", micros(&raw_turn));
    println!("  raw write over old bytes  {:>8.0} us", micros(&again_turn));
    println!(
        "  log                       {:>8.0} us, {:.2} of raw append, {:.2} of the write over old bytes",
        micros(&turn),
        micros(&turn) / micros(&raw_turn),
        micros(&turn) / micros(&again_turn)
    );
}

/// A file that is appended to.
struct Raw {
    file: File,
    block: Vec<u8>,
    position: std::cell::Cell<u64>,
    grows: bool,
}

const RAW_BYTES: u64 = 32 << 20;

impl Raw {
    fn new(folder: &Path, batch: usize, grows: bool) -> Self {
        let file = File::create(folder.join(format!("raw-{grows}"))).expect("a file can be made");
        let block = vec![7; batch * (BODY_BYTES + OVERHEAD_BYTES)];
        if !grows {
            file.write_all_at(&vec![1; RAW_BYTES as usize], 0).expect("the file can be written");
        }
        file.sync_all().expect("the file can be synced");
        Self { file, block, position: std::cell::Cell::new(0), grows }
    }

    fn append(&self) {
        let position = self.position.get();
        self.file.write_all_at(&self.block, position).expect("the file can be written");
        self.file.sync_data().expect("the file can be synced");
        let next = position + self.block.len() as u64;
        let is_at_end = !self.grows && next + self.block.len() as u64 > RAW_BYTES;
        self.position.set(if is_at_end { 0 } else { next });
    }
}

/// Time by the clock and of the processor.
#[derive(Default, Clone, Copy)]
struct Turn {
    wall: Duration,
    cpu_secs: f64,
}

impl Turn {
    fn of(work: impl FnOnce()) -> Self {
        let (start, cpu) = (Instant::now(), super::scale::cpu_secs());
        work();
        Self { wall: start.elapsed(), cpu_secs: super::scale::cpu_secs() - cpu }
    }

    fn add(&mut self, turn: Self, round: u64) {
        if round > 0 {
            self.wall += turn.wall;
            self.cpu_secs += turn.cpu_secs;
        }
    }

    fn row(&self, count: f64, raw: &Self) -> String {
        let rate = count / self.wall.as_secs_f64();
        let ratio = raw.wall.as_secs_f64() / self.wall.as_secs_f64();
        format!("{rate:>12.0} {ratio:>8.2} {:>12.1}", self.cpu_secs / count * 1e6)
    }
}
