//! The exclusive queues of a connection, which end with it (semantics 9.5).

use std::sync::Arc;

use hashbrown::HashMap;

use crate::vhost::{QueueRecord, Vhost};

/// Queues that ended by themselves (auto-delete, deleted by an operator) are looked for when so many are remembered.
const PRUNE_LEN_MIN: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct ExclusiveQueues {
    by_number: HashMap<u64, Arc<QueueRecord>>,
    prune_len: usize,
}

impl Default for ExclusiveQueues {
    fn default() -> Self {
        Self { by_number: HashMap::new(), prune_len: PRUNE_LEN_MIN }
    }
}

impl ExclusiveQueues {
    /// Remembers a queue. Now and then those that are gone are forgotten, so that a connection which makes and loses queues for ever
    /// does not grow.
    pub(super) fn add(&mut self, queue: &Arc<QueueRecord>, vhost: &Vhost) {
        self.by_number.insert(queue.number, Arc::clone(queue));
        if self.by_number.len() >= self.prune_len {
            self.by_number.retain(|number, queue| vhost.queue(&queue.name).is_some_and(|live| live.number == *number));
            self.prune_len = PRUNE_LEN_MIN.max(self.by_number.len() * 2);
        }
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.by_number.remove(&number);
    }

    /// Gives all of them away, to be deleted, in the order in which they were made.
    pub(super) fn take(&mut self) -> Vec<Arc<QueueRecord>> {
        let mut queues: Vec<Arc<QueueRecord>> = std::mem::take(&mut self.by_number).into_values().collect();
        queues.sort_unstable_by_key(|queue| queue.number);
        queues
    }
}
