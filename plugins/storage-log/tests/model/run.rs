//! One random run.

use std::collections::BTreeMap;
use std::sync::Arc;

use plugin_api::storage::{Append, Durability, Mark, MessageSeq, QueueKey, Settle, StorageError, Wanted};
use plugin_api::testing::Random;
use storage_log::sim::{Faults, SimDisk};
use storage_log::{Commit, Log, Mutant, OpenError, Operation, Options, check_disk};

use crate::model::{Key, Known, Model, contents, stamp, verify};

/// What a run does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) is_loud: bool,
    pub(crate) mutant: Option<Mutant>,
    /// Turn bits over where nobody may believe them.
    pub(crate) flips_bits: bool,
}

pub(crate) fn run_mutant(seed: u64, mutant: Mutant) -> Result<(), String> {
    run(seed, &Plan { mutant: Some(mutant), flips_bits: mutant == Mutant::SkipChecksums, ..Plan::default() })
}

pub(crate) fn run(seed: u64, plan: &Plan) -> Result<(), String> {
    let flips_bits = plan.flips_bits || seed % 4 == 3;
    let mut run = Run::new(seed, Plan { flips_bits, ..plan.clone() })?;
    for step in 0..STEPS {
        run.step().map_err(|error| format!("step {step}: {error}"))?;
    }
    run.disk.set_capacity(u64::MAX);
    run.reopen(Ending::Close).map_err(|error| format!("at the end: {error}"))
}

/// Messages by number with their places, and how far they are to be kept; two ends of a settled range when not at all.
type Intent = (Vec<(u64, Vec<Key>)>, Durability);

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Close,
    Kill,
    Crash,
}

struct Run {
    plan: Plan,
    random: Random,
    disk: SimDisk,
    log: Option<Log>,
    model: Model,
    next_seq: BTreeMap<u64, u64>,
    next_number: u64,
    numbers: BTreeMap<Key, u64>,
    has_flipped: bool,
    /// The disk has been full: what is settled may be so in memory alone until there is a checkpoint.
    was_full: bool,
}

const QUEUES: u64 = 5;
const STEPS: u32 = 120;

impl Run {
    fn new(seed: u64, plan: Plan) -> Result<Self, String> {
        let mut run = Self {
            random: Random::new(seed),
            disk: SimDisk::new(seed ^ 0xd15c),
            plan,
            log: None,
            model: Model::default(),
            next_seq: BTreeMap::new(),
            next_number: 1,
            numbers: BTreeMap::new(),
            has_flipped: false,
            was_full: false,
        };
        run.open()?;
        Ok(run)
    }

    fn options(&mut self) -> Options {
        let segment_bytes = *self.random.pick(&[4096, 8192, 20_000]);
        Options { segment_bytes, recycled_max: 3, seed: Some(self.random.next_u64()), mutant: self.plan.mutant }
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..40 => self.write(),
            40..62 => self.settle(),
            62..66 => self.delete(),
            66..71 => self.meta(),
            71..75 => self.mark(),
            75..84 => self.read(),
            84..87 => self.maintain(),
            87..90 => self.fill(),
            90..93 => {
                let sync_fails_in = Some(self.random.below(4));
                self.disk.set_faults(Faults { sync_fails_in, ..Faults::default() });
                self.say("a sync will fail");
                Ok(())
            }
            93..95 => {
                let write_fails_in = Some(self.random.below(6));
                self.disk.set_faults(Faults { write_fails_in, ..Faults::default() });
                self.say("a write will fail");
                Ok(())
            }
            95..97 => {
                let power_fails_in = Some(self.random.below(12));
                self.disk.set_faults(Faults { power_fails_in, ..Faults::default() });
                self.say("the power will fail");
                Ok(())
            }
            97 => self.reopen(Ending::Close),
            98 => self.reopen(Ending::Kill),
            _ => self.reopen(Ending::Crash),
        }
    }

    fn write(&mut self) -> Result<(), String> {
        let count = 1 + self.random.below(3);
        let (mut operations, mut intents) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let kept = if self.random.below(4) == 0 { Durability::Os } else { Durability::Synced };
            let messages = 1 + self.random.below(8);
            let batch: Vec<(u64, Vec<Key>)> = (0..messages).map(|_| self.message()).collect();
            operations.push(Operation::Append(encode(&batch), kept));
            intents.push((batch, kept));
            if self.random.below(4) == 0 {
                let (queue, first, last) = self.range();
                operations.push(Operation::Settle(vec![settle(queue, first, last)]));
                intents.push((vec![(0, vec![(queue, first), (queue, last)])], Durability::ProcessLifetime));
            }
        }
        self.say(&format!("write {intents:?}"));
        let results = self.commit(operations);
        let is_failed = results.iter().any(|result| matches!(result, Err(StorageError::Failed(_))));
        let is_synced = intents.iter().any(|(_, kept)| *kept == Durability::Synced);
        for ((batch, kept), result) in intents.iter().zip(&results) {
            match (kept, result) {
                (Durability::ProcessLifetime, _) => {
                    let [(queue, first), (_, last)] = batch[0].1[..] else { unreachable!() };
                    self.model.settle(queue, first, last);
                }
                (_, Err(StorageError::Full(_))) => {}
                (_, Ok(()) | Err(_)) => {
                    let keys = batch.iter().flat_map(|(number, keys)| keys.iter().map(move |key| (*key, *number)));
                    for (key, number) in keys {
                        self.model.add(key, Known::Maybe);
                        self.numbers.insert(key, number);
                    }
                }
            }
        }
        let is_full = results.iter().any(|result| matches!(result, Err(StorageError::Full(_))));
        if is_failed {
            return self.after_failure();
        }
        // A settled range of a full disk may be in memory alone.
        if is_synced && !is_full && self.is_sound() {
            self.model.synced();
        } else if is_synced {
            self.keep_confirmed(&intents, &results);
        }
        Ok(())
    }

    /// Confirmed is confirmed, whatever else happened.
    fn keep_confirmed(&mut self, intents: &[Intent], results: &[Result<(), StorageError>]) {
        for ((batch, kept), result) in intents.iter().zip(results) {
            if *kept != Durability::Synced || result.is_err() {
                continue;
            }
            for key in batch.iter().flat_map(|(_, keys)| keys) {
                if self.model.messages.get(key) == Some(&Known::Maybe) {
                    self.model.add(*key, Known::Kept);
                }
            }
        }
    }

    fn settle(&mut self) -> Result<(), String> {
        let ranges: Vec<(u64, u64, u64)> = (0..1 + self.random.below(3)).map(|_| self.range()).collect();
        self.say(&format!("settle {ranges:?}"));
        let settles = ranges.iter().map(|(queue, first, last)| settle(*queue, *first, *last)).collect();
        let result = self.commit(vec![Operation::Settle(settles)]).remove(0);
        ranges.iter().for_each(|(queue, first, last)| self.model.settle(*queue, *first, *last));
        match result {
            Ok(()) => Ok(()),
            Err(StorageError::Failed(_)) => self.after_failure(),
            Err(error) => Err(format!("settling answers {error}")),
        }
    }

    fn delete(&mut self) -> Result<(), String> {
        let queue = u64::from(self.random.below(5));
        self.say(&format!("delete {queue}"));
        let result = self.commit(vec![Operation::Delete(QueueKey(queue))]).remove(0);
        self.model.delete(queue);
        match result {
            Ok(()) => Ok(()),
            Err(StorageError::Failed(_)) => self.after_failure(),
            Err(error) => Err(format!("deleting answers {error}")),
        }
    }

    fn mark(&mut self) -> Result<(), String> {
        let marks: Vec<(u64, u64)> = (0..1 + self.random.below(3))
            .map(|_| {
                let queue = u64::from(self.random.below(5));
                let newest = self.next_seq.get(&queue).copied().unwrap_or_default();
                (queue, (newest + u64::from(self.random.below(4))).saturating_sub(self.random.below(20).into()))
            })
            .collect();
        self.say(&format!("mark {marks:?}"));
        let mark = |(queue, last): &(u64, u64)| Mark { queue: QueueKey(*queue), last: MessageSeq(*last) };
        let result = self.commit(vec![Operation::Mark(marks.iter().map(mark).collect())]).remove(0);
        marks.iter().for_each(|(queue, last)| self.model.mark(*queue, *last));
        match result {
            Ok(()) => self.log.as_ref().map_or(Ok(()), |log| self.model.check_marks(&log.recovered())),
            Err(StorageError::Failed(_)) => self.after_failure(),
            Err(error) => Err(format!("marking answers {error}")),
        }
    }

    fn entry(&mut self) -> (Vec<u8>, Option<Vec<u8>>) {
        let key = vec![b'k', u8::try_from(self.random.below(6)).unwrap_or_default()];
        let length = self.random.below(40) as usize;
        let value =
            (self.random.below(3) > 0).then(|| vec![u8::try_from(self.random.below(256)).unwrap_or_default(); length]);
        (key, value)
    }

    fn meta(&mut self) -> Result<(), String> {
        let entries: Vec<_> = (0..1 + self.random.below(3)).map(|_| self.entry()).collect();
        self.say(&format!("put {entries:?}"));
        let result = self.commit(vec![Operation::PutMeta(entries.clone())]).remove(0);
        let mut put = |is_confirmed| {
            entries.iter().for_each(|(key, value)| self.model.put_meta(key, value.as_deref(), is_confirmed));
        };
        match result {
            Ok(()) => {
                put(true);
                if self.is_sound() {
                    self.model.synced();
                }
                Ok(())
            }
            Err(StorageError::Full(_)) => Ok(()),
            Err(_) => {
                put(false);
                self.after_failure()
            }
        }
    }

    /// Everything in memory is also in the log. Not so after the disk has been full.
    fn is_sound(&self) -> bool {
        !self.was_full
    }

    fn read(&mut self) -> Result<(), String> {
        let queue = u64::from(self.random.below(5));
        let newest = self.next_seq.get(&queue).copied().unwrap_or_default();
        let from = newest.saturating_sub(u64::from(self.random.below(60)));
        let count = self.random.below(30) as usize;
        self.say(&format!("read {queue} from {from}, {count}"));
        if !self.disk.has_power() {
            return self.reopen(Ending::Crash);
        }
        self.compare(queue, from, count)
    }

    /// Reads, and compares with what must be there.
    fn compare(&mut self, queue: u64, from: u64, count: usize) -> Result<(), String> {
        let Some(log) = &self.log else { return Ok(()) };
        loop {
            let expected: Vec<u64> = self.model.live(queue, from).take(count).collect();
            let found = match log.read(&Wanted {
                queue: QueueKey(queue),
                first: MessageSeq(from),
                last: MessageSeq(u64::MAX),
                count_max: count,
                bytes_max: usize::MAX,
            }) {
                Ok(found) => found,
                Err(StorageError::Damaged(_)) if self.has_flipped => {
                    let key = (queue, *expected.first().ok_or("damage where nothing is")?);
                    self.model.messages.remove(&key);
                    self.model.forgiven.insert(key);
                    continue;
                }
                Err(error) => return Err(format!("read answers {error}")),
            };
            for message in &found {
                let number = verify(message)?;
                if self.numbers.get(&(queue, message.seq.0)) != Some(&number) {
                    return Err(format!("message {} of queue {queue} is number {number}", message.seq.0));
                }
            }
            let seqs: Vec<u64> = found.iter().map(|message| message.seq.0).collect();
            if seqs == expected || (self.has_flipped && !seqs.is_empty() && expected.starts_with(&seqs)) {
                return Ok(());
            }
            return Err(format!("queue {queue} from {from} has {seqs:?}, expected {expected:?}"));
        }
    }

    fn maintain(&mut self) -> Result<(), String> {
        self.say("checkpoint");
        let result = self.log.as_mut().map(Log::checkpoint);
        match result {
            Some(Err(_)) => self.after_failure(),
            Some(Ok(true)) => {
                self.model.synced();
                self.was_full = false;
                Ok(())
            }
            Some(Ok(false)) | None => Ok(()),
        }
    }

    /// The disk is nearly full, or has room again.
    fn fill(&mut self) -> Result<(), String> {
        let is_full = self.random.below(2) == 0;
        let room = u64::from(self.random.below(20_000));
        self.disk.set_capacity(if is_full { self.disk.used_bytes() + room } else { u64::MAX });
        self.say(&format!("full: {is_full}, room for {room}"));
        Ok(())
    }

    fn commit(&mut self, operations: Vec<Operation>) -> Vec<Result<(), StorageError>> {
        let Some(log) = &mut self.log else { return Vec::new() };
        self.was_full |= log.is_full();
        let results = log.commit(operations);
        self.was_full |= log.is_full();
        // Its failure shows in the next commit.
        drop(log.maintain());
        results
    }

    /// After a failed sync or write nothing works any more until the folder is opened again.
    fn after_failure(&mut self) -> Result<(), String> {
        self.say("failed");
        if let Some(log) = &mut self.log {
            let again = log.commit(vec![Operation::Settle(Vec::new())]).remove(0);
            if !matches!(again, Err(StorageError::Failed(_))) {
                return Err("a failure is not final".to_owned());
            }
        }
        let ending = if self.random.below(2) == 0 { Ending::Kill } else { Ending::Crash };
        self.reopen(ending)
    }

    fn reopen(&mut self, ending: Ending) -> Result<(), String> {
        self.say(&format!("{ending:?}"));
        let Some(mut log) = self.log.take() else { return self.open() };
        let is_closed = ending == Ending::Close && log.checkpoint().is_ok_and(|is_written| is_written);
        if is_closed {
            self.model.synced();
        }
        drop(log);
        match ending {
            Ending::Close => self.disk.set_faults(Faults::default()),
            Ending::Kill => self.disk.kill(),
            Ending::Crash => self.disk.crash(),
        }
        // Behind the checkpoint a flipped bit in the last commit looks as a torn one does.
        if self.plan.flips_bits && is_closed && self.random.below(2) == 0 {
            self.flip()?;
        }
        // What must not be there after an ordinary end may be there in this one only by flipped bits.
        if !self.has_flipped {
            let report = check_disk(&self.disk);
            match report {
                Ok(report) if !report.is_sound() => return Err(format!("damage that nobody did: {report}")),
                Err(error) if !matches!(error, OpenError::Empty { .. }) => return Err(format!("check: {error}")),
                Ok(_) | Err(_) => {}
            }
        }
        self.open()
    }

    fn open(&mut self) -> Result<(), String> {
        // A crash while opening is a crash, too.
        if self.random.below(4) == 0 {
            let power_fails_in = Some(self.random.below(20));
            self.disk.set_faults(Faults { power_fails_in, ..Faults::default() });
            let options = self.options();
            drop(Log::open(Arc::new(self.disk.clone()), options));
            self.disk.crash();
        }
        let options = self.options();
        let opened = Log::open(Arc::new(self.disk.clone()), options.clone());
        let log = match opened {
            Err(OpenError::Full { .. }) => {
                self.disk.set_capacity(u64::MAX);
                Log::open(Arc::new(self.disk.clone()), options)
            }
            opened => opened,
        };
        let log = log.map_err(|error| format!("opening: {error}"))?;
        if !self.has_flipped && !log.damage().is_empty() {
            return Err(format!("damage that nobody did: {:?}", log.damage()));
        }
        if self.has_flipped && !log.damage().is_empty() {
            // What a lost commit held is not known: all that is missing now has been told of, as far as it can be.
            let there = log.recovered();
            let is_there = |(queue, seq): Key| {
                let queue = there.queues.iter().find(|found| found.queue.0 == queue);
                queue.is_some_and(|queue| queue.ranges.iter().any(|(first, last)| (first.0..=last.0).contains(&seq)))
            };
            let missing = self.model.messages.keys().filter(|key| !is_there(**key)).copied();
            self.model.forgiven.extend(missing.collect::<Vec<_>>());
        }
        self.model.adopt(&log.recovered(), self.has_flipped)?;
        self.was_full = log.is_full();
        self.log = Some(log);
        (0..QUEUES).try_for_each(|queue| self.compare(queue, 0, 10_000))
    }

    /// Turns a bit over in an index or in a record of a sealed segment: both are found when they are read.
    fn flip(&mut self) -> Result<(), String> {
        use storage_log::disk::Disk;

        let names = self.disk.list().map_err(|error| error.to_string())?;
        let names: Vec<(String, u64)> = names.into_iter().filter(|(name, _)| name.starts_with("segment-")).collect();
        if names.is_empty() {
            return Ok(());
        }
        let (name, bytes) = self.random.pick(&names).clone();
        let bit = u64::from(self.random.below(u32::try_from(bytes * 8).unwrap_or(u32::MAX)));
        self.say(&format!("flip bit {bit} of {name}"));
        self.disk.flip(&name, bit);
        self.has_flipped = true;
        Ok(())
    }

    fn message(&mut self) -> (u64, Vec<Key>) {
        let number = self.next_number;
        self.next_number += 1;
        let count = if self.random.below(5) == 0 { 1 + self.random.below(3) } else { 1 };
        let first = u64::from(self.random.below(5));
        let keys = (0..u64::from(count)).map(|place| {
            let queue = (first + place) % QUEUES;
            let next = self.next_seq.entry(queue).or_insert(1);
            let seq = *next;
            // Positions need not be consecutive.
            *next += if self.random.below(10) == 0 { 3 } else { 1 };
            (queue, seq)
        });
        (number, keys.collect())
    }

    /// Mostly the oldest messages, as consumers do.
    fn range(&mut self) -> (u64, u64, u64) {
        let queue = u64::from(self.random.below(5));
        let oldest = self.model.live(queue, 0).next().unwrap_or_default();
        let newest = self.next_seq.get(&queue).copied().unwrap_or_default();
        let first = match self.random.below(3) {
            0 => newest.saturating_sub(u64::from(self.random.below(40))),
            _ => oldest,
        };
        (queue, first, first + u64::from(self.random.below(25)))
    }

    fn say(&self, text: &str) {
        if self.plan.is_loud {
            println!("{text}");
        }
    }
}

fn encode(batch: &[(u64, Vec<Key>)]) -> Commit {
    type Parts = (Vec<(QueueKey, MessageSeq)>, u64, (String, String, Vec<u8>, Vec<u8>));
    let parts: Vec<Parts> = batch
        .iter()
        .map(|(number, keys)| {
            (
                keys.iter().map(|(queue, seq)| (QueueKey(*queue), MessageSeq(*seq))).collect(),
                stamp(*number),
                contents(*number),
            )
        })
        .collect();
    let batch: Vec<Append<'_>> = parts
        .iter()
        .map(|(targets, stamp, (exchange, routing_key, properties, body))| Append {
            targets,
            stamp: *stamp,
            exchange,
            routing_key,
            properties,
            body,
        })
        .collect();
    Commit::new(&batch)
}

fn settle(queue: u64, first: u64, last: u64) -> Settle {
    Settle { queue: QueueKey(queue), first: MessageSeq(first), last: MessageSeq(last) }
}
