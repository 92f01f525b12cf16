//! What vhosts and users write their durable changes into: the committer, and a count of what it has not stored yet.
//!
//! Who declares what is there already need not wait for the store, unless whoever made it is still waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::definitions::{self, Entry};
use super::{Barrier, Committer};
use crate::access;
use crate::queue::{Notice, Outlet, Reply, ReplyTo};
use crate::vhost::{Change, Ledger};

/// See the module.
#[derive(Debug)]
pub struct StoreLedger {
    committer: Arc<Committer>,
    unstored: Arc<AtomicU64>,
}

impl StoreLedger {
    /// In front of this committer. Only what goes through here is counted.
    pub fn new(committer: Arc<Committer>) -> Arc<Self> {
        Arc::new(Self { committer, unstored: Arc::default() })
    }

    /// Takes entries that are to be stored or removed.
    pub fn define(&self, entries: Vec<Entry>) {
        // Counted first: whoever sees the change finds it counted.
        self.unstored.fetch_add(1, Ordering::AcqRel);
        self.committer.define(entries);
        let outlet = Arc::new(Mark { unstored: Arc::clone(&self.unstored) });
        self.committer.barrier(Barrier::Definitions, ReplyTo { outlet, channel: 0 });
    }
}

impl access::Ledger for StoreLedger {
    fn record(&self, changes: Vec<access::Change>) {
        self.define(changes.iter().map(definitions::account_entry).collect());
    }
}

impl Ledger for StoreLedger {
    fn record(&self, vhost: &str, changes: Vec<Change>) {
        self.define(changes.iter().map(|change| definitions::entry(vhost, change)).collect());
    }

    fn record_parameter(&self, name: &str, value: Option<&serde_json::Value>) {
        self.define(vec![definitions::global_parameter_entry(name, value)]);
    }

    fn is_stored(&self) -> bool {
        self.unstored.load(Ordering::Acquire) == 0
    }
}

/// Hears that what was recorded before it is stored. After a failure that never comes.
#[derive(Debug)]
struct Mark {
    unstored: Arc<AtomicU64>,
}

impl Outlet for Mark {
    fn post(&self, notice: Notice) {
        if matches!(notice, Notice::Reply { reply: Reply::Stored, .. }) {
            self.unstored.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn publishes_processed(&self, _: usize) {}
}
