//! What waits for the store, in the kinds that are stored together.

use std::sync::Arc;

use plugin_api::storage::{Mark, QueueKey, Settle};

use super::batch::{self, Pending};
use super::definitions::Entry;
use crate::queue::{Handle, Load, Notice, Reply, ReplyTo};

/// What a barrier waits for, of what was submitted before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Definitions. Messages that find no room do not hold it up: who declares may be the consumer that makes room.
    Definitions,
    /// Messages, too.
    Everything,
}

#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) definitions: Vec<Entry>,
    pub(super) appends: Vec<Pending>,
    pub(super) settled: Vec<Settle>,
    pub(super) marks: Vec<Mark>,
    pub(super) deleted: Vec<QueueKey>,
    pub(super) barriers: Vec<(Barrier, ReplyTo)>,
    pub(super) loads: Vec<(u64, Arc<dyn Handle>, Load)>,
}

impl Gathered {
    pub(super) fn is_empty(&self) -> bool {
        self.definitions.is_empty()
            && self.appends.is_empty()
            && self.settled.is_empty()
            && self.marks.is_empty()
            && self.deleted.is_empty()
            && self.barriers.is_empty()
            && self.loads.is_empty()
    }

    /// How much of it somebody waits for.
    pub(super) fn urgent_count(&self) -> usize {
        self.definitions.len() + self.appends.len() + self.barriers.len()
    }

    /// Puts what came later behind what is still here.
    pub(super) fn extend(&mut self, later: Self) {
        self.definitions.extend(later.definitions);
        self.appends.extend(later.appends);
        self.settled.extend(later.settled);
        self.marks.extend(later.marks);
        self.deleted.extend(later.deleted);
        self.barriers.extend(later.barriers);
        self.loads.extend(later.loads);
    }

    pub(super) fn answer_barriers(&mut self, is_stored: bool, which: impl Fn(Barrier) -> bool) {
        for (_, ReplyTo { outlet, channel }) in self.barriers.extract_if(.., |(barrier, _)| which(*barrier)) {
            let reply = if is_stored { Reply::Stored } else { Reply::StoreFailed };
            outlet.post(Notice::Reply { channel, reply });
        }
    }

    pub(super) fn refuse(&mut self) {
        batch::answer(self.appends.drain(..), false);
        self.answer_barriers(false, |_| true);
    }
}
