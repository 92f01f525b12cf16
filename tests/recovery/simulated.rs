//! The whole broker on a disk that forgets: what clients were promised, after power cuts at any call of the disk.
//!
//! The machine runs on `storage-log` and its simulated disk, so that a run follows from its seed alone. The same runs must
//! notice planted defects: syncs of contents or of names that are skipped, checksums that are not looked at, and confirms that
//! go out before the sync. `CRASH_SEEDS=10000` runs more of them, `CRASH_SEED=7` one.

use plugin_api::async_trait;
use plugin_api::storage::{
    Append, Durability, Mark, Meta, QueueKey, Recovered, Settle, Storage, StorageError, StorageStatus, StoredMessage,
    Wanted,
};
use plugin_api::testing::Random;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use storage_log::disk::Disk;
use storage_log::sim::{Faults, SimDisk};
use storage_log::{Commit, Log, Mutant, Operation, Options};
use tests::clock::EPOCH_MS;
use tests::crash::ledger::{ChannelLog, ConsumerLog, Found, Kind, Ledger, Outcome, PublisherLog, RoundLog, Spared};
use tests::crash::message::{self, DELAY_MAX_MS, Fate, Identity, LATE, QUEUES};
use tests::machine::MachineTarget;
use tests::scenario::connection::{Connection, Event, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::{Field, spec};

/// What is wrong with the broker under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    Log(Mutant),
    ConfirmEarly,
}

#[test]
fn what_was_confirmed_survives_power_cuts() {
    if let Some(seed) = number("CRASH_SEED") {
        return run(seed, None).unwrap_or_else(|error| panic!("{error}"));
    }
    for seed in 0..number("CRASH_SEEDS").unwrap_or(150) {
        run(seed, None).unwrap_or_else(|error| panic!("CRASH_SEED={seed} fails: {error}"));
    }
}

#[test]
fn confirm_before_the_sync_is_caught() {
    caught(Defect::ConfirmEarly);
}

#[test]
fn skipped_sync_of_data_is_caught() {
    caught(Defect::Log(Mutant::SkipSyncData));
}

#[test]
fn skipped_sync_of_the_folder_is_caught() {
    caught(Defect::Log(Mutant::SkipSyncFolder));
}

#[test]
fn dropped_checksums_are_caught() {
    caught(Defect::Log(Mutant::SkipChecksums));
}

/// A defect that no seed notices means that the runs without it prove nothing.
fn caught(defect: Defect) {
    let found = (0..200).find_map(|seed| run(seed, Some(defect)).err().map(|error| (seed, error)));
    let (seed, error) = found.unwrap_or_else(|| panic!("{defect:?} goes unnoticed by 200 seeds"));
    println!("{defect:?} is caught by seed {seed}: {error}");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

const ROUNDS: u32 = 4;
const STEPS: u32 = 60;
const CHANNELS: u16 = 3;
/// Publishers' channels come first.
const CONSUMING: u16 = CHANNELS + 1;

/// Some rounds of work on one disk, each ended by a kill or a power cut.
fn run(seed: u64, defect: Option<Defect>) -> Result<(), String> {
    let mut random = Random::new(seed);
    let disk = SimDisk::new(seed ^ 0xd15c);
    let mut ledger = Ledger::default();
    let (mut log, mut spared) = (RoundLog::default(), Spared::System);
    // Nobody can promise what a bit holds that turns over by itself; it must only never be served.
    let flips = defect == Some(Defect::Log(Mutant::SkipChecksums)) || seed % 5 == 4;
    let mut has_flipped = false;
    let mut later_ms = 0;
    for round in 0..=ROUNDS {
        if random.below(4) == 0 {
            // The power fails while it starts.
            disk.set_faults(Faults { power_fails_in: Some(random.below(30)), ..Faults::default() });
            drop(start(&disk, &mut random, defect, later_ms));
            disk.crash();
            spared = Spared::DiskAtAnyTime;
        }
        let machine = match start(&disk, &mut random, defect, later_ms) {
            Ok(machine) => machine,
            // A folder that is damaged beyond use is told as such.
            Err(_) if has_flipped => return Ok(()),
            Err(error) => return Err(format!("round {round}: no start: {error}")),
        };
        let mut connection = Connection::new(machine.connect().map_err(|error| error.to_string())?);
        connection.login(&Login::guest("/"))?;
        for channel in 1..=CONSUMING {
            connection.call(channel, "channel.open", &[]);
            connection.wait_for(channel, "channel.open-ok")?;
        }
        declare(&mut connection)?;
        let found = look(&mut connection, random.below(2) == 0)?;
        let violations = ledger.judge(std::mem::take(&mut log), &found.queues, spared).violations;
        let is_wrong = |kind: Kind| !has_flipped || !matches!(kind, Kind::Lost | Kind::Order | Kind::Ghost);
        if let Some(violation) = violations.into_iter().find(|violation| is_wrong(violation.kind)) {
            return Err(format!("round {round}: {}: {}", violation.kind, violation.text));
        }
        if let Some(text) = found.corrupt {
            return Err(format!("round {round}: {text}"));
        }
        if found.is_drained {
            ledger.on_drained();
        } else {
            ledger.on_looked_at();
        }
        log = work(&mut connection, &disk, &mut random, round)?;
        // Messages that are put off are due in wall-clock time, which goes on.
        later_ms = machine.broker().clock.wall_ms() - EPOCH_MS + u64::from(random.below(DELAY_MAX_MS));
        drop((connection, machine));
        spared = if random.below(4) == 0 && disk.has_power() {
            disk.kill();
            Spared::System
        } else {
            disk.crash();
            Spared::DiskAtAnyTime
        };
        if flips && round > 0 {
            has_flipped |= flip(&disk, &mut random);
        }
    }
    Ok(())
}

fn start(disk: &SimDisk, random: &mut Random, defect: Option<Defect>, later_ms: u64) -> Result<MachineTarget, String> {
    let mutant = match defect {
        Some(Defect::Log(mutant)) => Some(mutant),
        _ => None,
    };
    let segment_bytes = *random.pick(&[4096, 20_000, 100_000]);
    let options = Options { segment_bytes, recycled_max: 3, seed: Some(random.next_u64()), mutant };
    let log = Log::open(Arc::new(disk.clone()), options).map_err(|error| error.to_string())?;
    let durability = if defect == Some(Defect::ConfirmEarly) { Durability::Os } else { Durability::Synced };
    let folder = TempDir::new("simulated");
    let path = folder.write("topology.yaml", "limits: {queue_memory_bytes: 1MiB}\n");
    let loaded = broker::config::load(&path, &|_| None).map_err(|errors| format!("{errors:?}"))?;
    MachineTarget::later_on(Arc::new(LogAtOnce { log: Mutex::new(log), durability }), &loaded.topology, later_ms)
}

fn declare(connection: &mut Connection) -> Result<(), String> {
    let text = |text: &str| Field::String(text.as_bytes().to_vec());
    let durable = ("durable", Field::Bit(true));
    connection.call(1, "exchange.declare", &[("exchange", text("fan")), ("type", text("fanout")), durable.clone()]);
    connection.wait_for(1, "exchange.declare-ok")?;
    connection.call(1, "exchange.declare", &message::late_exchange());
    connection.wait_for(1, "exchange.declare-ok")?;
    for (name, _) in QUEUES {
        let arguments = ("arguments", Field::Table(message::arguments(name)));
        let fields = [("queue", text(name)), durable.clone(), arguments];
        connection.call(1, "queue.declare", &fields);
        connection.wait_for(1, "queue.declare-ok")?;
        if name.starts_with("fan") {
            connection.call(1, "queue.bind", &[("queue", text(name)), ("exchange", text("fan"))]);
            connection.wait_for(1, "queue.bind-ok")?;
        }
        if name == LATE {
            let fields = [("queue", text(name)), ("exchange", text(LATE)), ("routing-key", text(LATE))];
            connection.call(1, "queue.bind", &fields);
            connection.wait_for(1, "queue.bind-ok")?;
        }
    }
    Ok(())
}

/// What is in the queues.
struct Contents {
    queues: Vec<Option<Vec<Found>>>,
    corrupt: Option<String>,
    is_drained: bool,
}

fn look(connection: &mut Connection, drains: bool) -> Result<Contents, String> {
    let mut contents = Contents { queues: Vec::new(), corrupt: None, is_drained: drains };
    wait_for_late(connection)?;
    for (name, _) in QUEUES {
        let mut found = Vec::new();
        while let Some((_, is_redelivered, message)) = get(connection, name)? {
            match message {
                Ok(identity) => found.push(Found { identity, is_redelivered }),
                Err(text) => contents.corrupt = Some(format!("{name}: {text}")),
            }
        }
        contents.queues.push(Some(found));
    }
    let all = [("delivery-tag", Field::Number(0)), ("multiple", Field::Bit(true))];
    let method = if drains { "basic.ack" } else { "basic.nack" };
    let requeue = [("requeue", Field::Bit(true))];
    connection.call(CONSUMING, method, &if drains { all.to_vec() } else { [&all[..], &requeue].concat() });
    connection.barrier(CONSUMING)?;
    Ok(contents)
}

/// Waits until everything that was put off has come: one more message is, and is due after all others.
fn wait_for_late(connection: &mut Connection) -> Result<(), String> {
    let text = |text: &str| Field::String(text.as_bytes().to_vec());
    let queue = ("queue", text("late.end"));
    connection.call(CONSUMING, "queue.declare", &[queue.clone(), ("exclusive", Field::Bit(true))]);
    connection.wait_for(CONSUMING, "queue.declare-ok")?;
    connection.call(CONSUMING, "queue.bind", &[queue.clone(), ("exchange", text(LATE)), ("routing-key", text("end"))]);
    connection.wait_for(CONSUMING, "queue.bind-ok")?;
    let publish = spec::by_name("basic.publish").ok_or("no basic.publish")?;
    let fields = [Field::Number(0), text(LATE), text("end"), Field::Bit(false), Field::Bit(false)];
    let delay_ms = i32::try_from(DELAY_MAX_MS).unwrap_or_default() + 1;
    let properties = vec![message::delay_header(delay_ms)];
    connection.send_method(CONSUMING, publish, &fields, Some((properties, Vec::new())));
    let tag = ("consumer-tag", text("end"));
    connection.call(CONSUMING, "basic.consume", &[queue, tag.clone(), ("no-ack", Field::Bit(true))]);
    connection.wait_for(CONSUMING, "basic.consume-ok")?;
    connection.wait_for(CONSUMING, "basic.deliver")?;
    connection.call(CONSUMING, "basic.cancel", &[tag]);
    connection.wait_for(CONSUMING, "basic.cancel-ok").map(drop)
}

type Got = (u64, bool, Result<Identity, String>);

/// The next message of a queue: delivery tag, redelivered, and whose it is.
fn get(connection: &mut Connection, queue: &str) -> Result<Option<Got>, String> {
    connection.call(CONSUMING, "basic.get", &[("queue", Field::String(queue.as_bytes().to_vec()))]);
    match connection.next(CONSUMING)? {
        Event::Method(incoming) if incoming.method.name == "basic.get-empty" => Ok(None),
        Event::Method(incoming) if incoming.method.name == "basic.get-ok" => {
            let (Some(Field::Number(tag)), Some(Field::Bit(is_redelivered)), Some((properties, body))) =
                (incoming.fields.first(), incoming.fields.get(1), &incoming.content)
            else {
                return Err(format!("{queue}: {:?}", incoming.fields));
            };
            Ok(Some((*tag, *is_redelivered, Identity::of(properties, body))))
        }
        other => Err(format!("{queue}: {other:?} answers basic.get")),
    }
}

/// Publishes and consumes until the steps are done or the power has gone.
fn work(connection: &mut Connection, disk: &SimDisk, random: &mut Random, round: u32) -> Result<RoundLog, String> {
    let publish = spec::by_name("basic.publish").ok_or("no basic.publish")?;
    let mut publisher = PublisherLog { round, publisher: 1, ..PublisherLog::default() };
    let mut consumers: BTreeMap<usize, ConsumerLog> = BTreeMap::new();
    for channel in 1..=CHANNELS {
        connection.call(channel, "confirm.select", &[]);
        connection.wait_for(channel, "confirm.select-ok")?;
        publisher.channels.insert(channel, ChannelLog::default());
    }
    if random.below(3) > 0 {
        // Somewhere in the middle of a call.
        disk.set_faults(Faults { power_fails_in: Some(random.below(150)), ..Faults::default() });
    }
    let mut unacked: Vec<(usize, u64, Identity)> = Vec::new();
    for _ in 0..STEPS {
        if !disk.has_power() {
            break;
        }
        match random.below(10) {
            0..6 => {
                let channel = 1 + u16::try_from(random.below(u32::from(CHANNELS))).unwrap_or_default();
                let Some(log) = publisher.channels.get_mut(&channel) else { continue };
                let identity = Identity { round, publisher: 1, channel, number: log.publish() };
                let route = identity.route();
                let text = |text: &str| Field::String(text.as_bytes().to_vec());
                let fields = [
                    Field::Number(0),
                    text(route.exchange),
                    text(route.routing_key),
                    Field::Bit(false),
                    Field::Bit(false),
                ];
                let content = Some((identity.properties(), identity.body()));
                connection.send_method(channel, publish, &fields, content);
            }
            6..8 => {
                let queue = random.below(u32::try_from(QUEUES.len()).unwrap_or_default()) as usize;
                let (name, fate) = QUEUES[queue];
                if fate != Fate::Untouched
                    && let Some((tag, _, identity)) = get(connection, name)?
                {
                    let identity = identity.map_err(|error| format!("{name}: {error}"))?;
                    let consumer = consumers.entry(queue).or_default();
                    consumer.queue = queue;
                    consumer.received.insert(identity);
                    unacked.push((queue, tag, identity));
                }
            }
            _ if !unacked.is_empty() => {
                let place = random.below(u32::try_from(unacked.len()).unwrap_or(u32::MAX)) as usize;
                let (queue, tag, identity) = unacked.remove(place);
                consumers.entry(queue).or_default().acked.insert(identity);
                connection.call(CONSUMING, "basic.ack", &[("delivery-tag", Field::Number(tag))]);
            }
            _ => {}
        }
        read_confirms(connection, &mut publisher)?;
    }
    Ok(RoundLog { publishers: vec![publisher], consumers: consumers.into_values().collect() })
}

fn read_confirms(connection: &mut Connection, publisher: &mut PublisherLog) -> Result<(), String> {
    for (channel, log) in &mut publisher.channels {
        while log.open_count() > 0 {
            let incoming = match connection.next(*channel)? {
                Event::Method(incoming) => incoming,
                Event::Heartbeat => continue,
                Event::Nothing | Event::Eof => break,
            };
            let outcome = match incoming.method.name {
                "basic.ack" => Outcome::Confirmed(Instant::now()),
                "basic.nack" => Outcome::Nacked,
                other => return Err(format!("a publisher receives {other}")),
            };
            if let [Field::Number(tag), Field::Bit(is_multiple), ..] = incoming.fields[..] {
                log.settle(tag, is_multiple, outcome)?;
            }
        }
    }
    Ok(())
}

/// Turns a bit over in a segment.
fn flip(disk: &SimDisk, random: &mut Random) -> bool {
    let names: Vec<(String, u64)> = disk.list().unwrap_or_default();
    let segments: Vec<&(String, u64)> = names.iter().filter(|(name, _)| name.ends_with(".log")).collect();
    if segments.is_empty() {
        return false;
    }
    let (name, bytes) = *random.pick(&segments);
    // Most of a segment is yet to be written; what is there begins at its start.
    let bytes = (*bytes).min(8192);
    let bit = random.below(u32::try_from(bytes * 8).unwrap_or(u32::MAX));
    disk.flip(name, u64::from(bit));
    true
}

/// A log that does everything on the caller's thread, as a machine wants it.
struct LogAtOnce {
    log: Mutex<Log>,
    /// What is waited for before an append is answered.
    durability: Durability,
}

impl LogAtOnce {
    fn commit(&self, operation: Operation) -> Result<(), StorageError> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let result = log.commit(vec![operation]).pop().unwrap_or(Ok(()));
        // The real one does this on its thread when it has time.
        let _ = log.maintain();
        result
    }
}

#[async_trait]
impl Storage for LogAtOnce {
    async fn append(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.commit(Operation::Append(Commit::new(batch), self.durability))
    }

    async fn append_unsynced(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.commit(Operation::Append(Commit::new(batch), Durability::Os))
    }

    async fn settle(&self, ranges: &[Settle]) -> Result<(), StorageError> {
        self.commit(Operation::Settle(ranges.to_vec()))
    }

    async fn delete_queue(&self, queue: QueueKey) -> Result<(), StorageError> {
        self.commit(Operation::Delete(queue))
    }

    async fn read(&self, wanted: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).read(&wanted)
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), StorageError> {
        self.commit(Operation::Mark(marks.to_vec()))
    }

    async fn put_meta(&self, entries: &[Meta<'_>]) -> Result<(), StorageError> {
        self.commit(Operation::put_meta(entries))
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        Ok(self.log.lock().unwrap_or_else(PoisonError::into_inner).recovered())
    }

    fn promise(&self) -> Durability {
        Durability::Synced
    }

    fn status(&self) -> StorageStatus {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        StorageStatus { is_full: log.is_full(), ..StorageStatus::default() }
    }
}
