//! What the model knows of one queue, and the store that it plays for it.

use super::*;

/// One queue, and what should be in it.
pub(super) struct Modelled {
    pub(super) queue: Queue,
    pub(super) options: Options,
    /// Message to whether it must be marked as redelivered.
    pub(super) ready: BTreeMap<Turn, bool>,
    pub(super) holders: BTreeMap<u32, HolderModel>,
    /// Where each message stands, whatever has become of it.
    pub(super) places: BTreeMap<u64, (u8, u64)>,
    /// Messages in each level so far.
    pub(super) counts: BTreeMap<u8, u64>,
    pub(super) stored: BTreeSet<(u8, u64)>,
    pub(super) settled: BTreeSet<(u8, u64)>,
    /// What the store has, under both keys of each level.
    pub(super) kept: BTreeMap<(bool, u8, u64), Arc<Message>>,
    pub(super) next_message: u64,
    /// Who is served, where only one is.
    pub(super) active: Option<u32>,
    pub(super) has_ended: bool,
}

impl Modelled {
    pub(super) fn new(options: Options) -> Self {
        Self {
            queue: Queue::new(options),
            options,
            ready: BTreeMap::new(),
            holders: BTreeMap::new(),
            places: BTreeMap::new(),
            counts: BTreeMap::new(),
            stored: BTreeSet::new(),
            settled: BTreeSet::new(),
            kept: BTreeMap::new(),
            next_message: 1,
            active: None,
            has_ended: false,
        }
    }

    /// A new message, with the next place of its level.
    pub(super) fn next_message(&mut self, is_persistent: bool, priority: u8) -> Arc<Message> {
        let number = self.next_message;
        self.next_message += 1;
        let level = self.options.priorities.map_or(0, |priorities| priority.min(priorities.max));
        let count = self.counts.entry(level).or_default();
        *count += 1;
        self.places.insert(number, (level, *count));
        message(number, is_persistent, priority)
    }

    pub(super) fn turn(&self, message: u64) -> Turn {
        (Reverse(self.places[&message].0), message)
    }

    /// These have gone, all at once: the next active consumer has the highest priority and came first.
    pub(super) fn on_gone(&mut self, sources: &[u32]) {
        if self.active.is_some_and(|active| sources.contains(&active)) {
            let consumers =
                self.holders.iter().filter_map(|(source, holder)| Some((source, holder.consumer.as_ref()?)));
            let next = consumers.min_by_key(|(source, consumer)| (Reverse(consumer.priority), **source));
            self.active = next.map(|(source, _)| *source);
        }
    }

    /// What a committer does; returns what the queue wants back.
    pub(super) fn carry_out(
        &mut self,
        effects: &mut Effects,
        confirmed: &mut BTreeSet<u64>,
        inbox: &Inbox,
    ) -> Option<Load> {
        for append in effects.appends.drain(..) {
            let Place { level, seq } = append.place;
            assert!(self.stored.insert((level, seq)), "stored twice");
            assert_ne!(append.stored, Stored::Nowhere);
            assert!(append.number == 0 || confirmed.insert(append.number), "confirmed twice");
            if append.origin.is_some() {
                inbox.publishes_processed(append.message.weight());
            }
            self.kept.insert((append.stored == Stored::Paged, level, seq), append.message);
        }
        for range in effects.settled.drain(..) {
            for seq in range.first..=range.last {
                let kept = self.kept.remove(&(range.stored == Stored::Paged, range.level, seq));
                assert!(
                    kept.is_some() && self.settled.insert((range.level, seq)),
                    "settled once, and only what is stored"
                );
            }
        }
        effects.load.take()
    }

    /// Reads up to so many messages.
    pub(super) fn read(&self, load: &Load, count_max: usize) -> Input {
        let mut messages = Vec::new();
        let mut through = 0;
        for range in &load.ranges {
            let (is_paged, level) = (range.stored == Stored::Paged, range.level);
            assert_eq!(level, load.ranges[0].level, "a load is of one level");
            for (&(.., seq), message) in self.kept.range((is_paged, level, range.first)..=(is_paged, level, range.last))
            {
                if messages.len() == count_max {
                    return Input::Loaded { id: load.id, through, messages };
                }
                messages.push(LoadedMessage { seq, came_ms: 1, message: Arc::clone(message) });
                through = seq;
            }
            through = range.last;
        }
        Input::Loaded { id: load.id, through, messages }
    }

    pub(super) fn consumer_count(&self) -> usize {
        self.holders.values().filter(|holder| holder.consumer.is_some()).count()
    }

    /// A message that is done with is settled in the store, if it ever came there.
    pub(super) fn check_gone(&self, message: u64) {
        let place = &self.places[&message];
        assert!(!self.stored.contains(place) || self.settled.contains(place), "message {message} stays in the store");
    }
}
