//! A storage from a file that panics, blocks or refuses: each call is caught, and a broker with it goes on where nothing was promised, or ends in a sentence.

use std::sync::Arc;

use broker::plugin_host::{LoadRequest, PluginState, Registry};
use plugin_api::storage::{
    Append, Durability, Mark, MessageSeq, Meta, QueueKey, Settle, Storage, StorageError, StorageStatus, Wanted,
};
use plugin_api::testing::block_on;
use serde_json::{Value as Json, json};
use tests::broker_process::{BrokerOptions, BrokerProcess, signal};
use tests::http::Http;
use tests::scenario::connection::{Connection, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::{Field, Properties, spec};

use crate::build;

struct Case {
    registry: Registry,
    storage: Arc<dyn Storage>,
}

fn case(panic: &str) -> Case {
    let mut registry = Registry::empty();
    let path = build::stand_alone("tests/fixtures/faulty");
    registry.load_file(&LoadRequest { path, ..LoadRequest::default() }).unwrap();
    let storage = registry.storage("faulty", &json!({ "panic": panic }), None).unwrap();
    Case { registry, storage }
}

impl Case {
    fn check<T: std::fmt::Debug>(&self, call: &str, result: Result<T, StorageError>) {
        let Err(StorageError::Failed(text)) = result else { panic!("{call}: {result:?}") };
        assert!(text.starts_with(&format!("the plugin panicked: told to {call} (at src/storage.rs:")), "{text}");
        self.has_faulted(call);
    }

    fn has_faulted(&self, call: &str) {
        let status = self.registry.status().pop().unwrap();
        assert!(status.faults >= 1 && status.state == PluginState::Degraded, "{status:?}");
        assert!(status.last_fault.unwrap().starts_with(&format!("panicked: told to {call}")));
    }
}

#[test]
fn panics_in_every_call_are_caught_and_counted() {
    let targets = [(QueueKey(1), MessageSeq(1))];
    let batch =
        [Append { targets: &targets, stamp: 0, exchange: "", routing_key: "q", properties: &[0, 0], body: b"m" }];
    let (queue, first) = targets[0];
    let case_of = |call: &str| case(call);
    let it = case_of("append");
    it.check("append", block_on(it.storage.append(&batch)));
    let it = case_of("append_unsynced");
    it.check("append_unsynced", block_on(it.storage.append_unsynced(&batch)));
    let it = case_of("settle");
    it.check("settle", block_on(it.storage.settle(&[Settle { queue, first, last: first }])));
    let it = case_of("delete_queue");
    it.check("delete_queue", block_on(it.storage.delete_queue(queue)));
    let it = case_of("read");
    let wanted = Wanted { queue, first, last: first, count_max: 1, bytes_max: 1 };
    it.check("read", block_on(it.storage.read(wanted)));
    let it = case_of("mark");
    it.check("mark", block_on(it.storage.mark(&[Mark { queue, last: first }])));
    let it = case_of("put_meta");
    it.check("put_meta", block_on(it.storage.put_meta(&[Meta { key: b"k", value: None }])));
    let it = case_of("recover");
    it.check("recover", block_on(it.storage.recover()));
    // What cannot fail promises nothing then.
    let it = case_of("promise");
    assert_eq!(it.storage.promise(), Durability::ProcessLifetime);
    it.has_faulted("promise");
    let it = case_of("status");
    assert_eq!(it.storage.status(), StorageStatus::default());
    it.has_faulted("status");
    let Case { registry, storage } = case_of("close");
    drop(storage);
    assert_eq!(
        registry.status().pop().unwrap().last_fault.unwrap().split(" (").next(),
        Some("panicked: told to close")
    );
}

fn options(test: &str, config: &Json) -> (TempDir, BrokerOptions) {
    let folder = TempDir::new(test);
    let plugin = build::copied(&build::stand_alone("tests/fixtures/faulty"), test);
    let topology = json!({
        "plugins": [plugin.display().to_string()],
        "storage": { "kind": "faulty", "config": config },
        "limits": { "shutdown_deadline_secs": 1 },
    });
    let topology = folder.write("topology.yaml", &topology.to_string());
    (folder, BrokerOptions::default().topology(topology).http())
}

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

/// A connection with a confirming channel and a durable queue.
fn open(broker: &BrokerProcess) -> Connection {
    let mut connection = Connection::new(broker.target().connect().unwrap());
    connection.login(&Login::guest("/")).unwrap();
    for (method, fields, answer) in [
        ("channel.open", vec![], "channel.open-ok"),
        ("queue.declare", vec![("queue", text("q")), ("durable", Field::Bit(true))], "queue.declare-ok"),
        ("confirm.select", vec![], "confirm.select-ok"),
    ] {
        connection.call(1, method, &fields);
        connection.wait_for(1, answer).unwrap();
    }
    connection
}

fn publish(connection: &mut Connection, delivery_mode: u64) {
    let method = spec::by_name("basic.publish").unwrap();
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    fields[2] = text("q");
    let properties: Properties = vec![("delivery-mode", Field::Number(delivery_mode))];
    connection.send_method(1, method, &fields, Some((properties, b"m".to_vec())));
}

fn plugin(broker: &BrokerProcess) -> Json {
    let all = Http::new(broker.http()).get("/x/plugins");
    all.as_array().unwrap().iter().find(|plugin| plugin["name"] == "faulty").unwrap().clone()
}

#[test]
fn storage_that_is_refused_or_panics_at_the_start_is_told() {
    for (config, said) in [
        (json!({ "error": "open" }), "storage 'faulty' refused to start: told to refuse"),
        (json!({ "panic": "open" }), "storage 'faulty' refused to start: panicked: told to open"),
        (json!({ "panic": "recover" }), "storage failed: the plugin panicked: told to recover"),
        (json!({ "error": "recover" }), "storage failed: told to fail at recover"),
    ] {
        let (_folder, options) = options("storage-start", &config);
        let error = options.start().expect_err("it does not start");
        assert!(error.contains(said), "{said} is not in\n{error}");
    }
}

#[test]
fn storage_that_panics_over_a_message_ends_the_broker_in_a_sentence_and_confirms_nothing() {
    let (_folder, options) = options("storage-append", &json!({ "panic": "append" }));
    let mut broker = options.start().expect("it starts");
    let mut connection = open(&broker);
    publish(&mut connection, 1);
    connection.wait_for(1, "basic.ack").expect("what is not stored is confirmed");
    publish(&mut connection, 2);
    assert!(connection.wait_for(1, "basic.ack").is_err(), "nobody may promise anything");
    assert_eq!(broker.wait_for_end().unwrap().code(), Some(74));
    let log = broker.log().join("\n");
    for said in ["\"plugin\":\"faulty\"", "told to append", "nothing is confirmed any more"] {
        assert!(log.contains(said), "{said} is not in\n{log}");
    }
}

/// Wherever it panics, the broker goes on or ends in a sentence, and the fault is told; never does the process just die.
#[test]
fn storage_that_panics_in_any_call_is_told_and_kills_no_broker() {
    for call in ["put_meta", "mark", "settle", "delete_queue", "promise", "close"] {
        let (_folder, options) = options(&format!("storage-any-{call}"), &json!({ "panic": call }));
        let told = match options.start() {
            Err(error) => error,
            Ok(mut broker) => {
                use_everything(&broker);
                // It may have ended by itself.
                let _ = signal(broker.pid(), "TERM");
                let code = broker.wait_for_end().unwrap().code();
                let log = broker.log().join("\n");
                assert!(matches!(code, Some(0 | 74)), "{call}: {code:?}\n{log}");
                log
            }
        };
        assert!(told.contains(&format!("told to {call}")), "{call} is not told of in\n{told}");
    }
}

/// Stores, hands out, acks and deletes, as far as the broker answers.
fn use_everything(broker: &BrokerProcess) {
    let Ok(transport) = broker.target().connect() else { return };
    let mut connection = Connection::new(transport);
    if connection.login(&Login::guest("/")).is_err() {
        return;
    }
    let queue = ("queue", text("q"));
    for (method, fields, answer) in [
        ("channel.open", vec![], "channel.open-ok"),
        ("queue.declare", vec![queue.clone(), ("durable", Field::Bit(true))], "queue.declare-ok"),
        ("confirm.select", vec![], "confirm.select-ok"),
    ] {
        connection.call(1, method, &fields);
        if connection.wait_for(1, answer).is_err() {
            return;
        }
    }
    for no_ack in [false, true] {
        publish(&mut connection, 2);
        publish(&mut connection, 2);
        if connection.wait_for(1, "basic.ack").is_err() {
            return;
        }
        connection.call(1, "basic.get", &[queue.clone(), ("no-ack", Field::Bit(no_ack))]);
        if connection.wait_for(1, "basic.get-ok").is_err() {
            return;
        }
    }
    connection.call(1, "queue.delete", &[queue]);
    let _ = connection.wait_for(1, "queue.delete-ok");
}

#[test]
fn storage_that_panics_over_its_status_goes_on_and_is_degraded() {
    let (_folder, options) = options("storage-status", &json!({ "panic": "status" }));
    let broker = options.start().expect("it starts");
    let mut connection = open(&broker);
    publish(&mut connection, 2);
    connection.wait_for(1, "basic.ack").expect("it stores and confirms");
    let plugin = plugin(&broker);
    assert_eq!(plugin["state"], "degraded");
    assert!(plugin["last_fault"].as_str().unwrap().starts_with("panicked: told to status"), "{plugin}");
    broker.wait_for_log(|line| line.contains("the storage is open")).expect("what it logs is the broker's");
    assert!(broker.terminate().unwrap().success());
}

#[test]
fn storage_that_blocks_holds_up_its_confirms_and_nothing_else_and_is_told() {
    let (_folder, options) = options("storage-blocks", &json!({ "block": "append" }));
    let broker = options.start().expect("it starts");
    let mut stuck = open(&broker);
    publish(&mut stuck, 2);
    let mut other = open(&broker);
    publish(&mut other, 1);
    other.wait_for(1, "basic.ack").expect("what is not stored is confirmed");
    broker.wait_for_log(|line| line.contains("has not come back for 5s")).expect("it is told");
    assert_eq!(plugin(&broker)["state"], "degraded");
    publish(&mut other, 1);
    other.wait_for(1, "basic.ack").expect("and the broker goes on");
}
