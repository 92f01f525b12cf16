//! A queue as an actor without a task.
//!
//! Whoever posts tries to enter. Who finds the machine free drains the mailbox and then brings its own input, on its own thread; who
//! finds it taken leaves the input in the mailbox, and the one inside sees the new mail. So a message costs no task switch, order is mailbox order, and
//! there is one owner at a time. Effects go to other mailboxes while inside, never into another queue.

use std::cell::Cell;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::dead_letters::Outbox;
use super::errands::{self, Errand, Stay};
use super::paging::Paging;
use super::timer::{Appointment, Sleeper, Timer};
use crate::metrics::node::Strategy;
use crate::metrics::{Metrics, QueueStats};
use crate::queue::{self, Discarded, Effects, Handle, Input, Queue, Report, Restored, SeqRange, Stored};
use crate::store::{Committer, KeysInUse, Submission};
use crate::vhost::{QueueFactory, Vhost};

/// Whoever comes in drains the mailbox so many times; then a task of its own goes on, so that no connection works for others
/// for ever.
const ROUNDS_MAX: usize = 32;

#[derive(Debug)]
struct Inside {
    machine: Queue,
    keys: KeysInUse,
}

thread_local! {
    /// Room for what a queue wants done, which is carried out before the thread leaves the queue. Each thread has one for all its queues:
    /// that stays in its cache, where the many queues do not. None while the thread is inside a queue.
    static EFFECTS: Cell<Option<Box<Effects>>> = const { Cell::new(None) };
}

/// Room for more notices or messages than these is given back.
const KEEP_LEN_MAX: usize = 4096;

fn keep(effects: Box<Effects>) {
    if effects.appends.capacity().max(effects.notices.capacity()).max(effects.settled.capacity()) <= KEEP_LEN_MAX {
        EFFECTS.set(Some(effects));
    }
}

/// See the module.
#[derive(Debug)]
pub struct QueueShell {
    number: u64,
    name: Arc<str>,
    is_quorum: bool,
    vhost: Weak<Vhost>,
    committer: Arc<Committer>,
    paging: Arc<Paging>,
    timer: Arc<Timer>,
    appointment: Appointment,
    mailbox: Mutex<Vec<Input>>,
    inside: Mutex<Inside>,
    outbox: Outbox,
    metrics: Arc<Metrics>,
    stats: QueueStats,
    this: Weak<Self>,
}

impl Handle for QueueShell {
    fn post(&self, input: Input) {
        self.enter(Some(input));
    }

    fn report(&self) -> Option<Report> {
        let report = self.stats.report(|| Some(self.inside.try_lock()?.machine.report(self.timer.now_ms())));
        // Somebody may have found the place taken by the reader.
        if !self.mailbox.lock().is_empty() {
            self.enter(None);
        }
        Some(report)
    }

    fn stats(&self) -> Option<&QueueStats> {
        Some(&self.stats)
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
    /// Handles what lies in the mailbox and then `own`; leaves it there where somebody else is inside.
    fn enter(&self, own: Option<Input>) {
        self.work(own);
        errands::run();
    }

    fn work(&self, mut own: Option<Input>) {
        let mut rounds = 0;
        loop {
            let Some(mut inside) = self.inside.try_lock() else {
                // Somebody is inside and will look into the mailbox again after leaving, unless that was a moment ago.
                let Some(input) = own.take() else { return };
                self.mailbox.lock().push(input);
                continue;
            };
            let stay = Stay::begin();
            let mail = std::mem::take(&mut *self.mailbox.lock());
            if !mail.is_empty() || own.is_some() {
                self.handle(&mut inside, mail.into_iter().chain(own.take()));
            }
            drop(inside);
            drop(stay);
            rounds += 1;
            // Mail may have come from somebody who found the machine taken.
            if self.mailbox.lock().is_empty() || rounds >= ROUNDS_MAX && self.hand_over() {
                return;
            }
        }
    }

    fn handle(&self, inside: &mut Inside, mail: impl Iterator<Item = Input>) {
        let mut effects = EFFECTS.take().unwrap_or_default();
        let Inside { machine, keys } = inside;
        machine.set_budget(self.paging.queue_bytes());
        let now_ms = self.timer.now_ms();
        for input in mail {
            machine.handle(now_ms, input, &mut effects);
        }
        machine.flush(&mut effects);
        self.paging.note(machine.memory_bytes());
        if let Some(due_ms) = machine.next_deadline() {
            self.timer.wake_at(due_ms, self, || Weak::<Self>::clone(&self.this));
        }
        self.carry_out(&mut effects, keys);
        drop_by_and_by(std::mem::take(&mut effects.discarded));
        if self.stats.is_wanted() {
            self.stats.leave(machine.report(now_ms));
        }
        keep(effects);
    }

    /// Lets a task of its own go on; only possible inside a runtime.
    fn hand_over(&self) -> bool {
        let (Ok(runtime), Some(this)) = (tokio::runtime::Handle::try_current(), self.this.upgrade()) else {
            return false;
        };
        runtime.spawn(async move { this.enter(None) });
        true
    }

    fn carry_out(&self, effects: &mut Effects, keys: &mut KeysInUse) {
        let has_ended = std::mem::take(&mut effects.has_ended);
        if effects.dropped != [0; 4] || !effects.dead.is_empty() {
            self.count_deaths(effects);
        }
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

    #[cold]
    fn count_deaths(&self, effects: &mut Effects) {
        let deaths = &self.metrics.deaths;
        deaths.add(self.is_quorum, Strategy::Disabled, std::mem::take(&mut effects.dropped));
        let mut dead = [0_u32; 4];
        for death in &effects.dead {
            dead[death.reason as usize] += 1;
        }
        deaths.add(self.is_quorum, Strategy::AtMostOnce, dead);
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

/// Frees what a purge or a delete has left, in portions between which other tasks have their turn.
#[inline]
fn drop_by_and_by(discarded: Discarded) {
    if !discarded.is_empty() {
        drop_in_portions(discarded);
    }
}

#[cold]
fn drop_in_portions(mut discarded: Discarded) {
    if discarded.len() <= DROP_PORTION {
        return;
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        while discarded.drop_some(DROP_PORTION) {
            tokio::task::yield_now().await;
        }
    });
}

/// So many messages are dropped in a fraction of a millisecond.
const DROP_PORTION: usize = 4096;

/// Makes shells for the queues of all vhosts.
#[derive(Debug)]
pub struct Shells {
    committer: Arc<Committer>,
    paging: Arc<Paging>,
    timer: Arc<Timer>,
    metrics: Arc<Metrics>,
}

impl Shells {
    /// All shells share one committer, one budget, one timer and the counters of the node.
    pub fn new(committer: Arc<Committer>, paging: Arc<Paging>, timer: Arc<Timer>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { committer, paging, timer, metrics })
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
        let inside = Inside { machine, keys };
        let shell = Arc::new_cyclic(|this| QueueShell {
            number,
            name: Arc::clone(name),
            is_quorum: options.is_quorum,
            vhost: Arc::downgrade(vhost),
            committer: Arc::clone(&self.committer),
            mailbox: Mutex::default(),
            paging: Arc::clone(&self.paging),
            timer: Arc::clone(&self.timer),
            appointment: Appointment::default(),
            outbox: Outbox::default(),
            metrics: Arc::clone(&self.metrics),
            stats: QueueStats::default(),
            inside: Mutex::new(inside),
            this: this.clone(),
        });
        if let Some(due_ms) = first_look {
            self.timer.wake_at(due_ms, &*shell, || Weak::<QueueShell>::clone(&shell.this));
        }
        shell
    }
}
