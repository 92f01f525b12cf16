//! What a thread still has to do for queues once it is inside none.
//!
//! Queues post to queues: dead letters to where they are wanted, and the news of their arrival back. Doing so from within a queue would
//! nest one queue's work in another's, along chains that clients choose the length of. So it is left here, in the thread's own line,
//! and done one after the other by whoever left the outermost queue. Very long lines go on in a task of their own.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::holder::LineShell;
use super::queue_shell::QueueShell;
use crate::queue::{Handle, Input};

/// Something to do.
#[derive(Debug)]
pub(super) enum Errand {
    /// Send a queue's dead letters.
    SendDead(Weak<QueueShell>),
    /// Tell a queue something.
    Tell(Arc<QueueShell>, Input),
    /// Send what an exchange has put off and what is due.
    Release(Weak<LineShell>),
}

#[derive(Debug, Default)]
struct Line {
    /// Queues that the thread is inside of.
    depth: usize,
    is_running: bool,
    errands: VecDeque<Errand>,
}

thread_local! {
    static LINE: RefCell<Line> = RefCell::default();
}

/// The thread is inside a queue while this lives.
#[derive(Debug)]
pub(super) struct Stay;

impl Stay {
    #[inline]
    pub(super) fn begin() -> Self {
        LINE.with(|line| line.borrow_mut().depth += 1);
        Self
    }
}

impl Drop for Stay {
    #[inline]
    fn drop(&mut self) {
        LINE.with(|line| line.borrow_mut().depth -= 1);
    }
}

/// Does this as soon as the thread is inside no queue; at once if it is in none and not doing another errand.
pub(super) fn leave(errand: Errand) {
    LINE.with(|line| line.borrow_mut().errands.push_back(errand));
    run();
}

/// Does what is left, if it may be done now.
#[inline]
pub(super) fn run() {
    let may_run = LINE.with(|line| {
        let line = line.borrow();
        !line.errands.is_empty() && line.depth == 0 && !line.is_running
    });
    if may_run {
        run_all();
    }
}

/// A panic in an errand must not keep the thread from all later ones.
struct Running;

impl Running {
    fn begin() -> Self {
        LINE.with(|line| line.borrow_mut().is_running = true);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        LINE.with(|line| line.borrow_mut().is_running = false);
    }
}

fn run_all() {
    let _running = Running::begin();
    let mut done = 0;
    while let Some(errand) = LINE.with(|line| line.borrow_mut().errands.pop_front()) {
        if done >= ERRANDS_MAX
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let rest = LINE.with(|line| std::mem::take(&mut line.borrow_mut().errands));
            runtime.spawn(async move {
                for errand in std::iter::once(errand).chain(rest) {
                    leave(errand);
                }
            });
            return;
        }
        done += 1;
        match errand {
            Errand::SendDead(queue) => {
                if let Some(queue) = queue.upgrade() {
                    queue.send_dead();
                }
            }
            Errand::Tell(queue, input) => queue.post(input),
            Errand::Release(line) => {
                if let Some(line) = line.upgrade() {
                    line.release();
                }
            }
        }
    }
}

/// So many errands are done by whoever left a queue; then a task of its own goes on, so that no connection works for others for ever.
const ERRANDS_MAX: usize = 64;
