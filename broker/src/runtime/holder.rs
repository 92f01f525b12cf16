//! Keeps messages that exchanges put off, until they are due, and those that an exchange gets back after a restart.
//!
//! Each exchange that ever put something off has a [`LineShell`]: a [`Line`] with the store, the timer and the budget around it. Persistent messages of a
//! durable exchange are appended to the store under the exchange's number, and their publishers get their confirms from there. When they
//! are due they are routed, and the store forgets them when all queues that get them have confirmed them: after a crash in between they come once
//! more. Bodies beyond a queue's budget are in the store alone until shortly before they are due; an earlier run's are read once at the start,
//! for their due times. Everything counts for the memory alarm as what is in queues does.
//!
//! Due times are wall-clock time, since they go on while the broker is down: where the clock is set forward messages come earlier, where it is set
//! back they come later.

use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::errands::{self, Errand};
use super::paging::Paging;
use super::passage::Passage;
use super::timer::{Appointment, Sleeper, Timer};
use crate::queue::{Append, Durability, Handle, Input, Notice, Numbers, Outlet, Place, SeqRange, Stored};
use crate::routing::Exchange;
use crate::store::recovery::Backlog;
use crate::store::{Committer, KeysInUse, Submission};
use crate::vhost::Vhost;
use crate::vhost::held::history::{self, History};
use crate::vhost::held::line::{Due, LEVEL, Line};
use crate::vhost::held::{Held, Holder, Why};

/// See the module.
#[derive(Debug)]
pub struct MessageHolder {
    lines: Mutex<HashMap<u64, Arc<LineShell>>>,
    shared: Shared,
    /// The first place of every line: above all places of earlier runs.
    first_seq: u64,
}

/// What all lines work with.
#[derive(Clone, Debug)]
struct Shared {
    committer: Arc<Committer>,
    paging: Arc<Paging>,
    timer: Arc<Timer>,
}

impl MessageHolder {
    /// Holds nothing yet.
    pub fn new(committer: Arc<Committer>, paging: Arc<Paging>, timer: Arc<Timer>, first_seq: u64) -> Self {
        Self { lines: Mutex::default(), shared: Shared { committer, paging, timer }, first_seq }
    }

    /// Begins to look at what an earlier run has left.
    pub fn start(&self) {
        for line in self.lines() {
            line.look_ahead(&mut line.line.lock());
        }
    }

    /// The budget has shrunk: messages leave memory until it is kept.
    pub fn shrink(&self) {
        for line in self.lines() {
            line.line.lock().cool(self.shared.paging.queue_bytes());
        }
    }

    /// Bytes of messages in memory, as [`Message::weight`](crate::message::Message::weight) counts.
    pub fn memory_bytes(&self) -> usize {
        self.lines().iter().map(|line| line.line.lock().memory_bytes()).sum()
    }

    fn lines(&self) -> Vec<Arc<LineShell>> {
        self.lines.lock().values().cloned().collect()
    }

    fn add(&self, vhost: Weak<Vhost>, exchange: &Arc<Exchange>, line: Line, history: History) -> Arc<LineShell> {
        Arc::new_cyclic(|this| LineShell {
            this: Weak::clone(this),
            vhost,
            exchange: Arc::clone(exchange),
            shared: self.shared.clone(),
            line: Mutex::new(line),
            history: Mutex::new(history),
            releasing: Mutex::default(),
            appointment: Appointment::default(),
        })
    }

    /// The exchange's line; none if it has ended.
    fn line_of(&self, held: &Held) -> Option<Arc<LineShell>> {
        let mut lines = self.lines.lock();
        // Looked at under the lock: whoever ends it has it forgotten afterwards.
        if held.exchange.has_ended() {
            return None;
        }
        let new = || {
            let line = Line::restore(self.first_seq, &[], false);
            let history = History::restore(self.first_seq, std::iter::empty());
            self.add(Weak::clone(&held.vhost), &held.exchange, line, history)
        };
        Some(Arc::clone(lines.entry(held.exchange.number).or_insert_with(new)))
    }
}

impl Holder for MessageHolder {
    fn hold(&self, origin: Option<&Arc<dyn Outlet>>, messages: Vec<Held>) {
        let mut taken = Taken::default();
        let mut messages = messages.into_iter().peekable();
        while let Some(first) = messages.next() {
            let number = first.exchange.number;
            let line = self.line_of(&first);
            let same = std::iter::from_fn(|| messages.next_if(|next| next.exchange.number == number));
            let run = std::iter::once(first).chain(same);
            match line {
                Some(line) => line.hold(origin, run, &mut taken),
                // As of a queue that was deleted while they were on their way.
                None => run.for_each(|held| taken.add(&held)),
            }
        }
        if let Some(origin) = origin {
            taken.tell(origin);
        }
    }

    fn restore(&self, vhost: &Arc<Vhost>, exchange: &Arc<Exchange>, left: Backlog) {
        // Without its plugin it could only lose them.
        let is_still = !exchange.is_available();
        let put_off = left.levels.iter().find(|level| level.level == LEVEL);
        let put_off = put_off.map_or(&[][..], |level| level.ranges.as_slice());
        let line = Line::restore(self.first_seq, put_off, is_still);
        if is_still && line.count() > 0 {
            tracing::error!(vhost = %vhost.name, exchange = %exchange.name, messages = line.count(),
                "messages that this exchange has put off stay in the store until its plugin is back");
        }
        let kept = left.kept.iter().map(|kept| (kept.seq, &*kept.message));
        let history = History::restore(self.first_seq, kept);
        let shell = self.add(Arc::downgrade(vhost), exchange, line, history);
        self.lines.lock().insert(exchange.number, shell);
    }

    fn forget(&self, exchange: u64) {
        let Some(shell) = self.lines.lock().remove(&exchange) else { return };
        let mut line = shell.line.lock();
        // Dropping many messages may take long, and the vhost waits.
        let ended = line.end();
        if shell.exchange.is_stored {
            let mut keys = KeysInUse::default();
            keys.add(LEVEL, Stored::Lasting);
            keys.add(history::LEVEL, Stored::Lasting);
            shell.history.lock().clear();
            shell.shared.committer.delete_queue(exchange, &keys);
        }
        drop(line);
        if ended.count() > 0 {
            tracing::info!(
                vhost = shell.exchange.spec.vhost,
                exchange = %shell.exchange.name,
                messages = ended.count(),
                "an exchange was deleted, and the messages that it had put off with it"
            );
        }
    }

    fn count(&self, exchange: u64) -> Option<usize> {
        let shell = self.lines.lock().get(&exchange).cloned()?;
        let line = shell.line.lock();
        line.has_held().then(|| line.count())
    }
}

/// Messages that are as safe as they get already.
#[derive(Default)]
struct Taken {
    bytes: usize,
    numbers: Vec<Numbers>,
}

impl Taken {
    fn add(&mut self, held: &Held) {
        self.bytes += held.message.weight();
        if held.number != 0 {
            Numbers::add(&mut self.numbers, held.channel, held.number);
        }
    }

    fn tell(self, origin: &Arc<dyn Outlet>) {
        if self.bytes > 0 {
            origin.publishes_processed(self.bytes);
        }
        if !self.numbers.is_empty() {
            origin.post(Notice::Confirmed { numbers: self.numbers, is_taken: true });
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct LineShell {
    this: Weak<Self>,
    vhost: Weak<Vhost>,
    exchange: Arc<Exchange>,
    shared: Shared,
    /// Nobody routes or posts while holding it: the store and the timer come behind it, and a vhost's names before it.
    line: Mutex<Line>,
    /// What the exchange has kept over a restart. Behind the line.
    history: Mutex<History>,
    /// One thread at a time sends, so that order is kept.
    releasing: Mutex<()>,
    appointment: Appointment,
}

/// So many lots are sent in a row; then others may work.
const LOTS_MAX: usize = 4;

impl LineShell {
    fn hold(&self, origin: Option<&Arc<dyn Outlet>>, messages: impl Iterator<Item = Held>, taken: &mut Taken) {
        let now_ms = self.shared.timer.now_ms();
        let (mut appends, mut settled) = (Vec::new(), Vec::new());
        let mut line = self.line.lock();
        for held in messages {
            match held.why {
                _ if line.has_ended() => taken.add(&held),
                Why::Later { delay_ms } => {
                    if !held.is_lasting() {
                        taken.add(&held);
                    }
                    line.hold(now_ms.saturating_add(delay_ms), held, origin, &mut appends);
                }
                Why::Keep(keep) => {
                    let place = self.history.lock().keep(&held.message, held.is_lasting(), keep, &mut settled);
                    match place {
                        Some(seq) => appends.push(kept(seq, now_ms, held, origin)),
                        None => taken.add(&held),
                    }
                }
            }
        }
        // Under the lock: the store wants places in their order.
        self.submit(appends, &settled);
        // What the store was given it can give back.
        line.cool(self.shared.paging.queue_bytes());
        self.shared.paging.note(line.memory_bytes());
        self.look_ahead(&mut line);
    }

    fn submit(&self, appends: Vec<Append>, settled: &[SeqRange]) {
        if !appends.is_empty() || !settled.is_empty() {
            let (queue, appends) = (self.exchange.number, appends.into_iter());
            self.shared.committer.submit(Submission { queue, appends, settled, marks: &[], load: None });
        }
    }

    /// Asks for what must be loaded, and to be woken when something is to be done.
    fn look_ahead(&self, line: &mut Line) {
        if let (Some(load), Some(this)) = (line.wanted(self.shared.timer.now_ms()), self.this.upgrade()) {
            self.shared.committer.submit(Submission {
                queue: self.exchange.number,
                appends: std::iter::empty(),
                settled: &[],
                marks: &[],
                load: Some((this, load)),
            });
        }
        if let Some(due_ms) = line.next_deadline() {
            self.shared.timer.wake_at(due_ms, self, || Weak::<Self>::clone(&self.this));
        }
    }

    /// Sends what is due, unless somebody else is at it and will see it. Not to be called from within a queue.
    pub(super) fn release(&self) {
        let Some(releasing) = self.releasing.try_lock() else { return };
        for _ in 0..LOTS_MAX {
            let due = self.line.lock().take_due(self.shared.timer.now_ms());
            if due.is_empty() {
                break;
            }
            self.send(&due);
        }
        drop(releasing);
        // The timer comes at once for what is left, and for what came while somebody found the place taken.
        self.look_ahead(&mut self.line.lock());
    }

    fn send(&self, due: &[Due]) {
        let bytes = due.iter().map(|due| due.message.weight()).sum();
        let mut stored: Vec<SeqRange> = Vec::new();
        let passage = Passage::begin();
        if let Some(vhost) = self.vhost.upgrade() {
            let origin: Arc<dyn Outlet> = Arc::<Passage>::clone(&passage);
            vhost.release(&self.exchange, due, &origin, |count, failed| {
                passage.expect(count);
                // What no plugin would route stays in the store for the next start.
                let settled = due.iter().enumerate().filter(|(place, _)| !failed.contains(place));
                for place in settled.map(|(_, due)| due.place).filter(|place| place.stored != Stored::Nowhere) {
                    SeqRange::join(&mut stored, place);
                }
            });
        }
        let this = Weak::clone(&self.this);
        passage.sent(move || {
            if let Some(this) = this.upgrade() {
                this.arrived(&stored, bytes);
            }
        });
    }

    /// Messages have arrived where they go. May come from within a queue.
    fn arrived(&self, stored: &[SeqRange], bytes: usize) {
        let mut line = self.line.lock();
        line.arrived(bytes);
        if !line.has_ended() {
            self.submit(Vec::new(), stored);
        }
        let is_due = line.next_deadline().is_some_and(|due_ms| due_ms <= self.shared.timer.now_ms());
        drop(line);
        if is_due {
            errands::leave(Errand::Release(Weak::clone(&self.this)));
        }
    }
}

/// A message that an exchange has kept, for the store.
fn kept(seq: u64, came_ms: u64, held: Held, origin: Option<&Arc<dyn Outlet>>) -> Append {
    let Held { message, channel, number, durability, .. } = held;
    Append {
        place: Place { level: history::LEVEL, seq },
        message,
        stored: Stored::Lasting,
        came_ms,
        is_synced: durability == Durability::Synced,
        origin: origin.cloned(),
        channel,
        number,
    }
}

impl Handle for LineShell {
    /// The store's answers are all that comes.
    fn post(&self, input: Input) {
        let Input::Loaded { id, through, messages } = input else { return };
        let lost = {
            let mut line = self.line.lock();
            let lost = line.loaded(id, through, messages, self.shared.paging.queue_bytes());
            self.shared.paging.note(line.memory_bytes());
            lost
        };
        if lost > 0 {
            tracing::error!(vhost = self.exchange.spec.vhost, exchange = %self.exchange.name, messages = lost,
                "messages that an exchange had put off are missing in the store");
        }
        self.release();
    }
}

impl Sleeper for LineShell {
    fn number(&self) -> u64 {
        self.exchange.number
    }

    fn appointment(&self) -> &Appointment {
        &self.appointment
    }

    fn wake(&self) {
        self.release();
    }
}

impl Drop for LineShell {
    fn drop(&mut self) {
        self.shared.timer.forget(self);
    }
}
