//! `definitions.json` between a real RabbitMQ and the broker, on the command line and at the start (semantics 28).

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tests::broker_process::{BrokerOptions, BrokerProcess, binary};
use tests::oracle::{Definitions, Oracle};
use tests::scenario::connection::{Connection, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::Field;

/// Something of everything that both know.
fn sample() -> Value {
    json!({
        "users": [
            {"name": "app", "password": "secret", "tags": "management, custom", "limits": {"max-connections": 3}},
            {"name": "sha512", "tags": [], "hashing_algorithm": "rabbit_password_hashing_sha512",
             "password_hash": "AAECA7+uhTZqRFaZUibygyY7bWP8uM0RW98NekdufgVnjK7UnviKqG4NJ7cCxlYor2S695poiE6HJEMDMf9Ig66VNqA="},
            {"name": "md5", "tags": [], "hashing_algorithm": "rabbit_password_hashing_md5",
             "password_hash": "AAECA9N1Sqa0YcwwrOPvVAngPOo="},
        ],
        "vhosts": [{"name": "orders"}],
        "permissions": [{"user": "app", "vhost": "orders", "configure": "^app", "write": ".*", "read": ".*"}],
        "topic_permissions": [
            {"user": "app", "vhost": "orders", "exchange": "amq.topic", "write": "^{username}", "read": ".*"},
        ],
        "parameters": [
            {"vhost": "orders", "component": "vhost-limits", "name": "limits", "value": {"max-queues": 10}},
            {"vhost": "orders", "component": "operator_policy", "name": "ceiling",
             "value": {"pattern": ".*", "apply-to": "queues", "priority": 0, "definition": {"max-length": 1000}}},
        ],
        "global_parameters": [{"name": "custom", "value": {"a": [1, "x"]}}],
        "policies": [
            {"vhost": "orders", "name": "p", "pattern": "^app\\.", "apply-to": "queues", "priority": 7,
             "definition": {"expires": 3_600_000, "overflow": "reject-publish"}},
            {"vhost": "orders", "name": "rest", "pattern": "x", "apply-to": "exchanges", "priority": 0,
             "definition": {"alternate-exchange": "rest"}},
        ],
        "exchanges": [
            {"vhost": "orders", "name": "x", "type": "topic", "durable": true, "auto_delete": false, "internal": false,
             "arguments": {"alternate-exchange": "rest"}},
            {"vhost": "orders", "name": "rest", "type": "fanout", "durable": true, "auto_delete": true, "internal": false,
             "arguments": {}},
        ],
        "queues": [
            {"vhost": "orders", "name": "app.q", "durable": true, "auto_delete": false, "arguments": {}},
            {"vhost": "orders", "name": "q\u{fc} \"odd\"", "durable": true, "auto_delete": true,
             "arguments": {"x-queue-mode": "lazy"}},
        ],
        "bindings": [
            {"vhost": "orders", "source": "x", "destination": "app.q", "destination_type": "queue",
             "routing_key": "order.#", "arguments": {}},
            {"vhost": "orders", "source": "x", "destination": "rest", "destination_type": "exchange",
             "routing_key": "", "arguments": {}},
            {"vhost": "orders", "source": "amq.headers", "destination": "app.q", "destination_type": "queue",
             "routing_key": "", "arguments": {"x-match": "any", "size": 7, "kind": "big", "ratio": 0.5, "on": true}},
        ],
    })
}

const CATEGORIES: [&str; 10] = [
    "users",
    "vhosts",
    "permissions",
    "topic_permissions",
    "parameters",
    "global_parameters",
    "policies",
    "exchanges",
    "queues",
    "bindings",
];

/// What both sides say of everything, in an order of its own.
fn comparable(definitions: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for category in CATEGORIES {
        for entry in definitions[category].as_array().into_iter().flatten() {
            let mut entry = entry.clone();
            let name = entry["name"].as_str().unwrap_or_default().to_owned();
            // A node's own name and number.
            if category == "global_parameters" && (name == "cluster_name" || name.starts_with("internal")) {
                continue;
            }
            if let Some(object) = entry.as_object_mut() {
                match category {
                    // Later releases say more of vhosts, and the type of a queue a second time.
                    "vhosts" => object.retain(|key, _| key == "name"),
                    "queues" => drop(object.remove("type")),
                    // Those that are would not be there at all.
                    "exchanges" => drop(object.remove("internal")),
                    // In no order.
                    "users" => {
                        let mut tags: Vec<String> =
                            entry["tags"].as_array().into_iter().flatten().map(Value::to_string).collect();
                        tags.sort();
                        entry["tags"] = json!(tags);
                    }
                    _ => {}
                }
            }
            lines.push(format!("{category} {entry}"));
        }
    }
    lines.sort();
    lines
}

fn cli(arguments: &[&str]) -> Output {
    Command::new(binary().unwrap()).args(arguments).output().expect("the broker's command runs")
}

#[track_caller]
fn good(arguments: &[&str]) -> String {
    let output = cli(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The export of a fresh RabbitMQ that has imported this file.
fn through_rabbitmq(folder: &TempDir, file: &Path, name: &str) -> Value {
    let oracle = Oracle::start(&Definitions::default()).unwrap();
    oracle.ctl(&["import_definitions", shown(file)]).unwrap();
    let path: PathBuf = folder.path().join(name);
    oracle.ctl(&["export_definitions", shown(&path)]).unwrap();
    read(&path)
}

fn login(broker: &BrokerProcess, user: &str, password: &str, vhost: &str) -> Result<Connection, String> {
    let mut login = Login::guest(vhost);
    (login.user, login.password) = (user.to_owned(), password.to_owned());
    let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
    connection.login(&login)?;
    connection.call(1, "channel.open", &[]);
    connection.wait_for(1, "channel.open-ok")?;
    Ok(connection)
}

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn start(data: &Path, more: &[&str]) -> BrokerProcess {
    let options = BrokerOptions::default().argument("--data").argument(shown(data));
    more.iter().fold(options, |options, argument| options.argument(*argument)).start().expect("the broker starts")
}

/// Semantics 28: what a RabbitMQ exports is imported here, exported here, and imported by a RabbitMQ again, and stays the same all the way.
#[test]
fn definitions_go_from_rabbitmq_to_the_broker_and_back() {
    let folder = TempDir::new("definitions");
    let given = folder.write("given.json", &sample().to_string());
    let of_rabbitmq = through_rabbitmq(&folder, &given, "of-rabbitmq.json");

    let data = folder.path().join("data");
    let imported =
        good(&["definitions", "import", shown(&folder.path().join("of-rabbitmq.json")), "--data", shown(&data)]);
    assert!(imported.contains("4 users, "), "{imported}");
    let ours = folder.path().join("ours.json");
    good(&["definitions", "export", "--data", shown(&data), "-o", shown(&ours)]);
    assert_eq!(comparable(&read(&ours)), comparable(&of_rabbitmq));

    // Into another folder and out again: the same, to the byte.
    let (other, again) = (folder.path().join("other"), folder.path().join("again.json"));
    good(&["definitions", "import", shown(&ours), "--data", shown(&other)]);
    good(&["definitions", "export", "--data", shown(&other), "-o", shown(&again)]);
    assert_eq!(std::fs::read_to_string(&again).unwrap(), std::fs::read_to_string(&ours).unwrap());

    let returned = through_rabbitmq(&folder, &ours, "returned.json");
    assert_eq!(comparable(&returned), comparable(&of_rabbitmq));

    // A broker with that folder: the users of RabbitMQ log in with all three kinds of hashes (semantics 4.11) and find everything.
    let broker = start(&data, &[]);
    let mut connection = login(&broker, "app", "secret", "orders").unwrap();
    for queue in ["app.q", "q\u{fc} \"odd\""] {
        connection.call(1, "queue.declare", &[("queue", text(queue)), ("passive", Field::Bit(true))]);
        connection.wait_for(1, "queue.declare-ok").unwrap();
    }
    connection.call(1, "exchange.declare", &[("exchange", text("x")), ("passive", Field::Bit(true))]);
    connection.wait_for(1, "exchange.declare-ok").unwrap();
    for user in ["sha512", "md5"] {
        let refused = login(&broker, user, "test12", "orders").err().unwrap();
        assert!(refused.contains("access to vhost 'orders' refused"), "the password is right: {refused}");
        let refused = login(&broker, user, "wrong", "orders").err().unwrap();
        assert!(refused.contains("ACCESS_REFUSED"), "{refused}");
    }
}

/// Semantics 28.13.
#[test]
fn definitions_are_imported_at_the_start_and_nothing_else_is_there_by_default() {
    let folder = TempDir::new("boot");
    let file = folder.write("definitions.json", &sample().to_string());
    let data = folder.path().join("data");
    let broker = start(&data, &["--definitions", shown(&file)]);
    drop(login(&broker, "app", "secret", "orders").unwrap());
    let refused = login(&broker, "guest", "guest", "/").err().unwrap();
    assert!(refused.contains("ACCESS_REFUSED"), "{refused}");
    assert!(broker.terminate().unwrap().success());

    // They are in the folder now, and nobody who was not imported has come.
    let broker = start(&data, &[]);
    drop(login(&broker, "app", "secret", "orders").unwrap());
    assert!(login(&broker, "guest", "guest", "/").is_err());
    assert!(broker.terminate().unwrap().success());

    // A folder of files; what is there is overwritten, unless nothing has changed.
    let many = TempDir::new("many");
    many.write("1.json", &sample().to_string());
    many.write("2.json", &json!({"users": [{"name": "app", "password": "other", "tags": []}]}).to_string());
    many.write("3.txt", "no definitions");
    let topology = folder
        .write("topology.yaml", &format!("definitions: {{ path: {}, skip_if_unchanged: true }}\n", shown(many.path())));
    let broker = start(&data, &["--topology", shown(&topology)]);
    drop(login(&broker, "app", "other", "orders").unwrap());
    assert!(broker.terminate().unwrap().success());
    let broker = start(&data, &["--topology", shown(&topology)]);
    broker.wait_for_log(|line| line.contains("definitions are those of the last import")).unwrap();
    drop(login(&broker, "app", "other", "orders").unwrap());
    assert!(broker.terminate().unwrap().success());
}

#[test]
fn a_mistake_in_definitions_keeps_the_broker_from_starting_and_is_named() {
    let folder = TempDir::new("wrong");
    let wrong = json!({"vhosts": [{"name": "/"}], "queues": [{"vhost": "/", "name": "a"}, {"vhost": "/"}]});
    let file = folder.write("definitions.json", &wrong.to_string());
    let place = format!("{}: queues[1]: 'name' is missing; add \"name\": \"…\"", shown(&file));
    let data = folder.path().join("data");
    for arguments in [
        vec![
            "--listen",
            "127.0.0.1:0",
            "--http",
            "off",
            "--metrics",
            "off",
            "--data",
            shown(&data),
            "--definitions",
            shown(&file),
        ],
        vec!["definitions", "import", shown(&file), "--data", shown(&data)],
    ] {
        let output = cli(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{errors}");
        assert!(errors.contains(&place), "{errors}");
    }
    let exported = good(&["definitions", "export", "--data", shown(&data)]);
    let exported: Value = serde_json::from_str(&exported).unwrap();
    assert_eq!(exported["queues"], json!([]), "nothing is imported");
    let missing = cli(&["definitions", "import", shown(&folder.path().join("none.json")), "--data", shown(&data)]);
    assert_eq!(missing.status.code(), Some(66), "{missing:?}");
    let none = folder.path().join("no-such-folder");
    let missing = cli(&["definitions", "export", "--data", shown(&none)]);
    assert_eq!(missing.status.code(), Some(78), "{missing:?}");
    assert!(!none.exists(), "an export makes no folder");
    let vhost = cli(&["definitions", "export", "--data", shown(&data), "--vhost", "nowhere"]);
    assert_eq!(vhost.status.code(), Some(66), "{vhost:?}");
}

/// Semantics 28.12: a vhost goes from one name to another, and messages of the folder stay where they are.
#[test]
fn one_vhost_is_copied_under_another_name() {
    let folder = TempDir::new("copy");
    let file = folder.write("definitions.json", &sample().to_string());
    let data = folder.path().join("data");
    good(&["definitions", "import", shown(&file), "--data", shown(&data)]);
    let of_one = folder.path().join("orders.json");
    good(&["definitions", "export", "--data", shown(&data), "--vhost", "orders", "-o", shown(&of_one)]);
    assert!(read(&of_one).get("users").is_none());
    let into = ["definitions", "import", shown(&of_one), "--data", shown(&data), "--vhost", "copy"];
    let output = cli(&into);
    assert_eq!(output.status.code(), Some(65), "the vhost must be there: {output:?}");
    let vhost = folder.write("vhost.json", &json!({"vhosts": [{"name": "copy"}]}).to_string());
    good(&["definitions", "import", shown(&vhost), "--data", shown(&data)]);
    good(&into);
    let copied = good(&["definitions", "export", "--data", shown(&data), "--vhost", "copy"]);
    let copied: Value = serde_json::from_str(&copied).unwrap();
    assert_eq!(comparable(&copied), comparable(&read(&of_one)));
}

#[test]
fn a_folder_that_a_broker_uses_is_left_alone() {
    let folder = TempDir::new("in-use");
    let data = folder.path().join("data");
    let broker = start(&data, &[]);
    let file = folder.write("definitions.json", "{}");
    for arguments in [
        vec!["definitions", "import", shown(&file), "--data", shown(&data)],
        vec!["definitions", "export", "--data", shown(&data)],
    ] {
        let output = cli(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("in use"), "{errors}");
    }
    drop(login(&broker, "guest", "guest", "/").unwrap());
}
