//! What a broker refuses on request (semantics 9.15, 30.4, 31.5).

use tests::broker_process::BrokerProcess;
use tests::scenario::connection::{Connection, Login};
use tests::transport::Target;
use tests::wire::Field;
use tests::wire::value::{Table, Value};

#[test]
fn transient_queues_of_nobody_close_the_connection_where_they_are_refused() {
    let broker = BrokerProcess::with_topology(
        "node: { transient_queues: refuse }\nvhosts: { /: { queues: { kept: { durable: true } } } }\n",
    );
    for (durable, exclusive) in [(true, false), (false, true)] {
        let mut connection = open(&broker);
        declare(&mut connection, "q", durable, exclusive, Vec::new());
        connection.wait_for(1, "queue.declare-ok").expect("it lasts, or it ends with its connection");
        connection.call(1, "queue.delete", &[("queue", text("q"))]);
        connection.wait_for(1, "queue.delete-ok").expect("it is deleted");
    }
    let mut connection = open(&broker);
    declare(&mut connection, "q", false, false, Vec::new());
    let close = connection.wait_for(0, "connection.close").expect("the connection is closed");
    let expected = "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is not permitted: queue 'q' in vhost '/' is neither durable nor \
                    exclusive, and 'transient_queues: refuse' under 'node' refuses that";
    assert_eq!(close[..2], [Field::Number(541), text(expected)]);
}

#[test]
fn quorum_queues_are_refused_where_they_are_unwanted() {
    let broker = BrokerProcess::with_topology("node: { quorum_queues: refuse }\n");
    let mut connection = open(&broker);
    declare(&mut connection, "q", true, false, quorum());
    let close = connection.wait_for(1, "channel.close").expect("the channel is closed");
    let expected = "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost '/': quorum queues are refused, because this \
                    node would keep them alone";
    assert_eq!(close[..2], [Field::Number(406), text(expected)]);
}

#[test]
fn a_quorum_queue_of_one_node_is_told_in_the_log() {
    let broker = BrokerProcess::start();
    let mut connection = open(&broker);
    declare(&mut connection, "alone", true, false, quorum());
    connection.wait_for(1, "queue.declare-ok").expect("it is declared");
    let line = broker.wait_for_log(|line| line.contains("a quorum queue was declared")).expect("the log says so");
    for part in ["\"WARN\"", "alone", "only this node keeps it", "quorum_queues: refuse"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

fn open(broker: &BrokerProcess) -> Connection {
    let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
    connection.login(&Login::guest("/")).expect("guest may log in");
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").expect("a channel");
    connection
}

fn declare(connection: &mut Connection, name: &str, durable: bool, exclusive: bool, arguments: Table) {
    let fields = [
        ("queue", text(name)),
        ("durable", Field::Bit(durable)),
        ("exclusive", Field::Bit(exclusive)),
        ("arguments", Field::Table(arguments)),
    ];
    connection.call(1, "queue.declare", &fields);
}

fn quorum() -> Table {
    vec![(b"x-queue-type".to_vec(), Value::Text(b"quorum".to_vec()))]
}

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}
