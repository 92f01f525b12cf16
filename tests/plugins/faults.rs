//! A broker with a plugin that panics: the client hears of it, the list shows it, and everything else goes on.

use serde_json::Value as Json;
use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::http::Http;
use tests::scenario::connection::{Connection, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::{Field, spec};

use crate::build;

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn open(broker: &BrokerProcess) -> Connection {
    let mut connection = Connection::new(broker.target().connect().unwrap());
    connection.login(&Login::guest("/")).unwrap();
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").unwrap();
    connection
}

fn publish(connection: &mut Connection, exchange: &str, key: &str) {
    let method = spec::by_name("basic.publish").unwrap();
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    (fields[1], fields[2]) = (text(exchange), text(key));
    connection.send_method(1, method, &fields, Some((Vec::new(), b"m".to_vec())));
}

/// The text of the 541 that ends the connection.
fn internal_error(connection: &mut Connection) -> String {
    let fields = connection.wait_for(0, "connection.close").expect("it is closed");
    match &fields[..2] {
        [Field::Number(541), Field::String(text)] => String::from_utf8_lossy(text).into_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn exchange_that_panics_ends_in_541_a_state_and_a_living_broker() {
    let folder = TempDir::new("faults");
    let plugin = build::copied(&build::stand_alone("tests/fixtures/faulty"), "faults");
    let topology = folder.write("topology.yaml", &format!("plugins: [{}]\n", plugin.display()));
    let broker = BrokerOptions::default().topology(topology).http().start().expect("the broker starts");
    let state = || {
        let all = Http::new(broker.http()).get("/x/plugins");
        let plugin = all.as_array().unwrap().iter().find(|plugin| plugin["name"] == "faulty").unwrap().clone();
        (plugin["state"].clone(), plugin["faults"].as_u64().unwrap())
    };
    assert_eq!(state(), (Json::from("active"), 0));

    let mut connection = open(&broker);
    connection.call(1, "exchange.declare", &[("exchange", text("validate")), ("type", text("x-faulty"))]);
    assert!(internal_error(&mut connection).contains("told to validate"));
    assert_eq!(state(), (Json::from("degraded"), 1));

    let mut connection = open(&broker);
    connection.call(1, "exchange.declare", &[("exchange", text("orders")), ("type", text("x-faulty"))]);
    connection.wait_for(1, "exchange.declare-ok").unwrap();
    for _ in 0..3 {
        publish(&mut connection, "orders", "panic");
        assert!(internal_error(&mut connection).contains("told to route"));
        connection = open(&broker);
    }
    assert_eq!(state(), (Json::from("failed"), 4));
    publish(&mut connection, "orders", "fine");
    assert!(internal_error(&mut connection).contains("is no longer asked"));

    // Another exchange of the type, and those of others, route as before.
    let mut connection = open(&broker);
    connection.call(1, "exchange.declare", &[("exchange", text("others")), ("type", text("x-faulty"))]);
    connection.wait_for(1, "exchange.declare-ok").unwrap();
    publish(&mut connection, "others", "fine");
    publish(&mut connection, "amq.topic", "fine");
    connection.barrier(1).expect("nothing has been closed");
}

#[test]
fn file_that_is_not_required_and_not_loaded_is_in_the_list() {
    let folder = TempDir::new("not-required");
    let file = folder.write("libweather.so", "#!/bin/sh\n");
    build::set_mode(&file, 0o644);
    build::set_mode(folder.path(), 0o755);
    let text = format!("plugins: [{{ path: {}, required: false }}]\n", file.display());
    let topology = folder.write("topology.yaml", &text);
    let broker = BrokerOptions::default().topology(&topology).http().start().expect("the broker does without");
    let all = Http::new(broker.http()).get("/x/plugins");
    let plugin = all.as_array().unwrap().iter().find(|plugin| plugin["name"] == "weather").expect("it is listed");
    assert_eq!(plugin["state"], "refused");
    assert!(plugin["last_fault"].as_str().unwrap().contains("is no shared library"), "{plugin}");
}
