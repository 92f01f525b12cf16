//! Objects through their lives: made, shown, changed, gone.

use super::broker;
use serde_json::{Value, json};
use tests::broker_process::BrokerOptions;
use tests::http::Http;
use tests::temp::TempDir;

#[test]
fn a_new_vhost_belongs_to_whoever_made_it_and_can_be_protected() {
    let (_broker, http) = broker();
    assert_eq!(http.put("/vhosts/v", &json!({"description": "d", "tags": "a, b", "tracing": "true"})), 201);
    let vhost = http.get("/vhosts/v");
    assert_eq!(
        (&vhost["description"], &vhost["tags"], &vhost["tracing"]),
        (&json!("d"), &json!(["a", "b"]), &json!(true))
    );
    assert_eq!(http.get("/permissions/v/guest")["configure"], ".*");
    assert_eq!(http.put("/vhosts/v", &json!({"default_queue_type": "quorum"})), 204);
    let vhost = http.get("/vhosts/v");
    assert_eq!((&vhost["description"], &vhost["default_queue_type"]), (&json!("d"), &json!("quorum")));
    assert_eq!(http.post("/vhosts/v/deletion/protection", &json!({})).status, 204);
    let refused = http.send("DELETE", "/vhosts/v", b"");
    assert_eq!((refused.status, refused.refusal().0.as_str()), (412, "precondition_failed"));
    assert_eq!(http.delete("/vhosts/v/deletion/protection"), 204);
    assert_eq!((http.delete("/vhosts/v"), http.delete("/vhosts/v")), (204, 404));
    assert_eq!(http.send("GET", "/permissions/v/guest", b"").status, 404);
}

#[test]
fn users_keep_nothing_that_is_left_out() {
    let (_broker, http) = broker();
    assert_eq!(http.put("/users/u", &json!({"password": "p", "tags": "management"})), 201);
    assert_eq!(http.clone().login("u", "p").get("/whoami")["tags"], json!(["management"]));
    let hash = http.get("/users/u")["password_hash"].clone();
    assert!(hash.as_str().is_some_and(|hash| hash.len() == 48), "{hash}");
    let with_hash =
        json!({"password_hash": hash, "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["monitoring"]});
    assert_eq!(http.put("/users/copy", &with_hash), 201);
    assert_eq!(http.clone().login("copy", "p").get("/whoami")["name"], "copy");
    assert_eq!(http.put("/users/u", &json!({"tags": "management"})), 204);
    assert_eq!(http.clone().login("u", "p").send("GET", "/whoami", b"").status, 401, "no password any more");
    assert_eq!(http.get("/users/without-permissions").as_array().unwrap().len(), 2);
    assert_eq!(http.post("/users/bulk-delete", &json!({"users": ["u", "copy", "none"]})).status, 204);
    assert_eq!(http.get("/users").as_array().unwrap().len(), 1);
}

#[test]
fn passwords_are_nowhere_in_answers_or_the_log() {
    let (broker, http) = broker();
    const SECRET: &str = "tr0ub4dor-and-3";
    http.put("/users/u", &json!({"password": SECRET, "tags": "administrator"}));
    let user = http.clone().login("u", SECRET);
    let hashed = user.get(&format!("/auth/hash_password/{SECRET}"));
    assert_eq!(hashed["ok"].as_str().map(str::len), Some(48));
    for path in ["/users", "/users/u", "/definitions", "/whoami", "/overview", "/auth/attempts/broker@localhost/source"]
    {
        assert!(!user.get(path).to_string().contains(SECRET), "{path}");
    }
    http.login("u", &format!("{SECRET}x")).send("GET", "/whoami", b"");
    assert!(broker.log().iter().all(|line| !line.contains(SECRET)), "{:?}", broker.log());
}

#[test]
fn limits_are_put_one_by_one_and_count_at_once() {
    let (_broker, http) = broker();
    assert_eq!(http.put("/vhost-limits/%2F/max-queues", &json!({"value": 1})), 204);
    assert_eq!(http.put("/vhost-limits/%2F/max-connections", &json!({"value": "-1"})), 204);
    let expected = json!([{"vhost": "/", "value": {"max-queues": 1, "max-connections": -1}}]);
    assert_eq!((http.get("/vhost-limits"), http.get("/vhost-limits/%2F")), (expected.clone(), expected));
    assert_eq!((http.put("/queues/%2F/a", &json!({})), http.put("/queues/%2F/b", &json!({}))), (201, 400));
    assert_eq!(http.delete("/vhost-limits/%2F/max-queues"), 204);
    assert_eq!(http.put("/queues/%2F/b", &json!({})), 201);
    assert_eq!(http.put("/user-limits/guest/max-channels", &json!({"value": 5})), 204);
    assert_eq!(http.get("/user-limits/guest"), json!([{"user": "guest", "value": {"max-channels": 5}}]));
    assert_eq!(http.delete("/user-limits/guest/max-channels"), 204);
    assert_eq!(http.get("/user-limits"), json!([]));
}

#[test]
fn policies_apply_and_operator_policies_are_parameters_too() {
    let (_broker, http) = broker();
    http.put("/queues/%2F/orders", &json!({}));
    assert_eq!(
        http.put("/policies/%2F/p", &json!({"pattern": "^o", "definition": {"max-length": 9}, "priority": "3"})),
        201
    );
    assert_eq!(
        http.put(
            "/operator-policies/%2F/o",
            &json!({"pattern": "", "definition": {"max-length": 5}, "apply-to": "queues"})
        ),
        201
    );
    let queue = http.get("/queues/%2F/orders");
    assert_eq!((&queue["policy"], &queue["operator_policy"]), (&json!("p"), &json!("o")));
    assert_eq!(queue["effective_policy_definition"], json!({"max-length": 5}));
    let policy = json!({"vhost": "/", "name": "p", "pattern": "^o", "apply-to": "all", "definition": {"max-length": 9}, "priority": 3});
    assert_eq!((http.get("/policies/%2F/p"), http.get("/policies")), (policy.clone(), json!([policy])));
    let parameter = http.get("/parameters/operator_policy/%2F/o");
    assert_eq!(
        (&parameter["component"], &parameter["value"]["definition"]),
        (&json!("operator_policy"), &json!({"max-length": 5}))
    );
    assert_eq!(http.delete("/parameters/operator_policy/%2F/o"), 204);
    assert_eq!(http.get("/operator-policies"), json!([]));
    assert_eq!(http.delete("/policies/%2F/p"), 204);
    assert_eq!(http.get("/queues/%2F/orders")["effective_policy_definition"], json!({}));
}

#[test]
fn bindings_are_found_by_the_key_that_lists_show() {
    let (_broker, http) = broker();
    http.put("/queues/%2F/q", &json!({}));
    for body in [
        json!({}),
        json!({"routing_key": "a b~c/+%"}),
        json!({"routing_key": "k", "arguments": {"x": 1, "y": "two"}}),
        json!({"routing_key": "", "arguments": {"x": 2}}),
    ] {
        let posted = http.post("/bindings/%2F/e/amq.topic/q/q", &body);
        assert_eq!(posted.status, 201, "{body}");
        let location = posted.header("location").unwrap().to_owned();
        assert_eq!(
            http.post("/bindings/%2F/e/amq.topic/q/q", &body).header("location"),
            Some(location.as_str()),
            "again"
        );
        let path = format!("/bindings/%2F/e/amq.topic/q/{location}");
        let binding = http.get(&path);
        assert_eq!(binding["routing_key"], body.get("routing_key").cloned().unwrap_or(json!("")));
        assert_eq!(binding["arguments"], body.get("arguments").cloned().unwrap_or(json!({})));
        // As Terraform does: the last segment, decoded once, is the key in lists.
        let list = http.get("/bindings/%2F/e/amq.topic/q/q");
        assert!(list.as_array().unwrap().contains(&binding));
        assert_eq!((http.delete(&path), http.delete(&path)), (204, 404));
    }
    assert_eq!(http.get("/queues/%2F/q/bindings").as_array().unwrap().len(), 1, "that of the default exchange");
    assert_eq!(http.get("/bindings/%2F/e/amq.default/q/q/q")["source"], "");
    assert_eq!(http.get("/exchanges/%2F/amq.default/bindings/source").as_array().unwrap().len(), 1);
    let refused = http.post("/bindings/%2F/e/amq.default/q/q", &json!({}));
    assert_eq!((refused.status, refused.refusal().1.as_str()), (401, "Access refused."));
    let missing = http.post("/bindings/%2F/e/amq.topic/q/none", &json!({}));
    assert_eq!((missing.status, missing.refusal().1.as_str()), (404, "no queue 'none' in vhost '/'"));
}

#[test]
fn queues_that_are_used_or_not_empty_stay() {
    let (_broker, http) = broker();
    http.put("/queues/%2F/q", &json!({}));
    let body = json!({"properties": {}, "routing_key": "q", "payload": "x", "payload_encoding": "string"});
    http.post("/exchanges/%2F/amq.default/publish", &body);
    let refused = http.send("DELETE", "/queues/%2F/q?if-empty=true", b"");
    assert_eq!((refused.status, refused.refusal().1.as_str()), (400, "queue 'q' in vhost '/' not empty"));
    assert_eq!(http.delete("/queues/%2F/q/contents"), 204);
    assert_eq!(http.delete("/queues/%2F/q?if-empty=true&if-unused=true"), 204);
    http.put("/exchanges/%2F/x", &json!({"type": "fanout"}));
    http.put("/queues/%2F/q", &json!({}));
    http.post("/bindings/%2F/e/x/q/q", &json!({}));
    let refused = http.send("DELETE", "/exchanges/%2F/x?if-unused=true", b"");
    assert_eq!((refused.status, refused.refusal().1.as_str()), (400, "exchange 'x' in vhost '/' in use"));
    assert_eq!(http.delete("/exchanges/%2F/amq.topic"), 401);
    assert_eq!(http.delete("/exchanges/%2F/x"), 204);
}

/// The lists of a file in an order of their own.
fn sorted(mut definitions: Value) -> Value {
    for (_, value) in definitions.as_object_mut().unwrap() {
        if let Some(list) = value.as_array_mut() {
            list.sort_by_key(Value::to_string);
        }
    }
    definitions
}

fn fill(http: &Http) {
    http.put("/vhosts/v", &json!({"description": "d"}));
    http.put("/users/u", &json!({"password": "p", "tags": "policymaker"}));
    http.put("/permissions/v/u", &json!({"configure": "a", "write": "b", "read": "c"}));
    http.put("/topic-permissions/v/u", &json!({"exchange": "amq.topic", "write": "b", "read": "c"}));
    http.put(
        "/exchanges/v/x",
        &json!({"type": "topic", "durable": true, "arguments": {"alternate-exchange": "amq.fanout"}}),
    );
    http.put("/queues/v/q", &json!({"durable": true, "arguments": {"x-max-length": 5}}));
    http.post("/bindings/v/e/x/q/q", &json!({"routing_key": "k", "arguments": {"n": 1}}));
    http.put("/policies/v/p", &json!({"pattern": "^q", "definition": {"expires": 100_000}}));
    http.put("/vhost-limits/v/max-queues", &json!({"value": 7}));
    http.put("/global-parameters/g", &json!({"value": {"a": 1}}));
}

#[test]
fn definitions_come_back_as_they_were_exported() {
    let (_broker, http) = broker();
    fill(&http);
    let exported = http.get("/definitions");
    let answer = http.send("GET", "/definitions?download=all.json", b"");
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=all.json"));
    let (_other, other) = broker_pair();
    assert_eq!(other.post("/definitions", &exported).status, 204);
    assert_eq!(sorted(other.get("/definitions")), sorted(exported.clone()));
    assert_eq!(other.clone().login("u", "p").get("/whoami")["name"], "u");
    // One vhost, into another of another name.
    let of_vhost = http.get("/definitions/v");
    assert!(of_vhost.get("users").is_none() && of_vhost["queues"][0].get("vhost").is_none());
    other.put("/vhosts/w", &json!({}));
    assert_eq!(other.post("/definitions/w", &of_vhost).status, 204);
    assert_eq!(other.get("/definitions/w")["bindings"], of_vhost["bindings"]);
    assert_eq!(other.post("/definitions/none", &of_vhost).status, 404);
    // As browsers send files.
    let form = format!(
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"d.json\"\r\n\r\n{exported}\r\n\
         --XX\r\nContent-Disposition: form-data; name=\"redirect\"\r\n\r\n/#/import-succeeded\r\n--XX--\r\n"
    );
    let uploaded =
        other.header("content-type", "multipart/form-data; boundary=XX").send("POST", "/definitions", form.as_bytes());
    assert_eq!((uploaded.status, uploaded.header("location")), (303, Some("/#/import-succeeded")));
}

fn broker_pair() -> (tests::broker_process::BrokerProcess, Http) {
    broker()
}

#[test]
fn what_was_answered_survives_a_kill() {
    let data = TempDir::new("management-data");
    let start = || {
        let broker = BrokerOptions::default()
            .http()
            .argument("--data")
            .argument(data.path().display().to_string())
            .start()
            .unwrap();
        let http = Http::new(broker.http());
        (broker, http)
    };
    let (broker, http) = start();
    fill(&http);
    http.put("/queues/v/gone", &json!({"durable": true}));
    http.put("/users/gone", &json!({"tags": ""}));
    http.put("/vhosts/gone", &json!({}));
    let body = json!({"properties": {"delivery_mode": 2}, "routing_key": "q", "payload": "kept", "payload_encoding": "string"});
    assert_eq!(http.post("/exchanges/v/amq.default/publish", &body).json()["routed"], json!(true));
    for path in ["/queues/v/gone", "/users/gone", "/vhosts/gone"] {
        assert_eq!(http.delete(path), 204);
    }
    let before = http.get("/definitions");
    broker.kill().unwrap();
    let (_broker, http) = start();
    assert_eq!(sorted(http.get("/definitions")), sorted(before));
    let got =
        http.post("/queues/v/q/get", &json!({"count": 2, "ackmode": "ack_requeue_false", "encoding": "auto"})).json();
    assert_eq!((got.as_array().unwrap().len(), &got[0]["payload"]), (1, &json!("kept")));
}

#[test]
fn health_checks_answer_as_orchestrators_expect() {
    let (broker, http) = broker();
    let (amqp, web) = (broker.address().port(), broker.http().port());
    for path in [
        "/aliveness-test/%2F",
        "/healthchecks/node",
        "/healthchecks/node/broker@localhost",
        "/health/checks/alarms",
        "/health/checks/local-alarms",
        "/health/checks/virtual-hosts",
        "/health/checks/node-is-quorum-critical",
        "/health/checks/node-is-mirror-sync-critical",
        "/health/checks/certificate-expiration/1/months",
        "/health/checks/metadata-store/initialized",
        "/health/checks/quorum-queues-without-elected-leaders/all-vhosts/",
        &format!("/health/checks/port-listener/{amqp}"),
        &format!("/health/checks/port-listener/{web}"),
        "/health/checks/protocol-listener/amqp091",
        "/health/checks/protocol-listener/amqp,http",
    ] {
        assert_eq!(http.get(path)["status"], "ok", "{path}");
    }
    let nobody = http.clone().anonymous();
    for path in
        ["is-in-service", "ready-to-serve-clients", "below-node-connection-limit", "reached-target-cluster-size"]
    {
        assert_eq!(nobody.get(&format!("/health/checks/{path}"))["status"], "ok", "{path}");
    }
    let failed = http.send("GET", "/health/checks/port-listener/1", b"");
    assert_eq!((failed.status, failed.json()["missing"].clone()), (503, json!(1)));
    let failed = http.send("GET", "/health/checks/protocol-listener/mqtt,amqp", b"");
    assert_eq!((failed.status, failed.json()["missing"].clone()), (503, json!(["mqtt"])));
}

#[test]
fn queues_of_a_user_are_those_that_it_has_declared() {
    let folder = TempDir::new("queues-of-users");
    let data = folder.path().join("data").display().to_string();
    let start = || BrokerOptions::default().http().argument("--data").argument(&data).start().unwrap();
    let broker = start();
    let guest = Http::new(broker.http());
    assert_eq!(guest.put("/vhosts/other", &json!({})), 201);
    for (user, vhosts) in [("ann", &["%2F", "other"][..]), ("bob", &["%2F"])] {
        guest.put(&format!("/users/{user}"), &json!({"password": "p", "tags": "management"}));
        for vhost in vhosts {
            guest
                .put(&format!("/permissions/{vhost}/{user}"), &json!({"configure": ".*", "write": ".*", "read": ".*"}));
            let queue = format!("/queues/{vhost}/of-{user}");
            assert_eq!(guest.clone().login(user, "p").put(&queue, &json!({"durable": true})), 201);
        }
    }
    let names = |http: &Http, user: &str, query: &str| -> Vec<String> {
        let list = http.get(&format!("/users/{user}/queues{query}"));
        let rows = list.get("items").unwrap_or(&list).as_array().unwrap().clone();
        rows.iter().map(|row| format!("{} {}", row["vhost"].as_str().unwrap(), row["name"].as_str().unwrap())).collect()
    };
    let check = |http: &Http| {
        assert_eq!(names(http, "ann", ""), ["/ of-ann", "other of-ann"]);
        assert_eq!(names(http, "ann", "?page=2&page_size=1"), ["other of-ann"]);
        assert!(names(http, "guest", "").is_empty() && names(http, "nobody", "").is_empty());
        // Of what others have, one sees what is in one's own vhosts.
        assert_eq!(names(&http.clone().login("bob", "p"), "ann", ""), ["/ of-ann"]);
    };
    check(&guest);
    broker.terminate().unwrap();
    let broker = start();
    check(&Http::new(broker.http()));
}

#[test]
fn effective_settings_are_shown_to_administrators_without_secrets() {
    let folder = TempDir::new("effective");
    let text = "
limits: { heartbeat_secs: 17 }
users: { guest: { password: guest, tags: administrator }, ann: { password: s3cret, tags: monitoring } }
";
    let topology = folder.write("topology.yaml", text);
    let broker = BrokerOptions::default().http().topology(topology).start().unwrap();
    let http = Http::new(broker.http());
    // A browser asks for other things than JSON.
    let answer = http.clone().header("accept", "text/plain").send("GET", "/config/effective", b"");
    let text = answer.text();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    for part in
        ["heartbeat_secs: 17\n", "frame_max_bytes: 131072\n", "memory_watermark_bytes: ", "cluster_name: broker\n"]
    {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(text.contains(&format!("http {}", broker.http())), "{text}");
    assert!(!text.contains("s3cret") && !text.contains("password"), "{text}");
    assert_eq!(http.login("ann", "s3cret").send("GET", "/config/effective", b"").status, 401);
}
