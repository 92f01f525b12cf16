//! Each storage, loaded as a file, keeps to the rules as the one that is linked in.

use std::process::Command;
use std::sync::Arc;

use broker::plugin_host::{LoadRequest, PluginState, Registry};
use plugin_api::storage::{Append, MessageSeq, QueueKey, Wanted};
use plugin_api::testing::block_on;
use tests::broker_process::{BrokerOptions, binary};
use tests::http::Http;
use tests::temp::TempDir;

use crate::build;

fn loaded(name: &str) -> Registry {
    let mut registry = Registry::empty();
    let is_built_in = build::STORAGES.contains(&name);
    let path = if is_built_in { build::built_in(name) } else { build::file_only(name) };
    let plugin = registry.load_file(&LoadRequest { path, ..LoadRequest::default() }).unwrap();
    assert_eq!(plugin.storages, [name.strip_prefix("storage-").unwrap()]);
    registry
}

#[test]
fn loaded_storages_conform() {
    for name in build::STORAGES.into_iter().chain(build::FILE_STORAGES) {
        let registry = Arc::new(loaded(name));
        let kind = name.strip_prefix("storage-").unwrap().to_owned();
        let opened = Arc::clone(&registry);
        let suite = plugin_api::testing::opened_storages(&format!("loaded-{kind}"), move |spec| {
            opened.storage(&kind, spec.config.as_json(), spec.folder.as_deref()).map_err(|error| error.to_string())
        });
        suite.run();
        assert_eq!(registry.status().pop().unwrap().state, PluginState::Registered);
    }
}

#[test]
fn folder_of_a_linked_in_log_is_read_by_a_loaded_one() {
    let folder = build::empty_folder("log-folder");
    let targets = [(QueueKey(1), MessageSeq(1))];
    let message =
        Append { targets: &targets, stamp: 5, exchange: "x", routing_key: "k", properties: &[0, 0], body: b"kept" };
    let open = |registry: &Registry| registry.storage("log", &serde_json::Value::Null, Some(&folder));
    let linked = open(&Registry::builtin().unwrap()).unwrap();
    block_on(linked.append(&[message])).unwrap();
    let registry = loaded("storage-log");
    let error = open(&registry).err().unwrap().to_string();
    let expected = format!("is in use by another broker (process {})", std::process::id());
    assert!(error.contains(&expected), "{error}");
    drop(linked);
    let again = open(&registry).unwrap();
    let (queue, first) = targets[0];
    let wanted = Wanted { queue, first, last: first, count_max: 9, bytes_max: 9 };
    let found = block_on(again.read(wanted)).unwrap();
    assert_eq!(found.iter().map(|message| message.body.as_slice()).collect::<Vec<_>>(), [b"kept"]);
    assert_eq!(again.status().live_count, 1);
}

#[test]
fn storage_that_is_there_already_is_refused() {
    let mut registry = Registry::builtin().unwrap();
    let path = build::built_in("storage-log");
    let error = registry.load_file(&LoadRequest { path, ..LoadRequest::default() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin 'storage_log' offers the storage 'log', which the built-in plugin 'storage_log' offers already: take one \
         of the two out of the topology file"
    );
}

#[test]
fn storage_is_named_by_its_file_in_a_broker_and_in_a_folder_that_nobody_has_open() {
    let folder = TempDir::new("storage-plugin");
    let plugin = build::copied(&build::file_only("storage-sqlite"), "storage-plugin");
    let text = format!("storage: {{ plugin: {}, data: data }}\n", plugin.display());
    let topology = folder.write("topology.yaml", &text);
    let start = || BrokerOptions::default().topology(&topology).http().start().expect("the broker starts");
    let broker = start();
    let http = Http::new(broker.http());
    assert_eq!(http.put("/queues/%2F/kept", &serde_json::json!({"durable": true})), 201);
    let listed = http.get("/x/plugins");
    let state =
        listed.as_array().unwrap().iter().find(|plugin| plugin["name"] == "storage_sqlite").unwrap()["state"].clone();
    assert_eq!(state, "active");
    assert!(broker.terminate().unwrap().success());
    let data = folder.path().join("data");
    let output = Command::new(binary().unwrap())
        .args(["export", "--data"])
        .arg(&data)
        .arg("--topology")
        .arg(&topology)
        .output()
        .unwrap();
    let exported = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && exported.contains("kept: {}"),
        "{exported}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(Http::new(start().http()).get("/queues/%2F/kept")["durable"], true);

    let other = build::copied(&build::stand_alone("tests/fixtures/auth-scripted"), "storage-plugin-none");
    let wrong = folder.write("wrong.yaml", &format!("storage: {{ plugin: {} }}\n", other.display()));
    let error = BrokerOptions::default().topology(wrong).start().expect_err("it does not start");
    assert!(error.contains("offers no storage: give the file of one under `storage.plugin`"), "{error}");
}
