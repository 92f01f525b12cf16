//! What tools of other people ask for and read, each named after the tool. Their own tests are run by hand (tests/clients/README.md);
//! here stands what these showed, and for tools that cannot be run here the fields that their sources read.

use super::broker;
use serde_json::{Value, json};

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
