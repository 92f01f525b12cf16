//! The file, its tables and how connections to it are made.
//!
//! ```text
//! messages   id | crc | stamp | exchange | routing_key | properties | body     each message once
//! places     queue, seq | message | bytes                                      where it is; small, so that a start reads no body
//! shared     message | places                                                  how many places, for messages with several
//! marks      queue | last
//! meta       key | value
//! damaged    queue, seq | message | why                                        kept for people to look at, never served
//! ```
//!
//! A message with several places stands in `places` by its negative id, so that those with one need no entry in `shared`.
//! Queues, positions and marks are shifted by 2^63, as SQLite's integers have a sign.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use crate::error::OpenError;
use crate::options::Options;

/// The name of the database in its folder.
pub(crate) const FILE: &str = "messages.sqlite";

/// Opens the connection that writes, and makes the tables in a new database.
pub(crate) fn open_writer(folder: &Path, options: &Options) -> Result<Connection, OpenError> {
    let path = folder.join(FILE);
    let disk = |error: rusqlite::Error| OpenError::Disk(format!("opening '{}' failed: {error}", path.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(disk)?;
    set_up(&connection).map_err(disk)?;
    // Counts in a new database only: without it the file would never get shorter, and a low disk stay low.
    // What speaks against the file comes back from the next question.
    drop(connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL"));
    check_owner(&connection, &path)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(disk)?;
    if mode != "wal" {
        let text = format!("'{}' does not allow a write-ahead log (shared memory): use a local disk", folder.display());
        return Err(OpenError::Refused(text));
    }
    // Checkpoints are ours: SQLite's own would ignore that a sync failed.
    let pragmas = format!(
        "PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = FULL; PRAGMA cache_size = -{};
         PRAGMA journal_size_limit = {};",
        options.cache_bytes >> 10,
        options.wal_bytes.saturating_mul(2),
    );
    connection.execute_batch(&pragmas).map_err(disk)?;
    connection.execute_batch(TABLES).map_err(disk)?;
    // The names of new files are durable before anything in them is.
    let sync = |folder: &Path| File::open(folder)?.sync_all();
    let synced = sync(folder).and_then(|()| folder.canonicalize()?.parent().map_or(Ok(()), sync));
    synced.map_err(|error| OpenError::Disk(format!("syncing the folder '{}' failed: {error}", folder.display())))?;
    Ok(connection)
}

/// Opens a connection that reads.
pub(crate) fn open_reader(folder: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(folder.join(FILE), flags)?;
    set_up(&connection)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -2048;")?;
    Ok(connection)
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;")
}

/// A database that is not ours, or of a later version, is refused.
fn check_owner(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    let found = pragma("application_id").and_then(|id| Ok((id, pragma("user_version")?, pragma("schema_version")?)));
    let title = path.display();
    match found {
        Ok((APPLICATION, FORMAT, _)) => Ok(()),
        Ok((APPLICATION, format, _)) => Err(OpenError::Refused(format!(
            "'{title}' has format {format}, and this plugin knows format {FORMAT}: use the version of the plugin that wrote it"
        ))),
        Ok((0, 0, 0)) => {
            let set = format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT};");
            let set = connection.execute_batch(&set);
            set.map_err(|error| OpenError::Disk(format!("writing to '{title}' failed: {error}")))
        }
        Ok(_) => Err(OpenError::Refused(format!("'{title}' is a database of something else: name another folder"))),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            Err(OpenError::Refused(format!("'{title}' is no database: move it away, or name another folder")))
        }
        Err(error) => Err(OpenError::Disk(format!("reading '{title}' failed: {error}"))),
    }
}

/// What a message's contents are checked by, since SQLite has no checksums of its own in the database.
pub(crate) fn checksum(stamp: u64, exchange: &str, routing_key: &str, properties: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32c::crc32c(&stamp.to_le_bytes());
    for part in [exchange.as_bytes(), routing_key.as_bytes(), properties, body] {
        crc = crc32c::crc32c_append(crc, &(part.len() as u64).to_le_bytes());
        crc = crc32c::crc32c_append(crc, part);
    }
    crc
}

/// The id for the next message: behind all others, so that messages are added at one end of their tree.
pub(crate) fn next_message(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT coalesce(max(id), 0) + 1 FROM messages", params![], |row| row.get(0))
}

const TABLES: &str = "
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, stamp INTEGER NOT NULL, exchange TEXT NOT NULL, routing_key TEXT NOT NULL,
    properties BLOB NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS places (
    queue INTEGER NOT NULL, seq INTEGER NOT NULL, message INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shared (message INTEGER PRIMARY KEY, places INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS marks (queue INTEGER PRIMARY KEY, last INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS meta (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS damaged (
    queue INTEGER NOT NULL, seq INTEGER NOT NULL, message INTEGER NOT NULL, why TEXT NOT NULL, PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;
COMMIT;";

/// `brkr`.
const APPLICATION: i32 = 0x6272_6b72;
const FORMAT: i32 = 1;
/// Only checkpoints and short reads can be in the way of one another.
const BUSY: Duration = Duration::from_secs(10);
