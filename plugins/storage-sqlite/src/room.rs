//! Room on the disk: whether there is enough for a batch, and what is set aside for a full disk.
//!
//! SQLite notices a full disk only when it is full, perhaps while it carries its log over into the database, and is stuck
//! then. So whoever writes asks here before, and a file of zeros makes room for settling when others have filled the disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use plugin_api::host::{self, Level};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// See the module.
#[derive(Debug)]
pub(crate) struct Room {
    folder: PathBuf,
    reserve_bytes: u64,
    has_reserve: AtomicBool,
    is_full: AtomicBool,
}

impl Room {
    /// Sets room aside, as far as there is some.
    pub(crate) fn new(folder: &Path, reserve_bytes: u64) -> Self {
        let room = Self {
            folder: folder.to_path_buf(),
            reserve_bytes,
            has_reserve: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
        };
        room.set_aside();
        room
    }

    /// What the disk has free; `None` when it does not say.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        statvfs(&self.folder).ok().map(|answer| answer.f_bavail.saturating_mul(answer.f_frsize))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Relaxed)
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        if self.is_full.swap(is_full, Relaxed) != is_full {
            let text = if is_full { "the disk is full; messages are refused" } else { "the disk has room again" };
            host::log(Level::Warn, TARGET, format_args!("{text} ('{}')", self.folder.display()));
        }
    }

    /// Sets the reserve aside if it is missing and there is room for twice as much.
    pub(crate) fn set_aside(&self) {
        if self.has_reserve.load(Relaxed) {
            return;
        }
        let path = self.folder.join(RESERVE);
        let is_there = path.metadata().is_ok_and(|found| found.len() == self.reserve_bytes);
        let has_room = || self.free_bytes().is_none_or(|free| free >= self.reserve_bytes.saturating_mul(2));
        let is_made = is_there || (has_room() && allocate(&path, self.reserve_bytes).is_ok());
        self.has_reserve.store(is_made, Relaxed);
    }

    /// Gives the reserve up; false when there was none.
    pub(crate) fn release(&self) -> bool {
        let had_reserve = self.has_reserve.swap(false, Relaxed);
        fs::remove_file(self.folder.join(RESERVE)).is_ok() && had_reserve
    }
}

/// How large the disk of a folder is; `None` when it does not say.
pub(crate) fn total_bytes(folder: &Path) -> Option<u64> {
    statvfs(folder).ok().map(|answer| answer.f_blocks.saturating_mul(answer.f_frsize))
}

fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let allocated = File::create(path).and_then(|mut file| match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // Some file systems cannot; zeros do as well where nothing is compressed.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = vec![0; ZEROS_BYTES];
            (0..bytes.div_ceil(ZEROS_BYTES as u64)).try_for_each(|_| file.write_all(&zeros))?;
            file.set_len(bytes)
        }
        Err(error) => Err(error.into()),
    });
    if allocated.is_err() {
        // Half of it would be in the way.
        drop(fs::remove_file(path));
    }
    allocated
}

/// The file that is set aside.
const RESERVE: &str = "reserve";
const ZEROS_BYTES: usize = 64 << 10;
/// The target of log lines.
pub(crate) const TARGET: &str = "storage-sqlite";
