//! Storage `sqlite`: messages and definitions in one SQLite database, synced before a publish is confirmed.
//!
//! For those who want a file that other tools can read and a database whose behaviour in accidents is known, at a part of the
//! speed of `storage-log`. From above to below: [`SqliteStorage`] has the futures and the threads that read, `writer` the one
//! connection that writes, `room` the disk, `read` and `database` the queries and the tables.

mod database;
mod error;
mod figures;
mod options;
mod places;
mod read;
mod room;
mod storage;
mod unusable;
mod writer;

use std::sync::Arc;

use plugin_api::error::Invalid;
use plugin_api::storage::{Storage, StorageSpec, StorageType};

pub use options::Options;
pub use storage::SqliteStorage;

use crate::error::OpenError;

/// The kind of storage, as registered.
pub struct SqliteType;

impl StorageType for SqliteType {
    fn name(&self) -> &str {
        "sqlite"
    }

    fn description(&self) -> &str {
        "keeps messages in an SQLite database, synced before they are confirmed"
    }

    fn open(&self, spec: &StorageSpec) -> Result<Arc<dyn Storage>, Invalid> {
        let Some(folder) = &spec.folder else {
            return Err(Invalid::new("needs a data folder: give one with --data DIR"));
        };
        let cannot = |error| {
            let title = folder.display();
            Invalid::new(format!("data folder '{title}' cannot be made ({error}): make it, or name another"))
        };
        std::fs::create_dir_all(folder).map_err(cannot)?;
        let options = Options::from_config(&spec.config, folder)?;
        match SqliteStorage::open(folder, options) {
            Ok(storage) => Ok(Arc::new(storage)),
            Err(OpenError::Refused(text)) => Err(Invalid::new(text)),
            // Nobody has asked for anything wrong: that the disk fails is for the recovery to say.
            Err(OpenError::Disk(text)) => Ok(Arc::new(unusable::Unusable(text))),
        }
    }
}

plugin_api::export_plugin!(storages: [SqliteType]);
