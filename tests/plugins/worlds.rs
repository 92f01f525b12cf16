//! Whole worlds: a few exchanges of any type, bound to each other and to queues, some with alternates. Messages go the same ways through types that are
//! linked in and through those loaded as files, and what is explained of their ways is where they go.

use std::collections::BTreeSet;
use std::sync::Arc;

use broker::message::{Message, Parts};
use broker::plugin_host::{LoadRequest, Registry};
use broker::routing::explain::{Asking, Explanation, StepOutcome};
use broker::topology::schema::{BindingDecl, ExchangeDecl, QueueDecl, Topology, VhostDecl};
use broker::topology::scratch::{Rules, Scratch};
use broker::vhost::Vhost;
use plugin_api::exchange::{DependsOn, DestinationKind};
use plugin_api::message::PropertiesBuf;
use plugin_api::testing::Random;
use plugin_api::value::{Table, Value};

use crate::build;

/// So many as run in a few seconds in a debug build.
const WORLDS: u64 = 1500;
const QUEUES: usize = 6;

#[test]
fn worlds_of_bound_exchanges_route_alike_and_as_they_are_explained() {
    let linked = Arc::new(Registry::builtin().unwrap());
    let mut loaded = Registry::empty();
    for name in build::BUILT_IN {
        let path = build::built_in(name);
        loaded.load_file(&LoadRequest { path, ..LoadRequest::default() }).unwrap();
    }
    let kinds: Vec<String> = loaded.exchange_type_names().into_iter().collect();
    let loaded = Arc::new(loaded);
    let mut seen = Seen::default();
    for seed in 0..WORLDS {
        let mut random = Random::new(seed);
        let topology = world(&mut random, &kinds);
        let build = |registry: &Arc<Registry>| Scratch::build(&topology, registry, Rules::of(&topology));
        let worlds = [&linked, &loaded].map(|registry| build(registry).unwrap_or_else(|why| panic!("{seed}: {why:?}")));
        let vhosts = worlds.map(|world| world.vhosts.get("/").unwrap());
        for _ in 0..3 {
            let message = message(&mut random, &topology);
            let ways = vhosts.each_ref().map(|vhost| way(vhost, &message));
            let place = || format!("seed {seed}, {:?} in {:#?}", message.parts(), topology.vhosts);
            for way in &ways {
                assert_eq!(queues(way), shown(way), "what is explained is where it goes: {}", place());
            }
            let [ours, theirs] = &ways;
            if ours.steps.iter().any(|step| step.exchange.depends_on == DependsOn::State) {
                seen.with_state += 1;
                continue;
            }
            assert_eq!(queues(ours), queues(theirs), "{}", place());
            // Nothing on the way changes by being asked.
            let keys = [message.routing_key()];
            let start = vhosts[0].exchange(message.exchange()).unwrap();
            let route = vhosts[0].route(&start, &message, &keys).unwrap();
            let routed: Vec<&str> = route.queues.iter().map(|queue| &*queue.name).collect();
            assert_eq!(ours.queues.iter().map(|queue| &*queue.name).collect::<Vec<_>>(), routed, "{}", place());
            seen.note(ours);
        }
    }
    assert!(seen.is_enough(), "{seen:?}");
}

/// What has been met: a test in which nothing happens would pass, too.
#[derive(Debug, Default)]
struct Seen {
    routed: usize,
    nowhere: usize,
    alternates: usize,
    several_steps: usize,
    with_state: usize,
}

impl Seen {
    fn note(&mut self, way: &Explanation) {
        self.routed += usize::from(!way.queues.is_empty());
        self.nowhere += usize::from(way.queues.is_empty());
        self.several_steps += usize::from(way.steps.len() > 2);
        let is_alternate = |outcome: &StepOutcome| matches!(outcome, StepOutcome::Alternate(_));
        self.alternates += usize::from(way.steps.iter().any(|step| is_alternate(&step.outcome)));
    }

    fn is_enough(&self) -> bool {
        [self.routed, self.nowhere, self.alternates, self.several_steps, self.with_state]
            .iter()
            .all(|count| *count > 100)
    }
}

fn way(vhost: &Arc<Vhost>, message: &Message) -> Explanation {
    let start = vhost.exchange(message.exchange()).unwrap();
    vhost.explain(&start, message, &[message.routing_key()], Asking::Freely)
}

fn queues(way: &Explanation) -> BTreeSet<&str> {
    way.queues.iter().map(|queue| &*queue.name).collect()
}

/// The queues that the steps lead to.
fn shown(way: &Explanation) -> BTreeSet<&str> {
    let mut queues = BTreeSet::new();
    for step in &way.steps {
        let StepOutcome::Routed(to) = &step.outcome else { continue };
        queues.extend(to.iter().filter(|(kind, _)| *kind == DestinationKind::Queue).map(|(_, name)| &**name));
        let chosen = step.bindings.iter().filter(|binding| binding.is_match == Some(true));
        let chosen: BTreeSet<&str> = chosen.map(|binding| &*binding.identity.destination).collect();
        assert_eq!(chosen, to.iter().map(|(_, name)| &**name).collect(), "bindings of '{}'", step.exchange.name);
    }
    queues
}

fn world(random: &mut Random, kinds: &[String]) -> Topology {
    let count = 3 + random.below(4) as usize;
    let name = |number: usize| format!("x{number}");
    let mut vhost = VhostDecl { name: "/".to_owned(), ..VhostDecl::default() };
    for number in 0..count {
        let mut arguments = Table::new().with("x-delayed-type", "direct");
        if random.below(3) == 0 {
            // Now and then one that is not there.
            arguments = arguments.with("alternate-exchange", name(random.below(count as u32 + 1) as usize));
        }
        let kind = random.pick(kinds).clone();
        vhost.exchanges.push(ExchangeDecl {
            name: name(number),
            durable: true,
            auto_delete: false,
            internal: false,
            arguments,
            kind,
        });
    }
    for number in 0..QUEUES {
        let arguments = Table::new();
        vhost.queues.push(QueueDecl { name: format!("q{number}"), durable: true, auto_delete: false, arguments });
    }
    for _ in 0..4 + random.below(16) {
        let source = random.below(count as u32) as usize;
        let routing_key = match vhost.exchanges[source].kind.as_str() {
            "x-consistent-hash" => (1 + random.below(3)).to_string(),
            "x-random" | "x-local-random" | "x-recent-history" => String::new(),
            _ => key(random, &["a", "b", "*", "#"]),
        };
        // One that goes by what is near takes queues alone.
        let may_be_exchange = vhost.exchanges[source].kind != "x-local-random";
        let (destination_kind, destination) = match random.below(2) {
            1 if may_be_exchange => (DestinationKind::Exchange, name(random.below(count as u32) as usize)),
            _ => (DestinationKind::Queue, format!("q{}", random.below(QUEUES as u32))),
        };
        let binding =
            BindingDecl { source: name(source), destination, destination_kind, routing_key, arguments: table(random) };
        vhost.bindings.push(binding);
    }
    Topology { vhosts: vec![vhost], ..Topology::default() }
}

fn message(random: &mut Random, topology: &Topology) -> Arc<Message> {
    let exchange = random.pick(&topology.vhosts[0].exchanges).name.clone();
    let properties = PropertiesBuf { headers: Some(table(random)), ..PropertiesBuf::default() }.encode();
    let routing_key = key(random, &["a", "b"]);
    Message::new(Parts { exchange: &exchange, routing_key: &routing_key, properties: &properties }, b"body")
}

fn key(random: &mut Random, words: &[&str]) -> String {
    let count = random.below(3);
    (0..count).map(|_| *random.pick(words)).collect::<Vec<_>>().join(".")
}

fn table(random: &mut Random) -> Table {
    let count = random.below(2);
    let table: Table = (0..count).map(|_| ("h", Value::I32(random.below(2) as i32))).collect();
    table.with("x-match", *random.pick(&["all", "any"]))
}
