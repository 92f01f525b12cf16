//! Bounds of what a publisher remembers.

use plugin_api::exchange::{BindingSpec, DestinationKind};

use super::super::authority::Operator;
use super::super::declare::QueueSpec;
use super::super::held::tests::NoHolder;
use super::super::{Change, Ledger, Numbers, QueueFactory, Shared};
use super::*;
use crate::plugin_host::Registry;
use crate::queue::{self, Handle};

/// Queues that keep nothing, and a ledger that does not either.
#[derive(Debug)]
struct Nothing;

impl Handle for Nothing {
    fn post(&self, _: Input) {}
}

impl Ledger for Nothing {
    fn record(&self, _: &str, _: Vec<Change>) {}
}

impl QueueFactory for Nothing {
    fn create(&self, _: &Arc<Vhost>, _: &Arc<str>, _: u64, _: queue::Options, _: queue::Restored) -> Arc<dyn Handle> {
        Arc::new(Self)
    }
}

#[test]
fn routes_to_many_queues_take_bounded_memory() {
    let registry = Arc::new(Registry::builtin().unwrap());
    let numbers = Arc::new(Numbers::starting_at(1));
    let shared = Shared {
        registry,
        factory: Arc::new(Nothing),
        ledger: Arc::new(Nothing),
        holder: Arc::new(NoHolder),
        numbers,
        first_seq: 1,
        bindings_per_queue_max: usize::MAX,
        strict: crate::vhost::strict::Strict::default(),
        events: crate::events::Events::default(),
        hooks: Arc::default(),
    };
    let vhost = Vhost::new("/", shared, queue::Durability::Synced).unwrap();
    for number in 0..1000 {
        let name = format!("q{number}");
        let spec = QueueSpec { name: name.clone(), ..QueueSpec::default() };
        vhost.declare_queue(&mut Operator, spec, || unreachable!("it has a name")).unwrap();
        let binding = BindingSpec {
            destination: name,
            destination_kind: DestinationKind::Queue,
            routing_key: String::new(),
            arguments: plugin_api::value::Table::new(),
        };
        vhost.bind(&mut Operator, "amq.fanout", &binding).unwrap();
    }
    let hooks = Hooks::default();
    let context = Context { vhost: &vhost, hooks: &hooks, access_generation: 1, reply_name: &|_| None };
    let mut publisher = Publisher::default();
    for number in 0..2000 {
        let routing_key = format!("key{number}");
        let parts = Parts { exchange: "amq.fanout", routing_key: &routing_key, properties: &[0, 0] };
        let message = Message::new(parts, b"");
        publisher.publish(&context, &mut Operator, 1, 0, None, message).unwrap();
        let remembered = publisher.targets.iter().flat_map(|target| target.routes.values());
        let bytes: usize = remembered.map(|places| size_of_val(&**places)).sum();
        assert!(bytes <= ROUTES_BYTES_MAX, "{bytes} bytes after {number} keys");
    }
}
