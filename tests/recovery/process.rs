//! The same with the broker as a process and its log on disk.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tests::broker_process::{BrokerOptions, BrokerProcess, binary, signal};
use tests::scenario::connection::{Connection, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::{Field, spec};

const PATIENCE: Duration = Duration::from_secs(20);

/// A broker whose topology names the data folder.
fn start(topology: &Path) -> BrokerProcess {
    BrokerOptions::default().topology(topology).start().expect("the broker starts")
}

fn open(broker: &BrokerProcess) -> Connection {
    let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
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

fn declare(connection: &mut Connection, queue: &str, more: &[(&str, Field)]) {
    let fields = [&[("queue", text(queue)), ("durable", Field::Bit(true))], more].concat();
    connection.call(1, "queue.declare", &fields);
    connection.wait_for(1, "queue.declare-ok").expect("the queue is declared");
}

/// Publishes a persistent message and waits for its confirm.
fn publish(connection: &mut Connection, queue: &str) {
    let method = spec::by_name("basic.publish").expect("a method of the table");
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    fields[2] = text(queue);
    let properties = vec![("delivery-mode", Field::Number(2))];
    connection.send_method(1, method, &fields, Some((properties, b"m".to_vec())));
    connection.wait_for(1, "basic.ack").expect("the message is confirmed");
}

/// Ready messages of a queue, or the code of the refusal.
fn ready(connection: &mut Connection, queue: &str) -> Result<u64, u64> {
    connection.call(1, "queue.declare", &[("queue", text(queue)), ("passive", Field::Bit(true))]);
    match connection.wait_for(1, "queue.declare-ok") {
        Ok(fields) => match fields.get(1) {
            Some(Field::Number(ready)) => Ok(*ready),
            other => panic!("declare-ok counts messages, not {other:?}"),
        },
        Err(error) if error.contains("404") => Err(404),
        Err(error) => panic!("{error}"),
    }
}

/// What `broker store stats` prints.
fn stats(data: &Path) -> String {
    let output = Command::new(binary().expect("the broker is built"))
        .args(["store", "stats"])
        .arg(data)
        .output()
        .expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_data_folder_of_the_file_is_made_beside_it_and_found_again() {
    let folder = TempDir::new("data-of-the-file");
    let topology = folder.write("topology.yaml", "storage: { data: kept/here }\n");
    let broker = start(&topology);
    let mut connection = open(&broker);
    declare(&mut connection, "q", &[]);
    publish(&mut connection, "q");
    drop(broker);
    assert!(folder.path().join("kept/here").is_dir());
    let broker = start(&topology);
    assert_eq!(ready(&mut open(&broker), "q"), Ok(1));
    drop(broker);

    let other = folder.path().join("other");
    let broker = BrokerOptions::default()
        .topology(&topology)
        .argument("--data")
        .argument(other.display().to_string())
        .start()
        .expect("the broker starts");
    assert_eq!(ready(&mut open(&broker), "q"), Err(404), "the command line wins");
}

#[test]
fn exclusive_queues_of_a_killed_broker_are_gone() {
    let folder = TempDir::new("exclusive");
    let topology = folder.write("topology.yaml", "storage: { data: data }\n");
    let broker = start(&topology);
    let mut connection = open(&broker);
    declare(&mut connection, "exclusive", &[("exclusive", Field::Bit(true))]);
    declare(&mut connection, "kept", &[]);
    connection.call(1, "queue.bind", &[("queue", text("exclusive")), ("exchange", text("amq.fanout"))]);
    connection.wait_for(1, "queue.bind-ok").expect("the queue is bound");
    publish(&mut connection, "exclusive");
    publish(&mut connection, "kept");
    // Its client is still there when the broker is killed.
    drop(broker);
    drop(connection);
    let stored = stats(&folder.path().join("data"));
    let broker = start(&topology);
    assert_eq!(ready(&mut open(&broker), "exclusive"), Err(404));
    assert_eq!(ready(&mut open(&broker), "kept"), Ok(1));
    assert!(stored.contains(" 1 in 1 queues"), "its message was never stored: {stored}");
    drop(broker);
}

#[test]
fn what_was_settled_before_a_clean_end_does_not_come_back() {
    let folder = TempDir::new("clean-end");
    let topology = folder.write("topology.yaml", "storage: { data: data }\n");
    let broker = start(&topology);
    let mut connection = open(&broker);
    declare(&mut connection, "q", &[]);
    for _ in 0..3 {
        publish(&mut connection, "q");
    }
    for delivery_tag in 1..=2 {
        connection.call(1, "basic.get", &[("queue", text("q"))]);
        connection.wait_for(1, "basic.get-ok").expect("a message");
        connection.call(1, "basic.ack", &[("delivery-tag", Field::Number(delivery_tag))]);
    }
    // A third is unacked when the broker ends (semantics 27.1).
    connection.call(1, "basic.get", &[("queue", text("q"))]);
    connection.wait_for(1, "basic.get-ok").expect("a message");
    let client = std::thread::spawn(move || {
        connection.wait_for(0, "connection.close").expect("the broker says goodbye");
        connection.call(0, "connection.close-ok", &[]);
    });
    assert!(broker.terminate().expect("the broker ends in time").success());
    client.join().expect("the client closes");
    let broker = start(&topology);
    assert_eq!(ready(&mut open(&broker), "q"), Ok(1));
}

#[test]
fn a_start_that_is_told_to_stop_while_it_recovers_does_so() {
    let folder = TempDir::new("stopped-start");
    // Whoever opens it to read waits until somebody writes, which nobody does.
    let checkpoint = folder.path().join("checkpoint-0000000001");
    assert!(Command::new("mkfifo").arg(&checkpoint).status().expect("mkfifo runs").success());
    for name in ["TERM", "INT"] {
        let mut broker = Command::new(binary().expect("the broker is built"))
            .args(["--listen", "127.0.0.1:0", "--http", "off", "--metrics", "off", "--data"])
            .arg(folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        let log = BufReader::new(broker.stderr.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let line = lines.recv_timeout(PATIENCE).expect("a line of the log");
        assert!(line.contains("recovering the store"), "{line}");
        signal(broker.id(), name).expect("the broker runs");
        let last = loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => assert!(line.contains("told to stop"), "{line}"),
                Err(error) => break error,
            }
        };
        if last == mpsc::RecvTimeoutError::Timeout {
            let _ = broker.kill();
        }
        // Its log ends with it.
        assert_eq!(broker.wait().expect("a child").code(), Some(0), "SIG{name}");
    }
}
