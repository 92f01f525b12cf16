//! The handshake: who is let in, what is shown of it, and peers that speak something else, nothing, or end in the middle.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use tests::certificates::{Asked, Authority, connect};
use tests::http::Http;
use tests::wire::{Field, PROTOCOL_HEADER};

use super::{Bench, call, round_trip, text};

/// All that a peer hears that says `bytes` on the port for TLS.
fn said(bench: &Bench, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(bench.amqps).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut said = Vec::new();
    // What is left unread resets.
    let _ = stream.read_to_end(&mut said);
    said
}

#[test]
fn clients_work_in_both_versions_and_are_shown_with_what_was_agreed_on() {
    let bench = Bench::new("", "");
    let http = Http::new(bench.broker.http());
    for (version, protocol, exchange) in [(&TLS12, "tlsv1.2", "ecdhe_ecdsa"), (&TLS13, "tlsv1.3", "any")] {
        let mut connection = bench.login(&bench.authority.trusting_with(None, &[version])).unwrap();
        call(&mut connection, "channel.open", &[]);
        call(&mut connection, "queue.declare", &[("queue", text("q"))]);
        for size in [0, 1, 16_384, 3_000_000] {
            round_trip(&mut connection, "q", size);
        }
        let shown = http.get("/connections");
        let [shown] = shown.as_array().unwrap().as_slice() else { panic!("one connection: {shown}") };
        assert_eq!(shown["ssl"], true);
        assert_eq!(shown["ssl_protocol"], protocol);
        assert_eq!(shown["ssl_key_exchange"], exchange);
        assert!(["aes_256_gcm", "aes_128_gcm"].contains(&shown["ssl_cipher"].as_str().unwrap()), "{shown}");
        assert_eq!(shown["ssl_hash"], "aead");
        assert_eq!(shown["peer_cert_subject"], serde_json::Value::Null);
        connection.call(0, "connection.close", &[]);
        connection.wait_for(0, "connection.close-ok").unwrap();
        // Gone before the next one is looked at.
        while http.get("/connections") != serde_json::json!([]) {}
    }
}

#[test]
fn listeners_are_shown_with_their_protocol() {
    let bench = Bench::new("", "");
    let http = Http::new(bench.broker.http());
    let overview = http.get("/overview");
    let listeners = overview["listeners"].as_array().unwrap();
    let found = listeners.iter().find(|listener| listener["port"] == bench.amqps.port()).unwrap();
    assert_eq!((&found["protocol"], &found["tls"]), (&"amqp/ssl".into(), &true.into()));
    let plain = listeners.iter().find(|listener| listener["protocol"] == "amqp").unwrap();
    assert_eq!(plain["tls"], false);
    for path in
        ["/health/checks/protocol-listener/amqps", &format!("/health/checks/port-listener/{}", bench.amqps.port())]
    {
        assert_eq!(http.get(path)["status"], "ok", "{path}");
    }
}

#[test]
fn a_broker_without_plain_listeners_is_ready() {
    let bench = Bench::new("", "");
    // The harness listens in plain, too; what is asked is whether AMQP of any kind does.
    let http = Http::new(bench.broker.http());
    assert_eq!(http.get("/health/checks/ready-to-serve-clients")["status"], "ok");
}

#[test]
fn who_trusts_others_does_not_come_in() {
    let bench = Bench::new("", "");
    let others = Authority::new("the others");
    bench.login(&others.trusting(None)).map(|_| ()).unwrap_err();
    bench.logged(&["refused connection", "the TLS handshake failed", "UnknownCA"]);
}

#[test]
fn an_older_version_than_the_oldest_is_refused() {
    let bench = Bench::new(", version_min: 1.3", "");
    bench.login(&bench.authority.trusting_with(None, &[&TLS12])).map(|_| ()).unwrap_err();
    bench.logged(&["refused connection", "the TLS handshake failed"]);
    bench.login(&bench.authority.trusting(None)).unwrap();
}

#[test]
fn client_without_tls_on_the_port_for_tls_is_refused_and_named() {
    let bench = Bench::new("", "");
    assert_eq!(said(&bench, &PROTOCOL_HEADER), b"");
    bench.logged(&["refused connection", "AMQP without TLS on a port for TLS"]);
    let answer = String::from_utf8(said(&bench, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("use https"), "{answer}");
    bench.logged(&["refused connection", "plain HTTP on a port for TLS"]);
    assert_eq!(said(&bench, b"\0\x01\x02rubbish"), b"");
    bench.logged(&["refused connection", "something that is not TLS on a port for TLS"]);
}

#[test]
fn client_with_tls_on_the_plain_port_is_refused_and_named() {
    let bench = Bench::new("", "");
    let mut stream = connect(bench.broker.address(), &bench.authority.trusting(None));
    stream.write_all(&PROTOCOL_HEADER).unwrap_err();
    bench.logged(&["refused a TLS client"]);
}

#[test]
fn rubbish_within_a_handshake_ends_it() {
    let bench = Bench::new("", "");
    // A record of the right kind that is too long, and one with nothing of a handshake in it.
    for bytes in [&b"\x16\x03\x01\xff\xff\x01"[..], b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"] {
        let answer = said(&bench, bytes);
        assert_eq!(answer.first(), Some(&0x15), "an alert to {bytes:?}: {answer:?}");
    }
    bench.logged(&["refused connection", "the TLS handshake failed"]);
    bench.login(&bench.authority.trusting(None)).unwrap();
}

#[test]
fn handshake_that_does_not_end_is_cut_and_a_health_check_is_no_warning() {
    let bench = Bench::new("", "limits: { handshake_timeout_secs: 1 }");
    assert_eq!(said(&bench, b"\x16\x03\x01"), b"");
    bench.logged(&["refused connection", "was not over in time"]);
    drop(TcpStream::connect(bench.amqps).unwrap());
    let line = bench.logged(&["connection closed without a byte"]);
    assert!(line.contains("DEBUG"), "{line}");
}

#[test]
fn end_without_a_word_is_an_end() {
    let bench = Bench::new("", "");
    let config = bench.authority.trusting(None);
    let mut connection = bench.login(&config).unwrap();
    call(&mut connection, "channel.open", &[]);
    let declare = [("queue", text("mine")), ("exclusive", Field::Bit(true))];
    call(&mut connection, "queue.declare", &declare);
    // The socket goes without close_notify, as those of many clients do.
    drop(connection);
    bench.logged(&["client closed the socket without connection.close"]);
    let mut next = bench.login(&config).unwrap();
    call(&mut next, "channel.open", &[]);
    // Whoever is gone holds nothing any more.
    call(&mut next, "queue.declare", &declare);
}

#[test]
fn close_notify_ends_the_connection_after_its_answer() {
    let bench = Bench::new("", "");
    let mut stream = connect(bench.amqps, &bench.authority.trusting(None));
    stream.write_all(&PROTOCOL_HEADER).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut said = Vec::new();
    // The other direction is closed in order, too, so this is no error.
    stream.read_to_end(&mut said).unwrap();
    assert!(said.windows(7).any(|window| window == b"product"), "connection.start came: {} bytes", said.len());
}

#[test]
fn client_that_reads_slowly_gets_everything() {
    let bench = Bench::new("", "");
    let config = bench.authority.trusting(None);
    let (mut publisher, mut consumer) = (bench.login(&config).unwrap(), bench.login(&config).unwrap());
    for connection in [&mut publisher, &mut consumer] {
        call(connection, "channel.open", &[]);
    }
    call(&mut publisher, "queue.declare", &[("queue", text("q"))]);
    call(&mut consumer, "basic.consume", &[("queue", text("q")), ("no-ack", Field::Bit(true))]);
    // Far more than sockets and TLS hold, so the broker meets a socket that takes nothing.
    let bodies = 40;
    for index in 0..bodies {
        let method = tests::wire::spec::by_name("basic.publish").unwrap();
        let fields = tests::wire::arguments(method, &[("routing-key", text("q"))]);
        publisher.send_method(1, method, &fields, Some((Vec::new(), vec![index; 500_000])));
    }
    publisher.barrier(1).unwrap();
    for index in 0..bodies {
        match consumer.next(1).unwrap() {
            tests::scenario::connection::Event::Method(incoming) if incoming.method.name == "basic.deliver" => {
                assert!(incoming.content.unwrap().1 == vec![index; 500_000], "delivery {index}");
            }
            other => panic!("{other:?} instead of delivery {index}"),
        }
    }
}

#[test]
fn proxy_header_comes_before_tls() {
    let bench = Bench::new("", "");
    drop(bench);
    let authority = Authority::new("the authority");
    authority.install(&authority.sign(&Asked { common_name: "x", ..Asked::default() }));
    let rest = "listeners: { amqps: '127.0.0.1:0', proxy_protocol: true }";
    let broker = super::start(&authority, "", rest).unwrap();
    let mut stream = TcpStream::connect(broker.address_in_log("listening with TLS").unwrap()).unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.2 4711 5671\r\n").unwrap();
    stream.write_all(&PROTOCOL_HEADER).unwrap();
    broker
        .wait_for_log(|line| line.contains("192.0.2.7:4711") && line.contains("AMQP without TLS"))
        .expect("who comes behind the proxy is named");
}
