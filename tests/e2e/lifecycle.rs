//! Start and end of the broker as an operator sees them.

use std::process::Command;
use std::time::{Duration, Instant};
use tests::broker_process::{BrokerOptions, BrokerProcess, binary};
use tests::scenario::connection::{Connection, Login};
use tests::transport::{Received, Target};
use tests::wire::Field;

#[test]
fn sigterm_closes_clients_with_320_and_ends_well() {
    let broker = BrokerProcess::start();
    let mut connection = Connection::new(broker.target().connect().unwrap());
    connection.login(&Login::guest("/")).unwrap();
    let client = std::thread::spawn(move || {
        let fields = connection.wait_for(0, "connection.close").expect("the broker says goodbye");
        connection.call(0, "connection.close-ok", &[]);
        fields
    });
    let status = broker.terminate().expect("the broker ends in time");
    assert!(status.success(), "{status}");
    let fields = client.join().unwrap();
    assert_eq!(fields.first(), Some(&Field::Number(320)));
    let Some(Field::String(text)) = fields.get(1) else { panic!("a close has a text") };
    assert!(text.starts_with(b"CONNECTION_FORCED - "), "{}", String::from_utf8_lossy(text));
}

#[test]
fn port_that_is_taken_is_said_clearly() {
    let broker = BrokerProcess::start();
    let address = broker.address().to_string();
    let output = Command::new(binary().unwrap())
        .args(["--http", "off", "--metrics", "off", "--listen", &address])
        .output()
        .expect("the broker runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(errors.contains(&address) && errors.contains("--listen"), "{errors}");
}

#[test]
fn topology_with_mistakes_is_refused_with_all_of_them() {
    let folder = tests::temp::TempDir::new("mistakes");
    let path = folder.write(
        "topology.yaml",
        "vhosts:\n  /:\n    exchanges:\n      a: topic\n      b: fanout\n    bindings:\n      - b -> missing\n      - nowhere -> q\nlimit: {}\n",
    );
    let error = BrokerOptions::default().topology(&path).start().expect_err("it is refused");
    for part in ["topology.yaml:7:14", "topology.yaml:8:9", "topology.yaml:8:20", "topology.yaml:9:1", "'limits'"] {
        assert!(error.contains(part), "{part} is not in:\n{error}");
    }
}

/// Some clients have acks still on their way when they say connection.close (amqplib does). A broker that closes the socket
/// with those unread resets the connection, and the client may never see its close-ok.
#[test]
fn bytes_behind_connection_close_do_not_reset_the_socket() {
    let broker = BrokerProcess::start();
    let mut connection = Connection::new(broker.target().connect().unwrap());
    connection.login(&Login::guest("/")).unwrap();
    connection.call(0, "connection.close", &[]);
    connection.wait_for(0, "connection.close-ok").unwrap();
    let mut transport = connection.into_transport();
    // The broker has closed its side. A whole other connection later it would have forgotten the socket, if it did.
    let deadline = Instant::now() + Duration::from_secs(10);
    assert!(matches!(transport.receive(deadline), Ok(Received::Eof)), "close-ok is the last word");
    let mut other = Connection::new(broker.target().connect().unwrap());
    other.login(&Login::guest("/")).unwrap();
    let ack = [1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0xCE];
    for _ in 0..20 {
        transport.send(&ack).expect("the socket takes what comes late");
        other.call(1, "channel.open", &[]);
        other.wait_for(1, "channel.open-ok").unwrap();
        other.call(1, "channel.close", &[]);
        other.wait_for(1, "channel.close-ok").unwrap();
    }
}
