//! Policies, limits and vhosts that change, on vhosts whose queues only note what they are told.

use std::sync::Weak;

use hashbrown::HashMap;
use parking_lot::Mutex;
use plugin_api::exchange::ExchangeSpec;
use plugin_api::value::Table;
use serde_json::json;

use super::*;
use crate::plugin_host::Registry;
use crate::queue::{self, Durability, Handle, Options};
use crate::store::definitions::{self, Entry};
use crate::vhost::authority::Operator;
use crate::vhost::declare::QueueSpec;
use crate::vhost::held::tests::NoHolder;
use crate::vhost::policy::ApplyTo;
use crate::vhost::registry::{VhostError, Vhosts};
use crate::vhost::{Error, Ledger, Numbers, QueueFactory, Shared};

/// Notes what queues are told, and what the ledger is told.
#[derive(Debug, Default)]
struct Notes {
    told: Mutex<Vec<(Arc<str>, Told)>>,
    meta: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
}

#[derive(Debug, PartialEq)]
enum Told {
    Made(Options),
    Changed(Options),
    Deleted,
}

impl Notes {
    /// What queues were told of one value, by name.
    fn take<T>(&self, value: impl Fn(&Options) -> T) -> Vec<(String, T)> {
        let mut told: Vec<_> = std::mem::take(&mut *self.told.lock())
            .into_iter()
            .filter_map(|(name, told)| match told {
                Told::Made(options) | Told::Changed(options) => Some((name.to_string(), value(&options))),
                Told::Deleted => None,
            })
            .collect();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        told
    }
}

#[derive(Debug)]
struct Queue(Arc<str>, Arc<Notes>, Weak<Vhost>);

impl Handle for Queue {
    fn post(&self, input: Input) {
        let told = match input {
            Input::Reconfigure(options) => Told::Changed(options),
            Input::Delete { .. } => Told::Deleted,
            other => panic!("{other:?}"),
        };
        let vhost = self.2.upgrade().expect("the test has it");
        assert!(vhost.tables.try_write().is_some(), "queues are told without the lock of the names");
        self.1.told.lock().push((Arc::clone(&self.0), told));
    }
}

#[derive(Debug)]
struct Factory(Arc<Notes>);

impl QueueFactory for Factory {
    fn create(
        &self,
        vhost: &Arc<Vhost>,
        name: &Arc<str>,
        _: u64,
        options: Options,
        _: queue::Restored,
    ) -> Arc<dyn Handle> {
        self.0.told.lock().push((Arc::clone(name), Told::Made(options)));
        Arc::new(Queue(Arc::clone(name), Arc::clone(&self.0), Arc::downgrade(vhost)))
    }
}

impl Ledger for Notes {
    fn record(&self, vhost: &str, changes: Vec<Change>) {
        let entries: Vec<Entry> = changes.iter().map(|change| definitions::entry(vhost, change)).collect();
        let mut meta = self.meta.lock();
        for (key, value) in entries {
            match value {
                Some(value) => drop(meta.insert(key, value)),
                None => drop(meta.remove(&key)),
            }
        }
    }
}

fn vhosts() -> (Vhosts, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    let shared = Shared {
        registry: Arc::new(Registry::builtin().unwrap()),
        factory: Arc::new(Factory(Arc::clone(&notes))),
        ledger: Arc::<Notes>::clone(&notes),
        holder: Arc::new(NoHolder),
        numbers: Arc::new(Numbers::starting_at(1)),
        first_seq: 1,
        bindings_per_queue_max: usize::MAX,
        strict: crate::vhost::strict::Strict::default(),
        events: Events::default(),
        hooks: Arc::default(),
    };
    (Vhosts::new(shared, Default::default()), notes)
}

fn vhost() -> (Arc<Vhost>, Arc<Notes>) {
    let (vhosts, notes) = vhosts();
    (vhosts.create("/", None).unwrap().0, notes)
}

fn declare(vhost: &Arc<Vhost>, name: &str) -> Result<Arc<QueueRecord>, Error> {
    declare_with(vhost, name, Table::new())
}

fn declare_with(vhost: &Arc<Vhost>, name: &str, arguments: Table) -> Result<Arc<QueueRecord>, Error> {
    let spec = QueueSpec { name: name.to_owned(), durable: true, arguments, ..QueueSpec::default() };
    vhost.declare_queue(&mut Operator, spec, || unreachable!("it has a name")).map(|(queue, _)| queue)
}

fn spec(name: &str, pattern: &str, definition: Json) -> PolicySpec {
    let Json::Object(definition) = definition else { panic!("a definition is an object") };
    let (name, pattern, apply_to) = (name.to_owned(), pattern.to_owned(), ApplyTo::All);
    PolicySpec { name, pattern, apply_to, priority: 0, definition }
}

fn put(vhost: &Vhost, spec: PolicySpec) {
    vhost.put_policy(PolicyKind::User, spec, Origin::Runtime).unwrap();
}

fn meta(notes: &Notes) -> Vec<(Vec<u8>, Vec<u8>)> {
    notes.meta.lock().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Semantics 23.8.
#[test]
fn queues_that_are_there_and_new_ones_get_their_policy_at_once() {
    let (vhost, notes) = vhost();
    for name in ["q1", "q2", "other"] {
        declare(&vhost, name).unwrap();
    }
    notes.take(|_| ());
    put(&vhost, spec("p", "^q", json!({"max-length": 5})));
    let five = Some(5);
    assert_eq!(notes.take(|options| options.max_length), [("q1".into(), five), ("q2".into(), five)]);
    let queue = declare(&vhost, "q3").unwrap();
    assert_eq!(notes.take(|options| options.max_length), [("q3".into(), five)]);
    assert_eq!(queue.policy.read().policy.as_ref().map(|policy| policy.spec().name.clone()), Some("p".into()));
    put(&vhost, PolicySpec { priority: 1, ..spec("higher", "^q1$", json!({"expires": 9})) });
    assert_eq!(notes.take(|options| (options.max_length, options.expires_ms)), [("q1".into(), (None, Some(9)))]);
    put(&vhost, PolicySpec { priority: 1, ..spec("higher", "^q1$", json!({"expires": 9})) });
    assert!(notes.take(|_| ()).is_empty(), "nothing has changed");
    vhost.delete_policy(PolicyKind::User, "higher").unwrap();
    assert_eq!(notes.take(|options| options.max_length), [("q1".into(), five)]);
    assert!(vhost.delete_policy(PolicyKind::User, "higher").is_none());
    vhost.delete_policy(PolicyKind::User, "p").unwrap();
    let told = notes.take(|options| options.max_length);
    assert_eq!(told, [("q1".into(), None), ("q2".into(), None), ("q3".into(), None)]);
    assert!(queue.policy.read().is_none());
}

/// Semantics 23.3, 23.4.
#[test]
fn the_operators_policy_narrows_what_queues_get() {
    let (vhost, notes) = vhost();
    declare(&vhost, "q").unwrap();
    put(&vhost, spec("p", "", json!({"max-length": 5, "message-ttl": 100})));
    let operator = spec("o", "", json!({"max-length": 3}));
    vhost.put_policy(PolicyKind::Operator, operator, Origin::Runtime).unwrap();
    let told = notes.take(|options| (options.max_length, options.message_ttl_ms));
    assert_eq!(told.last(), Some(&("q".into(), (Some(3), Some(100)))));
}

/// Semantics 11.14, 23.5, 23.8.
#[test]
fn an_exchange_gets_its_alternate_from_a_policy_unless_it_has_one() {
    let (vhost, _) = vhost();
    let own = Table::new().with("alternate-exchange", "mine");
    for (name, arguments) in [("x1", Table::new()), ("x2", own)] {
        let kind = "direct".to_owned();
        let spec = ExchangeSpec { name: name.into(), kind, arguments, ..ExchangeSpec::default() };
        vhost.declare_exchange(&mut Operator, spec).unwrap();
    }
    let generation = vhost.generation();
    put(&vhost, spec("p", "", json!({"alternate-exchange": "theirs"})));
    assert!(vhost.generation() > generation, "routes are forgotten");
    let alternate = |name: &str| vhost.exchange(name).unwrap().alternate().map(|name| name.to_string());
    let found = ["x1", "x2", "amq.direct", ""].map(alternate);
    assert_eq!(found, [Some("theirs".into()), Some("mine".into()), Some("theirs".into()), None]);
    let new = ExchangeSpec { name: "x3".into(), kind: "direct".into(), ..ExchangeSpec::default() };
    vhost.declare_exchange(&mut Operator, new).unwrap();
    assert_eq!(alternate("x3"), Some("theirs".into()));
    vhost.delete_policy(PolicyKind::User, "p").unwrap();
    assert_eq!(["x1", "x2", "x3"].map(alternate), [None, Some("mine".into()), None]);
}

/// Semantics 23.9.
#[test]
fn a_policy_does_not_change_what_a_queue_was_declared_with() {
    let (vhost, _) = vhost();
    declare(&vhost, "q").unwrap();
    put(&vhost, spec("p", "", json!({"max-length": 5})));
    declare(&vhost, "q").unwrap();
}

/// Semantics 27.1.
#[test]
fn what_was_set_is_there_again_after_a_restart_and_policies_come_before_queues() {
    let (vhost, notes) = vhost();
    put(&vhost, spec("p", "^q", json!({"max-length": 5})));
    put(&vhost, spec("gone", "", json!({"max-length": 6})));
    vhost.delete_policy(PolicyKind::User, "gone").unwrap();
    vhost.put_policy(PolicyKind::Operator, spec("o", "", json!({"expires": 7})), Origin::Runtime).unwrap();
    vhost.put_policy(PolicyKind::User, spec("of-file", "", json!({"expires": 8})), Origin::Topology).unwrap();
    let limits = VhostLimits { max_connections: Some(3), max_queues: None };
    vhost.put_limits(limits, Origin::Runtime).unwrap();
    let metadata = VhostMetadata { description: "orders".into(), ..VhostMetadata::default() };
    vhost.put_metadata(metadata.clone(), Origin::Runtime).unwrap();
    vhost.put_parameter("shovel", "s", json!({"a": 1})).unwrap();
    declare(&vhost, "q").unwrap();

    let mut stored = definitions::read(&meta(&notes)).unwrap().vhosts.remove("/").unwrap();
    let (vhosts, notes) = vhosts();
    let vhost = vhosts.prepare("/", Durability::Synced).unwrap();
    vhost.restore_settings(&mut stored);
    vhost.restore(stored, &mut HashMap::new());
    let names = |kind| vhost.policies(kind).iter().map(|policy| policy.spec().name.clone()).collect::<Vec<_>>();
    assert_eq!((names(PolicyKind::User), names(PolicyKind::Operator)), (vec!["p".into()], vec!["o".into()]));
    assert_eq!((vhost.limits(), vhost.metadata()), (limits, metadata));
    assert_eq!(vhost.parameters(), [(("shovel".into(), "s".into()), json!({"a": 1}))]);
    assert_eq!(notes.take(|options| (options.max_length, options.expires_ms)), [("q".into(), (Some(5), Some(7)))]);
}

#[test]
fn the_store_forgets_what_the_file_names() {
    let (vhost, notes) = vhost();
    put(&vhost, spec("p", "", json!({"max-length": 5})));
    vhost.put_limits(VhostLimits { max_queues: Some(1), max_connections: None }, Origin::Runtime).unwrap();
    let count = notes.meta.lock().len();
    vhost.put_policy(PolicyKind::User, spec("p", "", json!({"max-length": 6})), Origin::Topology).unwrap();
    vhost.put_limits(VhostLimits { max_queues: Some(2), max_connections: None }, Origin::Topology).unwrap();
    assert_eq!(notes.meta.lock().len(), count - 2);
    assert_eq!(vhost.limits().max_queues, Some(2));
    put(&vhost, spec("p", "", json!({"max-length": 7})));
    assert_eq!(notes.meta.lock().len(), count - 1, "what is changed at run time is stored until the next start");
}

/// Semantics 9.21, 24.3.
#[test]
fn a_vhost_has_no_more_queues_than_it_may() {
    let (vhost, _) = vhost();
    declare(&vhost, "q1").unwrap();
    vhost.put_limits(VhostLimits { max_queues: Some(1), max_connections: None }, Origin::Runtime).unwrap();
    let error = declare(&vhost, "q2").unwrap_err();
    assert_eq!(error.to_string(), "cannot declare queue 'q2': queue limit in vhost '/' (1) is reached");
    assert_eq!(error.reply_code(), crate::amqp::ReplyCode::PreconditionFailed);
    declare(&vhost, "q1").unwrap();
    vhost.put_limits(VhostLimits { max_queues: Some(-1), max_connections: None }, Origin::Runtime).unwrap();
    declare(&vhost, "q2").unwrap();
}

/// Semantics 9.12.
#[test]
fn a_queue_without_a_type_gets_the_default_of_its_vhost() {
    let (vhost, _) = vhost();
    let none = declare(&vhost, "none").unwrap();
    assert!(none.arguments.is_empty());
    let default_queue_type = Some(QueueType::Classic);
    vhost.put_metadata(VhostMetadata { default_queue_type, ..VhostMetadata::default() }, Origin::Runtime).unwrap();
    let classic = declare(&vhost, "classic").unwrap();
    assert_eq!(classic.arguments.get("x-queue-type").and_then(|kind| kind.as_str()), Some("classic"));
    declare(&vhost, "none").unwrap();
    let default_queue_type = Some(QueueType::Quorum);
    vhost.put_metadata(VhostMetadata { default_queue_type, ..VhostMetadata::default() }, Origin::Runtime).unwrap();
    let spec = QueueSpec { name: "transient".into(), ..QueueSpec::default() };
    let (transient, _) = vhost.declare_queue(&mut Operator, spec, String::new).unwrap();
    assert_eq!(transient.arguments.get("x-queue-type").and_then(|kind| kind.as_str()), Some("classic"));
    let error = declare(&vhost, "none").unwrap_err().to_string();
    assert!(error.starts_with("inequivalent arg 'x-queue-type' for queue 'none' in vhost '/': received"), "{error}");
}

/// Semantics 24.2.
#[test]
fn a_vhost_that_is_deleted_leaves_nothing_behind() {
    let (vhosts, notes) = vhosts();
    let (vhost, is_new, _) = vhosts.create("v", None).unwrap();
    assert!(is_new && !vhosts.create("v", None).unwrap().1);
    for name in ["q1", "q2"] {
        declare(&vhost, name).unwrap();
    }
    let binding = plugin_api::exchange::BindingSpec::to_queue("q1", "key");
    vhost.bind(&mut Operator, "amq.topic", &binding).unwrap();
    put(&vhost, spec("p", "", json!({"max-length": 5})));
    vhost.put_parameter("c", "n", json!(1)).unwrap();
    vhost.put_limits(VhostLimits { max_queues: Some(9), max_connections: None }, Origin::Runtime).unwrap();
    let mut metadata = VhostMetadata { protected_from_deletion: true, ..VhostMetadata::default() };
    vhost.put_metadata(metadata.clone(), Origin::Runtime).unwrap();
    let protected = vhosts.delete("v", || panic!("it stays"));
    assert_eq!(protected, Err(VhostError::Protected("v".into())));
    metadata.protected_from_deletion = false;
    vhost.put_metadata(metadata, Origin::Runtime).unwrap();

    vhosts.delete("v", || {}).unwrap();
    assert!(vhosts.get("v").is_none());
    assert!(meta(&notes).is_empty(), "the store has nothing of it");
    let deleted = notes.told.lock().iter().filter(|(_, told)| *told == Told::Deleted).count();
    assert_eq!(deleted, 2);
    assert_eq!(vhosts.delete("v", || {}), Err(VhostError::NotFound("v".into())));
    // Whoever is still inside can leave nothing in the store.
    assert!(matches!(declare(&vhost, "late"), Err(Error::VhostDeleted(_))));
    let exchange = ExchangeSpec { name: "x".into(), kind: "fanout".into(), ..ExchangeSpec::default() };
    assert!(vhost.declare_exchange(&mut Operator, exchange).is_err());
    assert!(vhost.bind(&mut Operator, "amq.topic", &binding).is_err());
    assert!(vhost.put_policy(PolicyKind::User, spec("p", "", json!({"expires": 1})), Origin::Runtime).is_err());
    assert!(vhost.put_parameter("c", "n", json!(1)).is_err());
    assert!(vhost.put_limits(VhostLimits::default(), Origin::Runtime).is_err());
    assert!(meta(&notes).is_empty());
    let (again, is_new, _) = vhosts.create("v", None).unwrap();
    assert!(is_new && again.queues().is_empty() && again.policies(PolicyKind::User).is_empty());
}

#[test]
fn counts_and_sizes_have_limits() {
    let (vhost, _) = vhost();
    for number in 0..POLICIES_MAX {
        put(&vhost, spec(&format!("p{number}"), "", json!({"max-length": 1})));
    }
    let error = vhost.put_policy(PolicyKind::User, spec("more", "", json!({"expires": 1})), Origin::Runtime);
    assert_eq!(error.unwrap_err().to_string(), "component policy is limited to 1000");
    put(&vhost, spec("p0", "", json!({"max-length": 2})));
    assert!(vhost.put_parameter("c", "", json!(1)).is_err());
    assert!(vhost.put_parameter("c", "n", Json::String("x".repeat(PARAMETER_BYTES_MAX))).is_err());
}

/// Whoever declares or publishes meanwhile must not wait for all of it: [`Queue::post`] looks.
#[test]
fn ten_thousand_queues_get_another_policy_without_the_lock_of_the_names() {
    const QUEUES: usize = 10_000;
    let (vhost, notes) = vhost();
    for number in 0..QUEUES {
        declare(&vhost, &format!("q{number}")).unwrap();
    }
    put(&vhost, spec("p", "^q[0-9]+$", json!({"max-length": 5})));
    let changed = notes.told.lock().iter().filter(|(_, told)| matches!(told, Told::Changed(_))).count();
    assert_eq!(changed, QUEUES);
}

/// Semantics 21.4.
#[test]
fn a_policy_gives_no_queue_priorities() {
    let (vhost, _) = vhost();
    for kind in [PolicyKind::User, PolicyKind::Operator] {
        let spec = spec("p", ".*", json!({"max-priority": 5}));
        let error = vhost.put_policy(kind, spec, Origin::Runtime).unwrap_err();
        assert_eq!((error.part, error.key.as_deref()), ("definition", Some("max-priority")));
    }
}

/// Semantics 29.2.
#[test]
fn changes_are_told() {
    use crate::events::Next;
    let (vhosts, _) = vhosts();
    let mut told = vhosts.events().subscribe();
    let mut keys = move || -> Vec<&'static str> {
        std::iter::from_fn(|| told.try_next())
            .map(|next| match next {
                Next::News(event) => event.kind.key(),
                Next::Missed(count) => panic!("{count} were missed"),
            })
            .collect()
    };
    let (vhost, ..) = vhosts.create("v", None).unwrap();
    assert_eq!(keys(), ["vhost.created"]);
    let metadata = VhostMetadata { description: "d".into(), ..VhostMetadata::default() };
    vhosts.create("v", Some(metadata)).unwrap();
    assert_eq!(keys(), ["vhost.updated"]);
    put(&vhost, spec("p", ".*", json!({"max-length": 1})));
    vhost.put_policy(PolicyKind::Operator, spec("o", ".*", json!({"max-length": 2})), Origin::Runtime).unwrap();
    assert_eq!(keys(), ["policy.set", "policy.set"]);
    vhost.delete_policy(PolicyKind::User, "p").unwrap();
    vhost.delete_policy(PolicyKind::Operator, "o").unwrap();
    assert_eq!(keys(), ["policy.cleared", "operator.policy.cleared"]);
    let limits = VhostLimits { max_queues: Some(1), ..VhostLimits::default() };
    vhost.put_limits(limits, Origin::Runtime).unwrap();
    vhost.put_limits(VhostLimits::default(), Origin::Runtime).unwrap();
    assert_eq!(keys(), ["vhost.limits.set", "vhost.limits.cleared"]);
    vhost.put_parameter("c", "n", json!({"k": [1]})).unwrap();
    vhost.delete_parameter("c", "n").unwrap();
    assert_eq!(keys(), ["parameter.set", "parameter.cleared"]);
    declare(&vhost, "q").unwrap();
    assert!(declare(&vhost, "q").is_ok(), "what is there is not made again");
    assert_eq!(keys(), ["queue.created"]);
    vhosts.delete("v", || ()).unwrap();
    let last = keys();
    assert_eq!((last.first(), last.last()), (Some(&"queue.deleted"), Some(&"vhost.deleted")));
}

/// Semantics 29.2. RabbitMQ tells of the queues first, with the policy that was set and not with the one that applies.
#[test]
fn queues_with_another_policy_are_told_with_whose_doing_it_is() {
    use crate::events::{Next, acting_as};
    let (vhosts, _) = vhosts();
    let (vhost, ..) = vhosts.create("v", None).unwrap();
    declare(&vhost, "orders").unwrap();
    declare(&vhost, "other").unwrap();
    let mut told = vhosts.events().subscribe();
    let mut events = move || -> Vec<(&'static str, serde_json::Value)> {
        std::iter::from_fn(|| told.try_next())
            .map(|next| match next {
                Next::News(event) => {
                    let properties = crate::vhost::json_table::table_to_json(&event.properties);
                    (event.kind.key(), serde_json::Value::Object(properties))
                }
                Next::Missed(count) => panic!("{count} were missed"),
            })
            .collect()
    };
    let of_queue =
        json!({"name": "orders", "vhost": "v", "type": "rabbit_classic_queue", "user_who_performed_action": "alice"});
    let of_policy = json!({"pattern": "^ord", "apply-to": "all", "priority": 0, "definition": {"max-length": 1}});
    let joined = |a: &serde_json::Value, b: &serde_json::Value| {
        let mut joined = a.clone();
        joined.as_object_mut().unwrap().extend(b.as_object().unwrap().clone());
        joined
    };
    acting_as("alice", || put(&vhost, spec("p", "^ord", json!({"max-length": 1}))));
    let set = json!({"name": "p", "vhost": "v", "user_who_performed_action": "alice"});
    let expected = [("queue.policy.updated", joined(&of_policy, &of_queue)), ("policy.set", joined(&of_policy, &set))];
    assert_eq!(events(), expected);
    acting_as("alice", || put(&vhost, spec("p", "^ord", json!({"max-length": 1}))));
    assert_eq!(events(), [], "the same again changes nothing");

    // Another one that is behind the first: no queue has another policy by it.
    let behind = PolicySpec { priority: -1, ..spec("behind", ".*", json!({"max-length": 9})) };
    vhost.put_policy(PolicyKind::User, behind, Origin::Runtime).unwrap();
    let keys: Vec<_> = events().into_iter().map(|(key, properties)| (key, properties["name"].clone())).collect();
    assert_eq!(keys, [("queue.policy.updated", json!("other")), ("policy.set", json!("behind"))]);

    acting_as("alice", || vhost.delete_policy(PolicyKind::User, "p").unwrap());
    assert_eq!(events(), [("queue.policy.cleared", of_queue), ("policy.cleared", set)]);
    acting_as("bob", || vhosts.delete("v", || ()).unwrap());
    let last = events();
    assert!(last.iter().all(|(_, properties)| properties["user_who_performed_action"] == "bob"), "{last:?}");
    acting_as("carol", || vhosts.put_global_parameter("g", json!(7)).unwrap());
    vhosts.delete_global_parameter("g");
    let global = |user: &str| json!({"component": "global", "name": "g", "user_who_performed_action": user});
    let expected = [
        ("parameter.set", joined(&global("carol"), &json!({"value": 7}))),
        ("parameter.cleared", global("rmq-internal")),
    ];
    assert_eq!(events(), expected);
}
