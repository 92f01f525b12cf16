//! The plugin that is written as a stranger would write it.

use broker::plugin_host::{LoadRequest, PluginState, Registry, TypeError};
use plugin_api::exchange::{BindingSpec, ExchangeSpec};
use plugin_api::message::{Message, Properties, PropertiesBuf};
use plugin_api::value::Table;

use crate::build;

#[test]
fn geo_exchange_is_loaded_and_routes() {
    let mut registry = Registry::builtin().unwrap();
    let path = build::stand_alone("examples/plugins/exchange-geo");
    let loaded = registry.load_file(&LoadRequest { path, ..LoadRequest::default() }).unwrap();
    assert_eq!((loaded.name.as_str(), loaded.exchange_types.as_slice()), ("exchange_geo", &["x-geo".to_owned()][..]));

    let geo = registry.exchange_type("x-geo").unwrap();
    let arguments = Table::new().with("default-radius-km", 40_i64);
    let spec = ExchangeSpec { vhost: "/".into(), name: "deliveries".into(), arguments, ..ExchangeSpec::default() };
    geo.validate(&spec).unwrap();
    let mut exchange = geo.open(&spec).unwrap();
    for (slot, (lat, lon)) in [(52.52, 13.40), (53.55, 9.99)].into_iter().enumerate() {
        let arguments = Table::new().with("lat", lat).with("lon", lon);
        let binding = BindingSpec { arguments, ..BindingSpec::to_queue("depot", "") };
        geo.validate_binding(&spec, &binding).unwrap();
        exchange.bind(u32::try_from(slot).unwrap(), &binding).unwrap();
    }
    for ((lat, lon), expected) in [((52.40, 13.07), vec![0]), ((53.46, 9.98), vec![1]), ((48.14, 11.58), vec![])] {
        let headers = Some(Table::new().with("lat", lat).with("lon", lon));
        let raw = PropertiesBuf { headers, ..PropertiesBuf::default() }.encode();
        let message = Message { properties: Properties::from_raw(&raw), ..Message::with_key("") };
        let mut out = Vec::new();
        exchange.route(&message, &mut out).unwrap();
        assert_eq!(out, expected, "{lat}, {lon}");
    }
    let refused = geo.validate_binding(&spec, &BindingSpec::to_queue("depot", "berlin"));
    assert_eq!(refused, Err(TypeError::Refused("a binding to x-geo needs the arguments 'lat' and 'lon'".into())));
    // Active is what a broker that serves makes of it.
    assert_eq!(registry.status().pop().unwrap().state, PluginState::Registered);
}

#[test]
fn weighted_exchange_is_loaded_and_shares_out() {
    let mut registry = Registry::builtin().unwrap();
    let path = build::stand_alone("examples/plugins/exchange-weighted");
    let loaded = registry.load_file(&LoadRequest { path, ..LoadRequest::default() }).unwrap();
    assert_eq!(loaded.exchange_types, ["x-weighted"]);
    let mut exchange = registry.exchange_type("x-weighted").unwrap().open(&ExchangeSpec::default()).unwrap();
    for (slot, weight) in [(0, 95_i64), (1, 5)] {
        let arguments = Table::new().with("weight", weight);
        exchange.bind(slot, &BindingSpec { arguments, ..BindingSpec::to_queue("q", "") }).unwrap();
    }
    let mut out = Vec::new();
    for _ in 0..1000 {
        exchange.route(&Message::with_key(""), &mut out).unwrap();
    }
    let to_second = out.iter().filter(|slot| **slot == 1).count();
    assert_eq!((out.len(), to_second.abs_diff(50) <= 2), (1000, true), "{to_second} of 1000");
}

#[test]
fn config_that_nobody_wants_is_refused() {
    let path = build::stand_alone("examples/plugins/exchange-geo");
    let config = serde_json::json!({ "unit": "mile" });
    let error = Registry::empty().load_file(&LoadRequest { path, config, sha256: None }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin 'exchange_geo' refused to start: takes no config, but was given {\"unit\":\"mile\"}: correct its `config` \
         in the topology file"
    );
}

/// The readme shows the plugin's source in full; a stranger who follows it must end with what is tested here.
#[test]
fn readme_shows_the_manifest_as_it_is() {
    let folder = build::repository().join("examples/plugins/exchange-geo");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let readme = read("README.md");
    for needed in
        ["crate-type = [\"cdylib\", \"rlib\"]", "plugin_api::export_plugin!(exchange_types: [Geo]);", "[workspace]"]
    {
        assert!(readme.contains(needed), "{needed}");
    }
    for line in read("example.yaml").lines() {
        assert!(readme.contains(line), "the readme shows the example: {line}");
    }
}
