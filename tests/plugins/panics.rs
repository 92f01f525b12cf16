//! A plugin from a file that panics in every way it can; the process lives, and says what happened.

use std::sync::Arc;

use broker::plugin_host::{
    ExchangeInstance, ExchangeTypeHandle, LoadRequest, PANICS_MAX, PluginState, Registry, TypeError,
};
use plugin_api::exchange::{BindingSpec, ExchangeSpec};
use plugin_api::message::Message;

use crate::build;

struct Case {
    registry: Registry,
    handle: Arc<ExchangeTypeHandle>,
}

fn case() -> Case {
    let mut registry = Registry::builtin().unwrap();
    registry.load_file(&request(serde_json::Value::Null)).unwrap();
    let handle = registry.exchange_type("x-faulty").unwrap();
    Case { registry, handle }
}

fn request(config: serde_json::Value) -> LoadRequest {
    let path = build::stand_alone("tests/fixtures/faulty");
    LoadRequest { path, config, sha256: None }
}

fn spec(name: &str) -> ExchangeSpec {
    ExchangeSpec { vhost: "/".into(), name: name.into(), ..ExchangeSpec::default() }
}

impl Case {
    fn open(&self) -> ExchangeInstance {
        self.handle.open(&spec("orders")).unwrap()
    }

    fn state(&self) -> PluginState {
        self.registry.status().pop().unwrap().state
    }

    fn last_fault(&self) -> String {
        self.registry.status().pop().unwrap().last_fault.unwrap()
    }
}

fn route(exchange: &ExchangeInstance, key: &str) -> Result<Vec<u32>, TypeError> {
    let mut out = Vec::new();
    exchange.route(&Message::with_key(key), &mut out).map(|_| out)
}

#[test]
fn panic_in_route_is_caught_and_told_with_its_place() {
    let case = case();
    let exchange = case.open();
    assert!(matches!(route(&exchange, "panic"), Err(TypeError::Faulted(_))));
    assert!(case.last_fault().starts_with("panicked: told to route (at src/exchange.rs:"), "{}", case.last_fault());
    assert_eq!(case.state(), PluginState::Degraded);
    assert!(matches!(route(&exchange, "index"), Err(TypeError::Faulted(_))));
    assert!(case.last_fault().contains("index out of bounds"), "{}", case.last_fault());
    assert_eq!(route(&exchange, "fine"), Ok(vec![1]), "a degraded exchange still routes");
}

#[test]
fn payload_that_panics_when_dropped_is_survived() {
    let case = case();
    assert!(matches!(route(&case.open(), "payload"), Err(TypeError::Faulted(_))));
    assert!(case.last_fault().contains("panicked without a text"), "{}", case.last_fault());
}

#[test]
fn repeated_panics_fail_the_exchange_and_nothing_else() {
    let case = case();
    let (exchange, other) = (case.open(), case.open());
    (0..PANICS_MAX).for_each(|_| assert!(route(&exchange, "panic").is_err()));
    let Err(TypeError::Faulted(text)) = route(&exchange, "fine") else { panic!("it is no longer asked") };
    assert_eq!(
        text,
        "plugin 'faulty' is no longer asked about exchange 'orders' in vhost '/', because it panicked repeatedly"
    );
    assert_eq!(case.state(), PluginState::Failed);
    assert_eq!(route(&other, "fine"), Ok(vec![1]));
    let direct = case.registry.exchange_type("direct").unwrap().open(&spec("direct")).unwrap();
    assert_eq!(route(&direct, "fine"), Ok(vec![]));
}

#[test]
fn panics_in_every_other_call_are_caught() {
    let case = case();
    assert!(matches!(case.handle.validate(&spec("validate")), Err(TypeError::Faulted(_))));
    assert!(matches!(case.handle.open(&spec("open")), Err(TypeError::Faulted(_))));
    assert!(matches!(case.handle.inner(&spec("inner")), Err(TypeError::Faulted(_))));
    let case = self::case();
    assert!(matches!(case.handle.depends_on_for(&spec("depends-on")), Err(TypeError::Faulted(_))));
    let binding = BindingSpec::to_queue("q", "fine");
    let judged = case.handle.validate_binding(&spec("validate-binding"), &binding);
    assert!(matches!(judged, Err(TypeError::Faulted(_))));
    type Entry = fn(&mut ExchangeInstance) -> Result<(), TypeError>;
    let calls: [Entry; 3] = [
        |exchange| exchange.restore(&Message::with_key("k")),
        |exchange| exchange.bound(0, &mut |_| ()),
        |exchange| exchange.policy_changed(&plugin_api::value::Table::new().with("k", true)),
    ];
    for call in calls {
        let mut exchange = case.open();
        assert!(matches!(call(&mut exchange), Err(TypeError::Faulted(_))));
        assert!(exchange.is_failed(), "nobody knows what it holds now");
    }
    let mut exchange = case.open();
    exchange.bind(0, &binding).unwrap();
    assert!(matches!(exchange.unbind(0), Err(TypeError::Faulted(_))));
    assert!(exchange.is_failed(), "nobody knows what it holds now");
    let mut exchange = case.open();
    assert!(matches!(exchange.bind(0, &BindingSpec::to_queue("q", "panic")), Err(TypeError::Faulted(_))));
    assert!(exchange.is_failed());
    // Dropping the exchanges makes the fixture panic once more.
}

#[test]
fn panic_or_refusal_at_start_is_told() {
    let error = Registry::empty().load_file(&request(serde_json::json!({"mood": "refuse"}))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin 'faulty' refused to start: no such mood: correct its `config` in the topology file"
    );
    let error = Registry::empty().load_file(&request(serde_json::json!({"mood": "panic"}))).unwrap_err();
    let text = error.to_string();
    let start = "plugin 'faulty' failed to start: panicked: told to register (at src/lib.rs:";
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn a_hundred_thousand_routes_come_back() {
    let exchange = case().open();
    assert_eq!(route(&exchange, "many").map(|out| out.len()), Ok(100_000));
}

#[test]
fn threads_that_panic_at_once_are_counted() {
    let case = case();
    let exchange = case.open();
    std::thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| (0..20).for_each(|_| assert!(route(&exchange, "panic").is_err())))));
    });
    let status = case.registry.status().pop().unwrap();
    assert_eq!(status.state, PluginState::Failed);
    assert!((u64::from(PANICS_MAX)..=u64::from(PANICS_MAX) + 3).contains(&status.faults), "{}", status.faults);
}
