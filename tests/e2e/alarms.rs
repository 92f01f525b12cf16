//! Alarms as clients and operators see them.

use serde_json::{Value, json};
use tests::broker_process::{BrokerOptions, BrokerProcess, signal};
use tests::http::Http;
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
    let mut publisher = open(&broker);
    publisher.call(1, "queue.declare", &[("queue", queue()), ("durable", Field::Bit(true))]);
    publisher.wait_for(1, "queue.declare-ok").expect("declaring goes on");
    publish(&mut publisher);
    let blocked = publisher.wait_for(0, "connection.blocked").expect("the publisher is told");
    assert_eq!(blocked, [Field::String(b"low on disk".to_vec())]);

    let mut consumer = open(&broker);
    consumer.call(1, "basic.consume", &[("queue", queue()), ("no-ack", Field::Bit(true))]);
    consumer.wait_for(1, "basic.consume-ok").expect("consumers may come");
    consumer.wait_for(1, "basic.deliver").expect("consumers go on, and what was published before the block is there");
}

#[test]
fn watermarks_are_set_while_the_broker_runs() {
    let folder = TempDir::new("alarms");
    let data = folder.path().join("data").display().to_string();
    let broker = BrokerOptions::default().argument("--data").argument(data).http().start().expect("the broker starts");
    let http = Http::new(broker.http());
    let set = |body: Value| assert_eq!(http.put("/x/alarms", &body), 204, "{body}");
    let mut publisher = open(&broker);
    publisher.call(1, "queue.declare", &[("queue", queue())]);
    publisher.wait_for(1, "queue.declare-ok").expect("a queue");

    set(json!({"disk_free_bytes_min": 1_u64 << 60}));
    broker.wait_for_log(|line| line.contains("disk alarm: ")).expect("the alarm is raised");
    set(json!({"memory_watermark_share": 0.000_000_001}));
    publish(&mut publisher);
    let blocked = publisher.wait_for(0, "connection.blocked").expect("the publisher is told");
    assert_eq!(blocked, [Field::String(b"low on memory & low on disk".to_vec())]);
    let shown = http.get("/x/alarms");
    assert_eq!((&shown["memory"]["is_raised"], &shown["disk"]["is_raised"]), (&json!(true), &json!(true)), "{shown}");

    // HTTP has no connection that could wait, so a request is refused (semantics 26.7).
    let body = json!({"properties": {}, "routing_key": "q", "payload": "m", "payload_encoding": "string"});
    let answer = http.post("/exchanges/%2F/amq.default/publish", &body);
    let refusal = ("service_unavailable".to_owned(), "publishing is stopped: low on memory & low on disk".to_owned());
    assert_eq!((answer.status, answer.refusal()), (503, refusal));

    set(json!({"disk_free_bytes_min": 0}));
    broker.wait_for_log(|line| line.contains("disk alarm is over")).expect("the alarm is cleared");
    assert_eq!(http.get("/x/alarms")["reason"], "low on memory");
    set(json!({"memory_watermark_bytes": 1_u64 << 40}));
    publisher.wait_for(0, "connection.unblocked").expect("the publisher is told");
    assert_eq!(http.get("/x/alarms")["reason"], Value::Null);
    assert_eq!(http.get("/nodes")[0]["mem_limit"], json!(1_u64 << 40));
    assert_eq!(http.post("/exchanges/%2F/amq.default/publish", &body).json()["routed"], json!(true));

    for (body, part) in [
        (json!({}), "should be given"),
        (json!({"memory_watermark_bytes": -1}), "0 or more"),
        (json!({"memory_watermark_share": 1.5}), "from 0 to 1"),
        (json!({"memory_watermark_share": "much"}), "from 0 to 1"),
        (json!({"disk_free_memory_share": -0.1}), "0 or more"),
        (json!({"disk_free_bytes_min": 1, "disk_free_memory_share": 1}), "give one of them"),
    ] {
        let answer = http.send("PUT", "/x/alarms", body.to_string().as_bytes());
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.refusal().1.contains(part), "{body}: {:?}", answer.refusal());
    }
}

#[test]
fn a_hangup_takes_watermarks_over_from_the_file() {
    let folder = TempDir::new("alarms-hangup");
    let topology = folder.write("topology.yaml", "limits: { memory_watermark_bytes: 1GiB }\n");
    let data = folder.path().join("data").display().to_string();
    let broker = BrokerOptions::default().topology(topology).argument("--data").argument(data).http().start();
    let broker = broker.expect("the broker starts");
    let http = Http::new(broker.http());
    let mut publisher = open(&broker);
    publisher.call(1, "queue.declare", &[("queue", queue())]);
    publisher.wait_for(1, "queue.declare-ok").expect("a queue");
    let reload = |text: &str, wanted: &str| {
        folder.write("topology.yaml", text);
        signal(broker.pid(), "HUP").expect("the broker runs");
        broker.wait_for_log(|line| line.contains(wanted)).expect("it says so");
    };
    reload("limits: { memory_watermark_bytes: 1GiB, disk_free_bytes_min: 1048576GiB }\n", "disk alarm: ");
    publish(&mut publisher);
    let blocked = publisher.wait_for(0, "connection.blocked").expect("the publisher is told");
    assert_eq!(blocked, [Field::String(b"low on disk".to_vec())]);
    // What was set meanwhile stays as long as the file says the same as before.
    assert_eq!(http.put("/x/alarms", &json!({"memory_watermark_bytes": 3_u64 << 30})), 204);
    reload("limits: { memory_watermark_bytes: 1GiB }\n", "disk alarm is over");
    publisher.wait_for(0, "connection.unblocked").expect("the publisher is told");
    assert_eq!(http.get("/nodes")[0]["mem_limit"], json!(3_u64 << 30));
    reload("limits: { memory_watermark_bytes: 2GiB }\n", "\"watermark_bytes\":2147483648");
    assert_eq!(http.get("/nodes")[0]["mem_limit"], json!(2_u64 << 30));
    let log = broker.log();
    assert!(!log.iter().any(|line| line.contains("takes a restart")), "{log:?}");
}

fn open(broker: &BrokerProcess) -> Connection {
    let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
    connection.login(&Login::guest("/")).expect("guest may log in");
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").expect("a channel");
    connection
}

fn queue() -> Field {
    Field::String(b"q".to_vec())
}

/// To the queue.
fn publish(publisher: &mut Connection) {
    let method = spec::by_name("basic.publish").expect("a method of the table");
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    fields[2] = queue();
    publisher.send_method(1, method, &fields, Some((Vec::new(), b"m".to_vec())));
}
