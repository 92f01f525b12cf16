//! `broker bench` against this broker and against a RabbitMQ; and against brokers that lose and reorder, which it has to find out.

use std::net::{IpAddr, Ipv4Addr};

use rcgen::SanType;
use serde_json::Value;
use tests::broker_process::{BrokerOptions, BrokerProcess, binary};
use tests::certificates::{Asked, Authority};
use tests::oracle::{Definitions, Oracle};
use tests::temp::TempDir;

use super::{Said, finish};

fn bench(url: &str, words: &[&str]) -> Said {
    let mut command = std::process::Command::new(binary().expect("the broker is built"));
    command.env_clear().args(["bench", "--url", url, "--format", "json"]).args(words);
    finish(&mut command, "")
}

/// The result of a run that has to succeed.
fn measured(url: &str, words: &[&str]) -> Value {
    let said = bench(url, words);
    assert_eq!(said.code, 0, "{words:?}: {said:?}");
    row(&said)
}

fn row(said: &Said) -> Value {
    let rows: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    rows[0].clone()
}

fn url(broker: &BrokerProcess) -> String {
    format!("amqp://{}", broker.address())
}

/// Every scenario with small numbers; what is asked for is what is measured.
fn check_all(url: &str, pid: &str) {
    let pid = &["--broker-pid", pid];
    let all = |words: &[&str]| measured(url, &[words, pid].concat());
    let flow = ["-n", "1000", "-p", "2", "-q", "3", "-c", "4", "--size", "100"];
    let found = all(&[&["throughput"][..], &flow].concat());
    assert_eq!(
        (&found["published"], &found["delivered"], &found["verdict"]),
        (&1000.into(), &1000.into(), &"ok".into())
    );
    assert!(
        found["published_per_sec"].as_f64() > Some(0.0) && found["broker_memory_mib"].as_f64() > Some(0.1),
        "{found}"
    );
    let safe = ["--persistent", "--confirm-window", "50", "--ack-every", "10", "--prefetch", "20", "--threads", "2"];
    let found = all(&[&["throughput"][..], &flow, &safe].concat());
    assert_eq!((&found["delivered"], &found["verdict"]), (&1000.into(), &"ok".into()));
    // More than a frame, less than a stamp, and nothing.
    for (size, count) in [("300000", 20), ("7", 500), ("0", 500)] {
        let found = all(&["throughput", "-n", &count.to_string(), "--size", size, "--inflight", "100"]);
        assert_eq!((&found["delivered"], &found["verdict"]), (&count.into(), &"ok".into()), "{size}");
    }
    let found = all(&["latency", "-n", "200", "--rate", "1000", "--confirm-window", "100"]);
    assert_eq!((&found["delivered"], &found["verdict"]), (&200.into(), &"ok".into()));
    let micros = |name: &str| found[name].as_f64().unwrap();
    assert!(micros("latency_p50_us") > 1.0 && micros("latency_p50_us") <= micros("latency_max_us"), "{found}");
    assert!(micros("confirm_p50_us") > 1.0 && micros("sent_late_p50_us") >= 0.0, "{found}");
    let found = all(&["backlog", "-n", "2000", "--ack-every", "1", "--prefetch", "50"]);
    assert_eq!((&found["published"], &found["delivered"]), (&2000.into(), &2000.into()));
    assert_eq!(found["verdict"], "ok");
    for kind in ["direct", "fanout", "topic", "headers"] {
        let found = all(&["routing", "-t", kind, "-b", "30", "-q", "3", "-n", "300"]);
        let copies = if kind == "fanout" { 900 } else { 300 };
        assert_eq!((&found["delivered"], &found["verdict"]), (&copies.into(), &"ok".into()), "{kind}");
        assert_eq!(found["bindings"], if kind == "fanout" { 3 } else { 30 });
    }
    for consume in ["own-queue", "shared-queue", "nothing"] {
        let found = all(&["connections", "-n", "20", "--consume", consume, "--hold", "0.1"]);
        assert!(found["opened_per_sec"].as_f64() > Some(0.0), "{found}");
    }
    for what in ["session", "connection", "channel", "queue", "durable-queue", "binding"] {
        let found = all(&["churn", what, "-n", "20", "--clients", "2"]);
        assert_eq!((&found["cycles"], &found["what"]), (&20.into(), &what.into()));
    }
}

#[test]
fn every_scenario_measures_this_broker_and_leaves_nothing_behind() {
    let broker = BrokerOptions::default().http().start().unwrap();
    check_all(&url(&broker), &broker.pid().to_string());
    let management = format!("http://{}", broker.http());
    let found = measured(&url(&broker), &["connections", "-n", "200", "--hold", "0.1", "--management", &management]);
    assert!(found["management_memory_kib_per_connection"].is_number(), "{found}");
    let http = tests::http::Http::new(broker.http());
    assert_eq!(http.get("/queues"), serde_json::json!([]));
    let exchanges = http.get("/exchanges");
    let names = exchanges.as_array().unwrap().iter().filter_map(|exchange| exchange["name"].as_str());
    assert!(names.into_iter().all(|name| !name.starts_with("bench-")), "{exchanges}");
}

#[test]
fn every_scenario_measures_a_rabbitmq() {
    let oracle = Oracle::start(&Definitions::default()).unwrap();
    // Its own process will do: a node is not asked for its number here.
    check_all(&format!("amqp://{}", oracle.address()), &std::process::id().to_string());
    let queues = oracle.ctl(&["list_queues", "name"]).unwrap();
    // The heading is there only sometimes.
    assert!(queues.lines().all(|line| line.trim().is_empty() || line == "name"), "{queues}");
}

/// A broker with this hook for every message.
fn broker_with_hook(script: &str) -> (BrokerProcess, TempDir) {
    let folder = TempDir::new("bench");
    folder.write("fault.lua", script);
    let file = folder.write("topology.yaml", "vhosts: { /: { hooks: [fault.lua] } }\n");
    (BrokerOptions::default().topology(file).start().unwrap(), folder)
}

#[test]
fn a_broker_that_loses_messages_is_found_out() {
    let (broker, _folder) = broker_with_hook(
        "return { on_publish = function() if broker.shared.add('n', 1, 600) % 100 == 0 then return false end end }\n",
    );
    let words = ["throughput", "-n", "1000", "--drain-timeout", "1", "--confirm-window", "100"];
    let said = bench(&url(&broker), &words);
    assert_eq!((said.code, &row(&said)["verdict"]), (1, &"10 lost".into()), "{said:?}");
    // Without stamps they are missed by their number.
    let said = bench(&url(&broker), &[&words[..], &["--size", "5"]].concat());
    assert_eq!((said.code, &row(&said)["verdict"]), (1, &"10 lost".into()), "{said:?}");
}

#[test]
fn a_broker_that_refuses_messages_is_found_out() {
    let (broker, _folder) = broker_with_hook(
        "return { on_publish = function() if broker.shared.add('n', 1, 600) % 100 == 0 then broker.reject('no') end end }\n",
    );
    let said = bench(&url(&broker), &["throughput", "-n", "1000", "--drain-timeout", "1", "--confirm-window", "100"]);
    assert_eq!((said.code, &row(&said)["verdict"]), (1, &"10 refused".into()), "{said:?}");
}

#[test]
fn a_broker_that_reorders_messages_is_found_out() {
    let (broker, _folder) = broker_with_hook(
        "return { on_publish = function(msg) if broker.shared.add('n', 1, 600) == 50 then msg.priority = 1 end end }\n",
    );
    let said = bench(&url(&broker), &["backlog", "-n", "100", "--argument", "x-max-priority=1"]);
    // The message overtakes all that came before, and each of these then comes behind it.
    assert_eq!((said.code, &row(&said)["verdict"]), (1, &"49 out of order".into()), "{said:?}");
}

#[test]
fn a_tls_connection_trusts_what_it_is_told_to_trust() {
    let authority = Authority::new("the authority");
    let names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    authority.install(&authority.sign(&Asked { common_name: "broker", names, ..Asked::default() }));
    let file = authority.write("topology.yaml", &authority.topology("", "listeners: { amqps: '127.0.0.1:0' }\n"));
    let broker = BrokerOptions::default().topology(file).start().unwrap();
    let url = format!("amqps://{}", broker.address_in_log("listening with TLS").unwrap());
    let trusted = authority.path("ca.pem").display().to_string();
    for words in
        [&["throughput", "-n", "2000", "--size", "20000"][..], &["latency", "-n", "100"], &["churn", "-n", "5"]]
    {
        let found = measured(&url, &[words, &["--ca-file", &trusted]].concat());
        assert!(found["verdict"] == "ok" || found["cycles"] == 5, "{found}");
    }
    let other = Authority::new("another");
    let said = bench(&url, &["throughput", "-n", "1", "--ca-file", &other.path("ca.pem").display().to_string()]);
    assert!(said.code == 69 && said.err.contains("invalid peer certificate"), "{said:?}");
}

#[test]
fn what_cannot_be_measured_is_said_in_one_sentence() {
    let broker = BrokerProcess::start();
    let url = url(&broker);
    let check = |url: &str, words: &[&str], code: i32, expected: &str| {
        let said = bench(url, words);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains(expected) && said.out.is_empty(), "{said:?}");
    };
    check("amqp://127.0.0.1:1", &["throughput"], 69, "no AMQP broker at 127.0.0.1:1: Connection refused");
    check("http://h", &["churn"], 64, "'http://h' is no AMQP URL: the scheme is amqp or amqps");
    let named = |login: &str, vhost: &str| format!("amqp://{login}{}/{vhost}", broker.address());
    check(&named("guest:wrong@", ""), &["latency"], 77, "the broker refuses the connection: 403 ACCESS_REFUSED");
    check(&named("", "nowhere"), &["latency"], 77, "530 NOT_ALLOWED - vhost nowhere not found");
    check(&url, &["throughput", "--ack-every", "10", "--prefetch", "5"], 64, "raise the one or lower the other");
    check(&url, &["throughput", "-q", "3", "-c", "2"], 64, "some queues are read by nobody");
    check(&url, &["throughput", "--argument", "x-max-priority=many"], 76, "the broker has closed the channel: 406");
    check(&url, &["throughput", "--argument", "x-max-priority"], 64, "is no NAME=VALUE");
    check(&url, &["throughput", "--broker-pid", "1073741824"], 66, "process 1073741824 cannot be looked at");
    check(&url, &["throughput", "--duration", "0"], 64, "is no number of seconds");
}

#[test]
fn what_answers_and_is_no_broker_is_said_so() {
    for (answer, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "what answers is no AMQP"),
        (b"AMQP\x00\x01\x00\x00", "does not speak AMQP 0-9-1"),
        (b"", "has closed the connection without a word"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 8]).unwrap();
            stream.write_all(answer).unwrap();
        });
        let said = bench(&format!("amqp://{address}"), &["throughput"]);
        assert!(said.code == 76 && said.err.contains(expected), "{said:?}");
        answers.join().unwrap();
    }
}

#[test]
fn a_result_is_a_table_for_people() {
    let broker = BrokerProcess::start();
    let mut command = std::process::Command::new(binary().unwrap());
    command.env_clear().args(["bench", "--url", &url(&broker), "throughput", "-n", "1000", "--size", "16"]);
    let said = finish(&mut command, "");
    let line = |name: &str| said.out.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!((said.code, line("verdict")), (0, Some("ok")), "{said:?}");
    assert_eq!(line("published "), Some("1,000"), "{said:?}");
}
