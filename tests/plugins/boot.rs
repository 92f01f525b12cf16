//! The order of the start, which exchange types from files depend on (semantics 27.7).

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
