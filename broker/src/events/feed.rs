//! From those who have news to those who want them, without the first ever waiting for the second.
//!
//! A subscriber has a queue of its own with a limit. What does not fit is counted and told in its place, so that nobody takes a gap for silence.
//! Nothing is kept for whoever subscribes later, unless somebody wants it for a while ([`Feed::keep`]): then the last news stay, with numbers, and who
//! was here before goes on where he was. There is no clock, thread or runtime in here: who waits does so by a [`Waker`].

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

/// News that are kept at most for those who come again: what happens on a busy broker in some seconds.
pub const KEPT_MAX: usize = 4096;
/// Bytes of news that are kept at most; less than what may wait for a subscriber, so that all of it fits there.
pub const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where news are handed out. Clones are the same feed.
pub struct Feed<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    state: Mutex<State<T>>,
    /// How many want news, so that those who have some need no lock to see that nobody does.
    count: AtomicUsize,
}

struct State<T> {
    subscribers: Vec<Arc<Mutex<Waiting<T>>>>,
    kept: Option<Kept<T>>,
}

/// The last news.
struct Kept<T> {
    /// Distinguishes this keeping from earlier ones, whose numbers say nothing here.
    run: u64,
    news: VecDeque<Numbered<T>>,
    bytes: usize,
    /// Of the last news that was told since the keeping began.
    number: u64,
}

struct Waiting<T> {
    news: VecDeque<Numbered<T>>,
    bytes: usize,
    missed: u64,
    /// Of what was handed out last.
    at: Position,
    waker: Option<Waker>,
}

struct Numbered<T> {
    news: Arc<T>,
    bytes: usize,
    at: Position,
}

/// A place among news that are kept. Those that nobody keeps are all at the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Which keeping.
    pub run: u64,
    /// So many news were told before and including the last one, since that keeping began.
    pub number: u64,
}

impl<T> Clone for Numbered<T> {
    fn clone(&self) -> Self {
        Self { news: Arc::clone(&self.news), ..*self }
    }
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
        // Under the lock, so that all subscribers see the same order.
        let mut state = self.inner.state.lock();
        let mut numbered = Numbered { news: Arc::new(news), bytes, at: Position::default() };
        if let Some(kept) = &mut state.kept {
            kept.take(&mut numbered);
        }
        for subscriber in &state.subscribers {
            let waker = subscriber.lock().take(&numbered);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// From now on.
    pub fn subscribe(&self) -> Subscription<T> {
        let mut state = self.inner.state.lock();
        let at = state.kept.as_ref().map(Kept::last).unwrap_or_default();
        self.add(&mut state, Waiting { at, ..Waiting::default() })
    }

    /// From what came after `position` on. Returns also how many of these are not kept any more; none when nobody knows, because nothing was kept then:
    /// what is handed out begins now.
    pub fn subscribe_after(&self, position: Position) -> (Subscription<T>, Option<u64>) {
        let mut state = self.inner.state.lock();
        let known = state.kept.as_ref().filter(|kept| kept.run == position.run && position.number <= kept.number);
        let Some(kept) = known else {
            drop(state);
            return (self.subscribe(), None);
        };
        let first = kept.number - kept.news.len() as u64;
        let missed = first.saturating_sub(position.number);
        let news: VecDeque<_> = kept.news.iter().filter(|news| news.at.number > position.number).cloned().collect();
        let at = Position { number: position.number.max(first), ..position };
        let bytes = news.iter().map(|news| news.bytes).sum();
        let subscription = self.add(&mut state, Waiting { news, bytes, at, ..Waiting::default() });
        (subscription, Some(missed))
    }

    /// Keeps the last news from now on; `run` is a number that no keeping had before. One that goes on stays as it is.
    pub fn keep(&self, run: u64) {
        let mut state = self.inner.state.lock();
        if state.kept.is_none() {
            state.kept = Some(Kept { run, news: VecDeque::new(), bytes: 0, number: 0 });
            self.inner.recount(&state);
        }
    }

    /// Keeps nothing any more.
    pub fn forget(&self) {
        let mut state = self.inner.state.lock();
        state.kept = None;
        self.inner.recount(&state);
    }

    fn add(&self, state: &mut State<T>, waiting: Waiting<T>) -> Subscription<T> {
        let waiting = Arc::new(Mutex::new(waiting));
        state.subscribers.push(Arc::clone(&waiting));
        self.inner.recount(state);
        Subscription { feed: Arc::clone(&self.inner), waiting }
    }
}

impl<T> Inner<T> {
    fn recount(&self, state: &State<T>) {
        self.count.store(state.subscribers.len() + usize::from(state.kept.is_some()), Ordering::Relaxed);
    }
}

impl<T> Kept<T> {
    fn last(&self) -> Position {
        Position { run: self.run, number: self.number }
    }

    /// Gives the news its number, and keeps it.
    fn take(&mut self, news: &mut Numbered<T>) {
        self.number += 1;
        news.at = self.last();
        self.bytes += news.bytes;
        self.news.push_back(news.clone());
        while self.news.len() > KEPT_MAX || self.bytes > KEPT_BYTES_MAX {
            let Some(oldest) = self.news.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { news: VecDeque::new(), bytes: 0, missed: 0, at: Position::default(), waker: None }
    }
}

impl<T> Waiting<T> {
    fn take(&mut self, news: &Numbered<T>) -> Option<Waker> {
        // Once something was missed, what follows is missed as well until the subscriber has come to the gap: so there is one gap, in its place.
        if self.missed > 0 || self.news.len() >= WAITING_MAX || self.bytes + news.bytes > WAITING_BYTES_MAX {
            self.missed += 1;
        } else {
            self.bytes += news.bytes;
            self.news.push_back(news.clone());
        }
        self.waker.take()
    }

    fn next(&mut self) -> Option<Next<T>> {
        if let Some(Numbered { news, bytes, at }) = self.news.pop_front() {
            self.bytes -= bytes;
            self.at = at;
            return Some(Next::News(news));
        }
        match std::mem::take(&mut self.missed) {
            0 => None,
            missed => {
                self.at.number += missed;
                Some(Next::Missed(missed))
            }
        }
    }
}

impl<T> Subscription<T> {
    /// What is there already; none when there is nothing new.
    pub fn try_next(&mut self) -> Option<Next<T>> {
        self.waiting.lock().next()
    }

    /// The place of what was handed out last; to go on from there later see [`Feed::subscribe_after`].
    pub fn at(&self) -> Position {
        self.waiting.lock().at
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
        let mut state = self.feed.state.lock();
        state.subscribers.retain(|waiting| !Arc::ptr_eq(waiting, &self.waiting));
        self.feed.recount(&state);
    }
}

impl<T> Default for Feed<T> {
    fn default() -> Self {
        let state = Mutex::new(State { subscribers: Vec::new(), kept: None });
        Self { inner: Arc::new(Inner { state, count: AtomicUsize::new(0) }) }
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

    #[test]
    fn who_comes_again_goes_on_where_he_was() {
        let feed = Feed::default();
        feed.keep(7);
        feed.keep(8);
        assert!(feed.is_watched(), "also for those who are not here at the moment");
        feed.send(1, 1);
        let mut first = feed.subscribe();
        assert_eq!(first.at(), Position { run: 7, number: 1 });
        feed.send(2, 1);
        assert_eq!(all(&mut first), news(2..3));
        let at = first.at();
        assert_eq!(at, Position { run: 7, number: 2 });
        drop(first);
        feed.send(3, 1);
        feed.send(4, 1);
        let (mut again, missed) = feed.subscribe_after(at);
        assert_eq!((again.at(), missed), (at, Some(0)));
        feed.send(5, 1);
        assert_eq!((all(&mut again), again.at().number), (news(3..6), 5));
        for unknown in [Position { run: 6, number: 2 }, Position { run: 7, number: 6 }] {
            let (mut again, missed) = feed.subscribe_after(unknown);
            assert_eq!((all(&mut again), missed), (news(0..0), None), "{unknown:?}");
        }
        drop(again);
        feed.forget();
        assert!(!feed.is_watched());
        assert_eq!(feed.subscribe_after(at).1, None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_gone_is_counted() {
        let check = |bytes: usize, kept: usize| {
            let feed = Feed::default();
            feed.keep(1);
            (0..KEPT_MAX + 10).for_each(|value| feed.send(value, bytes));
            let (mut again, missed) = feed.subscribe_after(Position { run: 1, number: 3 });
            assert_eq!(missed, Some((KEPT_MAX + 10 - kept - 3) as u64));
            assert_eq!(all(&mut again), news(KEPT_MAX + 10 - kept..KEPT_MAX + 10));
        };
        check(1, KEPT_MAX);
        check(KEPT_BYTES_MAX / 4, 4);
        check(KEPT_BYTES_MAX + 1, 0);
    }

    #[test]
    fn what_a_slow_subscriber_missed_counts_for_its_place() {
        let feed = Feed::default();
        feed.keep(1);
        let mut slow = feed.subscribe();
        (0..WAITING_MAX + 7).for_each(|value| feed.send(value, 1));
        assert_eq!(all(&mut slow).last(), Some(&Next::Missed(7)));
        assert_eq!(slow.at().number, (WAITING_MAX + 7) as u64);
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
