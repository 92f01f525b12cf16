//! From those who have news to those who want them, without the first ever waiting for the second.
//!
//! A subscriber has a queue of its own with a limit. What does not fit is counted and told in its place, so that nobody takes a gap for silence.
//! Nothing is kept for whoever subscribes later. There is no clock, thread or runtime in here: who waits does so by a [`Waker`].

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// News that wait for one subscriber at most: enough for a burst of ten thousand declarations, and a bounded price for one that sleeps.
pub const WAITING_MAX: usize = 10_000;
/// Bytes of news that wait for one subscriber at most. Connections bring tables of any size.
pub const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Where news are handed out. Clones are the same feed.
pub struct Feed<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    subscribers: Mutex<Vec<Arc<Mutex<Waiting<T>>>>>,
    /// How many there are, so that those who have news need no lock to see that nobody wants them.
    count: AtomicUsize,
}

struct Waiting<T> {
    news: VecDeque<(Arc<T>, usize)>,
    bytes: usize,
    missed: u64,
    waker: Option<Waker>,
}

/// What a subscriber gets next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// Something new.
    News(Arc<T>),
    /// So many did not fit, after those before and before those that follow.
    Missed(u64),
}

/// News since it was made, in their order. Dropping it ends the subscription.
pub struct Subscription<T> {
    feed: Arc<Inner<T>>,
    waiting: Arc<Mutex<Waiting<T>>>,
}

impl<T> Feed<T> {
    /// Whether anybody wants news; if not, there is no need to put them together.
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.inner.count.load(Ordering::Relaxed) > 0
    }

    /// Hands something to every subscriber; never waits for one. `bytes` is about what it takes in memory.
    pub fn send(&self, news: T, bytes: usize) {
        let news = Arc::new(news);
        // Under the lock, so that all subscribers see the same order.
        let subscribers = self.inner.subscribers.lock();
        for subscriber in subscribers.iter() {
            let waker = subscriber.lock().take(&news, bytes);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// From now on.
    pub fn subscribe(&self) -> Subscription<T> {
        let waiting = Arc::new(Mutex::new(Waiting { news: VecDeque::new(), bytes: 0, missed: 0, waker: None }));
        let mut subscribers = self.inner.subscribers.lock();
        subscribers.push(Arc::clone(&waiting));
        self.inner.count.store(subscribers.len(), Ordering::Relaxed);
        drop(subscribers);
        Subscription { feed: Arc::clone(&self.inner), waiting }
    }
}

impl<T> Waiting<T> {
    fn take(&mut self, news: &Arc<T>, bytes: usize) -> Option<Waker> {
        // Once something was missed, what follows is missed as well until the subscriber has come to the gap: so there is one gap, in its place.
        if self.missed > 0 || self.news.len() >= WAITING_MAX || self.bytes + bytes > WAITING_BYTES_MAX {
            self.missed += 1;
        } else {
            self.bytes += bytes;
            self.news.push_back((Arc::clone(news), bytes));
        }
        self.waker.take()
    }

    fn next(&mut self) -> Option<Next<T>> {
        if let Some((news, bytes)) = self.news.pop_front() {
            self.bytes -= bytes;
            return Some(Next::News(news));
        }
        match std::mem::take(&mut self.missed) {
            0 => None,
            missed => Some(Next::Missed(missed)),
        }
    }
}

impl<T> Subscription<T> {
    /// What is there already; none when there is nothing new.
    pub fn try_next(&mut self) -> Option<Next<T>> {
        self.waiting.lock().next()
    }

    /// Waits for the next. Nothing is lost when the future is dropped before it is ready, so it may stand in a `select!`.
    pub async fn next(&mut self) -> Next<T> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Self::next`], for who polls by hand.
    pub fn poll_next(&mut self, context: &Context<'_>) -> Poll<Next<T>> {
        let mut waiting = self.waiting.lock();
        match waiting.next() {
            Some(next) => Poll::Ready(next),
            None => {
                waiting.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        let mut subscribers = self.feed.subscribers.lock();
        subscribers.retain(|waiting| !Arc::ptr_eq(waiting, &self.waiting));
        self.feed.count.store(subscribers.len(), Ordering::Relaxed);
    }
}

impl<T> Default for Feed<T> {
    fn default() -> Self {
        Self { inner: Arc::new(Inner { subscribers: Mutex::default(), count: AtomicUsize::new(0) }) }
    }
}

impl<T> Clone for Feed<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> fmt::Debug for Feed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("subscribers", &self.inner.count).finish()
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiting.lock();
        f.debug_struct("Subscription").field("waiting", &waiting.news.len()).field("missed", &waiting.missed).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use super::*;

    fn all(subscription: &mut Subscription<usize>) -> Vec<Next<usize>> {
        std::iter::from_fn(|| subscription.try_next()).collect()
    }

    fn news(values: std::ops::Range<usize>) -> Vec<Next<usize>> {
        values.map(|value| Next::News(Arc::new(value))).collect()
    }

    #[test]
    fn every_subscriber_gets_everything_since_it_came() {
        let feed = Feed::default();
        assert!(!feed.is_watched());
        feed.send(0, 1);
        let mut first = feed.subscribe();
        feed.send(1, 1);
        let mut second = feed.subscribe();
        feed.send(2, 1);
        assert!(feed.is_watched());
        assert_eq!((all(&mut first), all(&mut second)), (news(1..3), news(2..3)));
        drop(first);
        assert!(feed.is_watched());
        drop(second);
        assert!(!feed.is_watched());
    }

    #[test]
    fn what_does_not_fit_is_counted_where_it_is_missing() {
        let feed = Feed::default();
        let mut slow = feed.subscribe();
        (0..WAITING_MAX + 7).for_each(|value| feed.send(value, 1));
        let mut expected = news(0..WAITING_MAX);
        expected.push(Next::Missed(7));
        assert_eq!(all(&mut slow), expected);
        feed.send(9, 1);
        assert_eq!(all(&mut slow), news(9..10), "and it goes on");
    }

    #[test]
    fn there_is_one_gap_in_its_place() {
        let feed = Feed::default();
        let mut slow = feed.subscribe();
        feed.send(0, WAITING_BYTES_MAX);
        feed.send(1, 1);
        assert_eq!(slow.try_next(), Some(Next::News(Arc::new(0))));
        feed.send(2, 1);
        assert_eq!(slow.try_next(), Some(Next::Missed(2)));
        assert_eq!(slow.try_next(), None);
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_is_woken() {
        let feed = Feed::default();
        let mut waiting = feed.subscribe();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert_eq!(waiting.poll_next(&Context::from_waker(&waker)), Poll::Pending);
        assert!(!woken.0.load(Ordering::Relaxed));
        feed.send(1, 1);
        assert!(woken.0.load(Ordering::Relaxed));
        assert_eq!(waiting.poll_next(&Context::from_waker(&waker)), Poll::Ready(Next::News(Arc::new(1))));
    }
}
