//! Backlogs that are longer than their budget, and disks that are shorter than a backlog: nothing is lost, doubled or out of order.

use plugin_api::async_trait;
use plugin_api::storage::{
    Append, Durability, Mark, Meta, QueueKey, Recovered, Settle, Storage, StorageError, StoredMessage, Wanted,
};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use tests::machine::MachineTarget;
use tests::scenario::connection::{Connection, Event, Incoming, Login, describe};
use tests::transport::Target;
use tests::wire::value::Value;
use tests::wire::{Field, spec};

/// The budget of all queues; a queue may have half of it.
const BUDGET_BYTES: u64 = 1024 * 1024;
/// With these, a hundred messages are six times what a queue may keep.
const BODY_BYTES: usize = 32 * 1024;

fn machine(storage: &Arc<dyn Storage>) -> MachineTarget {
    let mut topology = broker::topology::schema::Topology::default();
    topology.limits.queue_memory_bytes = Some(BUDGET_BYTES);
    MachineTarget::on(Arc::clone(storage), &topology).expect("the machine starts")
}

fn open(machine: &MachineTarget) -> Connection {
    let mut connection = Connection::new(machine.connect().expect("a machine takes connections"));
    connection.login(&Login::guest("/")).expect("guest may log in");
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").expect("a channel");
    connection
}

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn declare(connection: &mut Connection, queue: &str, is_durable: bool) -> u64 {
    declare_with(connection, queue, is_durable, Vec::new())
}

fn declare_with(connection: &mut Connection, queue: &str, is_durable: bool, arguments: Vec<(Vec<u8>, Value)>) -> u64 {
    let durable = ("durable", Field::Bit(is_durable));
    connection.call(1, "queue.declare", &[("queue", text(queue)), durable, ("arguments", Field::Table(arguments))]);
    let answer = connection.wait_for(1, "queue.declare-ok").expect("a queue");
    match answer[1] {
        Field::Number(count) => count,
        ref other => panic!("a message count, not {other:?}"),
    }
}

fn body(number: usize) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(BODY_BYTES, number as u8);
    body
}

fn publish(connection: &mut Connection, exchange: &str, routing_key: &str, number: usize, is_persistent: bool) {
    let mode = ("delivery-mode", Field::Number(if is_persistent { 2 } else { 1 }));
    publish_with(connection, exchange, routing_key, number, vec![mode]);
}

fn publish_with(
    connection: &mut Connection,
    exchange: &str,
    routing_key: &str,
    number: usize,
    properties: Vec<(&'static str, Field)>,
) {
    let method = spec::by_name("basic.publish").expect("a method of the table");
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    (fields[1], fields[2]) = (text(exchange), text(routing_key));
    connection.send_method(1, method, &fields, Some((properties, body(number))));
}

fn next(connection: &mut Connection) -> Option<Incoming> {
    match connection.next(1).expect("the broker sends frames") {
        Event::Method(incoming) => Some(incoming),
        Event::Nothing => None,
        other => panic!("{}", describe(&other)),
    }
}

fn number(incoming: &Incoming) -> usize {
    let (_, got) = incoming.content.as_ref().expect("a message");
    let number = usize::from_be_bytes(got[..8].try_into().expect("eight bytes"));
    assert!(*got == body(number), "the body of message {number} is another");
    number
}

/// Messages that the storage has, once for each queue.
fn live_count(storage: &Arc<dyn Storage>) -> usize {
    let recovered = std::pin::pin!(storage.recover()).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Ok(recovered)) = recovered else { panic!("the storage in memory does not wait") };
    let ranges = recovered.queues.iter().flat_map(|queue| &queue.ranges);
    ranges.map(|(first, last)| usize::try_from(last.0 - first.0).expect("few") + 1).sum()
}

/// Gets one message without ack; its number and whether it is marked as redelivered.
fn get(connection: &mut Connection, queue: &str) -> Option<(usize, bool)> {
    connection.call(1, "basic.get", &[("queue", text(queue)), ("no-ack", Field::Bit(true))]);
    let answer = next(connection).expect("an answer");
    (answer.method.name == "basic.get-ok").then(|| (number(&answer), matches!(answer.fields[1], Field::Bit(true))))
}

/// Consumes everything with acks, a few at a time; the numbers in order.
fn consume(connection: &mut Connection, queue: &str) -> Vec<usize> {
    connection.call(1, "basic.qos", &[("prefetch-count", Field::Number(5))]);
    connection.wait_for(1, "basic.qos-ok").expect("a prefetch");
    connection.call(1, "basic.consume", &[("queue", text(queue))]);
    connection.wait_for(1, "basic.consume-ok").expect("a consumer");
    let mut numbers = Vec::new();
    while let Some(delivery) = next(connection) {
        assert_eq!(delivery.method.name, "basic.deliver");
        numbers.push(number(&delivery));
        connection.call(1, "basic.ack", &[("delivery-tag", delivery.fields[1].clone())]);
    }
    numbers
}

#[test]
fn a_backlog_beyond_the_budget_comes_back_whole_and_in_order() {
    let storage = super::storage();
    let machine = machine(&storage);
    let mut connection = open(&machine);
    for (queue, is_durable) in [("durable", true), ("transient", false)] {
        declare(&mut connection, queue, is_durable);
        connection.call(1, "queue.bind", &[("queue", text(queue)), ("exchange", text("amq.fanout"))]);
        connection.wait_for(1, "queue.bind-ok").expect("a binding");
    }
    // Runs of both kinds, and both kinds in turn.
    for number in 0..100 {
        publish(&mut connection, "amq.fanout", "", number, number % 2 == 0 || (20..50).contains(&number));
    }
    assert!(live_count(&storage) > 100, "most of them left memory");
    for queue in ["durable", "transient"] {
        assert_eq!(declare(&mut connection, queue, queue == "durable"), 100);
        let got: Vec<usize> = (0..10).filter_map(|_| get(&mut connection, queue)).map(|(number, _)| number).collect();
        assert!(got.iter().copied().eq(0..10), "{got:?}");
    }
    let mut other = open(&machine);
    assert!(consume(&mut other, "durable").into_iter().eq(10..100));
    connection.call(1, "queue.purge", &[("queue", text("transient"))]);
    connection.wait_for(1, "queue.purge-ok").expect("a purge");
    assert_eq!(get(&mut connection, "transient"), None);
    assert_eq!(live_count(&storage), 0, "nothing stays in the store");
}

/// Levels of a queue with three of them, from the highest, and the level of a message.
const LEVELS: [usize; 3] = [2, 1, 0];

fn level(number: usize) -> usize {
    number * 7 % 3
}

/// Publishes messages of all levels in turn.
fn publish_levels(connection: &mut Connection, queue: &str, numbers: std::ops::Range<usize>, is_lasting: bool) {
    for number in numbers {
        let mode = if is_lasting || number % 4 > 0 { 2 } else { 1 };
        let priority = ("priority", Field::Number(level(number) as u64));
        publish_with(connection, "", queue, number, vec![("delivery-mode", Field::Number(mode)), priority]);
    }
}

/// In the order in which they must come.
fn by_level(numbers: impl Iterator<Item = usize> + Clone) -> Vec<usize> {
    LEVELS.iter().flat_map(|wanted| numbers.clone().filter(move |number| level(*number) == *wanted)).collect()
}

/// Semantics 21.2, 27.2.
#[test]
fn a_backlog_of_several_levels_comes_back_by_level() {
    let storage = super::storage();
    let machine = machine(&storage);
    let mut connection = open(&machine);
    let priorities = || vec![(b"x-max-priority".to_vec(), Value::U8(2))];
    for (queue, is_durable) in [("durable", true), ("transient", false)] {
        declare_with(&mut connection, queue, is_durable, priorities());
        publish_levels(&mut connection, queue, 0..100, false);
    }
    assert!(live_count(&storage) > 150, "most of them left memory: {}", live_count(&storage));
    for queue in ["durable", "transient"] {
        assert_eq!(declare_with(&mut connection, queue, queue == "durable", priorities()), 100);
        let expected = by_level(0..100);
        let got: Vec<usize> = (0..40).filter_map(|_| get(&mut connection, queue)).map(|(number, _)| number).collect();
        assert_eq!(got, expected[..40], "{queue}");
        // Higher ones go before what is left.
        publish_levels(&mut connection, queue, 100..112, false);
        let mut other = open(&machine);
        let left = expected[40..].iter().copied().chain(100..112);
        let mut left: Vec<usize> = left.collect();
        left.sort_unstable();
        assert_eq!(consume(&mut other, queue), by_level(left.into_iter()), "{queue}");
    }
    assert_eq!(live_count(&storage), 0, "nothing stays in the store");
    publish_levels(&mut connection, "durable", 0..90, false);
    connection.call(1, "queue.delete", &[("queue", text("durable"))]);
    connection.wait_for(1, "queue.delete-ok").expect("an end");
    connection.barrier(1).expect("an answer");
    assert_eq!(live_count(&storage), 0, "a queue ends with all its levels");
}

/// Semantics 13.21, 27.6.
#[test]
fn after_a_restart_each_level_is_in_order_and_knows_what_was_delivered() {
    let storage = super::storage();
    let priorities = || vec![(b"x-max-priority".to_vec(), Value::U8(2))];
    {
        let machine = machine(&storage);
        let mut connection = open(&machine);
        declare_with(&mut connection, "q", true, priorities());
        publish_levels(&mut connection, "q", 0..60, true);
        connection.call(1, "basic.qos", &[("prefetch-count", Field::Number(25))]);
        connection.wait_for(1, "basic.qos-ok").expect("a prefetch");
        connection.call(1, "basic.consume", &[("queue", text("q"))]);
        connection.wait_for(1, "basic.consume-ok").expect("a consumer");
        let held: Vec<usize> = std::iter::from_fn(|| next(&mut connection)).map(|delivery| number(&delivery)).collect();
        assert_eq!(held, by_level(0..60)[..25]);
    }
    {
        let machine = machine(&storage);
        let mut connection = open(&machine);
        assert_eq!(declare_with(&mut connection, "q", true, priorities()), 60);
        publish_levels(&mut connection, "q", 60..90, true);
        let expected: Vec<(usize, bool)> =
            by_level(0..90).into_iter().map(|number| (number, by_level(0..60)[..25].contains(&number))).collect();
        let got: Vec<(usize, bool)> = (0..50).filter_map(|_| get(&mut connection, "q")).collect();
        assert_eq!(got, expected[..50]);
    }
    let machine = machine(&storage);
    let mut connection = open(&machine);
    assert_eq!(declare_with(&mut connection, "q", true, priorities()), 40);
    let got: Vec<usize> = std::iter::from_fn(|| get(&mut connection, "q")).map(|(number, _)| number).collect();
    assert_eq!(got, by_level(0..90)[50..]);
    // A queue that never used some of its levels since the start still ends with all of them.
    publish_levels(&mut connection, "q", 0..60, true);
    drop(connection);
    drop(machine);
    let machine = self::machine(&storage);
    let mut connection = open(&machine);
    connection.call(1, "queue.delete", &[("queue", text("q"))]);
    connection.wait_for(1, "queue.delete-ok").expect("an end");
    connection.barrier(1).expect("an answer");
    assert_eq!(live_count(&storage), 0);
}

#[test]
fn what_may_have_been_delivered_is_marked_after_a_restart_and_the_rest_is_not() {
    let storage = super::storage();
    {
        let machine = machine(&storage);
        let mut connection = open(&machine);
        declare(&mut connection, "q", true);
        for number in 0..100 {
            publish(&mut connection, "", "q", number, number % 10 != 9);
        }
        connection.call(1, "basic.qos", &[("prefetch-count", Field::Number(30))]);
        connection.wait_for(1, "basic.qos-ok").expect("a prefetch");
        connection.call(1, "basic.consume", &[("queue", text("q"))]);
        connection.wait_for(1, "basic.consume-ok").expect("a consumer");
        let held: Vec<usize> = std::iter::from_fn(|| next(&mut connection)).map(|delivery| number(&delivery)).collect();
        assert!(held.into_iter().eq(0..30));
    }
    let machine = machine(&storage);
    let mut connection = open(&machine);
    assert_eq!(declare(&mut connection, "q", true), 90, "transient messages are gone");
    let got: Vec<(usize, bool)> = std::iter::from_fn(|| get(&mut connection, "q")).collect();
    let expected = (0..100).filter(|number| number % 10 != 9).map(|number| (number, number < 30));
    assert!(got.iter().copied().eq(expected), "semantics 13.21: {got:?}");
}

/// A storage with room for a few messages.
struct Narrow {
    inner: Arc<dyn Storage>,
    room: AtomicUsize,
}

impl Narrow {
    fn check(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        let live = live_count(&self.inner);
        let wanted: usize = batch.iter().map(|append| append.targets.len()).sum();
        match live + wanted <= self.room.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(StorageError::Full("no room".into())),
        }
    }
}

#[async_trait]
impl Storage for Narrow {
    async fn append(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.check(batch)?;
        self.inner.append(batch).await
    }

    async fn append_unsynced(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.append(batch).await
    }

    async fn settle(&self, ranges: &[Settle]) -> Result<(), StorageError> {
        self.inner.settle(ranges).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), StorageError> {
        self.inner.mark(marks).await
    }

    async fn delete_queue(&self, queue: QueueKey) -> Result<(), StorageError> {
        self.inner.delete_queue(queue).await
    }

    async fn read(&self, wanted: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        self.inner.read(wanted).await
    }

    async fn put_meta(&self, entries: &[Meta<'_>]) -> Result<(), StorageError> {
        self.inner.put_meta(entries).await
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        self.inner.recover().await
    }

    fn promise(&self) -> Durability {
        self.inner.promise()
    }
}

#[test]
fn a_full_disk_makes_confirms_wait_and_consumers_make_room() {
    let narrow = Arc::new(Narrow { inner: super::storage(), room: AtomicUsize::new(10) });
    let storage: Arc<dyn Storage> = Arc::<Narrow>::clone(&narrow);
    let machine = machine(&storage);
    let mut connection = open(&machine);
    declare(&mut connection, "q", true);
    connection.call(1, "confirm.select", &[]);
    connection.wait_for(1, "confirm.select-ok").expect("confirms");
    for number in 0..60 {
        publish(&mut connection, "", "q", number, number % 3 != 0);
    }
    let mut confirmed = Vec::new();
    take_confirms(&mut connection, &mut confirmed);
    assert!(confirmed.len() < 60, "there is no room for all: {confirmed:?}");
    let mut other = open(&machine);
    assert!(consume(&mut other, "q").into_iter().eq(0..60), "also what has no room yet is delivered");
    take_confirms(&mut connection, &mut confirmed);
    confirmed.sort_unstable();
    assert!(confirmed.iter().copied().eq(1..=60), "what was consumed is safe: {confirmed:?}");
    assert_eq!(live_count(&narrow.inner), 0, "nothing stays in the store");
}

/// Adds the numbers that were confirmed by now, once for each time.
fn take_confirms(connection: &mut Connection, numbers: &mut Vec<u64>) {
    while let Some(ack) = next(connection) {
        assert_eq!(ack.method.name, "basic.ack", "nothing is refused");
        match (&ack.fields[0], &ack.fields[1]) {
            (&Field::Number(tag), Field::Bit(false)) => numbers.push(tag),
            (&Field::Number(tag), Field::Bit(true)) => {
                let missing: Vec<u64> = (1..=tag).filter(|number| !numbers.contains(number)).collect();
                numbers.extend(missing);
            }
            other => panic!("{other:?}"),
        }
    }
}
