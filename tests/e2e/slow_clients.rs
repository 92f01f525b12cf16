//! A client that does not read holds up itself and nobody else, and the broker's memory stays bounded.

use std::time::{Duration, Instant};
use tests::broker_process::BrokerProcess;
use tests::scenario::connection::{Connection, Login};
use tests::transport::Target;
use tests::wire::{Field, spec};

const BODY_BYTES: usize = 64 * 1024;

fn open(broker: &BrokerProcess) -> Connection {
    let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
    connection.login(&Login::guest("/")).expect("guest may log in");
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").expect("a channel");
    connection
}

fn string(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn publish(connection: &mut Connection, queue: &str, body: Vec<u8>) {
    let method = spec::by_name("basic.publish").expect("a method of the table");
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    fields[2] = string(queue);
    connection.send_method(1, method, &fields, Some((Vec::new(), body)));
}

/// Resident memory of a process in bytes.
fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has a size");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    kib * 1024
}

#[test]
fn consumer_that_never_reads_disturbs_nobody() {
    let broker = BrokerProcess::start();
    let mut stuck = open(&broker);
    stuck.call(1, "queue.declare", &[("queue", string("stuck"))]);
    stuck.wait_for(1, "queue.declare-ok").unwrap();
    stuck.call(1, "basic.consume", &[("queue", string("stuck")), ("no-ack", Field::Bit(true))]);
    stuck.wait_for(1, "basic.consume-ok").unwrap();

    // 64 MiB go to a consumer that reads nothing from here on.
    let mut publisher = open(&broker);
    let before = resident_bytes(broker.pid());
    for _ in 0..1024 {
        publish(&mut publisher, "stuck", vec![b'x'; BODY_BYTES]);
    }
    publisher.barrier(1).expect("the publisher is not held up");

    // Another pair works at its usual pace.
    let mut other = open(&broker);
    other.call(1, "queue.declare", &[("queue", string("other"))]);
    other.wait_for(1, "queue.declare-ok").unwrap();
    other.call(1, "basic.consume", &[("queue", string("other")), ("no-ack", Field::Bit(true))]);
    other.wait_for(1, "basic.consume-ok").unwrap();
    let start = Instant::now();
    for _ in 0..50 {
        publish(&mut publisher, "other", b"quick".to_vec());
        other.wait_for(1, "basic.deliver").expect("the other consumer is served");
    }
    assert!(start.elapsed() < Duration::from_secs(10), "fifty round trips took {:?}", start.elapsed());

    // What waits is in the queue once, not copied into the buffers of the connection as well.
    let grown = resident_bytes(broker.pid()).saturating_sub(before);
    assert!(grown < 3 * 64 * 1024 * 1024 / 2, "the broker grew by {} MiB", grown / 1024 / 1024);

    // Most of it is still in the queue: credit keeps what is unsent of one consumer small.
    other.call(1, "queue.declare", &[("queue", string("stuck")), ("passive", Field::Bit(true))]);
    let fields = other.wait_for(1, "queue.declare-ok").unwrap();
    let Some(Field::Number(ready)) = fields.get(1) else { panic!("declare-ok counts messages") };
    assert!(*ready > 800, "only {ready} of 1024 messages wait in the queue");
}

#[test]
fn client_that_never_reads_its_answers_gets_no_more_work_done() {
    let broker = BrokerProcess::start();
    let mut other = open(&broker);
    let mut stuck = open(&broker);
    other.call(1, "queue.declare", &[("queue", string("q"))]);
    other.wait_for(1, "queue.declare-ok").unwrap();
    publish(&mut other, "q", vec![b'x'; BODY_BYTES]);
    other.barrier(1).unwrap();
    let before = resident_bytes(broker.pid());
    // Each request is small and its answer is not: get, and put back by the next recover.
    let sender = std::thread::spawn(move || {
        for _ in 0..2000 {
            stuck.call(1, "basic.get", &[("queue", string("q"))]);
            stuck.call(1, "basic.recover", &[("requeue", Field::Bit(true))]);
        }
        stuck
    });
    let stuck = sender.join().expect("the sender's small requests fit into the socket");
    for _ in 0..20 {
        other.barrier(1).expect("the other client is served");
    }
    let grown = resident_bytes(broker.pid()).saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "the broker grew by {} MiB for a client that does not read", grown / 1024 / 1024);
    drop(stuck);
}
