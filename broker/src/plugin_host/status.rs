//! How plugins fare.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use plugin_api::abi::StampInfo;
use plugin_api::abi::guest::Guest;

use super::calls::Site;
use super::log::Figures;
use super::times::{RouteTimes, RouteTimesRead};

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
    /// How long routes took, of those that were timed.
    pub route_times: RouteTimesRead,
    /// The worst state that something of it is in.
    pub state: PluginState,
    /// How often it has panicked, or broken the rules of the ABI.
    pub faults: u64,
    /// The latest of these.
    pub last_fault: Option<String>,
}

/// ```text
///  (file) ──inspect──► Registered ──the broker serves──► Active ──a fault──► Degraded ──PANICS_MAX panics of one exchange──► Failed
///    │                                                     │                    ▲                                              │
///    ▼                                                     │                    └────────── that exchange is deleted ──────────┘
/// Refused                                                  ▼
///                                       Draining ──its calls have ended, or the deadline──► Stopped
/// ```
///
/// From every state of a running broker an orderly stop leads to `Draining`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PluginState {
    /// Its entry has run and what it offers is known; the broker does not serve yet.
    Registered,
    /// It is asked, and has never faulted.
    Active,
    /// It has panicked, or a call of it did not come back, and it is still asked.
    Degraded,
    /// At least one of its exchanges, types or backends is not asked at present.
    Failed,
    /// The broker stops: it is asked nothing new, and calls under way may end.
    Draining,
    /// It is not asked any more.
    Stopped,
    /// Its file was not loaded; the broker was told that it can do without (`required: false`).
    Refused,
}

impl PluginState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Registered, Self::Active, Self::Degraded, Self::Failed, Self::Draining, Self::Stopped, Self::Refused];

    /// The word for it in lists, metrics and the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Refused => "refused",
        }
    }
}

/// How far a plugin is, faults aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    Registered,
    Active,
    Draining,
    Stopped,
}

impl Phase {
    fn of(number: u8) -> Self {
        let all = [Self::Registered, Self::Active, Self::Draining];
        all.get(usize::from(number)).copied().unwrap_or(Self::Stopped)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
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
    /// A [`Phase`].
    phase: AtomicU8,
    /// By what its calls are found.
    pub(super) site: Site,
    /// Questions to its backends that wait for an answer, whether a thread is at them or not.
    pub(super) questions: AtomicUsize,
    /// Whether the broker's storage is one of its own.
    pub(super) is_storage: AtomicBool,
    pub(super) route_times: RouteTimes,
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
            phase: AtomicU8::new(Phase::Registered as u8),
            site: Site::new(),
            questions: AtomicUsize::new(0),
            is_storage: AtomicBool::new(false),
            route_times: RouteTimes::default(),
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
            phase: AtomicU8::new(Phase::Stopped as u8),
            site: Site::new(),
            questions: AtomicUsize::new(0),
            is_storage: AtomicBool::new(false),
            route_times: RouteTimes::default(),
        }
    }

    /// The same, for a plugin that came from a file.
    pub(super) fn loaded_from(self, path: PathBuf, sha256: String) -> Self {
        Self { path: Some(path), sha256: Some(sha256), ..self }
    }

    pub(super) fn status(&self) -> PluginStatus {
        let faults = self.faults.load(Ordering::Relaxed);
        let state = match (self.phase(), self.failed.load(Ordering::Relaxed), faults) {
            _ if self.is_refused => PluginState::Refused,
            (Phase::Draining, ..) => PluginState::Draining,
            (Phase::Stopped, ..) => PluginState::Stopped,
            (Phase::Registered, 0, 0) => PluginState::Registered,
            (Phase::Active, 0, 0) => PluginState::Active,
            (_, 0, _) => PluginState::Degraded,
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
            route_times: self.route_times.read(),
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

    /// Returns the phase that it leaves.
    pub(super) fn enter(&self, phase: Phase) -> Phase {
        Phase::of(self.phase.swap(phase as u8, Ordering::Relaxed))
    }

    fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::Relaxed))
    }

    /// Whether it takes new calls no more, because the broker stops.
    #[inline]
    pub(super) fn is_stopping(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= Phase::Draining as u8
    }

    pub(super) const fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Calls that have not come back, and questions without an answer.
    pub(super) fn under_way(&self) -> usize {
        // A question may be between two polls, or its thread in one of them.
        self.site.threads().max(self.questions.load(Ordering::Relaxed))
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
