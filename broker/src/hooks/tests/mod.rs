//! Tests of hooks through the door that the broker uses: a script on disk, a set, a chain.

mod calls;
mod headers;
mod hostile;
mod loading;
mod points;
mod properties;
mod repl;
mod script_tests;
mod types;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use plugin_api::message::{Properties, PropertiesBuf};
use plugin_api::value::Table;

use super::{HookChain, HookDecl, HookSet, Outcome, Publish, Scope};

/// A folder of its own, removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hooks-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("temporary folder");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("folder");
        std::fs::write(&path, text).expect("file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A declaration for the whole broker, with a time limit that a busy machine does not reach by accident.
fn decl(name: &str, script: PathBuf) -> HookDecl {
    HookDecl { time_limit: std::time::Duration::from_secs(1), ..HookDecl::new(name, script, Scope::Broker) }
}

/// A chain of one hook with this body.
fn chain_of(folder: &Folder, body: &str) -> Arc<HookChain> {
    let script = folder.write("hook.lua", &format!("return {{ on_publish = function(msg)\n{body}\nend }}"));
    load(&[decl("hook", script)])
}

fn load(decls: &[HookDecl]) -> Arc<HookChain> {
    let set = HookSet::load(decls).unwrap_or_else(|errors| panic!("{errors:?}"));
    set.chain("/", "orders").expect("hooks for every exchange")
}

/// Runs one hook body on one message.
fn run(body: &str, properties: &PropertiesBuf) -> Outcome {
    let folder = Folder::new();
    let raw = properties.encode();
    chain_of(&folder, body).on_publish(&publish(&raw))
}

fn publish(properties: &[u8]) -> Publish<'_> {
    Publish {
        vhost: "/",
        exchange: "orders",
        routing_key: "order.created",
        user: "alice",
        properties: Properties::from_raw(properties),
        body: b"hello",
    }
}

fn example() -> PropertiesBuf {
    PropertiesBuf {
        content_type: Some(b"text/plain".to_vec()),
        headers: Some(Table::new().with("x-tenant", "acme").with("x-retry", 3i64)),
        priority: Some(4),
        ..PropertiesBuf::default()
    }
}

/// The reason of a reject by the hook `hook`.
#[track_caller]
fn rejected(outcome: Outcome) -> String {
    match outcome {
        Outcome::Reject { hook, reason } if hook == "hook" => reason,
        other => panic!("not rejected: {other:?}"),
    }
}
