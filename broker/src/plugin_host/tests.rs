//! The registry with plugins that are linked in. Files are tested in the package `tests`, which can build them.

use plugin_api::Plugin;
use plugin_api::config::Config;
use plugin_api::error::Invalid;
use plugin_api::exchange::{BindingSlot, BindingSpec, DependsOn, Exchange, ExchangeSpec, ExchangeType, Routes};
use plugin_api::message::Message;

use super::*;

/// Panics where its exchange's name says so.
struct Fragile;

impl ExchangeType for Fragile {
    fn name(&self) -> &str {
        "x-fragile"
    }

    fn description(&self) -> &str {
        "panics when told to"
    }

    fn depends_on(&self) -> DependsOn {
        DependsOn::State
    }

    fn validate(&self, spec: &ExchangeSpec) -> Result<(), Invalid> {
        assert!(spec.name != "validate", "told to");
        if spec.name == "refuse" { Err(Invalid::new("not this one")) } else { Ok(()) }
    }

    fn open(&self, _spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        Ok(Box::new(FragileExchange))
    }
}

struct FragileExchange;

impl Exchange for FragileExchange {
    fn bind(&mut self, _slot: BindingSlot, binding: &BindingSpec) -> Result<(), Invalid> {
        assert!(binding.routing_key != "panic", "told to bind");
        Ok(())
    }

    fn unbind(&mut self, _slot: BindingSlot) {}

    fn route(&self, message: &Message<'_>, routes: &mut Routes<'_>) {
        routes.push(BindingSlot(7));
        assert!(message.routing_key != "panic", "told to route");
    }
}

/// A crate has one plugin, so what other tests here need is among it.
pub(super) mod fragile {
    use plugin_api::exchange::AskedPer;

    use super::super::layers::tests::Before;
    use super::*;

    plugin_api::export_plugin!(register);

    fn register(config: &Config) -> Result<Plugin, Invalid> {
        match config.as_json().as_str() {
            Some("refuse") => Err(Invalid::new("no such mood")),
            Some("panic") => panic!("told to register"),
            Some("layers") => Ok(Plugin::new()
                .exchange_type(Before("x-once", AskedPer::Message))
                .exchange_type(Before("x-each", AskedPer::Key))),
            Some("twice") => Ok(Plugin::new().exchange_type(Fragile).exchange_type(Fragile)),
            _ => Ok(Plugin::new().exchange_type(Fragile)),
        }
    }
}

fn registry() -> Registry {
    let mut registry = Registry::builtin().unwrap();
    registry.link(&fragile::PLUGIN, &Config::default()).unwrap();
    registry
}

fn open(registry: &Registry) -> ExchangeInstance {
    registry.exchange_type("x-fragile").unwrap().open(&spec("orders")).unwrap()
}

fn spec(name: &str) -> ExchangeSpec {
    ExchangeSpec { vhost: "/".into(), name: name.into(), ..ExchangeSpec::default() }
}

fn state(registry: &Registry) -> (PluginState, u64) {
    let status = registry.status().pop().unwrap();
    (status.state, status.faults)
}

#[test]
fn types_and_storages_are_built_in() {
    let registry = Registry::builtin().unwrap();
    let plain = ["direct", "fanout", "headers", "topic"];
    let custom =
        ["x-consistent-hash", "x-delayed-message", "x-local-random", "x-modulus-hash", "x-random", "x-recent-history"];
    assert_eq!(registry.exchange_type_names(), [&plain[..], &custom].concat());
    assert!(registry.status().iter().all(|plugin| plugin.state == PluginState::Registered && plugin.path.is_none()));
    assert!(registry.storage("memory", &serde_json::Value::Null, None).is_ok());
    let error = registry.storage("disk", &serde_json::Value::Null, None).err().unwrap();
    assert_eq!(error.to_string(), "there is no storage 'disk': use one of log, memory");
    let error = registry.storage("log", &serde_json::Value::Null, None).err().unwrap();
    assert_eq!(error.to_string(), "storage 'log' refused to start: needs a data folder: give one with --data DIR");
    let error = registry.storage("memory", &serde_json::json!({"size": 1}), None).err().unwrap();
    assert_eq!(error.to_string(), r#"storage 'memory' refused to start: takes no config, but was given {"size":1}"#);
}

#[test]
fn built_in_types_route_through_the_abi() {
    let registry = Registry::builtin().unwrap();
    for (kind, expected) in
        [("direct", vec![0]), ("fanout", vec![0, 1]), ("topic", vec![0, 1]), ("headers", vec![0, 1])]
    {
        let handle = registry.exchange_type(kind).unwrap();
        let mut exchange = handle.open(&spec("orders")).unwrap();
        exchange.bind(0, &BindingSpec::to_queue("q", "a.b")).unwrap();
        exchange.bind(1, &BindingSpec::to_queue("q", "a.#")).unwrap();
        let mut out = vec![9];
        exchange.route(&Message::with_key("a.b"), &mut out).unwrap();
        let mut found = out.split_off(1);
        found.sort_unstable();
        assert_eq!(found, expected, "{kind}");
    }
}

#[test]
fn refusal_is_no_fault() {
    let registry = registry();
    let handle = registry.exchange_type("x-fragile").unwrap();
    for _ in 0..10 {
        assert_eq!(handle.validate(&spec("refuse")), Err(TypeError::Refused("not this one".into())));
    }
    assert_eq!(state(&registry), (PluginState::Registered, 0));
}

#[test]
fn panics_while_routing_degrade_and_then_fail_that_exchange_only() {
    let registry = registry();
    let (exchange, other) = (open(&registry), open(&registry));
    let mut out = vec![1];
    for round in 1..=PANICS_MAX {
        let Err(TypeError::Faulted(text)) = exchange.route(&Message::with_key("panic"), &mut out) else { panic!() };
        assert_eq!(text, "plugin 'broker' failed at exchange 'orders' in vhost '/': panicked: told to route");
        assert_eq!(out, [1], "what was pushed before the panic is taken back");
        let expected = if round < PANICS_MAX { PluginState::Degraded } else { PluginState::Failed };
        assert_eq!(state(&registry), (expected, round.into()));
        assert_eq!(exchange.is_failed(), round == PANICS_MAX);
    }
    let Err(TypeError::Faulted(text)) = exchange.route(&Message::with_key("fine"), &mut out) else { panic!() };
    assert!(text.contains("no longer asked"), "{text}");
    other.route(&Message::with_key("fine"), &mut out).unwrap();
    assert_eq!(out, [1, 7]);
    drop(exchange);
    assert_eq!(state(&registry).0, PluginState::Degraded);
    assert_eq!(registry.status().pop().unwrap().last_fault.unwrap(), "panicked: told to route");
}

#[test]
fn panic_while_binding_fails_the_exchange_at_once() {
    let registry = registry();
    let mut exchange = open(&registry);
    assert!(matches!(exchange.bind(0, &BindingSpec::to_queue("q", "panic")), Err(TypeError::Faulted(_))));
    assert!(matches!(exchange.route(&Message::with_key("fine"), &mut Vec::new()), Err(TypeError::Faulted(_))));
    assert!(matches!(exchange.unbind(0), Err(TypeError::Faulted(_))));
    assert_eq!(state(&registry), (PluginState::Failed, 1));
}

#[test]
fn panics_while_judging_fail_the_type_but_not_its_exchanges() {
    let registry = registry();
    let exchange = open(&registry);
    let handle = registry.exchange_type("x-fragile").unwrap();
    for _ in 0..PANICS_MAX {
        assert!(matches!(handle.validate(&spec("validate")), Err(TypeError::Faulted(_))));
    }
    assert!(matches!(handle.open(&spec("another")), Err(TypeError::Faulted(_))));
    assert!(exchange.route(&Message::with_key("fine"), &mut Vec::new()).is_ok());
}

#[test]
fn plugin_that_does_not_start_adds_nothing() {
    let mut registry = registry();
    let names = registry.exchange_type_names();
    let expected = [
        (
            "again",
            "plugin 'broker' offers the exchange type 'x-fragile', which the built-in plugin 'broker' offers already: \
                   take one of the two out of the topology file",
        ),
        ("refuse", "plugin 'broker' refused to start: no such mood: correct its `config` in the topology file"),
        (
            "panic",
            "plugin 'broker' failed to start: panicked: told to register: tell its author, and take it out of the \
                   topology file meanwhile",
        ),
    ];
    for (mood, sentence) in expected {
        let error = registry.link(&fragile::PLUGIN, &Config::new(mood.into())).unwrap_err();
        assert_eq!(error.to_string(), sentence);
    }
    let error = Registry::empty().link(&fragile::PLUGIN, &Config::new("twice".into())).unwrap_err();
    assert!(error.to_string().contains("which the same plugin offers already"), "{error}");
    assert_eq!(registry.exchange_type_names(), names);
}
