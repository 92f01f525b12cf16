//! list, declare, delete, health, top, close and definitions.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::crash::client::Client;
use tests::wire::Field;

use super::Setting;

/// Asks the broker again until it is so; each question takes a process of its own, so nothing spins.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
    }
}

#[test]
fn what_is_declared_is_listed_until_it_is_deleted() {
    let cli = Setting::new();
    cli.done(&["declare", "queue", "orders", "--argument", "x-max-length=10"]);
    cli.done(&["declare", "exchange", "events", "--type", "topic"]);
    cli.done(&["declare", "binding", "events", "orders", "--key", "order.#"]);
    let queues = cli.json(&["list", "queues", "--columns", "name,durable,arguments"]);
    assert_eq!(queues, [json!({"name": "orders", "durable": true, "arguments": {"x-max-length": 10}})]);
    let bindings = cli.json(&["list", "bindings", "--match", "order.#"]);
    assert!(bindings.iter().any(|row| row["source"] == "events" && row["destination"] == "orders"), "{bindings:?}");

    let told = cli.run(&["delete", "queue", "orders", "--dry-run"]);
    assert!(told.err.contains("0 ready and 0 unacked messages, 0 consumers and 1 bindings"), "{told:?}");
    let told = cli.run(&["delete", "--dry-run", "exchange", "events"]);
    assert!(told.err.contains("1 bindings from it"), "{told:?}");
    assert_eq!(cli.json(&["list", "queues"]).len(), 1, "nothing was deleted");

    cli.done(&["delete", "binding", "events", "orders", "--key", "order.#"]);
    assert!(cli.json(&["list", "bindings", "--match", "order.#"]).is_empty());
    cli.done(&["delete", "exchange", "events", "--if-unused"]);
    cli.done(&["delete", "queue", "orders", "--if-empty", "--if-unused"]);
    assert!(cli.json(&["list", "queues"]).is_empty());
}

#[test]
fn many_queues_come_in_pages_and_in_order() {
    let cli = Setting::new();
    let queues: Vec<Value> = (0..1_201)
        .map(|number| json!({"name": format!("q{number:04}"), "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}))
        .collect();
    let file = cli.home.write("many.json", &json!({"queues": queues}).to_string());
    cli.done(&["definitions", "import", file.to_str().unwrap()]);
    let names: Vec<Value> = cli
        .json(&["list", "queues", "--sort", "name", "--reverse"])
        .into_iter()
        .map(|row| row["name"].clone())
        .collect();
    assert_eq!((names.len(), &names[0], &names[1_200]), (1_201, &json!("q1200"), &json!("q0000")));
    assert_eq!(cli.json(&["list", "queues", "--match", "^q00[0-4].$"]).len(), 50);
}

#[test]
fn every_kind_can_be_listed_in_every_format() {
    let cli = Setting::new();
    let kinds = [
        "queues",
        "exchanges",
        "bindings",
        "connections",
        "channels",
        "consumers",
        "vhosts",
        "users",
        "permissions",
        "topic-permissions",
        "policies",
        "operator-policies",
        "parameters",
        "vhost-limits",
        "user-limits",
        "nodes",
        "feature-flags",
    ];
    for kind in kinds {
        for format in ["table", "json", "csv", "yaml"] {
            let out = cli.done(&["list", kind, "--format", format]);
            assert!(!out.is_empty(), "{kind} as {format}");
        }
    }
    let csv = cli.done(&["list", "exchanges", "--format", "csv"]);
    assert!(csv.starts_with("vhost,name,type,") && csv.contains("/,amq.topic,topic,yes,no,no,"), "{csv}");
}

#[test]
fn failures_have_exit_codes_and_say_how_to_go_on() {
    let cli = Setting::new();
    cli.done(&["declare", "queue", "q"]);
    let cases: [(&[&str], i32, &str); 7] = [
        (&["get", "missing"], 66, "queue_not_found"),
        (&["declare", "queue", "q", "--transient"], 65, "inequivalent arg 'durable'"),
        (&["list", "queues", "--user", "nobody", "--password", "x"], 77, "BROKER_USER"),
        (&["list", "queues", "--url", "http://127.0.0.1:1"], 69, "start the broker with --http"),
        (&["list", "queues", "--url", "ftp://x"], 64, "http://HOST:15672"),
        (&["declare", "queue", "q", "--argument", "nonsense"], 64, "NAME=VALUE"),
        (&["delete", "binding", "amq.topic", "q"], 65, "broker list bindings"),
    ];
    for (words, code, text) in cases {
        let said = cli.run(words);
        assert_eq!(said.code, code, "{words:?}: {said:?}");
        assert!(said.err.contains(text) && said.err.lines().count() == 1, "{words:?}: {said:?}");
        assert!(said.out.is_empty(), "{words:?}: {said:?}");
    }
}

#[test]
fn what_is_no_management_api_is_told_from_none() {
    let cli = Setting::new();
    let amqp = format!("http://{}", cli.broker.address());
    let said = cli.run(&["list", "queues", "--url", &amqp]);
    assert!(said.code == 76 || said.code == 69, "{said:?}");
    assert!(said.err.contains("management API"), "{said:?}");
}

#[test]
fn health_and_top_tell_how_the_broker_is() {
    let cli = Setting::new();
    let rows = cli.json(&["health"]);
    assert!(rows.len() >= 4 && rows.iter().all(|row| row["status"] == "ok"), "{rows:?}");
    cli.done(&["declare", "queue", "busy"]);
    let text = cli.done(&["top", "--once"]);
    assert!(text.contains("1 queues") && text.contains("busy") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn definitions_go_out_and_come_in_again() {
    let cli = Setting::new();
    cli.done(&["declare", "queue", "kept"]);
    let file = cli.home.path().join("out.json");
    cli.done(&["definitions", "export", "-o", file.to_str().unwrap()]);
    cli.done(&["delete", "queue", "kept"]);
    let said = cli.run(&["definitions", "import", "--dry-run", file.to_str().unwrap()]);
    assert!(said.err.contains("users: 0 new, 0 overwritten, 1 the same"), "{said:?}");
    assert!(said.err.contains("queues: 1 new") && said.err.contains("nothing was imported"), "{said:?}");
    assert!(cli.json(&["list", "queues"]).is_empty());
    cli.done(&["definitions", "import", file.to_str().unwrap()]);
    assert_eq!(cli.json(&["list", "queues"])[0]["name"], "kept");
    let broken = cli.home.write("broken.json", "{");
    let said = cli.run(&["definitions", "import", broken.to_str().unwrap()]);
    assert!(said.code == 65 && said.err.contains("is no JSON"), "{said:?}");
}

#[test]
fn connections_are_closed_by_name_or_user() {
    let cli = Setting::new();
    let mut client = Client::connect(cli.broker.address()).unwrap();
    let names = || cli.json(&["list", "connections"]);
    until("the connection is listed", || !names().is_empty());
    let said = cli.run(&["close", "--of-user", "guest", "--dry-run"]);
    assert!(said.err.contains("1 connections would be closed"), "{said:?}");
    cli.done(&["close", "--of-user", "guest", "--reason", "for a test"]);
    let event = client.receiver.wait_for(0, "connection.close").unwrap();
    assert_eq!(event.number(0), 320);
    assert!(
        format!("{:?}", event.fields[1]) == format!("{:?}", Field::String(b"CONNECTION_FORCED - for a test".to_vec()))
    );
    client.sender.hang_up();
    until("the connection is gone", || names().is_empty());
    let said = cli.run(&["close", "nobody"]);
    assert_eq!(said.code, 66, "{said:?}");
}
