//! What the broker says of itself, which client libraries decide by.

use serde_json::json;
use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::http::Http;
use tests::scenario::connection::{Connection, Event};
use tests::temp::TempDir;
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

/// RabbitMQ tells the name that it has when a connection opens; the parameter and the endpoint are one thing.
#[test]
fn name_that_is_set_while_it_runs_is_told_and_stays_until_the_file_says_otherwise() {
    let data = TempDir::new("cluster-name");
    let start = |topology: &str| {
        let topology = data.write("topology.yaml", topology);
        let folder = data.path().join("data").display().to_string();
        BrokerOptions::default().http().argument("--data").argument(folder).topology(topology).start().unwrap()
    };
    let broker = start("{}");
    let http = Http::new(broker.http());
    let node = http.get("/overview")["node"].clone();
    assert_eq!(property(&broker, "cluster_name"), http.get("/cluster-name")["name"]);
    let check = |broker: &BrokerProcess, name: &str| {
        assert_eq!(property(broker, "cluster_name"), name);
        let http = Http::new(broker.http());
        assert_eq!(
            (http.get("/cluster-name")["name"].as_str(), http.get("/overview")["cluster_name"].as_str()),
            (Some(name), Some(name))
        );
        assert_eq!(http.get("/definitions")["original_cluster_name"], name);
        let page = Http::new(broker.http()).raw(
            b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n",
            false,
        );
        let page = page.unwrap().text();
        assert!(page.contains(&format!("rabbitmq_cluster=\"{name}\"")), "{page}");
    };
    assert_eq!(http.put("/cluster-name", &json!({"name": "prod"})), 204);
    check(&broker, "prod");
    assert_eq!(http.put("/global-parameters/cluster_name", &json!({"value": "prod2"})), 204);
    check(&broker, "prod2");
    broker.terminate().unwrap();
    let broker = start("{}");
    check(&broker, "prod2");
    assert_eq!(Http::new(broker.http()).get("/overview")["node"], node, "nodes keep their names");
    broker.terminate().unwrap();
    let broker = start("node: { cluster_name: of-file }");
    check(&broker, "of-file");
    assert_eq!(Http::new(broker.http()).put("/cluster-name", &json!({"name": "later"})), 204);
    check(&broker, "later");
}

#[test]
fn product_version_and_name_are_configurable() {
    let broker = BrokerProcess::with_topology("node: { product: Orders, version: 3.13.7, cluster_name: rabbit@eu }");
    assert_eq!(property(&broker, "product"), "Orders");
    assert_eq!(property(&broker, "version"), "3.13.7");
    assert_eq!(property(&broker, "cluster_name"), "rabbit@eu");
}
