//! Dead letters between the queue in which messages died and the queues that get them.
//!
//! The store hears that a message is gone from where it died when all who get it have confirmed it, as publishers are confirmed to: a crash
//! in between leaves it in both places, never in none. Only then does its queue count it as buried, which bounds how many are on
//! their way where a queue has millions to part with.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::errands::{self, Errand};
use super::queue_shell::QueueShell;
use crate::queue::{Dead, Input, Notice, Outlet, SeqRange, Stored};
use crate::vhost::Vhost;
use crate::vhost::queue_settings::DeadLetterTarget;

/// Messages that died together, in order, and where they were wanted at that moment.
#[derive(Debug)]
struct Lot {
    target: Option<DeadLetterTarget>,
    dead: Vec<Dead>,
}

/// What a queue has to send. One thread at a time does it, so that order is kept (semantics 20.14).
#[derive(Debug, Default)]
pub(super) struct Outbox {
    lots: Mutex<VecDeque<Lot>>,
    sending: Mutex<()>,
}

impl Outbox {
    pub(super) fn put(&self, target: Option<DeadLetterTarget>, dead: Vec<Dead>) {
        self.lots.lock().push_back(Lot { target, dead });
    }

    /// Sends what is there, unless somebody else is at it and will see it.
    pub(super) fn send(&self, queue: &Arc<QueueShell>, vhost: Option<&Vhost>, name: &str) {
        loop {
            let Some(sending) = self.sending.try_lock() else { return };
            while let Some(lot) = self.pop() {
                send(lot, queue, vhost, name);
            }
            drop(sending);
            // Something may have come between the last look and the leaving, from somebody who found the place taken.
            if self.lots.lock().is_empty() {
                return;
            }
        }
    }

    fn pop(&self) -> Option<Lot> {
        self.lots.lock().pop_front()
    }
}

fn send(lot: Lot, queue: &Arc<QueueShell>, vhost: Option<&Vhost>, name: &str) {
    let Lot { target, dead } = lot;
    let mut stored: Vec<SeqRange> = Vec::new();
    for place in dead.iter().map(|dead| dead.place).filter(|place| place.stored != Stored::Nowhere) {
        SeqRange::add(&mut stored, place.level, place.first, place.stored);
    }
    let passage = Arc::new(Passage {
        queue: Arc::downgrade(queue),
        open: AtomicUsize::new(1),
        bytes: dead.iter().map(|dead| dead.message.weight()).sum(),
        stored: Mutex::new(stored),
    });
    if let (Some(vhost), Some(target)) = (vhost, &target) {
        let origin: Arc<dyn Outlet> = Arc::<Passage>::clone(&passage);
        vhost.dead_letter(name, target, dead, &origin, |count| {
            passage.open.fetch_add(count, Ordering::AcqRel);
        });
    }
    passage.arrived(1);
}

/// The way of one lot; takes the confirms of all who get something of it.
#[derive(Debug)]
struct Passage {
    queue: Weak<QueueShell>,
    /// Confirms that are still to come, and one while the lot is being sent.
    open: AtomicUsize,
    bytes: usize,
    /// Places for the store to forget.
    stored: Mutex<Vec<SeqRange>>,
}

impl Passage {
    fn arrived(&self, count: usize) {
        if self.open.fetch_sub(count, Ordering::AcqRel) != count {
            return;
        }
        if let Some(queue) = self.queue.upgrade() {
            queue.forget_dead(&std::mem::take(&mut *self.stored.lock()));
            errands::leave(Errand::Tell(queue, Input::Buried { bytes: self.bytes }));
        }
    }
}

impl Outlet for Passage {
    fn post(&self, notice: Notice) {
        // A queue that refuses a dead letter loses it (semantics 20.13).
        if let Notice::Confirmed { numbers, .. } = notice {
            let count: u64 = numbers.iter().map(|numbers| numbers.last - numbers.first + 1).sum();
            self.arrived(usize::try_from(count).unwrap_or(usize::MAX));
        }
    }

    fn publishes_processed(&self, _: usize) {}
}
