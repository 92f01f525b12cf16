//! What plugins say goes to the broker's log.

use plugin_api::abi::guest::HostServices;
use plugin_api::host::Level;
use tracing::{debug, enabled, error, info, trace, warn};

/// Forwards one plugin's lines, with its name.
pub(super) struct PluginLog {
    plugin: String,
}

impl PluginLog {
    pub(super) fn new(plugin: &str) -> Self {
        Self { plugin: plugin.to_owned() }
    }
}

impl HostServices for PluginLog {
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
}
