//! Connections, channels and queues that come and go, in order and not.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use plugin_api::testing::Random;

use super::stop::Stop;
use crate::crash::client::{Client, text};
use crate::wire::value::Value;
use crate::wire::{Field, Properties};

/// Between two connections, and between two queues.
const EVERY: Duration = Duration::from_millis(20);
/// So many queues are there at a time.
const QUEUES_MAX: u64 = 30;

/// Connects, does a little with a queue of its own, and goes: politely, by hanging up, or in the middle of a message.
pub fn connections(address: SocketAddr, seed: u64, stop: &Stop) -> JoinHandle<Result<(), String>> {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let mut random = Random::new(seed);
        while !stop.wait(EVERY) {
            connection(address, &mut random).map_err(|error| format!("connection churn: {error}"))?;
        }
        Ok(())
    })
}

fn connection(address: SocketAddr, random: &mut Random) -> Result<(), String> {
    let mut client = Client::connect(address)?;
    for channel in 1..=1 + random.below(5) as u16 {
        client.open(channel)?;
    }
    let queue = client.call(1, "queue.declare", &[("exclusive", Field::Bit(true))], "queue.declare-ok")?;
    let Some(Field::String(name)) = queue.fields.first() else { return Err("a queue without a name".to_owned()) };
    let name = ("queue", Field::String(name.clone()));
    let key = ("routing-key", name.1.clone());
    for _ in 0..random.below(20) {
        client.sender.publish(1, std::slice::from_ref(&key), &Properties::new(), b"short-lived")?;
    }
    match random.below(4) {
        // What it is sent and has not acked is lost with its queue.
        0 => client.sender.call(1, "basic.consume", &[name])?,
        1 => client.sender.call(1, "basic.get", &[name])?,
        2 => client.sender.call(1, "queue.purge", &[name])?,
        _ => {
            client.call(0, "connection.close", &[], "connection.close-ok")?;
            return Ok(());
        }
    }
    client.sender.hang_up();
    Ok(())
}

/// Declares durable queues, binds them, fills them, and deletes them with whatever is in them.
pub fn queues(address: SocketAddr, seed: u64, stop: &Stop) -> JoinHandle<Result<(), String>> {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let mut random = Random::new(seed);
        let mut work = || -> Result<(), String> {
            let mut client = Client::connect(address)?;
            client.open(1)?;
            client.call(1, "confirm.select", &[], "confirm.select-ok")?;
            let mut number = 0;
            while !stop.wait(EVERY) {
                queue(&mut client, number, &mut random)?;
                number += 1;
            }
            for last in number.saturating_sub(QUEUES_MAX)..number {
                delete(&mut client, last)?;
            }
            Ok(())
        };
        work().map_err(|error| format!("queue churn: {error}"))
    })
}

fn queue(client: &mut Client, number: u64, random: &mut Random) -> Result<(), String> {
    let name = format!("churn.{number}");
    let arguments = match random.below(4) {
        0 => vec![(b"x-message-ttl".to_vec(), Value::I32(200))],
        1 => vec![(b"x-max-length".to_vec(), Value::I32(5))],
        2 => vec![(b"x-dead-letter-exchange".to_vec(), Value::Text(b"nowhere".to_vec()))],
        _ => Vec::new(),
    };
    let durable = ("durable", Field::Bit(true));
    let declare = [("queue", text(&name)), durable, ("arguments", Field::Table(arguments))];
    client.call(1, "queue.declare", &declare, "queue.declare-ok")?;
    let key = ("routing-key", text(&format!("churn.{number}.#")));
    client.call(1, "queue.bind", &[("queue", text(&name)), ("exchange", text("topics")), key], "queue.bind-ok")?;
    let properties: Properties = vec![("delivery-mode", Field::Number(2))];
    for _ in 0..random.below(30) {
        let fields = [("exchange", text("topics")), ("routing-key", text(&format!("churn.{number}.x")))];
        client.sender.publish(1, &fields, &properties, &[b'c'; 300])?;
        client.receiver.wait_for(1, "basic.ack")?;
    }
    match number.checked_sub(QUEUES_MAX) {
        Some(old) => delete(client, old),
        None => Ok(()),
    }
}

fn delete(client: &mut Client, number: u64) -> Result<(), String> {
    let queue = [("queue", text(&format!("churn.{number}")))];
    client.call(1, "queue.delete", &queue, "queue.delete-ok").map(drop)
}
