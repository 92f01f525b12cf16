//! The broker's tasks, polled one at a time by whoever decides whose turn it is.
//!
//! A task that was woken is ready; nothing runs by itself. Timers are tokio's, on a clock that is paused: they ring the bell when
//! the driver lets time pass.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// The number of a task, in the order they were started.
pub(crate) type TaskId = u32;

type Job = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    name: String,
    job: Job,
    flag: Arc<Flag>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Tasks {
    tasks: BTreeMap<TaskId, Task>,
    next: TaskId,
    bell: Arc<Bell>,
}

/// Wakes the driver when it waits for time to pass.
#[derive(Default)]
struct Bell(Mutex<Option<Waker>>);

struct Flag {
    is_ready: AtomicBool,
    bell: Arc<Bell>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.is_ready.store(true, Ordering::Relaxed);
        let driver = self.bell.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

impl Tasks {
    /// Adds a task, ready for its first turn.
    pub(crate) fn start(&mut self, name: String, job: impl Future<Output = ()> + 'static) -> TaskId {
        self.next += 1;
        let flag = Arc::new(Flag { is_ready: AtomicBool::new(true), bell: Arc::clone(&self.bell) });
        self.tasks.insert(self.next, Task { name, job: Box::pin(job), flag });
        self.next
    }

    /// Drops a task where it stands.
    pub(crate) fn end(&mut self, id: TaskId) {
        self.tasks.remove(&id);
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&self, id: TaskId) -> bool {
        self.tasks.contains_key(&id)
    }

    /// Its name, for the trace.
    pub(crate) fn name(&self, id: TaskId) -> &str {
        self.tasks.get(&id).map_or("", |task| &task.name)
    }

    /// Those that can go on, in the order of their numbers.
    pub(crate) fn ready(&self) -> impl Iterator<Item = TaskId> {
        self.tasks.iter().filter(|(_, task)| task.flag.is_ready.load(Ordering::Relaxed)).map(|(id, _)| *id)
    }

    /// Gives a task its turn; true when it has ended.
    pub(crate) fn run(&mut self, id: TaskId) -> bool {
        let Some(task) = self.tasks.get_mut(&id) else { return true };
        task.flag.is_ready.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&task.flag));
        let has_ended = task.job.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if has_ended {
            self.tasks.remove(&id);
        }
        has_ended
    }

    /// Whether somebody is ready; if not, the driver is woken when somebody is.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        *self.bell.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if self.ready().next().is_some() { Poll::Ready(()) } else { Poll::Pending }
    }
}
