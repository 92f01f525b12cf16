//! Semantics 18, by event.

use super::*;

fn ttl(ms: u64) -> Options {
    Options { message_ttl_ms: Some(ms), ..Options::default() }
}

fn with_dead_letters(options: Options) -> Options {
    Options { dead_letters: true, ..options }
}

#[test]
fn the_smaller_time_to_live_counts_and_expiry_needs_nobody_to_look() {
    // Semantics 18.1 and 18.4.
    let mut bench = bench(with_dead_letters(ttl(100)));
    bench.publish_expiring("50", &["a"]).publish_expiring("500", &["b"]);
    assert_eq!(bench.wants(), Some(50));
    bench.at(49).expect(&[]);
    bench.at(50).expect(&["expired a"]);
    assert_eq!((bench.wants(), bench.queue.ready_count()), (Some(100), 1));
    bench.at(100).expect(&["expired b"]);
    assert_eq!((bench.wants(), bench.queue.ready_count()), (None, 0));
}

#[test]
fn without_a_dead_letter_target_what_expires_is_settled() {
    let options = Options { durable: true, ..ttl(10) };
    let mut bench = bench(options);
    bench.publish_with(&PERSISTENT, &["a", "b"]).at(10);
    assert_eq!((bench.queue.ready_count(), &bench.settled[..]), (0, &[1, 2][..]));
}

#[test]
fn dead_letters_are_settled_by_whoever_buries_them() {
    // So a crash in between leaves them in one place at least.
    let mut bench = bench(with_dead_letters(Options { durable: true, ..ttl(10) }));
    bench.publish_with(&PERSISTENT, &["a"]).at(10);
    assert!(bench.settled.is_empty());
    let places: Vec<(u64, u64, Stored)> =
        bench.unburied.iter().map(|dead| (dead.place.first, dead.place.last, dead.place.stored)).collect();
    assert_eq!(places, [(1, 1, Stored::Lasting)]);
}

#[test]
fn an_expired_message_is_never_delivered_even_if_the_clock_was_not_looked_at() {
    // Semantics 18.3.
    let mut bench = bench(with_dead_letters(ttl(10)));
    bench.publish(&["a", "b"]).publish_expiring("5", &["c"]);
    bench.now_ms += 10;
    bench.get(1, true).expect(&["Empty", "expired a", "expired b", "expired c"]);
    bench.publish(&["d"]);
    bench.now_ms += 10;
    bench.consume(2).expect(&["Consuming", "expired d"]);
}

#[test]
fn what_lives_longer_holds_back_what_stands_behind_it() {
    // Semantics 18.3: only from the head.
    let mut bench = bench(with_dead_letters(Options::default()));
    bench.publish(&["a"]).publish_expiring("10", &["b"]).at(20).expect(&[]);
    assert_eq!((bench.wants(), bench.queue.ready_count()), (None, 2));
    bench.get(1, true).expect(&["got a remaining 0", "expired b"]);
    assert_eq!(bench.wants(), None);
}

#[test]
fn a_time_to_live_of_0_delivers_at_once_or_expires() {
    // Semantics 18.2.
    let mut bench = bench(with_dead_letters(ttl(0)));
    bench.publish(&["a"]).expect(&["expired a"]);
    bench.consume_prefetch(1, 1).publish(&["b", "c"]).expect(&["Consuming", "1<b#1", "expired c"]);
    bench.settle(1, &[1], Settlement::Remove).publish_expiring("0", &["d"]).expect(&["1<d#2"]);
}

#[test]
fn a_returned_message_keeps_its_deadline() {
    // Semantics 18.5 and 13.20.
    let mut bench = bench(with_dead_letters(ttl(10)));
    bench.publish(&["a", "b"]).get(1, false).get(1, false).told();
    bench.at(9).settle(1, &[1], Settlement::Requeue).expect(&[]);
    assert_eq!(bench.wants(), Some(10));
    bench.at(20).expect(&["expired a"]);
    bench.settle(1, &[2], Settlement::Requeue).expect(&["expired b"]);
    assert_eq!(bench.queue.ready_count(), 0);
}

#[test]
fn a_policy_changes_the_time_to_live_of_later_messages() {
    // Semantics 18.6.
    let mut bench = bench(with_dead_letters(ttl(100)));
    bench.publish(&["a"]).input(Input::Reconfigure(with_dead_letters(ttl(10)))).publish(&["b"]);
    bench.at(99).expect(&[]);
    bench.at(100).expect(&["expired a", "expired b"]);
    bench.input(Input::Reconfigure(with_dead_letters(Options::default()))).publish(&["c"]);
    assert_eq!(bench.wants(), None);
}

#[test]
fn what_is_out_of_memory_is_fetched_when_its_time_is_up() {
    // Semantics 18.4, for a backlog. The store knows when each came.
    let mut bench = bench(with_dead_letters(Options { durable: true, ..ttl(100) }));
    bench.queue.set_budget(0);
    bench.at(1).publish_with(&PERSISTENT, &["kept"]).at(10).publish_with(&PERSISTENT, &["a"]).at(20);
    bench.publish_with(&PERSISTENT, &["b"]).told();
    assert_eq!((bench.loads.len(), bench.wants()), (0, Some(101)), "the first is in memory");
    bench.at(101).expect(&["expired kept"]);
    assert_eq!((bench.loads.len(), bench.wants()), (0, Some(110)), "the time of none is up");
    bench.at(110);
    assert_eq!((bench.wanted(), bench.wants()), (vec![(2, 2)], None), "one look, and no hurry meanwhile");
    bench.load_came(2, &[(2, "a", 10)]);
    assert_eq!(bench.wanted(), [(2, 3)]);
    bench.load_came(3, &[(2, "a", 10), (3, "b", 20)]).expect(&["expired a"]);
    assert_eq!(bench.wants(), Some(120));
    bench.at(120).expect(&["expired b"]);
}

#[test]
fn a_recovered_queue_looks_at_its_head_once_and_reads_no_more_when_that_may_stay() {
    // Semantics 18.9.
    let levels = vec![RestoredLevel { level: 0, ranges: vec![(1, 9)], marked: 0 }];
    let restored = Restored { first_seq: 100, levels };
    let mut bench = Bench { queue: Queue::restore(Options::default(), &restored), ..bench(Options::default()) };
    assert_eq!(bench.queue.next_deadline(), Some(0));
    bench.at(0);
    assert_eq!(bench.wanted(), [(1, 1)]);
    bench.load(1, &[(1, "a")]);
    assert_eq!((bench.loads.len(), bench.queue.next_deadline()), (0, None));
}

#[test]
fn time_passes_while_the_broker_is_down() {
    // Semantics 18.9.
    let levels = vec![RestoredLevel { level: 0, ranges: vec![(1, 2)], marked: 0 }];
    let options = with_dead_letters(Options { durable: true, ..ttl(100) });
    let restored = Restored { first_seq: 100, levels };
    let mut bench = Bench { queue: Queue::restore(options, &restored), ..bench(options) };
    bench.at(100).load_came(1, &[(1, "a", 0)]);
    bench.load_came(2, &[(1, "a", 0), (2, "b", 40)]).expect(&["expired a"]);
    assert_eq!(bench.wants(), Some(140));
}

#[test]
fn an_unused_queue_ends_and_use_is_a_declare_a_get_or_a_consumer() {
    // Semantics 18.8.
    let mut bench = bench(Options { expires_ms: Some(100), ..Options::default() });
    assert_eq!(bench.queue.next_deadline(), Some(0), "the lease begins with the first look");
    bench.at(0);
    assert_eq!(bench.wants(), Some(100));
    bench.at(50).publish(&["a"]);
    assert_eq!(bench.wants(), Some(100), "publishing is no use");
    bench.get(1, true);
    assert_eq!(bench.wants(), Some(150));
    let reply_to = bench.reply_to();
    bench.at(60).input(Input::Status(reply_to));
    assert_eq!(bench.wants(), Some(160));
    bench.at(70).consume(1);
    assert_eq!(bench.wants(), None);
    bench.at(500).cancel(1);
    assert_eq!(bench.wants(), Some(600));
    bench.at(599);
    assert!(!bench.has_ended);
    bench.at(600);
    assert!(bench.has_ended);
}

#[test]
fn a_policy_that_changes_the_expiry_of_a_queue_starts_its_lease_again() {
    // Semantics 23.8.
    let expires = |ms| Options { expires_ms: Some(ms), dead_letters: true, ..Options::default() };
    let mut bench = bench(Options { dead_letters: true, ..Options::default() });
    bench.publish(&["a"]).at(500).input(Input::Reconfigure(expires(100)));
    assert_eq!(bench.wants(), Some(600));
    bench.at(550).input(Input::Reconfigure(expires(20)));
    assert_eq!(bench.wants(), Some(570));
    bench.at(570).expect(&[]);
    assert!(bench.has_ended, "and nothing of it is dead-lettered");
}
