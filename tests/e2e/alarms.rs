//! Alarms as clients and operators see them.

use tests::broker_process::BrokerOptions;
use tests::scenario::connection::{Connection, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::{Field, spec};

#[test]
fn a_disk_with_too_little_room_stops_publishers_and_not_consumers() {
    let folder = TempDir::new("disk-alarm");
    // More than any disk has free.
    let topology = folder.write("topology.yaml", "limits: { disk_free_bytes_min: 1048576GiB }\n");
    let data = folder.path().join("data");
    let broker = BrokerOptions::default()
        .topology(topology)
        .argument("--data")
        .argument(data.display().to_string())
        .start()
        .expect("a broker without room starts");
    let line = broker.wait_for_log(|line| line.contains("disk alarm: ")).expect("the alarm is logged");
    for part in ["free_bytes", "limits.disk_free_bytes_min", &*data.display().to_string()] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let open = || {
        let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
        connection.login(&Login::guest("/")).expect("guest may log in");
        connection.call(1, "channel.open", &[]);
        connection.wait_for(1, "channel.open-ok").expect("a channel");
        connection
    };
    let queue = || Field::String(b"q".to_vec());
    let mut publisher = open();
    publisher.call(1, "queue.declare", &[("queue", queue()), ("durable", Field::Bit(true))]);
    publisher.wait_for(1, "queue.declare-ok").expect("declaring goes on");
    let method = spec::by_name("basic.publish").expect("a method of the table");
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    fields[2] = queue();
    publisher.send_method(1, method, &fields, Some((Vec::new(), b"m".to_vec())));
    let blocked = publisher.wait_for(0, "connection.blocked").expect("the publisher is told");
    assert_eq!(blocked, [Field::String(b"low on disk".to_vec())]);

    let mut consumer = open();
    consumer.call(1, "basic.consume", &[("queue", queue()), ("no-ack", Field::Bit(true))]);
    consumer.wait_for(1, "basic.consume-ok").expect("consumers may come");
    consumer.wait_for(1, "basic.deliver").expect("consumers go on, and what was published before the block is there");
}
