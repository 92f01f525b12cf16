//! The life of plugins beside their calls: from the start to the stop, and calls that do not come back.
//!
//! At an orderly stop the kinds end one after the other, each when nobody needs it any more: auth backends when no login can come, exchange types when
//! all messages are where they go, the storage when it has taken everything. Each is *draining* first: new calls are refused, and those under way
//! have a deadline. Nothing is unloaded, so a call that never comes back keeps its thread and nothing else.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tracing::{debug, error, info, warn};

use super::Registry;
use super::calls::{self, Site, UnderWay};
use super::status::{Phase, Record};

/// When a plugin is stopped, by what it offers; one that offers several kinds waits for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Auth backends.
    Logins,
    /// Exchange types.
    Routes,
    /// Storages.
    Storage,
}

/// After that, a call of an exchange type or a backend that has not come back is told. Routing takes microseconds.
pub const STUCK_AFTER: Duration = Duration::from_secs(3);
/// The same for a storage, which may wait for a disk.
pub const STORAGE_STUCK_AFTER: Duration = Duration::from_secs(5);
/// How often somebody looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often who drains looks. No call tells when it ends, which would cost each of them.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(2);

impl Registry {
    /// The broker serves: what was registered is asked from now on.
    pub fn activate(&self) {
        for plugin in &self.plugins {
            enter(plugin, Phase::Active);
        }
    }

    /// From now on the plugins of a stage are asked nothing new; [`Self::drain`] waits for what is under way.
    pub fn begin_drain(&self, stage: Stage) {
        self.plugins
            .iter()
            .filter(|plugin| stage_of(plugin) == stage)
            .for_each(|plugin| enter(plugin, Phase::Draining));
    }

    /// Stops the plugins of a stage: they are asked nothing new, and what is under way has until `deadline`. Returns how many calls have not come back.
    pub async fn drain(&self, stage: Stage, deadline: Duration) -> usize {
        let until = Instant::now() + deadline;
        self.begin_drain(stage);
        let mut left = 0;
        for plugin in self.plugins.iter().filter(|plugin| stage_of(plugin) == stage) {
            while plugin.under_way() > 0 && Instant::now() < until {
                tokio::time::sleep(DRAIN_LOOK_EVERY).await;
            }
            let calls = plugin.under_way();
            if calls > 0 && !plugin.is_refused() {
                let text =
                    format!("{calls} of its calls did not come back within {deadline:?}, when the broker stopped");
                plugin.fault(&text);
                warn!(plugin = plugin.name, "plugin stopped all the same: {text}");
            }
            left += calls;
            enter(plugin, Phase::Stopped);
        }
        left
    }

    /// Begins to watch for calls that do not come back, until the registry is gone. Nothing is watched where everything is built in. Called within
    /// the runtime.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn watch(self: &Arc<Self>) -> std::io::Result<()> {
        if self.plugins.iter().all(|plugin| plugin.path.is_none() || plugin.is_refused()) {
            return Ok(());
        }
        let registry = Arc::downgrade(self);
        // Not a task: plugins may block all threads that run tasks.
        let runtime = Handle::current();
        std::thread::Builder::new().name("plugin-watch".into()).spawn(move || watch(&registry, &runtime)).map(drop)
    }
}

/// By what of it is in use.
fn stage_of(plugin: &Record) -> Stage {
    match (plugin.is_storage.load(Ordering::Relaxed), plugin.auth_backends.is_empty()) {
        (true, _) => Stage::Storage,
        (false, false) if plugin.exchange_types.is_empty() => Stage::Logins,
        (false, _) => Stage::Routes,
    }
}

/// The log has the plugins of files; those of the binary would say the same at each start.
fn enter(plugin: &Record, phase: Phase) {
    if plugin.is_refused() || plugin.enter(phase) == phase {
        return;
    }
    let (name, state) = (&plugin.name, phase.name());
    if plugin.path.is_some() {
        info!(plugin = name, state, "plugin {state}");
    } else {
        debug!(plugin = name, state, "plugin {state}");
    }
}

fn watch(registry: &Weak<Registry>, runtime: &Handle) {
    let mut watch = Watch::default();
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(registry) = registry.upgrade() else { return };
        if watch.look(&registry.plugins, calls::under_way(), Instant::now()) {
            // The thread that is lost may be the one that the others leave waiting for sockets to. A task from outside wakes one that takes its place.
            runtime.spawn(async {});
        }
    }
}

/// Calls that were under way at the last look.
#[derive(Default)]
struct Watch {
    seen: HashMap<UnderWay, Seen>,
}

struct Seen {
    since: Instant,
    is_told: bool,
}

impl Watch {
    /// True if a call was already under way at the look before.
    fn look(&mut self, plugins: &[Arc<Record>], under_way: Vec<UnderWay>, now: Instant) -> bool {
        let by_site: HashMap<Site, &Arc<Record>> = plugins.iter().map(|plugin| (plugin.site, plugin)).collect();
        self.seen.retain(|call, seen| {
            let goes_on = under_way.contains(call);
            if let (false, true, Some(plugin)) = (goes_on, seen.is_told, by_site.get(&call.site)) {
                warn!(plugin = plugin.name, "a call of the plugin came back after {:.1?}", now - seen.since);
            }
            goes_on
        });
        for call in under_way {
            let Some(plugin) = by_site.get(&call.site) else { continue };
            let seen = self.seen.entry(call).or_insert(Seen { since: now, is_told: false });
            let allowed = if stage_of(plugin) == Stage::Storage { STORAGE_STUCK_AFTER } else { STUCK_AFTER };
            if !seen.is_told && now - seen.since >= allowed {
                seen.is_told = true;
                let text =
                    format!("a call has not come back for {allowed:?}; it has its thread for as long as that takes");
                plugin.fault(&text);
                error!(plugin = plugin.name, state = "degraded", error = text, "plugin fault");
            }
        }
        self.seen.values().any(|seen| seen.since < now)
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::config::Config;

    use super::super::tests::fragile;
    use super::super::{PluginState, Registry};
    use super::*;

    fn state(registry: &Registry) -> (PluginState, u64) {
        registry.status().last().map(|status| (status.state, status.faults)).expect("it is listed")
    }

    fn registry() -> Registry {
        let mut registry = Registry::empty();
        registry.link(&fragile::PLUGIN, &Config::default()).expect("it links");
        registry
    }

    #[tokio::test]
    async fn plugin_goes_through_its_states_in_order() {
        let registry = registry();
        assert_eq!(state(&registry).0, PluginState::Registered);
        registry.activate();
        assert_eq!(state(&registry).0, PluginState::Active);
        assert_eq!(registry.drain(Stage::Logins, Duration::ZERO).await, 0);
        assert_eq!(state(&registry).0, PluginState::Active, "another stage");
        assert_eq!(registry.drain(Stage::Routes, Duration::ZERO).await, 0);
        assert_eq!(state(&registry), (PluginState::Stopped, 0));
    }

    #[tokio::test]
    async fn call_under_way_has_until_the_deadline() {
        let registry = Arc::new(registry());
        let site = registry.plugins[0].site;
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let (inside, is_inside) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            site.enter(|| {
                let _ = inside.send(());
                let _ = gone.recv();
            });
        });
        is_inside.recv().expect("the thread is in the call");
        assert_eq!(registry.drain(Stage::Routes, Duration::from_millis(20)).await, 1);
        assert_eq!(state(&registry), (PluginState::Stopped, 1));
        let draining = tokio::spawn({
            let registry = Arc::clone(&registry);
            async move { registry.drain(Stage::Routes, Duration::from_secs(20)).await }
        });
        while state(&registry).0 != PluginState::Draining {
            tokio::task::yield_now().await;
        }
        drop(go);
        thread.join().expect("it ends");
        assert_eq!(draining.await.expect("no panic"), 0, "it came back in time");
    }

    #[test]
    fn call_that_does_not_come_back_is_told_once() {
        let registry = registry();
        let plugins = &registry.plugins;
        let begin = Instant::now();
        let mut watch = Watch::default();
        plugins[0].site.enter(|| {
            watch.look(plugins, calls::under_way(), begin);
            assert_eq!(plugins[0].status().faults, 0);
            for late in [STUCK_AFTER, STUCK_AFTER * 2] {
                watch.look(plugins, calls::under_way(), begin + late);
                assert_eq!(plugins[0].status().faults, 1);
            }
        });
        plugins[0].site.enter(|| watch.look(plugins, calls::under_way(), begin + STUCK_AFTER * 3));
        assert_eq!(plugins[0].status().faults, 1, "another call begins anew");
    }
}
