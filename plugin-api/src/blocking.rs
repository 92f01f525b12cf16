//! Threads for work that blocks, and futures that wait for it.
//!
//! What a trait asks of its futures, not to block the thread that polls them, is hard to keep with a library that waits for
//! a socket or a disk by itself. [`Threads`] does such work elsewhere: a fixed number of threads, a queue of a fixed length,
//! and no async runtime. It has no time limits; whatever the work waits for needs one of its own.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

/// Some threads with one queue. Dropping it lets them finish what they have begun, and waits for that; what has not been begun
/// is answered with [`NotDone::Ended`].
pub struct Threads {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

/// Why work has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDone {
    /// The queue was full.
    Full,
    /// It panicked.
    Panicked,
    /// The threads have ended.
    Ended,
}

struct Desk {
    queue: Mutex<Queue>,
    arrived: Condvar,
    queued_max: usize,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    has_ended: bool,
}

type Work = Box<dyn FnOnce() + Send>;

impl Threads {
    /// Starts `count` threads, at least one. Beyond `queued_max` waiting pieces of work, more is refused.
    ///
    /// # Errors
    /// When the operating system has no thread.
    pub fn start(name: &str, count: usize, queued_max: usize) -> std::io::Result<Self> {
        let desk = Arc::new(Desk { queue: Mutex::default(), arrived: Condvar::new(), queued_max });
        let mut threads = Self { desk, threads: Vec::new() };
        for _ in 0..count.max(1) {
            let desk = Arc::clone(&threads.desk);
            let run = move || while desk.work_once() {};
            threads.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(run)?);
        }
        Ok(threads)
    }

    /// Does `work` on one of the threads. It is queued at once, and done even if the future is dropped.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Done<T> {
        let answer = Arc::new(Mutex::new(Answer { result: None, waker: None }));
        let ticket = Ticket(Arc::clone(&answer));
        let is_queued = self.desk.queue_up(Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work)).map_err(|_| NotDone::Panicked);
            ticket.answer(result);
        }));
        if !is_queued {
            lock(&answer).result = Some(Err(NotDone::Full));
        }
        Done(answer)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let left = {
            let mut queue = lock(&self.desk.queue);
            queue.has_ended = true;
            std::mem::take(&mut queue.work)
        };
        self.desk.arrived.notify_all();
        drop(left);
        for thread in self.threads.drain(..) {
            // Panics of the work are caught; there is nothing else in the thread.
            drop(thread.join());
        }
    }
}

impl Desk {
    /// False when there is no room; the work is then dropped.
    fn queue_up(&self, work: Work) -> bool {
        let mut queue = lock(&self.queue);
        if queue.work.len() >= self.queued_max {
            return false;
        }
        queue.work.push_back(work);
        drop(queue);
        self.arrived.notify_one();
        true
    }

    /// False when it is time to end.
    fn work_once(&self) -> bool {
        let mut queue = lock(&self.queue);
        let work = loop {
            if queue.has_ended {
                return false;
            }
            match queue.work.pop_front() {
                Some(work) => break work,
                None => queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(queue);
        work();
        true
    }
}

/// The result of a piece of work, when it is there.
pub struct Done<T>(Arc<Mutex<Answer<T>>>);

struct Answer<T> {
    result: Option<Result<T, NotDone>>,
    waker: Option<Waker>,
}

impl<T> Future for Done<T> {
    type Output = Result<T, NotDone>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = lock(&self.0);
        if let Some(result) = answer.result.take() {
            return Poll::Ready(result);
        }
        if !answer.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            answer.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

/// The worker's end. Dropped without an answer it says that the threads have ended.
struct Ticket<T>(Arc<Mutex<Answer<T>>>);

impl<T> Ticket<T> {
    fn answer(&self, result: Result<T, NotDone>) {
        let waker = {
            let mut answer = lock(&self.0);
            answer.result = Some(result);
            answer.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        // A future that has its result already never looks at this one.
        let is_open = lock(&self.0).result.is_none();
        if is_open {
            self.answer(Err(NotDone::Ended));
        }
    }
}

impl std::fmt::Display for NotDone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "too much is waiting already",
            Self::Panicked => "the work panicked",
            Self::Ended => "the plugin is ending",
        })
    }
}

impl std::error::Error for NotDone {}

/// Nothing that runs under these locks can leave things half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::testing::block_on;

    #[test]
    fn work_is_done_on_another_thread() {
        let threads = Threads::start("test", 2, 10).unwrap();
        let there = block_on(threads.run(|| std::thread::current().id())).unwrap();
        assert_ne!(there, std::thread::current().id());
        let many: Vec<_> = (0..10).map(|number| threads.run(move || number * 2)).collect();
        assert_eq!(many.into_iter().map(|done| block_on(done).unwrap()).sum::<u32>(), 90);
    }

    #[test]
    fn panic_is_an_answer_and_the_thread_lives_on() {
        let threads = Threads::start("test", 1, 10).unwrap();
        assert_eq!(
            block_on(threads.run(|| if true {
                panic!("on purpose")
            })),
            Err(NotDone::Panicked)
        );
        assert_eq!(block_on(threads.run(|| 1)), Ok(1));
    }

    #[test]
    fn what_does_not_fit_is_refused_at_once_and_what_was_not_begun_ends_with_the_threads() {
        let threads = Threads::start("test", 1, 1).unwrap();
        let (begun, has_begun) = mpsc::channel();
        let (release, wait) = mpsc::channel::<()>();
        let first = threads.run(move || {
            begun.send(()).unwrap();
            let _ = wait.recv();
        });
        has_begun.recv().unwrap();
        let second = threads.run(|| ());
        assert_eq!(block_on(threads.run(|| ())), Err(NotDone::Full));
        // Ends only when the first piece of work does.
        let ending = std::thread::spawn(move || drop(threads));
        assert_eq!(block_on(second), Err(NotDone::Ended));
        release.send(()).unwrap();
        assert_eq!(block_on(first), Ok(()));
        ending.join().unwrap();
    }
}
