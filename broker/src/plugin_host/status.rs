//! How plugins fare.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use plugin_api::abi::StampInfo;
use plugin_api::abi::guest::Guest;

use super::log::Figures;

/// What operators see of a plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginStatus {
    /// The name of its crate.
    pub name: String,
    /// The version of its crate.
    pub version: String,
    /// The file it comes from; `None` when it is built in.
    pub path: Option<PathBuf>,
    /// Of that file, in hexadecimal.
    pub sha256: Option<String>,
    /// The exchange types it offers.
    pub exchange_types: Vec<String>,
    /// The kinds of storage it offers.
    pub storages: Vec<String>,
    /// The kinds of auth backends it offers.
    pub auth_backends: Vec<String>,
    /// The figures that it shows, by name.
    pub figures: Vec<(String, f64)>,
    /// The worst state that something of it is in.
    pub state: PluginState,
    /// How often it has panicked, or broken the rules of the ABI.
    pub faults: u64,
    /// The latest of these.
    pub last_fault: Option<String>,
}

/// ```text
/// Active ──panic──► Degraded ──PANICS_MAX panics of one exchange──► Failed
///                      ▲                                              │
///                      └────────── that exchange is deleted ──────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PluginState {
    /// It has never panicked.
    Active,
    /// It has panicked, and is still asked.
    Degraded,
    /// At least one of its exchanges, types or backends is not asked at present.
    Failed,
    /// Its file was not loaded; the broker was told that it can do without (`required: false`).
    Refused,
}

/// A plugin as the registry knows it, shared with everything that came from it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) path: Option<PathBuf>,
    pub(super) sha256: Option<String>,
    pub(super) exchange_types: Vec<String>,
    pub(super) storages: Vec<String>,
    pub(super) auth_backends: Vec<String>,
    figures: Figures,
    faults: AtomicU64,
    last_fault: Mutex<Option<String>>,
    /// Exchanges and types that are no longer asked.
    failed: AtomicU32,
    is_refused: bool,
}

impl Record {
    /// `stamp` says whose; `guest` what it offers.
    pub(super) fn new(stamp: StampInfo, guest: &Guest, figures: Figures) -> Self {
        Self {
            name: stamp.crate_name,
            version: stamp.version,
            path: None,
            sha256: None,
            exchange_types: guest.exchange_types.iter().map(|item| item.name().to_owned()).collect(),
            storages: guest.storages.iter().map(|item| item.name().to_owned()).collect(),
            auth_backends: guest.auth_types.iter().map(|item| item.name().to_owned()).collect(),
            figures,
            faults: AtomicU64::new(0),
            last_fault: Mutex::new(None),
            failed: AtomicU32::new(0),
            is_refused: false,
        }
    }

    /// A file that was to be loaded and was not, which is told for as long as the broker runs.
    pub(super) fn refused(path: &Path, reason: &str) -> Self {
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
        Self {
            name: name.strip_prefix(std::env::consts::DLL_PREFIX).unwrap_or(&name).to_owned(),
            version: String::new(),
            path: Some(path.to_path_buf()),
            sha256: None,
            exchange_types: Vec::new(),
            storages: Vec::new(),
            auth_backends: Vec::new(),
            figures: Figures::default(),
            faults: AtomicU64::new(0),
            last_fault: Mutex::new(Some(reason.to_owned())),
            failed: AtomicU32::new(0),
            is_refused: true,
        }
    }

    /// The same, for a plugin that came from a file.
    pub(super) fn loaded_from(self, path: PathBuf, sha256: String) -> Self {
        Self { path: Some(path), sha256: Some(sha256), ..self }
    }

    pub(super) fn status(&self) -> PluginStatus {
        let faults = self.faults.load(Ordering::Relaxed);
        let state = match (self.failed.load(Ordering::Relaxed), faults) {
            _ if self.is_refused => PluginState::Refused,
            (0, 0) => PluginState::Active,
            (0, _) => PluginState::Degraded,
            _ => PluginState::Failed,
        };
        PluginStatus {
            name: self.name.clone(),
            version: self.version.clone(),
            path: self.path.clone(),
            sha256: self.sha256.clone(),
            exchange_types: self.exchange_types.clone(),
            storages: self.storages.clone(),
            auth_backends: self.auth_backends.clone(),
            figures: self.figures.lock().iter().map(|(name, value)| (name.clone(), *value)).collect(),
            state,
            faults,
            last_fault: self.last_fault.lock().clone(),
        }
    }

    /// How sentences name it.
    pub(super) fn title(&self) -> String {
        match &self.path {
            Some(path) => format!("plugin '{}' ({})", self.name, path.display()),
            None => format!("the built-in plugin '{}'", self.name),
        }
    }

    pub(super) fn fault(&self, text: &str) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        *self.last_fault.lock() = Some(text.to_owned());
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed_one_is_gone(&self) {
        self.failed.fetch_sub(1, Ordering::Relaxed);
    }
}
