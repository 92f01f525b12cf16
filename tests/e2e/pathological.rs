//! Inputs that a sound client never sends in such amounts: each meets a limit that has a name, and costs a bounded amount of memory.

use std::path::Path;
use std::time::{Duration, Instant};

use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::scenario::connection::{Connection, Event, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::value::{Table, Value};
use tests::wire::{Field, Frame, spec};

const MIB: u64 = 1024 * 1024;
const DEADLINE: Duration = Duration::from_secs(10);

fn login(broker: &BrokerProcess, login: &Login) -> Connection {
    let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
    connection.login(login).expect("guest may log in");
    connection
}

fn open(broker: &BrokerProcess) -> Connection {
    let mut connection = login(broker, &Login::guest("/"));
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").expect("a channel");
    connection
}

fn string(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn resident_bytes(broker: &BrokerProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has a size");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    kib * 1024
}

/// Runs `disturb` and checks how much the broker has grown by it, and that others still are served.
fn check_growth(broker: &BrokerProcess, mib_max: u64, disturb: impl FnOnce()) {
    let mut before = open(broker);
    let resident = resident_bytes(broker);
    disturb();
    // What threads have freed goes back when they sleep.
    let deadline = Instant::now() + DEADLINE;
    loop {
        let grown = resident_bytes(broker).saturating_sub(resident) / MIB;
        if grown <= mib_max {
            break;
        }
        assert!(Instant::now() < deadline, "the broker grew by {grown} MiB, not {mib_max}");
        std::thread::yield_now();
    }
    before.barrier(1).expect("who was there before is served");
    open(broker).barrier(1).expect("who comes after is served");
}

fn close_reason(connection: &mut Connection) -> (u64, String) {
    let fields = connection.wait_for(0, "connection.close").expect("the broker says why");
    match &fields[..] {
        [Field::Number(code), Field::String(text), ..] => (*code, String::from_utf8_lossy(text).into_owned()),
        other => panic!("a close has a code and a text, not {other:?}"),
    }
}

#[test]
fn every_channel_number_can_be_open_at_a_time() {
    // limits.channel_max; semantics 17.3.
    let broker = BrokerProcess::with_topology("{limits: {channel_max: 65535}}");
    check_growth(&broker, 200, || {
        let mut connection = login(&broker, &Login { channel_max: 65_535, ..Login::guest("/") });
        for first in (1..=65_535_u16).step_by(500) {
            let channels = first..=first.saturating_add(499);
            for channel in channels.clone() {
                connection.call(channel, "channel.open", &[]);
            }
            for channel in channels {
                connection.wait_for(channel, "channel.open-ok").expect("a channel");
            }
        }
        connection.barrier(1).expect("the first channel works");
        connection.barrier(65_535).expect("the last channel works");
        connection.call(0, "connection.close", &[]);
        connection.wait_for(0, "connection.close-ok").expect("all of them are closed");
    });
}

/// `{a: {a: … }}`, or `{a: [[ … ]]}`.
fn nested(depth: usize, is_array: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..depth {
        let mut outer = if is_array { b"A".to_vec() } else { b"\x01aF".to_vec() };
        outer.extend((bytes.len() as u32).to_be_bytes());
        outer.extend(&bytes);
        bytes = outer;
    }
    if is_array {
        bytes.splice(0..0, *b"\x01a");
    }
    bytes
}

#[test]
fn tables_nested_ten_thousand_deep_are_refused() {
    // 64 levels; semantics 1.15.
    let broker = BrokerProcess::start();
    check_growth(&broker, 50, || {
        for is_array in [false, true] {
            let table = nested(10_000, is_array);
            let mut connection = open(&broker);
            let mut payload = b"\0\x32\0\x0a\0\0\x01q\0".to_vec();
            payload.extend((table.len() as u32).to_be_bytes());
            payload.extend(&table);
            connection.send_frame(1, 1, payload);
            let text = "SYNTAX_ERROR - malformed field table: field table is nested too deep (at most 64 levels)";
            assert_eq!(close_reason(&mut connection), (502, text.into()), "in arguments");

            let mut connection = open(&broker);
            connection.call(1, "basic.publish", &[("routing-key", string("q"))]);
            let mut header = b"\0\x3c\0\0\0\0\0\0\0\0\0\0\x20\0".to_vec();
            header.extend((table.len() as u32).to_be_bytes());
            header.extend(&table);
            connection.send_frame(2, 1, header);
            let text = "SYNTAX_ERROR - malformed properties in content header: headers: field table is nested too deep (at most 64 levels)";
            assert_eq!(close_reason(&mut connection), (502, text.into()), "in headers");
        }
    });
}

#[test]
fn announced_bodies_reserve_nothing() {
    // Semantics 6.6, 6.7.
    let broker = BrokerProcess::start();
    check_growth(&broker, 100, || {
        let mut connection = open(&broker);
        connection.call(1, "basic.publish", &[("routing-key", string("q"))]);
        connection.send_frame(2, 1, b"\0\x3c\0\0\0\0\0\0\x80\0\0\0\0\0".to_vec());
        let text = "FRAME_ERROR - content body size 2147483648 is above the maximum of 536870912 bytes";
        assert_eq!(close_reason(&mut connection), (501, text.into()), "two gigabytes");

        let mut connection = login(&broker, &Login::guest("/"));
        for channel in 1..=2000 {
            connection.call(channel, "channel.open", &[]);
            connection.wait_for(channel, "channel.open-ok").expect("a channel");
            connection.call(channel, "basic.publish", &[("routing-key", string("q"))]);
            connection.send_frame(2, channel, b"\0\x3c\0\0\0\0\0\0\x01\0\0\0\0\0".to_vec());
        }
        connection.call(2001, "channel.open", &[]);
        connection.wait_for(2001, "channel.open-ok").expect("16 MiB on each of 2000 channels are announced, not there");
    });
}

#[test]
fn headers_of_64_kib_pass() {
    // Semantics 17.2: they fit in a frame.
    let broker = BrokerProcess::start();
    let mut connection = open(&broker);
    connection.call(1, "queue.declare", &[("queue", string("q"))]);
    connection.wait_for(1, "queue.declare-ok").unwrap();
    let headers: Table = (0..64).map(|n| (format!("h{n}").into_bytes(), Value::Text(vec![b'x'; 1024]))).collect();
    let method = spec::by_name("basic.publish").expect("a method of the table");
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    fields[2] = string("q");
    let content = (vec![("headers", Field::Table(headers.clone()))], b"body".to_vec());
    connection.send_method(1, method, &fields, Some(content));
    connection.call(1, "basic.get", &[("queue", string("q")), ("no-ack", Field::Bit(true))]);
    let Ok(Event::Method(got)) = connection.next(1) else { panic!("the message comes") };
    let (properties, body) = got.content.expect("get-ok has content");
    assert_eq!((properties, body), (vec![("headers", Field::Table(headers))], b"body".to_vec()));
}

#[test]
fn declaring_consuming_and_deleting_for_ever_leaves_nothing() {
    let broker = BrokerProcess::start();
    let round = |connection: &mut Connection| {
        connection.call(1, "queue.declare", &[("exclusive", Field::Bit(true))]);
        let fields = connection.wait_for(1, "queue.declare-ok").unwrap();
        let queue = fields.first().expect("a name").clone();
        connection.call(1, "queue.bind", &[("queue", queue.clone()), ("exchange", string("amq.topic"))]);
        connection.wait_for(1, "queue.bind-ok").unwrap();
        connection.call(1, "basic.consume", &[("queue", queue.clone())]);
        connection.wait_for(1, "basic.consume-ok").unwrap();
        connection.call(1, "basic.publish", &[("routing-key", queue.clone())]);
        connection.send_frame(2, 1, b"\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0".to_vec());
        connection.wait_for(1, "basic.deliver").unwrap();
        connection.call(1, "queue.delete", &[("queue", queue)]);
        connection.wait_for(1, "queue.delete-ok").unwrap();
        connection.wait_for(1, "basic.cancel").unwrap();
    };
    let mut connection = open(&broker);
    (0..1000).for_each(|_| round(&mut connection));
    // The tags of what nobody acks stay known, and nothing else of their queues does.
    check_growth(&broker, 4, || (0..3000).for_each(|_| round(&mut connection)));
}

#[test]
fn durable_queues_that_come_and_go_leave_nothing_in_memory_or_on_disk() {
    let folder = TempDir::new("come-and-go");
    let data = folder.path().join("data");
    let broker = BrokerOptions::default().argument("--data").argument(data.display().to_string()).start();
    let broker = broker.expect("the broker starts");
    let mut connection = open(&broker);
    let publish = spec::by_name("basic.publish").expect("a method of the table");
    let mut round = |number: u32| {
        let queue = string(&format!("q{number}"));
        connection.call(1, "queue.declare", &[("queue", queue.clone()), ("durable", Field::Bit(true))]);
        connection.wait_for(1, "queue.declare-ok").unwrap();
        let mut fields: Vec<Field> = publish.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
        fields[2] = queue.clone();
        let content = (vec![("delivery-mode", Field::Number(2))], vec![b'm'; 4096]);
        connection.send_method(1, publish, &fields, Some(content));
        connection.call(1, "basic.consume", &[("queue", queue.clone()), ("consumer-tag", string("t"))]);
        connection.wait_for(1, "basic.consume-ok").unwrap();
        let delivery = connection.wait_for(1, "basic.deliver").unwrap();
        connection.call(1, "basic.ack", &[("delivery-tag", delivery[1].clone())]);
        connection.call(1, "basic.cancel", &[("consumer-tag", string("t"))]);
        connection.wait_for(1, "basic.cancel-ok").unwrap();
        connection.call(1, "queue.delete", &[("queue", queue)]);
        connection.wait_for(1, "queue.delete-ok").unwrap();
    };
    (0..200).for_each(&mut round);
    let bytes = folder_bytes(&data);
    check_growth(&broker, 1, || (200..1000).for_each(&mut round));
    let grown = folder_bytes(&data).saturating_sub(bytes);
    assert!(grown < MIB, "the data folder grew by {grown} bytes");
}

/// What the files of a folder have.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("the folder is there").flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => folder_bytes(&entry.path()),
            // A file that has gone meanwhile has nothing.
            found => found.map_or(0, |found| found.len()),
        })
        .sum()
}

#[test]
fn requesters_that_come_and_go_leave_nothing() {
    let broker = BrokerProcess::start();
    let mut replier = open(&broker);
    replier.call(1, "queue.declare", &[("queue", string("rpc"))]);
    replier.wait_for(1, "queue.declare-ok").unwrap();
    let mut requester = open(&broker);
    let mut round = || {
        requester.call(2, "channel.open", &[]);
        requester.wait_for(2, "channel.open-ok").unwrap();
        requester.call(2, "basic.consume", &[("queue", string("amq.rabbitmq.reply-to")), ("no-ack", Field::Bit(true))]);
        requester.wait_for(2, "basic.consume-ok").unwrap();
        requester.call(2, "basic.publish", &[("routing-key", string("rpc"))]);
        let mut header = b"\0\x3c\0\0\0\0\0\0\0\0\0\0\x02\0\x15".to_vec();
        header.extend(b"amq.rabbitmq.reply-to");
        requester.send_frame(2, 2, header);
        requester.barrier(2).unwrap();
        replier.call(1, "basic.get", &[("queue", string("rpc")), ("no-ack", Field::Bit(true))]);
        let Ok(Event::Method(got)) = replier.next(1) else { panic!("the request comes") };
        let (properties, _) = got.content.expect("get-ok has content");
        let Some((_, name)) = properties.into_iter().next() else { panic!("it has a reply-to") };
        replier.call(1, "basic.publish", &[("routing-key", name)]);
        replier.send_frame(2, 1, b"\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0".to_vec());
        requester.wait_for(2, "basic.deliver").unwrap();
        requester.call(2, "channel.close", &[]);
        requester.wait_for(2, "channel.close-ok").unwrap();
    };
    (0..1000).for_each(|_| round());
    check_growth(&broker, 10, || (0..3000).for_each(|_| round()));
}

/// One method frame after another, as fast as they go, and then a barrier.
fn pour(connection: &mut Connection, frames: impl Iterator<Item = Vec<u8>>) {
    let mut bytes = Vec::new();
    for payload in frames {
        Frame { kind: 1, channel: 1, payload }.encode(&mut bytes);
        if bytes.len() > 256 * 1024 {
            connection.send_raw(&bytes);
            bytes.clear();
        }
    }
    connection.send_raw(&bytes);
}

#[test]
fn bindings_without_end_meet_a_limit() {
    // limits.bindings_per_queue_max
    let broker = BrokerProcess::with_topology("{limits: {bindings_per_queue_max: 1000}}");
    check_growth(&broker, 20, || {
        let mut connection = open(&broker);
        connection.call(1, "queue.declare", &[("queue", string("q"))]);
        connection.wait_for(1, "queue.declare-ok").unwrap();
        let bind = |number: u32| {
            let mut payload = b"\0\x32\0\x14\0\0\x01q\x0aamq.direct\x08".to_vec();
            payload.extend(format!("{number:08}").bytes());
            payload.extend(b"\x01\0\0\0\0");
            payload
        };
        pour(&mut connection, (0..50_000).map(bind));
        let fields = connection.wait_for(1, "channel.close").expect("so many are refused");
        let text = "PRECONDITION_FAILED - cannot bind queue 'q' in vhost '/': binding limit (1000) is reached";
        assert_eq!(fields.get(1), Some(&string(text)));
    });
}
