//! Looks into every queue after an accident, as a consumer does.

use super::client::{Client, Event, text};
use super::ledger::{Found, Kind, Violation};
use super::message::{self, DELAY_MAX_MS, Identity, LATE, QUEUES};
use crate::wire::Field;
use std::net::SocketAddr;

/// What becomes of the messages that were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// They are acked.
    Drain,
    /// The connection ends, and they go back to their places.
    GiveBack,
}

/// What was seen of each queue as in [`QUEUES`], `None` of one that cannot be judged yet, and what is wrong at first sight.
pub type Seen = (Vec<Option<Vec<Found>>>, Vec<Violation>);

/// All messages of all queues.
///
/// # Errors
/// When the broker does not do what a broker must, so that there is nothing to look at.
pub fn look(address: SocketAddr, afterwards: Afterwards) -> Result<Seen, String> {
    let mut client = Client::connect(address)?;
    wait_for_late(address, &mut client)?;
    look_at_all(client, afterwards, |_| true)
}

/// The same where the disk has no room: messages that were put off come when their queue finds some, so that it cannot be said how many of them
/// have to be there.
///
/// # Errors
/// See [`look`].
pub fn look_without_room(address: SocketAddr, afterwards: Afterwards) -> Result<Seen, String> {
    look_at_all(Client::connect(address)?, afterwards, |name| name != LATE)
}

fn look_at_all(mut client: Client, afterwards: Afterwards, is_judged: impl Fn(&str) -> bool) -> Result<Seen, String> {
    let mut violations = Vec::new();
    let mut all = Vec::new();
    for (channel, (name, _)) in (1..).zip(QUEUES) {
        client.open(channel)?;
        let is_judged = is_judged(name);
        all.push(if is_judged {
            Some(look_at(&mut client, channel, name, afterwards, &mut violations)?)
        } else {
            None
        });
    }
    client.call(0, "connection.close", &[], "connection.close-ok")?;
    Ok((all, violations))
}

/// Waits until everything that was put off has come: one more message is, and is due after all others.
fn wait_for_late(address: SocketAddr, client: &mut Client) -> Result<(), String> {
    const CHANNEL: u16 = QUEUES.len() as u16 + 1;
    let queue = ("queue", text("late.end"));
    client.open(CHANNEL)?;
    client.call(CHANNEL, "exchange.declare", &message::late_exchange(), "exchange.declare-ok")?;
    client.call(CHANNEL, "queue.declare", &[queue.clone(), ("exclusive", Field::Bit(true))], "queue.declare-ok")?;
    let bind = [queue.clone(), ("exchange", text(LATE)), ("routing-key", text("end"))];
    client.call(CHANNEL, "queue.bind", &bind, "queue.bind-ok")?;
    client.call(CHANNEL, "basic.consume", &[queue, ("no-ack", Field::Bit(true))], "basic.consume-ok")?;
    // On a full disk whoever publishes is not read any more.
    let mut publisher = Client::connect(address)?;
    publisher.open(1)?;
    let delay_ms = i32::try_from(DELAY_MAX_MS).unwrap_or_default() + 1;
    let fields = [("exchange", text(LATE)), ("routing-key", text("end"))];
    publisher.sender.publish(1, &fields, &vec![message::delay_header(delay_ms)], &[])?;
    client.receiver.wait_for(CHANNEL, "basic.deliver").map(drop).map_err(|error| format!("late messages: {error}"))
}

fn look_at(
    client: &mut Client,
    channel: u16,
    name: &str,
    afterwards: Afterwards,
    violations: &mut Vec<Violation>,
) -> Result<Vec<Found>, String> {
    let Some(count) = message_count(client, channel, name)? else {
        violations.push(Violation::new(Kind::Definition, format!("the durable queue {name} is gone")));
        return Ok(Vec::new());
    };
    client.call(channel, "basic.consume", &[("queue", text(name))], "basic.consume-ok")?;
    let mut found = Vec::new();
    for place in 0..count {
        let received = client.receiver.wait_for(channel, "basic.deliver");
        let event =
            received.map_err(|error| format!("{name}: {count} messages are there, at number {place}: {error}"))?;
        let Some((properties, body)) = &event.content else { continue };
        match Identity::of(properties, body) {
            Ok(identity) => found.push(Found { identity, is_redelivered: event.bit(2) }),
            Err(text) => violations.push(Violation::new(Kind::Corrupt, format!("{name}: {text}"))),
        }
    }
    if afterwards == Afterwards::Drain {
        let all = [("delivery-tag", Field::Number(0)), ("multiple", Field::Bit(true))];
        client.sender.call(channel, "basic.ack", &all)?;
    }
    // The answer comes behind the acks.
    match message_count(client, channel, name)? {
        Some(0) => {}
        other => violations.push(Violation::new(Kind::Rule, format!("{name} has {other:?} messages left at its end"))),
    }
    Ok(found)
}

/// How many messages are ready; `None` when there is no such queue.
fn message_count(client: &mut Client, channel: u16, name: &str) -> Result<Option<u64>, String> {
    let fields = [("queue", text(name)), ("passive", Field::Bit(true))];
    client.sender.call(channel, "queue.declare", &fields)?;
    match client.receiver.next_answer()? {
        Some(event @ Event { name: "queue.declare-ok", .. }) => Ok(Some(event.number(1))),
        Some(event @ Event { name: "channel.close", .. }) if event.number(0) == 404 => {
            client.sender.call(channel, "channel.close-ok", &[])?;
            Ok(None)
        }
        other => Err(format!("{name}: {other:?} answers a passive queue.declare")),
    }
}
