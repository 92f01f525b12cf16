//! Debian's classic `rabbitmqadmin`: the script of the package, unchanged.

use super::broker;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use tests::http::Http;
use tests::temp::TempDir;

const SCRIPT: &str =
    "/usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8/plugins/rabbitmq_management-3.10.8/priv/www/cli/rabbitmqadmin";

/// Where the package has it; the version is in the path.
fn script() -> String {
    if Path::new(SCRIPT).exists() {
        return SCRIPT.to_owned();
    }
    let output = Command::new("sh")
        .args([
            "-c",
            "ls /usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins/rabbitmq_management-*/priv/www/cli/rabbitmqadmin",
        ])
        .output()
        .expect("a shell");
    let found = String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned);
    found.expect("rabbitmqadmin of Debian's rabbitmq-server is installed; `tests/run --setup` does that")
}

struct Admin<'a> {
    http: &'a Http,
    script: String,
}

impl Admin<'_> {
    fn output(&self, arguments: &[&str]) -> Output {
        let address = self.http.address();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        Command::new("python3")
            .arg(&self.script)
            .args(["-H", &host, "-P", &port])
            .args(arguments)
            .env("HOME", std::env::temp_dir())
            .output()
            .expect("python3 runs")
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[&["-f", "raw_json"], arguments].concat())).expect("JSON")
    }
}

#[test]
fn it_declares_lists_shows_publishes_gets_purges_and_deletes() {
    let (_broker, http) = broker();
    let admin = Admin { http: &http, script: script() };
    for arguments in [
        &["declare", "vhost", "name=v"][..],
        &["declare", "user", "name=u", "password=p", "tags=management"],
        &["declare", "permission", "vhost=v", "user=u", "configure=.*", "write=.*", "read=.*"],
        &["declare", "exchange", "name=x", "type=topic", "durable=true"],
        &["declare", "queue", "name=q", "durable=true", "arguments={\"x-max-length\": 10}"],
        &["declare", "binding", "source=x", "destination=q", "routing_key=a.#"],
        &["declare", "policy", "name=p", "pattern=^q", "definition={\"expires\": 1000000}", "apply-to=queues"],
        &["declare", "operator_policy", "name=o", "pattern=^q", "definition={\"max-length\": 5}"],
        &["declare", "parameter", "component=c", "name=n", "value={\"a\": 1}"],
        &["declare", "vhost_limit", "vhost=v", "name=max-queues", "value=3"],
    ] {
        admin.run(arguments);
    }
    for list in [
        "vhosts",
        "users",
        "permissions",
        "exchanges",
        "queues",
        "bindings",
        "policies",
        "operator_policies",
        "parameters",
        "vhost_limits",
        "nodes",
    ] {
        let rows = admin.json(&["list", list]);
        assert!(rows.as_array().is_some_and(|rows| !rows.is_empty()), "{list}: {rows}");
        admin.run(&["list", list]);
    }
    admin.run(&["show", "overview"]);
    assert!(admin.run(&["list", "queues", "name", "durable"]).contains("| q    | True    |"));
    assert!(admin.run(&["publish", "exchange=x", "routing_key=a.b", "payload=hello"]).contains("Message published"));
    assert!(admin.run(&["publish", "exchange=x", "routing_key=z", "payload=hello"]).contains("NOT routed"));
    let got = admin.json(&["get", "queue=q", "ackmode=ack_requeue_true", "count=2"]);
    assert_eq!((got.as_array().unwrap().len(), &got[0]["payload"]), (1, &json!("hello")));
    let file = TempDir::new("rabbitmqadmin");
    let payload = file.path().join("payload");
    admin.run(&["get", "queue=q", "ackmode=ack_requeue_false", &format!("payload_file={}", payload.display())]);
    assert_eq!(std::fs::read(payload).unwrap(), b"hello");
    admin.run(&["publish", "exchange=amq.default", "routing_key=q", "payload=x"]);
    admin.run(&["purge", "queue", "name=q"]);
    assert_eq!(admin.json(&["get", "queue=q", "ackmode=ack_requeue_false"]), json!([]));
    for arguments in [
        &["delete", "binding", "source=x", "destination_type=queue", "destination=q", "properties_key=a.%23"][..],
        &["delete", "queue", "name=q"],
        &["delete", "exchange", "name=x"],
        &["delete", "policy", "name=p"],
        &["delete", "operator_policy", "name=o"],
        &["delete", "parameter", "component=c", "name=n"],
        &["delete", "permission", "vhost=v", "user=u"],
        &["delete", "user", "name=u"],
        &["delete", "vhost_limit", "vhost=v", "name=max-queues"],
        &["delete", "vhost", "name=v"],
    ] {
        admin.run(arguments);
    }
    assert_eq!(admin.json(&["list", "queues"]), json!([]));
    let failed = admin.output(&["delete", "queue", "name=q"]);
    assert!(!failed.status.success());
    let text = String::from_utf8_lossy(&failed.stdout).into_owned() + &String::from_utf8_lossy(&failed.stderr);
    assert!(text.contains("Not found: /api/queues/%2F/q"), "{text}");
}

#[test]
fn it_exports_and_imports() {
    let (_broker, http) = broker();
    let admin = Admin { http: &http, script: script() };
    admin.run(&["declare", "queue", "name=q", "durable=true"]);
    let folder = TempDir::new("rabbitmqadmin");
    let file = folder.path().join("all.json").display().to_string();
    admin.run(&["export", &file]);
    admin.run(&["delete", "queue", "name=q"]);
    admin.run(&["import", &file]);
    assert_eq!(http.get("/queues/%2F/q")["durable"], true);
    let failed =
        admin.output(&["import", &folder.write("bad.json", "{\"queues\": [{\"name\": \"x\"}]}").display().to_string()]);
    assert!(!failed.status.success());
}

#[test]
fn it_closes_connections() {
    let (broker, http) = broker();
    let admin = Admin { http: &http, script: script() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let uri = format!("amqp://guest:guest@{}/%2f", broker.address());
    let connection =
        runtime.block_on(lapin::Connection::connect(&uri, lapin::ConnectionProperties::default())).unwrap();
    let channel = runtime.block_on(connection.create_channel()).unwrap();
    assert_eq!(admin.json(&["list", "channels", "number"]), json!([{"number": 1}]));
    admin.run(&["list", "consumers"]);
    let connections = admin.json(&["list", "connections", "name", "user"]);
    let name = connections[0]["name"].as_str().unwrap().to_owned();
    admin.run(&["close", "connection", &format!("name={name}")]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while admin.json(&["list", "connections"]) != json!([]) {
        assert!(std::time::Instant::now() < deadline, "the connection is still there");
    }
    drop(channel);
}
