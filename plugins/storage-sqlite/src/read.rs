//! Reading: messages of a queue, and what is there at a start.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plugin_api::host::{self, Level};
use plugin_api::storage::{MessageSeq, QueueKey, Recovered, RecoveredQueue, StorageError, StoredMessage, Wanted};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::database::checksum;
use crate::error::told;
use crate::places::{extend, from_sql, to_sql};
use crate::room::TARGET;

/// What has been found damaged since the database was opened.
#[derive(Debug, Default)]
pub(crate) struct Damage(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    places: HashSet<(i64, i64)>,
    sentences: Vec<String>,
    /// What the connection that writes has not moved into its table yet.
    unmoved: Vec<(i64, i64, String)>,
}

impl Damage {
    /// One sentence for each, at most a thousand.
    pub(crate) fn sentences(&self) -> Vec<String> {
        self.found().sentences.clone()
    }

    /// What is to be moved out of the way.
    pub(crate) fn take_unmoved(&self) -> Vec<(i64, i64, String)> {
        std::mem::take(&mut self.found().unmoved)
    }

    fn contains(&self, queue: i64, seq: i64) -> bool {
        self.found().places.contains(&(queue, seq))
    }

    fn tell(&self, queue: i64, seq: i64, why: &str) -> StorageError {
        let text = format!("message {} of queue {}: {why}", from_sql(seq), from_sql(queue));
        let mut found = self.found();
        if found.places.insert((queue, seq)) {
            host::log(Level::Error, TARGET, format_args!("damaged, and not served: {text}"));
            if found.sentences.len() < SENTENCES_MAX {
                found.sentences.push(text.clone());
            }
            found.unmoved.push((queue, seq, why.to_owned()));
        }
        StorageError::Damaged(text)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        // No call leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As [`plugin_api::storage::Storage::read`].
pub(crate) fn read(
    connection: &mut Connection,
    damage: &Damage,
    wanted: &Wanted,
) -> Result<Vec<StoredMessage>, StorageError> {
    let failed = |error: rusqlite::Error| told("reading messages", &error);
    // Of one moment, so that no message is settled between its place and its body.
    let moment = connection.transaction().map_err(failed)?;
    let queue = to_sql(wanted.queue.0);
    let mut places = moment.prepare_cached(PLACES).map_err(failed)?;
    let mut message = moment.prepare_cached(MESSAGE).map_err(failed)?;
    let mut rows = places.query(params![queue, to_sql(wanted.first.0), to_sql(wanted.last.0)]).map_err(failed)?;
    let mut bytes_left = wanted.bytes_max;
    let mut found: Vec<StoredMessage> = Vec::new();
    while found.len() < wanted.count_max {
        let Some(row) = rows.next().map_err(failed)? else { break };
        let (seq, id, bytes) = place(row).map_err(failed)?;
        if damage.contains(queue, seq) {
            continue;
        }
        match bytes_left.checked_sub(bytes) {
            Some(left) => bytes_left = left,
            None if found.is_empty() => bytes_left = 0,
            None => break,
        }
        let stored = message.query_row([id.unsigned_abs().cast_signed()], |row| stored(row, seq));
        let why = match stored.optional() {
            Ok(Some(Some(stored))) => {
                found.push(stored);
                continue;
            }
            Ok(Some(None)) => "its checksum is wrong",
            Ok(None) => "its contents are missing",
            // Another type than was written.
            Err(rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..)) => {
                "its contents cannot be read"
            }
            Err(error) => return Err(failed(error)),
        };
        return if found.is_empty() { Err(damage.tell(queue, seq, why)) } else { Ok(found) };
    }
    Ok(found)
}

/// As [`plugin_api::storage::Storage::recover`]; also the count and bytes of what is live. Reads no bodies.
pub(crate) fn recover(connection: &Connection) -> rusqlite::Result<(Recovered, u64, u64)> {
    let mut recovered = Recovered::default();
    let mut meta = connection.prepare("SELECT key, value FROM meta ORDER BY key")?;
    recovered.meta = meta.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut places = connection.prepare("SELECT queue, seq, bytes FROM places ORDER BY queue, seq")?;
    let mut rows = places.query([])?;
    let (mut live_count, mut live_bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        let (queue, seq) = (QueueKey(from_sql(row.get(0)?)), MessageSeq(from_sql(row.get(1)?)));
        live_count += 1;
        live_bytes += row.get::<_, i64>(2)?.unsigned_abs();
        match recovered.queues.last_mut() {
            Some(last) if last.queue == queue => extend(&mut last.ranges, seq),
            _ => recovered.queues.push(RecoveredQueue { queue, ranges: vec![(seq, seq)], marked: None }),
        }
    }
    let mut mark = connection.prepare("SELECT last FROM marks WHERE queue = ?1")?;
    for queue in &mut recovered.queues {
        let mark: Option<i64> = mark.query_row([to_sql(queue.queue.0)], |row| row.get(0)).optional()?;
        let last = queue.ranges.last().map(|(_, last)| *last);
        queue.marked = mark.map(|mark| MessageSeq(from_sql(mark))).zip(last).map(|(mark, last)| mark.min(last));
    }
    Ok((recovered, live_count, live_bytes))
}

fn place(row: &Row<'_>) -> rusqlite::Result<(i64, i64, usize)> {
    Ok((row.get(0)?, row.get(1)?, usize::try_from(row.get::<_, i64>(2)?).unwrap_or(usize::MAX)))
}

/// `None` when the checksum is wrong.
fn stored(row: &Row<'_>, seq: i64) -> rusqlite::Result<Option<StoredMessage>> {
    let crc: i64 = row.get(0)?;
    let message = StoredMessage {
        seq: MessageSeq(from_sql(seq)),
        stamp: row.get::<_, i64>(1)?.cast_unsigned(),
        exchange: row.get(2)?,
        routing_key: row.get(3)?,
        properties: row.get(4)?,
        body: row.get(5)?,
    };
    let StoredMessage { stamp, exchange, routing_key, properties, body, .. } = &message;
    let is_sound = i64::from(checksum(*stamp, exchange, routing_key, properties, body)) == crc;
    Ok(is_sound.then_some(message))
}

const PLACES: &str = "SELECT seq, message, bytes FROM places WHERE queue = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq";
const MESSAGE: &str = "SELECT crc, stamp, exchange, routing_key, properties, body FROM messages WHERE id = ?1";
/// Damage is told to the log in any case; this much is kept for whoever asks.
const SENTENCES_MAX: usize = 1000;
