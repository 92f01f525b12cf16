//! A topology carried out where nobody is: vhosts with their exchanges, queues and bindings, and nothing behind them.
//!
//! Whatever a broker would refuse is refused here, by the same rules, before anything of a broker is changed; and where a message would go can be asked
//! without one. Queues take nothing, nothing is stored, nobody is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::apply::{ApplyError, apply, apply_settings};
use super::schema::Topology;
use crate::access::Access;
use crate::events::Events;
use crate::plugin_host::Registry;
use crate::queue::{Handle, Input, Options, Outlet, Restored};
use crate::routing::Exchange;
use crate::store::recovery::Backlog;
use crate::vhost::broker_exchanges::{EVENT_EXCHANGE, LOG_EXCHANGE};
use crate::vhost::held::{Held, Holder};
use crate::vhost::registry::Vhosts;
use crate::vhost::strict::Strict;
use crate::vhost::{Change, Error, Ledger, Numbers, QueueFactory, Shared, Vhost};

/// See the module.
#[derive(Debug)]
pub struct Scratch {
    /// Users and permissions of the file.
    pub access: Arc<Access>,
    /// Its vhosts.
    pub vhosts: Vhosts,
}

/// What a broker is told beside the topology.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bindings that may lead to one queue, or to one exchange.
    pub bindings_per_queue_max: usize,
    /// What is refused on request.
    pub strict: Strict,
}

impl Rules {
    /// Those of the file itself.
    #[must_use]
    pub fn of(topology: &Topology) -> Self {
        Self { bindings_per_queue_max: topology.limits.bindings_per_queue_max as usize, strict: topology.node.strict }
    }
}

impl Scratch {
    /// Carries the topology out.
    ///
    /// # Errors
    /// Everything that a broker would refuse.
    pub fn build(topology: &Topology, registry: &Arc<Registry>, rules: Rules) -> Result<Self, Vec<ApplyError>> {
        let shared = Shared {
            registry: Arc::clone(registry),
            factory: Arc::new(Still),
            ledger: Arc::new(Still),
            holder: Arc::new(Still),
            numbers: Arc::new(Numbers::starting_at(1)),
            first_seq: 1,
            bindings_per_queue_max: rules.bindings_per_queue_max,
            strict: rules.strict,
            events: Events::default(),
            hooks: Arc::default(),
        };
        let vhosts = Vhosts::new(shared, BTreeMap::new());
        let mut errors = Vec::new();
        for decl in &topology.vhosts {
            let failed = |error: crate::plugin_host::TypeError| ApplyError {
                what: "its own exchanges".to_owned(),
                vhost: decl.name.clone(),
                error: Error::Argument(error.to_string()),
            };
            let vhost = match vhosts.prepare(&decl.name, decl.durability) {
                Ok(vhost) => vhost,
                Err(error) => {
                    errors.push(failed(error));
                    continue;
                }
            };
            let own = [(decl.has_event_exchange, EVENT_EXCHANGE), (decl.has_log_exchange, LOG_EXCHANGE)];
            for (_, exchange) in own.into_iter().filter(|(is_wanted, _)| *is_wanted) {
                errors.extend(vhost.add_broker_exchange(exchange).err().map(failed));
            }
            errors.extend(apply_settings(&vhost, decl).err().unwrap_or_default());
            errors.extend(apply(&vhost, decl).err().unwrap_or_default());
            vhosts.add(vhost);
        }
        if errors.is_empty() {
            Ok(Self { access: Arc::new(Access::new(&topology.users)), vhosts })
        } else {
            Err(errors)
        }
    }
}

/// Queues that do nothing, exchanges that nothing passes, and a ledger that keeps nothing.
#[derive(Debug)]
pub struct Still;

impl QueueFactory for Still {
    fn create(&self, _: &Arc<Vhost>, _: &Arc<str>, _: u64, _: Options, _: Restored) -> Arc<dyn Handle> {
        Arc::new(Self)
    }
}

impl Handle for Still {
    fn post(&self, _: Input) {}
}

impl Ledger for Still {
    fn record(&self, _: &str, _: Vec<Change>) {}

    fn is_stored(&self) -> bool {
        true
    }
}

impl Holder for Still {
    fn hold(&self, _: Option<&Arc<dyn Outlet>>, _: Vec<Held>) {}

    fn restore(&self, _: &Arc<Vhost>, _: &Arc<Exchange>, _: Backlog) {}

    // In a data folder the next start drops what has no exchange.
    fn forget(&self, _: u64) {}

    fn count(&self, _: u64) -> Option<usize> {
        None
    }
}
