//! Declarations of several connections at once.

use tests::broker_process::BrokerProcess;
use tests::scenario::connection::{Connection, Login};
use tests::transport::Target;
use tests::wire::Field;
use tests::wire::value::Value;

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn channel(broker: &BrokerProcess) -> Connection {
    let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
    connection.login(&Login::guest("/")).expect("guest may log in");
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").unwrap();
    connection
}

#[test]
fn declaring_what_somebody_deletes_is_no_error() {
    const ROUNDS: usize = 300;
    let broker = BrokerProcess::start();
    let work = |deletes: bool| {
        let mut connection = channel(&broker);
        for _ in 0..ROUNDS {
            connection.call(1, "exchange.declare", &[("exchange", text("x")), ("type", text("fanout"))]);
            connection.wait_for(1, "exchange.declare-ok").expect("declaring is fine at any time");
            connection.call(1, "queue.declare", &[("queue", text("q"))]);
            connection.wait_for(1, "queue.declare-ok").expect("declaring is fine at any time");
            if deletes {
                connection.call(1, "exchange.delete", &[("exchange", text("x"))]);
                connection.wait_for(1, "exchange.delete-ok").expect("deleting is fine at any time");
                connection.call(1, "queue.delete", &[("queue", text("q"))]);
                connection.wait_for(1, "queue.delete-ok").expect("deleting is fine at any time");
            }
        }
    };
    std::thread::scope(|scope| {
        for deletes in [false, true, true] {
            scope.spawn(move || work(deletes));
        }
    });
}

/// What a file declares with keys of its own is what a client declares with arguments (semantics 9.8, 9.11).
#[test]
fn queues_of_the_file_are_declared_again_by_clients() {
    let broker = BrokerProcess::with_topology(
        "vhosts:
  /:
    exchanges: { x: { type: topic, alternate_exchange: rest }, rest: fanout, dlx: fanout }
    queues:
      q:
        ttl: 30s
        expires: 1h
        max_length: 5
        max_length_bytes: 1KiB
        overflow: reject-publish
        dead_letter: { exchange: dlx, routing_key: k }
        max_priority: 9
        single_active_consumer: true
        consumer_timeout: 5m
      r: { type: quorum, delivery_limit: 3, dead_letter: '' }
",
    );
    let text_value = |text: &str| Value::Text(text.as_bytes().to_vec());
    let redeclare = |queue: &str, arguments: &[(&str, Value)]| {
        let arguments = arguments.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.clone())).collect();
        let mut connection = channel(&broker);
        let fields = [("queue", text(queue)), ("durable", Field::Bit(true)), ("arguments", Field::Table(arguments))];
        connection.call(1, "queue.declare", &fields);
        connection.wait_for(1, "queue.declare-ok")
    };
    // Integers as clients send them: in whatever width they like.
    let arguments = [
        ("x-message-ttl", Value::I32(30_000)),
        ("x-expires", Value::I64(3_600_000)),
        ("x-max-length", Value::I8(5)),
        ("x-max-length-bytes", Value::I16(1024)),
        ("x-overflow", text_value("reject-publish")),
        ("x-dead-letter-exchange", text_value("dlx")),
        ("x-dead-letter-routing-key", text_value("k")),
        ("x-max-priority", Value::U8(9)),
        ("x-single-active-consumer", Value::Bool(true)),
    ];
    redeclare("q", &arguments).expect("it is the same queue");
    let quorum = [
        ("x-queue-type", text_value("quorum")),
        ("x-delivery-limit", Value::I32(3)),
        ("x-dead-letter-exchange", text_value("")),
    ];
    redeclare("r", &quorum).expect("it is the same queue");
    for left_out in 0..arguments.len() {
        let mut fewer = arguments.to_vec();
        let (name, _) = fewer.remove(left_out);
        let refusal = redeclare("q", &fewer).expect_err("each of them makes a difference");
        assert!(refusal.contains(&format!("inequivalent arg '{name}'")), "{refusal}");
    }
}
