//! Users and vhosts, from what the store knows and what the topology declares.
//!
//! The file wins for each setting that it names; what it does not name is as the store has it. A section that the file leaves out has its default only as
//! long as nobody has changed anything there while the broker ran.

use std::sync::Arc;

use hashbrown::HashMap;

use super::NodeError;
use crate::access::{self, Access, StoredAccounts};
use crate::queue;
use crate::store::StoreLedger;
use crate::store::definitions::{DEFAULT_USERS_LEFT, Definitions};
use crate::store::recovery::Backlog;
use crate::topology::apply::{apply, apply_settings};
use crate::topology::schema::{Topology, VhostDecl};
use crate::vhost::Shared;
use crate::vhost::broker_exchanges::{EVENT_EXCHANGE, LOG_EXCHANGE};
use crate::vhost::registry::{DEFAULT_VHOST_DELETED, Vhosts};

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    pub(super) access: Access,
    pub(super) vhosts: Vhosts,
}

/// What is done with users and vhosts as soon as they are together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comes {
    /// Definitions are imported: where nothing has been stored yet, nothing is there but what they name (semantics 28.13).
    Definitions,
    /// Nothing.
    Nothing,
}

/// Puts both together. Backlogs are taken out of `backlogs` by their queue's number.
///
/// # Errors
/// Declarations that cannot be carried out, built-in exchange types that do not work.
pub(super) fn assemble(
    topology: &Topology,
    comes: Comes,
    shared: Shared,
    ledger: Arc<StoreLedger>,
    definitions: Definitions,
    backlogs: &mut HashMap<u64, Backlog>,
) -> Result<World, NodeError> {
    let Definitions { vhosts: mut stored, accounts, global_parameters } = definitions;
    let is_fresh = stored.is_empty() && accounts == StoredAccounts::default();
    let has_default = |mark: &str| !(global_parameters.contains_key(mark) || is_fresh && comes == Comes::Definitions);
    let access = match topology.defaults.users {
        false => Access::restore(accounts, &topology.users, access::Declared::ByFile, ledger),
        true if has_default(DEFAULT_USERS_LEFT) => {
            Access::restore(accounts, &topology.users, access::Declared::ByDefault, ledger)
        }
        true => Access::restore(accounts, &[], access::Declared::ByFile, ledger),
    };
    let has_declared = !topology.defaults.vhosts || has_default(DEFAULT_VHOST_DELETED);
    let declared = if has_declared { topology.vhosts.as_slice() } else { &[] };
    // A vhost that the topology does not name is there as long as anything of it is stored.
    let others: Vec<VhostDecl> = stored
        .keys()
        .filter(|name| declared.iter().all(|decl| decl.name != **name))
        .map(|name| VhostDecl { name: name.clone(), ..VhostDecl::default() })
        .collect();
    let vhosts = Vhosts::new(shared, global_parameters);
    let mut errors = Vec::new();
    for decl in declared.iter().chain(&others) {
        let vhost = vhosts.prepare(&decl.name, decl.durability)?;
        if decl.durability == queue::Durability::Os {
            tracing::warn!("vhost '{}' confirms before the sync: durability os", decl.name);
        }
        let mut definitions = stored.remove(&decl.name).unwrap_or_default();
        let wanted = [(decl.has_event_exchange, EVENT_EXCHANGE), (decl.has_log_exchange, LOG_EXCHANGE)];
        for (_, exchange) in wanted.into_iter().filter(|(is_wanted, _)| *is_wanted) {
            vhost.add_broker_exchange(exchange)?;
        }
        vhost.restore_settings(&mut definitions);
        errors.extend(apply_settings(&vhost, decl).err().unwrap_or_default());
        vhost.restore(definitions, backlogs);
        errors.extend(apply(&vhost, decl).err().unwrap_or_default());
        let (exchanges, queues) = vhost.counts();
        tracing::info!(vhost = decl.name, exchanges, queues, "vhost ready");
        vhosts.add(vhost);
    }
    if errors.is_empty() { Ok(World { access, vhosts }) } else { Err(NodeError::Apply(errors)) }
}

#[cfg(test)]
mod tests {
    use plugin_api::storage::Storage;

    use super::*;
    use crate::plugin_host::Registry;
    use crate::queue::{Handle, Input, Restored};
    use crate::store::Committer;
    use crate::store::definitions;
    use crate::topology::schema::{Defaults, PermissionDecl, UserDecl};
    use crate::vhost::held::tests::NoHolder;
    use crate::vhost::registry::DEFAULT_VHOST;
    use crate::vhost::{Numbers, QueueFactory, Vhost};

    #[derive(Debug)]
    struct Still;

    impl QueueFactory for Still {
        fn create(&self, _: &Arc<Vhost>, _: &Arc<str>, _: u64, _: queue::Options, _: Restored) -> Arc<dyn Handle> {
            Arc::new(Self)
        }
    }

    impl Handle for Still {
        fn post(&self, _: Input) {}
    }

    /// A data folder that brokers use one after the other.
    struct Folder {
        registry: Arc<Registry>,
        storage: Arc<dyn Storage>,
        runtime: tokio::runtime::Runtime,
    }

    impl Folder {
        fn new() -> Self {
            let registry = Arc::new(Registry::builtin().unwrap());
            let storage = registry.storage("memory", &serde_json::Value::Null, None).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            Self { registry, storage, runtime }
        }

        /// A start, what somebody does then, and the end.
        fn start<T>(&self, topology: &Topology, comes: Comes, run: impl FnOnce(&World) -> T) -> T {
            self.runtime.block_on(async {
                let committer = Committer::new(Arc::clone(&self.storage));
                let storing = tokio::spawn(Arc::clone(&committer).run());
                let meta = self.storage.recover().await.unwrap().meta;
                let ledger = StoreLedger::new(Arc::clone(&committer));
                let shared = Shared {
                    registry: Arc::clone(&self.registry),
                    factory: Arc::new(Still),
                    ledger: Arc::<StoreLedger>::clone(&ledger),
                    holder: Arc::new(NoHolder),
                    numbers: Arc::new(Numbers::starting_at(1)),
                    first_seq: 1,
                    bindings_per_queue_max: usize::MAX,
                    strict: crate::vhost::strict::Strict::default(),
                    events: crate::events::Events::default(),
                    hooks: Arc::default(),
                };
                let definitions = definitions::read(&meta).unwrap();
                let world = assemble(topology, comes, shared, ledger, definitions, &mut HashMap::new()).unwrap();
                let result = run(&world);
                super::super::store::flush(&committer).await;
                storing.abort();
                result
            })
        }
    }

    /// Users and vhosts by name.
    fn names(world: &World) -> (Vec<String>, Vec<String>) {
        let users = world.access.users().iter().map(|user| user.name.clone()).collect();
        (users, world.vhosts.list().iter().map(|vhost| vhost.name.to_string()).collect())
    }

    fn strings(names: [&[&str]; 2]) -> (Vec<String>, Vec<String>) {
        let [users, vhosts] = names.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        (users, vhosts)
    }

    /// Semantics 4.8.
    #[test]
    fn guest_and_the_root_vhost_are_there_until_somebody_decides_otherwise() {
        let folder = Folder::new();
        let default = Topology::default();
        for _ in 0..2 {
            folder.start(&default, Comes::Nothing, |world| assert_eq!(names(world), strings([&["guest"], &["/"]])));
        }
        folder.start(&default, Comes::Nothing, |world| {
            world.access.put_user("admin", access::UserUpdate::default()).unwrap();
            world.vhosts.create("orders", None).unwrap();
        });
        folder.start(&default, Comes::Nothing, |world| {
            assert_eq!(names(world), strings([&["admin", "guest"], &["/", "orders"]]));
            assert_eq!(world.access.permissions_of("guest"), [PermissionDecl::all("/")]);
            world.access.remove_user("guest");
            world.vhosts.delete(DEFAULT_VHOST, || {}).unwrap();
        });
        folder.start(&default, Comes::Nothing, |world| assert_eq!(names(world), strings([&["admin"], &["orders"]])));
    }

    /// Semantics 28.13.
    #[test]
    fn where_definitions_come_first_nothing_is_there_by_default() {
        let folder = Folder::new();
        let default = Topology::default();
        folder.start(&default, Comes::Definitions, |world| assert_eq!(names(world), strings([&[], &[]])));
        let used = Folder::new();
        used.start(&default, Comes::Nothing, |world| {
            world.vhosts.create("orders", None).unwrap();
        });
        used.start(&default, Comes::Definitions, |world| {
            assert_eq!(names(world), strings([&["guest"], &["/", "orders"]]), "what was there stays");
        });
    }

    #[test]
    fn what_is_taken_out_of_the_file_is_gone_and_the_rest_stays() {
        let folder = Folder::new();
        let vhost = VhostDecl { name: "v".into(), ..VhostDecl::default() };
        let vhosts = vec![vhost];
        let user = UserDecl { name: "app".into(), ..UserDecl::guest(&vhosts) };
        let with = Topology { users: vec![user], vhosts, defaults: Defaults::default(), ..Topology::default() };
        folder.start(&with, Comes::Nothing, |world| {
            assert_eq!(names(world), strings([&["app"], &["v"]]));
            world.access.put_user("later", access::UserUpdate::default()).unwrap();
            world.access.set_permission("app", &PermissionDecl::all("other")).unwrap();
        });
        folder.start(&with, Comes::Nothing, |world| {
            assert_eq!(names(world), strings([&["app", "later"], &["v"]]));
            assert_eq!(world.access.permissions_of("app").len(), 2);
        });
        let without = Topology { users: Vec::new(), vhosts: Vec::new(), ..with };
        folder.start(&without, Comes::Nothing, |world| assert_eq!(names(world), strings([&["later"], &[]])));
    }
}
