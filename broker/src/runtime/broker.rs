//! What all connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use super::mailbox::Mailbox;
use crate::access::Access;
use crate::amqp::{Identity, Limits};
use crate::hooks::HookSet;
use crate::queue::{Notice, Outlet};
use crate::store::Committer;
use crate::vhost::Vhost;

/// See the module.
#[derive(Debug)]
pub struct Broker {
    /// What it says of itself.
    pub identity: Arc<Identity>,
    /// What connections are held to.
    pub limits: Arc<Limits>,
    /// Connections at most; none is no limit (semantics 3.13).
    pub connections_max: Option<u32>,
    /// Users and permissions.
    pub access: Arc<Access>,
    /// The hooks in force.
    pub hooks: Arc<HookSet>,
    /// What must survive goes through here.
    pub committer: Arc<Committer>,
    vhosts: RwLock<HashMap<Arc<str>, Arc<Vhost>>>,
    connections: Mutex<HashMap<u64, Arc<Mailbox>>>,
    next_connection: AtomicU64,
}

impl Broker {
    /// A broker with these vhosts.
    pub fn new(
        identity: Identity,
        limits: Limits,
        connections_max: Option<u32>,
        access: Arc<Access>,
        hooks: Arc<HookSet>,
        committer: Arc<Committer>,
        vhosts: impl IntoIterator<Item = Arc<Vhost>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            identity: Arc::new(identity),
            limits: Arc::new(limits),
            connections_max,
            access,
            hooks,
            committer,
            vhosts: RwLock::new(vhosts.into_iter().map(|vhost| (Arc::clone(&vhost.name), vhost)).collect()),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(1),
        })
    }

    /// The vhost of that name.
    pub fn vhost(&self, name: &str) -> Option<Arc<Vhost>> {
        self.vhosts.read().get(name).cloned()
    }

    /// Numbers a connection and keeps its mailbox until [`Self::forget`].
    pub fn register(&self, mailbox: Arc<Mailbox>) -> u64 {
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        self.connections.lock().insert(number, mailbox);
        number
    }

    /// The connection is gone.
    pub fn forget(&self, connection: u64) {
        self.connections.lock().remove(&connection);
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.connections.lock().len()
    }

    /// Asks every connection to close with 320 (semantics 5.20).
    pub fn close_connections(&self, reason: &str) {
        let mailboxes: Vec<Arc<Mailbox>> = self.connections.lock().values().cloned().collect();
        for mailbox in mailboxes {
            mailbox.post(Notice::CloseConnection { reason: reason.into() });
        }
    }
}
