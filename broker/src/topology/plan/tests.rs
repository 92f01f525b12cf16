//! Plans for a broker in which nobody is: what they say, what they refuse, and that carrying one out leaves nothing to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::config;
use crate::plugin_host::Registry;
use crate::topology::scratch::{Rules, Scratch};
use crate::topology::snapshot::snapshot;

/// Hands for queues that nobody runs, with as many ready messages in each as a test wants.
#[derive(Default)]
struct TestHands {
    ready: BTreeMap<&'static str, u64>,
}

impl Hands for TestHands {
    fn load(&self, queue: &QueueRecord) -> Load {
        Load { ready: self.ready.get(&*queue.name).copied().unwrap_or(0), ..Load::default() }
    }

    fn delete_queue(&self, vhost: &Vhost, queue: &QueueRecord, only_if_empty: bool) -> Result<(), String> {
        if only_if_empty && self.load(queue).ready > 0 {
            return Err("it has messages".to_owned());
        }
        vhost.forget_queue(&queue.name, queue.number);
        Ok(())
    }

    fn delete_vhost(&self, _: &str) -> Result<(), String> {
        Err("not in these tests".to_owned())
    }
}

struct World {
    scratch: Scratch,
    hands: TestHands,
}

impl World {
    fn new() -> Self {
        let registry = Arc::new(Registry::builtin().unwrap());
        let topology = Topology::default();
        let rules = Rules { bindings_per_queue_max: 3, ..Rules::of(&topology) };
        Self { scratch: Scratch::build(&topology, &registry, rules).unwrap(), hands: TestHands::default() }
    }

    fn target(&self) -> Target<'_> {
        Target { access: &self.scratch.access, vhosts: &self.scratch.vhosts, hands: &self.hands }
    }

    fn plan(&self, text: &str, wish: Wish) -> Plan {
        Plan::make(&file(text), &self.target(), wish)
    }

    #[track_caller]
    fn apply(&self, text: &str, wish: Wish) {
        let plan = self.plan(text, wish);
        assert_eq!(plan.refusals(), Vec::<String>::new());
        let result = carry_out(&plan, &file(text), &self.target(), wish);
        assert_eq!((result.failed, result.left), (None, Vec::new()));
        assert_eq!(steps(&self.plan(text, wish)), Vec::<String>::new(), "a second plan has nothing to do");
    }

    fn bindings(&self) -> Vec<String> {
        let now = snapshot(&self.scratch.access, &self.scratch.vhosts, Some("/"));
        now.vhosts[0].bindings.iter().map(|b| format!("{} -> {}", b.source, b.destination)).collect()
    }
}

fn file(text: &str) -> Topology {
    match config::load_text("t.yaml", text) {
        Ok(loaded) => loaded.topology,
        Err(diagnostics) => panic!("{}", diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

fn steps(plan: &Plan) -> Vec<String> {
    plan.changes.iter().map(|change| format!("{} {}", change.action.name(), change.object)).collect()
}

const PRUNE: Wish = Wish { prune: Prune::Everything, force: false, origin: Origin::Runtime };
const FORCE: Wish = Wish { prune: Prune::Everything, force: true, origin: Origin::Runtime };

const SHOP: &str = "
users: { app: { password: s3cret, tags: monitoring, limits: { max_channels: 5 }, permissions: { /: .* } } }
vhosts:
  /:
    limits: { max_queues: 9 }
    policies: { p: { pattern: ^q, priority: 2, definition: { max-length: 5 } } }
    operator_policies: { o: { pattern: ^q, apply_to: queues, definition: { expires: 60000 } } }
    exchanges: { in: topic, other: { type: fanout, alternate_exchange: in } }
    queues: { q: { ttl: 30s }, r: { arguments: { x-some: !u8 3 } } }
    bindings: [in -> q : a.#, in -> exchange:other : b, other -> r]
";

#[test]
fn everything_is_made_and_a_second_time_nothing_is_left_to_do() {
    let world = World::new();
    world.apply(SHOP, Wish::default());
    let marks: Vec<String> = marks::of(&world.scratch.vhosts, "topology").keys().map(ToString::to_string).collect();
    assert!(marks.contains(&"binding 'in -> q' with key 'a.#' in vhost '/'".to_owned()), "{marks:?}");
    let marked: BTreeSet<Object> = marks::of(&world.scratch.vhosts, "topology").into_keys().collect();
    assert_eq!(marked, marks::declared(&file(SHOP)));
}

#[test]
fn what_can_be_changed_in_place_is() {
    let world = World::new();
    world.apply(SHOP, Wish::default());
    let other = SHOP
        .replace("s3cret", "other")
        .replace("monitoring", "management")
        .replace("max-length: 5", "max-length: 6")
        .replace("max_queues: 9", "max_queues: 8")
        .replace("/: .*", "/: { read: .* }");
    let plan = world.plan(&other, Wish::default());
    assert!(plan.changes.iter().all(|change| change.action == Action::Update), "{:?}", steps(&plan));
    assert_eq!(
        steps(&plan),
        [
            "update user 'app'",
            "update permission of user 'app' in vhost '/'",
            "update limits of vhost '/'",
            "update policy 'p' in vhost '/'",
        ]
    );
    let shown = plan.to_json().to_string();
    assert!(!shown.contains("s3cret") && !shown.contains("other\""), "no secret is in a plan: {shown}");
    world.apply(&other, Wish::default());
}

#[test]
fn a_queue_that_differs_is_replaced_and_bound_again_and_its_messages_need_force() {
    let mut world = World::new();
    world.apply(SHOP, Wish::default());
    let before = world.bindings();
    let other = SHOP.replace("ttl: 30s", "ttl: 40s");
    world.hands.ready.insert("q", 7);
    let plan = world.plan(&other, Wish::default());
    assert_eq!(steps(&plan), ["replace queue 'q' in vhost '/'"]);
    assert_eq!(plan.changes[0].loss.load.ready, 7);
    assert!(plan.refusals()[0].contains("7 ready"), "{:?}", plan.refusals());
    assert_eq!(world.plan(&other, FORCE).refusals(), Vec::<String>::new());
    world.hands.ready.clear();
    world.apply(&other, Wish::default());
    assert_eq!(world.bindings(), before);
}

#[test]
fn an_exchange_of_another_type_keeps_the_bindings_that_the_file_has() {
    let world = World::new();
    world.apply(SHOP, Wish::default());
    let other = SHOP.replace("{ in: topic,", "{ in: direct,").replace("in -> q : a.#, ", "");
    let plan = world.plan(&other, Wish::default());
    assert_eq!(steps(&plan), ["replace exchange 'in' in vhost '/'"]);
    assert_eq!(plan.changes[0].loss.bindings, 1, "the one that is not in the file any more");
    world.apply(&other, Wish::default());
    assert_eq!(world.bindings(), ["in -> other", "other -> r"]);
}

#[test]
fn pruning_takes_what_the_owner_had_and_nothing_of_others() {
    let mut world = World::new();
    world.apply(SHOP, Wish::default());
    world.apply(
        "owner: team\nvhosts: { /: { queues: [r, theirs] } }"
            .replace("[r,", "{ r: { arguments: { x-some: !u8 3 } },")
            .replace("theirs]", "theirs: }")
            .as_str(),
        Wish::default(),
    );
    let less = "users: {}\nvhosts: { /: { exchanges: { in: topic } } }";
    assert!(world.plan(less, Wish::default()).is_empty(), "without prune nothing goes");
    world.hands.ready.insert("q", 1);
    let plan = world.plan(less, PRUNE);
    assert_eq!(
        steps(&plan),
        [
            "remove queue 'q' in vhost '/'",
            "remove exchange 'other' in vhost '/'",
            "remove policy 'p' in vhost '/'",
            "remove operator policy 'o' in vhost '/'",
            "remove limits of vhost '/'",
            "remove user 'app'",
        ],
        "queue r is another owner's, too, and 'theirs' never was this file's"
    );
    assert!(plan.refusals()[0].starts_with("queue 'q' in vhost '/'"), "{:?}", plan.refusals());
    world.hands.ready.clear();
    world.apply(less, PRUNE);
    let vhost = world.scratch.vhosts.get("/").unwrap();
    assert!(vhost.queue("r").is_some() && vhost.queue("theirs").is_some() && vhost.queue("q").is_none());
}

#[test]
fn a_section_that_is_not_in_the_file_is_not_pruned() {
    let world = World::new();
    world.apply(SHOP, Wish::default());
    let plan = world.plan("vhosts: { /: {} }", PRUNE);
    assert!(!steps(&plan).iter().any(|step| step.contains("user")), "{:?}", steps(&plan));
}

#[test]
fn what_a_broker_would_not_take_is_found_before_anything_is_changed() {
    let world = World::new();
    let check = |text: &str, expected: &str| {
        let refusals = world.plan(text, Wish::default()).refusals();
        assert!(refusals.iter().any(|refusal| refusal.contains(expected)), "{expected}: {refusals:?}");
    };
    check("vhosts: { /: { exchanges: { e: x-none } } }", "x-none");
    check("vhosts: { /: { exchanges: { e: topic }, queues: [q], bindings: [e -> q : [a, b, c, d]] } }", "binding");
    check("vhosts: { /: { limits: { max_queues: 1 }, queues: [a, b] } }", "limit of 1");
    assert!(world.scratch.vhosts.get("/").unwrap().queue("q").is_none());
}

#[test]
fn a_fingerprint_tells_what_would_be_done_and_not_what_would_be_lost() {
    let mut world = World::new();
    world.apply(SHOP, Wish::default());
    let other = SHOP.replace("ttl: 30s", "ttl: 40s");
    let first = world.plan(&other, FORCE).fingerprint();
    world.hands.ready.insert("q", 7);
    assert_eq!(world.plan(&other, FORCE).fingerprint(), first);
    assert_ne!(world.plan(&SHOP.replace("ttl: 30s", "ttl: 50s"), FORCE).fingerprint(), first);
}

#[test]
fn a_reload_forgets_settings_that_left_the_file_and_keeps_queues() {
    let world = World::new();
    let own = Wish { prune: Prune::Settings, force: false, origin: Origin::Topology };
    world.apply(SHOP, own);
    assert_eq!(world.scratch.access.origin_of("app"), Some(Origin::Topology));
    let plan = world.plan("users: {}\nvhosts: { /: {} }", own);
    assert_eq!(
        steps(&plan),
        [
            "remove policy 'p' in vhost '/'",
            "remove operator policy 'o' in vhost '/'",
            "remove limits of vhost '/'",
            "remove user 'app'",
        ]
    );
    world.apply("users: {}\nvhosts: { /: {} }", own);
    assert!(world.scratch.vhosts.get("/").unwrap().queue("q").is_some());
}

#[test]
fn a_default_queue_type_is_no_difference() {
    let world = World::new();
    world.apply("vhosts: { v: { default_queue_type: quorum, queues: [q] } }", Wish::default());
}
