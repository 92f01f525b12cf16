//! user, permission, vhost, policy and ctl.

use serde_json::{Value, json};
use tests::http::Http;

use super::Setting;

#[test]
fn users_vhosts_and_policies_come_and_go() {
    let cli = Setting::new();
    cli.done(&["vhost", "add", "shop", "--description", "orders"]);
    let said = cli.run_with(&["user", "add", "ann", "--tags", "management", "--grant", "shop"], "secret\n");
    assert_eq!(said.code, 0, "{said:?}");
    cli.done(&["declare", "queue", "q", "--vhost", "shop", "--user", "ann", "--password", "secret"]);
    cli.done(&["permission", "set", "ann", "^$", "", ".*", "--vhost", "shop"]);
    let said = cli.run(&["declare", "queue", "r", "--vhost", "shop", "--user", "ann", "--password", "secret"]);
    assert_eq!(said.code, 77, "{said:?}");
    cli.done(&["policy", "set", "short", "^q", r#"{"max-length": 5}"#, "--vhost", "shop", "--apply-to", "queues"]);
    assert_eq!(cli.json(&["list", "queues", "--vhost", "shop"])[0]["policy"], "short");
    let said = cli.run(&["policy", "clear", "short", "--vhost", "shop", "--dry-run"]);
    assert!(said.err.contains("for '^q' would be removed, which 1 queues and 0 exchanges have"), "{said:?}");
    assert_eq!(cli.json(&["list", "queues", "--vhost", "shop"])[0]["policy"], "short");
    cli.done(&["policy", "clear", "short", "--vhost", "shop"]);
    let said = cli.run(&["permission", "clear", "ann", "--vhost", "shop", "-n"]);
    assert!(said.err.contains("would lose configure '^$', write '' and read '.*'"), "{said:?}");
    assert_eq!(cli.run(&["permission", "clear", "nobody", "--vhost", "shop", "-n"]).code, 66);
    cli.done(&["permission", "clear", "ann", "--vhost", "shop"]);
    cli.done(&["vhost", "limit", "shop", "max-queues", "1"]);
    let said = cli.run(&["declare", "queue", "r", "--vhost", "shop"]);
    assert_ne!(said.code, 0, "{said:?}");

    let said = cli.run(&["vhost", "delete", "shop", "--dry-run"]);
    assert!(said.err.contains("with 1 queues and 0 messages"), "{said:?}");
    cli.done(&["vhost", "delete", "shop"]);
    cli.done(&["user", "delete", "ann"]);
    assert_eq!(cli.json(&["list", "users"]).len(), 1);
}

#[test]
fn rabbitmqctls_commands_have_its_names_and_forms() {
    let cli = Setting::new();
    let ctl = |words: &[&str]| cli.done(&[&["ctl"], words].concat());
    ctl(&["add_vhost", "v"]);
    ctl(&["add_user", "u", "p"]);
    ctl(&["set_user_tags", "u", "management", "policymaker"]);
    ctl(&["set_permissions", "-p", "v", "u", ".*", ".*", ".*"]);
    ctl(&["set_topic_permissions", "-p", "v", "u", "amq.topic", "^a", "^b"]);
    ctl(&["clear_topic_permissions", "-p", "v", "u"]);
    ctl(&["change_password", "u", "other"]);
    assert_eq!(ctl(&["-q", "list_users"]).lines().last().unwrap(), "u\t[management, policymaker]");
    assert_eq!(
        ctl(&["list_permissions", "-p", "v"]),
        "user\tconfigure\twrite\tread\nguest\t.*\t.*\t.*\nu\t.*\t.*\t.*\n"
    );
    cli.done(&["declare", "queue", "q", "--vhost", "v", "--user", "u", "--password", "other"]);
    ctl(&["set_policy", "-p", "v", "--priority", "1", "--apply-to", "queues", "ttl", "^q", r#"{"message-ttl": 1000}"#]);
    assert_eq!(ctl(&["-s", "list_queues", "-p", "v", "name", "messages", "policy"]), "q\t0\tttl\n");
    ctl(&["clear_policy", "-p", "v", "ttl"]);
    ctl(&["trace_on", "-p", "v"]);
    let vhosts = cli.json(&["list", "vhosts", "--columns", "name,tracing"]);
    assert!(vhosts.contains(&json!({"name": "v", "tracing": true})), "{vhosts:?}");
    ctl(&["delete_queue", "-p", "v", "q"]);
    ctl(&["close_all_connections", "for", "a", "test"]);
    let http = Http::new(cli.broker.http());
    ctl(&["set_vm_memory_high_watermark", "absolute", "10"]);
    ctl(&["set_disk_free_limit", "2GB"]);
    let alarms = http.get("/x/alarms");
    let shown = [&alarms["reason"], &alarms["memory"]["watermark_bytes"], &alarms["disk"]["free_bytes_min"]];
    assert_eq!(shown, [&json!("low on memory"), &json!(10), &json!(2_000_000_000_u64)]);
    ctl(&["set_vm_memory_high_watermark", "0.4"]);
    ctl(&["set_disk_free_limit", "mem_relative", "1.0"]);
    let alarms = http.get("/x/alarms");
    let bytes = |place: &Value| place.as_f64().unwrap();
    let (memory, disk) = (bytes(&alarms["memory"]["watermark_bytes"]), bytes(&alarms["disk"]["free_bytes_min"]));
    assert!(alarms["reason"].is_null() && (memory / disk - 0.4).abs() < 0.001, "{alarms}");
    let said = cli.run(&["ctl", "set_vm_memory_high_watermark", "absolute"]);
    assert!(said.code == 64 && said.err.contains("'absolute' is no fraction"), "{said:?}");
    ctl(&["await_startup"]);
    assert!(ctl(&["status"]).contains("rabbitmq_version"));
    ctl(&["delete_user", "u"]);
    ctl(&["delete_vhost", "v"]);
    let said = cli.run(&["ctl", "join_cluster", "rabbit@x"]);
    assert!(said.code == 64 && said.err.contains("'join_cluster' is not among"), "{said:?}");
}
