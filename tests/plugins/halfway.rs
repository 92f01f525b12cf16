//! Topology files whose steps fail after the plan was made: an exchange type says yes while it is planned, and no when the exchange is to be there.

use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;
use tests::broker_process::{BrokerOptions, BrokerProcess, binary, signal};
use tests::http::Http;
use tests::temp::TempDir;

use crate::build;

/// What the broker starts with.
const OLD: &str = "
hooks: [{ script: hook.lua, name: old }]
parameters: { g: 1 }
users: { guest: { password: guest, tags: administrator, permissions: { /: .* } }, app: { password: app, tags: monitoring } }
vhosts: { /: { policies: { p: { pattern: ^q, definition: { max-length: 5 } } }, exchanges: { in: topic }, queues: [q, r], bindings: [in -> q : a, in -> r : b] } }
";

/// The same with something new of everything; the exchange opens so many times.
fn new(opens: usize) -> String {
    format!(
        "
hooks: [{{ script: hook.lua, name: new }}, {{ script: other.lua, name: another }}]
parameters: {{ g: 2, h: 3 }}
users: {{ guest: {{ password: guest, tags: administrator, permissions: {{ /: .* }} }}, app: {{ password: other, permissions: {{ /: .* }} }}, more: {{ password: more }} }}
vhosts:
  /:
    policies: {{ p: {{ pattern: ^q, definition: {{ max-length: 6 }} }}, another: {{ pattern: ^z, definition: {{ max-length: 6 }} }} }}
    exchanges: {{ in: direct, before: fanout, faulty: {{ type: x-faulty, arguments: {{ x-opens: {opens} }} }} }}
    queues: {{ q: {{ ttl: 1s }}, r: , new: }}
    bindings: [in -> q : a, in -> r : b, before -> new]
  new: {{ queues: [inside] }}
"
    )
}

fn start(folder: &TempDir) -> BrokerProcess {
    let faulty = build::copied(
        &build::stand_alone("tests/fixtures/faulty"),
        folder.path().file_name().unwrap().to_str().unwrap(),
    );
    folder.write("hook.lua", "return { on_publish = function(msg) msg.headers.x = 'hook' end }");
    folder.write("other.lua", "return { on_deliver = function(msg) msg.headers.y = 'other' end }");
    let topology = folder.write("topology.yaml", &with_plugin(OLD, &faulty));
    folder.write("new.yaml", &with_plugin(&new(1), &faulty));
    BrokerOptions::default().topology(topology).http().start().expect("the broker starts")
}

fn with_plugin(text: &str, plugin: &Path) -> String {
    format!("plugins: [{}]\n{text}", plugin.display())
}

/// Everything that a file can say, and the hooks.
fn picture(http: &Http) -> Vec<(&'static str, Json)> {
    let of = |what: &'static str| {
        let mut all = http.get(what);
        // How much has passed changes by itself.
        for entry in all.as_array_mut().into_iter().flatten().filter_map(Json::as_object_mut) {
            let keep = [
                "name",
                "vhost",
                "type",
                "arguments",
                "tags",
                "password_hash",
                "user",
                "configure",
                "definition",
                "value",
                "source",
                "destination",
                "routing_key",
                "point",
                "mode",
            ];
            entry.retain(|field, _| keep.contains(&field.as_str()));
        }
        (what, all)
    };
    [
        "/vhosts",
        "/users",
        "/permissions",
        "/policies",
        "/global-parameters",
        "/exchanges",
        "/queues",
        "/bindings",
        "/x/hooks",
    ]
    .map(of)
    .into()
}

#[test]
fn reload_that_fails_in_the_middle_leaves_everything_as_it_was() {
    let folder = TempDir::new("halfway-reload");
    let broker = start(&folder);
    let http = Http::new(broker.http());
    let before = picture(&http);
    std::fs::rename(folder.path().join("new.yaml"), folder.path().join("topology.yaml")).unwrap();
    signal(broker.pid(), "HUP").unwrap();
    broker.wait_for_log(|line| line.contains("the topology file was not taken over")).unwrap();
    let log = broker.log();
    assert!(log.iter().any(|line| line.contains("failed: created exchange 'faulty'") && line.contains("open no more")));
    assert!(!log.iter().any(|line| line.contains("not taken back")), "{log:#?}");
    for ((what, now), (_, before)) in picture(&http).iter().zip(&before) {
        assert_eq!(now, before, "{what}");
    }
    assert_eq!(http.clone().login("app", "app").get("/whoami")["name"], "app", "its old password");
}

#[test]
fn apply_that_fails_in_the_middle_ends_with_70_and_says_what_was_done() {
    let folder = TempDir::new("halfway-apply");
    let broker = start(&folder);
    // It is planned twice: when it is shown, and when it is carried out.
    let text = "vhosts: { /: { exchanges: { before: fanout, faulty: { type: x-faulty, arguments: { x-opens: 2 } } }, queues: [behind] } }";
    let file = folder.write("apply.yaml", text);
    let url = format!("http://{}", broker.http());
    let said = Command::new(binary().unwrap())
        .args(["apply", file.to_str().unwrap(), "--yes", "--url", &url])
        .output()
        .unwrap();
    let told = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(70), "{told}");
    for what in ["not all was done. Failed: created exchange 'faulty'", "open no more", "Not tried: ", "queue 'behind'"]
    {
        assert!(told.contains(what), "{what} is not in {told}");
    }
    let http = Http::new(broker.http());
    assert_eq!(http.get("/exchanges/%2F/before")["type"], "fanout", "what was done stays");
    assert_eq!(http.get("/queues").as_array().unwrap().len(), 2);
    assert_eq!(http.send("GET", "/exchanges/%2F/faulty", b"").status, 404);
}
