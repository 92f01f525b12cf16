//! Consumers with acks, some of which give back, reject, pause or die with what they hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plugin_api::testing::Random;

use super::ledger::Ledger;
use super::stop::Stop;
use super::streams::{self, Habit};
use crate::crash::client::{Client, Event, text};
use crate::wire::Field;

/// How long a consumer waits for a delivery before it looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between two pauses.
const BUSY: Duration = Duration::from_secs(5);

/// Consumes until told to stop, with a new connection where it has hung up.
pub fn start(
    address: SocketAddr,
    habit: Habit,
    seed: u64,
    stop: &Stop,
    ledger: &Arc<Ledger>,
) -> JoinHandle<Result<(), String>> {
    let (stop, ledger) = (stop.clone(), Arc::clone(ledger));
    std::thread::spawn(move || {
        let mut random = Random::new(seed);
        while !stop.is_raised() {
            let life = life(address, habit, &mut random, &stop, &ledger);
            life.map_err(|error| format!("consumer of {}: {error}", habit.queue))?;
        }
        Ok(())
    })
}

/// One connection, until it is told to stop or dies.
fn life(address: SocketAddr, habit: Habit, random: &mut Random, stop: &Stop, ledger: &Ledger) -> Result<(), String> {
    let mut client = Client::connect(address)?;
    client.open(1)?;
    client.call(1, "basic.qos", &[("prefetch-count", Field::Number(habit.prefetch))], "basic.qos-ok")?;
    client.call(1, "basic.consume", &[("queue", text(habit.queue))], "basic.consume-ok")?;
    client.receiver.patience(Some(PATIENCE))?;
    let mut held: Vec<(usize, u64)> = Vec::new();
    let mut last_tag = 0;
    let mut busy_until = Instant::now() + BUSY;
    while !stop.is_raised() {
        if let Some(pause) = habit.pause.filter(|_| Instant::now() >= busy_until) {
            stop.wait(pause);
            busy_until = Instant::now() + BUSY;
        }
        let event = match client.receiver.next_event() {
            Ok(Some(event)) if event.name == "basic.deliver" => Some(event),
            Ok(None) => return Err("the broker hung up".to_owned()),
            Ok(Some(Event { name, fields, .. })) => return Err(format!("{name} {fields:?} came")),
            Err(error) if error == "the broker says nothing" => None,
            Err(error) => return Err(error),
        };
        let is_quiet = event.is_none();
        if let Some(event) = event {
            let tag = event.number(1);
            let (_, body) = event.content.as_ref().ok_or("a delivery without content")?;
            let message = streams::identity(body)?;
            let dice = random.below(1000);
            if dice < habit.hang_ups {
                client.sender.hang_up();
                return Ok(());
            }
            let dice = random.below(1000);
            if dice < habit.requeued + habit.rejected {
                let fields = [("delivery-tag", Field::Number(tag)), ("requeue", Field::Bit(dice < habit.requeued))];
                client.sender.call(1, "basic.nack", &fields)?;
            } else {
                held.push(message);
                last_tag = tag;
            }
        }
        // What was given back meanwhile is settled already; multiple speaks of the rest.
        if !held.is_empty() && (is_quiet || held.len() >= habit.acks_together as usize) {
            for (stream, number) in held.drain(..) {
                ledger.ack(stream, number)?;
            }
            let fields = [("delivery-tag", Field::Number(last_tag)), ("multiple", Field::Bit(true))];
            client.sender.call(1, "basic.ack", &fields)?;
        }
    }
    client.call(1, "channel.close", &[], "channel.close-ok").map(drop).or_else(|error| {
        // Deliveries may still be on their way.
        if error.starts_with("basic.deliver") { Ok(()) } else { Err(error) }
    })
}
