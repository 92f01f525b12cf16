//! Storage `log`: one segmented append-only log for all queues, and a confirm that means "on the disk".
//!
//! The readme says what it promises and draws the files. From above to below: [`LogStorage`] has the threads and the
//! futures, `writer` who writes when, [`Log`] writes, `recovery` reads a folder at start, `index` knows what is live and where, `format` knows the
//! bytes, [`disk`] is the little that is asked of an operating system, and [`sim`] a disk that forgets what was not synced.
//! [`check`] and [`stats`] look at a folder without changing it.

mod check;
mod checkpoint;
pub mod disk;
mod error;
mod figures;
mod format;
mod index;
mod log;
mod names;
mod oneshot;
mod operation;
mod options;
mod read;
mod recovery;
mod scan;
mod shared;
mod sidecar;
pub mod sim;
mod storage;
mod unusable;
mod writer;

use std::sync::Arc;

use plugin_api::error::Invalid;
use plugin_api::storage::{Storage, StorageSpec, StorageType};

pub use check::{CheckReport, StatsReport, check, check_disk, contents, stats, stats_disk};
pub use error::{Damage, OpenError};
pub use format::FORMAT_VERSION;
pub use log::Log;
pub use operation::{Commit, Entry, Operation};
#[doc(hidden)]
pub use options::Mutant;
pub use options::Options;
pub use storage::LogStorage;

use crate::disk::RealDisk;

/// The kind of storage, as registered.
pub struct LogType;

impl StorageType for LogType {
    fn name(&self) -> &str {
        "log"
    }

    fn description(&self) -> &str {
        "keeps messages in a log on the disk, synced before they are confirmed"
    }

    fn open(&self, spec: &StorageSpec) -> Result<Arc<dyn Storage>, Invalid> {
        let Some(folder) = &spec.folder else {
            return Err(Invalid::new("needs a data folder: give one with --data DIR"));
        };
        let disk = RealDisk::new(folder);
        disk.create_folder().map_err(|error| {
            Invalid::new(format!(
                "data folder '{}' cannot be made ({error}): make it, or name another",
                folder.display()
            ))
        })?;
        let options = Options::from_config(&spec.config, &disk)?;
        match LogStorage::open(Arc::new(disk), options) {
            Ok(storage) => Ok(Arc::new(storage)),
            // Nobody has asked for anything wrong: that the disk fails is for the recovery to say.
            Err(error @ OpenError::Io { .. }) => Ok(Arc::new(unusable::Unusable(error.to_string()))),
            Err(error) => Err(Invalid::new(error.to_string())),
        }
    }
}

plugin_api::export_plugin!(storages: [LogType]);
