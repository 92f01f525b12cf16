//! What is written is read back as it was.

use super::*;
use crate::config;

#[track_caller]
fn read(text: &str) -> Topology {
    match config::load_text("t.yaml", text) {
        Ok(loaded) => loaded.topology,
        Err(diagnostics) => {
            panic!("{text}\n{}", diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
    }
}

/// With arguments in an order of their own, and whole numbers of any width alike, as the broker compares them.
fn shown(topology: &Topology) -> String {
    let sorted = |arguments: &mut Table| {
        let mut entries: Vec<(Vec<u8>, Value)> =
            arguments.iter().map(|(key, value)| (key.to_vec(), value.clone())).collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut table = Table::new();
        for (key, value) in entries {
            let is_friendly = key.starts_with(b"x-m");
            let value = value.as_i64().filter(|_| is_friendly).map_or(value, Value::I64);
            table.push(&key, value).unwrap();
        }
        *arguments = table;
    };
    let mut vhosts = topology.vhosts.clone();
    for vhost in &mut vhosts {
        vhost.exchanges.iter_mut().for_each(|exchange| sorted(&mut exchange.arguments));
        vhost.queues.iter_mut().for_each(|queue| sorted(&mut queue.arguments));
        vhost.bindings.iter_mut().for_each(|binding| sorted(&mut binding.arguments));
    }
    format!("{vhosts:?} {:?}", topology.parameters)
}

#[track_caller]
fn check(text: &str) {
    let topology = read(text);
    let rendered = render(&topology);
    let again = read(&rendered);
    assert_eq!(shown(&again), shown(&topology), "{rendered}");
    assert_eq!(format!("{:?}", again.users), format!("{:?}", topology.users), "{rendered}");
    assert_eq!(render(&again), rendered);
}

#[test]
fn every_kind_of_thing_comes_back() {
    check(
        r##"
users:
  app:
    password: { hash: kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR, algorithm: sha256 }
    tags: [a, "b c"]
    loopback_only: true
    limits: { max_connections: 0, max_channels: -1 }
    permissions: { /: { read: "^a\\.\"x\"" }, v: .* }
    topic_permissions: { /: { amq.topic: { write: "^{username}", read: .* } } }
  nobody: { password: { hash: "" } }
parameters: { p: { a: [1, 2.5, true, ~, "on", "$${"] }, "<<": "1e3" }
vhosts:
  /: {}
  v:
    parameters: { "a b": { c: ~ }, shovel: { s: { "<<": x }, t: 1 } }
    durability: os
    description: "two\nlines: #1"
    tags: t
    default_queue_type: classic
    limits: { max_queues: 3 }
    tracing: true
    event_exchange: true
    policies: { p: { pattern: "", priority: -1, apply_to: exchanges, definition: { alternate-exchange: e } } }
    operator_policies: { o: { pattern: .*, apply_to: queues, definition: { max-length: 3 } } }
    exchanges:
      e: { type: topic, durable: false, auto_delete: true, internal: true, alternate_exchange: amq.fanout }
      h: headers
    queues:
      q: { durable: false, auto_delete: true, max_length: 3, max_length_bytes: 10, overflow: reject-publish, ttl: 1s,
           expires: 2s, dead_letter: { exchange: '', routing_key: k }, max_priority: 4, single_active_consumer: true }
      z: { arguments: { x-max-length: 0, x-message-ttl: !i32 5 } }
    bindings:
      - h -> q : { arguments: { x-match: any, a: !u8 3, b: [1, x, { c: ~ }], d: !decimal 12.50, e: !bytes aGk=,
                                f: !timestamp 7, g: !f32 1.5, h: 2.5, i: true } }
      - { source: e, destination: h, destination_type: exchange, routing_key: "#" }
"##,
    );
}

#[test]
fn names_that_yaml_would_read_as_something_else_are_quoted() {
    for name in [
        "true", "~", "1e3", "-", "a: b", "a #b", "*x", "&x", "!x", "'", "\"", "\\", "${HOME}", "$${x}", "ä 漢", "a\tb",
        "null", ".5", "[x", "x,y", "\u{85}", "\u{feff}", "yes", "=", " lead", "a->b", "<<",
    ] {
        let topology = Topology {
            vhosts: vec![VhostDecl {
                name: "v".to_owned(),
                queues: vec![QueueDecl {
                    name: name.to_owned(),
                    durable: true,
                    auto_delete: false,
                    arguments: Table::new().with("x-some", name).with("x-map", Table::new().with(name, 1_i64)),
                }],
                ..VhostDecl::default()
            }],
            sections: vec!["vhosts"],
            ..Topology::default()
        };
        let again = read(&render(&topology));
        assert_eq!(shown(&again), shown(&topology), "{name:?}\n{}", render(&topology));
    }
}
