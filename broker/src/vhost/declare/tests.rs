//! What declarations promise beyond single commands, whose rules the scenarios have.

use super::*;
use crate::plugin_host::Registry;
use crate::queue::{self, Durability};
use crate::store::definitions::{QueueDefinition, VhostDefinitions};
use crate::vhost::Shared;
use crate::vhost::authority::Operator;
use crate::vhost::held::tests::NoHolder;
use crate::vhost::strict::Strict;
use crate::vhost::{Change, Ledger, Numbers, QueueFactory};
use parking_lot::Mutex;
use plugin_api::exchange::{BindingSpec, DestinationKind};

#[derive(Debug)]
struct NoQueues;

#[derive(Debug)]
struct NoLedger;

impl Ledger for NoLedger {
    fn record(&self, _: &str, _: Vec<Change>) {}
}

impl QueueFactory for NoQueues {
    fn create(
        &self,
        _: &Arc<Vhost>,
        _: &Arc<str>,
        _: u64,
        _: queue::Options,
        _: queue::Restored,
    ) -> Arc<dyn queue::Handle> {
        unreachable!("no queue is declared here")
    }
}

/// Remembers what queues were made with.
#[derive(Debug, Default)]
struct Made(Mutex<Vec<queue::Options>>);

impl QueueFactory for Made {
    fn create(
        &self,
        _: &Arc<Vhost>,
        _: &Arc<str>,
        _: u64,
        options: queue::Options,
        _: queue::Restored,
    ) -> Arc<dyn queue::Handle> {
        self.0.lock().push(options);
        Arc::new(NoQueues)
    }
}

impl queue::Handle for NoQueues {
    fn post(&self, _: queue::Input) {}
}

fn vhost(factory: Arc<dyn QueueFactory>, durability: Durability) -> Arc<Vhost> {
    let registry = Arc::new(Registry::builtin().unwrap());
    let numbers = Arc::new(Numbers::starting_at(1));
    let (ledger, holder) = (Arc::new(NoLedger), Arc::new(NoHolder));
    let shared = Shared {
        registry,
        factory,
        ledger,
        holder,
        numbers,
        first_seq: 1,
        bindings_per_queue_max: BINDINGS_MAX,
        strict: Strict::default(),
        events: crate::events::Events::default(),
        hooks: Arc::default(),
    };
    Vhost::new("/", shared, durability).unwrap()
}

const BINDINGS_MAX: usize = 3;

#[test]
fn so_many_bindings_lead_to_a_queue_and_no_more() {
    let vhost = vhost(Arc::new(Made::default()), Durability::Synced);
    let spec = QueueSpec { name: "q".into(), ..QueueSpec::default() };
    vhost.declare_queue(&mut Operator, spec, || unreachable!("it has a name")).unwrap();
    let binding = |key: usize| BindingSpec {
        destination: "q".into(),
        destination_kind: DestinationKind::Queue,
        routing_key: key.to_string(),
        arguments: Table::new(),
    };
    for key in 0..BINDINGS_MAX {
        // Two exchanges: it is the queue whose bindings are counted.
        let source = ["amq.direct", "amq.topic"][key % 2];
        vhost.bind(&mut Operator, source, &binding(key)).unwrap();
    }
    let error = vhost.bind(&mut Operator, "amq.direct", &binding(9)).unwrap_err();
    assert_eq!(error.to_string(), "cannot bind queue 'q' in vhost '/': binding limit (3) is reached");
    vhost.bind(&mut Operator, "amq.direct", &binding(0)).expect("this one is there already");
    vhost.unbind(&mut Operator, "amq.direct", &binding(0)).unwrap();
    vhost.bind(&mut Operator, "amq.direct", &binding(9)).expect("there is room again");
}

#[test]
fn queues_have_the_durability_of_their_vhost_or_their_own() {
    let made = Arc::new(Made::default());
    let arguments = |own: Option<&str>| own.map_or_else(Table::new, |own| Table::new().with("x-durability", own));
    for of_vhost in [Durability::Synced, Durability::Os] {
        let vhost = vhost(Arc::<Made>::clone(&made), of_vhost);
        for own in [None, Some("synced"), Some("os")] {
            let name = format!("new {own:?}");
            let spec = QueueSpec { name, durable: true, arguments: arguments(own), ..QueueSpec::default() };
            let (queue, _) = vhost.declare_queue(&mut Operator, spec, || unreachable!("it has a name")).unwrap();
            let restored = QueueDefinition {
                name: format!("restored {own:?}"),
                number: 1000,
                auto_delete: false,
                arguments: arguments(own),
                declared_by: None,
            };
            let definitions = VhostDefinitions { queues: vec![restored], ..VhostDefinitions::default() };
            vhost.restore(definitions, &mut hashbrown::HashMap::new());
            let expected = own.and_then(Durability::from_name).unwrap_or(of_vhost);
            let made: Vec<Durability> = made.0.lock().drain(..).map(|options| options.durability).collect();
            assert_eq!(
                (queue.settings.read().options.durability, made),
                (expected, vec![expected; 2]),
                "{own:?} in {of_vhost}"
            );
        }
    }
}

#[test]
fn a_chain_of_auto_delete_exchanges_ends_however_long_it_is() {
    let vhost = vhost(Arc::new(NoQueues), Durability::Synced);
    let before = vhost.counts();
    let name = |number: u32| format!("x{number}");
    for number in 0..20_000 {
        let kind = "fanout".into();
        let spec = ExchangeSpec { name: name(number), kind, auto_delete: true, ..ExchangeSpec::default() };
        vhost.declare_exchange(&mut Operator, spec).unwrap();
        if number > 0 {
            let binding = BindingSpec {
                destination: name(number),
                destination_kind: DestinationKind::Exchange,
                routing_key: String::new(),
                arguments: Table::new(),
            };
            vhost.bind(&mut Operator, &name(number - 1), &binding).unwrap();
        }
    }
    vhost.delete_exchange(&mut Operator, &name(19_999), false).unwrap();
    assert_eq!(vhost.counts(), before);
}

#[test]
fn exchanges_in_a_circle_go_with_their_vhost() {
    let vhost = vhost(Arc::new(NoQueues), Durability::Synced);
    for (source, destination) in [("amq.fanout", "amq.topic"), ("amq.topic", "amq.fanout")] {
        let binding = BindingSpec {
            destination: destination.into(),
            destination_kind: DestinationKind::Exchange,
            routing_key: "#".into(),
            arguments: Table::new(),
        };
        vhost.bind(&mut Operator, source, &binding).unwrap();
    }
    let exchange = Arc::downgrade(&vhost.exchange("amq.topic").unwrap());
    drop(vhost);
    assert_eq!(exchange.strong_count(), 0);
}
