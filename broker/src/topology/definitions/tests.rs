//! Files in, files out, and what is said about their mistakes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::access::{Access, HashAlgorithm, PasswordHash};
use crate::plugin_host::Registry;
use crate::queue::{self, Handle, Input};
use crate::topology::apply::apply_settings;
use crate::topology::schema::{PasswordDecl, UserDecl, VhostDecl};
use crate::vhost::held::tests::NoHolder;
use crate::vhost::policy::{ApplyTo, QueueType};
use crate::vhost::registry::Vhosts;
use crate::vhost::{Change, Ledger, Numbers, QueueFactory, Shared, Vhost};

#[derive(Debug)]
struct Still;

impl QueueFactory for Still {
    fn create(&self, _: &Arc<Vhost>, _: &Arc<str>, _: u64, _: queue::Options, _: queue::Restored) -> Arc<dyn Handle> {
        Arc::new(Self)
    }
}

impl Handle for Still {
    fn post(&self, _: Input) {}
}

impl Ledger for Still {
    fn record(&self, _: &str, _: Vec<Change>) {}
}

struct World {
    access: Access,
    vhosts: Vhosts,
}

impl World {
    fn new() -> Self {
        Self::with_users(&[])
    }

    fn with_users(users: &[UserDecl]) -> Self {
        let shared = Shared {
            registry: Arc::new(Registry::builtin().unwrap()),
            factory: Arc::new(Still),
            ledger: Arc::new(Still),
            holder: Arc::new(NoHolder),
            numbers: Arc::new(Numbers::starting_at(1)),
            first_seq: 1,
            bindings_per_queue_max: usize::MAX,
            strict: crate::vhost::strict::Strict::default(),
            events: crate::events::Events::default(),
            hooks: Arc::default(),
        };
        Self { access: Access::new(users), vhosts: Vhosts::new(shared, BTreeMap::new()) }
    }

    fn import(&self, file: &Json, scope: Scope<'_>) -> Result<Imported, Vec<Mistake>> {
        let definitions = read(file.to_string().as_bytes(), scope)?;
        Import { access: &self.access, vhosts: &self.vhosts }.run(definitions)
    }

    #[track_caller]
    fn good(&self, file: &Json) -> Imported {
        self.import(file, Scope::Broker).unwrap_or_else(|mistakes| panic!("{}", lines(&mistakes)))
    }

    fn export(&self, only: Option<&str>) -> Json {
        export(&self.access, &self.vhosts, &Product { name: "RabbitMQ", version: "4.2.1" }, only)
    }

    fn vhost(&self, name: &str) -> Arc<Vhost> {
        self.vhosts.get(name).unwrap()
    }
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()
}

/// A file with something of everything, as a RabbitMQ of release 3.10 has written it.
fn sample() -> Json {
    json!({
        "rabbit_version": "3.10.8", "rabbitmq_version": "3.10.8",
        "users": [
            {"name": "u1", "password_hash": "s78muHMm6njeWR96V0kMHG1S2R5PtmRm890OrGTSrOWZk1rv",
             "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["management", "custom"],
             "limits": {"max-channels": 10}},
            {"name": "guest", "password_hash": "PndGzzYj4QZ/o+XnmReuYZNSEXaGz2eaz3xr+bA4HBjdOnTy",
             "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["administrator"], "limits": {}},
            {"name": "nobody", "password_hash": "", "hashing_algorithm": "rabbit_password_hashing_sha256",
             "tags": [], "limits": {}},
        ],
        "vhosts": [{"name": "/"}, {"name": "v1"}],
        "permissions": [
            {"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
            {"user": "u1", "vhost": "v1", "configure": "^a", "write": "^b", "read": ""},
        ],
        "topic_permissions": [
            {"user": "u1", "vhost": "v1", "exchange": "amq.topic", "write": "^{username}", "read": ".*"},
        ],
        "parameters": [
            {"value": {"max-connections": 10}, "vhost": "v1", "component": "vhost-limits", "name": "limits"},
            {"value": {"pattern": ".*", "definition": {"expires": 1_000_000}, "priority": 0, "apply-to": "queues"},
             "vhost": "v1", "component": "operator_policy", "name": "o1"},
            {"value": {"src-uri": "amqp://"}, "vhost": "/", "component": "shovel", "name": "s"},
        ],
        "global_parameters": [
            {"name": "gp", "value": {"a": 1}},
            {"name": "internal_cluster_id", "value": "rabbitmq-cluster-id-HuP5NHLDb1CRDmlfpwFrGA"},
        ],
        "policies": [
            {"vhost": "v1", "name": "p1", "pattern": "^amq.", "apply-to": "queues",
             "definition": {"max-length": 10}, "priority": 1},
        ],
        "queues": [
            {"name": "a", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}},
            {"name": "t", "vhost": "/", "durable": false, "auto_delete": true, "arguments": {"x-custom": [1, "x"]}},
        ],
        "exchanges": [
            {"name": "orders", "vhost": "/", "type": "topic", "durable": true, "auto_delete": false,
             "internal": false, "arguments": {"alternate-exchange": "amq.fanout"}},
        ],
        "bindings": [
            {"source": "orders", "vhost": "/", "destination": "a", "destination_type": "queue",
             "routing_key": "order.#", "arguments": {}},
            {"source": "amq.headers", "vhost": "/", "destination": "orders", "destination_type": "exchange",
             "routing_key": "", "arguments": {"x-match": "all", "size": 7}},
        ],
    })
}

/// Semantics 28.1 to 28.9, 4.11.
#[test]
fn everything_of_a_file_is_taken_over() {
    let world = World::new();
    let imported = world.good(&sample());
    let counts = "2 vhosts, 3 users, 2 permissions, 1 topic permissions, 1 global parameters, 1 limits, 1 parameters, \
                  2 policies, 1 exchanges, 2 queues, 2 bindings";
    assert_eq!(imported.to_string(), counts);
    let records = world.access.records();
    let user = |name: &str| records.iter().find(|user| user.name == name).unwrap();
    assert!(PasswordHash::verify(user("u1").password.as_ref(), b"p"));
    assert!(PasswordHash::verify(user("guest").password.as_ref(), b"guest"));
    assert_eq!((user("nobody").password.clone(), user("u1").limits.max_channels), (None, Some(10)));
    assert_eq!(user("u1").tags, ["management", "custom"]);
    assert!(user("guest").loopback_only && !user("u1").loopback_only);
    let u1 = world.access.user("u1").unwrap();
    assert!(world.access.topic_permission(&u1, "v1", "amq.topic").is_some());
    let v1 = world.vhost("v1");
    assert_eq!(v1.limits().max_connections, Some(10));
    assert_eq!(v1.policies(PolicyKind::User)[0].spec().apply_to, ApplyTo::Queues);
    assert_eq!(v1.policies(PolicyKind::Operator)[0].spec().name, "o1");
    let root = world.vhost("/");
    assert_eq!(root.counts(), (8, 2));
    assert_eq!(root.exchange("orders").unwrap().binding_count(), 1);
    let notes = ["parameters[2]: parameter 's' of component 'shovel' is kept and has no effect here"];
    assert_eq!(imported.notes, notes);
}

/// Semantics 28.
#[test]
fn what_is_exported_and_imported_is_exported_the_same() {
    let first = World::new();
    first.good(&sample());
    let exported = first.export(None);
    let second = World::new();
    second.good(&exported);
    assert_eq!(second.export(None), exported);
    // And it is what came in, as far as both say the same things.
    let sample = sample();
    for key in ["permissions", "topic_permissions", "policies", "exchanges", "bindings"] {
        assert_eq!(sorted(&exported[key]), sorted(&sample[key]), "{key}");
    }
    assert_eq!(sorted(&exported["users"]), sorted(&sample["users"]));
    assert_eq!(sorted(&exported["parameters"]), sorted(&sample["parameters"]));
    assert_eq!(exported["global_parameters"], json!([{"name": "gp", "value": {"a": 1}}]), "without internal ones");
    assert_eq!(exported["queues"][0]["type"], json!("classic"));
}

fn sorted(list: &Json) -> Vec<String> {
    let mut lines: Vec<String> = list.as_array().unwrap().iter().map(Json::to_string).collect();
    lines.sort();
    lines
}

/// Semantics 28.11.
#[test]
fn an_import_adds_and_overwrites_and_leaves_queues_and_exchanges_as_they_are() {
    let world = World::new();
    world.good(&sample());
    let again = json!({
        "users": [{"name": "u1", "password": "new", "tags": "monitoring"}],
        "permissions": [{"user": "u1", "vhost": "v1", "configure": "", "write": "", "read": ".*"}],
        "policies": [{"vhost": "v1", "name": "p1", "pattern": "^q", "definition": {"expires": 5}}],
        "queues": [{"name": "a", "vhost": "/", "durable": false, "arguments": {"x-queue-type": "no such type"}}],
        "exchanges": [{"name": "orders", "vhost": "/", "type": "no such type"}],
    });
    world.good(&again);
    let u1 = world.access.records().into_iter().find(|user| user.name == "u1").unwrap();
    assert!(PasswordHash::verify(u1.password.as_ref(), b"new"));
    assert_eq!((u1.tags.as_slice(), u1.limits.max_channels), (["monitoring".to_owned()].as_slice(), Some(10)));
    assert_eq!(world.access.permissions_of("u1").len(), 1);
    assert_eq!(world.vhost("v1").policies(PolicyKind::User)[0].spec().pattern, "^q");
    let root = world.vhost("/");
    assert!(root.queue("a").unwrap().durable && root.queue("t").is_some());
    assert_eq!(root.exchange("orders").unwrap().spec.kind, "topic");
}

/// Semantics 28.2, 28.10, 28.11.
#[test]
fn old_and_careless_files_are_understood() {
    let world = World::new();
    let imported = world.good(&json!({
        "rabbit_version": "3.5.7",
        "users": [
            {"name": "old", "password_hash": "AAECA5QrjVu7gIVjVlqjyKQ+QaE=", "tags": "administrator, policymaker"},
            {"name": "older", "password_hash": "", "administrator": true},
        ],
        "vhosts": [
            {"name": "/", "tracing": true, "description": "d", "tags": ["t"], "limits": [["max-queues", 10], ["max-connections", -1]]},
        ],
        "unknown": {"what": "ever"},
        "queues": [
            {"name": "q", "vhost": "/", "arguments": []},
            {"name": "amq.gen-x", "vhost": "/"},
            {"name": "mine", "vhost": "/", "exclusive": true},
        ],
        "exchanges": [{"name": "x", "vhost": "/", "type": "direct"}, {"name": "amq.topic", "vhost": "/", "type": "topic"}],
        "bindings": [
            {"source": "", "vhost": "/", "destination": "q", "destination_type": "queue", "routing_key": "q"},
            {"source": "x", "vhost": "/", "destination": "amq.gen-x", "destination_type": "queue"},
            {"source": "x", "vhost": "/", "destination": "q", "destination_type": "queue"},
        ],
        "policies": [
            {"vhost": "/", "name": "ha", "pattern": "", "definition": {"ha-mode": "all"}},
            {"vhost": "/", "name": "both", "pattern": "", "definition": {"ha-mode": "all", "max-length": 5}, "priority": null},
        ],
    }));
    let old = world.access.records().into_iter().find(|user| user.name == "old").unwrap();
    assert_eq!(old.password.map(|hash| hash.algorithm()), Some(HashAlgorithm::Md5));
    assert_eq!(old.tags, ["administrator", "policymaker"]);
    assert_eq!(world.access.user("older").unwrap().tags, ["administrator"]);
    let root = world.vhost("/");
    assert_eq!((root.metadata().description.as_str(), root.metadata().tags.len()), ("d", 1));
    assert_eq!((root.limits().max_queues, root.limits().max_connections), (Some(10), Some(-1)));
    let queue = root.queue("q").unwrap();
    assert!(queue.durable && !queue.auto_delete && root.exchange("x").unwrap().spec.durable);
    assert_eq!((root.counts().1, root.exchange("x").unwrap().binding_count()), (1, 1));
    assert_eq!(root.policies(PolicyKind::User).len(), 1);
    let expected = [
        "users[0]: user 'old' has an MD5 hash, which is weak: set a new password",
        "vhosts[0]: tracing is not imported: switch it on where it is wanted",
        "policies[0]: policy 'ha': ha-mode of mirrored queues are left out, and the policy with them: it says nothing else",
        "policies[1]: policy 'both': ha-mode of mirrored queues are left out",
        "exchanges[1]: exchange 'amq.topic' is the server's own and left out",
        "queues[1]: queue 'amq.gen-x' is the server's own and left out",
        "queues[2]: queue 'mine' is exclusive and left out",
        "bindings[0]: a binding from the default exchange is there without being made",
        "bindings[1]: the binding to queue 'amq.gen-x' is left out with the queue",
    ];
    assert_eq!(imported.notes, expected);
}

/// Semantics 28.12.
#[test]
fn a_file_of_one_vhost_is_imported_into_any() {
    let world = World::new();
    world.good(&sample());
    let of_one = world.export(Some("/"));
    assert!(of_one.get("users").is_none() && of_one["queues"][0].get("vhost").is_none(), "{of_one}");
    let other = World::new();
    let mistakes = other.import(&of_one, Scope::Broker).unwrap_err();
    let expected = "parameters[0]: 'vhost' is missing; a file of one vhost is imported with --vhost NAME\n";
    assert!(lines(&mistakes).starts_with(expected), "{}", lines(&mistakes));
    let mistakes = other.import(&of_one, Scope::Vhost("copy")).unwrap_err();
    assert!(
        lines(&mistakes).contains("queues[0]: vhost 'copy' does not exist; create it first"),
        "{}",
        lines(&mistakes)
    );
    other.vhosts.create("copy", None).unwrap();
    other.import(&of_one, Scope::Vhost("copy")).unwrap();
    assert_eq!(other.export(Some("copy")), of_one);
    // A file of a whole broker goes into one vhost, too, without its users.
    let third = World::new();
    third.vhosts.create("v", None).unwrap();
    let imported = third.import(&sample(), Scope::Vhost("v")).unwrap();
    assert!(third.access.records().is_empty() && third.vhosts.list().len() == 1);
    assert!(imported.notes.contains(&"users are left out: the file is imported into one vhost".to_owned()));
    assert_eq!(third.vhost("v").counts().1, 2);
}

#[track_caller]
fn check(file: Json, expected: &[&str]) {
    let world = World::new();
    world.vhosts.create("/", None).unwrap();
    let before = world.export(None);
    let mistakes = world.import(&file, Scope::Broker).expect_err("the file has mistakes");
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(lines, expected);
    assert_eq!(world.export(None), before, "nothing is changed");
}

#[test]
fn each_mistake_has_its_place_and_a_way_out() {
    check(json!({"users": {}}), &["users: expected a list, found an object; write [ … ], or leave it out"]);
    check(
        json!({"users": [
            7, {"password_hash": ""}, {"name": "a", "password": "x", "password_hash": ""},
            {"name": "b", "password_hash": "AAAA"}, {"name": "c", "password_hash": "", "hashing_algorithm": "rot13"},
            {"name": "d", "tags": [1]}, {"name": "e", "limits": {"max-fun": 1}}, {"name": ""},
        ]}),
        &[
            "users[0]: expected an object, found the number 7",
            "users[1]: 'name' is missing; add \"name\": \"…\"",
            "users[2]: both 'password' and 'password_hash' are given; keep one of them",
            "users[3].password_hash: the password hash has 3 bytes, but sha256 needs 36 (a salt of 4 and the digest); \
             take it as it was exported",
            "users[4].hashing_algorithm: unknown hashing algorithm 'rot13'; known are sha256, sha512 and md5; \
             set a new password instead",
            "users[5].tags[0]: expected text, found the number 1",
            "users[6].limits: Unrecognised terms [{<<\"max-fun\">>,1}] in user-limits; \
             known are max-connections, max-channels",
            "users[7].name: the name is empty; give it one",
        ],
    );
    check(
        json!({"policies": [
            {"vhost": "/", "name": "p", "pattern": "a", "definition": {"expires": 0}},
            {"vhost": "/", "name": "p", "pattern": "(", "definition": {"expires": 1}},
            {"vhost": "/", "name": "p", "pattern": "a"},
            {"vhost": "/", "name": "p", "pattern": "a", "definition": {"nonsense": 1}, "apply-to": "cats"},
        ], "parameters": [
            {"vhost": "/", "component": "operator_policy", "name": "o", "value": {"pattern": "a", "definition": {"alternate-exchange": "x"}}},
            {"vhost": "/", "component": "vhost-limits", "name": "limits", "value": {"max-queues": "many"}},
        ]}),
        &[
            "parameters[0].value.definition.alternate-exchange: [{<<\"alternate-exchange\">>,<<\"x\">>}] are not recognised \
             policy settings; mend it or leave it out",
            "parameters[1].value: max-queues should be a number, actually was <<\"many\">>; \
             known are max-connections, max-queues",
            "policies[0].definition.expires: 0 is not a valid queue expiry; mend it or leave it out",
            "policies[1].pattern: pattern should be regular expression but is invalid: Parsing error at position 1: \
             Opening parenthesis without closing parenthesis; mend it or leave it out",
            "policies[2]: 'definition' is missing; a policy without one says nothing",
            "policies[3].apply-to: apply-to 'cats' unrecognised; should be one of: 'queues', 'classic_queues',  \
             'quorum_queues', 'streams', 'exchanges', or 'all'",
        ],
    );
    check(
        json!({"permissions": [
            {"user": "nobody", "vhost": "nowhere", "configure": "", "write": "", "read": ""},
        ], "queues": [
            {"name": "q", "vhost": "/", "arguments": {"x-queue-type": 5}},
        ], "exchanges": [
            {"name": "x", "vhost": "/", "type": "x-no-such"},
        ], "bindings": [
            {"source": "x", "vhost": "/", "destination": "r", "destination_type": "queue"},
            {"source": "y", "vhost": "/", "destination": "q", "destination_type": "queue"},
        ]}),
        &[
            "permissions[0]: vhost 'nowhere' does not exist; create it first, or add it to \"vhosts\"",
            "permissions[0]: user 'nobody' does not exist; create it first, or add it to \"users\"",
            "exchanges[0]: unknown exchange type 'x-no-such'; load the plugin that offers it",
            "queues[0].arguments: invalid arg 'x-queue-type' for queue 'q' in vhost '/': {unacceptable_type,long}; \
             mend it or leave it out",
            "bindings[0].destination: queue 'r' does not exist in vhost '/'; add it, or leave the binding out",
            "bindings[1].source: exchange 'y' does not exist in vhost '/'; add it, or leave the binding out",
        ],
    );
    check(
        json!({"exchanges": [{"name": "x", "vhost": "/"}, {"name": "y", "vhost": "/", "type": "direct", "durable": "yes"}],
               "bindings": [{"source": "x", "vhost": "/", "destination": "q", "destination_type": "cat"}]}),
        &[
            "exchanges[0]: 'type' is missing; add \"type\": \"…\"",
            "exchanges[1].durable: expected true or false, found text",
            "bindings[0].destination_type: 'cat' is not known here; one of queue, exchange",
        ],
    );
}

#[test]
fn what_is_no_json_or_no_object_is_said_so() {
    let cause = |text: &[u8]| lines(&read(text, Scope::Broker).unwrap_err());
    assert_eq!(cause(b"{\n  \"users\": [,]\n}"), "not JSON: expected value at line 2 column 13; mend the file\n");
    assert!(cause(b"[]").starts_with("expected an object with users, vhosts, queues"), "{}", cause(b"[]"));
    assert!(read(b"\xEF\xBB\xBF{}", Scope::Broker).is_ok(), "a byte order mark is no mistake");
    let deep = [b"{\"a\":".as_slice(), &b"[".repeat(100_000)].concat();
    assert!(cause(&deep).contains("recursion limit"), "{}", cause(&deep));
    let many = json!({"queues": vec![json!(1); 1000]});
    let mistakes = read(many.to_string().as_bytes(), Scope::Broker).unwrap_err();
    assert_eq!(mistakes.len(), MISTAKES_MAX + 1);
}

/// Semantics 24.3.
#[test]
fn a_vhost_must_have_room_for_all_queues_of_a_file() {
    let queue = |name: &str| json!({"name": name, "vhost": "/"});
    check(
        json!({
            "parameters": [{"vhost": "/", "component": "vhost-limits", "name": "limits", "value": {"max-queues": 1}}],
            "queues": [queue("a"), queue("b")],
        }),
        &["queues: Adding 2 queue(s) to virtual host \"/\" would exceed the limit of 1 queue(s). This virtual host \
           currently has 0 queue(s) defined; raise the limit, or leave queues out"],
    );
}

#[test]
fn what_the_topology_file_declares_is_left_alone() {
    let user = UserDecl {
        name: "app".into(),
        password: PasswordDecl::Plain("of-file".into()),
        tags: Vec::new(),
        loopback_only: false,
        permissions: vec![PermissionDecl::all("/")],
        topic_permissions: Vec::new(),
        limits: UserLimitsDecl::default(),
    };
    let world = World::with_users(&[user]);
    let vhost = world.vhosts.create("/", None).unwrap().0;
    let spec = |pattern: &str| {
        let definition = [("expires".to_owned(), json!(1))].into_iter().collect();
        PolicySpec { name: "p".into(), pattern: pattern.into(), apply_to: ApplyTo::All, priority: 0, definition }
    };
    let decl = VhostDecl {
        limits: Some(VhostLimits { max_queues: Some(5), max_connections: None }),
        policies: vec![(PolicyKind::User, spec("of-file"))],
        ..VhostDecl::default()
    };
    apply_settings(&vhost, &decl).unwrap();
    let imported = world.good(&json!({
        "users": [{"name": "app", "password": "of-definitions"}],
        "permissions": [{"user": "app", "vhost": "/", "configure": "", "write": "", "read": ""}],
        "policies": [{"vhost": "/", "name": "p", "pattern": "of-definitions", "definition": {"expires": 1}}],
        "parameters": [{"vhost": "/", "component": "vhost-limits", "name": "limits", "value": {"max-queues": 9}}],
    }));
    let hash = world.access.records().remove(0).password;
    assert!(PasswordHash::verify(hash.as_ref(), b"of-file"));
    assert_eq!(world.access.permissions_of("app")[0].read, ".*");
    assert_eq!(vhost.policies(PolicyKind::User)[0].spec().pattern, "of-file");
    assert_eq!(vhost.limits().max_queues, Some(5));
    assert_eq!(imported.notes.len(), 4, "{:?}", imported.notes);
}

/// Semantics 28.3.
#[test]
fn metadata_of_vhosts_comes_and_goes() {
    let world = World::new();
    let file = json!({"vhosts": [
        {"name": "a", "metadata": {"description": "orders", "tags": ["x", "y"], "default_queue_type": "quorum",
                                   "protected_from_deletion": true}, "limits": {"max-queues": 3}},
        {"name": "b", "metadata": {"default_queue_type": "undefined"}},
    ]});
    world.good(&file);
    let metadata = world.vhost("a").metadata();
    assert_eq!((metadata.description.as_str(), metadata.default_queue_type), ("orders", Some(QueueType::Quorum)));
    assert!(metadata.protected_from_deletion);
    assert_eq!(world.vhost("a").limits().max_queues, Some(3));
    assert_eq!(world.vhost("b").metadata(), Default::default());
    assert_eq!(world.export(None)["vhosts"][0], file["vhosts"][0]);
    check(
        json!({"vhosts": [{"name": "a", "metadata": {"default_queue_type": "stream"}}]}),
        &["vhosts[0].metadata.default_queue_type: queues of type stream are not supported by this version; \
           one of classic, quorum"],
    );
}
