//! The broker under test: started from its disk, killed, cut off or stopped in order.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use broker::node;
use broker::plugin_host::Registry;
use broker::queue::{Notice, Outlet, ReplyTo};
use broker::runtime::alarms::DiskState;
use broker::runtime::clock::Time;
use broker::runtime::{Broker, Clock, timer};
use broker::store::recovery::recover;
use broker::store::{Barrier, Committer};
use broker::topology::schema::Topology;
use plugin_api::storage::{Durability, Storage};
use storage_log::sim::SimDisk;
use storage_log::{Log, Mutant, Options};

use crate::clock::VirtualClock;
use crate::storage::{Rhythm, SimStorage};
use crate::tasks::{TaskId, Tasks};

/// What a start needs.
pub(crate) struct Site<'a> {
    pub(crate) disk: &'a SimDisk,
    pub(crate) rhythm: &'a Arc<Mutex<Rhythm>>,
    pub(crate) clock: &'a Arc<VirtualClock>,
    pub(crate) segment_bytes: u64,
    pub(crate) salt: u64,
    pub(crate) queue_memory_bytes: u64,
    /// What messages are said to take, in bytes.
    pub(crate) memory: &'a Rc<Cell<u64>>,
    pub(crate) mutant: Option<Mutant>,
    /// What an append of the store waits for.
    pub(crate) durability: Durability,
}

/// See the module.
pub(crate) struct Node {
    pub(crate) broker: Arc<Broker>,
    pub(crate) committer: Arc<Committer>,
    storage: Arc<SimStorage>,
    tasks: Vec<TaskId>,
    timer: Option<TaskId>,
    has_failed: Rc<Cell<bool>>,
}

impl Node {
    /// Recovers what the disk kept and starts what a node runs.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub(crate) fn start(site: &Site<'_>, tasks: &mut Tasks) -> Result<Self, String> {
        let options =
            Options { segment_bytes: site.segment_bytes, recycled_max: 3, seed: Some(site.salt), mutant: site.mutant };
        let log = Log::open(Arc::new(site.disk.clone()), options).map_err(|error| error.to_string())?;
        let storage = Arc::new(SimStorage::new(log, Arc::clone(site.rhythm), site.durability));
        Rhythm::set(site.rhythm, 0);
        let recovery = match pin!(recover(&*storage)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(recovery) => recovery.map_err(|error| error.to_string())?,
            Poll::Pending => return Err("the storage waits while it recovers".into()),
        };
        let committer = Committer::new(Arc::clone(&storage) as Arc<dyn Storage>);
        let registry = Registry::builtin().map_err(|error| error.to_string())?;
        let mut topology = Topology::default();
        topology.limits.queue_memory_bytes = Some(site.queue_memory_bytes);
        let clock = Clock::by(Arc::clone(site.clock) as Arc<dyn Time>);
        let broker = node::build(&topology, Arc::new(registry), &committer, recovery, clock)
            .map_err(|error| error.to_string())?;
        let has_failed = Rc::new(Cell::new(false));
        let mut node = Self { broker, committer, storage, tasks: Vec::new(), timer: None, has_failed };
        node.run(tasks, site.memory);
        Ok(node)
    }

    fn run(&mut self, tasks: &mut Tasks, memory: &Rc<Cell<u64>>) {
        self.tasks.push(tasks.start("committer".into(), Arc::clone(&self.committer).run()));
        for number in 0..READS_MAX {
            self.tasks.push(tasks.start(format!("pager {number}"), Arc::clone(&self.committer).page()));
        }
        self.timer = Some(tasks.start("timer".into(), timer::run(Arc::clone(&self.broker.timer))));
        let (committer, has_failed) = (Arc::clone(&self.committer), Rc::clone(&self.has_failed));
        self.tasks.push(tasks.start("store watch".into(), async move {
            let _ = committer.failed().await;
            has_failed.set(true);
            std::future::pending::<()>().await;
        }));
        let (broker, storage, memory) = (Arc::clone(&self.broker), Arc::clone(&self.storage), Rc::clone(memory));
        self.tasks.push(tasks.start("watch".into(), async move {
            loop {
                tokio::time::sleep_until(tokio::time::Instant::now() + LOOK_EVERY).await;
                storage.look_for_room();
                broker.on_memory(memory.get());
                broker.on_disk(DiskState { is_full: storage.status().is_full, ..DiskState::default() }, None);
                broker.committer.retry();
            }
        }));
    }

    /// Whether the store has failed, which ends a node.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.get()
    }

    /// Whether the store has failed, but will say so only when somebody wants something of it.
    pub(crate) fn will_fail(&self) -> bool {
        self.storage.has_failed()
    }

    /// Asks every connection to close, as a node does first when it stops.
    pub(crate) fn close_connections(&self) {
        self.broker.close_connections("broker forced connection closure with reason 'shutdown'");
    }

    /// Nothing more happens because of the time, which a node sees to first when it stops.
    pub(crate) fn stop_timer(&mut self, tasks: &mut Tasks) {
        if let Some(timer) = self.timer.take() {
            tasks.end(timer);
        }
    }

    /// Whether what the store has taken has led to nothing more for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.committer.is_idle()
    }

    /// Asks the store to take everything; the answer is set when it has.
    pub(crate) fn flush(&self) -> Arc<Flushed> {
        let flushed = Arc::new(Flushed::default());
        let outlet = Arc::clone(&flushed) as Arc<dyn Outlet>;
        self.committer.barrier(Barrier::Everything, ReplyTo { outlet, channel: 0 });
        flushed
    }

    /// Closes the store in order; only behind a flush.
    pub(crate) fn close_store(&self) {
        self.storage.close();
    }

    /// Drops everything where it stands. Connections come after.
    pub(crate) fn end(mut self, tasks: &mut Tasks) {
        self.stop_timer(tasks);
        for task in self.tasks {
            tasks.end(task);
        }
    }
}

/// Hears that the store has taken everything.
#[derive(Debug, Default)]
pub(crate) struct Flushed(Mutex<bool>);

impl Flushed {
    pub(crate) fn is_set(&self) -> bool {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Outlet for Flushed {
    fn post(&self, _: Notice) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
    }

    fn publishes_processed(&self, _: usize) {}
}

/// So many queues may read from the store at a time.
const READS_MAX: usize = 2;
/// As a node looks at memory and disk.
const LOOK_EVERY: Duration = Duration::from_millis(100);
