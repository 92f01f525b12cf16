//! What the broker does for a plugin: its lines go to the broker's log, its figures to who looks, and it has a folder of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use plugin_api::abi::guest::HostServices;
use plugin_api::host::{Level, Metric};
use tracing::{debug, enabled, error, info, trace, warn};

/// The figures of a plugin by name.
pub(super) type Figures = Arc<Mutex<BTreeMap<String, f64>>>;

/// More names than that are a mistake that would fill memory.
const FIGURES_MAX: usize = 64;

/// Serves one plugin.
pub(super) struct PluginServices {
    plugin: String,
    /// Below this the plugin has its folder; none where the broker keeps nothing.
    data: Option<PathBuf>,
    figures: Figures,
}

impl PluginServices {
    pub(super) fn new(plugin: &str, data: Option<PathBuf>) -> Self {
        Self { plugin: plugin.to_owned(), data, figures: Figures::default() }
    }

    pub(super) fn figures(&self) -> Figures {
        Arc::clone(&self.figures)
    }
}

impl HostServices for PluginServices {
    fn log_is_enabled(&self, level: Level, _target: &str) -> bool {
        match level {
            Level::Error => enabled!(target: "plugin", tracing::Level::ERROR),
            Level::Warn => enabled!(target: "plugin", tracing::Level::WARN),
            Level::Info => enabled!(target: "plugin", tracing::Level::INFO),
            Level::Debug => enabled!(target: "plugin", tracing::Level::DEBUG),
            Level::Trace => enabled!(target: "plugin", tracing::Level::TRACE),
        }
    }

    fn log(&self, level: Level, target: &str, text: &str) {
        let plugin = &*self.plugin;
        match level {
            Level::Error => error!(target: "plugin", plugin, part = target, "{text}"),
            Level::Warn => warn!(target: "plugin", plugin, part = target, "{text}"),
            Level::Info => info!(target: "plugin", plugin, part = target, "{text}"),
            Level::Debug => debug!(target: "plugin", plugin, part = target, "{text}"),
            Level::Trace => trace!(target: "plugin", plugin, part = target, "{text}"),
        }
    }

    fn data_folder(&self) -> Option<PathBuf> {
        let folder = self.data.as_ref()?.join("plugins").join(&self.plugin);
        match std::fs::create_dir_all(&folder) {
            Ok(()) => Some(folder),
            Err(error) => {
                error!(target: "plugin", plugin = self.plugin, "its folder {} cannot be made: {error}", folder.display());
                None
            }
        }
    }

    fn metric(&self, kind: Metric, name: &str, value: f64) {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || name.len() > FIGURES_MAX || !name.bytes().all(is_name) || !value.is_finite() {
            return;
        }
        let mut figures = self.figures.lock();
        if !figures.contains_key(name) && figures.len() >= FIGURES_MAX {
            return;
        }
        let figure = figures.entry(name.to_owned()).or_default();
        *figure = if kind == Metric::Counter { *figure + value } else { value };
    }
}
