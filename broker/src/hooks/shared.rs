//! `broker.shared`: values and counters that all worker threads see, and that outlive a reload.
//!
//! Each script file has a store of its own, whatever the number of hooks that are declared with it: one script cannot fill or
//! change another's. A store holds [`SHARED_BYTES_MAX`] bytes in [`SHARED_ENTRIES_MAX`] entries. When it is full, what has
//! expired goes; if that is not enough, the script gets an error, and `on_error` decides.
//!
//! Nothing here survives the broker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

/// What the entries of one script may take together, in bytes, with [`ENTRY_OVERHEAD_BYTES`] for each.
pub(super) const SHARED_BYTES_MAX: usize = 8 << 20;
/// How many entries one script may have: counters of some ten thousand clients.
pub(super) const SHARED_ENTRIES_MAX: usize = 64 << 10;
/// The longest key.
pub(super) const SHARED_KEY_BYTES_MAX: usize = 255;
/// The longest text: what a header holds at most, about.
pub(super) const SHARED_VALUE_BYTES_MAX: usize = 64 << 10;

/// What an entry takes beside its key and its text, about.
const ENTRY_OVERHEAD_BYTES: usize = 64;
/// A full store is searched for what has expired once in so many milliseconds, because the search looks at everything.
const SWEEP_EVERY_MS: u64 = 100;

/// The stores of all scripts, by file.
#[derive(Debug, Default)]
pub(super) struct Stores(Mutex<BTreeMap<PathBuf, Arc<Store>>>);

impl Stores {
    pub(super) fn of(&self, script: &Path) -> Arc<Store> {
        Arc::clone(self.0.lock().entry(script.to_path_buf()).or_default())
    }

    /// Forgets the stores of scripts that are not in use any more.
    pub(super) fn retain(&self, is_in_use: impl Fn(&Path) -> bool) {
        self.0.lock().retain(|script, _| is_in_use(script));
    }
}

/// The entries of one script.
#[derive(Debug, Default)]
pub(super) struct Store(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Box<[u8]>, Entry>,
    bytes: usize,
    swept_ms: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    value: Shared,
    /// By the steady clock.
    expires_ms: Option<u64>,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shared {
    Number(f64),
    Bool(bool),
    Text(Box<[u8]>),
}

/// Why a value is not kept. The texts go to the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SharedError {
    #[error("a key of broker.shared has 1 to {SHARED_KEY_BYTES_MAX} bytes")]
    Key,
    #[error("a value of broker.shared has at most {SHARED_VALUE_BYTES_MAX} bytes")]
    Value,
    #[error(
        "broker.shared is full: a script has at most {SHARED_ENTRIES_MAX} entries and {SHARED_BYTES_MAX} bytes in it; give entries a time to live"
    )]
    Full,
    #[error("broker.shared.add: there is something else than a number under this key")]
    NoNumber,
}

impl Store {
    pub(super) fn get(&self, now_ms: u64, key: &[u8]) -> Option<Shared> {
        self.0.lock().live(now_ms, key).map(|entry| entry.value.clone())
    }

    /// Sets a value, which is there for `ttl_ms`, or until it is removed; none removes it.
    pub(super) fn set(
        &self,
        now_ms: u64,
        key: &[u8],
        value: Option<Shared>,
        ttl_ms: Option<u64>,
    ) -> Result<(), SharedError> {
        let mut entries = self.0.lock();
        let Some(value) = value else {
            entries.remove(key);
            return Ok(());
        };
        let expires_ms = ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms));
        entries.put(now_ms, key, Entry { value, expires_ms })
    }

    /// Adds to a counter, which begins with 0, and gives the sum. `ttl_ms` counts from when the counter began, so that it is
    /// the length of a window.
    pub(super) fn add(&self, now_ms: u64, key: &[u8], amount: f64, ttl_ms: Option<u64>) -> Result<f64, SharedError> {
        let mut entries = self.0.lock();
        if let Some(entry) = entries.live(now_ms, key) {
            let Shared::Number(sum) = &mut entry.value else { return Err(SharedError::NoNumber) };
            *sum += amount;
            return Ok(*sum);
        }
        let expires_ms = ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms));
        entries.put(now_ms, key, Entry { value: Shared::Number(amount), expires_ms })?;
        Ok(amount)
    }

    pub(super) fn clear(&self) {
        *self.0.lock() = Entries::default();
    }
}

impl Entries {
    fn live(&mut self, now_ms: u64, key: &[u8]) -> Option<&mut Entry> {
        if self.by_key.get(key)?.has_expired(now_ms) {
            self.remove(key);
        }
        self.by_key.get_mut(key)
    }

    fn put(&mut self, now_ms: u64, key: &[u8], entry: Entry) -> Result<(), SharedError> {
        if key.is_empty() || key.len() > SHARED_KEY_BYTES_MAX {
            return Err(SharedError::Key);
        }
        if entry.value.bytes() > SHARED_VALUE_BYTES_MAX {
            return Err(SharedError::Value);
        }
        self.remove(key);
        let bytes = ENTRY_OVERHEAD_BYTES + key.len() + entry.value.bytes();
        if !self.has_room(bytes) {
            self.sweep(now_ms);
            if !self.has_room(bytes) {
                return Err(SharedError::Full);
            }
        }
        self.bytes += bytes;
        self.by_key.insert(key.into(), entry);
        Ok(())
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.by_key.len() < SHARED_ENTRIES_MAX && self.bytes + bytes <= SHARED_BYTES_MAX
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.by_key.remove(key) {
            self.bytes -= ENTRY_OVERHEAD_BYTES + key.len() + entry.value.bytes();
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        if self.swept_ms.is_some_and(|swept_ms| now_ms < swept_ms.saturating_add(SWEEP_EVERY_MS)) {
            return;
        }
        self.swept_ms = Some(now_ms);
        let mut freed = 0;
        self.by_key.retain(|key, entry| {
            let stays = !entry.has_expired(now_ms);
            if !stays {
                freed += ENTRY_OVERHEAD_BYTES + key.len() + entry.value.bytes();
            }
            stays
        });
        self.bytes -= freed;
    }
}

impl Entry {
    fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }
}

impl Shared {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Number(_) | Self::Bool(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_counts_within_its_window_and_begins_again_after_it() {
        let store = Store::default();
        let add = |now_ms| store.add(now_ms, b"k", 1.0, Some(1000));
        assert_eq!([add(0), add(10), add(999)], [Ok(1.0), Ok(2.0), Ok(3.0)]);
        assert_eq!([add(1000), add(1999)], [Ok(1.0), Ok(2.0)], "the window does not move with its last count");
    }

    #[test]
    fn values_expire_and_can_be_removed() {
        let store = Store::default();
        let text = Shared::Text(b"v".as_slice().into());
        store.set(0, b"a", Some(text.clone()), Some(5)).unwrap();
        store.set(0, b"b", Some(Shared::Bool(true)), None).unwrap();
        assert_eq!((store.get(4, b"a"), store.get(5, b"a")), (Some(text), None));
        assert_eq!(store.get(u64::MAX, b"b"), Some(Shared::Bool(true)));
        assert_eq!(store.add(6, b"b", 1.0, None), Err(SharedError::NoNumber));
        store.set(6, b"b", None, None).unwrap();
        assert_eq!(store.get(6, b"b"), None);
        assert_eq!(store.0.lock().bytes, 0, "what is gone takes nothing");
    }

    #[test]
    fn a_full_store_makes_room_by_what_has_expired_and_else_refuses() {
        let store = Store::default();
        for number in 0..SHARED_ENTRIES_MAX {
            store.set(0, &number.to_be_bytes(), Some(Shared::Bool(true)), Some(50)).unwrap();
        }
        let more = |now_ms| store.set(now_ms, b"more", Some(Shared::Bool(true)), None);
        assert_eq!(more(1), Err(SharedError::Full));
        assert_eq!(more(60), Err(SharedError::Full), "it was searched a moment ago");
        assert_eq!(more(1 + SWEEP_EVERY_MS), Ok(()));
        let text = || Some(Shared::Text(vec![b'x'; SHARED_VALUE_BYTES_MAX].into()));
        let refused = (0..1000_u32).filter(|key| store.set(200, &key.to_be_bytes(), text(), None).is_err()).count();
        assert!(refused > 0 && store.0.lock().bytes <= SHARED_BYTES_MAX, "bytes are bounded, too");
        assert_eq!(store.set(200, &[b'x'; 256], Some(Shared::Bool(true)), None), Err(SharedError::Key));
    }
}
