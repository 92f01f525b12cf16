//! Bad input: a refusal with `error` and `reason`, nothing changed, and the broker goes on.

use super::{broker, broker_with};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use tests::http::Http;

/// Everything but messages, to see that nothing has changed.
fn state(http: &Http) -> Value {
    http.get("/definitions")
}

fn prepare(http: &Http) {
    assert_eq!(http.put("/queues/%2F/q", &json!({"durable": true})), 201);
    assert_eq!(http.put("/users/u", &json!({"password": "p", "tags": "management"})), 201);
}

#[test]
fn wrong_bodies_are_refused_and_change_nothing() {
    let (_broker, http) = broker();
    prepare(&http);
    let before = state(&http);
    let cases: &[(&str, &str, &str)] = &[
        ("PUT", "/queues/%2F/new", "{"),
        ("PUT", "/queues/%2F/new", "[]"),
        ("PUT", "/queues/%2F/new", "\"{}\""),
        ("PUT", "/queues/%2F/new", r#"{"durable": "perhaps"}"#),
        ("PUT", "/queues/%2F/new", r#"{"durable": 1}"#),
        ("PUT", "/queues/%2F/new", r#"{"arguments": [1]}"#),
        ("PUT", "/queues/%2F/new", r#"{"arguments": {"x-max-length": "many"}}"#),
        ("PUT", "/queues/%2F/new", r#"{"arguments": {"x-queue-type": "stream"}}"#),
        ("PUT", "/queues/%2F/q", r#"{"durable": false}"#),
        ("PUT", "/exchanges/%2F/new", r#"{"type": "nope"}"#),
        ("PUT", "/exchanges/%2F/new", r#"{"type": 7}"#),
        ("PUT", "/exchanges/%2F/new", r#"{"arguments": "x"}"#),
        ("PUT", "/vhosts/new", "nonsense"),
        ("PUT", "/vhosts/new", r#"{"tags": 7}"#),
        ("PUT", "/vhosts/new", r#"{"default_queue_type": "heap"}"#),
        ("PUT", "/users/new", "{}"),
        ("PUT", "/users/new", r#"{"tags": [1]}"#),
        ("PUT", "/users/new", r#"{"tags": "", "password": 7}"#),
        ("PUT", "/users/new", r#"{"tags": "", "password": "a", "password_hash": "b"}"#),
        ("PUT", "/users/new", r#"{"tags": "", "password_hash": "!"}"#),
        ("PUT", "/users/new", r#"{"tags": "", "password": "a", "hashing_algorithm": "rot13"}"#),
        ("POST", "/users/bulk-delete", r#"{"users": "u"}"#),
        ("POST", "/users/bulk-delete", r#"{"users": ["u", 7]}"#),
        ("PUT", "/permissions/%2F/u", r#"{"configure": "", "write": ""}"#),
        ("PUT", "/permissions/%2F/u", r#"{"configure": "", "write": "", "read": "("}"#),
        ("PUT", "/permissions/%2F/u", r#"{"configure": "", "write": "", "read": 7}"#),
        ("PUT", "/permissions/none/u", r#"{"configure": "", "write": "", "read": ""}"#),
        ("PUT", "/topic-permissions/%2F/u", r#"{"exchange": "amq.topic", "write": "("}"#),
        ("PUT", "/vhost-limits/%2F/max-fun", r#"{"value": 1}"#),
        ("PUT", "/vhost-limits/%2F/max-queues", r#"{"value": "x"}"#),
        ("PUT", "/vhost-limits/%2F/max-queues", "{}"),
        ("PUT", "/user-limits/u/max-fun", r#"{"value": 1}"#),
        ("PUT", "/policies/%2F/p", r#"{"pattern": "("}"#),
        ("PUT", "/policies/%2F/p", r#"{"pattern": "(", "definition": {"max-length": 1}}"#),
        ("PUT", "/policies/%2F/p", r#"{"pattern": "", "definition": {"nonsense": 1}}"#),
        ("PUT", "/policies/%2F/p", r#"{"pattern": "", "definition": {}}"#),
        ("PUT", "/policies/%2F/p", r#"{"pattern": "", "definition": 7}"#),
        ("PUT", "/policies/%2F/p", r#"{"pattern": 7, "definition": {"max-length": 1}}"#),
        ("PUT", "/policies/%2F/p", r#"{"pattern": "", "definition": {"max-length": 1}, "apply-to": "all of it"}"#),
        ("PUT", "/policies/%2F/p", r#"{"pattern": "", "definition": {"max-length": 1}, "priority": "high"}"#),
        ("PUT", "/operator-policies/%2F/p", r#"{"pattern": "", "definition": {"dead-letter-exchange": "x"}}"#),
        ("PUT", "/parameters/shovel/%2F/s", "{}"),
        ("PUT", "/parameters/policy/%2F/p", r#"{"value": {}}"#),
        ("PUT", "/parameters/vhost-limits/%2F/limits", r#"{"value": {"max-fun": 1}}"#),
        ("PUT", "/parameters/operator_policy/%2F/p", r#"{"value": {}}"#),
        ("PUT", "/global-parameters/x", "{}"),
        ("PUT", "/global-parameters/internal_x", r#"{"value": 1}"#),
        ("PUT", "/cluster-name", r#"{"name": 7}"#),
        ("POST", "/bindings/%2F/e/amq.topic/q/q", r#"{"routing_key": 7}"#),
        ("POST", "/bindings/%2F/e/amq.topic/q/q", r#"{"arguments": 7}"#),
        ("POST", "/bindings/%2F/e/amq.topic/q/q", "nonsense"),
        ("POST", "/definitions", "nonsense"),
        ("POST", "/definitions", r#"{"queues": [{"name": "x"}]}"#),
        ("POST", "/definitions", r#"{"queues": [{"name": "ok", "vhost": "/"}, {"name": "x", "vhost": "none"}]}"#),
        ("POST", "/definitions/%2F", r#"{"exchanges": [{"name": "x", "type": "nope"}]}"#),
        ("POST", "/exchanges/%2F/amq.topic/publish", "{}"),
        (
            "POST",
            "/exchanges/%2F/amq.topic/publish",
            r#"{"properties": {}, "routing_key": 7, "payload": "", "payload_encoding": "string"}"#,
        ),
        (
            "POST",
            "/exchanges/%2F/amq.topic/publish",
            r#"{"properties": {"priority": "x"}, "routing_key": "", "payload": "", "payload_encoding": "string"}"#,
        ),
        (
            "POST",
            "/exchanges/%2F/amq.topic/publish",
            r#"{"properties": {"expiration": "soon"}, "routing_key": "", "payload": "", "payload_encoding": "string"}"#,
        ),
        (
            "POST",
            "/exchanges/%2F/amq.topic/publish",
            r#"{"properties": {}, "routing_key": "", "payload": "?", "payload_encoding": "base64"}"#,
        ),
        (
            "POST",
            "/exchanges/%2F/amq.topic/publish",
            r#"{"properties": {}, "routing_key": "", "payload": {}, "payload_encoding": "string"}"#,
        ),
        ("POST", "/queues/%2F/q/get", r#"{"count": "x", "ackmode": "ack_requeue_true", "encoding": "auto"}"#),
        ("POST", "/queues/%2F/q/get", r#"{"count": 1, "ackmode": "x", "encoding": "auto"}"#),
        ("POST", "/queues/%2F/q/get", r#"{"count": 1, "ackmode": "ack_requeue_true", "encoding": "x"}"#),
        ("POST", "/queues/%2F/q/actions", r#"{"action": "sync"}"#),
        ("GET", "/health/checks/port-listener/x", ""),
        ("GET", "/health/checks/certificate-expiration/1/fortnights", ""),
        ("GET", "/definitions/none", ""),
    ];
    for (method, path, body) in cases {
        let answer = http.send(method, path, body.as_bytes());
        let (error, reason) = answer.refusal();
        assert_eq!(answer.status, 400, "{method} {path} {body}: {}", answer.text());
        assert!(!error.is_empty() && !reason.is_empty(), "{method} {path} {body}: {}", answer.text());
    }
    assert_eq!(state(&http), before);
}

#[test]
fn unknown_names_are_not_found() {
    let (_broker, http) = broker();
    prepare(&http);
    for path in [
        "/vhosts/none",
        "/vhosts/none/permissions",
        "/users/none",
        "/users/none/permissions",
        "/permissions/none/u",
        "/permissions/%2F/none",
        "/topic-permissions/%2F/u",
        "/exchanges/none",
        "/exchanges/%2F/none",
        "/queues/none",
        "/queues/%2F/none",
        "/bindings/none",
        "/bindings/%2F/e/amq.topic/q/q/nokey",
        "/policies/%2F/none",
        "/policies/none/p",
        "/operator-policies/%2F/none",
        "/parameters/x/none",
        "/parameters/x/%2F/none",
        "/global-parameters/none",
        "/nodes/other@host",
        "/aliveness-test/none",
        "/vhost-limits/none",
        "/user-limits/none",
        "/bindings/%2F/e/amq.topic/x/q",
    ] {
        let answer = http.send("GET", path, b"");
        assert_eq!(answer.status, 404, "GET {path}: {}", answer.text());
    }
    for path in [
        "/vhosts/none",
        "/users/none",
        "/permissions/%2F/none",
        "/topic-permissions/%2F/u",
        "/exchanges/%2F/none",
        "/queues/%2F/none",
        "/queues/%2F/none/contents",
        "/policies/%2F/none",
        "/parameters/x/%2F/none",
        "/global-parameters/none",
        "/bindings/%2F/e/amq.topic/q/q/nokey",
    ] {
        assert_eq!(http.delete(path), 404, "DELETE {path}");
    }
    let body = json!({"pattern": "", "definition": {"max-length": 1}, "value": 1});
    for path in [
        "/queues/none/q",
        "/exchanges/none/x",
        "/policies/none/p",
        "/parameters/c/none/p",
        "/vhost-limits/none/max-queues",
    ] {
        let answer = http.send("PUT", path, body.to_string().as_bytes());
        assert_eq!((answer.status, answer.refusal().1.as_str()), (404, "vhost_not_found"), "PUT {path}");
    }
}

#[test]
fn bodies_above_the_limit_are_refused_before_they_are_read() {
    let (_broker, http) = broker_with("management: { body_bytes_max: 2000 }\nvhosts: { /: { queues: [q] } }\n");
    let body = json!({"arguments": {"x": "a".repeat(3000)}}).to_string();
    let answer = http.send("PUT", "/queues/%2F/new", body.as_bytes());
    let expected = ("bad_request".to_owned(), "Exceeded HTTP request body size limit".to_owned());
    assert_eq!((answer.status, answer.refusal()), (400, expected.clone()));
    // Announced, and never sent.
    let head = "PUT /api/queues/%2F/new HTTP/1.1\r\nhost: x\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\
                content-length: 100000000000\r\nconnection: close\r\n\r\n";
    let answer = http.raw(head.as_bytes(), false).unwrap();
    assert_eq!((answer.status, answer.refusal()), (400, expected));
    assert_eq!(http.send("GET", "/queues/%2F/new", b"").status, 404);
}

#[test]
fn bindings_take_small_bodies_only() {
    let (_broker, http) = broker();
    prepare(&http);
    let body = json!({"routing_key": "k", "arguments": {"x": "a".repeat(6000)}}).to_string();
    assert_eq!(http.send("POST", "/bindings/%2F/e/amq.topic/q/q", body.as_bytes()).status, 400);
}

#[test]
fn half_sent_requests_hold_nobody_up() {
    let (_broker, http) = broker();
    let mut half: Vec<TcpStream> = Vec::new();
    for text in [
        "GET /api/overv",
        "PUT /api/queues/%2F/q HTTP/1.1\r\nhost: x\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\ncontent-length: 10\r\n\r\n{\"dur",
        "",
    ] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(http.address()).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            half.push(stream);
        }
    }
    for _ in 0..20 {
        assert_eq!(http.get("/whoami")["name"], "guest");
    }
    drop(half);
    assert_eq!(http.send("GET", "/queues/%2F/q", b"").status, 404);
}

#[test]
fn what_is_no_http_is_refused() {
    let (_broker, http) = broker();
    for text in [
        &b"nonsense\r\n\r\n"[..],
        b"GET /api/whoami HTTP/9.9\r\n\r\n",
        b"AMQP\0\0\x09\x01",
        // The beginning of TLS.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let mut stream = TcpStream::connect(http.address()).unwrap();
        stream.write_all(text).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.0 4"),
            "{text:?}"
        );
    }
    let many: String = (0..2000).map(|number| format!("x-{number}: {}\r\n", "a".repeat(100))).collect();
    let request = format!("GET /api/whoami HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    if let Ok(answer) = http.raw(request.as_bytes(), false) {
        assert_eq!(answer.status, 431);
    }
    assert_eq!(http.get("/whoami")["name"], "guest");
}
