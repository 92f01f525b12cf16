//! Messages that an exchange has put off: what a restart keeps of them, and when they come then.

use plugin_api::async_trait;
use plugin_api::storage::{
    Append, Durability, MessageSeq, Meta, QueueKey, Recovered, Settle, Storage, StorageError, StorageStatus,
    StoredMessage, Wanted,
};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tests::broker_process::BrokerOptions;
use tests::machine::MachineTarget;
use tests::scenario::connection::{Connection, Event, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::value::Value;
use tests::wire::{Field, spec};

use super::{check_later, storage};

/// The text of a run that begins by declaring `x`, and `q` bound to it with the key `k`.
fn run(comment: &str, rest: &str) -> String {
    format!(
        r#"# {comment}
a.1 > exchange.declare exchange=x type=x-delayed-message durable=true arguments={{x-delayed-type:direct}}
a.1 < exchange.declare-ok
a.1 > queue.declare queue=q durable=true
a.1 < queue.declare-ok queue=q ..
a.1 > queue.bind queue=q exchange=x routing-key=k
a.1 < queue.bind-ok
{rest}"#
    )
}

const CONSUME: &str = "a.1 > basic.consume queue=q consumer-tag=c no-ack=true\na.1 < basic.consume-ok consumer-tag=c\n";

#[test]
fn delayed_messages_survive_and_time_passes_while_the_broker_is_down() {
    // Semantics 11.19.
    let published = run(
        "two that last, and one that does not",
        r#"a.1 > confirm.select
a.1 < confirm.select-ok
a.1 > basic.publish exchange=x routing-key=k | delivery-mode=2 headers={x-delay:60000, h:v} | body="late"
a.1 > basic.publish exchange=x routing-key=k | delivery-mode=2 headers={x-delay:10000} | body="soon"
a.1 > basic.publish exchange=x routing-key=k | delivery-mode=1 headers={x-delay:10000} | body="transient"
a.1 < confirmed 1-3
a.1 > basic.get queue=q
a.1 < basic.get-empty
"#,
    );
    let early = run("nothing is due yet", "a.1 > basic.get queue=q\na.1 < basic.get-empty\n");
    let rest = format!(
        r#"{CONSUME}a.1 < basic.deliver consumer-tag=c delivery-tag=1 exchange=x routing-key=k | delivery-mode=2 headers={{x-delay:-10000}} | body="soon"
a.1 > basic.publish exchange=x routing-key=k | delivery-mode=2 headers={{x-delay:1000}} | body="new"
a.1 < basic.deliver consumer-tag=c delivery-tag=2 exchange=x routing-key=k | delivery-mode=2 headers={{x-delay:-1000}} | body="new"
a.1 < basic.deliver consumer-tag=c delivery-tag=3 exchange=x routing-key=k | delivery-mode=2 headers={{x-delay:-60000, h:v}} | body="late"
"#
    );
    let due = run("one became due meanwhile, the other does later, and a new one in between", &rest);
    let marker = format!(
        r#"{CONSUME}a.1 > basic.publish exchange=x routing-key=k | headers={{x-delay:1}} | body="end"
a.1 < basic.deliver consumer-tag=c delivery-tag=1 exchange=x routing-key=k | headers={{x-delay:-1}} | body="end"
"#
    );
    let after = run("each came once", &marker);
    check_later("delayed", &[(0, &published), (5_000, &early), (20_000, &due), (90_000, &after)]);
}

#[test]
fn what_became_due_while_the_broker_was_down_comes_at_once_and_in_due_order() {
    let published = run(
        "the last is due first",
        r#"a.1 > basic.publish exchange=x routing-key=k | delivery-mode=2 headers={x-delay:3000} | body="3"
a.1 > basic.publish exchange=x routing-key=k | delivery-mode=2 headers={x-delay:2000} | body="2"
a.1 > basic.publish exchange=x routing-key=k | delivery-mode=2 headers={x-delay:1000} | body="1"
a.1 barrier
"#,
    );
    let rest = format!(
        r#"{CONSUME}a.1 < basic.deliver consumer-tag=c delivery-tag=1 exchange=x routing-key=k | delivery-mode=2 headers={{x-delay:-1000}} | body="1"
a.1 < basic.deliver consumer-tag=c delivery-tag=2 exchange=x routing-key=k | delivery-mode=2 headers={{x-delay:-2000}} | body="2"
a.1 < basic.deliver consumer-tag=c delivery-tag=3 exchange=x routing-key=k | delivery-mode=2 headers={{x-delay:-3000}} | body="3"
"#
    );
    check_later("overdue", &[(0, &published), (100_000, &run("all of them are due", &rest))]);
}

#[test]
fn keys_of_bcc_route_a_message_that_comes_back_after_a_restart() {
    // Semantics 11.12: the header is gone for consumers, and routes all the same.
    let published = run(
        "a hidden key",
        "a.1 > basic.publish exchange=x routing-key=else | delivery-mode=2 headers={x-delay:1000, BCC:[k]} | body=\"m\"\na.1 barrier\n",
    );
    let rest = format!(
        "{CONSUME}a.1 < basic.deliver consumer-tag=c delivery-tag=1 exchange=x routing-key=else | delivery-mode=2 headers={{x-delay:-1000}} | body=\"m\"\n"
    );
    check_later("delayed-bcc", &[(0, &published), (2_000, &run("it reaches the queue", &rest))]);
}

/// A storage that keeps messages only when it may, or has no room for them.
pub(super) struct Gate {
    inner: Arc<dyn Storage>,
    is_shut: AtomicBool,
    is_full: AtomicBool,
}

impl Gate {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { inner: storage(), is_shut: AtomicBool::new(false), is_full: AtomicBool::new(false) })
    }

    fn fill(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }

    pub(super) fn shut(&self, is_shut: bool) {
        self.is_shut.store(is_shut, Ordering::SeqCst);
    }

    /// How many messages there are under each key.
    pub(super) fn counts(&self) -> Vec<u64> {
        match std::pin::pin!(self.inner.recover()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(recovered) => {
                let queues = recovered.expect("it lives in memory").queues;
                let count = |(first, last): &(MessageSeq, MessageSeq)| last.0 - first.0 + 1;
                queues.iter().map(|queue| queue.ranges.iter().map(count).sum()).collect()
            }
            Poll::Pending => panic!("the storage in memory does not wait"),
        }
    }
}

#[async_trait]
impl Storage for Gate {
    async fn append(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        poll_fn(|_| if self.is_shut.load(Ordering::SeqCst) { Poll::Pending } else { Poll::Ready(()) }).await;
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StorageError::Full("told to".into()));
        }
        self.inner.append(batch).await
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
        self.inner.put_meta(entries).await
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        self.inner.recover().await
    }

    /// As one with a disk, so that bodies leave memory.
    fn promise(&self) -> Durability {
        Durability::Synced
    }

    fn status(&self) -> StorageStatus {
        StorageStatus { is_full: self.is_full.load(Ordering::SeqCst), ..StorageStatus::default() }
    }
}

pub(super) fn machine(gate: &Arc<Gate>, later_ms: u64, queue_memory_bytes: Option<u64>) -> MachineTarget {
    let mut topology = broker::topology::schema::Topology::default();
    topology.limits.queue_memory_bytes = queue_memory_bytes;
    MachineTarget::later_on(Arc::<Gate>::clone(gate), &topology, later_ms).expect("the machine starts")
}

pub(super) fn open(target: &dyn Target) -> Connection {
    let mut connection = Connection::new(target.connect().expect("the broker takes connections"));
    connection.login(&Login::guest("/")).expect("guest may log in");
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").expect("a channel");
    connection.call(1, "confirm.select", &[]);
    connection.wait_for(1, "confirm.select-ok").expect("confirms");
    connection
}

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

/// A delayed exchange `x`, and a queue `q` that gets everything of it.
fn declare(connection: &mut Connection) {
    let durable = ("durable", Field::Bit(true));
    let arguments = Field::Table(vec![(b"x-delayed-type".to_vec(), Value::Text(b"fanout".to_vec()))]);
    let exchange =
        [("exchange", text("x")), ("type", text("x-delayed-message")), durable.clone(), ("arguments", arguments)];
    connection.call(1, "exchange.declare", &exchange);
    connection.wait_for(1, "exchange.declare-ok").expect("an exchange");
    connection.call(1, "queue.declare", &[("queue", text("q")), durable]);
    connection.wait_for(1, "queue.declare-ok").expect("a queue");
    connection.call(1, "queue.bind", &[("queue", text("q")), ("exchange", text("x"))]);
    connection.wait_for(1, "queue.bind-ok").expect("a binding");
}

fn publish(connection: &mut Connection, delay_ms: u32, body: Vec<u8>) {
    let method = spec::by_name("basic.publish").expect("a method of the table");
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    fields[1] = text("x");
    let headers = vec![(b"x-delay".to_vec(), Value::U32(delay_ms))];
    let properties = vec![("headers", Field::Table(headers)), ("delivery-mode", Field::Number(2))];
    connection.send_method(1, method, &fields, Some((properties, body)));
}

/// The body of the next message that a consumer gets.
fn delivered(connection: &mut Connection) -> Vec<u8> {
    loop {
        match connection.next(1).expect("the broker sends frames") {
            Event::Method(incoming) if incoming.method.name == "basic.deliver" => {
                return incoming.content.map(|(_, body)| body).unwrap_or_default();
            }
            Event::Method(incoming) if incoming.method.name == "basic.ack" => {}
            other => panic!("a delivery, not {other:?}"),
        }
    }
}

fn consume(connection: &mut Connection) {
    connection.call(1, "basic.consume", &[("queue", text("q")), ("no-ack", Field::Bit(true))]);
    connection.wait_for(1, "basic.consume-ok").expect("a consumer");
}

fn held_count(machine: &MachineTarget) -> usize {
    let vhost = machine.broker().vhost("/").expect("it is there by default");
    let exchange = vhost.exchange("x").expect("it was declared");
    vhost.held_count(&exchange).unwrap_or(0)
}

#[test]
fn confirm_waits_for_the_store_and_the_store_forgets_when_the_queue_is_stored() {
    let gate = Gate::new();
    let machine = machine(&gate, 0, None);
    let mut connection = open(&machine);
    declare(&mut connection);
    gate.shut(true);
    publish(&mut connection, 1_000, b"m".to_vec());
    // Time passes, and nothing comes of what is not stored.
    let event = connection.next(1).expect("the broker sends frames");
    assert!(matches!(event, Event::Nothing), "{event:?} came before the store had it");
    gate.shut(false);
    connection.wait_for(1, "basic.ack").expect("it is stored now");
    assert_eq!((held_count(&machine), gate.counts()), (0, vec![1]), "it was due long before");
    publish(&mut connection, 1_000, b"m".to_vec());
    connection.wait_for(1, "basic.ack").expect("it is stored");
    assert_eq!((held_count(&machine), gate.counts()), (1, vec![1, 1]));
    gate.shut(true);
    let event = connection.next(1).expect("the broker sends frames");
    assert!(matches!(event, Event::Nothing), "{event:?}");
    assert_eq!((held_count(&machine), gate.counts()), (0, vec![1, 1]), "it is on its way, and nowhere else yet");
    gate.shut(false);
    connection.barrier(1).expect("two round trips");
    assert_eq!(gate.counts(), [2], "the queue has both, and the exchange none");
    publish(&mut connection, 1_000, b"m".to_vec());
    connection.wait_for(1, "basic.ack").expect("it is stored");
    gate.fill(true);
    let event = connection.next(1).expect("the broker sends frames");
    assert!(matches!(event, Event::Nothing), "{event:?}");
    assert_eq!((held_count(&machine), gate.counts()), (0, vec![1, 2]), "there is no room for it in the queue");
    gate.fill(false);
    connection.barrier(1).expect("two round trips");
    assert_eq!(gate.counts(), [3]);
}

#[test]
fn messages_of_an_exchange_that_was_deleted_are_gone_for_good() {
    let gate = Gate::new();
    for later_ms in [0, 10_000] {
        let machine = machine(&gate, later_ms, None);
        let mut connection = open(&machine);
        declare(&mut connection);
        assert_eq!(held_count(&machine), 0, "the new one has nothing of the old one");
        publish(&mut connection, 1_000, b"m".to_vec());
        connection.wait_for(1, "basic.ack").expect("it is stored");
        assert_eq!(held_count(&machine), 1);
        connection.call(1, "exchange.delete", &[("exchange", text("x"))]);
        connection.wait_for(1, "exchange.delete-ok").expect("it is deleted");
        connection.barrier(1).expect("two round trips");
        assert_eq!(gate.counts(), [0; 0], "nothing of it is left in the store");
    }
}

#[test]
fn exchange_of_an_older_version_gets_a_number_and_keeps_what_it_puts_off() {
    let gate = Gate::new();
    let arguments = "DngtZGVsYXllZC10eXBlUwAAAAZmYW5vdXQ=";
    let value =
        format!(r#"{{"kind":"x-delayed-message","auto_delete":false,"internal":false,"arguments":"{arguments}"}}"#);
    let entries = [Meta { key: br#"["exchange","/","x"]"#, value: Some(value.as_bytes()) }];
    let put = std::pin::pin!(gate.inner.put_meta(&entries)).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(put, Poll::Ready(Ok(())));
    for (later_ms, expected) in [(0, 0), (1_000, 1), (2_000, 2)] {
        let machine = machine(&gate, later_ms, None);
        let mut connection = open(&machine);
        declare(&mut connection);
        assert_eq!(held_count(&machine), expected);
        publish(&mut connection, 3_600_000, b"m".to_vec());
        connection.wait_for(1, "basic.ack").expect("it is stored");
    }
}

/// Many messages whose due times have nothing to do with their order, in little memory.
#[test]
fn many_delayed_messages_come_in_order_with_few_bodies_in_memory() {
    const COUNT: u32 = 20_000;
    const BUDGET_BYTES: u64 = 128 * 1024;
    /// What is loaded ahead may come on top.
    const MEMORY_BYTES_MAX: usize = 2 * 1024 * 1024;
    let gate = Gate::new();
    let body = |number: u32| {
        let mut body = number.to_be_bytes().to_vec();
        body.resize(400, 7);
        body
    };
    // Each due time occurs once.
    let delay_ms = |number: u32| 1 + number * 7_919 % COUNT;
    {
        let machine = machine(&gate, 0, Some(BUDGET_BYTES));
        let mut connection = open(&machine);
        declare(&mut connection);
        for number in 0..COUNT {
            publish(&mut connection, 3_600_000 + delay_ms(number), body(number));
            if number % 1_000 == 0 {
                assert!(machine.broker().holder.memory_bytes() <= MEMORY_BYTES_MAX);
            }
        }
        wait_for_confirm(&mut connection, COUNT.into());
        assert_eq!(held_count(&machine), COUNT as usize);
    }
    let machine = machine(&gate, 0, Some(BUDGET_BYTES));
    let mut connection = open(&machine);
    assert_eq!(held_count(&machine), COUNT as usize, "known before any was read");
    consume(&mut connection);
    for place in 0..COUNT {
        let body = delivered(&mut connection);
        let number = body.first_chunk().map_or(0, |number| u32::from_be_bytes(*number));
        assert_eq!(delay_ms(number), place + 1, "by due time");
        assert!(machine.broker().holder.memory_bytes() <= MEMORY_BYTES_MAX);
    }
    connection.barrier(1).expect("two round trips");
    assert_eq!((held_count(&machine), gate.counts()), (0, vec![]));
}

/// The memory of a process in bytes, without the pages of its program.
fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux says so");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kib * 1024
}

#[test]
fn hundred_thousand_delayed_messages_survive_a_kill_in_little_memory() {
    const COUNT: u64 = 100_000;
    const BODY_BYTES: usize = 1_000;
    let folder = TempDir::new("delayed");
    let topology = folder.write("topology.yaml", "storage: { data: data }\nlimits: { queue_memory_bytes: 4MiB }\n");
    let start = || BrokerOptions::default().topology(&topology).start().expect("the broker starts");
    let broker = start();
    let mut connection = open(&broker.target());
    declare(&mut connection);
    for number in 1..=COUNT {
        publish(&mut connection, 3_600_000, vec![7; BODY_BYTES]);
        if number % 5_000 == 0 {
            wait_for_confirm(&mut connection, number);
        }
    }
    let before = resident_bytes(broker.pid());
    broker.kill().expect("it is killed");
    let broker = start();
    let mut connection = open(&broker.target());
    consume(&mut connection);
    publish(&mut connection, 1, b"now".to_vec());
    wait_for_confirm(&mut connection, 1);
    assert_eq!(delivered(&mut connection), b"now", "it comes when all due times are known");
    let all = COUNT * BODY_BYTES as u64;
    assert!(before < all, "{before} bytes for {all} bytes of bodies");
    // What was read for its due time has been given back to the allocator, which gives it back when threads use it again.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        connection.barrier(1).expect("a round trip");
        let after = resident_bytes(broker.pid());
        if after < all {
            break;
        }
        assert!(Instant::now() < deadline, "{after} bytes for {all} bytes of bodies");
    }
    assert!(broker.terminate().expect("it ends").success());
    let output = std::process::Command::new(tests::broker_process::binary().expect("the broker is built"))
        .args(["store", "stats"])
        .arg(folder.path().join("data"))
        .output()
        .expect("the command runs");
    let stats = String::from_utf8_lossy(&output.stdout);
    assert!(stats.contains("of these      0 in durable queues, 100000 put off by exchanges, 0 kept"), "{stats}");
}

/// Waits until this publish and all before it are confirmed.
fn wait_for_confirm(connection: &mut Connection, number: u64) {
    loop {
        let fields = connection.wait_for(1, "basic.ack").expect("a confirm");
        if matches!(fields.first(), Some(Field::Number(tag)) if *tag >= number) {
            return;
        }
    }
}

/// A machine's clock jumps to whatever is due next, so this is about the timer of a node.
#[test]
fn delayed_messages_of_a_node_come_in_time_and_never_early() {
    let broker = BrokerOptions::default().start().expect("the broker starts");
    let mut connection = open(&broker.target());
    declare(&mut connection);
    consume(&mut connection);
    let start = Instant::now();
    publish(&mut connection, 300, b"second".to_vec());
    publish(&mut connection, 100, b"first".to_vec());
    assert_eq!(delivered(&mut connection), b"first");
    assert!(start.elapsed() >= Duration::from_millis(99));
    assert_eq!(delivered(&mut connection), b"second");
    assert!(start.elapsed() >= Duration::from_millis(299));
}
