//! What one hook costs a message, in nanoseconds per call: `cargo bench -p broker --bench hooks`, and behind `--` the names
//! of the scripts if not all of them are wanted.
//!
//! Each script is called in rounds, and the best round is shown: the machine's other work only ever adds time.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use broker::hooks::{HookDecl, HookSet, Publish, Scope};
use plugin_api::message::{Properties, PropertiesBuf};
use plugin_api::value::Table;

const CASES: &[(&str, &str)] = &[
    ("empty", "return { on_publish = function(msg) end }"),
    ("read key", "return { on_publish = function(msg) local key = msg.routing_key end }"),
    ("rewrite key", "return { on_publish = function(msg) msg.routing_key = 'eu.' .. msg.routing_key end }"),
    ("set priority", "return { on_publish = function(msg) msg.priority = 5 end }"),
    ("read header", "return { on_publish = function(msg) local tenant = msg.headers['x-tenant'] end }"),
    ("set header", "return { on_publish = function(msg) msg.headers['x-seen'] = true end }"),
    ("walk headers", "return { on_publish = function(msg) for name, value in msg.headers do end end }"),
    (
        "match key",
        "return { on_publish = function(msg) if string.match(msg.routing_key, '^b') then return false end end }",
    ),
    ("return false", "return { on_publish = function(msg) return false end }"),
    ("broker.drop", "return { on_publish = function(msg) broker.drop('unwanted') end }"),
    ("error", "return { on_publish = function(msg) msg.nothing = 1 end }"),
];

const CALLS_PER_ROUND: u32 = 50_000;
const ROUNDS: u32 = 20;

fn main() {
    let folder = std::env::temp_dir().join(format!("hooks-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("temporary folder");
    let headers = Table::new().with("x-tenant", "acme").with("x-retry", 3i64).with("x-trace", "0123456789abcdef");
    let properties = PropertiesBuf {
        content_type: Some(b"application/json".to_vec()),
        headers: Some(headers),
        delivery_mode: Some(2),
        message_id: Some(b"7f1c".to_vec()),
        ..PropertiesBuf::default()
    };
    let properties = properties.encode();
    let publish = Publish {
        vhost: "/",
        exchange: "orders",
        routing_key: "order.created",
        user: "guest",
        properties: Properties::from_raw(&properties),
        body: &[b'x'; 1024],
    };
    println!("{:<16}{:>12}", "script", "ns/call");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, script) in CASES.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|word| word == name)) {
        let path = folder.join("case.lua");
        std::fs::File::create(&path).and_then(|mut file| file.write_all(script.as_bytes())).expect("script");
        let set = HookSet::load(&[HookDecl::new(*name, &path, Scope::Broker)]).expect("script loads");
        let chain = set.chain("/", "orders").expect("a chain");
        let best = (0..ROUNDS).map(|_| round(&chain, &publish)).fold(f64::INFINITY, f64::min);
        println!("{name:<16}{best:>12.0}");
    }
    let _ = std::fs::remove_dir_all(&folder);
}

fn round(chain: &broker::hooks::HookChain, publish: &Publish<'_>) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS_PER_ROUND {
        black_box(chain.on_publish(black_box(publish)));
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS_PER_ROUND)
}
