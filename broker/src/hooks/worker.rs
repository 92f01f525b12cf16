//! The interpreters of one worker thread.
//!
//! Each script has an interpreter on each thread that has met it, about 300 KiB. One for all scripts would save memory,
//! but then the memory limit of one would be what its neighbours leave, and a script that ran into a limit would take the
//! others' state with it.

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::error::{ErrorKind, Failure};
use super::record::Sampler;
use super::set::{Hook, SetInner};
use super::state::{Decision, State};
use super::status::{Counters, Ended, Shard};
use super::view::Rewrite;

thread_local! {
    static RESIDENTS: RefCell<Vec<Resident>> = const { RefCell::new(Vec::new()) };
}

/// The interpreters for one set of hooks.
struct Resident {
    id: u64,
    set: Weak<SetInner>,
    /// By hook.
    slots: Vec<Option<Box<Slot>>>,
    /// By script. Made at the first call, and again after a call that ran into a limit.
    states: Vec<Option<Box<State>>>,
}

/// One hook on this thread, with the interpreter of its script while it is called.
pub(super) struct Slot {
    state: Option<Box<State>>,
    shard: Arc<Shard>,
    counters: Arc<Counters>,
    sampler: Sampler,
    calls: u32,
}

/// Takes the slot of a hook and its interpreter out of the thread's store, which stays free while a script runs.
#[inline]
pub(super) fn take(set: &Arc<SetInner>, index: usize, hook: &Hook) -> Box<Slot> {
    let taken = RESIDENTS.with_borrow_mut(|residents| {
        let resident = residents.iter_mut().find(|resident| resident.id == set.id)?;
        let mut slot = resident.slots.get_mut(index)?.take()?;
        slot.state = resident.states.get_mut(hook.script)?.take();
        Some(slot)
    });
    taken.unwrap_or_else(|| open(set, hook))
}

#[cold]
fn open(set: &Arc<SetInner>, hook: &Hook) -> Box<Slot> {
    let state = RESIDENTS.with_borrow_mut(|residents| {
        if let Some(resident) = residents.iter_mut().find(|resident| resident.id == set.id) {
            return resident.states.get_mut(hook.script)?.take();
        }
        // A new set is the moment to forget those that nobody can call any more.
        residents.retain(|resident| resident.set.strong_count() > 0);
        let slots = set.hooks.iter().map(|_| None).collect();
        let states = set.scripts.iter().map(|_| None).collect();
        residents.push(Resident { id: set.id, set: Arc::downgrade(set), slots, states });
        None
    });
    let counters = Arc::clone(&hook.counters);
    Box::new(Slot { state, shard: counters.open_shard(), counters, sampler: Sampler::default(), calls: 0 })
}

#[inline]
pub(super) fn put_back(set: u64, index: usize, hook: &Hook, mut slot: Box<Slot>) {
    RESIDENTS.with_borrow_mut(|residents| {
        let Some(resident) = residents.iter_mut().find(|resident| resident.id == set) else { return };
        if let Some(place) = resident.states.get_mut(hook.script) {
            *place = slot.state.take();
        }
        if let Some(place) = resident.slots.get_mut(index) {
            *place = Some(slot);
        }
    });
}

impl Slot {
    #[inline]
    pub(super) fn state(&mut self, set: &SetInner, hook: &Hook) -> Result<&State, Failure> {
        if self.state.is_none() {
            self.state = make(set, hook)?;
        }
        self.state.as_deref().ok_or_else(|| Failure::new(ErrorKind::Runtime, "there is no interpreter"))
    }

    /// Begins a call: the time, if it is one that is timed.
    #[inline]
    pub(super) fn start(&mut self) -> Option<Instant> {
        let every = if self.calls < CALLS_TIMED_OFTEN { CALLS_PER_TIMED_CALL } else { CALLS_PER_TIMED_CALL_LATER };
        let is_timed = self.calls.is_multiple_of(every);
        self.calls = self.calls.wrapping_add(1);
        is_timed.then(Instant::now)
    }

    /// Counts a call. An interpreter that was stopped in the middle of something, or is full, is thrown away. Returns how the
    /// call ended, and whether it is one to keep a record of.
    #[inline]
    pub(super) fn count(&mut self, result: &Result<Decision, Failure>, started: Option<Instant>) -> (Ended, bool) {
        let ended = match result {
            Ok(Decision::Pass(Rewrite { routing_key: None, properties: None })) => Ended::Passed,
            Ok(Decision::Pass(_)) => Ended::Rewritten,
            Ok(Decision::Drop(_)) => Ended::Dropped,
            Ok(Decision::Reject(_)) => Ended::Rejected,
            Ok(Decision::DeadLetter(_)) => Ended::DeadLettered,
            Err(failure) => {
                self.on_failure(failure);
                Ended::Failed
            }
        };
        self.shard.count(ended);
        let is_common = matches!(ended, Ended::Passed | Ended::Rewritten);
        if started.is_none() && is_common {
            return (ended, false);
        }
        let now = Instant::now();
        if let Some(started) = started {
            self.shard.time(now.saturating_duration_since(started));
        }
        (ended, self.sampler.takes(ended as usize, now))
    }

    #[cold]
    fn on_failure(&mut self, failure: &Failure) {
        match failure.kind {
            ErrorKind::TimeLimit => self.shard.count_limit(true),
            ErrorKind::MemoryLimit => self.shard.count_limit(false),
            _ => {}
        }
        if failure.kind.spoils_state() {
            self.state = None;
        }
    }
}

#[cold]
fn make(set: &SetInner, hook: &Hook) -> Result<Option<Box<State>>, Failure> {
    set.scripts.get(hook.script).map(|script| State::new(script).map(Box::new)).transpose()
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.counters.close_shard(&self.shard);
    }
}

/// Reading the clock twice would be half of an empty hook. Who tries a hook out wants to see its calls soon.
const CALLS_PER_TIMED_CALL: u32 = 16;
/// So many calls of a thread are timed like that.
const CALLS_TIMED_OFTEN: u32 = 4096;
/// After that the figures are what they are, and one call in so many keeps them so.
const CALLS_PER_TIMED_CALL_LATER: u32 = 128;

/// How many sets this thread has interpreters for.
#[cfg(test)]
pub(super) fn resident_sets() -> usize {
    RESIDENTS.with_borrow(Vec::len)
}
