//! What a start does about exchange types from files: the order (semantics 27.7), and types that are gone (semantics 8.6).

use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::scenario::connection::{Connection, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::value::Value;
use tests::wire::{Field, Properties, spec};

use crate::build;

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn place(latitude: f64, longitude: f64) -> Field {
    Field::Table(vec![(b"lat".to_vec(), Value::F64(latitude)), (b"lon".to_vec(), Value::F64(longitude))])
}

fn open(broker: &BrokerProcess) -> Connection {
    let mut connection = Connection::new(broker.target().connect().unwrap());
    connection.login(&Login::guest("/")).unwrap();
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok").unwrap();
    connection
}

#[test]
fn plugins_come_before_recovery_and_recovery_before_the_topology_and_listeners() {
    let folder = TempDir::new("boot");
    let plugin = build::copied(&build::stand_alone("examples/plugins/exchange-geo"), "boot");
    let topology = folder.write(
        "topology.yaml",
        &format!(
            "plugins: [{}]\nstorage: {{ data: data }}\nvhosts: {{ /: {{ exchanges: [of-the-file: x-geo] }} }}\n",
            plugin.display()
        ),
    );
    let start = || BrokerOptions::default().topology(&topology).start().expect("the broker starts");
    let broker = start();
    let mut connection = open(&broker);
    let durable = || ("durable", Field::Bit(true));
    connection.call(1, "exchange.declare", &[("exchange", text("depots")), ("type", text("x-geo")), durable()]);
    connection.wait_for(1, "exchange.declare-ok").unwrap();
    connection.call(1, "queue.declare", &[("queue", text("berlin")), durable()]);
    connection.wait_for(1, "queue.declare-ok").unwrap();
    for exchange in ["depots", "of-the-file"] {
        let fields = [("queue", text("berlin")), ("exchange", text(exchange)), ("arguments", place(52.52, 13.40))];
        connection.call(1, "queue.bind", &fields);
        connection.wait_for(1, "queue.bind-ok").unwrap();
    }
    drop(broker);

    let broker = start();
    let log = broker.log();
    let line = |message: &str| {
        let is_wanted = |line: &String| line.contains(&format!("\"message\":\"{message}"));
        log.iter().position(is_wanted).unwrap_or_else(|| panic!("{message} is not in\n{}", log.join("\n")))
    };
    let order = ["plugin loaded", "recovered ", "vhost ready", "listening"].map(line);
    assert!(order.is_sorted(), "{order:?} in\n{}", log.join("\n"));

    // The recovered exchanges route as their type does.
    let mut connection = open(&broker);
    let method = spec::by_name("basic.publish").unwrap();
    for exchange in ["depots", "of-the-file"] {
        let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
        fields[1] = text(exchange);
        let properties: Properties = vec![("headers", place(52.52, 13.40))];
        connection.send_method(1, method, &fields, Some((properties, b"m".to_vec())));
        connection.barrier(1).unwrap();
        connection.call(1, "basic.get", &[("queue", text("berlin")), ("no-ack", Field::Bit(true))]);
        connection.wait_for(1, "basic.get-ok").unwrap();
    }
}

/// What closes channel 1 after `method`.
fn refusal(broker: &BrokerProcess, method: &str, fields: &[(&str, Field)]) -> String {
    let mut connection = open(broker);
    connection.call(1, method, fields);
    let fields = connection.wait_for(1, "channel.close").expect("it is refused");
    assert_eq!(fields.first(), Some(&Field::Number(406)));
    match fields.get(1) {
        Some(Field::String(text)) => String::from_utf8_lossy(text).into_owned(),
        other => panic!("{other:?} is no reply text"),
    }
}

#[test]
fn exchange_whose_type_is_gone_stays_and_routes_nothing() {
    let folder = TempDir::new("gone");
    let plugin = build::copied(&build::stand_alone("examples/plugins/exchange-geo"), "gone");
    let with = folder.write("with.yaml", &format!("plugins: [{}]\nstorage: {{ data: data }}\n", plugin.display()));
    let without = folder.write("without.yaml", "storage: { data: data }\n");
    let start = |topology: &std::path::Path| BrokerOptions::default().topology(topology).start().expect("it starts");
    let declare = || [("exchange", text("depots")), ("type", text("x-geo")), ("durable", Field::Bit(true))];
    let broker = start(&with);
    let mut connection = open(&broker);
    connection.call(1, "exchange.declare", &declare());
    connection.wait_for(1, "exchange.declare-ok").unwrap();
    drop(broker);

    let broker = start(&without);
    let another = [("exchange", text("another")), ("type", text("x-geo"))];
    let refused = refusal(&broker, "exchange.declare", &another);
    assert_eq!(refused, "PRECONDITION_FAILED - invalid exchange type 'x-geo'");
    let mut connection = open(&broker);
    let queue = || ("queue", text("q"));
    connection.call(1, "queue.declare", &[queue()]);
    connection.wait_for(1, "queue.declare-ok").unwrap();
    for (method, answer, fields) in [
        ("exchange.declare", "exchange.declare-ok", declare().to_vec()),
        ("queue.bind", "queue.bind-ok", vec![queue(), ("exchange", text("depots"))]),
        ("queue.unbind", "queue.unbind-ok", vec![queue(), ("exchange", text("depots"))]),
    ] {
        connection.call(1, method, &fields);
        connection.wait_for(1, answer).unwrap();
    }
    let mut publisher = open(&broker);
    let method = spec::by_name("basic.publish").unwrap();
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    fields[1] = text("depots");
    publisher.send_method(1, method, &fields, Some((Vec::new(), b"m".to_vec())));
    let close = publisher.wait_for(1, "channel.close").unwrap();
    let reason = "PRECONDITION_FAILED - Cannot route message through exchange 'depots' in vhost '/': exchange type x-geo not found";
    assert_eq!(close[..2], [Field::Number(406), text(reason)]);
    connection.call(1, "exchange.delete", &[("exchange", text("depots"))]);
    connection.wait_for(1, "exchange.delete-ok").unwrap();
}
