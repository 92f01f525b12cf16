//! What a queue counts, in plain fields of its machine, and the report that is made of them when somebody asks.
//!
//! Nothing here is read on the way of a message. Sums that would take a walk over messages are kept up to date where messages
//! come and go.

use super::Queue;
use super::ports::{HolderId, Stored};
use crate::metrics::{MessageStats, Stat};

/// How much of some messages is in memory, and how much of them lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Messages with their bodies in memory.
    pub(super) hot: u64,
    /// Bytes of those bodies.
    pub(super) hot_bytes: u64,
    /// Messages that survive a restart.
    pub(super) lasting: u64,
    /// Bytes of their bodies, as far as they are known.
    pub(super) lasting_bytes: u64,
}

impl Kept {
    /// What one message is.
    #[inline]
    pub(super) fn of(stored: Stored, is_hot: bool, bytes: u64) -> Self {
        let (hot, lasting) = (u64::from(is_hot), u64::from(stored == Stored::Lasting));
        Self { hot, hot_bytes: hot * bytes, lasting, lasting_bytes: lasting * bytes }
    }

    /// So many bytes came into memory, or left it.
    #[inline]
    pub(super) fn hot(bytes: u64) -> Self {
        Self { hot: 1, hot_bytes: bytes, ..Self::default() }
    }

    /// Messages of which only the place counts: those of a run.
    pub(super) fn run(stored: Stored, count: usize, bytes: u64) -> Self {
        match stored {
            Stored::Lasting => Self { lasting: count as u64, lasting_bytes: bytes, ..Self::default() },
            Stored::Nowhere | Stored::Paged => Self::default(),
        }
    }

    #[inline]
    pub(super) fn add(&mut self, other: Self) {
        self.hot += other.hot;
        self.hot_bytes += other.hot_bytes;
        self.lasting += other.lasting;
        self.lasting_bytes += other.lasting_bytes;
    }

    #[inline]
    pub(super) fn sub(&mut self, other: Self) {
        self.hot -= other.hot;
        self.hot_bytes -= other.hot_bytes;
        self.lasting -= other.lasting;
        self.lasting_bytes -= other.lasting_bytes;
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        self.add(other);
        self
    }

    pub(super) fn without(mut self, other: Self) -> Self {
        self.sub(other);
        self
    }
}

/// Whether messages can be handed out at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Serving {
    /// There are no consumers.
    #[default]
    Nobody,
    /// There are, and something waits for them to have room.
    Behind,
    /// There are, and nothing waits.
    AtOnce,
}

/// For how long consumers could have got a message at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Milliseconds with consumers.
    pub served_ms: u64,
    /// Of these, those in which nothing had to wait for a consumer.
    pub at_once_ms: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    stats: MessageStats,
    serving: Serving,
    since_ms: u64,
    capacity: Capacity,
    /// When somebody last did something with the queue.
    used_ms: u64,
    /// Of unacked messages, their bodies' bytes and what of them is where.
    pub(super) unacked_body_bytes: u64,
    pub(super) unacked: Kept,
}

impl Counts {
    #[inline]
    pub(super) fn add(&mut self, stat: Stat, amount: u64) {
        self.stats.add(stat, amount);
    }

    #[inline]
    pub(super) fn use_at(&mut self, now_ms: u64) {
        self.used_ms = now_ms;
    }

    /// A message is in somebody's hands.
    #[inline]
    pub(super) fn hold(&mut self, stored: Stored, is_hot: bool, body_bytes: u64) {
        self.unacked_body_bytes += body_bytes;
        self.unacked.add(Kept::of(stored, is_hot, body_bytes));
    }

    /// It is not any more.
    #[inline]
    pub(super) fn let_go(&mut self, stored: Stored, is_hot: bool, body_bytes: u64) {
        self.unacked_body_bytes -= body_bytes;
        self.unacked.sub(Kept::of(stored, is_hot, body_bytes));
    }

    #[inline]
    fn serve(&mut self, serving: Serving, now_ms: u64) {
        if self.serving != serving {
            self.capacity = self.capacity_at(now_ms);
            (self.serving, self.since_ms) = (serving, now_ms);
        }
    }

    fn capacity_at(&self, now_ms: u64) -> Capacity {
        let passed_ms = now_ms.saturating_sub(self.since_ms);
        let Capacity { served_ms, at_once_ms } = self.capacity;
        match self.serving {
            Serving::Nobody => self.capacity,
            Serving::Behind => Capacity { served_ms: served_ms + passed_ms, at_once_ms },
            Serving::AtOnce => Capacity { served_ms: served_ms + passed_ms, at_once_ms: at_once_ms + passed_ms },
        }
    }
}

/// A queue at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// What it counted; `confirm` and what is unroutable are no business of a queue.
    pub stats: MessageStats,
    /// Ready messages.
    pub ready: u64,
    /// Deliveries that are not settled.
    pub unacked: u64,
    /// Bytes of the bodies of ready messages, as far as they are known: those of an earlier run count as 0 until they are read.
    pub ready_bytes: u64,
    /// Bytes of the bodies of unacked messages.
    pub unacked_bytes: u64,
    /// Ready messages in memory.
    pub ready_ram: u64,
    /// Unacked messages in memory.
    pub unacked_ram: u64,
    /// Bytes of all bodies in memory.
    pub ram_bytes: u64,
    /// Messages that survive a restart.
    pub persistent: u64,
    /// Bytes of their bodies.
    pub persistent_bytes: u64,
    /// Bytes that messages take in memory, with names and properties.
    pub memory_bytes: u64,
    /// Consumers.
    pub consumers: u64,
    /// The one that is served, where only one is.
    pub active_consumer: Option<HolderId>,
    /// The property `timestamp` of the first ready message, in seconds, where it is in memory and has one.
    pub head_timestamp: Option<u64>,
    /// For how long it could serve its consumers at once.
    pub capacity: Capacity,
    /// When somebody last did something with it, in milliseconds since the epoch; 0 for never.
    pub used_ms: u64,
}

impl Queue {
    /// Notes whether consumers can be served at once; to be called when nothing is left to do.
    #[inline]
    pub(super) fn note_serving(&mut self) {
        let serving = match (self.consumers.consumer_count(), self.ready.is_empty()) {
            (0, _) => Serving::Nobody,
            (_, false) => Serving::Behind,
            (_, true) => Serving::AtOnce,
        };
        self.counts.serve(serving, self.now_ms);
    }

    /// Looks at every message, and panics when what is kept up to date says something else.
    #[cfg(test)]
    pub(super) fn check_counts(&self) {
        assert_eq!(self.ready.kept(), self.ready.recount(), "ready");
        let entries = self.consumers.holders().flat_map(|holder| holder.unacked.iter().map(|(_, entry)| entry));
        let (mut unacked, mut bytes) = (Kept::default(), 0);
        for entry in entries {
            unacked.add(entry.kept());
            bytes += u64::from(entry.body_bytes);
        }
        assert_eq!((self.counts.unacked, self.counts.unacked_body_bytes), (unacked, bytes), "unacked");
    }

    /// How it is. Costs the same however many messages there are.
    pub fn report(&self, now_ms: u64) -> Report {
        let Counts { stats, unacked_body_bytes, unacked, used_ms, .. } = self.counts;
        let ready = self.ready.kept();
        let all = ready.and(unacked);
        Report {
            stats,
            ready: self.ready.len() as u64,
            unacked: self.consumers.unacked_count() as u64,
            ready_bytes: self.ready.body_bytes(),
            unacked_bytes: unacked_body_bytes,
            ready_ram: ready.hot,
            unacked_ram: unacked.hot,
            ram_bytes: all.hot_bytes,
            persistent: all.lasting,
            persistent_bytes: all.lasting_bytes,
            memory_bytes: self.memory_bytes() as u64,
            consumers: self.consumers.consumer_count() as u64,
            active_consumer: self.consumers.active(),
            head_timestamp: self.ready.head().and_then(|message| message.properties().timestamp()),
            capacity: self.counts.capacity_at(now_ms),
            used_ms,
        }
    }
}
