//! The one connection that writes: transactions, checkpoints, and what happens when the disk is full.
//!
//! An append is one transaction with a sync. What may be lost in a crash (settled, deleted, marked) is one without; the next sync
//! takes it along. Such a thing is never refused: on a full disk it gets the room that was set aside, and if that is not enough it
//! waits in memory for the next call. A failed write or sync is final.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use plugin_api::host::{self, Level};
use plugin_api::storage::{Append, Durability, Mark, Meta, QueueKey, Recovered, Settle, StorageError};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::database::{checksum, next_message};
use crate::error::{OpenError, is_full, is_too_large, told};
use crate::options::Options;
use crate::places::to_sql;
use crate::read;
use crate::room::TARGET;
use crate::storage::Shared;

/// See the module.
pub(crate) struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    /// The id of the next message.
    next_message: i64,
    /// Whether commits sync, as the connection is set now.
    syncs: bool,
    /// Pages in SQLite's log, told by a hook at each commit.
    wal_pages: Arc<AtomicU64>,
    wal_pages_max: u64,
    /// What found no room.
    postponed: Vec<Forget>,
    failure: Option<String>,
}

/// What may be lost in a crash.
#[derive(Debug, Clone, Copy)]
enum Forget {
    Settle(Settle),
    Delete(QueueKey),
    Mark(Mark),
}

/// What a transaction takes away.
#[derive(Default)]
struct Removed {
    count: u64,
    bytes: u64,
}

impl Writer {
    /// With the connection that writes; nobody else may read yet.
    pub(crate) fn new(mut connection: Connection, shared: Arc<Shared>, options: Options) -> Result<Self, OpenError> {
        let disk = |error: rusqlite::Error| OpenError::Disk(format!("opening the database failed: {error}"));
        let wal_pages = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&wal_pages);
        connection
            .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
                counted.store(u64::try_from(pages).unwrap_or(0), Relaxed);
                Ok(())
            }))
            .map_err(disk)?;
        let next_message = next_message(&connection).map_err(disk)?;
        let wal_pages_max = options.wal_bytes / PAGE_BYTES;
        let mut writer = Self {
            connection,
            shared,
            next_message,
            syncs: true,
            wal_pages,
            wal_pages_max,
            postponed: Vec::new(),
            failure: None,
        };
        // After a sync that failed, a kernel takes its pages for clean, and what SQLite finds in its log may be on no disk. Carried
        // over it is written anew, and synced.
        match writer.checkpoint(Checkpoint::Truncate) {
            Err(StorageError::Failed(text)) => Err(OpenError::Disk(text)),
            _ => Ok(writer),
        }
    }

    /// As [`plugin_api::storage::Storage::append`]; in one transaction.
    pub(crate) fn append(&mut self, batch: &[Append<'_>], kept: Durability) -> Result<(), StorageError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.begin()?;
        let needs = Needs::of(batch);
        if !self.has_room(&needs)? {
            self.shared.room.set_full(true);
            return Err(StorageError::Full(format!("no room for {} bytes", needs.database_bytes)));
        }
        let start = Instant::now();
        let first = self.next_message;
        let appended = self.transaction(kept == Durability::Synced, |transaction| insert(transaction, batch, first));
        let (next, bytes) = match appended {
            Ok(inserted) => inserted,
            Err(error) => return Err(self.refused("storing messages", &error)),
        };
        self.shared.room.set_full(false);
        self.next_message = next;
        let count = batch.iter().map(|message| message.targets.len() as u64).sum();
        self.shared.figures.add_live(count, bytes);
        self.shared.figures.writes.done(start, usize::try_from(bytes).unwrap_or(usize::MAX));
        if kept == Durability::Synced {
            self.shared.figures.syncs.done(start, 0);
        }
        self.carry_over()
    }

    /// As [`plugin_api::storage::Storage::settle`].
    pub(crate) fn settle(&mut self, ranges: &[Settle]) -> Result<(), StorageError> {
        self.forget(ranges.iter().map(|range| Forget::Settle(*range)))
    }

    /// As [`plugin_api::storage::Storage::delete_queue`].
    pub(crate) fn delete_queue(&mut self, queue: QueueKey) -> Result<(), StorageError> {
        self.forget(std::iter::once(Forget::Delete(queue)))
    }

    /// As [`plugin_api::storage::Storage::mark`].
    pub(crate) fn mark(&mut self, marks: &[Mark]) -> Result<(), StorageError> {
        self.forget(marks.iter().map(|mark| Forget::Mark(*mark)))
    }

    /// As [`plugin_api::storage::Storage::put_meta`]; in one transaction.
    pub(crate) fn put_meta(&mut self, entries: &[Meta<'_>]) -> Result<(), StorageError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.begin()?;
        let bytes = entries.iter().map(|entry| entry.key.len() + entry.value.map_or(0, <[u8]>::len)).sum();
        // What is removed makes room; it must not be refused for want of it.
        if entries.iter().any(|entry| entry.value.is_some()) && !self.has_room(&Needs::new(bytes, entries.len()))? {
            return Err(StorageError::Full(format!("no room for {bytes} bytes of definitions")));
        }
        let start = Instant::now();
        let put = self.transaction(true, |transaction| {
            let mut set = transaction.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?;
            let mut remove = transaction.prepare_cached("DELETE FROM meta WHERE key = ?1")?;
            for Meta { key, value } in entries {
                match value {
                    Some(value) => set.execute(params![key, value])?,
                    None => remove.execute([key])?,
                };
            }
            Ok(())
        });
        put.map_err(|error| self.refused("storing definitions", &error))?;
        self.shared.figures.writes.done(start, bytes);
        self.shared.figures.syncs.done(start, 0);
        self.carry_over()
    }

    /// As [`plugin_api::storage::Storage::recover`].
    pub(crate) fn recover(&mut self) -> Result<Recovered, StorageError> {
        self.begin()?;
        let (recovered, count, bytes) = read::recover(&self.connection)
            .map_err(|error| StorageError::Failed(format!("reading what is there failed: {error}")))?;
        self.shared.figures.set_live(count, bytes);
        Ok(recovered)
    }

    /// What comes before anything else: an earlier failure, and what is waiting.
    fn begin(&mut self) -> Result<(), StorageError> {
        if let Some(failure) = &self.failure {
            return Err(failed_before(failure));
        }
        for (queue, seq, why) in self.shared.damage.take_unmoved() {
            let moved = self.transaction(false, |transaction| {
                transaction.execute(MOVE_DAMAGED, params![queue, seq, why])?;
                transaction.execute("DELETE FROM places WHERE queue = ?1 AND seq = ?2", params![queue, seq])
            });
            // It is not served in any case while we run; after the next start it would be told once more.
            if let Err(error) = moved {
                host::log(Level::Warn, TARGET, format_args!("a damaged message stays where it is: {error}"));
            }
        }
        if self.postponed.is_empty() {
            return Ok(());
        }
        let postponed = std::mem::take(&mut self.postponed);
        self.forget_all(&postponed)
    }

    fn forget(&mut self, things: impl Iterator<Item = Forget>) -> Result<(), StorageError> {
        self.begin()?;
        let things: Vec<Forget> = things.collect();
        self.forget_all(&things)
    }

    /// In transactions of a limited length, so that SQLite's log stays short; what finds no room waits.
    fn forget_all(&mut self, things: &[Forget]) -> Result<(), StorageError> {
        let mut at = Position::default();
        while at.thing < things.len() {
            let mut done = self.forget_some(things, at);
            if done.as_ref().is_err_and(is_full) && self.make_room()? {
                done = self.forget_some(things, at);
            }
            match done {
                Ok((next, removed)) => {
                    self.shared.figures.remove_live(removed.count, removed.bytes);
                    at = next;
                }
                Err(error) if is_full(&error) => {
                    self.shared.room.set_full(true);
                    self.postponed.extend(things.iter().skip(at.thing));
                    return Ok(());
                }
                Err(error) => return Err(self.refused("forgetting messages", &error)),
            }
            self.carry_over()?;
        }
        Ok(())
    }

    fn forget_some(&mut self, things: &[Forget], from: Position) -> rusqlite::Result<(Position, Removed)> {
        self.transaction(false, |transaction| {
            let (mut at, mut removed) = (from, Removed::default());
            while let Some(thing) = things.get(at.thing) {
                let next = match *thing {
                    Forget::Settle(range) => remove(transaction, range.queue, at.of(&range), &mut removed)?,
                    Forget::Delete(queue) => {
                        transaction.prepare_cached("DELETE FROM marks WHERE queue = ?1")?.execute([to_sql(queue.0)])?;
                        remove(transaction, queue, (i64::MIN, i64::MAX), &mut removed)?
                    }
                    Forget::Mark(mark) => {
                        let sql = "INSERT INTO marks (queue, last) VALUES (?1, ?2)
                                   ON CONFLICT (queue) DO UPDATE SET last = max(last, excluded.last)";
                        transaction.prepare_cached(sql)?.execute([to_sql(mark.queue.0), to_sql(mark.last.0)])?;
                        None
                    }
                };
                at = match next {
                    Some(seq) => Position { thing: at.thing, seq: Some(seq) },
                    None => Position { thing: at.thing + 1, seq: None },
                };
                if removed.count >= FORGET_MAX {
                    break;
                }
            }
            Ok((at, removed))
        })
    }

    fn transaction<T>(
        &mut self,
        syncs: bool,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if self.syncs != syncs {
            // In a database with a write-ahead log NORMAL means: sync at checkpoints, not at commits.
            let mode = if syncs { "FULL" } else { "NORMAL" };
            self.connection.execute_batch(&format!("PRAGMA synchronous = {mode}"))?;
            self.syncs = syncs;
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// Whether so much of the file is spare that a part is to go back to the disk: others wait for it when the disk is low.
    pub(crate) fn has_much_to_spare(&self) -> bool {
        let count = |pragma: &str| -> rusqlite::Result<u64> {
            let mut asked = self.connection.prepare_cached(pragma)?;
            asked.query_row([], |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()))
        };
        let counts = count("PRAGMA freelist_count").and_then(|spare| Ok((spare, count("PRAGMA page_count")?)));
        // What cannot be told now will be told at the next commit.
        self.failure.is_none() && counts.is_ok_and(|(spare, all)| spare >= self.wal_pages_max && spare >= all / 2)
    }

    /// Gives a part of what is spare back to the disk; false when that is all, or does not go.
    pub(crate) fn give_back(&mut self) -> bool {
        if !self.has_much_to_spare() {
            return false;
        }
        let vacuumed = || -> rusqlite::Result<()> {
            // Each row is a page.
            let mut vacuum = self.connection.prepare(&format!("PRAGMA incremental_vacuum({GIVE_BACK_PAGES})"))?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        match vacuumed() {
            // The file gets shorter when the log has been carried over.
            Ok(()) => self.checkpoint(Checkpoint::Passive).is_ok(),
            Err(error) => {
                self.refused("giving room back to the disk", &error);
                false
            }
        }
    }

    /// What the broker is told of an error; all but a want of room is final.
    fn refused(&mut self, doing: &str, error: &rusqlite::Error) -> StorageError {
        let told = told(doing, error);
        match &told {
            StorageError::Full(_) if !is_too_large(error) => self.shared.room.set_full(true),
            StorageError::Failed(text) => self.fail(text),
            _ => {}
        }
        told
    }

    fn fail(&mut self, text: &str) {
        host::log(Level::Error, TARGET, text);
        self.failure = Some(text.to_owned());
    }

    /// Carries SQLite's log over into the database when it is long.
    fn carry_over(&mut self) -> Result<(), StorageError> {
        if self.wal_pages.load(Relaxed) < self.wal_pages_max {
            return Ok(());
        }
        match self.checkpoint(Checkpoint::Passive) {
            // What was asked for is done; the next append asks for room.
            Err(StorageError::Full(_)) => Ok(()),
            done => done.map(drop),
        }
    }

    /// True when all of the log was carried over, so that it begins anew.
    fn checkpoint(&mut self, kind: Checkpoint) -> Result<bool, StorageError> {
        let sql = match kind {
            Checkpoint::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            Checkpoint::Restart => "PRAGMA wal_checkpoint(RESTART)",
            Checkpoint::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
        };
        let run = |connection: &Connection| {
            connection
                .query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
        };
        let mut done = run(&self.connection);
        if done.as_ref().is_err_and(is_full) && self.shared.room.release() {
            done = run(&self.connection);
        }
        match done {
            Ok((is_busy, pages, carried)) => {
                let is_whole = is_busy == 0 && pages == carried;
                if is_whole {
                    self.wal_pages.store(0, Relaxed);
                }
                Ok(is_whole)
            }
            Err(error) => Err(self.refused("carrying the log over into the database", &error)),
        }
    }

    /// Gives up what was set aside and empties the log; false when neither was of any use.
    fn make_room(&mut self) -> Result<bool, StorageError> {
        let was_released = self.shared.room.release();
        match self.checkpoint(Checkpoint::Restart) {
            Ok(is_whole) => Ok(was_released || is_whole),
            Err(StorageError::Full(_)) => Ok(was_released),
            Err(error) => Err(error),
        }
    }

    /// Whether both the log and the database can take it. Asks the disk alone while that has plenty.
    fn has_room(&mut self, needs: &Needs) -> Result<bool, StorageError> {
        let Some(free) = self.shared.room.free_bytes() else { return Ok(true) };
        let wal_bytes = self.wal_pages_max.saturating_mul(PAGE_BYTES);
        let in_log = self.wal_pages.load(Relaxed).saturating_mul(PAGE_BYTES);
        let plenty = needs.log_bytes + needs.database_bytes + in_log + wal_bytes.saturating_mul(3);
        if free >= plenty {
            self.shared.room.set_aside();
            return Ok(true);
        }
        // With an empty log all that grows is what this batch needs, beyond what the files have to spare.
        let is_empty = match self.checkpoint(Checkpoint::Restart) {
            Err(StorageError::Full(_)) => false,
            done => done?,
        };
        if !is_empty {
            return Ok(false);
        }
        self.shared.room.set_aside();
        let log_path = self.connection.path().map(|path| format!("{path}-wal"));
        let log_bytes = log_path.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |log| log.len());
        let failed = |error| StorageError::Failed(format!("asking for free pages failed: {error}"));
        let spare: i64 = self.connection.query_row("PRAGMA freelist_count", [], |row| row.get(0)).map_err(failed)?;
        let spare_bytes = spare.unsigned_abs().saturating_mul(PAGE_BYTES);
        let growth = needs.log_bytes.saturating_sub(log_bytes) + needs.database_bytes.saturating_sub(spare_bytes);
        Ok(self.shared.room.free_bytes().is_none_or(|free| growth <= free))
    }
}

/// How far a list of things to forget is done.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    thing: usize,
    /// Where in its range, when a part is done.
    seq: Option<i64>,
}

impl Position {
    fn of(self, range: &Settle) -> (i64, i64) {
        (self.seq.unwrap_or_else(|| to_sql(range.first.0)), to_sql(range.last.0))
    }
}

#[derive(Debug, Clone, Copy)]
enum Checkpoint {
    /// As much as goes without waiting.
    Passive,
    /// All, waiting for those who read.
    Restart,
    /// All, and the file is emptied.
    Truncate,
}

/// How much a batch makes files grow, at most.
#[derive(Debug)]
struct Needs {
    log_bytes: u64,
    database_bytes: u64,
}

impl Needs {
    fn of(batch: &[Append<'_>]) -> Self {
        let places = batch.iter().map(|message| message.targets.len()).sum();
        Self::new(batch.iter().map(bytes).sum::<usize>() + batch.len() * ENTRY_BYTES, places)
    }

    /// Each entry of a tree may change a page of its own, which goes to the log as a whole.
    fn new(bytes: usize, entries: usize) -> Self {
        let (bytes, entries) = (bytes as u64, entries as u64);
        let database_bytes = bytes + bytes / 4 + entries * ENTRY_BYTES as u64 * 2 + LITTLE_BYTES;
        Self { log_bytes: database_bytes + entries.min(ENTRY_PAGES_MAX) * PAGE_BYTES, database_bytes }
    }
}

/// Adds the messages; the next id, and how many bytes all their places have.
fn insert(transaction: &Transaction<'_>, batch: &[Append<'_>], first: i64) -> rusqlite::Result<(i64, u64)> {
    let mut message = transaction.prepare_cached(
        "INSERT INTO messages (id, crc, stamp, exchange, routing_key, properties, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut place =
        transaction.prepare_cached("INSERT INTO places (queue, seq, message, bytes) VALUES (?1, ?2, ?3, ?4)")?;
    let mut shared = transaction.prepare_cached("INSERT INTO shared (message, places) VALUES (?1, ?2)")?;
    let (mut id, mut all_bytes) = (first, 0);
    for append in batch.iter().filter(|append| !append.targets.is_empty()) {
        let Append { targets, stamp, exchange, routing_key, properties, body } = *append;
        let crc = checksum(stamp, exchange, routing_key, properties, body);
        message.execute(params![id, crc, stamp.cast_signed(), exchange, routing_key, properties, body])?;
        let length = bytes(append) as u64;
        let is_shared = targets.len() > 1;
        if is_shared {
            shared.execute(params![id, i64::try_from(targets.len()).unwrap_or(i64::MAX)])?;
        }
        for (queue, seq) in targets {
            let id = if is_shared { -id } else { id };
            place.execute(params![to_sql(queue.0), to_sql(seq.0), id, length.cast_signed()])?;
            all_bytes += length;
        }
        id += 1;
    }
    Ok((id, all_bytes))
}

/// Removes the messages of a range, or only the first of them: then where to go on.
fn remove(
    transaction: &Transaction<'_>,
    queue: QueueKey,
    (first, last): (i64, i64),
    removed: &mut Removed,
) -> rusqlite::Result<Option<i64>> {
    let queue = to_sql(queue.0);
    let range = last.checked_sub(first);
    let mut end = None;
    if range.is_none_or(|range| range >= FORGET_MAX.cast_signed()) {
        let sql = "SELECT seq FROM places WHERE queue = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq LIMIT 1 OFFSET ?4";
        let mut nth = transaction.prepare_cached(sql)?;
        end = nth.query_row(params![queue, first, last, FORGET_MAX.cast_signed()], |row| row.get(0)).optional()?;
    }
    // `end` is the first that stays for later.
    let upto: i64 = end.map_or(last, |end: i64| end - 1);
    let mut places = transaction
        .prepare_cached("DELETE FROM places WHERE queue = ?1 AND seq BETWEEN ?2 AND ?3 RETURNING message, bytes")?;
    let gone = places.query_map([queue, first, upto], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let gone: Vec<(i64, i64)> = gone.collect::<rusqlite::Result<_>>()?;
    let mut one_less =
        transaction.prepare_cached("UPDATE shared SET places = places - 1 WHERE message = ?1 RETURNING places")?;
    let mut unshare = transaction.prepare_cached("DELETE FROM shared WHERE message = ?1")?;
    let mut message = transaction.prepare_cached("DELETE FROM messages WHERE id = ?1")?;
    for (id, bytes) in gone {
        removed.count += 1;
        removed.bytes += bytes.unsigned_abs();
        let is_shared = id < 0;
        let id = id.unsigned_abs().cast_signed();
        if is_shared {
            let left: Option<i64> = one_less.query_row([id], |row| row.get(0)).optional()?;
            if left.is_some_and(|left| left > 0) {
                continue;
            }
            unshare.execute([id])?;
        }
        message.execute([id])?;
    }
    Ok(end)
}

/// As [`plugin_api::storage::StoredMessage::bytes`].
const fn bytes(message: &Append<'_>) -> usize {
    message.exchange.len() + message.routing_key.len() + message.properties.len() + message.body.len()
}

/// What is said after a failure.
pub(crate) fn failed_before(failure: &str) -> StorageError {
    StorageError::Failed(format!("nothing is written after: {failure}"))
}

const MOVE_DAMAGED: &str = "INSERT OR REPLACE INTO damaged (queue, seq, message, why)
    SELECT queue, seq, message, ?3 FROM places WHERE queue = ?1 AND seq = ?2";
/// SQLite's own choice.
const PAGE_BYTES: u64 = 4096;
/// What an entry costs beside its contents.
const ENTRY_BYTES: usize = 64;
/// Upper levels of the trees, and what is not foreseen.
const LITTLE_BYTES: u64 = 64 << 10;
/// Beyond this, entries share pages.
const ENTRY_PAGES_MAX: u64 = 10_000;
/// As many pages are given back in one transaction, so that others have a turn.
const GIVE_BACK_PAGES: u32 = 1024;
/// As many messages are forgotten in one transaction, so that the log stays short and others have a turn.
const FORGET_MAX: u64 = 2_000;
