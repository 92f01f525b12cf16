//! What a plugin may ask of the broker.

use std::fmt;

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
