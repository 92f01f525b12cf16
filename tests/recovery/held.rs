//! Who waits for the store, and for what of it: declarations, also of what somebody else made and the store has not yet, and confirms.

use plugin_api::async_trait;
use plugin_api::storage::{
    Append, Durability, Meta, QueueKey, Recovered, Settle, Storage, StorageError, StoredMessage, Wanted,
};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use tests::machine::MachineTarget;
use tests::scenario::connection::{Connection, Event, Login, describe};
use tests::transport::Target;
use tests::wire::value::Value;
use tests::wire::{Field, spec};

/// A storage that keeps definitions, and messages that have to be synced, only when it may.
struct Held {
    inner: Arc<dyn Storage>,
    is_held: AtomicBool,
}

impl Held {
    async fn released(&self) {
        poll_fn(|_| if self.is_held.load(Ordering::SeqCst) { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

#[async_trait]
impl Storage for Held {
    async fn append(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.released().await;
        self.inner.append(batch).await
    }

    async fn append_unsynced(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.inner.append_unsynced(batch).await
    }

    async fn settle(&self, ranges: &[Settle]) -> Result<(), StorageError> {
        self.inner.settle(ranges).await
    }

    async fn delete_queue(&self, queue: QueueKey) -> Result<(), StorageError> {
        self.inner.delete_queue(queue).await
    }

    async fn read(&self, wanted: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        self.inner.read(wanted).await
    }

    async fn put_meta(&self, entries: &[Meta<'_>]) -> Result<(), StorageError> {
        self.released().await;
        self.inner.put_meta(entries).await
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        self.inner.recover().await
    }

    fn promise(&self) -> Durability {
        self.inner.promise()
    }
}

/// A method with its arguments, and the answer to it.
type Call<'a> = (&'a str, Vec<(&'a str, Field)>, &'a str);

struct Bench {
    storage: Arc<Held>,
    machine: MachineTarget,
}

impl Bench {
    fn new() -> Self {
        let storage = Arc::new(Held { inner: super::storage(), is_held: AtomicBool::new(false) });
        let topology = broker::topology::schema::Topology::default();
        let machine = MachineTarget::on(Arc::<Held>::clone(&storage), &topology).expect("the machine starts");
        Self { storage, machine }
    }

    fn open(&self) -> Connection {
        let mut connection = Connection::new(self.machine.connect().expect("a machine takes connections"));
        connection.login(&Login::guest("/")).expect("guest may log in");
        connection.call(1, "channel.open", &[]);
        connection.wait_for(1, "channel.open-ok").expect("a channel");
        connection
    }

    fn hold(&self, is_held: bool) {
        self.storage.is_held.store(is_held, Ordering::SeqCst);
    }
}

fn call(connection: &mut Connection, (method, fields, _): &Call<'_>) {
    connection.call(1, method, fields);
}

#[track_caller]
fn check_waits(connection: &mut Connection, what: &str) {
    let event = connection.next(1).expect("the broker sends frames");
    assert!(matches!(event, Event::Nothing), "{what} was answered before it was stored: {}", describe(&event));
}

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn declare_exchange<'a>() -> Call<'a> {
    let fields = vec![("exchange", text("x")), ("type", text("fanout")), ("durable", Field::Bit(true))];
    ("exchange.declare", fields, "exchange.declare-ok")
}

fn declare_queue<'a>() -> Call<'a> {
    ("queue.declare", vec![("queue", text("q")), ("durable", Field::Bit(true))], "queue.declare-ok")
}

fn bind<'a>() -> Call<'a> {
    ("queue.bind", vec![("queue", text("q")), ("exchange", text("x"))], "queue.bind-ok")
}

fn unbind<'a>() -> Call<'a> {
    ("queue.unbind", vec![("queue", text("q")), ("exchange", text("x"))], "queue.unbind-ok")
}

fn delete_queue<'a>() -> Call<'a> {
    ("queue.delete", vec![("queue", text("q"))], "queue.delete-ok")
}

fn delete_exchange<'a>() -> Call<'a> {
    ("exchange.delete", vec![("exchange", text("x"))], "exchange.delete-ok")
}

#[test]
fn the_second_declarer_waits_for_the_store_of_the_first() {
    let bench = Bench::new();
    let (mut one, mut other) = (bench.open(), bench.open());
    for step in [declare_exchange(), declare_queue(), bind(), unbind(), bind(), delete_queue(), delete_exchange()] {
        let (method, _, answer) = &step;
        bench.hold(true);
        call(&mut one, &step);
        check_waits(&mut one, method);
        call(&mut other, &step);
        check_waits(&mut other, &format!("a second {method}"));
        bench.hold(false);
        one.wait_for(1, answer).expect("the first has its answer when it is stored");
        other.wait_for(1, answer).expect("and so has the second");
    }
}

#[test]
fn what_is_stored_or_transient_or_only_looked_at_is_answered_at_once() {
    let bench = Bench::new();
    let (mut one, mut other) = (bench.open(), bench.open());
    let stored = declare_exchange();
    call(&mut one, &stored);
    one.wait_for(1, stored.2).expect("nothing is held");
    bench.hold(true);
    call(&mut other, &stored);
    other.wait_for(1, stored.2).expect("it is stored already");

    let unstored = declare_queue();
    call(&mut one, &unstored);
    check_waits(&mut one, "the declaration");
    other.call(1, "queue.declare", &[("queue", text("q")), ("passive", Field::Bit(true))]);
    other.wait_for(1, "queue.declare-ok").expect("a passive declaration only looks");
    other.call(1, "queue.declare", &[("queue", text("transient"))]);
    other.wait_for(1, "queue.declare-ok").expect("nothing of a transient queue is stored");
    bench.hold(false);
    one.wait_for(1, unstored.2).expect("it is stored now");
}

/// Publishes a persistent message.
fn publish(connection: &mut Connection, exchange: &str, routing_key: &str) {
    let method = spec::by_name("basic.publish").expect("a method of the table");
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    (fields[1], fields[2]) = (text(exchange), text(routing_key));
    let properties = vec![("delivery-mode", Field::Number(2))];
    connection.send_method(1, method, &fields, Some((properties, b"m".to_vec())));
}

#[test]
fn confirms_of_durability_os_do_not_wait_for_the_sync() {
    let bench = Bench::new();
    let mut connection = bench.open();
    for (queue, durability) in [("quick", "os"), ("safe", "synced")] {
        let arguments = Field::Table(vec![(b"x-durability".to_vec(), Value::Text(durability.into()))]);
        let fields = [("queue", text(queue)), ("durable", Field::Bit(true)), ("arguments", arguments)];
        connection.call(1, "queue.declare", &fields);
        connection.wait_for(1, "queue.declare-ok").expect("a queue");
        connection.call(1, "queue.bind", &[("queue", text(queue)), ("exchange", text("amq.fanout"))]);
        connection.wait_for(1, "queue.bind-ok").expect("a binding");
    }
    connection.call(1, "confirm.select", &[]);
    connection.wait_for(1, "confirm.select-ok").expect("confirms");
    bench.hold(true);
    publish(&mut connection, "", "quick");
    connection.wait_for(1, "basic.ack").expect("the write is enough");
    publish(&mut connection, "amq.fanout", "");
    check_waits(&mut connection, "a message for both");
    bench.hold(false);
    connection.wait_for(1, "basic.ack").expect("both have it");
    bench.hold(true);
    publish(&mut connection, "", "safe");
    check_waits(&mut connection, "a message that is to be synced");
    bench.hold(false);
    connection.wait_for(1, "basic.ack").expect("it is synced");
}
