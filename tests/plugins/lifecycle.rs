//! The states of plugins in a running broker: from its start to an orderly stop, and calls that do not come back.

use serde_json::Value as Json;
use tests::broker_process::{BrokerOptions, BrokerProcess, signal};
use tests::http::Http;
use tests::scenario::connection::{Connection, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::{Field, spec};

use crate::build;

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn start(test: &str, more: &str) -> BrokerProcess {
    let folder = TempDir::new(test);
    let faulty = build::copied(&build::stand_alone("tests/fixtures/faulty"), test);
    let auth = build::copied(&build::stand_alone("tests/fixtures/auth-scripted"), &format!("{test}-auth"));
    let plugins = format!("plugins: [{}, {}]\n{more}", faulty.display(), auth.display());
    let topology = folder.write("topology.yaml", &plugins);
    BrokerOptions::default().topology(topology).http().metrics().start().expect("the broker starts")
}

/// A connection with a confirming channel and an exchange of the fixture's type.
fn open(broker: &BrokerProcess, exchange: &str) -> Connection {
    let mut connection = Connection::new(broker.target().connect().unwrap());
    connection.login(&Login::guest("/")).unwrap();
    for (method, fields, answer) in [
        ("channel.open", vec![], "channel.open-ok"),
        ("exchange.declare", vec![("exchange", text(exchange)), ("type", text("x-faulty"))], "exchange.declare-ok"),
        ("confirm.select", vec![], "confirm.select-ok"),
    ] {
        connection.call(1, method, &fields);
        connection.wait_for(1, answer).unwrap();
    }
    connection
}

fn publish(connection: &mut Connection, exchange: &str, key: &str) {
    let method = spec::by_name("basic.publish").unwrap();
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    (fields[1], fields[2]) = (text(exchange), text(key));
    connection.send_method(1, method, &fields, Some((Vec::new(), b"m".to_vec())));
}

fn state(broker: &BrokerProcess, name: &str) -> Json {
    let all = Http::new(broker.http()).get("/x/plugins");
    all.as_array().unwrap().iter().find(|plugin| plugin["name"] == name).unwrap()["state"].clone()
}

/// The states of a plugin that the log has, in its order.
fn logged(log: &[String], name: &str) -> Vec<String> {
    let lines = log.iter().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let fields = lines.map(|line| if line["fields"].is_object() { line["fields"].clone() } else { line });
    let of_plugin = fields.filter(|fields| fields["plugin"] == name);
    of_plugin.filter_map(|fields| fields["state"].as_str().map(str::to_owned)).collect()
}

#[test]
fn orderly_stop_drains_each_kind_when_nobody_needs_it_any_more() {
    let broker = start("lifecycle-stop", "limits: { shutdown_deadline_secs: 20 }\n");
    // Holds the stop up: it does not answer connection.close before it is told to.
    let mut client = open(&broker, "orders");
    publish(&mut client, "orders", "log");
    client.wait_for(1, "basic.ack").unwrap();
    broker.wait_for_log(|line| line.contains("a message of 1 bytes")).expect("an exchange type may log, too");
    for name in ["faulty", "auth_scripted"] {
        assert_eq!(state(&broker, name), "active");
    }
    let request = b"GET /metrics HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n\r\n";
    let page = Http::new(broker.metrics()).raw(request, false).unwrap().text();
    assert!(page.contains("broker_plugin_state{name=\"faulty\",state=\"active\"} 1"), "{page}");
    assert!(page.contains("broker_plugin_state{name=\"faulty\",state=\"stopped\"} 0"), "{page}");

    signal(broker.pid(), "TERM").unwrap();
    broker
        .wait_for_log(|line| line.contains("auth_scripted") && line.contains("\"stopped\""))
        .expect("no login can come");
    assert_eq!(state(&broker, "auth_scripted"), "stopped");
    assert_eq!(state(&broker, "faulty"), "active", "clients that close may still have messages on their way");
    client.wait_for(0, "connection.close").unwrap();
    client.call(0, "connection.close-ok", &[]);
    let mut broker = broker;
    assert!(broker.wait_for_end().unwrap().success());
    let log = broker.log();
    assert_eq!(logged(&log, "auth_scripted"), ["inspected", "registered", "active", "draining", "stopped"]);
    let states = logged(&log, "faulty");
    assert_eq!(states, ["inspected", "registered", "active", "draining", "stopped"]);
}

#[test]
fn storage_is_stopped_last_when_it_has_taken_everything() {
    let folder = TempDir::new("lifecycle-storage");
    let storage = build::copied(&build::stand_alone("tests/fixtures/faulty"), "lifecycle-storage");
    let auth = build::copied(&build::stand_alone("tests/fixtures/auth-scripted"), "lifecycle-storage-auth");
    let text = format!("plugins: [{}, {}]\nstorage: {{ kind: faulty }}\n", storage.display(), auth.display());
    let topology = folder.write("topology.yaml", &text);
    let mut broker = BrokerOptions::default().topology(topology).http().start().expect("the broker starts");
    assert_eq!(state(&broker, "faulty"), "active");
    signal(broker.pid(), "TERM").unwrap();
    assert!(broker.wait_for_end().unwrap().success());
    let log = broker.log();
    for name in ["faulty", "auth_scripted"] {
        assert_eq!(logged(&log, name), ["inspected", "registered", "active", "draining", "stopped"], "{name}");
    }
    let stopped =
        |name: &str| log.iter().rposition(|line| line.contains(name) && line.contains("\"stopped\"")).unwrap();
    assert!(stopped("exchange_topic") < stopped("faulty") && stopped("auth_scripted") < stopped("faulty"));
}

#[test]
fn exchange_that_blocks_has_its_publisher_and_no_other_is_told_and_does_not_hold_up_the_stop() {
    let broker = start("lifecycle-blocks", "limits: { shutdown_deadline_secs: 1 }\n");
    // Before, since who declares in the vhost waits until its names are not being routed by.
    let mut other = open(&broker, "others");
    let mut stuck = open(&broker, "stuck");
    publish(&mut stuck, "stuck", "block");
    // A thread is gone; the others take its place.
    publish(&mut other, "others", "fine");
    other.wait_for(1, "basic.ack").expect("others go on");
    broker.wait_for_log(|line| line.contains("has not come back for 3s")).expect("it is told");
    assert_eq!(state(&broker, "faulty"), "degraded");
    publish(&mut other, "others", "fine");
    other.wait_for(1, "basic.ack").expect("others go on");
    drop(other);
    signal(broker.pid(), "TERM").unwrap();
    let mut broker = broker;
    assert!(broker.wait_for_end().unwrap().success(), "{}", broker.log().join("\n"));
    let log = broker.log().join("\n");
    assert!(log.contains("1 of its calls did not come back within 2s"), "{log}");
}
