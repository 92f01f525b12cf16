//! Doing what the topology file says by now, while the broker runs.
//!
//! All or nothing. A file with a mistake, hooks that do not compile, more of something than there may be, or a step that would lose messages leave everything as it
//! is, and the log says why. If a step fails all the same, because somebody has filled a queue meanwhile or a plugin refuses, the steps before it are taken
//! back and the hooks that were in force are so again. Otherwise users, permissions, vhosts and what is in them become what the file says, as by `broker apply`; what the file no longer says of
//! users, permissions, policies and limits is forgotten, as the next start would forget it. Exchanges, queues and bindings that left the file stay. What only
//! a start reads is named in the log.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use super::reload::tell;
use crate::origin::Origin;
use crate::runtime::Broker;
use crate::runtime::hands::BrokerHands;
use crate::topology::plan::{Before, Plan, Prune, Wish, carry_out, undo};
use crate::topology::schema::Topology;

/// Reads the file; what is wrong with it comes as lines for people.
pub struct Source(pub Box<dyn Fn() -> Result<Topology, Vec<String>> + Send + Sync>);

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

/// See the module.
#[derive(Debug)]
pub struct FileInForce {
    broker: Arc<Broker>,
    source: Option<Source>,
    /// What is in force: what was read last, but for what takes a restart.
    running: Mutex<Topology>,
}

/// How a reload went wrong.
enum Failure {
    /// Nothing was changed.
    Refused(Vec<String>),
    /// A step failed, and those before it were taken back, but for what `remains`.
    TakenBack { failed: String, remains: Vec<String> },
}

impl FileInForce {
    /// For a broker that was started with `topology`; `source` gives what its file says now.
    pub fn new(broker: Arc<Broker>, source: Option<Source>, topology: Topology) -> Self {
        Self { broker, source, running: Mutex::new(topology) }
    }

    /// Reads the file and does what it says. It waits for queues and scripts: call it off the event loop. What became of it is logged and counted.
    pub fn read_again(&self) {
        let Some(source) = &self.source else {
            tracing::warn!(
                "told to read the topology file again, but there is none: the broker was started without --topology"
            );
            return;
        };
        let mut running = self.running.lock();
        let counts = &self.broker.reloads;
        match self.change((source.0)(), &mut running) {
            Ok(done) if done.is_empty() => {
                counts.done.fetch_add(1, Relaxed);
                tracing::info!("topology file read again: nothing has changed");
            }
            Ok(done) => {
                counts.done.fetch_add(1, Relaxed);
                done.iter().for_each(|step| tracing::info!("topology file: {step}"));
                tracing::info!(changes = done.len(), "topology file read again");
            }
            Err(Failure::Refused(why)) => {
                counts.refused.fetch_add(1, Relaxed);
                why.iter().for_each(|line| tracing::error!("topology file: {line}"));
                tracing::error!(
                    mistakes = why.len(),
                    "the topology file was not taken over; everything stays as it was"
                );
            }
            Err(Failure::TakenBack { failed, remains }) => {
                counts.failed.fetch_add(1, Relaxed);
                tracing::error!("topology file: failed: {failed}");
                remains.iter().for_each(|what| tracing::error!("topology file: not taken back: {what}"));
                let but = if remains.is_empty() { "" } else { " but for what could not be taken back" };
                tracing::error!(
                    "the topology file was not taken over; everything is as it was before{but}; send SIGHUP again once this is mended"
                );
            }
        }
    }

    fn change(&self, read: Result<Topology, Vec<String>>, running: &mut Topology) -> Result<Vec<String>, Failure> {
        let topology = read.map_err(Failure::Refused)?;
        let _turn = self.broker.applying.lock();
        let hands = BrokerHands(&self.broker);
        let wish = Wish { prune: Prune::Settings, force: false, origin: Origin::Topology };
        let plan = Plan::make(&topology, &hands.target(), wish);
        let refusals = plan.refusals();
        if !refusals.is_empty() {
            return Err(Failure::Refused(refusals));
        }
        // First, so that no exchange is there for a moment without the hooks that guard it.
        let hooks = match self.broker.exchange_hooks(&topology.hooks) {
            Ok(exchanged) => exchanged,
            Err(errors) => {
                tell(&Err(errors));
                return Err(Failure::Refused(Vec::new()));
            }
        };
        for note in &plan.notes {
            tracing::warn!("topology file: {note}");
        }
        self.take_watermarks(running, &topology);
        for section in needs_restart(running, &topology) {
            tracing::warn!("topology file: '{section}' has changed, which takes a restart");
        }
        let before = Before::of(&plan, &topology.owner, &hands.target());
        let result = carry_out(&plan, &topology, &hands.target(), wish);
        if let Some(failed) = result.failed.clone() {
            let remains = undo(&plan, &result, &before, &topology.owner, &hands.target());
            self.broker.put_back_hooks(hooks);
            return Err(Failure::TakenBack { failed, remains });
        }
        tell(&Ok(self.broker.hooks.keep(hooks)));
        *running = topology;
        Ok(result.done)
    }
}

impl FileInForce {
    /// A watermark that the file has changed; one that it has not changed stays as it was set meanwhile.
    fn take_watermarks(&self, running: &mut Topology, new: &Topology) {
        let (running, new) = (&mut running.limits, &new.limits);
        if std::mem::replace(&mut running.memory_watermark_bytes, new.memory_watermark_bytes)
            != new.memory_watermark_bytes
        {
            self.broker.set_memory_watermark(new.memory_watermark_bytes);
        }
        if std::mem::replace(&mut running.disk_free_bytes_min, new.disk_free_bytes_min) != new.disk_free_bytes_min {
            self.broker.set_disk_free_bytes_min(new.disk_free_bytes_min);
        }
    }
}

/// The sections that differ and that only a start reads.
fn needs_restart(running: &Topology, new: &Topology) -> Vec<&'static str> {
    let differs = [
        ("node", running.node != new.node),
        ("listeners", running.listeners != new.listeners),
        ("management", running.management != new.management),
        ("metrics", running.metrics != new.metrics),
        ("limits", running.limits != new.limits),
        ("storage", running.storage != new.storage),
        ("plugins", running.plugins != new.plugins),
        ("definitions", running.definitions != new.definitions),
        ("auth", running.auth != new.auth),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(section, _)| section).collect()
}
