//! A publisher with confirms at a steady rate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plugin_api::testing::Random;

use super::ledger::Ledger;
use super::stop::Stop;
use super::streams::{self, STREAMS, Stream};
use crate::crash::client::{Client, Event, text};
use crate::wire::{Field, Properties};

/// Messages are sent in lots, so many a second.
const LOTS_PER_SECOND: u32 = 25;
/// So many may wait for their confirm before the next lot is sent.
const WINDOW: usize = 500;

/// Publishes until told to stop, and waits for all confirms.
pub fn start(
    address: SocketAddr,
    stream: usize,
    rate: u32,
    seed: u64,
    stop: &Stop,
    ledger: &Arc<Ledger>,
) -> JoinHandle<Result<(), String>> {
    let (stop, ledger) = (stop.clone(), Arc::clone(ledger));
    std::thread::spawn(move || {
        let name = STREAMS[stream].name;
        let run = Publisher::connect(address, stream, seed, ledger).and_then(|publisher| publisher.run(rate, &stop));
        run.map_err(|error| format!("publisher of {name}: {error}"))
    })
}

struct Publisher {
    client: Client,
    place: usize,
    stream: &'static Stream,
    random: Random,
    ledger: Arc<Ledger>,
    /// Numbers of the channel with those of the messages.
    open: BTreeMap<u64, u64>,
    last: u64,
}

impl Publisher {
    fn connect(address: SocketAddr, place: usize, seed: u64, ledger: Arc<Ledger>) -> Result<Self, String> {
        let mut client = Client::connect(address)?;
        client.open(1)?;
        client.call(1, "confirm.select", &[], "confirm.select-ok")?;
        let random = Random::new(seed);
        Ok(Self { client, place, stream: &STREAMS[place], random, ledger, open: BTreeMap::new(), last: 0 })
    }

    fn run(mut self, rate: u32, stop: &Stop) -> Result<(), String> {
        let started = Instant::now();
        let mut sent = 0;
        while !stop.is_raised() {
            let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as u64;
            // Who was held up does not make up for all of it at once.
            let lot = (due - sent).min(u64::from(2 * rate / LOTS_PER_SECOND + 1));
            sent = due;
            for _ in 0..lot {
                self.publish()?;
            }
            self.wait_for_confirms(WINDOW)?;
            stop.wait(Duration::from_secs(1) / LOTS_PER_SECOND);
        }
        self.wait_for_confirms(0)
    }

    fn publish(&mut self) -> Result<(), String> {
        let number = self.ledger.publish(self.place);
        self.last += 1;
        self.open.insert(self.last, number);
        let mut properties: Properties =
            vec![("delivery-mode", Field::Number(if self.stream.is_persistent { 2 } else { 1 }))];
        properties.push(("priority", Field::Number(number % 4)));
        if let Some(expiration_ms) = self.stream.expiration_ms {
            properties.push(("expiration", text(&expiration_ms.to_string())));
        }
        let body = streams::body(self.place, number, &mut self.random);
        let fields = [("exchange", text(self.stream.exchange)), ("routing-key", text(self.stream.routing_key))];
        self.client.sender.publish(1, &fields, &properties, &body)
    }

    /// Reads answers until at most so many are missing.
    fn wait_for_confirms(&mut self, left: usize) -> Result<(), String> {
        while self.open.len() > left {
            let event = self.client.receiver.next_answer()?.ok_or("the broker hung up")?;
            let is_confirmed = match event.name {
                "basic.ack" => true,
                "basic.nack" => false,
                other => return Err(format!("{other} {:?} came", event.fields)),
            };
            self.settle(&event, is_confirmed)?;
        }
        Ok(())
    }

    fn settle(&mut self, event: &Event, is_confirmed: bool) -> Result<(), String> {
        let tag = event.number(0);
        let later = self.open.split_off(&(tag + 1));
        let mut settled = std::mem::replace(&mut self.open, later);
        if !event.bit(1) {
            let only = settled.split_off(&tag);
            self.open.append(&mut settled);
            settled = only;
        }
        if settled.is_empty() {
            return Err(format!("{} of {tag}, which was answered before", event.name));
        }
        for number in settled.into_values() {
            if is_confirmed { self.ledger.confirm(self.place, number) } else { self.ledger.refuse(self.place) }
        }
        Ok(())
    }
}
