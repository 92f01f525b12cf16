//! Plugin files of past ABIs, kept as they were built: a broker of today loads them.
//!
//! How they were made stands in `tests/fixtures/abi/README.md`. They are for Linux on x86_64; elsewhere there is nothing to test.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::path::PathBuf;
use std::sync::Arc;

use broker::plugin_host::inspect::inspect;
use broker::plugin_host::{LoadRequest, PluginState, Registry};
use plugin_api::exchange::{BindingSpec, ExchangeSpec};
use plugin_api::message::Message;
use tests::broker_process::BrokerOptions;
use tests::http::Http;
use tests::scenario::connection::{Connection, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::Field;

use crate::build;

/// A copy that nobody but its owner may change, whatever the checkout's modes are.
fn fixture(version: &str, name: &str) -> PathBuf {
    let source = build::repository().join("tests/fixtures/abi").join(version).join(name);
    assert!(source.metadata().unwrap().len() < 1_000_000, "{name} is small");
    build::copied(&source, &format!("abi-{version}-{name}"))
}

/// Loaded by a registry that has nothing else.
fn load(version: &str, name: &str) -> Registry {
    let mut registry = Registry::empty();
    let request = LoadRequest { path: fixture(version, name), ..LoadRequest::default() };
    registry.load_file(&request).unwrap_or_else(|error| panic!("{version} {name}: {error}"));
    registry
}

/// `offers` is what its stamp says of the kinds in it.
fn exchange_type_routes(minor: u16, offers: u32) {
    let version = format!("2.{minor}");
    let stamp = inspect(&fixture(&version, "libexchange_topic.so"), None).unwrap().stamp;
    assert_eq!((stamp.abi_major, stamp.abi_minor, stamp.unwinds, stamp.offers), (2, minor, true, offers));
    let registry = load(&version, "libexchange_topic.so");
    let topic = registry.exchange_type("topic").unwrap();
    let mut exchange = topic.open(&ExchangeSpec { kind: "topic".into(), ..ExchangeSpec::default() }).unwrap();
    for (slot, key) in ["order.*.paid", "order.#", "other"].into_iter().enumerate() {
        exchange.bind(u32::try_from(slot).unwrap(), &BindingSpec::to_queue("q", key)).unwrap();
    }
    let mut routes = Vec::new();
    exchange.route(&Message::with_key("order.eu.paid"), &mut routes).unwrap();
    routes.sort_unstable();
    assert_eq!(routes, [0, 1]);
    exchange.unbind(1).unwrap();
    drop(exchange);
    assert_eq!(registry.status().pop().unwrap().state, PluginState::Registered);
}

fn storage_conforms(minor: u16) {
    let version = format!("2.{minor}");
    let registry = Arc::new(load(&version, "libstorage_memory.so"));
    let opened = Arc::clone(&registry);
    let suite = plugin_api::testing::opened_storages(&format!("abi-{version}"), move |spec| {
        opened.storage("memory", spec.config.as_json(), None).map_err(|error| error.to_string())
    });
    suite.run();
    assert_eq!(registry.status().pop().unwrap().state, PluginState::Registered);
}

#[test]
fn exchange_type_of_abi_2_2_routes() {
    exchange_type_routes(2, 0);
}

#[test]
fn storage_of_abi_2_2_conforms() {
    storage_conforms(2);
}

#[test]
fn exchange_type_of_abi_2_3_routes() {
    exchange_type_routes(3, 1);
}

#[test]
fn storage_of_abi_2_3_conforms() {
    storage_conforms(3);
}

#[test]
fn exchange_type_of_abi_2_4_routes() {
    exchange_type_routes(4, 1);
}

#[test]
fn storage_of_abi_2_4_conforms() {
    storage_conforms(4);
}

/// Logins by certificates came with 2.4: a backend of before knows nobody by one, and everything else of it is as it was.
#[test]
fn auth_backend_of_abi_2_3_decides_in_a_broker() {
    auth_backend_decides(3);
}

#[test]
fn auth_backend_of_abi_2_4_decides_in_a_broker() {
    auth_backend_decides(4);
}

fn auth_backend_decides(minor: u16) {
    let version = format!("2.{minor}");
    let folder = TempDir::new(&format!("abi-{version}-auth"));
    let plugin = fixture(&version, "libauth_scripted.so");
    assert_eq!(inspect(&plugin, None).unwrap().stamp.abi_minor, minor);
    let text = format!(
        "plugins: [{}]\nauth: {{ backends: [internal, scripted] }}\nvhosts: {{ /: {{}}, deny: {{}} }}\n",
        plugin.display()
    );
    let topology = folder.write("topology.yaml", &text);
    let broker = BrokerOptions::default().topology(topology).http().start().expect("the broker starts");
    let login = |user: &str, password: &str, vhost: &str| {
        let mut connection = Connection::new(broker.target().connect().unwrap());
        let login = Login { user: user.into(), password: password.into(), ..Login::guest(vhost) };
        connection.login(&login).map(|()| connection)
    };
    let mut app = login("app", "secret", "/").expect("a user of the backend");
    let refused = login("app", "wrong", "/").err().expect("a wrong password");
    assert!(refused.contains("reply-code=403"), "{refused}");
    assert!(login("app", "secret", "deny").is_err(), "a vhost that the backend refuses");
    app.call(1, "channel.open", &[]);
    app.wait_for(1, "channel.open-ok").unwrap();
    app.call(1, "queue.declare", &[("queue", Field::String(b"deny-q".to_vec()))]);
    assert!(matches!(&app.wait_for(1, "channel.close").unwrap()[0], Field::Number(403)));
    let plugins = Http::new(broker.http()).login("admin", "secret").get("/x/plugins");
    let state = plugins.as_array().unwrap().iter().find(|plugin| plugin["name"] == "auth_scripted").unwrap();
    assert_eq!(state["state"], "active");
}
