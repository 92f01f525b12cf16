//! Which plugin each thread is in at this moment, for whoever waits for its calls to end or wonders that one does not.
//!
//! A thread writes only what is its own, without locks and without fences, so that a route pays for three plain stores. Who looks may see a call a
//! moment late, and decides nothing by it that would be unsafe: plugins are never unloaded.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::times::{ROUTES_PER_TIMED_ROUTE, RouteTimes};

/// Where a thread is.
#[derive(Debug, Default)]
struct Slot {
    /// The number of a [`Site`]; 0 is none.
    site: AtomicU32,
    /// Calls that this thread has begun: two looks that see the same number see the same call.
    calls: AtomicU64,
}

/// What is called, by a number that is not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Site(u32);

impl Site {
    /// A number for a plugin.
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a call in the plugin's name.
    #[inline]
    pub(super) fn enter<T>(self, call: impl FnOnce() -> T) -> T {
        let slot = SLOT.get().unwrap_or_else(first_call);
        // A plugin may log, and what takes the log may call another.
        let before = slot.site.load(Ordering::Relaxed);
        slot.calls.store(slot.calls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        slot.site.store(self.0, Ordering::Relaxed);
        let result = call();
        slot.site.store(before, Ordering::Relaxed);
        result
    }

    /// As [`Self::enter`]; now and then the call is timed.
    #[inline]
    pub(super) fn enter_timed<T>(self, times: &RouteTimes, call: impl FnOnce() -> T) -> T {
        let slot = SLOT.get().unwrap_or_else(first_call);
        if !slot.calls.load(Ordering::Relaxed).is_multiple_of(ROUTES_PER_TIMED_ROUTE) {
            return self.enter(call);
        }
        let since = Instant::now();
        let result = self.enter(call);
        times.add(since.elapsed());
        result
    }

    /// Threads that are in one of its calls.
    pub(super) fn threads(self) -> usize {
        SLOTS.lock().all.iter().filter(|slot| slot.site.load(Ordering::Relaxed) == self.0).count()
    }
}

/// A call that was under way at a look: the thread, by a number, and which of its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct UnderWay {
    pub(super) site: Site,
    thread: usize,
    call: u64,
}

/// All calls that are under way.
pub(super) fn under_way() -> Vec<UnderWay> {
    let slots = SLOTS.lock();
    let calls = slots.all.iter().enumerate().filter_map(|(thread, slot)| {
        let call = slot.calls.load(Ordering::Relaxed);
        let site = slot.site.load(Ordering::Relaxed);
        (site != 0).then_some(UnderWay { site: Site(site), thread, call })
    });
    calls.collect()
}

/// The slots of all threads. One lives as long as the process and is used again when its thread has ended.
struct Slots {
    all: Vec<&'static Slot>,
    free: Vec<&'static Slot>,
}

static SLOTS: Mutex<Slots> = Mutex::new(Slots { all: Vec::new(), free: Vec::new() });

thread_local! {
    static SLOT: Cell<Option<&'static Slot>> = const { Cell::new(None) };
    static GIVEN_BACK: GiveBack = const { GiveBack };
}

/// Gives the thread's slot back when the thread ends.
struct GiveBack;

impl Drop for GiveBack {
    fn drop(&mut self) {
        if let Some(slot) = SLOT.take() {
            SLOTS.lock().free.push(slot);
        }
    }
}

#[cold]
fn first_call() -> &'static Slot {
    let slot = {
        let mut slots = SLOTS.lock();
        match slots.free.pop() {
            Some(slot) => slot,
            None => {
                let slot: &'static Slot = Box::leak(Box::default());
                slots.all.push(slot);
                slot
            }
        }
    };
    SLOT.set(Some(slot));
    // Fails only in a thread that is ending, whose slot is then not used again.
    let _ = GIVEN_BACK.try_with(|_| ());
    slot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_seen_from_other_threads_and_end() {
        let (outer, inner) = (Site::new(), Site::new());
        let threads = || (outer.threads(), inner.threads());
        assert_eq!(threads(), (0, 0));
        outer.enter(|| {
            assert_eq!(std::thread::scope(|scope| scope.spawn(threads).join()).ok(), Some((1, 0)));
            let first = under_way().into_iter().find(|call| call.site == outer);
            assert!(first.is_some());
            inner.enter(|| assert_eq!(threads(), (0, 1)));
            assert_eq!(threads(), (1, 0), "a nested call gives the thread back");
        });
        assert_eq!(threads(), (0, 0));
        let twice: Vec<_> =
            (0..2).map(|_| outer.enter(|| under_way().into_iter().find(|call| call.site == outer))).collect();
        assert_ne!(twice.first(), twice.last(), "each call has a number of its own");
    }

    #[test]
    fn exchanges_that_take_turns_are_timed_alike() {
        for count in [2, 3, 4, 8, 10] {
            let sites: Vec<_> = (0..count).map(|_| (Site::new(), RouteTimes::default())).collect();
            for _ in 0..20 * ROUTES_PER_TIMED_ROUTE {
                sites.iter().for_each(|(site, times)| site.enter_timed(times, || ()));
            }
            let timed: Vec<u64> = sites.iter().map(|(_, times)| times.read().buckets.iter().sum()).collect();
            assert!(timed.iter().all(|timed| (19..=21).contains(timed)), "of {count}: {timed:?}");
        }
    }
}
