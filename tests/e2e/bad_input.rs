//! What strangers send to the port: each gets its answer and a log line, and a client at work notices nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tests::broker_process::BrokerProcess;
use tests::scenario::connection::{Connection, Event, Login};
use tests::transport::Target;
use tests::wire::{Field, PROTOCOL_HEADER};

const TOPOLOGY: &str = "{limits: {handshake_timeout_secs: 1}}";

/// Sends `bytes` and returns everything that comes until the broker closes.
fn answer(broker: &BrokerProcess, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(broker.address()).expect("the broker listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The broker may have closed already; what it said is what counts.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("the broker does not close: {error}; it said {answer:02x?}"),
    }
}

fn login(broker: &BrokerProcess) -> Connection {
    let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
    connection.login(&Login::guest("/")).expect("guest may log in");
    connection
}

/// Runs `disturb` between two uses of a connection that was there before, and of one that comes after.
fn check_undisturbed(broker: &BrokerProcess, disturb: impl FnOnce()) {
    let mut before = login(broker);
    before.call(1, "channel.open", &[]);
    before.wait_for(1, "channel.open-ok").unwrap();
    before.call(1, "queue.declare", &[("queue", Field::String(b"q".to_vec()))]);
    before.wait_for(1, "queue.declare-ok").unwrap();
    disturb();
    before.call(1, "queue.declare", &[("queue", Field::String(b"q".to_vec())), ("passive", Field::Bit(true))]);
    before.wait_for(1, "queue.declare-ok").unwrap();
    let mut after = login(broker);
    after.call(0, "connection.close", &[]);
    after.wait_for(0, "connection.close-ok").unwrap();
}

fn check_refused(bytes: &[u8], log_part: &str) {
    let broker = BrokerProcess::with_topology(TOPOLOGY);
    check_undisturbed(&broker, || assert_eq!(answer(&broker, bytes), PROTOCOL_HEADER));
    broker
        .wait_for_log(|line| line.contains("\"WARN\"") && line.contains(log_part))
        .expect("a log line says what came");
}

#[test]
fn garbage_is_answered_with_the_protocol_header() {
    check_refused(b"\x00\x01\x02\x03garbage and more", "refused");
}

#[test]
fn tls_hello_is_refused_and_named_in_the_log() {
    let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];
    hello.resize(517, 0x5A);
    check_refused(&hello, "TLS");
}

#[test]
fn http_request_is_refused_and_named_in_the_log() {
    check_refused(b"GET /api/overview HTTP/1.1\r\nHost: broker\r\n\r\n", "HTTP");
}

#[test]
fn wrong_amqp_version_is_refused() {
    check_refused(b"AMQP\x00\x01\x00\x00", "refused");
}

#[test]
fn frame_before_the_protocol_header_is_refused() {
    check_refused(&[1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 11, 0xCE], "refused");
}

#[test]
fn methods_before_login_end_the_connection_without_effect() {
    let broker = BrokerProcess::with_topology(TOPOLOGY);
    check_undisturbed(&broker, || {
        let mut bytes = PROTOCOL_HEADER.to_vec();
        // channel.open on channel 1 where start-ok is due.
        bytes.extend([1, 0, 1, 0, 0, 0, 5, 0, 20, 0, 10, 0, 0xCE]);
        let answer = answer(&broker, &bytes);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("product"), "connection.start comes first");
        assert!(!text.contains("\u{0}\u{14}\u{0}\u{b}"), "no channel is opened");
    });
}

#[test]
fn oversized_frame_before_login_ends_the_connection() {
    let broker = BrokerProcess::with_topology(TOPOLOGY);
    check_undisturbed(&broker, || {
        let mut bytes = PROTOCOL_HEADER.to_vec();
        // Two gigabytes are announced; a broker that reserved them would be easy to kill.
        bytes.extend([1, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF]);
        bytes.resize(100_000, 0x5A);
        answer(&broker, &bytes);
    });
}

#[test]
fn oversized_frame_after_login_is_a_frame_error() {
    let broker = BrokerProcess::start();
    check_undisturbed(&broker, || {
        let mut connection = login(&broker);
        connection.send_raw(&[3, 0, 1, 0x7F, 0xFF, 0xFF, 0xFF]);
        let fields = connection.wait_for(0, "connection.close").expect("the broker says why");
        assert_eq!(fields.first(), Some(&Field::Number(501)));
    });
    broker.wait_for_log(|line| line.contains("FRAME_ERROR")).expect("the error is logged");
}

#[test]
fn wrong_password_is_logged_with_its_reason() {
    let broker = BrokerProcess::start();
    check_undisturbed(&broker, || {
        let mut connection = Connection::new(broker.target().connect().unwrap());
        let login = Login { password: "wrong".to_owned(), ..Login::guest("/") };
        connection.login(&login).expect_err("the login is refused");
    });
    let line = broker.wait_for_log(|line| line.contains("login refused")).expect("the refusal is logged");
    assert!(line.contains("guest") && !line.contains("wrong\""), "the user is named, the password is not: {line}");
}

#[test]
fn unknown_vhost_is_logged() {
    let broker = BrokerProcess::start();
    check_undisturbed(&broker, || {
        let mut connection = Connection::new(broker.target().connect().unwrap());
        connection.login(&Login::guest("nowhere")).expect_err("the vhost is unknown");
    });
    broker.wait_for_log(|line| line.contains("vhost nowhere not found")).expect("the refusal is logged");
}

#[test]
fn silent_client_is_cut_after_the_handshake_timeout() {
    let broker = BrokerProcess::with_topology(TOPOLOGY);
    check_undisturbed(&broker, || assert_eq!(answer(&broker, b""), b""));
    check_undisturbed(&broker, || {
        // As silent, but after the protocol header.
        let said = answer(&broker, &PROTOCOL_HEADER);
        assert!(said.len() > 8, "connection.start is all that comes");
    });
    broker.wait_for_log(|line| line.contains("handshake")).expect("the time-out is logged");
}

#[test]
fn connection_without_a_byte_is_no_news() {
    let broker = BrokerProcess::start();
    drop(TcpStream::connect(broker.address()).expect("the broker listens"));
    let line = broker.wait_for_log(|line| line.contains("without a byte")).expect("it is logged somewhere");
    assert!(line.contains("\"DEBUG\""), "load balancers do this every second: {line}");
}

#[test]
fn client_that_vanishes_in_the_middle_of_a_message_leaves_nothing() {
    let broker = BrokerProcess::start();
    check_undisturbed(&broker, || {
        let mut connection = login(&broker);
        connection.call(1, "channel.open", &[]);
        connection.wait_for(1, "channel.open-ok").unwrap();
        connection.call(1, "basic.publish", &[("routing-key", Field::String(b"q".to_vec()))]);
        connection.send_raw(&[2, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0xCE, 3, 0, 1]);
        drop(connection);
    });
    let mut connection = login(&broker);
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").unwrap();
    connection.call(1, "queue.declare", &[("queue", Field::String(b"q".to_vec()))]);
    let fields = connection.wait_for(1, "queue.declare-ok").unwrap();
    assert_eq!(fields.get(1), Some(&Field::Number(0)), "no half message is in the queue");
}

#[test]
fn flood_of_connections_leaves_room_for_others() {
    let broker = BrokerProcess::with_topology(TOPOLOGY);
    check_undisturbed(&broker, || {
        let mut strangers: Vec<TcpStream> =
            (0..300).map(|_| TcpStream::connect(broker.address()).expect("the broker accepts")).collect();
        for stranger in strangers.iter_mut().step_by(3) {
            let _ = stranger.write_all(&PROTOCOL_HEADER);
        }
        for stranger in strangers.iter_mut().skip(1).step_by(3) {
            let _ = stranger.write_all(b"nonsense");
        }
        // All of them still hang on while somebody else logs in and works.
        let mut connection = login(&broker);
        connection.call(1, "channel.open", &[]);
        connection.wait_for(1, "channel.open-ok").unwrap();
    });
}

#[test]
fn connection_limit_refuses_the_next_one_in_words() {
    let broker = BrokerProcess::with_topology("{limits: {connections_max: 2}}");
    let _first = login(&broker);
    let _second = login(&broker);
    let mut third = Connection::new(broker.target().connect().unwrap());
    let error = third.login(&Login::guest("/")).expect_err("the third is one too many");
    assert!(error.contains("530") && error.contains("connection limit (2) is reached"), "{error}");
    // That comes before anything about the vhost (semantics 3.10).
    let mut third = Connection::new(broker.target().connect().unwrap());
    let error = third.login(&Login::guest("nowhere")).expect_err("the third is one too many anywhere");
    assert!(error.contains("connection limit (2) is reached"), "{error}");
}

#[test]
fn random_frames_never_end_the_broker() {
    let broker = BrokerProcess::start();
    check_undisturbed(&broker, || {
        // A fixed linear congruence: the bytes are the same in every run.
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        for _ in 0..100 {
            let mut connection = login(&broker);
            connection.call(1, "channel.open", &[]);
            connection.wait_for(1, "channel.open-ok").unwrap();
            let payload: Vec<u8> = (0..random()).map(|_| random()).collect();
            let kind = [1, 1, 2, 3, 8, 0][usize::from(random()) % 6];
            connection.send_frame(kind, u16::from(random() & 1), payload);
            connection.call(0, "connection.close", &[]);
            // Either answer is right; silence and a dead broker are not.
            match connection.next(0).expect("what the broker says can be read") {
                Event::Method(_) | Event::Eof | Event::Heartbeat => {}
                Event::Nothing => panic!("the broker says nothing"),
            }
        }
    });
}
