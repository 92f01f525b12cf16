//! Wiring: the only place that knows every module, the order of the start and the order of the end.
//!
//! Start: plugins, storage and what it kept, hooks, users, vhosts with their topology, definitions to import, listeners (semantics 27.7: who connects finds everything in its place).
//! SIGHUP reads the topology file again (`reload`). End, on SIGTERM or SIGINT: listeners close, clients get connection.close 320 and a deadline, the store takes what is left, then the
//! process ends. Plugins are drained and stopped on the way, each kind when nobody needs it any more; the management API answers until the last exchange type has.

pub mod apply_file;
mod definitions;
mod listeners;
mod offline;
mod reload;
mod store;
mod world;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plugin_api::auth::AuthBackend;
use plugin_api::storage::Durability;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::apply_file::FileInForce;
pub use self::definitions::{DefinitionsError, Offline};
use self::listeners::{Given, Listeners, Open};
pub use self::offline::Planned;
use self::reload::Reloader;
use self::world::{Comes, World};
use crate::access::{Backend, INTERNAL, Mechanism};
use crate::amqp::{Identity, Limits};
use crate::events::{Events, follow_log};
use crate::hooks::{HookError, Hooks};
use crate::management::prometheus::Pages;
use crate::management::{self, Management, NodeFacts};
use crate::message;
use crate::metrics::Metrics;
use crate::plugin_host::{AuthWanted, LoadError, LoadRequest, Loaded, Registry, Stage, TypeError};
use crate::runtime::alarms::{self, Alarms};
use crate::runtime::broker::Parts;
use crate::runtime::broker_exchanges;
use crate::runtime::disk::DiskWatch;
use crate::runtime::holder::MessageHolder;
use crate::runtime::listener::{self, Reached};
use crate::runtime::paging::{self, Paging};
use crate::runtime::sampler;
use crate::runtime::timer::{self, Timer};
use crate::runtime::transactions::Transactions;
use crate::runtime::{Broker, Clock, Shells};
use crate::store::{Committer, Failure, RecoverError, Recovery, StoreLedger};
use crate::tls::{self, TlsError};
use crate::topology::apply::{ApplyError, apply_parameters};
use crate::topology::plan::mark_at_start;
use crate::topology::schema::{AuthBackendDecl, Topology, VhostDecl};
use crate::topology::settings::settings;
use crate::vhost::registry::CLUSTER_NAME;
use crate::vhost::{Numbers, Shared};

/// What to run.
#[derive(Debug, Default)]
pub struct NodeOptions {
    /// What the file declares, or the default.
    pub topology: Topology,
    /// Addresses for AMQP that win over the file's.
    pub listen: Vec<SocketAddr>,
    /// Addresses for the management API that win over the file's; an empty list switches it off.
    pub http: Option<Vec<SocketAddr>>,
    /// Addresses for metrics that win over the file's; an empty list switches them off.
    pub metrics: Option<Vec<SocketAddr>>,
    /// The file that the topology is from, if it is from one.
    pub topology_file: Option<PathBuf>,
    /// The folder for what must survive; it wins over the file's.
    pub data: Option<PathBuf>,
    /// Folders whose plugins are loaded.
    pub plugin_dirs: Vec<PathBuf>,
    /// Gives what the topology file says, whenever it is to be read again.
    pub reload: Option<apply_file::Source>,
}

/// Why the node did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A plugin that is required cannot be loaded.
    #[error("plugin: {0}")]
    Plugin(#[from] LoadError),
    /// A built-in exchange type does not work.
    #[error("built-in exchange type: {0}")]
    ExchangeType(#[from] TypeError),
    /// Hooks do not compile.
    #[error("hooks:\n{}", lines(.0))]
    Hooks(Vec<HookError>),
    /// The topology cannot be carried out.
    #[error("topology:\n{}", lines(.0))]
    Apply(Vec<ApplyError>),
    /// Definitions cannot be imported or exported.
    #[error(transparent)]
    Definitions(#[from] DefinitionsError),
    /// The data folder cannot be used.
    #[error("data folder {}: {error}; name another with --data, or give the broker's user access to it", .path.display())]
    Data {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for AMQP: {error}; {}", listen_advice(.error))]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for the management API: {error}; {}", http_advice(.error))]
    ListenHttp {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for metrics: {error}; {}", metrics_advice(.error))]
    ListenMetrics {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} for {what}: {error}; stop the program that has the port (see it with: ss -ltnp), or name another address in the topology"
    )]
    ListenTls {
        /// The protocol.
        what: &'static str,
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Certificates or keys cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The data folder's contents cannot be used.
    #[error("{0}")]
    Recover(#[from] RecoverError),
    /// The operating system refuses to report signals.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    /// The store failed while the node ran.
    #[error("{0}; what was confirmed is stored, restart the broker once the store works again")]
    Store(#[from] Failure),
}

fn lines<E: std::fmt::Display>(errors: &[E]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has the port (see it with: ss -ltnp): stop it, or name another address with --listen ADDR:PORT"
        }
        io::ErrorKind::AddrNotAvailable => {
            "the address is not one of this machine: name another with --listen ADDR:PORT"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: name another with --listen ADDR:PORT",
        _ => "name another address with --listen ADDR:PORT",
    }
}

fn http_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has the port (see it with: ss -ltnp): stop it, or name another address with --http ADDR:PORT or \
             'management: { listen: ADDR:PORT }', or switch the API off with --http off"
        }
        io::ErrorKind::AddrNotAvailable => {
            "the address is not one of this machine: name another with --http ADDR:PORT, or switch the API off with --http off"
        }
        _ => "name another address with --http ADDR:PORT, or switch the API off with --http off",
    }
}

fn metrics_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has the port (see it with: ss -ltnp): stop it, or name another address with --metrics ADDR:PORT \
             or 'metrics: { listen: ADDR:PORT }', or switch metrics off with --metrics off"
        }
        io::ErrorKind::AddrNotAvailable => {
            "the address is not one of this machine: name another with --metrics ADDR:PORT, or switch metrics off with --metrics off"
        }
        _ => "name another address with --metrics ADDR:PORT, or switch metrics off with --metrics off",
    }
}

impl NodeError {
    /// The exit code of the process, as sysexits names them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Hooks(_) | Self::Apply(_) => 65,
            Self::Definitions(DefinitionsError::Read { .. } | DefinitionsError::NoVhost(_)) => 66,
            Self::Definitions(_) => 65,
            Self::Listen { .. } | Self::ListenHttp { .. } | Self::ListenMetrics { .. } | Self::ListenTls { .. } => 69,
            Self::ExchangeType(_) | Self::Signals(_) => 71,
            Self::Store(_) | Self::Recover(_) => 74,
            Self::Data { .. } | Self::Plugin(_) | Self::Tls(_) => 78,
        }
    }
}

/// The product that clients expect (semantics 33.5, 33.10).
const PRODUCT: &str = "RabbitMQ";
/// The version of it whose behaviour this broker follows where versions differ (semantics 33.10).
const VERSION: &str = "4.2.1";

/// How a node ended that was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything is closed.
    Closed,
    /// It was still recovering its store. A thread is at that, for nothing: nobody should wait for it.
    Recovering,
    /// A plugin has a thread that it does not give back: nobody should wait for it.
    Stuck,
}

/// For tasks that are told to end at once. Each does at its next step, however many there are, unless a plugin has its thread.
const ABORT_DEADLINE: Duration = Duration::from_secs(5);

/// For calls of plugins that are under way when nothing else is.
const CALLS_DEADLINE: Duration = Duration::from_secs(2);

/// What tells a node to end. From the beginning on: a process that is the first of its container ignores signals that it does not take.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Asks for a reload; `reload` takes it when there is something to reload.
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> Result<Self, NodeError> {
        let taken = |kind| signal(kind).map_err(NodeError::Signals);
        let (terminate, interrupt) = (taken(SignalKind::terminate())?, taken(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hangup: Some(taken(SignalKind::hangup())?) })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// See [`NodeError`].
pub async fn run(options: NodeOptions) -> Result<End, NodeError> {
    let NodeOptions { topology, listen, http, metrics, topology_file, data, plugin_dirs, reload: source } = options;
    let data = data.or_else(|| topology.storage.data.clone());
    let mut signals = Signals::new()?;
    let registry = Arc::new(load_plugins(&topology, &plugin_dirs, data.as_deref())?);
    let (storage, recovery) = tokio::select! {
        recovered = store::recover(&registry, &topology.storage, data.clone()) => recovered?,
        () = signals.received() => {
            tracing::info!("told to stop while the store was being recovered; the next start does it again");
            return Ok(End::Recovering);
        }
    };
    let disk_watch = DiskWatch { folder: data.clone(), storage: Arc::clone(&storage) };
    let committer = Committer::new(Arc::clone(&storage));
    let mut storing = store::StoreTasks::start(&committer);
    let broker = build(&topology, Arc::clone(&registry), &committer, recovery, Clock::default())?;
    let open = Listeners::open(&topology, Given { amqp: listen, http, metrics })?;
    let metrics_per_object = topology.metrics.per_object;
    let file = FileInForce::new(Arc::clone(&broker), source, topology.clone());
    let reloader = Reloader::new(Arc::clone(&broker), file);
    let settings = settings(&topology);
    let facts = NodeFacts { listeners: open.facts, metrics_per_object, data, topology: topology_file, settings };

    let connections = Arc::new(tokio::sync::Mutex::new(JoinSet::new()));
    registry.activate();
    if let Err(error) = registry.watch() {
        tracing::warn!(error = %error, "nobody will say when a plugin does not come back: there is no thread for it");
    }
    let mut accepting = JoinSet::new();
    // Whoever wants to know how the stop goes is answered until almost the end.
    let mut answering = JoinSet::new();
    let reached = if topology.listeners.proxy_protocol { Reached::ThroughProxy } else { Reached::Directly };
    for Open { listener, tls } in open.amqp {
        accepting.spawn(listener::accept(Arc::clone(&broker), listener, reached, tls, Arc::clone(&connections)));
    }
    let with = |has: fn(&VhostDecl) -> bool| -> Vec<String> {
        topology.vhosts.iter().filter(|vhost| has(vhost)).map(|vhost| vhost.name.clone()).collect()
    };
    let vhosts = with(|vhost| vhost.has_event_exchange);
    if !vhosts.is_empty() {
        let events = broker.events.subscribe();
        accepting.spawn(broker_exchanges::publish_events(Arc::clone(&broker), events, vhosts));
    }
    let vhosts = with(|vhost| vhost.has_log_exchange);
    if !vhosts.is_empty() {
        accepting.spawn(broker_exchanges::publish_log(Arc::clone(&broker), follow_log(), vhosts));
    }
    let management = Management::new(Arc::clone(&broker), topology.management.clone(), facts);
    for Open { listener, tls } in open.http {
        answering.spawn(management::serve(Arc::clone(&management), listener, tls));
    }
    drop(management);
    let pages = Pages::new(Arc::clone(&broker), metrics_per_object);
    for Open { listener, tls } in open.metrics {
        answering.spawn(management::prometheus::serve(Arc::clone(&pages), listener, tls));
    }
    drop(pages);
    if !open.servers.is_empty() {
        accepting.spawn(tls::watch(open.servers));
    }
    accepting.spawn(watch_memory(Arc::clone(&broker)));
    accepting.spawn(sampler::run(Arc::clone(&broker)));
    accepting.spawn(timer::run(Arc::clone(&broker.timer)));
    accepting.spawn(disk_watch.run(Arc::clone(&broker)));
    if let Some(hangup) = signals.hangup.take() {
        accepting.spawn(reloader.run(hangup));
    }
    say(NotifyState::Ready);
    let failure = tokio::select! {
        biased;
        () = signals.received() => None,
        failure = committer.failed() => Some(failure),
        // None of them ends while the store works, so this one panicked. Without it nothing would be confirmed or loaded again.
        ended = storing.ended() => Some(ended),
    };
    say(NotifyState::Stopping);
    accepting.shutdown().await;
    let deadline = Duration::from_secs(u64::from(topology.limits.shutdown_deadline_secs));
    tracing::info!(connections = broker.connection_count(), "shutting down");
    broker.close_connections("broker forced connection closure with reason 'shutdown'");
    let mut connections = connections.lock().await;
    let all_closed = async { while connections.join_next().await.is_some() {} };
    // Nobody can log in any more.
    let (mut stuck, closed) =
        tokio::join!(registry.drain(Stage::Logins, deadline), tokio::time::timeout(deadline, all_closed));
    if closed.is_err() {
        tracing::warn!(connections = broker.connection_count(), "clients did not close in time");
    }
    // From here on nobody begins anything any more, but for a thread that a plugin does not give back.
    let _ = tokio::time::timeout(ABORT_DEADLINE, connections.shutdown()).await;
    if failure.is_none() {
        store::flush(&committer).await;
    }
    stuck += registry.drain(Stage::Routes, CALLS_DEADLINE).await;
    registry.begin_drain(Stage::Storage);
    let _ = tokio::time::timeout(ABORT_DEADLINE, answering.shutdown()).await;
    drop(broker);
    if tokio::time::timeout(CALLS_DEADLINE, storing.stop()).await.is_err() {
        stuck += 1;
    }
    drop(committer);
    store::close(storage).await;
    stuck += registry.drain(Stage::Storage, CALLS_DEADLINE).await;
    match failure {
        Some(failure) => Err(failure.into()),
        None if stuck > 0 => Ok(End::Stuck),
        None => Ok(End::Closed),
    }
}

/// Tells the service manager, if one wants to know (sd_notify(3)).
fn say(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(error = %error, "the service manager cannot be told; NOTIFY_SOCKET is wrong");
    }
}

fn load_plugins(topology: &Topology, folders: &[PathBuf], data: Option<&Path>) -> Result<Registry, NodeError> {
    let mut registry = Registry::builtin()?;
    if let Some(data) = data {
        registry.keep_data_in(data);
    }
    let mut seen = BTreeSet::new();
    // A storage's file may stand among the others, too.
    for plugin in topology.plugins.iter().filter(|plugin| seen.insert(&plugin.path)) {
        let request =
            LoadRequest { path: plugin.path.clone(), sha256: plugin.sha256.clone(), config: plugin.config.clone() };
        match registry.load_file(&request) {
            Ok(loaded) => tell_loaded(&loaded),
            Err(error) if plugin.required => return Err(error.into()),
            Err(error) => {
                tracing::error!(path = %plugin.path.display(), error = %error, "plugin not loaded");
                registry.note_refused(&plugin.path, &error);
            }
        }
    }
    for folder in folders {
        for result in registry.load_dir(folder) {
            match result {
                Ok(loaded) => tell_loaded(&loaded),
                // A file in a folder that somebody named is meant to be there.
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(registry)
}

fn tell_loaded(loaded: &Loaded) {
    let Loaded { name, version, path, exchange_types, storages, auth_backends } = loaded;
    let path = path.display();
    tracing::info!(
        plugin = name, state = "registered", version, %path, ?exchange_types, ?storages, ?auth_backends, "plugin loaded"
    );
}

fn auth_backends(topology: &Topology, registry: &Registry) -> Result<Vec<Backend>, NodeError> {
    let open = |decl: &AuthBackendDecl| {
        let AuthBackendDecl { kind, name, config, timeout, authorization, isolation } = decl;
        let asked: Option<Arc<dyn AuthBackend>> = if kind == INTERNAL {
            None
        } else {
            let (base, timeout, isolation) = (topology.folder.as_deref(), *timeout, *isolation);
            Some(registry.auth_backend(&AuthWanted { name, kind, config, base, timeout, isolation })?)
        };
        Ok(Backend { name: name.clone(), asked, authorization: authorization.clone() })
    };
    topology.auth.iter().map(open).collect()
}

/// Everything between the store and the listeners: hooks, users, vhosts with what the topology declares.
///
/// # Errors
/// Hooks that do not compile, declarations that cannot be carried out.
pub fn build(
    topology: &Topology,
    registry: Arc<Registry>,
    committer: &Arc<Committer>,
    recovery: Recovery,
    clock: Clock,
) -> Result<Arc<Broker>, NodeError> {
    let events = {
        let clock = clock.clone();
        Events::new(move || clock.wall_ms())
    };
    let hooks = Arc::new(Hooks::load(&topology.hooks, events.clone()).map_err(NodeError::Hooks)?);
    let backends = auth_backends(topology, &registry)?;
    // Where nothing is written to disk, moving messages to the store would gain nothing.
    let queue_memory = topology
        .limits
        .queue_memory_bytes
        .or((committer.promise() != Durability::ProcessLifetime).then_some(paging::DEFAULT_BYTES));
    let paging = Arc::new(Paging::new(queue_memory));
    let timer = Arc::new(Timer::new(clock.clone()));
    let metrics = Metrics::new(clock.wall_ms());
    let factory = Shells::new(Arc::clone(committer), Arc::clone(&paging), Arc::clone(&timer), Arc::clone(&metrics));
    let ledger = StoreLedger::new(Arc::clone(committer));
    let Recovery { definitions, mut backlogs, first_seq, first_number } = recovery;
    let holder =
        Arc::new(MessageHolder::new(Arc::clone(committer), Arc::clone(&paging), Arc::clone(&timer), first_seq));
    let numbers = Arc::new(Numbers::starting_at(first_number));
    let shared = Shared {
        registry,
        factory,
        ledger: Arc::<StoreLedger>::clone(&ledger),
        holder: Arc::<MessageHolder>::clone(&holder),
        numbers,
        first_seq,
        bindings_per_queue_max: topology.limits.bindings_per_queue_max as usize,
        strict: topology.node.strict,
        events: events.clone(),
        hooks: Arc::clone(&hooks),
    };
    let comes = if topology.definitions.is_some() { Comes::Definitions } else { Comes::Nothing };
    let World { access, vhosts } = world::assemble(topology, comes, shared, ledger, definitions, &mut backlogs)?;
    if let Some(decl) = &topology.definitions {
        definitions::import_at_start(decl, &access, &vhosts)?;
    }
    // Behind the definitions, which would overwrite them.
    apply_parameters(topology, &vhosts).map_err(NodeError::Apply)?;
    if !topology.sections.is_empty() {
        mark_at_start(topology, &access, &vhosts);
    }
    // What became due meanwhile finds everything in its place.
    holder.start();
    // The file wins for what it names, as everywhere: a name that was set while the broker ran is over.
    if topology.node.cluster_name.is_some() && vhosts.delete_global_parameter(CLUSTER_NAME) {
        tracing::info!("the name of the cluster that was set is forgotten: the topology file has another");
    }
    let cluster_name = topology.node.cluster_name.clone();
    let limits = &topology.limits;
    let limits = Limits {
        frame_max_bytes: limits.frame_max_bytes,
        channel_max: limits.channel_max,
        heartbeat_secs: limits.heartbeat_secs,
        handshake_timeout: Duration::from_secs(u64::from(limits.handshake_timeout_secs)),
        message_bytes_max: limits.message_bytes_max,
    };
    let identity = Identity {
        product: topology.node.product.clone().unwrap_or_else(|| PRODUCT.into()),
        version: topology.node.version.clone().unwrap_or_else(|| VERSION.into()),
        cluster_name: cluster_name.unwrap_or_else(|| "broker".into()),
        mechanisms: Mechanism::offered().into(),
    };
    let alarms = Alarms::new(topology.limits.memory_watermark_bytes, topology.limits.disk_free_bytes_min);
    let parts = Parts {
        identity: Arc::new(identity),
        limits: Arc::new(limits),
        connections_max: topology.limits.connections_max,
        access: Arc::new(access.telling(events.clone()).with_backends(backends)),
        events,
        vhosts,
        hooks,
        committer: Arc::clone(committer),
        transactions: Transactions::new(topology.limits.transaction_bytes_max, alarms.memory_watermark_bytes()),
        consumer_max_per_channel: topology.limits.consumer_max_per_channel,
        alarms,
        paging,
        holder,
        metrics,
        timer,
        clock,
    };
    Ok(Broker::new(parts))
}

/// Looks at the memory in use, for ever; many times a second only while something changes.
async fn watch_memory(broker: Arc<Broker>) {
    let mut look = tokio::time::interval(alarms::LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut same_looks) = (0, 0);
    loop {
        look.tick().await;
        let used_bytes = message::live_bytes();
        broker.on_memory(used_bytes);
        broker.committer.retry();
        let is_same = used_bytes == before && broker.is_memory_at_rest();
        same_looks = if is_same { same_looks + 1 } else { 0 };
        before = used_bytes;
        if same_looks >= alarms::QUIET_LOOKS {
            broker.quiet.wait(alarms::LOOK_EVERY_QUIET).await;
        }
    }
}
