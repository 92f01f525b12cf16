//! Publishers with confirms and consumers with acks, each on threads of its own, until their broker is gone.
//!
//! The work is the same for all kinds of accidents; who starts it decides when it ends. What was seen goes into a
//! [`RoundLog`] and is judged afterwards.

use super::client::{Client, DEADLINE, Event, Receiver, Sender, text};
use super::ledger::{ConsumerLog, Kind, Outcome, PublisherLog, RoundLog, Violation};
use super::message::{self, FANOUT, Fate, Identity, LATE, QUEUES};
use crate::wire::Field;
use plugin_api::testing::Random;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What happens on the connections as a whole, for who waits for something.
#[derive(Debug, Default)]
pub struct Progress {
    state: Mutex<Counts>,
    changed: Condvar,
}

/// See [`Progress`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub confirmed: u64,
    pub nacked: u64,
    pub received: u64,
    /// Publishers that were told connection.blocked, and not yet unblocked.
    pub blocked: u64,
    /// Connections that are over.
    pub ended: u64,
    /// When a confirm or a nack came last.
    pub answered_at: Option<Instant>,
}

impl Progress {
    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// The counts now.
    pub fn now(&self) -> Counts {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_there`, looking again whenever something changes and at least every 50 ms; false when it is not in
    /// time.
    pub fn wait(&self, patience: Duration, is_there: impl Fn(&Counts) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        // The question is asked without the lock, since the answer may need one that is held by whoever changes the counts.
        while !is_there(&self.now()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let counts = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.changed.wait_timeout(counts, left.min(LOOK_AGAIN)));
        }
        true
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How much work there is.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub round: u32,
    pub seed: u64,
    pub publishers: u16,
    pub consumers: Consumers,
    /// A publisher stops by itself after so many messages.
    pub messages_max: u32,
}

/// Who consumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumers {
    Nobody,
    /// As the fate of each queue says.
    ByFate,
    /// Every message of every queue is acked.
    AckAll,
}

/// Declares what the work needs; all of it is durable.
///
/// # Errors
/// When the broker refuses.
pub fn declare(client: &mut Client) -> Result<(), String> {
    let durable = ("durable", Field::Bit(true));
    let exchange = [("exchange", text(FANOUT)), ("type", text("fanout")), durable.clone()];
    client.call(1, "exchange.declare", &exchange, "exchange.declare-ok")?;
    client.call(1, "exchange.declare", &message::late_exchange(), "exchange.declare-ok")?;
    for (name, _) in QUEUES {
        let arguments = ("arguments", Field::Table(message::arguments(name)));
        let fields = [("queue", text(name)), durable.clone(), arguments];
        client.call(1, "queue.declare", &fields, "queue.declare-ok")?;
        if name.starts_with(FANOUT) {
            client.call(1, "queue.bind", &[("queue", text(name)), ("exchange", text(FANOUT))], "queue.bind-ok")?;
        }
        if name == LATE {
            let fields = [("queue", text(name)), ("exchange", text(LATE)), ("routing-key", text(LATE))];
            client.call(1, "queue.bind", &fields, "queue.bind-ok")?;
        }
    }
    Ok(())
}

/// Work that is under way.
#[derive(Debug)]
pub struct Workload {
    pub progress: Arc<Progress>,
    publishers: Vec<Publisher>,
    consumers: Vec<JoinHandle<ConsumerLog>>,
}

impl Workload {
    /// Starts publishers and consumers; everything they need has been declared.
    ///
    /// # Errors
    /// When the broker refuses a connection, channel or consumer.
    pub fn start(address: SocketAddr, plan: Plan) -> Result<Self, String> {
        let progress = Arc::<Progress>::default();
        let mut random = Random::new(plan.seed);
        let mut consumers = Vec::new();
        for (queue, (_, fate)) in QUEUES.iter().enumerate() {
            let habit = match (plan.consumers, fate) {
                (Consumers::AckAll, _) => Habit::AckEach,
                (Consumers::Nobody, _) | (Consumers::ByFate, Fate::Untouched) => continue,
                (Consumers::ByFate, Fate::Acked) => Habit::AckMost,
                (Consumers::ByFate, Fate::Held) => Habit::Hold,
            };
            consumers.push(consume(address, queue, habit, random.next_u64(), Arc::clone(&progress))?);
        }
        // Nobody publishes before all are connected: what is published has to be remembered.
        let connected = (1..=plan.publishers)
            .map(|publisher| Connected::new(address, publisher, random.next_u64()))
            .collect::<Result<Vec<_>, _>>()?;
        let publishers = connected.into_iter().map(|connected| connected.start(plan, &progress)).collect();
        Ok(Self { progress, publishers, consumers })
    }

    /// Publishers stop publishing; their confirms are still read.
    pub fn stop_publishing(&self) {
        self.publishers.iter().for_each(|publisher| publisher.shared.lock().is_stopped = true);
    }

    /// Everything that the clients saw. The broker is gone, or their connections are: they read to the end.
    pub fn finish(self) -> RoundLog {
        self.stop_publishing();
        let mut log = RoundLog::default();
        for publisher in self.publishers {
            log.publishers.push(publisher.finish());
        }
        log.consumers = self.consumers.into_iter().map(|thread| thread.join().expect("no consumer panics")).collect();
        log
    }
}

#[derive(Debug)]
struct Publisher {
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<PublisherState>,
    has_room: Condvar,
}

#[derive(Debug)]
struct PublisherState {
    log: PublisherLog,
    is_stopped: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, PublisherState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A publisher that is about to begin.
struct Connected {
    publisher: u16,
    client: Client,
    channels: Vec<u16>,
    window: usize,
    random: Random,
}

impl Connected {
    fn new(address: SocketAddr, publisher: u16, seed: u64) -> Result<Self, String> {
        let mut random = Random::new(seed);
        let mut client = Client::connect(address)?;
        let channels: Vec<u16> = (1..=*random.pick(&[1, 2, 5])).collect();
        for channel in &channels {
            client.open(*channel)?;
            client.call(*channel, "confirm.select", &[], "confirm.select-ok")?;
        }
        // Some publishers wait for each confirm, others are far ahead.
        let window = *random.pick(&[1, 10, 100, 500]);
        client.receiver.patience(None)?;
        Ok(Self { publisher, client, channels, window, random })
    }

    fn start(self, plan: Plan, progress: &Arc<Progress>) -> Publisher {
        let Self { publisher, client, channels, window, random } = self;
        let Client { sender, receiver } = client;
        let log = PublisherLog {
            round: plan.round,
            publisher,
            channels: channels.iter().map(|channel| (*channel, Default::default())).collect(),
            violations: Vec::new(),
        };
        let state = Mutex::new(PublisherState { log, is_stopped: false });
        let shared = Arc::new(Shared { state, has_room: Condvar::new() });
        let writer = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || publish(&shared, sender, plan, &channels, window, random))
        };
        let reader = {
            let (shared, progress) = (Arc::clone(&shared), Arc::clone(progress));
            std::thread::spawn(move || read_confirms(&shared, receiver, &progress))
        };
        Publisher { shared, writer, reader }
    }
}

impl Publisher {
    fn finish(self) -> PublisherLog {
        self.shared.has_room.notify_all();
        self.writer.join().expect("no publisher panics");
        self.reader.join().expect("no publisher panics");
        std::mem::take(&mut self.shared.lock().log)
    }
}

fn publish(shared: &Shared, mut sender: Sender, plan: Plan, channels: &[u16], window: usize, mut random: Random) {
    for _ in 0..plan.messages_max {
        let channel = *random.pick(channels);
        let mut state = shared.lock();
        while !state.is_stopped && state.log.channels.values().map(|log| log.open_count()).sum::<usize>() >= window {
            state = shared.has_room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let publisher = state.log.publisher;
        if state.is_stopped {
            return;
        }
        let Some(log) = state.log.channels.get_mut(&channel) else { return };
        let identity = Identity { round: plan.round, publisher, channel, number: log.publish() };
        drop(state);
        let route = identity.route();
        let fields = [("exchange", text(route.exchange)), ("routing-key", text(route.routing_key))];
        if sender.publish(channel, &fields, &identity.properties(), &identity.body()).is_err() {
            return;
        }
    }
}

fn read_confirms(shared: &Shared, mut receiver: Receiver, progress: &Progress) {
    let mut is_blocked = false;
    loop {
        let event = receiver.next_event();
        let now = Instant::now();
        let mut state = shared.lock();
        let outcome = match &event {
            Ok(Some(Event { name: "basic.ack", .. })) => Outcome::Confirmed(now),
            Ok(Some(Event { name: "basic.nack", .. })) => Outcome::Nacked,
            Ok(Some(Event { name: "connection.blocked", .. })) => {
                is_blocked = true;
                progress.change(|counts| counts.blocked += 1);
                continue;
            }
            Ok(Some(Event { name: "connection.unblocked", .. })) => {
                is_blocked = false;
                progress.change(|counts| counts.blocked -= 1);
                continue;
            }
            // A broker that ends in order says goodbye.
            Ok(Some(Event { name: "connection.close", .. }) | None) => {
                state.is_stopped = true;
                shared.has_room.notify_all();
                progress.change(|counts| {
                    counts.ended += 1;
                    counts.blocked -= u64::from(is_blocked);
                });
                return;
            }
            Ok(Some(other)) => {
                let text = format!("a publisher receives {} {:?}", other.name, other.fields);
                state.log.violations.push(Violation::new(Kind::Rule, text));
                continue;
            }
            Err(error) => {
                state.log.violations.push(Violation::new(Kind::Rule, format!("publisher: {error}")));
                state.is_stopped = true;
                shared.has_room.notify_all();
                return;
            }
        };
        let Ok(Some(event)) = event else { continue };
        let settled = match state.log.channels.get_mut(&event.channel) {
            Some(log) => log.settle(event.number(0), event.bit(1), outcome),
            None => Err(format!("a confirm on channel {}", event.channel)),
        };
        match settled {
            Ok(count) => progress.change(|counts| {
                match outcome {
                    Outcome::Nacked => counts.nacked += count as u64,
                    _ => counts.confirmed += count as u64,
                }
                counts.answered_at = Some(now);
            }),
            Err(text) => state.log.violations.push(Violation::new(Kind::Rule, text)),
        }
        shared.has_room.notify_all();
    }
}

fn consume(
    address: SocketAddr,
    queue: usize,
    habit: Habit,
    seed: u64,
    progress: Arc<Progress>,
) -> Result<JoinHandle<ConsumerLog>, String> {
    let mut random = Random::new(seed);
    let mut client = Client::connect(address)?;
    client.open(1)?;
    let prefetch = if habit == Habit::Hold { 40 } else { *random.pick(&[100, 300, 0]) };
    client.call(1, "basic.qos", &[("prefetch-count", Field::Number(prefetch))], "basic.qos-ok")?;
    client.call(1, "basic.consume", &[("queue", text(QUEUES[queue].0))], "basic.consume-ok")?;
    client.receiver.patience(None)?;
    Ok(std::thread::spawn(move || {
        let mut consumer = Consumer {
            log: ConsumerLog { queue, ..ConsumerLog::default() },
            habit,
            unacked: Vec::new(),
            last_of: HashMap::new(),
            random,
        };
        loop {
            match client.receiver.next_event() {
                Ok(Some(event)) if event.name == "basic.deliver" => {
                    let tags = consumer.on_delivery(&event);
                    progress.change(|counts| counts.received += 1);
                    for (tag, is_multiple) in tags {
                        let ack = [("delivery-tag", Field::Number(tag)), ("multiple", Field::Bit(is_multiple))];
                        // When the broker is gone, the next read says so.
                        let _ = client.sender.call(1, "basic.ack", &ack);
                    }
                }
                Ok(None | Some(Event { name: "connection.close", .. })) => break,
                other => {
                    consumer.say(Kind::Rule, format!("a consumer receives {other:?}"));
                    break;
                }
            }
        }
        progress.change(|counts| counts.ended += 1);
        consumer.log
    }))
}

/// What a consumer does with what it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    AckEach,
    AckMost,
    Hold,
}

struct Consumer {
    log: ConsumerLog,
    habit: Habit,
    unacked: Vec<(u64, Option<Identity>)>,
    /// The last first delivery of each publishing channel and level.
    last_of: HashMap<(u32, u16, u16, u8), u32>,
    random: Random,
}

impl Consumer {
    /// Looks at a message, and answers what to ack now: delivery tags, each with whether it stands for all before it.
    fn on_delivery(&mut self, event: &Event) -> Vec<(u64, bool)> {
        let (tag, is_redelivered) = (event.number(1), event.bit(2));
        let Some((properties, body)) = &event.content else { return Vec::new() };
        let identity = match Identity::of(properties, body) {
            Ok(identity) => Some(identity),
            Err(text) => {
                self.say(Kind::Corrupt, text);
                None
            }
        };
        if let Some(identity) = identity {
            self.log.received.insert(identity);
            let level = identity.level(QUEUES[self.log.queue].0);
            let last = self.last_of.entry((identity.round, identity.publisher, identity.channel, level)).or_default();
            let before = *last;
            if !is_redelivered {
                *last = identity.number;
                if before >= identity.number && message::keeps_order(QUEUES[self.log.queue].0) {
                    self.say(
                        Kind::Order,
                        format!("{identity} is delivered first after number {before} of its channel"),
                    );
                }
            }
        }
        self.unacked.push((tag, identity));
        match self.habit {
            Habit::Hold => return Vec::new(),
            Habit::AckEach => {
                self.unacked.clear();
                self.log.acked.extend(identity);
                return vec![(tag, false)];
            }
            Habit::AckMost => {}
        }
        match self.random.below(40) {
            // Most are acked soon and together, some late and one by one, the newest not at all.
            0..12 => {
                self.log.acked.extend(self.unacked.drain(..).filter_map(|(_, identity)| identity));
                vec![(tag, true)]
            }
            12..16 => {
                let place = self.random.below(u32::try_from(self.unacked.len()).unwrap_or(u32::MAX)) as usize;
                let (tag, identity) = self.unacked.remove(place);
                self.log.acked.extend(identity);
                vec![(tag, false)]
            }
            _ => Vec::new(),
        }
    }

    fn say(&mut self, kind: Kind, text: String) {
        let queue = QUEUES[self.log.queue].0;
        self.log.violations.push(Violation::new(kind, format!("consumer of {queue}: {text}")));
    }
}

/// Waits until every publisher has had all its answers, or its connection is over.
///
/// # Errors
/// When answers are still missing after a long time.
pub fn wait_for_answers(workload: &Workload) -> Result<(), String> {
    let is_open = || {
        let open = |publisher: &Publisher| {
            let state = publisher.shared.lock();
            !publisher.reader.is_finished() && state.log.channels.values().any(|log| log.open_count() > 0)
        };
        workload.publishers.iter().any(open)
    };
    if workload.progress.wait(DEADLINE, |_| !is_open()) { Ok(()) } else { Err("confirms are still missing".to_owned()) }
}
