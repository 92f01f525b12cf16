//! Golden answers of a RabbitMQ 3.10.8 that one client published to and consumed from (rates mode `detailed`): the broker's have the same keys with values of the
//! same types, while the same traffic goes on.

use super::{broker, shape};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use serde_json::{Value, json};
use tests::http::Http;
use tokio::runtime::Runtime;

/// What was captured: file, and the request for it.
const SAMPLES: &[(&str, &str, &str)] = &[
    ("overview", "/overview", include_str!("samples/overview.json")),
    ("nodes", "/nodes", include_str!("samples/nodes.json")),
    ("connections", "/connections", include_str!("samples/connections.json")),
    ("channels", "/channels", include_str!("samples/channels.json")),
    ("consumers", "/consumers", include_str!("samples/consumers.json")),
    ("queues", "/queues", include_str!("samples/queues.json")),
    ("exchanges", "/exchanges", include_str!("samples/exchanges.json")),
    ("vhosts", "/vhosts", include_str!("samples/vhosts.json")),
    ("users", "/users", include_str!("samples/users.json")),
    ("permissions", "/permissions", include_str!("samples/permissions.json")),
    ("policies", "/policies", include_str!("samples/policies.json")),
    ("vhost-limits", "/vhost-limits", include_str!("samples/vhost-limits.json")),
    ("user-limits", "/user-limits", include_str!("samples/user-limits.json")),
    ("definitions", "/definitions", include_str!("samples/definitions.json")),
    ("definitions-vhost", "/definitions/v1", include_str!("samples/definitions-vhost.json")),
    ("queue-by-name", "/queues/%2F/orders.eu", include_str!("samples/queue-by-name.json")),
    ("exchange-by-name", "/exchanges/%2F/orders", include_str!("samples/exchange-by-name.json")),
    (
        "queue-with-samples",
        "/queues/%2F/orders.eu?lengths_age=30&lengths_incr=5&msg_rates_age=30&msg_rates_incr=5&columns=messages,messages_details,message_stats",
        include_str!("samples/queue-with-samples.json"),
    ),
    (
        "queues-paged",
        "/queues?page=1&page_size=2&columns=name,vhost,messages",
        include_str!("samples/queues-paged.json"),
    ),
    ("bindings-e-x1-q-q1", "/bindings/%2F/e/x1/q/q1", include_str!("samples/bindings-e-x1-q-q1.json")),
];

/// Keys that this broker has a reason not to have.
fn is_expected_to_miss(sample: &str, key: &str) -> bool {
    match key {
        // Nobody counts for one queue what is read from disk or written to it.
        "disk_reads" | "disk_reads_details" | "disk_writes" | "disk_writes_details" => sample != "overview",
        // Left out in the definitions of one vhost by RabbitMQ 4.
        "vhost" => sample == "definitions-vhost",
        // Two averages need two samples, which are five seconds apart.
        "avg" | "avg_rate" => true,
        // Federation's helper, which nobody may declare.
        "internal_purpose" => true,
        // Everything is idle after a while, and not at the same time as there.
        "idle_since" => true,
        // Of a context that is Prometheus'.
        "protocol" => matches!(sample, "nodes" | "overview"),
        _ => false,
    }
}

/// The queues and exchanges of the samples.
pub(super) fn declare(http: &Http) {
    for (path, body) in [
        ("/exchanges/%2F/orders", json!({"type": "topic", "durable": true})),
        ("/exchanges/%2F/orders.dlx", json!({"type": "fanout", "durable": true})),
        ("/exchanges/%2F/x1", json!({"type": "topic", "durable": true})),
        ("/queues/%2F/audit", json!({"durable": true, "arguments": {"x-queue-type": "quorum"}})),
        ("/queues/%2F/dead", json!({"durable": true})),
        (
            "/queues/%2F/orders.eu",
            json!({"durable": true, "arguments": {"x-dead-letter-exchange": "orders.dlx", "x-message-ttl": 600_000}}),
        ),
        ("/queues/%2F/q1", json!({"durable": true})),
        ("/vhosts/v1", json!({})),
        ("/users/u1", json!({"password": "p", "tags": "management,policymaker"})),
        ("/permissions/v1/u1", json!({"configure": ".*", "write": ".*", "read": ".*"})),
        ("/topic-permissions/v1/u1", json!({"exchange": "amq.topic", "write": "^a", "read": ".*"})),
        (
            "/policies/v1/p1",
            json!({"pattern": "^amq.", "definition": {"max-length": 10}, "priority": 1, "apply-to": "queues"}),
        ),
        (
            "/operator-policies/v1/o1",
            json!({"pattern": ".*", "definition": {"expires": 1_000_000}, "apply-to": "queues"}),
        ),
        ("/vhost-limits/v1/max-connections", json!({"value": 10})),
        ("/user-limits/u1/max-channels", json!({"value": 10})),
        ("/global-parameters/gp", json!({"value": {"a": 1}})),
    ] {
        let status = http.put(path, &body);
        assert!(status == 201 || status == 204, "{path}: {status}");
    }
    for (path, body) in [
        ("/bindings/%2F/e/orders/q/audit", json!({"routing_key": "#"})),
        ("/bindings/%2F/e/orders/q/dead", json!({"routing_key": "#"})),
        ("/bindings/%2F/e/orders/q/orders.eu", json!({"routing_key": "eu.#"})),
        ("/bindings/%2F/e/x1/q/q1", json!({"routing_key": "a b"})),
        ("/bindings/%2F/e/x1/q/q1", json!({"routing_key": "k", "arguments": {"x": 1}})),
    ] {
        assert_eq!(http.post(path, &body).status, 201, "{path}");
    }
}

/// One client with a channel that publishes with confirms and one that consumes and acks, both still open.
pub(super) async fn traffic(address: std::net::SocketAddr) -> (Connection, Channel, Consumer) {
    let properties = ConnectionProperties::default().with_connection_name("demo-app".into());
    let connection = Connection::connect(&format!("amqp://guest:guest@{address}/%2f"), properties).await.unwrap();
    let publisher = connection.create_channel().await.unwrap();
    publisher.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    for number in 0..60 {
        let properties = BasicProperties::default().with_delivery_mode(2).with_timestamp(1_700_000_000);
        let options = BasicPublishOptions::default();
        let key = if number % 2 == 0 { "eu.new" } else { "us.new" };
        publisher
            .basic_publish("orders".into(), key.into(), options, b"order", properties)
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let consumer = connection.create_channel().await.unwrap();
    consumer.basic_qos(20, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut deliveries =
        consumer.basic_consume("orders.eu".into(), "ctag".into(), options, FieldTable::default()).await.unwrap();
    for _ in 0..5 {
        let delivery = futures_lite::StreamExt::next(&mut deliveries).await.unwrap().unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    // The acks have arrived when a request behind them is answered.
    consumer.basic_qos(20, BasicQosOptions::default()).await.unwrap();
    (connection, publisher, deliveries)
}

#[test]
fn answers_have_the_keys_and_types_of_the_samples() {
    let (broker, http) = broker();
    declare(&http);
    let runtime = Runtime::new().unwrap();
    let _client = runtime.block_on(traffic(broker.address()));
    let mut found = Vec::new();
    for (name, path, text) in SAMPLES {
        let sample: Value = serde_json::from_str(text).unwrap();
        let ours = http.get(path);
        shape::compare(name, &ours, &sample, &|_, key| is_expected_to_miss(name, key), &mut found);
        let is_empty = ours.as_array().is_some_and(Vec::is_empty);
        assert!(!is_empty, "{path} lists nothing, so nothing of it was compared");
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_is_counted_is_what_was_done() {
    let (broker, http) = broker();
    declare(&http);
    let runtime = Runtime::new().unwrap();
    let (connection, _publisher, _consumer) = runtime.block_on(traffic(broker.address()));
    let queue = http.get("/queues/%2F/orders.eu");
    let check = |value: &Value, path: &str, expected: Value| {
        assert_eq!(value.pointer(path), Some(&expected), "{path} of {value}");
    };
    check(&queue, "/messages", json!(25));
    check(&queue, "/messages_unacknowledged", json!(20));
    check(&queue, "/consumers", json!(1));
    check(&queue, "/message_stats/publish", json!(30));
    check(&queue, "/message_stats/ack", json!(5));
    check(&queue, "/message_stats/deliver_get", json!(25));
    check(&queue, "/consumer_details/0/consumer_tag", json!("ctag"));
    check(&queue, "/incoming/0/exchange/name", json!("orders"));
    check(&queue, "/incoming/0/stats/publish", json!(30));
    check(&queue, "/deliveries/0/stats/deliver_get", json!(25));
    let exchange = http.get("/exchanges/%2F/orders");
    check(&exchange, "/message_stats/publish_in", json!(60));
    check(&exchange, "/message_stats/publish_out", json!(150));
    check(&exchange, "/incoming/0/stats/confirm", json!(60));
    assert_eq!(exchange["outgoing"].as_array().map(Vec::len), Some(3));
    let overview = http.get("/overview");
    check(&overview, "/object_totals/connections", json!(1));
    check(&overview, "/object_totals/channels", json!(2));
    check(&overview, "/object_totals/consumers", json!(1));
    check(&overview, "/queue_totals/messages", json!(145));
    check(&overview, "/message_stats/publish", json!(60));
    let channels = http.get("/channels");
    check(&channels, "/0/confirm", json!(true));
    check(&channels, "/0/message_stats/confirm", json!(60));
    check(&channels, "/1/messages_unacknowledged", json!(20));
    check(&channels, "/1/prefetch_count", json!(20));
    let name = channels[1]["name"].as_str().unwrap().to_owned();
    let channel = http.get(&format!("/channels/{}", name.replace(' ', "%20").replace('>', "%3E")));
    check(&channel, "/deliveries/0/queue/name", json!("orders.eu"));
    check(&channel, "/consumer_details/0/queue/name", json!("orders.eu"));
    // Facts alone, and facts with totals.
    let facts = http.get("/queues/%2F/orders.eu?disable_stats=true");
    assert_eq!((facts.get("messages"), facts.get("message_stats"), &facts["durable"]), (None, None, &json!(true)));
    let totals = http.get("/queues/%2F/orders.eu?disable_stats=true&enable_queue_totals=true");
    assert_eq!((&totals["messages"], totals.get("messages_details")), (&json!(25), None));
    // Of everything else only what it is, too.
    let facts = http.get("/overview?disable_stats=true");
    assert_eq!((facts.get("message_stats"), facts.get("queue_totals"), facts.get("churn_rates")), (None, None, None));
    assert_eq!((&facts["object_totals"]["queues"], &facts["disable_stats"]), (&json!(4), &json!(true)));
    let facts = http.get("/nodes?disable_stats=true");
    assert_eq!((facts[0].get("mem_used"), &facts[0]["running"]), (None, &json!(true)));
    let facts = http.get("/connections?disable_stats=true");
    assert_eq!((facts[0].get("recv_oct_details"), &facts[0]["user"]), (None, &json!("guest")));
    let facts = http.get("/channels?disable_stats=true");
    assert_eq!((facts[1].get("message_stats"), &facts[1]["consumer_count"]), (None, &json!(1)));
    drop(connection);
}

#[test]
fn figures_of_the_node_are_not_made_up() {
    let folder = tests::temp::TempDir::new("management-figures");
    let options = tests::broker_process::BrokerOptions::default().http();
    let broker = options.argument("--data").argument(folder.path().display().to_string()).start().unwrap();
    let http = Http::new(broker.http());
    declare(&http);
    let runtime = Runtime::new().unwrap();
    let _client = runtime.block_on(traffic(broker.address()));
    let node = http.get("/nodes")[0].clone();
    for name in ["msg_store_write_count", "io_write_count", "io_write_bytes", "io_sync_count", "proc_used"] {
        assert!(node[name].as_u64() > Some(0) && node[format!("{name}_details")]["rate"].is_number(), "{name}: {node}");
    }
    assert!(node["io_sync_avg_time"].as_f64() > Some(0.0), "{node}");
    // Each of 60 lasting messages goes to two queues or three, which are all durable.
    assert!(http.get("/overview")["message_stats"]["disk_writes"].as_u64() >= Some(60));
    let again = http.get("/nodes")[0].clone();
    assert!(again["context_switches"].as_u64() > node["context_switches"].as_u64(), "threads slept in between");
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    let (_broker, http) = broker();
    for (path, age, incr) in [("/overview", 60, 0), ("/queues", 0, 5), ("/nodes", 100_000, 1)] {
        let answer = http.send("GET", &format!("{path}?msg_rates_age={age}&msg_rates_incr={incr}"), b"");
        let reason = format!("Invalid range parameters: age {age}, incr {incr}");
        assert_eq!((answer.status, answer.refusal()), (400, ("bad_request".to_owned(), reason)), "{path}");
    }
    assert_eq!(http.send("GET", "/overview?msg_rates_age=x&msg_rates_incr=5", b"").status, 200);
}

#[test]
fn connections_are_closed_with_the_reason_that_was_given() {
    let (broker, http) = broker();
    http.put("/users/u", &json!({"password": "p", "tags": "management"}));
    http.put("/users/other", &json!({"password": "p", "tags": "monitoring"}));
    http.put("/permissions/%2F/u", &json!({"configure": ".*", "write": ".*", "read": ".*"}));
    let runtime = Runtime::new().unwrap();
    let connect = || {
        let uri = format!("amqp://u:p@{}/%2f", broker.address());
        runtime.block_on(Connection::connect(&uri, ConnectionProperties::default())).unwrap()
    };
    let names = |http: &Http| -> Vec<String> {
        let list = http.get("/connections");
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let path = |name: &str| format!("/connections/{}", name.replace(' ', "%20").replace('>', "%3E"));
    let connection = connect();
    let (u, other) = (http.clone().login("u", "p"), http.clone().login("other", "p"));
    let name = names(&u)[0].clone();
    assert_eq!(names(&other), [name.as_str()], "who monitors sees all");
    assert_eq!(other.delete(&path(&name)), 401, "and closes nothing");
    assert_eq!(other.get(&path(&name))["user"], "u");
    let mut events = std::pin::pin!(connection.events_listener());
    assert_eq!(u.clone().header("x-reason", "because I said so").delete(&path(&name)), 204);
    let closed = async {
        loop {
            match futures_lite::StreamExt::next(&mut events).await {
                Some(lapin::Event::Error(error)) => return error.to_string(),
                Some(_) => {}
                None => return "no error".to_owned(),
            }
        }
    };
    let reason = runtime.block_on(closed);
    assert!(reason.contains("because I said so"), "{reason}");
    wait_until(|| names(&http).is_empty());
    assert_eq!(u.delete(&path(&name)), 404);
    let _two = (connect(), connect());
    wait_until(|| http.get("/connections/username/u").as_array().unwrap().len() == 2);
    assert_eq!(other.delete("/connections/username/u"), 401);
    assert_eq!(http.delete("/connections/username/u"), 204);
    wait_until(|| names(&http).is_empty());
}

/// Asks again and again until it is so, for as long as a test may take.
fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "it did not come to it in time");
        std::thread::yield_now();
    }
}
