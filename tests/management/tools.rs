//! What tools of other people ask for and read, each named after the tool. Their own tests are run by hand (tests/clients/README.md);
//! here stands what these showed, and for tools that cannot be run here the fields that their sources read.

use super::{broker, golden};
use serde_json::{Value, json};
use tests::http::Http;
use tokio::runtime::Runtime;

/// `rabbitmqadmin bindings delete --idempotently` asks for the bindings of what may not exist.
#[test]
fn rabbitmqadmin_v2_finds_no_bindings_of_a_queue_that_does_not_exist() {
    let (_broker, http) = broker();
    for path in
        ["/queues/%2F/none/bindings", "/exchanges/%2F/none/bindings/source", "/exchanges/%2F/none/bindings/destination"]
    {
        assert_eq!(http.get(path), json!([]), "{path}");
    }
    assert_eq!(http.send("GET", "/queues/none/q/bindings", b"").status, 404, "of a vhost there is more to know");
}

/// `rabbitmqadmin feature_flags enable_all`, and the tests of rabbit-hole.
#[test]
fn rabbitmqadmin_v2_and_rabbit_hole_enable_every_feature_flag_that_is_listed() {
    let (_broker, http) = broker();
    let flags = http.get("/feature-flags");
    let names: Vec<&str> = flags.as_array().unwrap().iter().map(|flag| flag["name"].as_str().unwrap()).collect();
    for name in &names {
        assert_eq!(http.put(&format!("/feature-flags/{name}/enable"), &json!({})), 204, "{name}");
    }
    assert!(flags.as_array().unwrap().iter().all(|flag| flag["state"] == "enabled"), "{flags}");
    // The client takes the newest as what the version promises.
    assert!(names.contains(&"rabbitmq_4.2.0"), "{names:?}");
    let refused = http.send("PUT", "/feature-flags/stream_queue/enable", b"{}");
    assert_eq!((refused.status, refused.refusal().1.as_str()), (400, "unsupported"));
}

/// `rabbitmqadmin users declare --password … --hashing-algorithm sha512` sends the hash and not what made it.
#[test]
fn rabbitmqadmin_v2_sends_a_hash_without_its_algorithm() {
    let (_broker, http) = broker();
    for (name, hash) in [
        ("sha256", "AQIDBD562wZulnIkbkI8HZsmfFoRXMfMQ58hNpv2Srn3em1P"),
        ("sha512", "AQIDBFUqRTnysMEc0CIk3sMGFWMTzkd8SMfNIxJV3OVmeFn7gRrxcnXI7FYzSmKxhC66vhMbvX3ErCp6bdCHpMt2Icw="),
        ("md5", "AQIDBK5nFiqhlTnyfPTD8IjvBG4="),
    ] {
        let user = json!({"password_hash": hash, "tags": "management"});
        assert_eq!(http.put(&format!("/users/{name}"), &user), 201, "{name}");
        assert_eq!(http.clone().login(name, "pa$$w0rd").get("/whoami")["name"], name);
        assert_eq!(http.get(&format!("/users/{name}"))["hashing_algorithm"], format!("rabbit_password_hashing_{name}"));
    }
    let odd = http.send("PUT", "/users/odd", br#"{"password_hash": "AQID", "tags": ""}"#);
    assert_eq!(odd.status, 400, "{}", odd.text());
    let wrong: Value = json!({"password_hash": "AQIDBK5nFiqhlTnyfPTD8IjvBG4=", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ""});
    assert_eq!(http.put("/users/wrong", &wrong), 400, "a name that is given is meant");
}

/// `rabbitmqadmin plugins list` reads them from the nodes.
#[test]
fn rabbitmqadmin_v2_finds_plugins_by_the_names_of_rabbitmq() {
    let (_broker, http) = broker();
    let nodes = http.get("/nodes");
    let plugins: Vec<&str> = nodes[0]["enabled_plugins"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for name in [
        "rabbitmq_management",
        "rabbitmq_consistent_hash_exchange",
        "rabbitmq_delayed_message_exchange",
        "exchange_topic",
    ] {
        assert!(plugins.contains(&name), "{name}: {plugins:?}");
    }
    assert!(!plugins.contains(&"rabbitmq_shovel"), "{plugins:?}");
}

/// Terraform and rabbitmqadmin make shovels and federation upstreams of parameters; what is never moved must not look as if it were.
#[test]
fn terraform_is_told_that_there_are_no_shovels_and_no_federation() {
    let (_broker, http) = broker();
    for component in ["shovel", "federation-upstream", "federation-upstream-set", "federation"] {
        let path = format!("/parameters/{component}/%2F/p");
        let refused = http.send("PUT", &path, br#"{"value": {"uri": "amqp://"}}"#);
        let reason = format!("Validation failed\n\ncomponent {component} not found\n");
        assert_eq!((refused.status, refused.refusal()), (400, ("bad_request".to_owned(), reason)));
        assert_eq!(http.send("GET", &path, b"").status, 404);
        // An export of a RabbitMQ that has them can be imported all the same.
        let exported =
            json!({"parameters": [{"vhost": "/", "component": component, "name": "p", "value": {"uri": "amqp://"}}]});
        assert_eq!(http.post("/definitions", &exported).status, 204);
        assert_eq!((http.get(&path)["component"].as_str(), http.delete(&path)), (Some(component), 204));
    }
}

/// rabbit-hole counts on the cluster's lasting name among the global parameters; exporters have it as a label.
#[test]
fn rabbit_hole_finds_the_clusters_id() {
    let (_broker, http) = broker();
    let id = http.get("/global-parameters/internal_cluster_id")["value"].as_str().unwrap().to_owned();
    assert!(id.starts_with("rabbitmq-cluster-id-"), "{id}");
    let all = http.get("/global-parameters");
    assert!(all.as_array().unwrap().contains(&json!({"name": "internal_cluster_id", "value": id})), "{all}");
    assert_eq!(http.put("/global-parameters/internal_cluster_id", &json!({"value": "mine"})), 400);
    assert_eq!(http.delete("/global-parameters/internal_cluster_id"), 404);
    let definitions = http.get("/definitions");
    assert!(!definitions["global_parameters"].to_string().contains("internal_"), "{definitions}");
}

/// What a tool reads, and as what. Exporters leave out what has another type than they want, and decoders of Go fail over it.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Number,
    Flag,
    Text,
    List,
    Object,
}

/// A request of a tool, and what it reads of the answer, by JSON pointer.
type Reads = (&'static str, &'static [(&'static str, Kind)]);

fn check(http: &Http, reads: &[Reads]) {
    let mut found = Vec::new();
    for (path, fields) in reads {
        let answer = http.get(path);
        for (pointer, kind) in *fields {
            let value = answer.pointer(pointer);
            let is_right = value.is_some_and(|value| match kind {
                Kind::Number => value.is_number(),
                Kind::Flag => value.is_boolean(),
                Kind::Text => value.is_string(),
                Kind::List => value.is_array(),
                Kind::Object => value.is_object(),
            });
            if !is_right {
                found.push(format!("{path}: {pointer} is {value:?}, not {kind:?}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The sources of kbudde/rabbitmq_exporter: each key of its tables, but for those of Erlang's garbage collector and of mirrors. It reads
/// lists as their lengths.
const RABBITMQ_EXPORTER: &[Reads] = &[
    (
        "/overview",
        &[
            ("/object_totals/channels", Kind::Number),
            ("/object_totals/connections", Kind::Number),
            ("/object_totals/consumers", Kind::Number),
            ("/object_totals/queues", Kind::Number),
            ("/object_totals/exchanges", Kind::Number),
            ("/queue_totals/messages", Kind::Number),
            ("/queue_totals/messages_ready", Kind::Number),
            ("/queue_totals/messages_unacknowledged", Kind::Number),
            ("/message_stats/publish_details/rate", Kind::Number),
            ("/message_stats/deliver_no_ack_details/rate", Kind::Number),
            ("/message_stats/deliver_details/rate", Kind::Number),
            ("/node", Kind::Text),
            ("/erlang_version", Kind::Text),
            ("/rabbitmq_version", Kind::Text),
            ("/cluster_name", Kind::Text),
        ],
    ),
    (
        "/queues?name=orders.eu&page=1",
        &[
            ("/items/0/vhost", Kind::Text),
            ("/items/0/name", Kind::Text),
            ("/items/0/durable", Kind::Flag),
            ("/items/0/state", Kind::Text),
            ("/items/0/node", Kind::Text),
            ("/items/0/messages", Kind::Number),
            ("/items/0/messages_ready", Kind::Number),
            ("/items/0/messages_unacknowledged", Kind::Number),
            ("/items/0/messages_ram", Kind::Number),
            ("/items/0/messages_ready_ram", Kind::Number),
            ("/items/0/messages_unacknowledged_ram", Kind::Number),
            ("/items/0/messages_persistent", Kind::Number),
            ("/items/0/message_bytes", Kind::Number),
            ("/items/0/message_bytes_ready", Kind::Number),
            ("/items/0/message_bytes_unacknowledged", Kind::Number),
            ("/items/0/message_bytes_ram", Kind::Number),
            ("/items/0/message_bytes_persistent", Kind::Number),
            ("/items/0/consumers", Kind::Number),
            ("/items/0/consumer_utilisation", Kind::Number),
            ("/items/0/memory", Kind::Number),
            ("/items/0/head_message_timestamp", Kind::Number),
            ("/items/0/message_stats/publish", Kind::Number),
            ("/items/0/message_stats/publish_details/rate", Kind::Number),
            ("/items/0/message_stats/deliver", Kind::Number),
            ("/items/0/message_stats/deliver_details/rate", Kind::Number),
            ("/items/0/message_stats/deliver_no_ack", Kind::Number),
            ("/items/0/message_stats/deliver_no_ack_details/rate", Kind::Number),
            ("/items/0/message_stats/get", Kind::Number),
            ("/items/0/message_stats/get_no_ack", Kind::Number),
            ("/items/0/message_stats/redeliver", Kind::Number),
            ("/items/0/message_stats/ack", Kind::Number),
            ("/items/0/arguments", Kind::Object),
            ("/items/0/effective_policy_definition/max-length", Kind::Number),
            ("/items/0/policy", Kind::Text),
        ],
    ),
    (
        "/nodes",
        &[
            ("/0/name", Kind::Text),
            ("/0/uptime", Kind::Number),
            ("/0/running", Kind::Flag),
            ("/0/mem_used", Kind::Number),
            ("/0/mem_limit", Kind::Number),
            ("/0/mem_alarm", Kind::Flag),
            ("/0/disk_free", Kind::Number),
            ("/0/disk_free_alarm", Kind::Flag),
            ("/0/disk_free_limit", Kind::Number),
            ("/0/fd_used", Kind::Number),
            ("/0/fd_total", Kind::Number),
            ("/0/sockets_used", Kind::Number),
            ("/0/sockets_total", Kind::Number),
            ("/0/partitions", Kind::List),
        ],
    ),
    (
        "/exchanges/%2F/orders",
        &[
            ("/vhost", Kind::Text),
            ("/name", Kind::Text),
            ("/message_stats/publish_in", Kind::Number),
            ("/message_stats/publish_out", Kind::Number),
        ],
    ),
    (
        "/connections",
        &[
            ("/0/vhost", Kind::Text),
            ("/0/node", Kind::Text),
            ("/0/peer_host", Kind::Text),
            ("/0/user", Kind::Text),
            ("/0/state", Kind::Text),
            ("/0/channels", Kind::Number),
            ("/0/recv_oct", Kind::Number),
            ("/0/recv_cnt", Kind::Number),
            ("/0/send_oct", Kind::Number),
            ("/0/send_cnt", Kind::Number),
            ("/0/send_pend", Kind::Number),
        ],
    ),
    ("/aliveness-test/%2F", &[("/status", Kind::Text)]),
    // Without their plugins these are empty, which the exporter takes for none; a 404 would end its run.
    ("/shovels", &[("", Kind::List)]),
    ("/federation-links", &[("", Kind::List)]),
];

#[test]
fn rabbitmq_exporter_finds_what_it_exports() {
    let (broker, http) = broker();
    golden::declare(&http);
    let policy = json!({"pattern": "^orders", "definition": {"max-length": 1000}, "apply-to": "queues"});
    assert_eq!(http.put("/policies/%2F/length", &policy), 201);
    let runtime = Runtime::new().unwrap();
    let _client = runtime.block_on(golden::traffic(broker.address()));
    check(&http, RABBITMQ_EXPORTER);
    // Every memory of a node that it knows, for the node's own name.
    let node = http.get("/nodes")[0]["name"].as_str().unwrap().to_owned();
    let memory = http.get(&format!("/nodes/{node}/memory"));
    for part in
        "allocated_unused atom binary code connection_channels connection_other connection_readers connection_writers \
                 metrics mgmt_db mnesia msg_index other_ets other_proc other_system plugins queue_procs reserved_unallocated"
            .split_whitespace()
    {
        assert!(memory["memory"][part].is_number(), "{part} of {memory}");
    }
    for part in ["allocated", "rss", "erlang"] {
        assert!(memory["memory"]["total"][part].is_number(), "total of {part} in {memory}");
    }
}

/// KEDA scales by one queue, or by all whose names match; the latter with paging off, for which it wants a page all the same.
#[test]
fn keda_finds_what_it_scales_by() {
    let (broker, http) = broker();
    golden::declare(&http);
    let runtime = Runtime::new().unwrap();
    let _client = runtime.block_on(golden::traffic(broker.address()));
    check(
        &http,
        &[
            (
                "/queues/%2F/orders.eu",
                &[
                    ("/name", Kind::Text),
                    ("/messages", Kind::Number),
                    ("/messages_ready", Kind::Number),
                    ("/messages_unacknowledged", Kind::Number),
                    ("/message_stats/publish_details/rate", Kind::Number),
                    ("/message_stats/deliver_get_details/rate", Kind::Number),
                ],
            ),
            (
                "/queues/%2F?page=1&use_regex=true&pagination=false&name=%5Eorders.%2A%24&page_size=100",
                &[
                    ("/page_count", Kind::Number),
                    ("/items/0/name", Kind::Text),
                    ("/items/0/messages", Kind::Number),
                    ("/items/0/messages_ready", Kind::Number),
                    ("/items/0/messages_unacknowledged", Kind::Number),
                    ("/items/0/message_stats/publish_details/rate", Kind::Number),
                ],
            ),
        ],
    );
    // A queue without traffic has messages all the same.
    assert_eq!(http.get("/queues/%2F/q1")["messages"], 0);
    assert_eq!(http.send("GET", "/queues/%2F/none", b"").status, 404);
}

/// What cyrilgdn/rabbitmq, Terraform's provider, does to make a binding and to find it again: it takes the end of `Location` for the
/// properties key, and compares it with those of the list.
#[test]
fn terraform_finds_the_bindings_that_it_made() {
    let (_broker, http) = broker();
    assert_eq!(http.put("/queues/%2F/q", &json!({"durable": true, "arguments": {}})), 201);
    assert_eq!(http.put("/exchanges/%2F/x", &json!({"type": "topic", "durable": true, "auto_delete": false})), 201);
    for (key, arguments) in [
        ("", json!({})),
        ("a.b", json!({})),
        ("a/b c%~", json!({})),
        ("#", json!({})),
        ("k", json!({"x-match": "all"})),
    ] {
        let body = json!({"source": "x", "destination": "q", "destination_type": "queue", "routing_key": key, "arguments": arguments});
        let answer = http.post("/bindings/%2F/e/x/q/q", &body);
        assert_eq!(answer.status, 201, "{key}");
        let location = answer.header("location").unwrap().rsplit('/').next().unwrap();
        let properties_key = percent_decoded(location);
        let bindings = http.get("/bindings/%2F/e/x/q/q");
        let binding = bindings.as_array().unwrap().iter().find(|binding| binding["properties_key"] == properties_key);
        let binding = binding.unwrap_or_else(|| panic!("{properties_key} of {key} in {bindings}"));
        assert_eq!((&binding["routing_key"], &binding["arguments"]), (&json!(key), &arguments));
        assert_eq!((&binding["destination_type"], &binding["vhost"]), (&json!("queue"), &json!("/")));
        assert_eq!(http.delete(&format!("/bindings/%2F/e/x/q/q/{location}")), 204, "{key}");
    }
}

/// The `%XX` of a path segment, decoded once.
fn percent_decoded(segment: &str) -> String {
    let mut parts = segment.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        decoded.push(u8::from_str_radix(&part[..2], 16).unwrap());
        decoded.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(decoded).unwrap()
}

/// What the provider reads back; the client under it decodes into types of Go and fails over any other.
#[test]
fn terraform_reads_back_what_it_wrote() {
    let (_broker, http) = broker();
    golden::declare(&http);
    check(
        &http,
        &[
            (
                "/vhosts/v1",
                &[
                    ("/name", Kind::Text),
                    ("/description", Kind::Text),
                    ("/default_queue_type", Kind::Text),
                    ("/tracing", Kind::Flag),
                ],
            ),
            ("/users/u1", &[("/name", Kind::Text), ("/tags", Kind::List), ("/password_hash", Kind::Text)]),
            (
                "/permissions/v1/u1",
                &[
                    ("/user", Kind::Text),
                    ("/vhost", Kind::Text),
                    ("/configure", Kind::Text),
                    ("/write", Kind::Text),
                    ("/read", Kind::Text),
                ],
            ),
            (
                "/topic-permissions/v1/u1",
                &[("/0/exchange", Kind::Text), ("/0/write", Kind::Text), ("/0/read", Kind::Text)],
            ),
            (
                "/exchanges/%2F/orders",
                &[
                    ("/name", Kind::Text),
                    ("/vhost", Kind::Text),
                    ("/type", Kind::Text),
                    ("/durable", Kind::Flag),
                    ("/auto_delete", Kind::Flag),
                    ("/internal", Kind::Flag),
                    ("/arguments", Kind::Object),
                ],
            ),
            (
                "/queues/%2F/orders.eu",
                &[
                    ("/name", Kind::Text),
                    ("/vhost", Kind::Text),
                    ("/type", Kind::Text),
                    ("/durable", Kind::Flag),
                    ("/auto_delete", Kind::Flag),
                    ("/exclusive", Kind::Flag),
                    ("/arguments", Kind::Object),
                    ("/arguments/x-message-ttl", Kind::Number),
                    ("/consumer_utilisation", Kind::Number),
                ],
            ),
            (
                "/policies/v1/p1",
                &[
                    ("/vhost", Kind::Text),
                    ("/name", Kind::Text),
                    ("/pattern", Kind::Text),
                    ("/apply-to", Kind::Text),
                    ("/priority", Kind::Number),
                    ("/definition/max-length", Kind::Number),
                ],
            ),
            (
                "/operator-policies/v1/o1",
                &[
                    ("/vhost", Kind::Text),
                    ("/name", Kind::Text),
                    ("/pattern", Kind::Text),
                    ("/apply-to", Kind::Text),
                    ("/priority", Kind::Number),
                    ("/definition/expires", Kind::Number),
                ],
            ),
        ],
    );
}
