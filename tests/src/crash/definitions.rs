//! Durable queues, exchanges and bindings that come and go while the accident is on its way: what was answered for has to be
//! so afterwards.

use super::client::{Client, Event, text};
use super::ledger::{Kind, Spared, Violation};
use crate::wire::Field;
use plugin_api::testing::Random;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Instant;

/// One queue, with when each step was answered.
#[derive(Debug, Default)]
struct Item {
    name: String,
    has_exchange: bool,
    declared: Option<Instant>,
    bound: Option<Instant>,
    is_delete_sent: bool,
    deleted: Option<Instant>,
}

impl Item {
    fn exchange(&self) -> &str {
        if self.has_exchange { &self.name } else { "amq.direct" }
    }
}

/// Work that is under way.
#[derive(Debug)]
pub struct Definitions(JoinHandle<DefinitionsLog>);

/// What the client was told.
#[derive(Debug, Default)]
pub struct DefinitionsLog {
    items: Vec<Item>,
}

/// Enough to have some at every stage when the accident comes, and few enough to be looked at one by one.
const ITEMS_MAX: usize = 60;

impl Definitions {
    /// Starts declaring.
    ///
    /// # Errors
    /// When the broker refuses the connection.
    pub fn start(address: SocketAddr, round: u32, seed: u64) -> Result<Self, String> {
        let mut client = Client::connect(address)?;
        client.open(1)?;
        Ok(Self(std::thread::spawn(move || {
            let mut log = DefinitionsLog::default();
            let mut random = Random::new(seed);
            // It ends when the broker does.
            while log.items.len() < ITEMS_MAX && define(&mut client, &mut log, round, &mut random).is_ok() {}
            log
        })))
    }

    /// What the client was told. The broker is gone.
    pub fn finish(self) -> DefinitionsLog {
        self.0.join().expect("the declaring thread does not panic")
    }
}

fn define(client: &mut Client, log: &mut DefinitionsLog, round: u32, random: &mut Random) -> Result<(), String> {
    if random.below(3) == 0 && !log.items.is_empty() {
        let place = random.below(u32::try_from(log.items.len()).unwrap_or(u32::MAX)) as usize;
        let item = &mut log.items[place];
        if !item.is_delete_sent {
            item.is_delete_sent = true;
            client.call(1, "queue.delete", &[("queue", text(&item.name))], "queue.delete-ok")?;
            item.deleted = Some(Instant::now());
        }
        return Ok(());
    }
    let name = format!("definition.{round}.{}", log.items.len());
    log.items.push(Item { name, has_exchange: random.below(3) == 0, ..Item::default() });
    let Some(item) = log.items.last_mut() else { return Ok(()) };
    let (name, durable) = (text(&item.name), Field::Bit(true));
    if item.has_exchange {
        let fields = [("exchange", name.clone()), ("type", text("topic")), ("durable", durable.clone())];
        client.call(1, "exchange.declare", &fields, "exchange.declare-ok")?;
    }
    client.call(1, "queue.declare", &[("queue", name.clone()), ("durable", durable)], "queue.declare-ok")?;
    item.declared = Some(Instant::now());
    let fields = [("queue", name.clone()), ("exchange", text(item.exchange())), ("routing-key", name)];
    client.call(1, "queue.bind", &fields, "queue.bind-ok")?;
    item.bound = Some(Instant::now());
    Ok(())
}

impl DefinitionsLog {
    /// Looks at each of them, and removes it.
    ///
    /// # Errors
    /// When the broker does not do what a broker must, so that there is nothing to look at.
    pub fn check(&self, address: SocketAddr, spared: Spared) -> Result<Vec<Violation>, String> {
        let mut client = Client::connect(address)?;
        let counts = |at: Option<Instant>| at.is_some_and(|at| !matches!(spared, Spared::Disk(until) if at >= until));
        let mut violations = Vec::new();
        for (channel, item) in (1..).zip(&self.items) {
            client.open(channel)?;
            let is_there = exists(&mut client, channel, &item.name)?;
            let mut say =
                |text: &str| violations.push(Violation::new(Kind::Definition, format!("{}: {text}", item.name)));
            if counts(item.deleted) && is_there {
                say("deleted, and there again");
            } else if counts(item.declared) && !item.is_delete_sent && !is_there {
                say("declared, and gone");
            } else if counts(item.bound) && !item.is_delete_sent && !is_routed(&mut client, channel, item)? {
                say("bound, and its binding is gone");
            }
            if is_there {
                client.call(channel, "queue.delete", &[("queue", text(&item.name))], "queue.delete-ok")?;
            }
            if item.has_exchange && is_there {
                client.call(channel, "exchange.delete", &[("exchange", text(&item.name))], "exchange.delete-ok")?;
            }
        }
        client.call(0, "connection.close", &[], "connection.close-ok")?;
        Ok(violations)
    }
}

/// Whether the queue is there; the channel is open afterwards.
fn exists(client: &mut Client, channel: u16, name: &str) -> Result<bool, String> {
    client.sender.call(channel, "queue.declare", &[("queue", text(name)), ("passive", Field::Bit(true))])?;
    match client.receiver.next_answer()? {
        Some(Event { name: "queue.declare-ok", .. }) => Ok(true),
        Some(event @ Event { name: "channel.close", .. }) if event.number(0) == 404 => {
            client.sender.call(channel, "channel.close-ok", &[])?;
            client.open(channel)?;
            Ok(false)
        }
        other => Err(format!("{name}: {other:?} answers a passive queue.declare")),
    }
}

/// Whether a message goes its way; a missing exchange closes the channel, which is a no as well.
fn is_routed(client: &mut Client, channel: u16, item: &Item) -> Result<bool, String> {
    client.call(channel, "confirm.select", &[], "confirm.select-ok")?;
    let mandatory = ("mandatory", Field::Bit(true));
    let fields = [("exchange", text(item.exchange())), ("routing-key", text(&item.name)), mandatory];
    client.sender.publish(channel, &fields, &Vec::new(), b"")?;
    match client.receiver.next_answer()? {
        Some(Event { name: "basic.ack", .. }) => Ok(true),
        Some(Event { name: "basic.return", .. }) => client.receiver.wait_for(channel, "basic.ack").map(|_| false),
        Some(event @ Event { name: "channel.close", .. }) if event.number(0) == 404 => {
            client.sender.call(channel, "channel.close-ok", &[])?;
            client.open(channel)?;
            Ok(false)
        }
        other => Err(format!("{}: {other:?} answers a publish", item.name)),
    }
}
