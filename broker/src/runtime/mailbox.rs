//! Where queues and the store leave notices for a connection.
//!
//! Posting takes a leaf lock and wakes the connection's task only when it sleeps. The mailbox also counts the bytes of publishes that the
//! connection has posted and nobody has processed: above a limit the connection stops reading its socket.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::queue::{Notice, Outlet};
use crate::store;

/// More unprocessed bytes of publishes than this, and the socket is left unread.
pub const UNPROCESSED_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, Default)]
struct Inner {
    notices: Vec<Notice>,
    sleeper: Option<Waker>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    unprocessed_bytes: AtomicUsize,
    is_closed: AtomicBool,
}

impl Mailbox {
    /// Moves what is there to `notices`, in order.
    pub fn take(&self, notices: &mut Vec<Notice>) {
        let mut inner = self.inner.lock();
        if notices.is_empty() {
            std::mem::swap(&mut inner.notices, notices);
        } else {
            notices.append(&mut inner.notices);
        }
    }

    /// Whether there is something to take; if not, the task is woken when there is, or when credit comes back.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.lock();
        if inner.notices.is_empty() {
            match &mut inner.sleeper {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// The task is awake: nobody needs to wake it.
    pub fn stay_awake(&self) {
        self.inner.lock().sleeper = None;
    }

    /// Counts publishes that are being posted.
    pub fn publishes_posted(&self, bytes: usize) {
        self.unprocessed_bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Whether so much is unprocessed that the socket should wait.
    pub fn is_out_of_credit(&self) -> bool {
        self.unprocessed_bytes.load(Ordering::SeqCst) > UNPROCESSED_BYTES_MAX
    }

    /// The connection is gone; what comes now is dropped.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let notices = std::mem::take(&mut self.inner.lock().notices);
        drop(notices);
    }

    fn wake(&self) {
        let sleeper = self.inner.lock().sleeper.take();
        if let Some(waker) = sleeper {
            waker.wake();
        }
    }
}

impl Outlet for Mailbox {
    fn post(&self, notice: Notice) {
        if self.is_closed.load(Ordering::SeqCst) {
            return;
        }
        let mut inner = self.inner.lock();
        inner.notices.push(notice);
        let sleeper = inner.sleeper.take();
        drop(inner);
        if let Some(waker) = sleeper {
            store::has_woken();
            waker.wake();
        }
    }

    fn publishes_processed(&self, bytes: usize) {
        let before = self.unprocessed_bytes.fetch_sub(bytes, Ordering::SeqCst);
        if before > UNPROCESSED_BYTES_MAX && before - bytes <= UNPROCESSED_BYTES_MAX {
            self.wake();
        }
    }
}
