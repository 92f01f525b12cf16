//! A host that keeps what plugins log.

use std::sync::{Arc, Mutex, PoisonError};

use crate::abi::HostTable;
use crate::abi::guest::{HostServices, Linkage};
use crate::host::Level;

/// Stands in for the broker.
#[derive(Debug, Clone, Default)]
pub struct FakeHost {
    lines: Arc<Mutex<Vec<(Level, String)>>>,
}

impl FakeHost {
    /// A host that has heard nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The table that a plugin's entry takes. Leaked, as every host's.
    #[must_use]
    pub fn table(&self, linkage: Linkage) -> &'static HostTable {
        HostTable::leak(Box::new(self.clone()), linkage)
    }

    /// What has been logged, in order.
    #[must_use]
    pub fn lines(&self) -> Vec<(Level, String)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl HostServices for FakeHost {
    fn log_is_enabled(&self, _level: Level, _target: &str) -> bool {
        true
    }

    fn log(&self, level: Level, target: &str, text: &str) {
        let line = (level, format!("{target}: {text}"));
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}
