//! What all connections share.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use plugin_api::value::Table;

use super::alarms::{AlarmChange, Alarms, DiskState, WATERMARK_BYTES_MIN};
use super::census::Census;
use super::clock::Clock;
use super::holder::MessageHolder;
use super::mailbox::Mailbox;
use super::paging::Paging;
use super::quiet::Quiet;
use super::timer::Timer;
use super::transactions::Transactions;
use crate::access::Access;
use crate::amqp::{Identity, Limits};
use crate::events::{Events, Kind};
use crate::hooks::{Exchanged, HookDecl, HookError, Hooks, Reloaded};
use crate::message;
use crate::metrics::Metrics;
use crate::queue::{Input, Notice, Outlet};
use crate::store::Committer;
use crate::vhost::registry::{CLUSTER_NAME, VhostError, Vhosts};
use crate::vhost::{QueueRecord, Vhost};

/// What a broker is made of, beside its vhosts.
#[derive(Debug)]
pub struct Parts {
    /// What it says of itself, and the name that it began with, which nodes are named after. For the name that it has now see [`Broker::cluster_name`].
    pub identity: Arc<Identity>,
    /// What connections are held to.
    pub limits: Arc<Limits>,
    /// Connections at most; none is no limit (semantics 3.13).
    pub connections_max: Option<u32>,
    /// Users and permissions.
    pub access: Arc<Access>,
    /// The vhosts, and parameters of the broker as a whole.
    pub vhosts: Vhosts,
    /// The hooks in force.
    pub hooks: Arc<Hooks>,
    /// What must survive goes through here.
    pub committer: Arc<Committer>,
    /// Why publishers are stopped, if they are.
    pub alarms: Alarms,
    /// What queues may keep in memory.
    pub paging: Arc<Paging>,
    /// What transactions may take in memory.
    pub transactions: Transactions,
    /// Consumers of one channel at most (semantics 13.7).
    pub consumer_max_per_channel: u32,
    /// Who keeps the messages that exchanges put off.
    pub holder: Arc<MessageHolder>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who wakes queues at their deadlines.
    pub timer: Arc<Timer>,
    /// What time it is.
    pub clock: Clock,
    /// Where what happens is told.
    pub events: Events,
}

/// So many queues are told something before other tasks have their turn.
const SHRINK_PORTION: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Broker {
    parts: Parts,
    /// Who is connected.
    pub census: Census,
    /// The last look at the disk.
    disk: Mutex<DiskState>,
    /// Held while a topology is carried out, so that plans follow each other.
    pub applying: Mutex<()>,
    /// Topology files that were read again, and those that were refused.
    pub reloads: Reloads,
    /// Whether clients send anything.
    pub quiet: Quiet,
}

/// How often the topology file was read again.
#[derive(Debug, Default)]
pub struct Reloads {
    /// It holds from then on.
    pub done: AtomicU64,
    /// It was wrong, and everything stayed as it was.
    pub refused: AtomicU64,
    /// A step failed, after others had been done.
    pub failed: AtomicU64,
}

impl Deref for Broker {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Broker {
    /// A broker that nobody is connected to.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            census: Census::default(),
            disk: Mutex::default(),
            applying: Mutex::default(),
            reloads: Reloads::default(),
            quiet: Quiet::default(),
        })
    }

    /// Replaces the hooks in force, all or none. Publishers and consumers go over to the new ones between two messages. For a thread that may be blocked.
    ///
    /// # Errors
    /// What is wrong with the new ones; then the old ones stay.
    pub fn replace_hooks(&self, decls: &[HookDecl]) -> Result<Reloaded, Vec<HookError>> {
        self.exchange_hooks(decls).map(|exchanged| self.hooks.keep(exchanged))
    }

    /// As [`Hooks::exchange`], with what follows for vhosts.
    ///
    /// # Errors
    /// As of [`Self::replace_hooks`].
    pub fn exchange_hooks(&self, decls: &[HookDecl]) -> Result<Exchanged, Vec<HookError>> {
        let exchanged = self.hooks.exchange(decls)?;
        if exchanged.reloaded == Reloaded::Replaced {
            self.vhosts.list().iter().for_each(|vhost| vhost.on_hooks_changed());
        }
        Ok(exchanged)
    }

    /// As [`Hooks::put_back`], with what follows for vhosts.
    pub fn put_back_hooks(&self, exchanged: Exchanged) {
        let reloaded = exchanged.reloaded;
        self.hooks.put_back(exchanged);
        if reloaded == Reloaded::Replaced {
            self.vhosts.list().iter().for_each(|vhost| vhost.on_hooks_changed());
        }
    }

    /// The vhost of that name.
    pub fn vhost(&self, name: &str) -> Option<Arc<Vhost>> {
        self.vhosts.get(name)
    }

    /// Numbers a connection and keeps its mailbox until [`Self::forget`].
    pub fn register(&self, mailbox: Arc<Mailbox>) -> u64 {
        self.census.register(mailbox)
    }

    /// The connection is gone.
    pub fn forget(&self, connection: u64) {
        self.census.forget(connection);
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.census.len()
    }

    /// Tells all queues that they may keep less; where they are many, in portions between which other tasks have their turn.
    fn shrink_queues(&self) {
        let mut queues: Vec<_> = self.vhosts.list().iter().flat_map(|vhost| vhost.queues()).collect();
        let shrink = |queues: &[Arc<QueueRecord>]| queues.iter().for_each(|queue| queue.handle.post(Input::Shrink));
        let rest = queues.split_off(queues.len().min(SHRINK_PORTION));
        shrink(&queues);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // Nobody else waits for this thread.
            return shrink(&rest);
        };
        if !rest.is_empty() {
            runtime.spawn(async move {
                for portion in rest.chunks(SHRINK_PORTION) {
                    tokio::task::yield_now().await;
                    shrink(portion);
                }
            });
        }
    }

    /// Whether another look at memory changes nothing while messages take as much as now.
    pub fn is_memory_at_rest(&self) -> bool {
        self.alarms.reason().is_none() && self.paging.is_at_rest() && !self.committer.is_stuck()
    }

    /// Judges the memory in use: queues put messages out of it, and when that is not enough, publishers are stopped (semantics 26.1).
    /// Connections that were stopped look again when an alarm ends.
    pub fn on_memory(&self, used_bytes: u64) {
        if self.paging.on_memory(used_bytes) {
            tracing::debug!(used_bytes, queue_bytes = self.paging.queue_bytes(), "queues put messages out of memory");
            self.shrink_queues();
            self.holder.shrink();
        }
        let change = self.alarms.on_memory(used_bytes);
        self.tell_alarm("memory", change);
        let watermark_bytes = self.alarms.memory_watermark_bytes();
        match change {
            AlarmChange::None => {}
            AlarmChange::Raised => tracing::warn!(
                used_bytes,
                watermark_bytes,
                "memory alarm: connections that publish are stopped until messages take less than the watermark; \
                 let consumers drain the queues, or raise limits.memory_watermark_bytes"
            ),
            AlarmChange::Cleared | AlarmChange::AllCleared => {
                tracing::warn!(used_bytes, watermark_bytes, "memory alarm is over");
            }
        }
        self.on_alarm_change(change);
    }

    /// Judges the room on the disk (semantics 26.1); `folder` is the data folder, for the log.
    pub fn on_disk(&self, disk: DiskState, folder: Option<&Path>) {
        let change = self.alarms.on_disk(disk);
        self.tell_alarm("disk", change);
        *self.disk.lock() = disk;
        let DiskState { free_bytes, watermark_bytes, is_full } = disk;
        let folder = folder.map(|folder| folder.display().to_string());
        match change {
            AlarmChange::None => {}
            AlarmChange::Raised => tracing::warn!(
                free_bytes,
                watermark_bytes,
                is_full,
                folder,
                "disk alarm: connections that publish are stopped until there is room; let consumers drain the queues, \
                 free space on the file system of the data folder, or lower limits.disk_free_bytes_min"
            ),
            AlarmChange::Cleared | AlarmChange::AllCleared => {
                tracing::warn!(free_bytes, watermark_bytes, is_full, folder, "disk alarm is over");
            }
        }
        self.on_alarm_change(change);
    }

    /// Sets the watermark of the memory alarm and judges by it at once; none is the default (semantics 26.1).
    pub fn set_memory_watermark(&self, bytes: Option<u64>) {
        self.alarms.set_memory_watermark(bytes);
        let watermark_bytes = self.alarms.memory_watermark_bytes();
        self.transactions.on_memory_watermark(watermark_bytes);
        if watermark_bytes < WATERMARK_BYTES_MIN {
            tracing::warn!(
                watermark_bytes,
                "the memory watermark is set below what a broker takes: publishers are stopped until it is {WATERMARK_BYTES_MIN} or more"
            );
        } else {
            tracing::info!(watermark_bytes, "the memory watermark is set");
        }
        self.on_memory(message::live_bytes());
    }

    /// Sets what has to be free on the disk; none is the default. The disk is looked at right afterwards (semantics 26.1).
    pub fn set_disk_free_bytes_min(&self, bytes: Option<u64>) {
        tracing::info!(disk_free_bytes_min = bytes, "what has to be free on the disk is set");
        self.alarms.set_disk_free_bytes_min(bytes);
    }

    fn tell_alarm(&self, source: &str, change: AlarmChange) {
        let kind = match change {
            AlarmChange::None => return,
            AlarmChange::Raised => Kind::AlarmSet,
            AlarmChange::Cleared | AlarmChange::AllCleared => Kind::AlarmCleared,
        };
        let node = &*self.identity.cluster_name;
        self.events.tell(kind, None, || Table::new().with("source", source).with("node", node));
    }

    /// The name that was set last, by whatever way global parameters are set, or the one that it began with.
    pub fn cluster_name(&self) -> String {
        let set = self.vhosts.internal(CLUSTER_NAME);
        set.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_else(|| self.identity.cluster_name.clone())
    }

    /// What a connection that opens now is told.
    pub fn identity_now(&self) -> Arc<Identity> {
        let cluster_name = self.cluster_name();
        if cluster_name == self.identity.cluster_name {
            return Arc::clone(&self.identity);
        }
        Arc::new(Identity { cluster_name, ..Identity::clone(&self.identity) })
    }

    /// What the disk had at the last look.
    pub fn disk(&self) -> DiskState {
        *self.disk.lock()
    }

    /// Connections are told when the last alarm is cleared (semantics 26.4).
    fn on_alarm_change(&self, change: AlarmChange) {
        if change != AlarmChange::AllCleared {
            return;
        }
        for mailbox in self.census.mailboxes() {
            mailbox.post(Notice::AlarmsCleared);
        }
    }

    /// Asks every connection to close with 320 (semantics 5.20).
    pub fn close_connections(&self, reason: &str) {
        for mailbox in self.census.mailboxes() {
            mailbox.post(Notice::CloseConnection { reason: reason.into() });
        }
    }

    /// Asks one connection, by its number, to close with 320 and this reason; false when it is not there (semantics 5.20).
    pub fn close_connection(&self, number: u64, reason: &str) -> bool {
        let mailbox = self.census.mailbox(number);
        if let Some(mailbox) = &mailbox {
            mailbox.post(Notice::CloseConnection { reason: reason.into() });
        }
        mailbox.is_some()
    }

    /// Deletes a vhost with everything in it and all permissions for it; its connections are closed with 320 (semantics 24.2).
    ///
    /// # Errors
    /// It does not exist, or it is protected.
    pub fn delete_vhost(&self, name: &str) -> Result<(), VhostError> {
        self.vhosts.delete(name, || self.access.remove_vhost(name))?;
        for mailbox in self.census.mailboxes_in(name) {
            mailbox.post(Notice::CloseConnection { reason: format!("vhost '{name}' is deleted") });
        }
        Ok(())
    }
}
