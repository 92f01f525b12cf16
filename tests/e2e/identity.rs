//! What the broker says of itself, which client libraries decide by.

use tests::broker_process::BrokerProcess;
use tests::scenario::connection::{Connection, Event};
use tests::transport::Target;
use tests::wire::value::Value;
use tests::wire::{Field, PROTOCOL_HEADER};

/// The texts among the server-properties of connection.start.
fn server_properties(broker: &BrokerProcess) -> Vec<(String, String)> {
    let mut connection = Connection::new(broker.target().connect().unwrap());
    connection.send_raw(&PROTOCOL_HEADER);
    let Event::Method(start) = connection.next(0).unwrap() else { panic!("connection.start comes first") };
    let Some(Field::Table(table)) = start.fields.get(2) else { panic!("connection.start has a table") };
    let text = |value: &Value| match value {
        Value::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    table.iter().filter_map(|(name, value)| Some((String::from_utf8_lossy(name).into_owned(), text(value)?))).collect()
}

fn property(broker: &BrokerProcess, name: &str) -> String {
    let properties = server_properties(broker);
    let found = properties.iter().find(|(property, _)| property == name);
    found.unwrap_or_else(|| panic!("no {name} among {properties:?}")).1.clone()
}

#[test]
fn product_and_version_are_those_that_clients_look_for() {
    let broker = BrokerProcess::start();
    assert_eq!(property(&broker, "product"), "RabbitMQ");
    let version = property(&broker, "version");
    let numbers: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    // Between 4.0 and 4.2 the Java suite runs its tests of the global prefetch, and Celery sets one for each consumer.
    assert!(numbers.len() == 3 && numbers >= vec![4, 0, 0] && numbers < vec![4, 3, 0], "{version}");
}

#[test]
fn product_version_and_name_are_configurable() {
    let broker = BrokerProcess::with_topology("node: { product: Orders, version: 3.13.7, cluster_name: rabbit@eu }");
    assert_eq!(property(&broker, "product"), "Orders");
    assert_eq!(property(&broker, "version"), "3.13.7");
    assert_eq!(property(&broker, "cluster_name"), "rabbit@eu");
}
