//! Publishing and getting.

use super::{broker, broker_with, m, payloads};
use serde_json::{Value, json};
use tests::http::Http;

fn publish(http: &Http, key: &str, payload: &str) -> Value {
    let body = json!({"properties": {"delivery_mode": 2}, "routing_key": key, "payload": payload, "payload_encoding": "string"});
    let answer = http.post("/exchanges/%2F/amq.default/publish", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["routed"].clone()
}

fn get(http: &Http, mode: &str, count: i64) -> Vec<(String, bool)> {
    let body = json!({"count": count, "ackmode": mode, "encoding": "auto"});
    let answer = http.post("/queues/%2F/q/get", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    payloads(&answer.json())
}

#[test]
fn messages_that_go_back_keep_their_places() {
    let (_broker, http) = broker();
    http.put("/queues/%2F/q", &json!({"durable": true}));
    for payload in ["1", "2", "3"] {
        assert_eq!(publish(&http, "q", payload), json!(true));
    }
    assert_eq!(publish(&http, "nowhere", "x"), json!(false));
    assert_eq!(get(&http, "ack_requeue_true", 2), [m("1", false), m("2", false)]);
    assert_eq!(get(&http, "reject_requeue_true", 5), [m("1", true), m("2", true), m("3", false)]);
    assert_eq!(get(&http, "reject_requeue_false", 1), [m("1", true)]);
    assert_eq!(get(&http, "ack_requeue_false", -1), [m("2", true), m("3", true)]);
    assert_eq!(get(&http, "ack_requeue_false", 1), []);
}

#[test]
fn what_is_no_text_is_base64() {
    let (_broker, http) = broker();
    http.put("/queues/%2F/q", &json!({}));
    let body = json!({"properties": {}, "routing_key": "q", "payload": "/wD/", "payload_encoding": "base64"});
    assert_eq!(http.post("/exchanges/%2F/amq.default/publish", &body).status, 200);
    let get = |truncate: Option<u32>, encoding: &str, mode: &str| {
        let body = json!({"count": "1", "ackmode": mode, "encoding": encoding, "truncate": truncate});
        http.post("/queues/%2F/q/get", &body).json()[0].clone()
    };
    let message = get(None, "auto", "ack_requeue_true");
    assert_eq!((&message["payload"], &message["payload_encoding"]), (&json!("/wD/"), &json!("base64")));
    assert_eq!(
        (&message["payload_bytes"], &message["properties"], &message["message_count"]),
        (&json!(3), &json!({}), &json!(0))
    );
    let message = get(Some(1), "auto", "ack_requeue_false");
    assert_eq!((&message["payload"], &message["payload_bytes"]), (&json!("/w=="), &json!(3)));
}

#[test]
fn a_full_queue_that_refuses_says_so() {
    let (_broker, http) = broker();
    http.put("/queues/%2F/q", &json!({"arguments": {"x-max-length": 1, "x-overflow": "reject-publish"}}));
    assert_eq!(publish(&http, "q", "1"), json!(true));
    let body = json!({"properties": {}, "routing_key": "q", "payload": "2", "payload_encoding": "string"});
    let answer = http.post("/exchanges/%2F/amq.default/publish", &body);
    let reason = "rejected Unable to publish message. Check queue limits.".to_owned();
    assert_eq!((answer.status, answer.refusal()), (400, ("bad_request".to_owned(), reason)));
}

#[test]
fn publishing_and_getting_need_the_permissions_of_amqp() {
    let (_broker, http) = broker();
    http.put("/queues/%2F/q", &json!({}));
    http.put("/users/u", &json!({"password": "p", "tags": "management"}));
    http.put("/permissions/%2F/u", &json!({"configure": "", "write": "^$", "read": "^other"}));
    let user = http.clone().login("u", "p");
    let body = json!({"properties": {}, "routing_key": "q", "payload": "x", "payload_encoding": "string"});
    let refused = |answer: tests::http::Answer| {
        assert_eq!((answer.status, answer.refusal().0.as_str()), (401, "not_authorised"), "{}", answer.text());
    };
    refused(user.post("/exchanges/%2F/amq.default/publish", &body));
    refused(user.post("/queues/%2F/q/get", &json!({"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"})));
    refused(user.send("DELETE", "/queues/%2F/q/contents", b""));
    refused(user.send("DELETE", "/queues/%2F/q", b""));
    refused(user.send("PUT", "/queues/%2F/new", b"{}"));
    refused(user.send("PUT", "/exchanges/%2F/new", b"{}"));
    refused(user.post("/bindings/%2F/e/amq.fanout/q/q", &json!({})));
    assert_eq!(http.get("/queues").as_array().unwrap().len(), 1, "nothing was changed");
    let administrator = json!({"password": "p", "tags": "administrator"});
    http.put("/users/stranger", &administrator);
    let stranger = http.login("stranger", "p");
    assert_eq!(stranger.get("/queues").as_array().unwrap().len(), 1, "administrators see everything");
    refused(stranger.send("PUT", "/queues/%2F/new", b"{}"));
    refused(stranger.post("/exchanges/%2F/amq.default/publish", &body));
}

#[test]
fn hooks_see_what_is_published() {
    let folder = tests::temp::TempDir::new("management-hooks");
    folder.write("hook.lua", "return { on_publish = function(msg) broker.reject('no') end }\n");
    let topology = folder.write("topology.yaml", "vhosts: { /: { hooks: [hook.lua], queues: [q] } }\n");
    let broker = tests::broker_process::BrokerOptions::default().http().topology(topology).start().unwrap();
    let http = Http::new(broker.http());
    let body = json!({"properties": {}, "routing_key": "q", "payload": "2", "payload_encoding": "string"});
    let answer = http.post("/exchanges/%2F/amq.default/publish", &body);
    assert_eq!(answer.status, 400, "{}", answer.text());
}

#[test]
fn messages_above_the_limit_are_refused() {
    let (_broker, http) = broker_with("limits: { message_bytes_max: 10 }\nvhosts: { /: { queues: [q] } }\n");
    let body =
        |payload: &str| json!({"properties": {}, "routing_key": "q", "payload": payload, "payload_encoding": "string"});
    assert_eq!(http.post("/exchanges/%2F/amq.default/publish", &body("0123456789")).status, 200);
    let answer = http.post("/exchanges/%2F/amq.default/publish", &body("0123456789a"));
    assert_eq!(answer.status, 400);
    assert!(
        answer.refusal().1.starts_with("406 PRECONDITION_FAILED - message size 11 is larger than"),
        "{}",
        answer.text()
    );
}

#[test]
fn messages_that_an_exchange_puts_off_are_counted() {
    let (_broker, http) = broker();
    let exchange = json!({"type": "x-delayed-message", "durable": true, "arguments": {"x-delayed-type": "fanout"}});
    assert_eq!(http.put("/exchanges/%2F/late", &exchange), 201);
    assert_eq!(http.get("/exchanges/%2F/late").get("messages_delayed"), None, "it has put nothing off");
    let properties = json!({"delivery_mode": 2, "headers": {"x-delay": 3_600_000}});
    let body = json!({"properties": properties, "routing_key": "", "payload": "m", "payload_encoding": "string"});
    for count in 1..=2 {
        let answer = http.post("/exchanges/%2F/late/publish", &body);
        assert_eq!((answer.status, answer.json()["routed"].clone()), (200, json!(true)));
        assert_eq!(http.get("/exchanges/%2F/late")["messages_delayed"], json!(count));
    }
    assert_eq!(http.get("/exchanges/%2F/amq.fanout").get("messages_delayed"), None);
}

#[test]
fn messages_over_http_are_counted_for_the_node() {
    let (_broker, http) = broker();
    http.put("/queues/%2F/q", &json!({}));
    for key in ["q", "q", "q", "nowhere"] {
        publish(&http, key, "12345");
    }
    get(&http, "ack_requeue_true", 2);
    get(&http, "ack_requeue_false", 4);
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let page = http.raw(request, false).unwrap().text();
    let value = |name: &str, labels: &str| -> f64 {
        let line =
            page.lines().find(|line| line.starts_with(&format!("rabbitmq_global_{name}{{")) && line.contains(labels));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(-1.0)
    };
    for (name, expected) in [
        ("messages_received_total", 4.0),
        ("messages_received_confirm_total", 4.0),
        ("messages_routed_total", 3.0),
        ("messages_confirmed_total", 4.0),
        ("messages_unroutable_returned_total", 1.0),
        ("messages_unroutable_dropped_total", 0.0),
    ] {
        assert_eq!(value(name, "amqp091"), expected, "{name}");
    }
    let classic = "rabbit_classic_queue";
    assert_eq!(value("messages_delivered_get_manual_ack_total", classic), 2.0, "{page}");
    assert_eq!(value("messages_delivered_get_auto_ack_total", classic), 3.0);
    assert_eq!(value("messages_get_empty_total", classic), 1.0);
    assert_eq!(value("messages_redelivered_total", classic), 2.0);
    let stats = http.get("/overview")["message_stats"].clone();
    assert_eq!((&stats["publish"], &stats["get"], &stats["get_no_ack"]), (&json!(4), &json!(2), &json!(3)), "{stats}");
    assert_eq!(http.get("/exchanges/%2F/amq.default")["message_stats"]["publish_in"], json!(4));
}

#[test]
fn purge_with_a_count_drops_the_first_ones() {
    let (_broker, http) = broker();
    http.put("/queues/%2F/dead", &json!({}));
    let arguments = json!({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"});
    http.put("/queues/%2F/q", &json!({"durable": true, "arguments": arguments}));
    let publish = |payload: &str| assert_eq!(publish(&http, "q", payload), json!(true));
    ["1", "2", "3", "4", "5"].into_iter().for_each(publish);
    let left = |count: usize| {
        let seen = http.get("/x/queues/%2F/q/browse");
        assert_eq!(seen["ready"], count, "{seen}");
        payloads(&seen["messages"])
    };
    for nothing in ["?count=0", "?count=-1", "?count=x", "?count="] {
        let expected = if nothing == "?count=0" { 204 } else { 400 };
        assert_eq!(http.delete(&format!("/queues/%2F/q/contents{nothing}")), expected, "{nothing}");
        left(5);
    }
    assert_eq!(http.delete("/queues/%2F/q/contents?count=2"), 204);
    assert_eq!(left(3), [m("3", false), m("4", false), m("5", false)]);
    assert_eq!(http.delete("/queues/%2F/q/contents?count=100"), 204);
    left(0);
    publish("6");
    assert_eq!(http.delete("/queues/%2F/q/contents"), 204);
    left(0);
    assert_eq!(http.get("/x/queues/%2F/dead/browse")["ready"], 0, "what is purged is no dead letter");
    assert_eq!(http.delete("/queues/%2F/none/contents?count=1"), 404);
    http.put("/users/u", &json!({"password": "p", "tags": "management"}));
    http.put("/permissions/%2F/u", &json!({"configure": ".*", "write": ".*", "read": ""}));
    publish("7");
    assert_eq!(http.clone().login("u", "p").delete("/queues/%2F/q/contents?count=1"), 401);
    left(1);
}
