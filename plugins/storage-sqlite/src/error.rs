//! What SQLite's errors mean to the broker.

use plugin_api::storage::StorageError;
use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_IOERR_SHMSIZE, SQLITE_TOOBIG};

/// Why a folder cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// Something that whoever configured this can mend.
    Refused(String),
    /// The disk or the database fails.
    Disk(String),
}

/// Whether there was no room. The file of shared memory needs some as well, which SQLite reports in another way.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_SHMSIZE)
}

/// Whether SQLite keeps nothing of that size, with room or without.
pub(crate) fn is_too_large(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_TOOBIG)
}

/// What the broker is told while `doing` something.
pub(crate) fn told(doing: &str, error: &rusqlite::Error) -> StorageError {
    if is_full(error) {
        StorageError::Full("the disk is full".to_owned())
    } else if is_too_large(error) {
        StorageError::Full("a message is too large for SQLite".to_owned())
    } else {
        StorageError::Failed(format!("{doing} failed: {error}"))
    }
}
