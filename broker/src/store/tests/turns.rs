//! Connections that carry out what they brought, instead of waking the committer's thread.

use super::*;
use crate::store::{Storing, Turns, has_woken};

fn one(committer: &Committer, seq: u64, publisher: &Arc<Publisher>) {
    submit(committer, 1, vec![append(seq, &message(), publisher)], &[]);
}

struct Bench {
    storage: Arc<Small>,
    committer: Arc<Committer>,
    publisher: Arc<Publisher>,
    turns: Turns,
}

/// Nobody runs the committer.
fn bench() -> Bench {
    let storage = Arc::new(Small::default());
    storage.room_bytes.store(usize::MAX, Ordering::SeqCst);
    let committer = Committer::new(Arc::<Small>::clone(&storage));
    let turns = Turns::new(Arc::clone(&committer));
    Bench { storage, committer, publisher: Arc::default(), turns }
}

impl Bench {
    fn places(&self) -> usize {
        self.storage.places.lock().len()
    }

    fn confirmed(&self) -> usize {
        let confirmed = self.publisher.confirmed.lock();
        confirmed.iter().map(|numbers| (numbers.last - numbers.first + 1) as usize).sum()
    }

    /// Somebody works between queues and storage, as while a node runs.
    async fn until_stored(&self, count: usize) {
        let running = tokio::spawn(Arc::clone(&self.committer).run());
        let stored = async {
            while self.confirmed() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), stored).await.unwrap();
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_nothing_else_to_do_stores_its_message_itself() {
    let mut bench = bench();
    bench.turns.turn(|| one(&bench.committer, 1, &bench.publisher));
    bench.turns.goes_on();
    bench.turns.turn(|| ());
    let mut is_told = false;
    assert_eq!(bench.turns.store(|| is_told = true), Storing::Done);
    assert!(is_told);
    assert_eq!((bench.places(), bench.confirmed()), (1, 1), "and it has its confirm");
    assert_eq!(bench.turns.store(|| ()), Storing::Elsewhere, "there is nothing more to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_out_before_a_thread_waits_for_the_disk() {
    let mut bench = bench();
    bench.turns.turn(|| {
        one(&bench.committer, 1, &bench.publisher);
        has_woken();
    });
    bench.turns.goes_on();
    bench.turns.turn(|| ());
    assert_eq!(bench.turns.store(|| ()), Storing::NotYet);
    bench.turns.turn(|| ());
    assert_eq!((bench.turns.store(|| ()), bench.confirmed()), (Storing::Done, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_is_stored_behind_the_confirm() {
    let mut bench = bench();
    let settled = [SeqRange::one(0, 7, Stored::Lasting)];
    bench.turns.turn(|| {
        submit(&bench.committer, 1, vec![append(9, &message(), &bench.publisher)], &settled);
    });
    assert_eq!(bench.turns.store(|| ()), Storing::Done);
    assert_eq!((bench.confirmed(), bench.storage.settled.lock().len()), (1, 0));
    assert_eq!(bench.turns.store(|| ()), Storing::Done);
    assert_eq!(bench.storage.settled.lock().len(), 1);
    assert_eq!(bench.turns.store(|| ()), Storing::Elsewhere);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_room_is_not_tried_for_ever() {
    let mut bench = bench();
    bench.storage.room_bytes.store(0, Ordering::SeqCst);
    let settled = [SeqRange::one(0, 7, Stored::Lasting)];
    bench.turns.turn(|| {
        submit(&bench.committer, 1, vec![append(9, &message(), &bench.publisher)], &settled);
    });
    assert_eq!(bench.turns.store(|| ()), Storing::Done);
    assert_eq!(bench.turns.store(|| ()), Storing::Elsewhere);
    assert_eq!((bench.confirmed(), bench.storage.settled.lock().len()), (0, 1), "settling goes on");
    bench.storage.room_bytes.store(usize::MAX, Ordering::SeqCst);
    bench.committer.retry();
    bench.until_stored(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_more_to_do_leaves_its_messages_to_the_committer() {
    let mut bench = bench();
    bench.turns.turn(|| one(&bench.committer, 1, &bench.publisher));
    bench.turns.goes_on();
    bench.turns.turn(|| one(&bench.committer, 2, &bench.publisher));
    bench.turns.goes_on();
    assert_eq!(bench.turns.store(|| ()), Storing::Elsewhere);
    bench.until_stored(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_messages_that_become_many_are_left_to_the_committer() {
    let mut bench = bench();
    bench.turns.turn(|| (1..=100).for_each(|seq| one(&bench.committer, seq, &bench.publisher)));
    assert_eq!(bench.turns.store(|| ()), Storing::Elsewhere);
    bench.until_stored(100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_batch_is_a_failure_of_the_store_whosever_thread_it_is() {
    let mut bench = bench();
    bench.storage.panics.store(true, Ordering::SeqCst);
    bench.turns.turn(|| one(&bench.committer, 1, &bench.publisher));
    let panicking = std::panic::AssertUnwindSafe(|| bench.turns.store(|| ()));
    assert!(std::panic::catch_unwind(panicking).is_err());
    let failed = tokio::time::timeout(std::time::Duration::from_secs(10), bench.committer.failed());
    assert!(failed.await.unwrap().0.contains("panic"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_are_left_to_the_committer() {
    let mut bench = bench();
    let messages = || (1..=100).map(|seq| append(seq, &message(), &bench.publisher)).collect();
    bench.turns.turn(|| submit(&bench.committer, 1, messages(), &[]));
    assert_eq!(bench.turns.store(|| ()), Storing::Elsewhere);
    bench.until_stored(100).await;
    // As long as batches are large, a single message is, too: the next that come may share its sync.
    bench.turns.turn(|| one(&bench.committer, 101, &bench.publisher));
    assert_eq!(bench.turns.store(|| ()), Storing::Elsewhere);
    bench.until_stored(101).await;
    bench.turns.turn(|| one(&bench.committer, 102, &bench.publisher));
    assert_eq!(bench.turns.store(|| ()), Storing::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_somebody_else_stores_nobody_waits_for_the_right_to() {
    let mut bench = bench();
    bench.turns.turn(|| one(&bench.committer, 1, &bench.publisher));
    let somebody = bench.committer.try_work().unwrap();
    assert_eq!(bench.turns.store(|| ()), Storing::Elsewhere);
    drop(somebody);
    bench.until_stored(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_leaves_its_messages_to_the_committer() {
    let mut bench = bench();
    bench.turns.turn(|| one(&bench.committer, 1, &bench.publisher));
    bench.turns = Turns::new(Arc::clone(&bench.committer));
    bench.until_stored(1).await;
    let panicking = std::panic::AssertUnwindSafe(|| {
        bench.turns.turn(|| {
            one(&bench.committer, 2, &bench.publisher);
            panic!("in a turn");
        });
    });
    assert!(std::panic::catch_unwind(panicking).is_err());
    bench.turns.wake();
    bench.until_stored(2).await;
}

#[tokio::test]
async fn the_only_thread_of_a_runtime_is_not_blocked() {
    let mut bench = bench();
    bench.turns.turn(|| one(&bench.committer, 1, &bench.publisher));
    assert_eq!(bench.turns.store(|| ()), Storing::Elsewhere);
    bench.until_stored(1).await;
}
