//! What a plugin may ask of the broker.

use std::fmt;
use std::path::PathBuf;

use crate::abi;

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// Something is lost or refused.
    Error = 1,
    /// Something is not as it should be.
    Warn = 2,
    /// Worth knowing for operators.
    Info = 3,
    /// Worth knowing for the author.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

impl Level {
    pub(crate) const fn from_number(number: u32) -> Self {
        match number {
            0 | 1 => Self::Error,
            2 => Self::Warn,
            3 => Self::Info,
            4 => Self::Debug,
            _ => Self::Trace,
        }
    }
}

/// Writes a line to the broker's log; `target` is the plugin's name by custom.
///
/// Not for the path of a message: a line a message fills disks. `text` is formatted only if somebody wants the line.
pub fn log(level: Level, target: &str, text: impl fmt::Display) {
    if abi::log_is_enabled(level, target) {
        abi::log(level, target, &text.to_string());
    }
}

/// The folder that belongs to this plugin alone, below the broker's data folder; it is there. `None` when the broker keeps nothing, or in
/// a test.
#[must_use]
pub fn data_folder() -> Option<PathBuf> {
    abi::data_folder()
}

/// What a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Metric {
    /// Only rises; what is given is added.
    Counter = 1,
    /// Goes up and down; what is given takes its place.
    Gauge = 2,
}

/// Shows a figure to operators: in `/api/x/plugins`, and to Prometheus as `broker_plugin_metric` with the plugin's name. At most 64 names are
/// kept of a plugin; letters, digits and underscores only.
///
/// Takes a lock, so that a message's path should count for itself and tell the sum now and then.
pub fn metric(kind: Metric, name: &str, value: f64) {
    abi::metric(kind as u32, name, value);
}
