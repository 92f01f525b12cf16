//! Dead letters between the queue in which messages died and the queues that get them.
//!
//! The store hears that a message is gone from where it died when all who get it have confirmed it, as publishers are confirmed to: a crash
//! in between leaves it in both places, never in none. Only then does its queue count it as buried, which bounds how many are on
//! their way where a queue has millions to part with.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::errands::{self, Errand};
use super::passage::Passage;
use super::queue_shell::QueueShell;
use crate::queue::{Dead, Input, Outlet, SeqRange, Stored};
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
    let bytes = dead.iter().map(|dead| dead.message.weight()).sum();
    let passage = Passage::begin();
    if let (Some(vhost), Some(target)) = (vhost, &target) {
        let origin: Arc<dyn Outlet> = Arc::<Passage>::clone(&passage);
        vhost.dead_letter(name, target, dead, &origin, |count| passage.expect(count));
    }
    let queue = Arc::downgrade(queue);
    passage.sent(move || {
        if let Some(queue) = queue.upgrade() {
            queue.forget_dead(&stored);
            errands::leave(Errand::Tell(queue, Input::Buried { bytes }));
        }
    });
}
