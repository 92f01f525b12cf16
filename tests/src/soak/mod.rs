//! Mixed traffic for as long as one likes, in cycles that each end with empty queues: what was confirmed has arrived, and the broker is
//! as large as it was before.
//!
//! The program `soak` runs it. In a cycle publishers, consumers and those who come and go ([`churn`], [`operator`]) are at it
//! together; then everybody but the consumers ends, queues run empty, all connections close, and [`ledger`] and [`level`] are looked at.
//! The broker is a process and is spoken to by AMQP, HTTP and signals alone; it is never killed, which is what `crash` is for.

pub mod churn;
pub mod consumer;
pub mod ledger;
pub mod level;
pub mod operator;
pub mod publisher;
pub mod stop;
pub mod streams;

use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::testing::Random;

use self::ledger::Ledger;
use self::level::Level;
use self::stop::Stop;
use self::streams::STREAMS;
use crate::broker_process::{BrokerOptions, BrokerProcess};
use crate::crash::client::{Client, text};
use crate::temp::TempDir;
use crate::wire::Field;

/// How long queues may take to run empty.
const DRAIN_DEADLINE: Duration = Duration::from_secs(120);
/// How often is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long all cycles together take, at least.
    pub duration: Duration,
    /// The traffic of one cycle.
    pub cycle: Duration,
    /// Messages a second, over all streams.
    pub rate: u32,
    /// What the actors do.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The cycles that were looked at.
    pub cycles: u32,
    /// One sentence for each thing that is wrong.
    pub violations: Vec<String>,
}

/// Starts a broker and runs cycles until the time is over; prints a line for each.
///
/// # Errors
/// When there is no broker to look at.
pub fn run(options: &Options) -> Result<Outcome, String> {
    let folder = TempDir::new("soak");
    operator::write_hook(&folder, 0);
    let topology = folder.write("topology.yaml", streams::TOPOLOGY);
    let data = folder.path().join("data");
    let broker = BrokerOptions::default()
        .http()
        .metrics()
        .log_level("info")
        .topology(topology)
        .argument("--data")
        .argument(data.display().to_string())
        .start()?;
    let ledger = Arc::new(Ledger::new());
    let mut random = Random::new(options.seed);
    let mut outcome = Outcome::default();
    let mut levels: Vec<Level> = Vec::new();
    let started = Instant::now();
    while started.elapsed() < options.duration || levels.len() < 2 {
        let violations = cycle(&broker, &folder, options, &ledger, &mut random);
        let has_failed = !violations.is_empty();
        outcome.violations.extend(violations);
        outcome.cycles += 1;
        let level = Level::settled(broker.pid(), &data)?;
        println!("cycle {:>3} after {:>5} s: {level}; {ledger}", outcome.cycles, started.elapsed().as_secs());
        levels.push(level);
        if has_failed {
            break;
        }
    }
    outcome.violations.extend(level::judge(&levels));
    outcome.violations.extend(errors_in_log(&broker));
    let status = broker.terminate()?;
    if !status.success() {
        outcome.violations.push(format!("the broker ended with {status}"));
    }
    Ok(outcome)
}

/// One cycle; what is wrong afterwards.
fn cycle(
    broker: &BrokerProcess,
    folder: &TempDir,
    options: &Options,
    ledger: &Arc<Ledger>,
    random: &mut Random,
) -> Vec<String> {
    let (traffic, consuming) = (Stop::new(), Stop::new());
    let address = broker.address();
    let mut consumers = Vec::new();
    let mut actors = Vec::new();
    for (place, stream) in STREAMS.iter().enumerate() {
        let rate = options.rate * stream.share_percent / 100;
        actors.push(publisher::start(address, place, rate.max(1), random.next_u64(), &traffic, ledger));
    }
    for habit in streams::CONSUMERS {
        consumers.push(consumer::start(address, *habit, random.next_u64(), &consuming, ledger));
    }
    actors.push(churn::connections(address, random.next_u64(), &traffic));
    actors.push(churn::queues(address, random.next_u64(), &traffic));
    actors.push(operator::poll(broker.http(), broker.metrics(), &traffic));
    actors.push(operator::change(broker.http(), &traffic));
    actors.push(operator::reload(broker.pid(), folder, &traffic));
    traffic.wait(options.cycle);
    traffic.raise();
    let mut violations: Vec<String> = actors.into_iter().filter_map(ended).collect();
    if violations.is_empty() {
        violations.extend(drained(address).err());
    }
    consuming.raise();
    violations.extend(consumers.into_iter().filter_map(ended));
    violations.extend(ledger.missing());
    violations
}

/// What an actor has to complain of.
fn ended(actor: std::thread::JoinHandle<Result<(), String>>) -> Option<String> {
    match actor.join() {
        Ok(result) => result.err(),
        Err(_) => Some("an actor panicked".to_owned()),
    }
}

/// Waits until the queues of all streams are empty and nobody holds anything of them: the counts say ready messages, so a queue counts
/// as empty when it is so in several looks.
fn drained(address: std::net::SocketAddr) -> Result<(), String> {
    const LOOKS: u32 = 5;
    let mut client = Client::connect(address)?;
    client.open(1)?;
    let deadline = Instant::now() + DRAIN_DEADLINE;
    let clock = Stop::new();
    let mut empty = 0;
    while empty < LOOKS {
        let mut left = Vec::new();
        for queue in streams::QUEUES {
            let fields = [("queue", text(queue)), ("passive", Field::Bit(true))];
            let count = client.call(1, "queue.declare", &fields, "queue.declare-ok")?.number(1);
            if count > 0 {
                left.push(format!("{queue} has {count}"));
            }
        }
        empty = if left.is_empty() { empty + 1 } else { 0 };
        if Instant::now() > deadline {
            return Err(format!("queues do not run empty: {}", left.join(", ")));
        }
        clock.wait(LOOK_EVERY);
    }
    Ok(())
}

/// Lines of the broker's log that no traffic may cause.
fn errors_in_log(broker: &BrokerProcess) -> Vec<String> {
    let is_error = |line: &String| line.contains("\"level\":\"ERROR\"") || line.contains("panicked");
    broker.log().into_iter().filter(is_error).take(10).map(|line| format!("in the log: {line}")).collect()
}
