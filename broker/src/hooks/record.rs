//! What the last calls of a hook decided, with the message before and after.
//!
//! A sample: of each kind of decision at most one call in [`SAMPLE_EVERY`] on each worker thread, and the last
//! [`RECORDS_MAX`] of a hook are kept. A record holds what a message says of itself, never its body; whoever may read records
//! sees headers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::view::{Origin, Publish, Rewrite};

/// Records kept for each hook.
pub(super) const RECORDS_MAX: usize = 32;
/// Properties larger than this are left out of a record, so that all of them take little.
pub(super) const RECORD_PROPERTIES_BYTES_MAX: usize = 4 << 10;
/// Between two records of the same decision on the same thread.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
    /// `passed`, `rewritten`, `dropped`, `rejected`, `dead_lettered` or `failed`.
    pub result: &'static str,
    /// The script's reason, or the failure.
    pub reason: Option<String>,
    /// Where it happened.
    pub vhost: String,
    /// What the hook was given.
    pub before: Snapshot,
    /// What it made of a message that it changed.
    pub after: Option<Snapshot>,
}

/// What a hook was given, or gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    /// A message.
    Message(MessageSnapshot),
    /// A client or a declaration, in words.
    Text(String),
}

/// A message at one moment, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageSnapshot {
    /// Where it is.
    pub vhost: String,
    /// The exchange that it was published to.
    pub exchange: String,
    /// Its key.
    pub routing_key: String,
    /// The queue, where it has come out of one.
    pub queue: Option<String>,
    /// Who publishes or consumes.
    pub user: String,
    /// The raw properties; none when they were too large to keep.
    pub properties: Option<Vec<u8>>,
    /// Of its body.
    pub body_bytes: usize,
}

impl MessageSnapshot {
    pub(super) fn of(message: &Publish<'_>, origin: Option<&Origin<'_>>) -> Self {
        let properties = message.properties.raw();
        Self {
            vhost: message.vhost.to_owned(),
            exchange: message.exchange.to_owned(),
            routing_key: message.routing_key.to_owned(),
            queue: origin.map(|origin| origin.queue.to_owned()),
            user: message.user.to_owned(),
            properties: (properties.len() <= RECORD_PROPERTIES_BYTES_MAX).then(|| properties.to_vec()),
            body_bytes: message.body.len(),
        }
    }

    /// The same message behind a rewrite.
    pub(super) fn rewritten(&self, rewrite: &Rewrite) -> Self {
        let mut after = self.clone();
        if let Some(routing_key) = &rewrite.routing_key {
            after.routing_key.clone_from(routing_key);
        }
        if let Some(properties) = &rewrite.properties {
            after.properties = (properties.len() <= RECORD_PROPERTIES_BYTES_MAX).then(|| properties.clone());
        }
        after
    }
}

/// The last records of one hook.
#[derive(Debug, Default)]
pub(super) struct Records(Mutex<VecDeque<Arc<Record>>>);

impl Records {
    pub(super) fn add(&self, record: Record) {
        let mut records = self.0.lock();
        if records.len() >= RECORDS_MAX {
            records.pop_front();
        }
        records.push_back(Arc::new(record));
    }

    /// Latest first.
    pub(super) fn list(&self) -> Vec<Arc<Record>> {
        self.0.lock().iter().rev().cloned().collect()
    }
}

/// When a thread last kept a record of each kind of decision.
#[derive(Debug, Default)]
pub(super) struct Sampler([Option<Instant>; RESULTS]);

impl Sampler {
    /// Whether this call is one to keep.
    pub(super) fn takes(&mut self, result: usize, now: Instant) -> bool {
        let Some(last) = self.0.get_mut(result) else { return false };
        if last.is_some_and(|last| now.saturating_duration_since(last) < SAMPLE_EVERY) {
            return false;
        }
        *last = Some(now);
        true
    }
}

/// Kinds of decisions.
pub(super) const RESULTS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampler_takes_one_of_a_kind_in_its_time() {
        let (mut sampler, start) = (Sampler::default(), Instant::now());
        assert_eq!([sampler.takes(0, start), sampler.takes(0, start), sampler.takes(1, start)], [true, false, true]);
        assert!(sampler.takes(0, start + SAMPLE_EVERY));
        assert!(!sampler.takes(RESULTS, start));
    }

    #[test]
    fn the_oldest_record_goes_first() {
        let records = Records::default();
        for at_ms in 0..RECORDS_MAX as u64 + 3 {
            let before = Snapshot::Text(String::new());
            let vhost = "/".to_owned();
            records.add(Record { at_ms, result: "passed", reason: None, vhost, before, after: None });
        }
        let list = records.list();
        assert_eq!((list.len(), list[0].at_ms, list[RECORDS_MAX - 1].at_ms), (RECORDS_MAX, RECORDS_MAX as u64 + 2, 3));
    }
}
