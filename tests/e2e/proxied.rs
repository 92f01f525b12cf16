//! Listeners behind a proxy that names its clients (semantics 2.10).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tests::broker_process::BrokerProcess;
use tests::wire::PROTOCOL_HEADER;

const TOPOLOGY: &str = "{listeners: {proxy_protocol: true}, limits: {handshake_timeout_secs: 1}}";

/// What the broker says to a connection that begins with `bytes`, until it waits or ends.
fn said(broker: &BrokerProcess, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(broker.address()).expect("the broker listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
    stream.write_all(bytes).expect("the broker reads");
    let mut said = Vec::new();
    // The handshake is not finished, so the broker ends it in time.
    match stream.read_to_end(&mut said) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => said,
    }
}

fn check_served(broker: &BrokerProcess, header: &[u8], peer: &str) {
    // A wrong login shows the peer in the log.
    let mut login = b"\x01\x00\x00\x00\x00\x00".to_vec();
    let method = b"\x00\x0a\x00\x0b\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\x07\x00no\x00bod\x05en_US";
    login.extend([method.len() as u8]);
    login.extend(method);
    login.push(0xCE);
    let answer = said(broker, &[header, &PROTOCOL_HEADER, &login].concat());
    assert!(String::from_utf8_lossy(&answer).contains("product"), "connection.start comes behind the header");
    let wanted = format!("\"peer\":\"{peer}");
    broker.wait_for_log(|line| line.contains("login refused") && line.contains(&wanted)).expect("the client is named");
}

#[test]
fn proxy_names_the_client_in_both_versions() {
    let broker = BrokerProcess::with_topology(TOPOLOGY);
    check_served(&broker, b"PROXY TCP4 192.0.2.7 192.0.2.2 4711 5672\r\n", "192.0.2.7:4711");
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x08\xc0\x00\x02\x02\x12\x67\x16\x28";
    check_served(&broker, binary, "192.0.2.8:4711");
    check_served(&broker, b"PROXY UNKNOWN\r\n", "127.0.0.1:");
}

#[test]
fn client_that_comes_without_the_proxy_is_refused() {
    let broker = BrokerProcess::with_topology(TOPOLOGY);
    assert_eq!(said(&broker, &PROTOCOL_HEADER), b"");
    broker.wait_for_log(|line| line.contains("no PROXY header comes first")).expect("the refusal is logged");
    assert_eq!(said(&broker, b"PROXY"), b"");
    broker.wait_for_log(|line| line.contains("no PROXY header came in time")).expect("the time-out is logged");
}

#[test]
fn header_of_a_proxy_is_no_amqp_where_none_is_expected() {
    let broker = BrokerProcess::start();
    let answer = said(&broker, b"PROXY TCP4 192.0.2.7 192.0.2.2 4711 5672\r\n");
    assert_eq!(answer, PROTOCOL_HEADER);
}
