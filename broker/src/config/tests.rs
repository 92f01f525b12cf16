//! Whole files: what they declare, and what is said about their mistakes.

use std::path::PathBuf;

use plugin_api::{
    exchange::DestinationKind,
    value::{Table, Value},
};

use super::*;
use crate::{
    hooks::{OnError, Scope},
    topology::schema::{PasswordDecl, PermissionDecl, QueueDecl},
    vhost::quorum::QuorumQueues,
    vhost::strict::{Strict, TransientQueues},
};

fn environment(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("from-env".to_owned()),
        "PORT" => Some("5673".to_owned()),
        _ => None,
    }
}

fn read_text(text: &str) -> Result<Loaded, Vec<Diagnostic>> {
    read(Source::new(Path::new("topology.yaml"), text.to_owned()), &environment)
}

#[track_caller]
fn good(text: &str) -> Topology {
    match read_text(text) {
        Ok(loaded) => {
            assert_eq!(shown(&loaded.warnings), "", "{text}");
            loaded.topology
        }
        Err(diagnostics) => panic!("{}", shown(&diagnostics)),
    }
}

fn shown(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect()
}

/// Places and causes only, for tables of mistakes.
#[track_caller]
fn check_errors(text: &str, expected: &[&str]) {
    let diagnostics = match read_text(text) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics,
    };
    let actual: Vec<String> = diagnostics
        .iter()
        .map(|diagnostic| format!("{}:{}: {}", diagnostic.line.unwrap_or(0), diagnostic.column, diagnostic.cause))
        .collect();
    assert_eq!(actual, expected, "{text}\n{}", shown(&diagnostics));
    for diagnostic in &diagnostics {
        assert!(!diagnostic.help.is_empty(), "no way out: {diagnostic}");
    }
}

#[track_caller]
fn check_warnings(text: &str, expected: &[&str]) {
    let loaded = read_text(text).unwrap_or_else(|diagnostics| panic!("{}", shown(&diagnostics)));
    let actual: Vec<String> = loaded.warnings.iter().map(|warning| warning.cause.clone()).collect();
    assert_eq!(actual, expected, "{text}");
}

#[test]
fn twenty_mistakes_are_reported_at_once() {
    let text = include_str!("testdata/twenty_mistakes.yaml");
    let diagnostics = read_text(text).unwrap_err();
    assert_eq!(shown(&diagnostics), include_str!("testdata/twenty_mistakes.txt"));
    assert!(diagnostics.iter().all(Diagnostic::is_error));
    assert_eq!(diagnostics.len(), 20);
}

#[test]
fn what_a_file_leaves_out_is_as_without_a_file() {
    let topology = good("limits: { heartbeat_secs: 30 }");
    assert_eq!(topology.limits.heartbeat_secs, 30);
    assert_eq!(topology.limits.frame_max_bytes, 131_072);
    assert_eq!(topology.listeners.amqp[0].to_string(), "0.0.0.0:5672");
    assert_eq!(topology.vhosts.len(), 1);
    assert_eq!(topology.vhosts[0].name, "/");
    assert_eq!(topology.users, [UserDecl::guest(&topology.vhosts)]);

    let topology = good("vhosts: { eu: {}, us: }");
    let vhosts: Vec<&str> = topology.users[0].permissions.iter().map(|entry| entry.vhost.as_str()).collect();
    assert_eq!(vhosts, ["eu", "us"], "guest may enter every declared vhost");

    assert!(good("users: {}").users.is_empty(), "an empty section means none");
}

#[test]
fn settings_of_the_node_are_read() {
    let topology = good(
        "node: { product: Orders, version: 4.2.0, cluster_name: rabbit@eu }\n\
         listeners: { amqp: ['127.0.0.1:${PORT}', '[::1]:5672'], proxy_protocol: true }\n\
         limits: { frame_max_bytes: 64KiB, channel_max: 10, handshake_timeout_secs: 5, message_bytes_max: 1MiB,\n\
         \x20         connections_max: 100, shutdown_deadline_secs: 3, disk_free_bytes_min: 1GiB,\n\
         \x20         consumer_max_per_channel: 7, transaction_bytes_max: 2MiB }\n\
         storage: { kind: memory, config: { sync: [1, 2.5, on, ~, {a: b}] } }\n\
         bindings: { mixed_durability: refuse }\n",
    );
    assert_eq!(topology.node.version.as_deref(), Some("4.2.0"));
    let addresses: Vec<String> = topology.listeners.amqp.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1:5673", "[::1]:5672"]);
    assert!(topology.listeners.proxy_protocol && !Topology::default().listeners.proxy_protocol);
    assert_eq!((topology.limits.frame_max_bytes, topology.limits.message_bytes_max), (65536, 1 << 20));
    assert_eq!((topology.limits.connections_max, topology.limits.shutdown_deadline_secs), (Some(100), 3));
    assert_eq!(topology.limits.disk_free_bytes_min, Some(1 << 30));
    assert_eq!((topology.limits.consumer_max_per_channel, topology.limits.transaction_bytes_max), (7, 2 << 20));
    assert_eq!(topology.storage.config, serde_json::json!({"sync": [1, 2.5, "on", null, {"a": "b"}]}));
    assert_eq!(topology.bindings_mixed_durability, MixedDurability::Refuse);
    let parameters = good(
        "parameters: { a: { b: [1, 18446744073709551615] } }\nvhosts: { /: { parameters: { shovel: { s: x } } } }",
    );
    assert_eq!(parameters.parameters, [("a".to_owned(), serde_json::json!({"b": [1, u64::MAX]}))]);
    let of_vhost = &parameters.vhosts[0].parameters[0];
    assert_eq!((&*of_vhost.component, &*of_vhost.name, &of_vhost.value), ("shovel", "s", &serde_json::json!("x")));
    assert_eq!(good("storage: memory").storage.kind.as_deref(), Some("memory"));
    assert_eq!(good("storage: { data: data }").storage.data, Some(PathBuf::from("./data")));
    assert_eq!(good("storage: { data: /var/lib/broker }").storage.data, Some(PathBuf::from("/var/lib/broker")));
    check_warnings("storage: { kind: memory, data: data }", &["storage 'memory' writes nothing into a data folder"]);
}

#[test]
fn passwords_come_from_four_places() {
    let folder = tests_folder("passwords");
    std::fs::write(folder.join("app.secret"), "from-file\n").unwrap();
    std::fs::write(
        folder.join("topology.yaml"),
        "users:\n  plain: { password: 12345 }\n  env: { password: { env: SECRET } }\n  inline: { password: 'x-${SECRET}' }\n\
         \x20 file: { password: { file: app.secret } }\n\
         \x20 hash: { password: { hash: kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR } }\n\
         \x20 nobody: { password: { hash: '' } }\n",
    )
    .unwrap();
    let topology = load(&folder.join("topology.yaml"), &environment).unwrap().topology;
    let password = |name: &str| &topology.users.iter().find(|user| user.name == name).unwrap().password;
    let plain = |text: &str| PasswordDecl::Plain(text.to_owned());
    assert_eq!(*password("plain"), plain("12345"));
    assert_eq!(*password("env"), plain("from-env"));
    assert_eq!(*password("inline"), plain("x-from-env"));
    assert_eq!(*password("file"), plain("from-file"));
    assert!(matches!(password("hash"), PasswordDecl::Hash { hash, .. } if hash.starts_with("kI3G")));
    assert!(matches!(password("nobody"), PasswordDecl::Hash { hash, .. } if hash.is_empty()));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn permissions_have_a_short_form_and_default_to_nothing() {
    let topology = good(
        "users:\n  app:\n    password: x\n    tags: [management, custom]\n    loopback_only: true\n\
         \x20   permissions:\n      /: { configure: ^app, read: .* }\n      eu: ^eu\nvhosts: { /: {}, eu: {} }\n",
    );
    let user = &topology.users[0];
    let permission = |vhost: &str, configure: &str, write: &str, read: &str| PermissionDecl {
        vhost: vhost.to_owned(),
        configure: configure.to_owned(),
        write: write.to_owned(),
        read: read.to_owned(),
    };
    assert_eq!(user.permissions, [permission("/", "^app", "", ".*"), permission("eu", "^eu", "^eu", "^eu")]);
    assert_eq!((user.tags.len(), user.loopback_only), (2, true));
}

#[test]
fn exchanges_and_queues_have_short_and_long_forms() {
    let forms = [
        "vhosts: { /: { exchanges: { a: topic, b: { type: fanout, durable: false } }, queues: { q: , r: { auto_delete: true } } } }",
        "vhosts:\n- name: /\n  exchanges: [a: topic, { name: b, type: fanout, durable: false }]\n  queues: [q, r: { auto_delete: true }]\n",
    ];
    for form in forms {
        let vhost = &good(form).vhosts[0];
        let exchanges: Vec<_> =
            vhost.exchanges.iter().map(|x| (x.name.as_str(), x.kind.as_str(), x.durable, x.internal)).collect();
        assert_eq!(exchanges, [("a", "topic", true, false), ("b", "fanout", false, false)], "{form}");
        let queues: Vec<_> = vhost.queues.iter().map(|q| (q.name.as_str(), q.durable, q.auto_delete)).collect();
        assert_eq!(queues, [("q", true, false), ("r", true, true)], "{form}");
    }
}

#[test]
fn bindings_have_short_and_long_forms() {
    let topology = "vhosts:\n  /:\n    exchanges: { a: topic, b: headers }\n    queues: [q, 'x:y']\n    bindings:\n";
    let bindings = |text: &str| -> Vec<(String, String, bool, String, usize)> {
        let indented: String = text.lines().map(|line| format!("      {line}\n")).collect();
        good(&format!("{topology}{indented}")).vhosts[0]
            .bindings
            .iter()
            .map(|b| {
                let to_queue = b.destination_kind == DestinationKind::Queue;
                (b.source.clone(), b.destination.clone(), to_queue, b.routing_key.clone(), b.arguments.len())
            })
            .collect()
    };
    let expect = |source: &str, destination: &str, to_queue, key: &str, arguments| {
        (source.to_owned(), destination.to_owned(), to_queue, key.to_owned(), arguments)
    };
    assert_eq!(bindings("- a -> q : order.eu.#"), [expect("a", "q", true, "order.eu.#", 0)]);
    assert_eq!(
        bindings("a -> q : order.eu.#\na -> x:y: k"),
        [expect("a", "q", true, "order.eu.#", 0), expect("a", "x:y", true, "k", 0)]
    );
    assert_eq!(bindings("- a -> q"), [expect("a", "q", true, "", 0)]);
    assert_eq!(
        bindings("- a->q: [x, '#', 7]"),
        [expect("a", "q", true, "x", 0), expect("a", "q", true, "#", 0), expect("a", "q", true, "7", 0)]
    );
    assert_eq!(bindings("- a -> exchange:b : k"), [expect("a", "b", false, "k", 0)]);
    assert_eq!(bindings("- amq.topic -> queue:q : k"), [expect("amq.topic", "q", true, "k", 0)]);
    assert_eq!(bindings("- b -> q : { arguments: { x-match: any, format: pdf } }"), [expect("b", "q", true, "", 2)]);
    assert_eq!(
        bindings("- { source: a, destination: b, destination_type: exchange, routing_key: [k, l] }"),
        [expect("a", "b", false, "k", 0), expect("a", "b", false, "l", 0)]
    );
    assert_eq!(bindings("- { source: a, destination: q }"), [expect("a", "q", true, "", 0)]);
    assert_eq!(bindings("- \"a -> q\" : \"#\""), [expect("a", "q", true, "#", 0)]);
}

#[test]
fn arguments_keep_their_types() {
    let topology = good(
        "vhosts:\n  /:\n    queues:\n      q:\n        arguments:\n          int: 5\n          float: 1.5\n          text: abc\n\
         \x20         quoted: '5'\n          flag: true\n          nothing: ~\n          list: [1, a, {b: 2}]\n          u8: !u8 200\n\
         \x20         i16: !i16 -5\n          f32: !f32 0.5\n          at: !timestamp 1700000000\n          raw: !bytes aGk=\n\
         \x20         price: !decimal 12.50\n          x-queue-type: classic\n",
    );
    let text = |text: &str| Value::LongString(text.as_bytes().to_vec());
    let mut expected = Table::new();
    let mut inner = Table::new();
    inner.insert("b", Value::I64(2));
    for (key, value) in [
        ("int", Value::I64(5)),
        ("float", Value::F64(1.5)),
        ("text", text("abc")),
        ("quoted", text("5")),
        ("flag", Value::Bool(true)),
        ("nothing", Value::Void),
        ("list", Value::Array(vec![Value::I64(1), text("a"), Value::Table(inner)])),
        ("u8", Value::U8(200)),
        ("i16", Value::I16(-5)),
        ("f32", Value::F32(0.5)),
        ("at", Value::Timestamp(1_700_000_000)),
        ("raw", Value::Bytes(b"hi".to_vec())),
        ("price", Value::Decimal { scale: 2, value: 1250 }),
        ("x-queue-type", text("classic")),
    ] {
        expected.insert(key, value);
    }
    assert_eq!(topology.vhosts[0].queues[0].arguments, expected);
}

#[test]
fn friendly_keys_become_arguments() {
    let topology = good(
        "vhosts: { /: { exchanges: { a: { type: topic, alternate_exchange: b }, b: fanout }, queues: { q: { type: classic } } } }",
    );
    let vhost = &topology.vhosts[0];
    assert_eq!(vhost.exchanges[0].arguments.get("alternate-exchange"), Some(&Value::from("b")));
    assert_eq!(vhost.queues[0].arguments.get("x-queue-type"), Some(&Value::from("classic")));
    let topology = good(
        "vhosts:\n  /:\n    queues:\n      q: { type: quorum, ttl: 30s, expires: 1h, max_length: 5, max_length_bytes: 1KiB, \
         overflow: reject-publish, delivery_limit: 3, single_active_consumer: true, consumer_timeout: 5m, \
         dead_letter: { exchange: dlx, routing_key: k } }\n      p: { max_priority: 9, dead_letter: '' }\n",
    );
    let queues = &topology.vhosts[0].queues;
    let expected = Table::new()
        .with("x-queue-type", "quorum")
        .with("x-message-ttl", 30_000i64)
        .with("x-expires", 3_600_000i64)
        .with("x-max-length", 5i64)
        .with("x-max-length-bytes", 1024i64)
        .with("x-overflow", "reject-publish")
        .with("x-delivery-limit", 3i64)
        .with("x-single-active-consumer", true)
        .with("x-consumer-timeout", 300_000i64)
        .with("x-dead-letter-exchange", "dlx")
        .with("x-dead-letter-routing-key", "k");
    assert!(queues[0].arguments.equivalent(&expected), "{:?}", queues[0].arguments);
    let expected = Table::new().with("x-max-priority", 9i64).with("x-dead-letter-exchange", "");
    assert!(queues[1].arguments.equivalent(&expected), "{:?}", queues[1].arguments);
}

#[test]
fn quorum_queues_and_transient_ones_may_be_refused() {
    let topology = good("node: { quorum_queues: refuse, transient_queues: refuse }");
    let strict = Strict { quorum_queues: QuorumQueues::Refused, transient_queues: TransientQueues::Refused };
    assert_eq!(topology.node.strict, strict);
    assert_eq!(good("node: { quorum_queues: local, transient_queues: allow }").node.strict, Strict::default());
    check_errors("node: { transient_queues: local }", &["1:27: 'local' is not known here"]);
    check_errors("node: { quorum_queues: never }", &["1:24: 'never' is not known here"]);
}

#[test]
fn durability_is_chosen_for_vhosts_and_queues() {
    let topology = good(
        "vhosts:\n  /: { queues: { a: , b: { durability: os } } }\n  fast:\n    durability: os\n\
         \x20   queues: { c: , d: { durability: synced } }\n",
    );
    let shown: Vec<_> = topology
        .vhosts
        .iter()
        .flat_map(|vhost| {
            let own =
                |queue: &QueueDecl| queue.arguments.get("x-durability").and_then(Value::as_str).map(str::to_owned);
            vhost.queues.iter().map(move |queue| (vhost.durability.name(), queue.name.as_str(), own(queue)))
        })
        .collect();
    let own = |name: &str| Some(name.to_owned());
    assert_eq!(
        shown,
        [("synced", "a", None), ("synced", "b", own("os")), ("os", "c", None), ("os", "d", own("synced"))]
    );
    check_errors("vhosts: { /: { durability: fast } }", &["1:28: 'fast' is not known here"]);
    check_errors("vhosts: { /: { queues: { q: { durability: true } } } }", &["1:43: expected text, found true"]);
    check_errors(
        "vhosts: { /: { queues: { q: { durability: os, arguments: { x-durability: os } } } } }",
        &["1:43: 'durability' and argument 'x-durability' are the same thing"],
    );
    check_warnings(
        "vhosts: { /: { queues: { q: { durable: false, durability: os } } } }",
        &["queue 'q' is not durable, so its durability 'os' has no effect"],
    );
}

#[test]
fn hooks_stand_where_they_belong() {
    let folder = tests_folder("hooks");
    std::fs::write(folder.join("tenant.lua"), "return {}").unwrap();
    std::fs::write(
        folder.join("topology.yaml"),
        "hooks:\n  - tenant.lua\n  - { script: tenant.lua, vhost: /, exchange: amq.topic }\n\
         vhosts:\n  /:\n    hooks: { script: tenant.lua, name: audit, on_error: pass, time_limit: 2ms, memory_limit: 1MiB, body: true, dead_letter_exchange: dlx }\n\
         \x20   exchanges: { dlx: fanout, orders: { type: topic, hooks: [tenant.lua] } }\n\
         \x20   queues: { all: { hooks: [{ script: tenant.lua, shadow: true, watch: true, on_error: dead_letter }] } }\n",
    )
    .unwrap();
    let hooks = load(&folder.join("topology.yaml"), &environment).unwrap().topology.hooks;
    let exchange = |exchange: &str| Scope::Exchange { vhost: "/".to_owned(), exchange: exchange.to_owned() };
    let places: Vec<_> = hooks.iter().map(|hook| (hook.name.as_str(), hook.scope.clone())).collect();
    assert_eq!(
        places,
        [
            ("tenant", Scope::Broker),
            ("tenant-2", exchange("amq.topic")),
            ("audit", Scope::Vhost("/".to_owned())),
            ("tenant-3", exchange("orders")),
            ("tenant-4", Scope::Queue { vhost: "/".to_owned(), queue: "all".to_owned() })
        ]
    );
    let last = &hooks[4];
    assert_eq!((last.on_error, last.shadow, last.watch, last.body), (OnError::DeadLetter, true, true, false));
    let audit = &hooks[2];
    assert_eq!((audit.shadow, audit.watch, &audit.dead_letter_exchange), (false, false, &Some("dlx".to_owned())));
    assert_eq!((audit.on_error, audit.time_limit.as_millis()), (OnError::Pass, 2));
    assert_eq!((audit.memory_limit_bytes, audit.body), (1 << 20, true));
    assert_eq!(audit.script, folder.join("tenant.lua"));

    for (text, cause) in [
        ("hooks: [{ script: tenant.lua, queue: q }]", "this hook names a queue without its vhost"),
        ("hooks: [{ script: tenant.lua, vhost: /, queue: q, exchange: x }]", "this hook names an exchange and a queue"),
        (
            "{hooks: [{ script: tenant.lua, vhost: /, queue: q }], vhosts: {/: {queues: [p]}}}",
            "queue 'q' is not declared in vhost '/'",
        ),
        (
            "vhosts: {/: {hooks: [{ script: tenant.lua, dead_letter_exchange: x }]}}",
            "exchange 'x' is not declared in vhost '/'",
        ),
    ] {
        std::fs::write(folder.join("topology.yaml"), text).unwrap();
        let diagnostics = load(&folder.join("topology.yaml"), &environment).unwrap_err();
        assert_eq!(diagnostics[0].cause, cause, "{text}");
    }

    std::fs::write(folder.join("topology.yaml"), "hooks: [tennant.lua, .]").unwrap();
    let diagnostics = load(&folder.join("topology.yaml"), &environment).unwrap_err();
    let texts: Vec<_> = diagnostics.iter().map(|d| (d.cause.as_str(), d.help.as_str())).collect();
    assert_eq!(
        texts,
        [
            ("hook script 'tennant.lua' does not exist", "did you mean 'tenant.lua'?"),
            ("hook script '.' is a folder", "give a .lua file in it"),
        ]
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn plugins_are_found_beside_the_file() {
    let folder = tests_folder("plugins");
    std::fs::write(folder.join("x.so"), "not really one").unwrap();
    let digest = "AB".repeat(32);
    let text = format!(
        "plugins: [x.so, {{ path: x.so, sha256: {digest}, required: false, config: {{ weight: 3 }} }}, {{ path: y.so, required: false }}]"
    );
    std::fs::write(folder.join("topology.yaml"), text).unwrap();
    let loaded = load(&folder.join("topology.yaml"), &environment).unwrap();
    let plugins = &loaded.topology.plugins;
    assert_eq!(plugins[0].path, folder.join("x.so"));
    assert_eq!(plugins[1].sha256, Some("ab".repeat(32)));
    assert_eq!(plugins[1].config, serde_json::json!({"weight": 3}));
    assert_eq!((plugins[0].required, plugins[1].required, plugins.len()), (true, false, 3));
    assert_eq!(loaded.warnings.len(), 1);

    std::fs::write(folder.join("topology.yaml"), "plugins: [y.so, { path: x.so, sha256: abc }, {}]").unwrap();
    assert_eq!(load(&folder.join("topology.yaml"), &environment).unwrap_err().len(), 3);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn values_of_the_wrong_kind() {
    check_errors("[a, b]", &["1:1: expected a mapping for the file, found a list"]);
    check_errors("text", &["1:1: expected a mapping for the file, found 'text'"]);
    check_errors("limits: [1]", &["1:9: expected a mapping for limits, found a list"]);
    check_errors("limits: { channel_max: 70000 }", &["1:24: the number 70000 is out of range"]);
    check_errors("limits: { channel_max: -1 }", &["1:24: the number -1 is out of range"]);
    check_errors("limits: { heartbeat_secs: 10s }", &["1:27: expected a whole number, found '10s'"]);
    check_errors("limits: { message_bytes_max: 1TB }", &["1:30: 'TB' is not a unit of a size"]);
    check_errors("limits: { message_bytes_max: 1GiB }", &["1:30: '1GiB' is out of range"]);
    check_errors("node: { version: 4.2 }", &["1:18: '4.2' is not a version"]);
    check_errors("listeners: { amqp: }", &["1:14: expected an address, found nothing"]);
    check_errors("node: { product: true }", &["1:18: expected text, found true"]);
    check_errors("node: { product: !u8 5 }", &["1:18: tag '!u8' has no meaning here"]);
    check_errors("vhosts: 5", &["1:9: expected names, each with a vhost, found the number 5"]);
    check_errors("vhosts: { /: { bindings: { a: b } } }", &["1:28: 'a' is not a binding"]);
    check_errors("vhosts: { /: { queues: { q: { durable: } } } }", &["1:31: expected true or false, found nothing"]);
    check_errors(
        "users: { a: { password: x, permissions: [/] } }",
        &["1:41: expected a mapping from vhosts to patterns, found a list"],
    );
}

#[test]
fn arguments_are_checked_as_a_declaration_checks_them() {
    let queue = |body: &str| format!("vhosts: {{ /: {{ queues: {{ q: {{ {body} }} }} }} }}");
    for (body, expected) in [
        ("arguments: { x-message-ttl: -5 }", "1:59: queue argument 'x-message-ttl' with value -5 is below 0"),
        (
            "arguments: { x-overflow: wait }",
            "1:56: queue argument 'x-overflow' with value 'wait' is not one of drop-head, reject-publish, reject-publish-dlx",
        ),
        (
            "type: stream",
            "1:37: queue argument 'x-queue-type' with value 'stream' is not supported: this broker has no streams",
        ),
        ("type: heap", "1:37: queue argument 'x-queue-type' with value 'heap' is not one of classic, quorum"),
        (
            "type: quorum, max_priority: 5",
            "1:59: queue argument 'x-max-priority' does not belong to queues of type quorum",
        ),
        ("type: quorum, durable: false", "1:37: quorum queue 'q' cannot be non-durable"),
        (
            "arguments: { x-dead-letter-routing-key: k }",
            "1:71: queue argument 'x-dead-letter-routing-key' is of no use without 'x-dead-letter-exchange'",
        ),
        ("ttl: 5", "1:36: expected a duration, found the number 5"),
        ("overflow: wait", "1:41: 'wait' is not known here"),
        ("dead_letter: { routing_key: k }", "1:44: a dead-letter target needs an exchange"),
        ("ttl: 5s, arguments: { x-message-ttl: 5000 }", "1:36: 'ttl' and argument 'x-message-ttl' are the same thing"),
        ("hooks: x", "1:38: hook script 'x' does not exist"),
    ] {
        check_errors(&queue(body), &[expected]);
    }
}

#[test]
fn names_that_refer_to_nothing() {
    let vhost = |body: &str| format!("vhosts:\n  /:\n    exchanges: {{ orders: topic }}\n    queues: [all]\n{body}");
    check_errors(
        &vhost("    bindings: [ordres -> al]\n"),
        &["5:16: exchange 'ordres' is not declared in vhost '/'", "5:26: queue 'al' is not declared in vhost '/'"],
    );
    check_errors(&vhost("    bindings: [orders -> orders]\n"), &["5:26: queue 'orders' is not declared in vhost '/'"]);
    check_errors(
        &vhost("    bindings: [orders -> exchange:all]\n"),
        &["5:35: exchange 'all' is not declared in vhost '/'"],
    );
    check_errors(
        &vhost("    bindings: [{ source: '', destination: all }]\n"),
        &["5:26: nothing can be bound to the default exchange"],
    );
    check_errors(
        &vhost("users: { a: { password: x, permissions: { stagin: .* } } }\n"),
        &["5:43: vhost 'stagin' is not declared"],
    );
}

#[test]
fn names_that_cannot_be_declared() {
    let vhost = |body: &str| format!("vhosts: {{ /: {{ {body} }} }}");
    check_errors(&vhost("queues: [amq.gen-1]"), &["1:25: queue name 'amq.gen-1' contains reserved prefix 'amq.*'"]);
    check_errors(&vhost("queues: ['']"), &["1:25: a queue needs a name"]);
    check_errors(&vhost("queues: [a, a]"), &["1:28: queue 'a' is declared twice"]);
    check_errors(
        &vhost("exchanges: [amq.x: topic]"),
        &["1:28: exchange name 'amq.x' contains reserved prefix 'amq.*'"],
    );
    check_errors(
        &vhost("exchanges: [amq.topic: topic]"),
        &["1:28: exchange 'amq.topic' is predeclared in every vhost"],
    );
    check_errors(
        &vhost("exchanges: ['': topic]"),
        &["1:28: the default exchange '' is always there and cannot be declared"],
    );
    check_errors(&vhost("exchanges: [a: topic, { name: a, type: fanout }]"), &["1:46: exchange 'a' is declared twice"]);
    check_errors(&vhost(&format!("queues: [{}]", "q".repeat(256))), &["1:25: queue name is longer than 255 bytes"]);
    good(&vhost(&format!("queues: [{}]", "q".repeat(255))));
    check_errors("vhosts: [a, a]", &["1:13: vhost 'a' is declared twice"]);
    check_errors("users: [{ name: a, password: x }, { name: a, password: y }]", &["1:43: user 'a' is declared twice"]);
    check_errors("listeners: { amqp: [5672, '0.0.0.0:5672'] }", &["1:27: listener 0.0.0.0:5672 is declared twice"]);
}

#[test]
fn passwords_that_cannot_be_used() {
    let user = |password: &str| format!("users: {{ a: {{ password: {password} }} }}");
    check_errors("users: { a: }", &["1:10: user 'a' has no password"]);
    check_errors("users: { a: { tags: x } }", &["1:10: user 'a' has no password"]);
    check_errors(&user("''"), &["1:25: the password is empty"]);
    check_errors(&user("{}"), &["1:25: this password comes from nowhere"]);
    check_errors(&user("{ env: X, file: y }"), &["1:25: this password is given twice"]);
    check_errors(&user("{ env: X }"), &["1:32: environment variable 'X' is not set"]);
    check_errors(&user("{ file: no/such/file }"), &["1:33: no password file ./no/such/file"]);
    check_errors(
        &user("{ hash: AAAA }"),
        &["1:33: the password hash has 3 bytes, but sha256 needs 36 (a salt of 4 and the digest)"],
    );
    check_errors(
        &user("{ hash: AAAA, algorithm: rabbit_password_hashing_md5 }"),
        &["1:33: the password hash has 3 bytes, but md5 needs 20 (a salt of 4 and the digest)"],
    );
}

#[test]
fn binding_that_lost_its_key_to_a_comment() {
    let text = "vhosts:\n  /:\n    exchanges: { a: topic }\n    queues: [q]\n    bindings:\n      - a -> q : #\n";
    check_errors(text, &["6:9: there is a ':' but no routing key"]);
    check_errors(&text.replace(": #", "-> c"), &["6:9: 'a -> q -> c' is not a binding"]);
    check_errors(&text.replace("a -> q : #", "a -> : x"), &["6:9: one end of this binding is missing"]);
}

#[test]
fn mixed_durability_is_a_warning_unless_refused() {
    let text = "vhosts: { /: { exchanges: [a: topic], queues: [q: { durable: false }], bindings: [a -> q] } }";
    check_warnings(text, &["exchange 'a' is durable but queue 'q' is not"]);
    let diagnostics = read_text(&format!("bindings: {{ mixed_durability: refuse }}\n{text}")).unwrap_err();
    assert_eq!(diagnostics.len(), 1);
    assert!(diagnostics[0].is_error());
}

#[test]
fn doubtful_things_are_warnings() {
    let vhost = |body: &str| format!("vhosts: {{ /: {{ {body} }} }}");
    check_warnings(
        &vhost("exchanges: { a: { type: topic, alternate_exchange: b } }"),
        &["alternate exchange 'b' is not declared in vhost '/'"],
    );
    check_warnings(
        &vhost("queues: { q: { arguments: { x-mesage-ttl: 5 } } }"),
        &["queue argument 'x-mesage-ttl' has no meaning"],
    );
    check_warnings(
        &vhost("exchanges: [a: topic], queues: [q], bindings: [a -> q: k, a -> q: k, a -> q: l]"),
        &["this binding from 'a' to 'q' is declared twice"],
    );
    check_warnings(
        "users: { a: { password: x, tags: [adminstrator] } }",
        &["tag 'adminstrator' of user 'a' has no meaning"],
    );
    check_warnings("users: { a: { password: x, tags: [team-blue] } }", &[]);
}

#[test]
fn exchange_types_are_checked_when_they_are_known() {
    let loaded =
        read_text("vhosts:\n  /:\n    exchanges:\n      a: topik\n      b: x-delayed\n      c: fanout\n").unwrap();
    let diagnostics = loaded.check_exchange_types(&["direct", "fanout", "topic", "headers"]);
    assert_eq!(
        shown(&diagnostics),
        "topology.yaml:4:10: unknown exchange type 'topik'\n  4 |       a: topik\n    |          ^^^^^ did you mean 'topic'?\n\
         topology.yaml:5:10: unknown exchange type 'x-delayed'\n  5 |       b: x-delayed\n    |          ^^^^^^^^^ known: direct, \
         fanout, topic, headers; other types come with plugins\n"
    );
}

#[test]
fn files_that_cannot_be_read_have_one_sentence_each() {
    let folder = tests_folder("files");
    let check = |name: &str, content: Option<&[u8]>, expected: &str| {
        let path = folder.join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let diagnostics = load(&path, &environment).unwrap_err();
        assert_eq!(diagnostics.len(), 1, "{name}: {}", shown(&diagnostics));
        assert_eq!(diagnostics[0].to_string(), format!("{}{expected}", path.display()));
    };
    check("missing.yaml", None, ": no such file; check the path, which is relative to the current folder");
    check("", None, ": this is a folder; give the topology file in it, such as topology.yaml");
    check("empty.yaml", Some(b""), ": the file is empty; the smallest topology is 'vhosts: { /: {} }'");
    check("comment.yaml", Some(b"# nothing\n"), ": the file is empty; the smallest topology is 'vhosts: { /: {} }'");
    check("latin1.yaml", Some(b"a: 1\nb: caf\xe9\n"), ":2:7: byte 0xe9 is not UTF-8; save the file as UTF-8");
    check("utf16.yaml", Some(b"\xff\xfea\0"), ": the file is UTF-16; save it as UTF-8");
    let huge = std::fs::File::create(folder.join("huge.yaml")).unwrap();
    huge.set_len(source::FILE_BYTES_MAX + 1).unwrap();
    check("huge.yaml", None, ": the file is larger than 16 MiB; is it really a topology file?");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn mistakes_of_a_generated_file_are_cut() {
    let lines: String = (0..3000).map(|n| format!("      - no -> q{n}\n")).collect();
    let diagnostics = read_text(&format!("vhosts:\n  /:\n    bindings:\n{lines}")).unwrap_err();
    assert_eq!(diagnostics.len(), 1001);
    assert!(diagnostics[1000].cause.starts_with("more than 1000 mistakes"));
}

#[test]
fn damaged_files_are_mistakes_not_panics() {
    let texts =
        [include_str!("testdata/twenty_mistakes.yaml"), include_str!("../../../examples/quickstart/topology.yaml")];
    for text in texts {
        let ends = text.char_indices().map(|(at, _)| at);
        for end in ends.step_by(9) {
            let _ = read_text(&text[..end]);
        }
        for (at, char) in text.char_indices().step_by(97) {
            for replacement in
                ["", "\n", "\t", ":", "-", "{", "]", "&a ", "*a", "!", "'", "\"", "|", "#", "\u{0}", "\u{85}"]
            {
                let _ = read_text(&format!("{}{replacement}{}", &text[..at], &text[at + char.len_utf8()..]));
            }
        }
    }
}

#[test]
fn every_key_is_in_the_reference() {
    let reference = include_str!("../topology/README.md");
    for (name, section) in SECTIONS {
        for key in section.keys {
            assert!(reference.contains(&format!("`{key}`")), "key '{key}' of {name} is not described");
        }
    }
}

/// A folder of its own for one test.
fn tests_folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("broker-config-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

mod includes;
mod settings;
