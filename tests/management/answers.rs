//! Endpoints that no client of the other tests asks: what they answer.

use super::broker;
use super::golden::{declare, traffic};
use serde_json::{Value, json};
use tests::http::Http;
use tokio::runtime::Runtime;

/// A path, and keys of its answer: of the object, or of each item of a list, which is not empty.
const TABLE: &[(&str, &[&str])] = &[
    ("/queues/detailed", &["name", "messages_details", "message_bytes", "effective_policy_definition"]),
    ("/consumers/%2F", &["consumer_tag", "queue", "channel_details", "ack_required"]),
    ("/vhosts/%2F/connections", &["name", "vhost", "recv_oct_details"]),
    ("/vhosts/%2F/channels", &["name", "number", "connection_details"]),
    ("/topic-permissions", &["user", "vhost", "exchange", "write", "read"]),
    ("/topic-permissions/v1/u1", &["user", "vhost", "exchange", "write", "read"]),
    ("/vhosts/v1/topic-permissions", &["user", "vhost", "exchange", "write", "read"]),
    ("/users/u1/topic-permissions", &["user", "vhost", "exchange", "write", "read"]),
    ("/vhosts/v1/permissions", &["user", "vhost", "configure", "write", "read"]),
    ("/users/guest/queues", &["name", "vhost"]),
    ("/all-configuration", &["users", "queues", "rabbitmq_definition_format"]),
    ("/nodes/broker@localhost/memory", &["memory"]),
    ("/nodes/broker@localhost/memory/relative", &["memory"]),
    ("/feature-flags", &["name", "state", "stability"]),
    ("/auth", &["oauth_enabled"]),
    ("/healthchecks/node", &["status"]),
];

fn keys_of<'a>(answer: &'a Value, path: &str) -> Vec<&'a serde_json::Map<String, Value>> {
    match answer {
        Value::Object(object) => vec![object],
        Value::Array(items) => {
            assert!(!items.is_empty(), "{path} lists nothing");
            items.iter().map(|item| item.as_object().unwrap()).collect()
        }
        other => panic!("{path}: {other}"),
    }
}

#[test]
fn answers_have_the_keys_that_clients_read() {
    let (broker, http) = broker();
    declare(&http);
    let _client = Runtime::new().map(|runtime| (runtime.block_on(traffic(broker.address())), runtime)).unwrap();
    for (path, keys) in TABLE {
        let answer = http.get(path);
        for object in keys_of(&answer, path) {
            let missing: Vec<_> = keys.iter().filter(|key| !object.contains_key(**key)).collect();
            assert!(missing.is_empty(), "{path}: without {missing:?}: {object:?}");
        }
    }
    let name = http.get("/connections")[0]["name"].as_str().unwrap().replace(' ', "%20").replace('>', "%3E");
    let channels = http.get(&format!("/connections/{name}/channels"));
    assert_eq!(channels.as_array().map(Vec::len), Some(2));
    // RabbitMQ has no pages here, whatever is asked.
    for path in ["/vhosts/%2F/connections", "/vhosts/%2F/channels", &format!("/connections/{name}/channels")] {
        assert_eq!(http.get(&format!("{path}?page=1&page_size=1")), http.get(path), "{path}");
    }
    let relative = http.get("/nodes/broker@localhost/memory/relative");
    assert_eq!(relative["memory"]["total"], 100, "in percent");
}

#[test]
fn small_answers_are_what_they_are_in_rabbitmq() {
    let (_broker, http) = broker();
    declare(&http);
    assert!(http.get("/version").as_str().is_some_and(|version| version.starts_with('4')));
    for path in ["/extensions", "/deprecated-features", "/deprecated-features/used"] {
        assert!(http.get(path).is_array(), "{path}");
    }
    assert_eq!(http.post("/rebalance/queues", &json!({})).status, 204);
    assert_eq!(http.delete("/topic-permissions/v1/u1/amq.topic"), 204);
    assert_eq!(http.get("/vhosts/v1/topic-permissions"), json!([]));
    let form = Http::new(http.address()).anonymous().header("content-type", "application/x-www-form-urlencoded");
    let login = form.send("POST", "/login", b"username=guest&password=guest").json();
    assert_eq!((&login["token"]["type"], &login["user"]["name"]), (&json!("basic"), &json!("guest")));
    // What it gives is what a request carries.
    let header = format!("Basic {}", login["token"]["value"].as_str().unwrap());
    let whoami = Http::new(http.address()).anonymous().header("authorization", &header).get("/whoami");
    assert_eq!(whoami["name"], "guest");
    assert_eq!(form.send("DELETE", "/login", b"").status, 204);
}
