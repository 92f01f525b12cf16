//! Heartbeats while much else is sent (semantics 5.9, 5.10): what counts is what the other side says, not how busy the connection is.

use std::time::{Duration, Instant};

use tests::broker_process::BrokerProcess;
use tests::scenario::connection::{Connection, Event, Login};
use tests::transport::Target;
use tests::wire::Field;

/// Deliveries go on for longer than two intervals of a second.
const FLOOD: Duration = Duration::from_millis(3500);
const DEADLINE: Duration = Duration::from_secs(20);

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn open(broker: &BrokerProcess, heartbeat: u64) -> Connection {
    let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
    connection.login(&Login { heartbeat, ..Login::guest("/") }).expect("guest may log in");
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").unwrap();
    connection
}

fn publish(connection: &mut Connection) {
    connection.call(1, "basic.publish", &[("routing-key", text("q"))]);
    connection.send_frame(2, 1, b"\0\x3c\0\0\0\0\0\0\0\0\0\x01\0\0".to_vec());
    connection.send_frame(3, 1, b"x".to_vec());
}

/// A consumer that asks for heartbeats of a second and gets one message after the other.
fn flooded(broker: &BrokerProcess) -> (Connection, Connection) {
    let (mut consumer, mut publisher) = (open(broker, 1), open(broker, 0));
    consumer.call(1, "queue.declare", &[("queue", text("q"))]);
    consumer.wait_for(1, "queue.declare-ok").unwrap();
    consumer.call(1, "basic.consume", &[("queue", text("q")), ("no-ack", Field::Bit(true))]);
    consumer.wait_for(1, "basic.consume-ok").unwrap();
    (0..64).for_each(|_| publish(&mut publisher));
    (consumer, publisher)
}

#[test]
fn who_hears_much_and_sends_heartbeats_stays() {
    let broker = BrokerProcess::start();
    let (mut consumer, mut publisher) = flooded(&broker);
    let start = Instant::now();
    let mut last = start;
    while start.elapsed() < FLOOD {
        consumer.wait_for(1, "basic.deliver").expect("the connection stays");
        publish(&mut publisher);
        if last.elapsed() > Duration::from_millis(500) {
            consumer.send_frame(8, 0, Vec::new());
            last = Instant::now();
        }
    }
    consumer.call(1, "basic.qos", &[]);
    loop {
        match consumer.next(1).expect("the connection stays") {
            Event::Method(incoming) if incoming.method.name == "basic.qos-ok" => break,
            Event::Method(_) | Event::Heartbeat => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_hears_much_and_says_nothing_is_cut() {
    let broker = BrokerProcess::start();
    let (mut consumer, mut publisher) = flooded(&broker);
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < DEADLINE, "nobody looks at a silent client that is busy reading");
        match consumer.next(1) {
            Ok(Event::Method(_) | Event::Heartbeat) => publish(&mut publisher),
            Ok(Event::Eof) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(start.elapsed() > Duration::from_millis(1900), "two intervals are its right");
}
