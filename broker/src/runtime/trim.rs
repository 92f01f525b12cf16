//! Freed memory goes back to the operating system, also that of threads that have nothing to do.
//!
//! An allocator keeps memory for each thread, and what another thread frees there is found when its owner allocates again. A thread that
//! was busy and then parks would keep it for ever: some blocks of each size, which is megabytes for large bodies. So each thread of the
//! runtime tidies up when it parks, if it has not done so for a while, and the sampler now and then lets parked threads run for a moment.
//! Which allocator there is only the program knows; tests have none that needs this.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Threads that park a thousand times a second tidy up once in this time.
const TIDY_EVERY: Duration = Duration::from_secs(1);

static TIDY: OnceLock<fn()> = OnceLock::new();

thread_local! {
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// What gives the calling thread's free memory back. The first one counts.
pub fn use_allocator(tidy: fn()) {
    // A second program in the process would be a mistake of ours without consequences.
    let _ = TIDY.set(tidy);
}

/// The calling thread has nothing to do.
pub fn on_park() {
    let Some(tidy) = TIDY.get() else { return };
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now.duration_since(last) >= TIDY_EVERY) {
        LAST.set(Some(now));
        tidy();
    }
}

/// Lets parked threads of the runtime run for a moment, so that they tidy up.
pub fn stir_parked() {
    if TIDY.get().is_none() {
        return;
    }
    let runtime = tokio::runtime::Handle::current();
    // Each new task wakes one of the parked.
    for _ in 1..runtime.metrics().num_workers() {
        runtime.spawn(std::future::ready(()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static COUNT: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn a_thread_that_parks_often_tidies_up_once_and_each_thread_for_itself() {
        use_allocator(|| {
            COUNT.fetch_add(1, Ordering::Relaxed);
        });
        for _ in 0..3 {
            std::thread::spawn(|| (0..1000).for_each(|_| on_park())).join().expect("parking does not panic");
        }
        let count = COUNT.load(Ordering::Relaxed);
        assert!((3..100).contains(&count), "{count}");
    }
}
