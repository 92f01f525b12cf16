//! A queue as an actor without a task.
//!
//! Posting leaves the input in the mailbox and tries to enter. Whoever finds the machine free drains the mailbox on its own thread; whoever
//! finds it taken leaves, and the one inside sees the new mail. So a message costs no task switch, order is mailbox order, and
//! there is one owner at a time. Effects go to other mailboxes while inside, never into another queue.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::clock::Clock;
use super::paging::Paging;
use crate::queue::{self, Effects, Handle, Input, Queue, Restored, Stored};
use crate::store::{Committer, KeysInUse, Submission};
use crate::vhost::{QueueFactory, Vhost};

/// Whoever is inside drains the mailbox so many times; then a task of its own goes on, so that no connection works for others
/// for ever.
const ROUNDS_MAX: usize = 32;

#[derive(Debug)]
struct Inside {
    machine: Queue,
    effects: Effects,
    keys: KeysInUse,
}

/// See the module.
#[derive(Debug)]
pub struct QueueShell {
    number: u64,
    name: Arc<str>,
    vhost: Weak<Vhost>,
    committer: Arc<Committer>,
    paging: Arc<Paging>,
    clock: Clock,
    mailbox: Mutex<Vec<Input>>,
    inside: Mutex<Inside>,
    this: Weak<Self>,
}

impl Handle for QueueShell {
    fn post(&self, input: Input) {
        self.mailbox.lock().push(input);
        self.enter();
    }
}

impl QueueShell {
    fn enter(&self) {
        let mut rounds = 0;
        loop {
            // Somebody is inside and will look into the mailbox again after leaving.
            let Some(mut inside) = self.inside.try_lock() else { return };
            loop {
                let mail = std::mem::take(&mut *self.mailbox.lock());
                if mail.is_empty() {
                    break;
                }
                let Inside { machine, effects, .. } = &mut *inside;
                machine.set_budget(self.paging.queue_bytes());
                let now_ms = self.clock.wall_ms();
                for input in mail {
                    machine.handle(now_ms, input, effects);
                }
                machine.flush(effects);
                self.paging.note(machine.memory_bytes());
                self.carry_out(&mut inside);
                rounds += 1;
                if rounds >= ROUNDS_MAX {
                    break;
                }
            }
            drop(inside);
            // Mail may have come between the last look and the leaving, from somebody who found the machine taken.
            if self.mailbox.lock().is_empty() || rounds >= ROUNDS_MAX && self.hand_over() {
                return;
            }
            rounds = 0;
        }
    }

    /// Lets a task of its own go on; only possible inside a runtime.
    fn hand_over(&self) -> bool {
        let (Ok(runtime), Some(this)) = (tokio::runtime::Handle::try_current(), self.this.upgrade()) else {
            return false;
        };
        runtime.spawn(async move { this.enter() });
        true
    }

    fn carry_out(&self, inside: &mut Inside) {
        let Inside { effects, keys, .. } = inside;
        let has_ended = std::mem::take(&mut effects.has_ended);
        if has_ended {
            // Nobody may hear of the end while the name still leads here. The vhost's lock is a leaf for us: nobody posts to a
            // queue while holding it.
            if let Some(vhost) = self.vhost.upgrade() {
                vhost.forget_queue(&self.name, self.number);
            }
            effects.settled.clear();
            effects.marks.clear();
            effects.load = None;
        }
        self.submit(effects, keys);
        if has_ended {
            // Last: what the store is given for a queue that it has deleted would stay for ever.
            self.committer.delete_queue(self.number, &std::mem::take(keys));
        }
        for (outlet, bytes) in effects.processed.drain(..) {
            outlet.publishes_processed(bytes);
        }
        for (outlet, notice) in effects.notices.drain(..) {
            outlet.post(notice);
        }
    }

    fn submit(&self, effects: &mut Effects, keys: &mut KeysInUse) {
        let Effects { appends, settled, marks, load, .. } = effects;
        if appends.is_empty() && settled.is_empty() && marks.is_empty() && load.is_none() {
            return;
        }
        for append in &*appends {
            keys.add(append.place.level, append.stored);
        }
        let load = load.take().and_then(|load| Some((self.this.upgrade()? as Arc<dyn Handle>, load)));
        let appends = appends.drain(..);
        self.committer.submit(Submission { queue: self.number, appends, settled, marks, load });
        settled.clear();
        marks.clear();
    }
}

/// Makes shells for the queues of all vhosts.
#[derive(Debug)]
pub struct Shells {
    committer: Arc<Committer>,
    paging: Arc<Paging>,
    clock: Clock,
}

impl Shells {
    /// All shells share one committer, one budget and one clock.
    pub fn new(committer: Arc<Committer>, paging: Arc<Paging>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { committer, paging, clock })
    }
}

impl QueueFactory for Shells {
    fn create(
        &self,
        vhost: &Arc<Vhost>,
        name: &Arc<str>,
        number: u64,
        options: queue::Options,
        restored: Restored,
    ) -> Arc<dyn Handle> {
        let machine = Queue::restore(options, &restored);
        let mut keys = KeysInUse::default();
        restored.levels.iter().for_each(|level| keys.add(level.level, Stored::Lasting));
        let inside = Inside { machine, effects: Effects::default(), keys };
        Arc::new_cyclic(|this| QueueShell {
            number,
            name: Arc::clone(name),
            vhost: Arc::downgrade(vhost),
            committer: Arc::clone(&self.committer),
            mailbox: Mutex::default(),
            paging: Arc::clone(&self.paging),
            clock: self.clock.clone(),
            inside: Mutex::new(inside),
            this: this.clone(),
        })
    }
}
