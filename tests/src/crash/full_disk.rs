//! A disk that is full: publishers wait or are refused, consumers go on and make room, and the broker goes on by itself.
//!
//! A round fills a small file system, kills the broker while there is no room and starts it again without any. Then it fills
//! what is left, lets consumers take everything, and expects that messages are taken again without anybody's help. A last kill
//! shows that what was confirmed on the way is there.

use super::client::{Client, DEADLINE, text};
use super::inspect::{Afterwards, Seen, look, look_without_room};
use super::lab::{Lab, StorageUnderTest, pause};
use super::ledger::{Figures, Kind, Ledger, RoundLog, Spared, Violation};
use super::message::QUEUES;
use super::volume::{FileSystem, Volume};
use super::workload::{self, Consumers, Plan, Workload, wait_for_answers};
use crate::broker_process::BrokerProcess;
use crate::wire::Field;
use plugin_api::testing::Random;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const VOLUME_MIB: u64 = 64;
/// What suits such a disk: it has to hold several segments beside the one that is written, or nothing can be freed.
const SEGMENT_BYTES: [u32; 3] = [64 << 10, 256 << 10, 1 << 20];
/// So long without an answer, publishers are taken for stopped.
const SILENCE: Duration = Duration::from_secs(2);
/// What a broker that has recovered must take without a refusal, by each publisher.
const AFTERWARDS: u32 = 500;

/// Runs the rounds, with a line for each.
///
/// # Errors
/// When a round cannot be run at all, or the broker does not do what has to be waited for.
pub fn run(rounds: u32, seed: u64, storage: &StorageUnderTest) -> Result<Figures, String> {
    let mut all = Figures::default();
    for round in 0..rounds {
        let started = Instant::now();
        let (figures, note) = one(seed.wrapping_add(u64::from(round)), storage)
            .map_err(|error| format!("round {round}, seed {seed}: {error}"))?;
        println!("round {round}: {note}, {:.1?} in all: {figures}", started.elapsed());
        for violation in &figures.violations {
            println!("  {}: {}", violation.kind, violation.text);
        }
        all += figures;
    }
    Ok(all)
}

fn one(seed: u64, storage: &StorageUnderTest) -> Result<(Figures, String), String> {
    let mut random = Random::new(seed);
    let volume = Volume::new(FileSystem::Ext4, VOLUME_MIB)?;
    let lab = Lab::new(volume.path().join("data"), &SEGMENT_BYTES, storage);
    let mut ledger = Ledger::default();

    let broker = lab.start(&mut random, None)?;
    explain(&broker, "declaring", declare(broker.address()))?;
    let work = explain(&broker, "filling the disk", fill(broker.address(), 0, &mut random))?;
    let mut note = format!("full after {} confirms ({})", work.progress.now().confirmed, state(&work));
    let broker = still_alive(broker)?;
    broker.kill()?;
    let log = work.finish();

    // Nothing has made room since.
    let broker = lab.start(&mut random, None).map_err(|error| format!("no start on a full disk: {error}"))?;
    let looked = look_without_room(broker.address(), Afterwards::GiveBack);
    let looked = judge(&mut ledger, looked, log);
    let mut figures = explain(&broker, "looking at what is there", looked)?;
    ledger.on_looked_at();

    let work = explain(&broker, "filling the disk again", fill(broker.address(), 1, &mut random))?;
    work.stop_publishing();
    note.push_str(&format!(", again after {} ({})", work.progress.now().confirmed, state(&work)));
    let drain = Plan { consumers: Consumers::AckAll, publishers: 0, ..plan(2, &mut random) };
    let drain = explain(&broker, "starting consumers", Workload::start(broker.address(), drain))?;
    explain(&broker, "waiting for confirms while consumers make room", wait_for_answers(&work))?;
    let waited = explain(&broker, "asking whether there is room", take_again(broker.address()))?;
    note.push_str(&format!(", takes messages again {waited:.2?} after the answers"));
    let more = Plan { publishers: 3, messages_max: AFTERWARDS, ..plan(3, &mut random) };
    let more = explain(&broker, "starting publishers", Workload::start(broker.address(), more))?;
    let wanted = u64::from(AFTERWARDS) * 3;
    let is_answered = more.progress.wait(DEADLINE, |counts| counts.confirmed + counts.nacked >= wanted);
    let counts = more.progress.now();
    if !is_answered || counts.nacked > 0 {
        let text = format!("with room again, {counts:?} became of {wanted} messages");
        figures.violations.push(Violation::new(Kind::Rule, text));
    }
    still_alive(broker)?.kill()?;
    let mut log = work.finish();
    log.extend(drain.finish());
    log.extend(more.finish());
    let broker = lab.start(&mut random, None)?;
    let looked = judge(&mut ledger, look(broker.address(), Afterwards::Drain), log);
    figures += explain(&broker, "looking at what is left", looked)?;
    Ok((figures, note))
}

/// Says at which step something failed, and what the broker warned of.
fn explain<T>(broker: &BrokerProcess, step: &str, result: Result<T, String>) -> Result<T, String> {
    result.map_err(|error| {
        let log = broker.log();
        let notable = log.iter().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""));
        let ready = ready_counts(broker.address()).unwrap_or_else(|error| format!("not known ({error})"));
        let mut text = format!("{step}: {error}; ready messages: {ready}; the broker warned of:");
        notable.rev().take(WARNINGS_MAX).for_each(|line| text.push_str(&format!("\n{line}")));
        text
    })
}

/// How many messages are ready in each queue.
fn ready_counts(address: SocketAddr) -> Result<String, String> {
    let mut client = Client::connect(address)?;
    client.open(1)?;
    let mut text = String::new();
    for name in QUEUES.iter().map(|(name, _)| *name).chain([PROBE]) {
        let fields = [("queue", super::client::text(name)), ("passive", Field::Bit(true))];
        let event = client.call(1, "queue.declare", &fields, "queue.declare-ok")?;
        text.push_str(&format!("{name} {}, ", event.number(1)));
    }
    Ok(text)
}

/// The newest warnings are enough to see what it was about.
const WARNINGS_MAX: usize = 20;

fn plan(round: u32, random: &mut Random) -> Plan {
    Plan { round, seed: random.next_u64(), publishers: 0, consumers: Consumers::Nobody, messages_max: 0 }
}

fn declare(address: SocketAddr) -> Result<(), String> {
    let mut client = Client::connect(address)?;
    client.open(1)?;
    workload::declare(&mut client)?;
    client.call(1, "queue.declare", &[("queue", text(PROBE)), ("durable", Field::Bit(true))], "queue.declare-ok")?;
    Ok(())
}

/// Publishes until publishers are refused, told that they are blocked, or left without an answer.
fn fill(address: SocketAddr, round: u32, random: &mut Random) -> Result<Workload, String> {
    let work = Workload::start(address, Plan { publishers: 4, messages_max: u32::MAX, ..plan(round, random) })?;
    let began = Instant::now();
    let is_full = work.progress.wait(DEADLINE * 2, |counts| {
        counts.nacked > 0 || counts.blocked > 0 || counts.answered_at.unwrap_or(began).elapsed() > SILENCE
    });
    if is_full { Ok(work) } else { Err(format!("{VOLUME_MIB} MiB do not fill: {:?}", work.progress.now())) }
}

fn state(work: &Workload) -> String {
    let counts = work.progress.now();
    format!("{} nacked, {} publishers told that they are blocked", counts.nacked, counts.blocked)
}

/// A broker with a full disk talks to whoever comes.
fn still_alive(mut broker: BrokerProcess) -> Result<BrokerProcess, String> {
    if !broker.is_alive() {
        return Err(format!("the broker has ended; its log:\n{}", broker.log().join("\n")));
    }
    let talk = || {
        let mut client = Client::connect(broker.address())?;
        client.open(1)?;
        client.call(1, "queue.declare", &[("queue", text(PROBE)), ("passive", Field::Bit(true))], "queue.declare-ok")
    };
    match talk() {
        Ok(_) => Ok(broker),
        Err(error) => explain(&broker, "asking for a queue", Err(error)),
    }
}

/// Publishes one message after the other until one is confirmed; answers how long that took.
fn take_again(address: SocketAddr) -> Result<Duration, String> {
    let began = Instant::now();
    let mut client = Client::connect(address)?;
    client.open(1)?;
    client.call(1, "confirm.select", &[], "confirm.select-ok")?;
    while began.elapsed() < DEADLINE {
        let properties = vec![("delivery-mode", Field::Number(2))];
        client.sender.publish(1, &[("routing-key", text(PROBE))], &properties, b"is there room?")?;
        loop {
            match client.receiver.next_event()? {
                Some(event) if event.name == "basic.ack" => return Ok(began.elapsed()),
                Some(event) if event.name == "basic.nack" => break,
                Some(event) if event.channel == 0 => {}
                other => return Err(format!("{other:?} answers a publish")),
            }
        }
        pause(Duration::from_millis(50));
    }
    Err(format!("messages are still refused {DEADLINE:?} after everything was consumed"))
}

/// A queue that only asks whether there is room.
const PROBE: &str = "probe";

fn judge(ledger: &mut Ledger, looked: Result<Seen, String>, log: RoundLog) -> Result<Figures, String> {
    let (found, violations) = looked?;
    let mut figures = ledger.judge(log, &found, Spared::System);
    figures.violations.extend(violations);
    Ok(figures)
}
