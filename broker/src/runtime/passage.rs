//! The way of messages that one part of the broker hands to queues, until all of these have them.
//!
//! Whoever had the messages before has the store forget them only then: a crash in between leaves them in both places, never in none. A queue
//! confirms as to a publisher; one that refuses loses the message, as in RabbitMQ (semantics 20.13).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::queue::{Notice, Outlet};

/// See the module.
pub(super) struct Passage {
    /// Confirms that are still to come, and one while the messages are being sent.
    open: AtomicUsize,
    arrival: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passage").field("open", &self.open).finish_non_exhaustive()
    }
}

impl Passage {
    /// Begins; [`Self::sent`] must follow.
    pub(super) fn begin() -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(1), arrival: Mutex::default() })
    }

    /// So many confirms will come; said before the first.
    pub(super) fn expect(&self, count: usize) {
        self.open.fetch_add(count, Ordering::AcqRel);
    }

    /// Everything is sent. When all of it has arrived, which may be now, `arrival` is called: on any thread, also from within a queue.
    pub(super) fn sent(&self, arrival: impl FnOnce() + Send + 'static) {
        *self.arrival.lock() = Some(Box::new(arrival));
        self.arrived(1);
    }

    fn arrived(&self, count: usize) {
        if self.open.fetch_sub(count, Ordering::AcqRel) != count {
            return;
        }
        let arrival = self.arrival.lock().take();
        if let Some(arrival) = arrival {
            arrival();
        }
    }
}

impl Outlet for Passage {
    fn post(&self, notice: Notice) {
        if let Notice::Confirmed { numbers, .. } = notice {
            let count: u64 = numbers.iter().map(|numbers| numbers.last - numbers.first + 1).sum();
            self.arrived(usize::try_from(count).unwrap_or(usize::MAX));
        }
    }

    fn publishes_processed(&self, _: usize) {}
}
