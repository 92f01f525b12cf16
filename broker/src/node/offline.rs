//! Topology files for a data folder that no broker has open: what one would change there, changing it, and what there is as one.

use std::sync::Arc;

use hashbrown::HashMap;

use super::definitions::{Offline, assemble};
use super::world::{Comes, World};
use super::{NodeError, load_plugins, store};
use crate::access::Access;
use crate::store::recovery::Backlog;
use crate::store::{Committer, Recovery, StoreLedger};
use crate::topology::plan::{CarriedOut, Hands, Load, Plan, Target, Wish, carry_out};
use crate::topology::schema::Topology;
use crate::topology::snapshot::snapshot;
use crate::vhost::registry::Vhosts;
use crate::vhost::{QueueRecord, Vhost};

/// A plan, and what became of it if it was carried out.
#[derive(Debug)]
pub struct Planned {
    /// What it says.
    pub plan: Plan,
    /// Nothing where nothing was to be done, or it was refused.
    pub carried_out: Option<CarriedOut>,
}

impl Offline {
    /// What a file would change. Nothing is changed.
    ///
    /// # Errors
    /// The folder cannot be used; a broker that runs on the folder has it for itself.
    pub async fn plan(self, file: &Topology, wish: Wish) -> Result<Plan, NodeError> {
        self.read(|target| Plan::make(file, &target, wish)).await
    }

    /// Everything but messages, in the words of a file. Nothing is changed.
    ///
    /// # Errors
    /// As of [`Self::plan`].
    pub async fn topology_of(self, only: Option<&str>) -> Result<Topology, NodeError> {
        self.read(|target| snapshot(target.access, target.vhosts, only)).await
    }

    async fn read<T>(self, look: impl FnOnce(Target<'_>) -> T) -> Result<T, NodeError> {
        let registry = Arc::new(load_plugins(&self.topology(), &self.plugin_dirs, Some(&self.data))?);
        let (topology, data) = (self.topology(), self.data);
        let (storage, definitions, counts) = store::read_definitions(&registry, &topology.storage, &data).await?;
        let recovery = Recovery { definitions, first_number: 1, first_seq: 1, ..Recovery::default() };
        // Nobody runs this committer, so nothing of what the start would change is written.
        let ledger = StoreLedger::new(Committer::new(Arc::clone(&storage)));
        let World { access, vhosts } = assemble(&topology, Comes::Nothing, registry, ledger, recovery)?;
        let hands = FolderHands { access: &access, vhosts: &vhosts, counts };
        let seen = look(Target { access: &access, vhosts: &vhosts, hands: &hands });
        drop((access, vhosts));
        store::close(storage).await;
        Ok(seen)
    }

    /// Does what a file says, unless something speaks against it.
    ///
    /// # Errors
    /// As of [`Self::plan`].
    pub async fn apply(self, file: &Topology, wish: Wish) -> Result<Planned, NodeError> {
        let registry = Arc::new(load_plugins(&self.topology(), &self.plugin_dirs, Some(&self.data))?);
        let (topology, data) = (self.topology(), self.data);
        let (storage, recovery) = store::recover(&registry, &topology.storage, Some(data)).await?;
        let committer = Committer::new(Arc::clone(&storage));
        let storing = tokio::spawn(Arc::clone(&committer).run());
        let ledger = StoreLedger::new(Arc::clone(&committer));
        let counts = recovery.backlogs.iter().map(|(number, backlog)| (*number, count(backlog))).collect();
        let World { access, vhosts } = assemble(&topology, Comes::Nothing, registry, ledger, recovery)?;
        let hands = FolderHands { access: &access, vhosts: &vhosts, counts };
        let target = Target { access: &access, vhosts: &vhosts, hands: &hands };
        let plan = Plan::make(file, &target, wish);
        // Marks are written also where nothing else is to be done.
        let carried_out = plan.refusals().is_empty().then(|| carry_out(&plan, file, &target, wish));
        drop((access, vhosts));
        store::flush(&committer).await;
        storing.abort();
        // Aborted, so that nobody holds the storage any more.
        let _ = storing.await;
        drop(committer);
        store::close(storage).await;
        Ok(Planned { plan, carried_out })
    }
}

fn count(backlog: &Backlog) -> u64 {
    let ranges = backlog.levels.iter().flat_map(|level| &level.ranges);
    ranges.map(|(first, last)| last.saturating_sub(*first).saturating_add(1)).sum()
}

/// How a plan reaches queues that nobody runs: what is in them is known from the folder, and the next start drops what has no queue any more.
struct FolderHands<'a> {
    access: &'a Access,
    vhosts: &'a Vhosts,
    /// Messages by the number of their queue.
    counts: HashMap<u64, u64>,
}

impl Hands for FolderHands<'_> {
    fn load(&self, queue: &QueueRecord) -> Load {
        Load { ready: self.counts.get(&queue.number).copied().unwrap_or(0), ..Load::default() }
    }

    fn delete_queue(&self, vhost: &Vhost, queue: &QueueRecord, only_if_empty: bool) -> Result<(), String> {
        if only_if_empty && self.load(queue) != Load::default() {
            return Err("it has messages".to_owned());
        }
        vhost.forget_queue(&queue.name, queue.number);
        Ok(())
    }

    fn delete_vhost(&self, name: &str) -> Result<(), String> {
        self.vhosts.delete(name, || self.access.remove_vhost(name)).map_err(|error| error.to_string())
    }
}
