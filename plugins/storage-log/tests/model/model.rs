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
    marks: BTreeMap<u64, Marks>,
}

/// The marks of one queue.
#[derive(Debug, Default)]
struct Marks {
    now: Option<u64>,
    /// What a crash may leave of them: each mark or deletion since the last sync may be lost by itself.
    possible: BTreeSet<Option<u64>>,
    highest_ever: u64,
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

    pub(crate) fn mark(&mut self, queue: u64, last: u64) {
        let marks = self.marks.entry(queue).or_default();
        marks.possible.insert(marks.now);
        let marked: Vec<Option<u64>> = marks.possible.iter().map(|mark| (*mark).max(Some(last))).collect();
        marks.possible.extend(marked);
        marks.now = marks.now.max(Some(last));
        marks.highest_ever = marks.highest_ever.max(last);
    }

    pub(crate) fn delete(&mut self, queue: u64) {
        self.settle(queue, 0, u64::MAX);
        if let Some(marks) = self.marks.get_mut(&queue) {
            marks.now = None;
            marks.possible.insert(None);
        }
    }

    /// While the process lives, all marks are there.
    pub(crate) fn check_marks(&self, recovered: &Recovered) -> Result<(), String> {
        for queue in &recovered.queues {
            let last = queue.ranges.last().map(|(_, last)| last.0);
            let expected = self.marks.get(&queue.queue.0).and_then(|marks| marks.now).map(|mark| Some(mark).min(last));
            if queue.marked.map(|mark| Some(mark.0)) != expected {
                return Err(format!("queue {} is marked {:?}, expected {expected:?}", queue.queue.0, queue.marked));
            }
        }
        Ok(())
    }

    /// After opening: each queue has a mark that it may have, and what lies beyond its messages is forgotten.
    fn adopt_marks(&mut self, recovered: &Recovered, has_flipped: bool) -> Result<(), String> {
        let mut found = BTreeMap::new();
        for queue in &recovered.queues {
            let last = queue.ranges.last().map_or(0, |(_, last)| last.0);
            let mark = queue.marked.map(|mark| mark.0);
            let highest_ever = match self.marks.get(&queue.queue.0) {
                // A damaged commit may have held any of them, or a deletion.
                Some(marks) if has_flipped && mark <= Some(marks.highest_ever) => marks.highest_ever,
                Some(marks) if marks.possible.iter().any(|possible| possible.map(|mark| mark.min(last)) == mark) => {
                    marks.highest_ever
                }
                None if mark.is_none() => 0,
                marks => {
                    return Err(format!("queue {} is marked {mark:?}, but should be as {marks:?}", queue.queue.0));
                }
            };
            found.insert(queue.queue.0, Marks { now: mark, possible: [mark].into(), highest_ever });
        }
        for (queue, Marks { highest_ever, .. }) in std::mem::take(&mut self.marks) {
            found.entry(queue).or_insert(Marks { now: None, possible: [None].into(), highest_ever });
        }
        self.marks = found;
        Ok(())
    }

    /// Everything written so far is durable.
    pub(crate) fn synced(&mut self) {
        self.marks.values_mut().for_each(|marks| marks.possible = [marks.now].into());
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
    pub(crate) fn adopt(&mut self, recovered: &Recovered, has_flipped: bool) -> Result<(), String> {
        self.adopt_marks(recovered, has_flipped)?;
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

/// As its contents.
pub(crate) fn stamp(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether a message that was read is what was written; answers its number.
pub(crate) fn verify(message: &StoredMessage) -> Result<u64, String> {
    let number: u64 = message.exchange.parse().map_err(|_| format!("exchange '{}'", message.exchange))?;
    let (_, routing_key, properties, body) = contents(number);
    let is_same = message.stamp == stamp(number)
        && message.routing_key == routing_key
        && message.properties == properties
        && message.body == body;
    if is_same { Ok(number) } else { Err(format!("message {} has other contents than were written", message.seq.0)) }
}
