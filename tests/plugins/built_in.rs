//! Each built-in plugin, loaded as a file, routes as the one that is linked in.

use std::collections::BTreeSet;

use broker::plugin_host::{ExchangeInstance, LoadRequest, Registry};
use plugin_api::exchange::{BindingSpec, ExchangeSpec, Wish};
use plugin_api::message::{Message, Properties, PropertiesBuf};
use plugin_api::testing::Random;
use plugin_api::value::{Table, Value};

use crate::build;

#[test]
fn loaded_files_route_as_the_linked_in_do() {
    let linked = Registry::builtin().unwrap();
    for name in build::BUILT_IN {
        let path = build::built_in(name);
        let mut loaded = Registry::empty();
        let plugin = loaded.load_file(&LoadRequest { path: path.clone(), ..LoadRequest::default() }).unwrap();
        let bare = |kind: &String| kind.strip_prefix("x-").unwrap_or(kind) == name.strip_prefix("exchange-").unwrap();
        assert!(plugin.exchange_types.iter().any(bare), "{name} offers {:?}", plugin.exchange_types);
        let status = loaded.status().pop().unwrap();
        assert_eq!((status.name, status.path), (name.replace('-', "_"), Some(path)));
        for kind in &plugin.exchange_types {
            let (linked, loaded) = (linked.exchange_type(kind).unwrap(), loaded.exchange_type(kind).unwrap());
            assert_eq!((linked.depends_on(), linked.asked_per()), (loaded.depends_on(), loaded.asked_per()));
            assert_eq!(linked.takes(), loaded.takes());
            let arguments = Table::new().with("x-delayed-type", "direct");
            let spec = ExchangeSpec { kind: kind.clone(), arguments, ..ExchangeSpec::default() };
            assert_eq!(linked.inner(&spec), loaded.inner(&spec));
            assert_eq!(linked.depends_on_for(&spec), loaded.depends_on_for(&spec));
            agree(kind, linked.open(&spec).unwrap(), loaded.open(&spec).unwrap());
        }
    }
}

/// Random bindings come and go in both, and random messages go the same ways.
fn agree(kind: &str, mut linked: ExchangeInstance, mut loaded: ExchangeInstance) {
    let mut random = Random::new(5);
    let mut bound = BTreeSet::new();
    let (mut routed, mut held, mut kept) = (0, 0, 0);
    for number in 0..5 {
        let key = format!("kept {number}");
        linked.restore(&Message::with_key(&key)).unwrap();
        loaded.restore(&Message::with_key(&key)).unwrap();
    }
    for round in 0..3000 {
        let slot = random.below(40);
        if bound.remove(&slot) {
            linked.unbind(slot).unwrap();
            loaded.unbind(slot).unwrap();
        } else {
            bound.insert(slot);
            let routing_key = match kind {
                "x-consistent-hash" => (1 + random.below(3)).to_string(),
                _ => key(&mut random, &["a", "b", "c", "*", "#"]),
            };
            let queue = format!("q{slot}");
            let binding = BindingSpec { arguments: table(&mut random), ..BindingSpec::to_queue(queue, routing_key) };
            linked.bind(slot, &binding).unwrap();
            loaded.bind(slot, &binding).unwrap();
            let keys = handed(&mut linked, slot);
            assert_eq!(keys, handed(&mut loaded, slot), "{kind}, round {round}");
            if round == 0 {
                let count = if kind == "x-recent-history" { 5 } else { 0 };
                assert_eq!(keys.len(), count, "{kind}: what was kept is back");
            }
        }
        let routing_key = key(&mut random, &["a", "b", "c"]);
        let headers = Some(table(&mut random).with("x-delay", random.below(3)));
        let raw = PropertiesBuf { headers, ..PropertiesBuf::default() }.encode();
        let message = Message { properties: Properties::from_raw(&raw), ..Message::with_key(&routing_key) };
        let ((ours, our_wish), (theirs, their_wish)) = (routes(&linked, &message), routes(&loaded, &message));
        assert_eq!(our_wish, their_wish, "{kind}, round {round}: {message:?}");
        held += usize::from(matches!(our_wish, Some(Wish::Hold(_))));
        kept += usize::from(matches!(our_wish, Some(Wish::Keep(_))));
        if matches!(kind, "x-random" | "x-local-random") {
            assert_eq!((ours.len(), theirs.is_subset(&bound)), (theirs.len(), true), "{kind}, round {round}");
        } else {
            assert_eq!(ours, theirs, "{kind}, round {round}: {message:?}");
        }
        assert!(ours.is_subset(&bound), "{kind}, round {round}: only what is bound");
        routed += ours.len();
    }
    match kind {
        "x-delayed-message" => assert!(held > 500 && routed == 0, "{kind}: messages are held ({held})"),
        _ => assert!(held == 0 && routed > 500, "{kind}: the messages do take bindings ({routed})"),
    }
    assert_eq!(kept > 500, kind == "x-recent-history", "{kind}: {kept} messages are kept");
}

/// Each topology is small, so that a thousand of a kind meet what one large one would not.
#[test]
fn ten_thousand_random_topologies_route_alike() {
    let linked = Registry::builtin().unwrap();
    let mut loaded = Registry::empty();
    for name in build::BUILT_IN {
        let path = build::built_in(name);
        loaded.load_file(&LoadRequest { path, ..LoadRequest::default() }).unwrap();
    }
    let kinds = loaded.exchange_type_names();
    let mut routed = 0;
    for seed in 0..10_000 {
        let mut random = Random::new(seed);
        let kind = random.pick(&kinds).clone();
        let arguments = Table::new().with("x-delayed-type", "direct");
        let spec = ExchangeSpec { kind: kind.clone(), arguments, ..ExchangeSpec::default() };
        let open = |registry: &Registry| registry.exchange_type(&kind).unwrap().open(&spec).unwrap();
        let (mut linked, mut loaded) = (open(&linked), open(&loaded));
        let mut bound = BTreeSet::new();
        for _ in 0..random.below(12) {
            let slot = random.below(8);
            let exchanges = [&mut linked, &mut loaded];
            if bound.remove(&slot) {
                exchanges.into_iter().for_each(|exchange| exchange.unbind(slot).unwrap());
                continue;
            }
            bound.insert(slot);
            let routing_key = match kind.as_str() {
                "x-consistent-hash" => (1 + random.below(3)).to_string(),
                _ => key(&mut random, &["a", "b", "*", "#"]),
            };
            let queue = format!("q{slot}");
            let binding = BindingSpec { arguments: table(&mut random), ..BindingSpec::to_queue(queue, routing_key) };
            exchanges.into_iter().for_each(|exchange| exchange.bind(slot, &binding).unwrap());
        }
        for _ in 0..4 {
            let routing_key = key(&mut random, &["a", "b", "c"]);
            let raw = PropertiesBuf { headers: Some(table(&mut random)), ..PropertiesBuf::default() }.encode();
            let message = Message { properties: Properties::from_raw(&raw), ..Message::with_key(&routing_key) };
            let ((ours, our_wish), (theirs, their_wish)) = (routes(&linked, &message), routes(&loaded, &message));
            assert_eq!(our_wish, their_wish, "{kind}, seed {seed}: {message:?}");
            if matches!(kind.as_str(), "x-random" | "x-local-random") {
                assert_eq!(ours.len(), theirs.len(), "{kind}, seed {seed}");
                assert!(ours.is_subset(&bound) && theirs.is_subset(&bound), "{kind}, seed {seed}");
            } else {
                assert_eq!(ours, theirs, "{kind}, seed {seed}: {message:?}");
            }
            routed += ours.len();
        }
    }
    assert!(routed > 10_000, "the messages do take bindings ({routed})");
}

fn routes(exchange: &ExchangeInstance, message: &Message<'_>) -> (BTreeSet<u32>, Option<Wish>) {
    let mut out = Vec::new();
    let wish = exchange.route(message, &mut out).unwrap();
    (out.into_iter().collect(), wish)
}

/// The keys of the messages that a new binding gets.
fn handed(exchange: &mut ExchangeInstance, slot: u32) -> Vec<String> {
    let mut keys = Vec::new();
    exchange.bound(slot, &mut |message| keys.push(message.routing_key.to_owned())).unwrap();
    keys
}

fn key(random: &mut Random, words: &[&str]) -> String {
    let count = random.below(4);
    (0..count).map(|_| *random.pick(words)).collect::<Vec<_>>().join(".")
}

fn table(random: &mut Random) -> Table {
    let values = [Value::I32(1), Value::I64(1), Value::from("x"), Value::Bytes(b"x".to_vec()), Value::Void];
    let names = ["h", "i", "x-j"];
    let count = random.below(3);
    let table: Table = (0..count).map(|_| (*random.pick(&names), random.pick(&values).clone())).collect();
    table.with("x-match", *random.pick(&["all", "any", "all-with-x", "any-with-x"]))
}

#[test]
fn type_that_is_there_already_is_refused() {
    let mut registry = Registry::builtin().unwrap();
    let path = build::built_in("exchange-topic");
    let error = registry.load_file(&LoadRequest { path, ..LoadRequest::default() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin 'exchange_topic' offers the exchange type 'topic', which the built-in plugin 'exchange_topic' offers \
         already: take one of the two out of the topology file"
    );
    assert_eq!(registry.status().len(), 11, "nothing of it is added");
}

#[test]
fn folder_is_loaded_in_the_order_of_names_and_past_bad_files() {
    let folder = build::empty_folder("folder");
    for (source, name) in [("exchange-topic", "b.so"), ("exchange-direct", "a.so"), ("exchange-topic", "d.so")] {
        let path = folder.join(name);
        std::fs::copy(build::built_in(source), &path).unwrap();
        build::set_mode(&path, 0o755);
    }
    std::fs::write(folder.join("c.so"), "#!/bin/sh\n").unwrap();
    std::fs::write(folder.join("README.md"), "no plugin, and not looked at").unwrap();
    let mut registry = Registry::empty();
    let results = registry.load_dir(&folder);
    let names: Vec<Option<&str>> =
        results.iter().map(|result| result.as_ref().ok().map(|it| it.name.as_str())).collect();
    assert_eq!(names, [Some("exchange_direct"), Some("exchange_topic"), None, None]);
    assert_eq!(registry.exchange_type_names(), ["direct", "topic"]);
    let mut results = registry.load_dir(&folder.join("missing"));
    assert!(results.pop().unwrap().unwrap_err().to_string().contains("give an existing folder with --plugin-dir"));
}

/// The topology that each readme invites to try.
#[test]
fn example_of_each_exchange_type_starts() {
    for name in build::BUILT_IN {
        let path = build::repository().join("plugins").join(name).join("example.yaml");
        let loaded = broker::config::load(&path, &|_| None).unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
        let known = Registry::builtin().unwrap().exchange_type_names();
        assert!(loaded.check_exchange_types(&known).is_empty(), "{name}");
        tests::machine::MachineTarget::new(&loaded.topology).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
