//! What a storage must hold.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::storage::{Recovered, StoredMessage};

/// Queue and position.
pub(crate) type Key = (u64, u64);

/// What is known about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Confirmed: it must be there.
    Kept,
    /// Written without a sync, or caught by a crash: it may be there.
    Maybe,
    /// Settled, but not yet durably so: a crash may bring it back.
    Settled,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) messages: BTreeMap<Key, Known>,
    /// The values that an entry may have; `None` is none.
    meta: BTreeMap<Vec<u8>, BTreeSet<Option<Vec<u8>>>>,
    /// A message that is damaged has been told; it may be missing.
    pub(crate) forgiven: BTreeSet<Key>,
}

impl Model {
    pub(crate) fn add(&mut self, key: Key, known: Known) {
        self.messages.insert(key, known);
    }

    pub(crate) fn settle(&mut self, queue: u64, first: u64, last: u64) {
        if first <= last {
            self.messages.range_mut((queue, first)..=(queue, last)).for_each(|(_, known)| *known = Known::Settled);
        }
    }

    /// Everything written so far is durable.
    pub(crate) fn synced(&mut self) {
        self.messages.retain(|_, known| *known != Known::Settled);
        self.messages.values_mut().for_each(|known| *known = Known::Kept);
    }

    pub(crate) fn put_meta(&mut self, key: &[u8], value: Option<&[u8]>, is_confirmed: bool) {
        let values = self.meta.entry(key.to_vec()).or_insert_with(|| [None].into());
        if is_confirmed {
            values.clear();
        }
        values.insert(value.map(<[u8]>::to_vec));
    }

    /// What is there while the process lives: settled is gone, the rest is there.
    pub(crate) fn live(&self, queue: u64, from: u64) -> impl Iterator<Item = u64> {
        let all = self.messages.range((queue, from)..=(queue, u64::MAX));
        all.filter(|(_, known)| **known != Known::Settled).map(|((_, seq), _)| *seq)
    }

    /// After opening: everything that must be there is, nothing that cannot be is. What was uncertain is now decided.
    pub(crate) fn adopt(&mut self, recovered: &Recovered) -> Result<(), String> {
        let mut found = BTreeSet::new();
        for queue in &recovered.queues {
            for (first, last) in &queue.ranges {
                if last.0 - first.0 > 1_000_000 {
                    return Err(format!("queue {} has {} to {}", queue.queue.0, first.0, last.0));
                }
                found.extend((first.0..=last.0).map(|seq| (queue.queue.0, seq)));
            }
        }
        // A damaged message is found again after each start.
        let is_known = |key: &Key| self.messages.contains_key(key) || self.forgiven.contains(key);
        if let Some(key) = found.iter().find(|key| !is_known(key)) {
            return Err(format!("message {key:?} is there, but was never written or is settled for good"));
        }
        let kept = self.messages.iter().filter(|(_, known)| **known == Known::Kept);
        if let Some((key, _)) = kept.clone().find(|(key, _)| !found.contains(key) && !self.forgiven.contains(key)) {
            return Err(format!("confirmed message {key:?} is lost"));
        }
        self.messages = found.into_iter().map(|key| (key, Known::Kept)).collect();
        let meta: BTreeMap<&[u8], &[u8]> =
            recovered.meta.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
        if let Some(key) = meta.keys().find(|key| !self.meta.contains_key(**key)) {
            return Err(format!("metadata {key:?} is there, but was never put"));
        }
        for (key, values) in &mut self.meta {
            let value = meta.get(key.as_slice()).map(|value| value.to_vec());
            if !values.contains(&value) {
                return Err(format!("metadata {key:?} is {value:?}, but must be one of {values:?}"));
            }
            *values = [value].into();
        }
        Ok(())
    }
}

/// The contents of a message follow from its number, which is its exchange.
pub(crate) fn contents(number: u64) -> (String, String, Vec<u8>, Vec<u8>) {
    let length = usize::try_from(number * 7919 % 700).unwrap_or_default();
    let properties =
        vec![u8::try_from(number % 251).unwrap_or_default(); usize::try_from(number % 20).unwrap_or_default()];
    let body = (0..length).map(|place| u8::try_from((number as usize + place) % 256).unwrap_or_default()).collect();
    (number.to_string(), format!("key.{number}"), properties, body)
}

/// Whether a message that was read is what was written; answers its number.
pub(crate) fn verify(message: &StoredMessage) -> Result<u64, String> {
    let number: u64 = message.exchange.parse().map_err(|_| format!("exchange '{}'", message.exchange))?;
    let (_, routing_key, properties, body) = contents(number);
    let is_same = message.routing_key == routing_key && message.properties == properties && message.body == body;
    if is_same { Ok(number) } else { Err(format!("message {} has other contents than were written", message.seq.0)) }
}
