//! The same requests to the broker and to a real RabbitMQ 3.10 with its management plugin: the same statuses, the same keys and types in answers.
//!
//! Where versions differ, the broker follows RabbitMQ 4: such requests stand in [`DIFFERENCES`] with what each says, so that neither changes unnoticed.

use super::{broker, shape};
use serde_json::{Value, json};
use tests::http::{Answer, Http};
use tests::oracle::{Definitions, Oracle};

/// Requests in order; each may need what those before it made.
fn requests() -> Vec<(&'static str, &'static str, Value)> {
    let publish = json!({"properties": {"delivery_mode": 2, "headers": {"h": 1}}, "routing_key": "q1", "payload": "x", "payload_encoding": "string"});
    let get = json!({"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"});
    let none = Value::Null;
    vec![
        ("GET", "/whoami", none.clone()),
        ("GET", "/nothing", none.clone()),
        ("POST", "/whoami", none.clone()),
        ("PUT", "/vhosts/v1", json!({"description": "d", "tags": "a,b"})),
        ("PUT", "/vhosts/v1", json!({})),
        ("GET", "/vhosts/none", none.clone()),
        ("DELETE", "/vhosts/none", none.clone()),
        ("PUT", "/users/u1", json!({"password": "p", "tags": "management,policymaker"})),
        ("PUT", "/users/u1", json!({"password": "p", "tags": ["management", "policymaker"]})),
        ("PUT", "/users/u2", json!({"password": "p"})),
        ("PUT", "/users/u2", json!({"password": "p", "password_hash": "x", "tags": ""})),
        ("GET", "/users/u1", none.clone()),
        ("GET", "/users/none", none.clone()),
        ("DELETE", "/users/none", none.clone()),
        ("GET", "/users", none.clone()),
        ("GET", "/users/without-permissions", none.clone()),
        ("PUT", "/permissions/v1/u1", json!({"configure": ".*", "write": ".*"})),
        ("PUT", "/permissions/v1/none", json!({"configure": ".*", "write": ".*", "read": ".*"})),
        ("PUT", "/permissions/v1/u1", json!({"configure": ".*", "write": ".*", "read": ".*"})),
        ("PUT", "/permissions/v1/u1", json!({"configure": ".*", "write": ".*", "read": ".*"})),
        ("GET", "/permissions/v1/u1", none.clone()),
        ("GET", "/permissions/%2F/u1", none.clone()),
        ("GET", "/permissions", none.clone()),
        ("GET", "/users/u1/permissions", none.clone()),
        ("GET", "/vhosts/v1/permissions", none.clone()),
        ("PUT", "/topic-permissions/v1/u1", json!({"exchange": "amq.topic", "write": "^a", "read": ".*"})),
        ("GET", "/topic-permissions/v1/u1", none.clone()),
        ("GET", "/topic-permissions", none.clone()),
        ("GET", "/topic-permissions/%2F/u1", none.clone()),
        ("PUT", "/queues/%2F/q1", json!({"durable": "true", "arguments": {"x-max-length": 10}})),
        ("PUT", "/queues/%2F/q1", json!({"durable": true, "arguments": {"x-max-length": 10}})),
        ("PUT", "/queues/%2F/q1", json!({"durable": false})),
        ("PUT", "/queues/%2F/amq.q", json!({})),
        ("PUT", "/queues/none/q1", json!({})),
        ("PUT", "/queues/%2F/q2", json!({"durable": true, "arguments": {"x-max-length": "x"}})),
        ("GET", "/queues/%2F/none", none.clone()),
        ("DELETE", "/queues/%2F/none", none.clone()),
        ("GET", "/queues/%2F/q1/contents", none.clone()),
        ("PUT", "/exchanges/%2F/x1", json!({"type": "topic", "durable": true})),
        ("PUT", "/exchanges/%2F/x1", json!({"type": "topic", "durable": true})),
        ("PUT", "/exchanges/%2F/x1", json!({"type": "fanout", "durable": true})),
        ("PUT", "/exchanges/%2F/x2", json!({"type": "nope"})),
        ("PUT", "/exchanges/%2F/amq.x", json!({})),
        ("PUT", "/exchanges/none/x", json!({})),
        ("GET", "/exchanges/%2F/x1", none.clone()),
        ("GET", "/exchanges/%2F/none", none.clone()),
        ("GET", "/exchanges", none.clone()),
        ("GET", "/exchanges/v1", none.clone()),
        ("GET", "/exchanges/none", none.clone()),
        ("DELETE", "/exchanges/%2F/amq.topic", none.clone()),
        ("DELETE", "/exchanges/%2F/none", none.clone()),
        ("POST", "/bindings/%2F/e/x1/q/q1", json!({"routing_key": "a b"})),
        ("POST", "/bindings/%2F/e/x1/q/q1", json!({"routing_key": "k", "arguments": {"x": 1}})),
        ("POST", "/bindings/%2F/e/x1/q/none", json!({"routing_key": "k"})),
        ("POST", "/bindings/%2F/e/none/q/q1", json!({"routing_key": "k"})),
        ("POST", "/bindings/%2F/e/amq.default/q/q1", json!({"routing_key": "k"})),
        ("GET", "/bindings/%2F/e/x1/q/q1", none.clone()),
        ("GET", "/bindings/%2F/e/x1/q/q1/a%20b", none.clone()),
        ("GET", "/bindings/%2F/e/x1/q/q1/none", none.clone()),
        ("GET", "/bindings", none.clone()),
        ("GET", "/queues/%2F/q1/bindings", none.clone()),
        ("GET", "/exchanges/%2F/x1/bindings/source", none.clone()),
        ("GET", "/exchanges/%2F/x1/bindings/destination", none.clone()),
        ("GET", "/queues/%2F/none/bindings", none.clone()),
        ("GET", "/exchanges/%2F/none/bindings/source", none.clone()),
        ("GET", "/exchanges/%2F/none/bindings/destination", none.clone()),
        ("GET", "/bindings/%2F/e/none/q/none", none.clone()),
        ("GET", "/queues/none/q1/bindings", none.clone()),
        ("DELETE", "/exchanges/%2F/x1?if-unused=true", none.clone()),
        ("DELETE", "/bindings/%2F/e/x1/q/q1/a%20b", none.clone()),
        ("DELETE", "/bindings/%2F/e/x1/q/q1/a%20b", none.clone()),
        ("POST", "/exchanges/%2F/amq.default/publish", publish.clone()),
        ("POST", "/exchanges/%2F/amq.fanout/publish", publish.clone()),
        ("POST", "/exchanges/%2F/amq.fanout/publish", json!({"properties": {}})),
        ("POST", "/exchanges/%2F/none/publish", publish),
        ("POST", "/queues/%2F/q1/get", get.clone()),
        ("POST", "/queues/%2F/q1/get", json!({"count": 1})),
        ("POST", "/queues/%2F/none/get", get),
        ("DELETE", "/queues/%2F/q1?if-empty=true", none.clone()),
        ("POST", "/queues/%2F/q1/actions", json!({"action": "nonsense"})),
        ("DELETE", "/queues/%2F/q1/contents", none.clone()),
        ("DELETE", "/queues/%2F/none/contents", none.clone()),
        (
            "PUT",
            "/policies/v1/p1",
            json!({"pattern": "^amq.", "definition": {"max-length": 10}, "priority": 1, "apply-to": "queues"}),
        ),
        (
            "PUT",
            "/policies/v1/p1",
            json!({"pattern": "^amq.", "definition": {"max-length": 10}, "priority": 1, "apply-to": "queues"}),
        ),
        ("PUT", "/policies/v1/p2", json!({"pattern": "("})),
        ("PUT", "/policies/v1/p2", json!({"pattern": "(", "definition": {"max-length": 10}})),
        ("PUT", "/policies/v1/p2", json!({"pattern": "", "definition": {"foo": 10}})),
        ("PUT", "/policies/none/p2", json!({"pattern": "", "definition": {"max-length": 10}})),
        ("GET", "/policies/v1/p1", none.clone()),
        ("GET", "/policies/v1/none", none.clone()),
        ("GET", "/policies", none.clone()),
        ("DELETE", "/policies/v1/none", none.clone()),
        (
            "PUT",
            "/operator-policies/v1/o1",
            json!({"pattern": ".*", "definition": {"expires": 1_000_000}, "apply-to": "queues"}),
        ),
        ("GET", "/operator-policies/v1/o1", none.clone()),
        ("GET", "/operator-policies", none.clone()),
        ("PUT", "/vhost-limits/v1/max-connections", json!({"value": 10})),
        ("PUT", "/vhost-limits/v1/nonsense", json!({"value": 10})),
        ("PUT", "/vhost-limits/v1/max-queues", json!({})),
        ("PUT", "/vhost-limits/none/max-queues", json!({"value": 10})),
        ("GET", "/vhost-limits", none.clone()),
        ("GET", "/vhost-limits/v1", none.clone()),
        ("GET", "/vhost-limits/none", none.clone()),
        ("DELETE", "/vhost-limits/v1/max-queues", none.clone()),
        ("PUT", "/user-limits/u1/max-channels", json!({"value": 10})),
        ("GET", "/user-limits", none.clone()),
        ("GET", "/user-limits/u1", none.clone()),
        ("DELETE", "/user-limits/u1/max-channels", none.clone()),
        ("GET", "/parameters", none.clone()),
        ("GET", "/parameters/vhost-limits", none.clone()),
        ("GET", "/parameters/operator_policy/v1/o1", none.clone()),
        ("GET", "/parameters/nothing/v1/o1", none.clone()),
        ("PUT", "/global-parameters/gp", json!({"value": {"a": 1}})),
        ("GET", "/global-parameters/gp", none.clone()),
        ("DELETE", "/global-parameters/gp", none.clone()),
        ("DELETE", "/global-parameters/gp", none.clone()),
        ("GET", "/global-parameters", none.clone()),
        ("GET", "/global-parameters/internal_cluster_id", none.clone()),
        ("PUT", "/parameters/shovel/%2F/s", json!({"value": {"src-uri": "amqp://", "src-queue": "a"}})),
        ("PUT", "/parameters/federation-upstream/%2F/u", json!({"value": {"uri": "amqp://"}})),
        ("GET", "/cluster-name", none.clone()),
        ("GET", "/definitions/v1", none.clone()),
        (
            "POST",
            "/definitions",
            json!({"queues": [{"name": "imported", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}]}),
        ),
        ("GET", "/queues/%2F/imported?columns=name,durable", none.clone()),
        ("GET", "/aliveness-test/%2F", none.clone()),
        ("GET", "/aliveness-test/none", none.clone()),
        ("GET", "/health/checks/alarms", none.clone()),
        ("GET", "/health/checks/local-alarms", none.clone()),
        ("GET", "/health/checks/virtual-hosts", none.clone()),
        ("GET", "/health/checks/node-is-quorum-critical", none.clone()),
        ("GET", "/health/checks/port-listener/1", none.clone()),
        ("GET", "/health/checks/protocol-listener/amqp", none.clone()),
        ("GET", "/health/checks/certificate-expiration/1/days", none.clone()),
        ("GET", "/health/checks/certificate-expiration/1/nonsense", none.clone()),
        ("GET", "/healthchecks/node", none.clone()),
        ("GET", "/feature-flags", none.clone()),
        ("PUT", "/feature-flags/user_limits/enable", json!({})),
        ("PUT", "/feature-flags/none/enable", json!({})),
        ("GET", "/connections", none.clone()),
        ("GET", "/channels", none.clone()),
        ("GET", "/consumers", none.clone()),
        ("GET", "/connections/none", none.clone()),
        ("GET", "/channels/none", none.clone()),
        ("GET", "/queues?page=1&page_size=1&columns=name", none.clone()),
        ("GET", "/queues?page=9", none.clone()),
        ("GET", "/queues?page=1&page_size=900", none.clone()),
        ("GET", "/queues?page=x", none.clone()),
        ("GET", "/exchanges?page=1&page_size=2&name=AMQ&columns=name", none.clone()),
        ("GET", "/vhosts?columns=name", none.clone()),
        ("GET", "/exchanges?sort=type&columns=name,type,vhost", none.clone()),
        ("GET", "/exchanges?sort=name&sort_reverse=true&columns=name,vhost", none),
        ("DELETE", "/queues/%2F/q1", Value::Null),
        ("DELETE", "/exchanges/%2F/x1", Value::Null),
        ("DELETE", "/vhosts/v1", Value::Null),
        ("DELETE", "/users/u1", Value::Null),
    ]
}

/// Where RabbitMQ 3.10 answers otherwise than RabbitMQ 4, which the broker follows: method, path, what 3.10 says, what the broker says.
const DIFFERENCES: &[(&str, &str, u16, u16)] = &[
    // RabbitMQ 4 looks for the exchange first.
    ("POST", "/exchanges/%2F/none/publish", 400, 404),
    // A vhost that does not exist is an error everywhere else; there it is looked for bindings all the same.
    ("GET", "/queues/none/q1/bindings", 200, 404),
    // RabbitMQ 4 says `queue_not_found`.
    ("POST", "/queues/%2F/none/get", 404, 404),
];

/// Keys that a later release, which the broker follows, does not have.
fn is_expected_to_miss(path: &str, key: &str) -> bool {
    match path {
        "/feature-flags" => true,
        // RabbitMQ 4 leaves the vhost out everywhere in the definitions of one.
        "/definitions/v1" => key == "vhost",
        _ => false,
    }
}

fn ask(http: &Http, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http.send(method, path, body.as_bytes())
}

#[test]
fn answers_have_the_statuses_and_shapes_of_rabbitmq() {
    let oracle = Oracle::start_with_management(&Definitions::default()).expect("RabbitMQ starts");
    let (_broker, ours) = broker();
    let theirs = Http::new(oracle.http().expect("it has the plugin"));
    let mut found = Vec::new();
    for (method, path, body) in requests() {
        let (our, their) = (ask(&ours, method, path, &body), ask(&theirs, method, path, &body));
        let request = format!("{method} {path} {}", if body.is_null() { String::new() } else { body.to_string() });
        let known = DIFFERENCES.iter().find(|(of, at, ..)| (*of, *at) == (method, path));
        if let Some((_, _, there, here)) = known {
            if (their.status, our.status) != (*there, *here) {
                found.push(format!(
                    "{request}: {} here and {} there, which is not the known difference",
                    our.status, their.status
                ));
            }
            continue;
        }
        if our.status != their.status {
            let (our_text, their_text) = (our.text(), their.text());
            found.push(format!("{request}: {} {our_text}\n    there {} {their_text}", our.status, their.status));
            continue;
        }
        if our.status >= 400 {
            // Up to a colon, behind which parsers speak; 3.10 breaks long lines and writes some of it for pages.
            let (mut our, mut their) = (our.refusal(), their.refusal());
            for text in [&mut our.1, &mut their.1] {
                let reason = text.split(": ").next().unwrap_or_default().replace("\n ", "");
                *text = reason.replace("&lt;", "<").replace("&gt;", ">");
            }
            // A reason that is no text is one that only Erlang reads.
            if our != their && !their.0.is_empty() && !their.1.is_empty() {
                found.push(format!("{request}: {our:?}\n    there {their:?}"));
            }
        } else {
            shape::compare(path, &our.json(), &their.json(), &|_, key| is_expected_to_miss(path, key), &mut found);
            if their.header("location").is_some() != our.header("location").is_some() {
                found.push(format!(
                    "{request}: location {:?}, there {:?}",
                    our.header("location"),
                    their.header("location")
                ));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
