//! Users and vhosts, from what the store knows and what the topology declares.
//!
//! The file wins for each setting that it names; what it does not name is as the store has it. A section that the file leaves out has its default only as
//! long as nobody has changed anything there while the broker ran.

use std::sync::Arc;

use hashbrown::HashMap;

use super::NodeError;
use crate::access::{self, Access, StoredAccounts};
use crate::queue::{self, Restored};
use crate::store::StoreLedger;
use crate::store::definitions::{DEFAULT_USERS_LEFT, Definitions};
use crate::topology::apply::{apply, apply_settings};
use crate::topology::schema::{Topology, VhostDecl};
use crate::vhost::Shared;
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
    backlogs: &mut HashMap<u64, Restored>,
) -> Result<World, NodeError> {
    let Definitions { vhosts: mut stored, accounts, global_parameters } = definitions;
    let is_fresh = stored.is_empty() && accounts == StoredAccounts::default();
    let has_default = |mark: &str| !global_parameters.contains_key(mark) && !(is_fresh && comes == Comes::Definitions);
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
