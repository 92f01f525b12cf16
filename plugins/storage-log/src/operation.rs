//! What is asked of the log.

use plugin_api::storage::{Append, Durability, Mark, MessageSeq, Meta, QueueKey, Settle};

use crate::format::frame::FRAME_HEADER_BYTES;
use crate::format::record;
use crate::index::{Added, Entry as Place};

/// One commit. Order is kept among all of them.
#[derive(Debug)]
pub enum Operation {
    /// Messages, and how far they are to be kept when the commit is done: what asks for less than a sync gets none.
    Append(Commit, Durability),
    /// Settled ranges.
    Settle(Vec<Settle>),
    /// A queue is gone.
    Delete(QueueKey),
    /// Marks of what may have been handed out.
    Mark(Vec<Mark>),
    /// Metadata entries, all or none of them.
    PutMeta(Vec<Entry>),
}

/// A metadata entry, removed when it has no value.
pub type Entry = (Vec<u8>, Option<Vec<u8>>);

impl Operation {
    /// The metadata entries as an operation.
    #[must_use]
    pub fn put_meta(entries: &[Meta<'_>]) -> Self {
        let owned = entries.iter().map(|entry| (entry.key.to_vec(), entry.value.map(<[u8]>::to_vec)));
        Self::PutMeta(owned.collect())
    }
}

/// Messages in the form that they have in the log, with room for a frame's header in front.
#[derive(Debug, Default)]
pub struct Commit {
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: u32,
    /// Offsets are counted from the start of the frame.
    pub(crate) added: Vec<Added>,
}

impl Commit {
    /// Encodes messages; those without targets are left out.
    #[must_use]
    pub fn new(batch: &[Append<'_>]) -> Self {
        Self::encode(batch, Vec::new())
    }

    /// As [`Self::new`], into a buffer that was used before.
    pub(crate) fn encode(batch: &[Append<'_>], mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        let wanted = batch.iter().map(record::message_bytes).sum::<usize>() + FRAME_HEADER_BYTES + 8;
        buffer.reserve(wanted);
        let mut commit = Self::begin(buffer);
        commit.added.reserve(batch.iter().map(|message| message.targets.len()).sum());
        for message in batch.iter().filter(|message| !message.targets.is_empty()) {
            commit.push(message.targets, |out| record::encode_message(message, out));
        }
        commit
    }

    pub(crate) fn begin(mut buffer: Vec<u8>) -> Self {
        buffer.resize(FRAME_HEADER_BYTES, 0);
        Self { bytes: buffer, records: 0, added: Vec::new() }
    }

    /// Adds the record of a message for these targets.
    pub(crate) fn push(&mut self, targets: &[(QueueKey, MessageSeq)], encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        encode(&mut self.bytes);
        let length = self.bytes.len() - start;
        let place = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let bytes = length as u64 / (targets.len() as u64).max(1);
        self.records += 1;
        self.added.extend(targets.iter().map(|(queue, seq)| Added {
            queue: queue.0,
            entry: Place { seq: seq.0, offset: place(start), length: place(length) },
            bytes,
        }));
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.bytes.len().saturating_sub(FRAME_HEADER_BYTES)
    }
}
