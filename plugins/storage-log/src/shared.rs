//! What the thread that writes and the threads that read have in common.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plugin_api::host::{self, Level};
use plugin_api::storage::StorageError;

use crate::disk::{Access, Disk, DiskFile};
use crate::error::Damage;
use crate::figures::Figures;
use crate::index::Index;
use crate::index::pieces::SegmentId;
use crate::names;
use crate::options::{Mutant, Options};
use crate::sidecar::Sidecar;

/// Shared by the threads of one storage.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) store: u64,
    index: Mutex<Index>,
    files: Mutex<Vec<OpenFile>>,
    damage: Mutex<Vec<Damage>>,
    /// Indexes that a read found wrong; the writer makes them again.
    repairs: Mutex<Vec<SegmentId>>,
    failure: Mutex<Option<String>>,
    pub(crate) is_full: AtomicBool,
    pub(crate) figures: Figures,
}

struct OpenFile {
    segment: SegmentId,
    part: Part,
    file: Arc<dyn DiskFile>,
    /// The header of an index that has been read.
    sidecar: Option<Sidecar>,
}

/// The two files of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Log,
    Index,
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, options: Options, store: u64, index: Index) -> Self {
        Self {
            disk,
            options,
            store,
            index: Mutex::new(index),
            files: Mutex::default(),
            damage: Mutex::default(),
            repairs: Mutex::default(),
            failure: Mutex::default(),
            is_full: AtomicBool::new(false),
            figures: Figures::default(),
        }
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    /// The file of a segment, from the few that are kept open.
    pub(crate) fn file(&self, segment: SegmentId, part: Part) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = lock(&self.files);
        if let Some(place) = files.iter().position(|open| open.segment == segment && open.part == part) {
            let open = files.remove(place);
            let file = Arc::clone(&open.file);
            files.push(open);
            return Ok(file);
        }
        let name = match part {
            Part::Log => names::segment(segment),
            Part::Index => names::index(segment),
        };
        let file = self.disk.open(&name, Access::Read)?;
        if files.len() >= OPEN_FILES_MAX {
            // The one that was used longest ago; it closes when the last read of it has ended.
            files.remove(0);
        }
        files.push(OpenFile { segment, part, file: Arc::clone(&file), sidecar: None });
        Ok(file)
    }

    /// The index file of a segment with its header, which is read once while the file is open.
    pub(crate) fn sidecar(&self, segment: SegmentId) -> Option<(Arc<dyn DiskFile>, Sidecar)> {
        let file = self.file(segment, Part::Index).ok()?;
        let is_it = |open: &OpenFile| Arc::ptr_eq(&open.file, &file);
        if let Some(sidecar) = lock(&self.files).iter().find(|open| is_it(open)).and_then(|open| open.sidecar) {
            return Some((file, sidecar));
        }
        let sidecar = Sidecar::open(&*file, self.store, segment, self.options.verifies()).ok()?;
        if let Some(open) = lock(&self.files).iter_mut().find(|open| is_it(open)) {
            open.sidecar = Some(sidecar);
        }
        Some((file, sidecar))
    }

    /// The names of this segment's files no longer lead to what was opened.
    pub(crate) fn forget_files(&self, segment: SegmentId) {
        lock(&self.files).retain(|open| open.segment != segment);
    }

    /// Writes down and logs what is wrong.
    pub(crate) fn report(&self, damage: Damage) {
        host::log(Level::Error, TARGET, format_args!("damage in '{}': {damage}", self.disk.title()));
        let mut known = lock(&self.damage);
        if known.len() < DAMAGE_KEPT_MAX && !known.contains(&damage) {
            known.push(damage);
        }
    }

    pub(crate) fn damage(&self) -> Vec<Damage> {
        lock(&self.damage).clone()
    }

    pub(crate) fn ask_repair(&self, segment: SegmentId) {
        let mut repairs = lock(&self.repairs);
        if !repairs.contains(&segment) {
            repairs.push(segment);
        }
    }

    pub(crate) fn next_repair(&self) -> Option<SegmentId> {
        lock(&self.repairs).pop()
    }

    /// Nothing can be promised any more.
    pub(crate) fn fail(&self, doing: &str, error: &io::Error) -> StorageError {
        let mut failure = lock(&self.failure);
        let text = failure.get_or_insert_with(|| {
            let text = format!("{doing} failed: {error}");
            host::log(Level::Error, TARGET, &text);
            text
        });
        StorageError::Failed(text.clone())
    }

    pub(crate) fn failure(&self) -> Option<StorageError> {
        lock(&self.failure).clone().map(StorageError::Failed)
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        if self.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            let text = if is_full { "the disk is full; messages are refused" } else { "the disk has room again" };
            host::log(Level::Warn, TARGET, format_args!("{text} ('{}')", self.disk.title()));
        }
    }

    pub(crate) fn sync_data(&self, file: &dyn DiskFile) -> io::Result<()> {
        if self.options.mutant == Some(Mutant::SkipSyncData) {
            return Ok(());
        }
        self.figures.syncs.time(|| file.sync_data(), |_| 0)
    }

    pub(crate) fn sync_folder(&self) -> io::Result<()> {
        if self.options.mutant == Some(Mutant::SkipSyncFolder) { Ok(()) } else { self.disk.sync_folder() }
    }
}

/// No call leaves what these locks guard half changed, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The target of log lines.
pub(crate) const TARGET: &str = "storage-log";

/// Enough for reads that go back and forth between segments, and far from the limits of a process.
const OPEN_FILES_MAX: usize = 64;

/// Damage is told to the log in any case; this much is kept for whoever asks.
const DAMAGE_KEPT_MAX: usize = 1000;
