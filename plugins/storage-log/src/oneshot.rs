//! One answer from a thread to a future.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Where the answer is put. Dropped without one, the future resolves to `None`.
pub(crate) struct Sender<T>(Arc<Mutex<State<T>>>);

/// Resolves to the answer.
pub(crate) struct Receiver<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    answer: Option<T>,
    is_closed: bool,
    waker: Option<Waker>,
}

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = Arc::new(Mutex::new(State { answer: None, is_closed: false, waker: None }));
    (Sender(Arc::clone(&state)), Receiver(state))
}

impl<T> Sender<T> {
    pub(crate) fn send(self, answer: T) {
        lock(&self.0).answer = Some(answer);
        // Dropping wakes.
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = lock(&self.0);
            state.is_closed = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.0);
        if let Some(answer) = state.answer.take() {
            return Poll::Ready(Some(answer));
        }
        if state.is_closed {
            return Poll::Ready(None);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

/// Nothing that runs under this lock can leave the state half changed.
fn lock<T>(mutex: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use plugin_api::testing::block_on;

    use super::*;

    #[test]
    fn answer_arrives_from_another_thread_and_its_absence_too() {
        let (sender, receiver) = channel();
        std::thread::spawn(move || sender.send(5));
        assert_eq!(block_on(receiver), Some(5));
        let (sender, receiver) = channel::<u8>();
        std::thread::spawn(move || drop(sender));
        assert_eq!(block_on(receiver), None);
    }
}
