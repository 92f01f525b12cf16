//! A queue as an actor without a task.
//!
//! Posting leaves the input in the mailbox and tries to enter. Whoever finds the machine free drains the mailbox on its own thread; whoever
//! finds it taken leaves, and the one inside sees the new mail. So a message costs no task switch, order is mailbox order, and
//! there is one owner at a time. Effects go to other mailboxes while inside, never into another queue.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::dead_letters::Outbox;
use super::errands::{self, Errand, Stay};
use super::paging::Paging;
use super::timer::{Appointment, Sleeper, Timer};
use crate::queue::{self, Effects, Handle, Input, Queue, Restored, SeqRange, Stored};
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
    timer: Arc<Timer>,
    appointment: Appointment,
    mailbox: Mutex<Vec<Input>>,
    inside: Mutex<Inside>,
    outbox: Outbox,
    this: Weak<Self>,
}

impl Handle for QueueShell {
    fn post(&self, input: Input) {
        self.mailbox.lock().push(input);
        self.enter();
    }
}

impl Sleeper for QueueShell {
    fn number(&self) -> u64 {
        self.number
    }

    fn appointment(&self) -> &Appointment {
        &self.appointment
    }

    fn wake(&self) {
        self.post(Input::Tick);
    }
}

impl Drop for QueueShell {
    fn drop(&mut self) {
        self.timer.forget(self);
    }
}

impl QueueShell {
    fn enter(&self) {
        self.work();
        errands::run();
    }

    fn work(&self) {
        let mut rounds = 0;
        loop {
            // Somebody is inside and will look into the mailbox again after leaving.
            let Some(mut inside) = self.inside.try_lock() else { return };
            let stay = Stay::begin();
            loop {
                let mail = std::mem::take(&mut *self.mailbox.lock());
                if mail.is_empty() {
                    break;
                }
                let Inside { machine, effects, .. } = &mut *inside;
                machine.set_budget(self.paging.queue_bytes());
                let now_ms = self.timer.now_ms();
                for input in mail {
                    machine.handle(now_ms, input, effects);
                }
                machine.flush(effects);
                self.paging.note(machine.memory_bytes());
                if let Some(due_ms) = machine.next_deadline() {
                    self.timer.wake_at(due_ms, self, || Weak::<Self>::clone(&self.this));
                }
                self.carry_out(&mut inside);
                rounds += 1;
                if rounds >= ROUNDS_MAX {
                    break;
                }
            }
            drop(inside);
            drop(stay);
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
        if !effects.dead.is_empty() {
            // While the name still leads to what the queue was told about its dead.
            let queue = self.vhost.upgrade().and_then(|vhost| vhost.queue(&self.name));
            let queue = queue.filter(|queue| queue.number == self.number);
            let target = queue.and_then(|queue| queue.settings.read().dead_letter.clone());
            self.outbox.put(target, std::mem::take(&mut effects.dead));
            errands::leave(Errand::SendDead(Weak::clone(&self.this)));
        }
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

    /// Sends what died here; by an errand, from inside no queue.
    pub(super) fn send_dead(self: Arc<Self>) {
        self.outbox.send(&self, self.vhost.upgrade().as_deref(), &self.name);
    }

    /// Dead messages have arrived where they were wanted.
    pub(super) fn forget_dead(&self, settled: &[SeqRange]) {
        if !settled.is_empty() {
            self.committer.submit(Submission {
                queue: self.number,
                appends: std::iter::empty(),
                settled,
                marks: &[],
                load: None,
            });
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
    timer: Arc<Timer>,
}

impl Shells {
    /// All shells share one committer, one budget and one timer.
    pub fn new(committer: Arc<Committer>, paging: Arc<Paging>, timer: Arc<Timer>) -> Arc<Self> {
        Arc::new(Self { committer, paging, timer })
    }
}

impl Shells {
    /// When a new queue looks at the clock for the first time. One that was told nothing about time looks only at whether the head of its
    /// backlog has an expiration of its own: such queues, of which there may be many at a start, do so one after the other.
    fn first_look(&self, due_ms: u64, options: &queue::Options, number: u64) -> u64 {
        let queue::Options { message_ttl_ms, expires_ms, max_length, max_length_bytes, .. } = options;
        let is_pressing =
            [message_ttl_ms, expires_ms, max_length, max_length_bytes].iter().any(|value| value.is_some());
        match is_pressing {
            true => due_ms,
            false => due_ms.max(self.timer.now_ms() + FIRST_LOOK_AFTER_MS + number % FIRST_LOOK_SPREAD_MS),
        }
    }
}

/// Clients that come at once are served first.
const FIRST_LOOK_AFTER_MS: u64 = 500;
/// Backlogs are looked at over so long a time.
const FIRST_LOOK_SPREAD_MS: u64 = 4_000;

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
        let first_look = machine.next_deadline().map(|due_ms| self.first_look(due_ms, &options, number));
        let inside = Inside { machine, effects: Effects::default(), keys };
        let shell = Arc::new_cyclic(|this| QueueShell {
            number,
            name: Arc::clone(name),
            vhost: Arc::downgrade(vhost),
            committer: Arc::clone(&self.committer),
            mailbox: Mutex::default(),
            paging: Arc::clone(&self.paging),
            timer: Arc::clone(&self.timer),
            appointment: Appointment::default(),
            outbox: Outbox::default(),
            inside: Mutex::new(inside),
            this: this.clone(),
        });
        if let Some(due_ms) = first_look {
            self.timer.wake_at(due_ms, &*shell, || Weak::<QueueShell>::clone(&shell.this));
        }
        shell
    }
}
