//! The exchanges that the broker itself publishes to: events and the log (semantics 29.2, 29.3).

use std::collections::HashMap;

use serde_json::json;
use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::http::Http;
use tests::scenario::connection::{Connection, Event, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::value::Value;
use tests::wire::{Field, Properties};

const TOPOLOGY: &str = "
vhosts:
  /: { event_exchange: true, log_exchange: true }
  other: {}
users:
  guest: { password: guest, tags: administrator, permissions: { /: { configure: .*, write: .*, read: .* }, other: { configure: .*, write: .*, read: .* } } }
";

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn connect(broker: &BrokerProcess, login: &Login) -> Result<Connection, String> {
    let mut connection = Connection::new(broker.target().connect().expect("the broker listens"));
    connection.login(login).map(|()| connection)
}

fn call(connection: &mut Connection, name: &str, fields: &[(&str, Field)]) {
    connection.call(1, name, fields);
    connection.wait_for(1, &format!("{name}-ok")).unwrap();
}

/// A consumer of everything that an exchange publishes under a key.
struct Watcher(Connection);

impl Watcher {
    fn new(broker: &BrokerProcess, exchange: &str, key: &str) -> Self {
        let mut connection = connect(broker, &Login::guest("/")).expect("guest may log in");
        call(&mut connection, "channel.open", &[]);
        // One for each, or two watchers would share what comes.
        let queue = text(&format!("watch {exchange}"));
        call(&mut connection, "queue.declare", &[("queue", queue.clone())]);
        let binding = [("queue", queue.clone()), ("exchange", text(exchange)), ("routing-key", text(key))];
        call(&mut connection, "queue.bind", &binding);
        call(&mut connection, "basic.consume", &[("queue", queue), ("no-ack", Field::Bit(true))]);
        Self(connection)
    }

    /// Routing key, properties and body of the next message.
    fn next(&mut self) -> (String, Properties, String) {
        loop {
            match self.0.next(1).unwrap() {
                Event::Method(incoming) if incoming.method.name == "basic.deliver" => {
                    let Some(Field::String(key)) = incoming.fields.last() else { panic!("a delivery has a key") };
                    let (properties, body) = incoming.content.expect("a delivery has content");
                    return (utf8(key), properties, utf8(&body));
                }
                Event::Method(_) | Event::Heartbeat => {}
                other => panic!("{other:?} instead of a delivery"),
            }
        }
    }

    /// The next event with its headers as text.
    fn event(&mut self) -> (String, HashMap<String, String>) {
        let (key, properties, body) = self.next();
        assert_eq!(body, "", "{key}: everything stands in the headers");
        let headers = properties.iter().find_map(|(name, field)| match field {
            Field::Table(table) if *name == "headers" => Some(table),
            _ => None,
        });
        let headers = headers.expect("an event has headers").iter();
        (key, headers.map(|(name, value)| (utf8(name), plain(value))).collect())
    }

    /// Events up to and including the first with this key.
    fn until(&mut self, last: &str) -> Vec<(String, HashMap<String, String>)> {
        let mut events = Vec::new();
        while events.last().is_none_or(|(key, _): &(String, _)| key != last) {
            events.push(self.event());
        }
        events
    }
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Text(text) => utf8(text),
        Value::Bool(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        other => format!("{other:?}"),
    }
}

fn keys(events: &[(String, HashMap<String, String>)]) -> Vec<&str> {
    events.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn what_a_client_does_is_told() {
    let broker = BrokerProcess::with_topology(TOPOLOGY);
    let mut watcher = Watcher::new(&broker, "amq.rabbitmq.event", "#");
    watcher.until("consumer.created");

    let mut client = connect(&broker, &Login::guest("other")).unwrap();
    call(&mut client, "channel.open", &[]);
    call(&mut client, "exchange.declare", &[("exchange", text("x")), ("type", text("fanout"))]);
    call(&mut client, "queue.declare", &[("queue", text("q")), ("durable", Field::Bit(true))]);
    call(&mut client, "queue.bind", &[("queue", text("q")), ("exchange", text("x")), ("routing-key", text("k"))]);
    call(&mut client, "basic.qos", &[("prefetch-count", Field::Number(7))]);
    call(&mut client, "basic.consume", &[("queue", text("q")), ("consumer-tag", text("c"))]);
    call(&mut client, "basic.cancel", &[("consumer-tag", text("c"))]);
    call(&mut client, "queue.delete", &[("queue", text("q"))]);
    call(&mut client, "exchange.delete", &[("exchange", text("x"))]);
    call(&mut client, "channel.close", &[]);
    client.call(0, "connection.close", &[]);
    client.wait_for(0, "connection.close-ok").unwrap();

    let events = watcher.until("connection.closed");
    let expected = [
        "user.authentication.success",
        "connection.created",
        "channel.created",
        "exchange.created",
        "queue.created",
        "binding.created",
        "consumer.created",
        "consumer.deleted",
        "binding.deleted",
        "queue.deleted",
        "exchange.deleted",
        "channel.closed",
        "connection.closed",
    ];
    assert_eq!(keys(&events), expected);
    let at: HashMap<&str, &HashMap<String, String>> =
        events.iter().map(|(key, headers)| (key.as_str(), headers)).collect();
    let check = |key: &str, expected: &[(&str, &str)]| {
        for (name, value) in expected {
            assert_eq!(at[key].get(*name).map(String::as_str), Some(*value), "{name} of {key}: {:?}", at[key]);
        }
        assert!(at[key]["timestamp_in_ms"].parse::<u64>().unwrap() > 1_600_000_000_000, "{key} has its time");
    };
    check("user.authentication.success", &[("name", "guest"), ("auth_mechanism", "PLAIN"), ("peer_host", "127.0.0.1")]);
    check("connection.created", &[("user", "guest"), ("vhost", "other"), ("frame_max", "131072"), ("ssl", "false")]);
    check("channel.created", &[("number", "1"), ("vhost", "other"), ("connection", &at["connection.closed"]["pid"])]);
    check("exchange.created", &[("name", "x"), ("type", "fanout"), ("durable", "false"), ("vhost", "other")]);
    let queue = [("name", "q"), ("type", "classic"), ("durable", "true"), ("user_who_performed_action", "guest")];
    check("queue.created", &queue);
    let binding =
        [("source_name", "x"), ("destination_name", "q"), ("destination_kind", "queue"), ("routing_key", "k")];
    check("binding.created", &binding);
    check("binding.deleted", &binding);
    let consumer = [("consumer_tag", "c"), ("queue", "q"), ("channel", at["channel.created"]["pid"].as_str())];
    check("consumer.created", &consumer);
    check("consumer.created", &[("prefetch_count", "7"), ("ack_required", "true"), ("exclusive", "false")]);
    check("consumer.deleted", &consumer);
    check("queue.deleted", &[("name", "q"), ("vhost", "other"), ("user_who_performed_action", "guest")]);
    check("exchange.deleted", &[("name", "x")]);
}

#[test]
fn a_lost_socket_ends_everything_in_its_order() {
    let broker = BrokerProcess::with_topology(TOPOLOGY);
    let mut watcher = Watcher::new(&broker, "amq.rabbitmq.event", "#");
    watcher.until("consumer.created");
    let mut client = connect(&broker, &Login::guest("other")).unwrap();
    call(&mut client, "channel.open", &[]);
    call(&mut client, "queue.declare", &[("queue", text("q")), ("exclusive", Field::Bit(true))]);
    call(&mut client, "basic.consume", &[("queue", text("q"))]);
    watcher.until("consumer.created");
    drop(client);
    let events = watcher.until("connection.closed");
    assert_eq!(keys(&events), ["consumer.deleted", "channel.closed", "queue.deleted", "connection.closed"]);
    assert_eq!(events[2].1["user_who_performed_action"], "guest", "the queue was its own");
}

#[test]
fn a_refused_login_is_told_and_logged() {
    let broker = BrokerProcess::with_topology(TOPOLOGY);
    let mut watcher = Watcher::new(&broker, "amq.rabbitmq.event", "user.authentication.*");
    let login = Login { password: "wrong".into(), ..Login::guest("/") };
    connect(&broker, &login).err().expect("the password is wrong");
    let (key, headers) = watcher.event();
    assert_eq!((key.as_str(), headers["name"].as_str()), ("user.authentication.failure", "guest"));
    assert!(headers["error"].contains("wrong password"), "{headers:?}");

    let mut lines = Watcher::new(&broker, "amq.rabbitmq.log", "warning");
    connect(&broker, &login).err().expect("the password is wrong");
    // That the first of them has closed its socket may be told in between.
    let (key, properties, _) = std::iter::repeat_with(|| lines.next())
        .find(|(_, _, line)| line.starts_with("login refused"))
        .expect("there are always more, until the deadline");
    assert_eq!(key, "warning");
    assert!(properties.contains(&("content-type", text("text/plain"))), "{properties:?}");
}

#[test]
fn the_exchanges_are_there_only_where_the_file_says_so() {
    let broker = BrokerProcess::with_topology(TOPOLOGY);
    for exchange in ["amq.rabbitmq.event", "amq.rabbitmq.log"] {
        let passive = [("exchange", text(exchange)), ("passive", Field::Bit(true))];
        let mut client = connect(&broker, &Login::guest("/")).unwrap();
        call(&mut client, "channel.open", &[]);
        call(&mut client, "exchange.declare", &passive);
        let mut client = connect(&broker, &Login::guest("other")).unwrap();
        call(&mut client, "channel.open", &[]);
        client.call(1, "exchange.declare", &passive);
        client.wait_for(1, "channel.close").unwrap();
    }
}

/// Semantics 29.2: `user_who_performed_action`, as whoever changes settings is called.
#[test]
fn changes_of_settings_are_told_with_who_made_them() {
    let folder = TempDir::new("events-of-settings");
    let topology = folder.write("topology.yaml", TOPOLOGY);
    let broker = BrokerOptions::default().http().topology(topology).start().unwrap();
    let guest = Http::new(broker.http());
    assert_eq!(guest.put("/users/alice", &json!({"password": "a", "tags": "administrator"})), 201);
    let alice = guest.clone().login("alice", "a");
    assert_eq!(alice.put("/queues/other/q", &json!({"durable": true})), 401, "she may not enter");
    assert_eq!(guest.put("/queues/other/q", &json!({"durable": true})), 201);
    let mut watcher = Watcher::new(&broker, "amq.rabbitmq.event", "#");
    watcher.until("consumer.created");
    let policy = json!({"pattern": "^q", "definition": {"max-length": 5}, "priority": 3});
    assert_eq!(alice.put("/vhosts/new", &json!({})), 201);
    assert_eq!(alice.put("/policies/other/p", &policy), 201);
    assert_eq!(alice.delete("/policies/other/p"), 204);
    assert_eq!(alice.put("/vhost-limits/other/max-queues", &json!({"value": 9})), 204);
    assert_eq!(alice.put("/parameters/settings/other/s", &json!({"value": {"a": 1}})), 201);
    assert_eq!(alice.put("/global-parameters/g", &json!({"value": 1})), 201);
    assert_eq!(alice.put("/users/bob", &json!({"password": "b", "tags": "monitoring"})), 201);
    let nothing = json!({"configure": "", "write": "", "read": ""});
    assert_eq!(alice.put("/permissions/other/bob", &nothing), 201);
    let imported = json!({"queues": [{"name": "brought", "vhost": "new", "durable": true}]});
    assert_eq!(alice.post("/definitions", &imported).status, 204);
    assert_eq!(alice.delete("/users/bob"), 204);
    assert_eq!(alice.delete("/vhosts/new"), 204);
    let events = watcher.until("vhost.deleted");
    let settings: Vec<&(String, HashMap<String, String>)> =
        events.iter().filter(|(key, _)| !key.starts_with("user.authentication")).collect();
    for (key, headers) in &settings {
        assert_eq!(headers.get("user_who_performed_action").map(String::as_str), Some("alice"), "{key}: {headers:?}");
    }
    let expected = [
        "vhost.created",
        "permission.created",
        "queue.policy.updated",
        "policy.set",
        "queue.policy.cleared",
        "policy.cleared",
        "vhost.limits.set",
        "parameter.set",
        "parameter.set",
        "user.created",
        "user.tags.set",
        "permission.created",
        "queue.created",
        "permission.deleted",
        "user.deleted",
    ];
    let keys: Vec<&str> = settings.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys[..expected.len()], expected);
    let updated = &settings[2].1;
    assert_eq!((updated["name"].as_str(), updated["type"].as_str()), ("q", "rabbit_classic_queue"));
    assert_eq!((updated["pattern"].as_str(), updated["priority"].as_str()), ("^q", "3"));
}
