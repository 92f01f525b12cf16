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
    /// This queue gets a message after a plan was made.
    filled_meanwhile: &'static str,
}

impl Hands for TestHands {
    fn load(&self, queue: &QueueRecord) -> Load {
        Load { ready: self.ready.get(&*queue.name).copied().unwrap_or(0), ..Load::default() }
    }

    fn delete_queue(&self, vhost: &Vhost, queue: &QueueRecord, only_if_empty: bool) -> Result<(), String> {
        if only_if_empty && (self.load(queue).ready > 0 || *queue.name == *self.filled_meanwhile) {
            return Err("it has messages".to_owned());
        }
        vhost.forget_queue(&queue.name, queue.number);
        Ok(())
    }

    fn delete_vhost(&self, _: &str) -> Result<(), String> {
        Err("only undo does so here, and says it".to_owned())
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
    let count = |count: usize, entry: &str| (0..count).map(|n| entry.replace('#', &n.to_string())).collect::<String>();
    let parameters = |count_of: usize| count(count_of, "p#: 1, ");
    let policies = |count_of: usize| count(count_of, "p#: { pattern: '^never', definition: { max-length: 1 } }, ");
    let limit = "are more than the limit of";
    check(
        &format!("parameters: {{ {} }}", parameters(10_001)),
        &format!("global parameters beside the 0 that are there {limit} 10000"),
    );
    check(
        &format!("vhosts: {{ /: {{ parameters: {{ c: {{ {} }} }} }} }}", parameters(10_001)),
        &format!("parameters in vhost '/' beside the 0 that are there {limit} 10000"),
    );
    // Together with what is there, or what would be removed later.
    let old = "vhosts: { /: { policies: { a: { pattern: x, definition: { max-length: 1 } } }, parameters: { c: { a: 1 } }, exchanges: { e: topic }, queues: [q], bindings: [e -> q : a] } }";
    let full = World::new();
    full.apply(old, Wish::default());
    for (more, what) in [
        (format!("policies: {{ {} }}", policies(1000)), "1000 new policies in vhost '/' beside the 1"),
        (
            format!("parameters: {{ c: {{ {} }} }}", parameters(10_000)),
            "10000 new parameters in vhost '/' beside the 1",
        ),
        (
            "exchanges: { e: topic }, queues: [q], bindings: [e -> q : [b, c, d]]".to_owned(),
            "3 new bindings to 'q' in vhost '/' beside the 1",
        ),
    ] {
        let refusals = full.plan(&format!("vhosts: {{ /: {{ {more} }} }}"), PRUNE).refusals();
        assert!(refusals.iter().any(|refusal| refusal.starts_with(what)), "{what}: {refusals:?}");
    }
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

/// What would show if anything were not as before.
fn picture(world: &World) -> (String, Vec<Option<Origin>>, String) {
    let (access, vhosts) = (&world.scratch.access, &world.scratch.vhosts);
    let vhost = vhosts.get("/").unwrap();
    let mut origins = vec![vhost.limits_origin()];
    origins.extend(["app", "theirs"].map(|user| access.origin_of(user)));
    origins.extend(["app", "theirs"].map(|user| access.permission_origin(user, "/")));
    origins.extend(["p", "theirs"].map(|name| vhost.policy(PolicyKind::User, name).map(|policy| policy.origin())));
    let owned: Vec<String> =
        marks::all(vhosts).iter().map(|(object, owners)| format!("{object}: {owners:?}")).collect();
    let there = snapshot(access, vhosts, None);
    (format!("{:#?}", (there.users, there.vhosts, there.parameters)), origins, owned.join("\n"))
}

#[test]
fn what_was_done_before_a_step_failed_is_taken_back() {
    let own = Wish { prune: Prune::Settings, force: false, origin: Origin::Topology };
    let mut world = World::new();
    world.apply(&SHOP.replace("users: {", "parameters: { g: 1 }\nusers: {"), own);
    // Of somebody else, before the file takes it over.
    let theirs = "owner: them
users: { theirs: { password: x, permissions: { /: { read: .* } } } }
vhosts: { /: { policies: { theirs: { pattern: ^t, definition: { max-length: 1 } } }, parameters: { c: { n: 1 } }, queues: [a, keep] } }";
    world.apply(theirs, Wish::default());
    let before = picture(&world);
    let new = "
parameters: { g: 2, h: 3 }
users: { theirs: { password: other, tags: monitoring, permissions: { /: .* } }, new: { password: n, permissions: { /: .* } } }
vhosts:
  /:
    description: another
    policies: { theirs: { pattern: ^t, definition: { max-length: 2 } }, new: { pattern: ^n, definition: { max-length: 1 } } }
    parameters: { c: { n: 2, m: 3 } }
    exchanges: { in: topic, other: { type: direct, alternate_exchange: in }, new: fanout }
    queues: { a: { ttl: 5s }, keep: , new: , q: { ttl: 30s }, r: { ttl: 1s } }
    bindings: [in -> q : a.#, in -> exchange:other : b, other -> r, new -> new, new -> q]
";
    let plan = world.plan(new, own);
    assert_eq!(plan.refusals(), Vec::<String>::new());
    // Queues are replaced in the order of the file: a is done when r turns out to have got a message.
    world.hands.filled_meanwhile = "r";
    let saved = Before::of(&plan, "topology", &world.target());
    let result = carry_out(&plan, &file(new), &world.target(), own);
    assert!(result.failed.as_ref().is_some_and(|why| why.contains("queue 'r'")), "{result:?}");
    for done in [
        "changed user 'theirs'",
        "created user 'new'",
        "replaced exchange 'other'",
        "replaced queue 'a'",
        "created queue 'new'",
        "changed policy 'theirs'",
        "changed global parameter 'g'",
    ] {
        assert!(result.done.iter().any(|step| step.starts_with(done)), "{done}: {:?}", result.done);
    }
    assert_ne!(picture(&world).0, before.0);
    assert_eq!(undo(&plan, &result, &saved, "topology", &world.target()), Vec::<String>::new());
    let after = picture(&world);
    assert_eq!(after.0, before.0);
    assert_eq!((&after.1, &after.2), (&before.1, &before.2));

    // Settings go last, so here they are gone when the last step fails; and the other way round nothing of them is missing.
    world.hands.filled_meanwhile = "";
    let less = "users: {}\nvhosts: { /: {} }";
    let plan = world.plan(less, own);
    let saved = Before::of(&plan, "topology", &world.target());
    let mut result = carry_out(&plan, &file(less), &world.target(), own);
    assert_eq!((result.failed.take(), result.done.len()), (None, plan.changes.len()));
    assert_ne!(picture(&world).0, before.0);
    assert_eq!(undo(&plan, &result, &saved, "topology", &world.target()), Vec::<String>::new());
    let after = picture(&world);
    assert_eq!((after.0, after.1, after.2), (before.0, before.1, before.2));
}

#[test]
fn what_cannot_be_taken_back_is_said() {
    let mut world = World::new();
    let text = "vhosts: { /: { queues: [new, r] }, v: {} }";
    let plan = world.plan(text, Wish::default());
    let saved = Before::of(&plan, "topology", &world.target());
    let result = carry_out(&plan, &file(text), &world.target(), Wish::default());
    world.hands.filled_meanwhile = "new";
    let remains = undo(&plan, &result, &saved, "topology", &world.target());
    let expected = ["queue 'new' in vhost '/': it has messages", "vhost 'v': only undo does so here, and says it"];
    assert!(expected.iter().all(|line| remains.contains(&(*line).to_owned())), "{remains:?}");
    assert!(world.scratch.vhosts.get("/").unwrap().queue("r").is_none());
}
