//! Semantics 19, by event.

use super::*;

fn max_length(max: u64) -> Options {
    Options { max_length: Some(max), dead_letters: true, ..Options::default() }
}

fn max_bytes(max: u64) -> Options {
    Options { max_length_bytes: Some(max), dead_letters: true, ..Options::default() }
}

fn backlog(options: Options, last: u64) -> Bench {
    let levels = vec![RestoredLevel { level: 0, ranges: vec![(1, last)], marked: 0 }];
    Bench {
        queue: Queue::restore(options, &Restored { first_seq: 100, levels }),
        ..bench(Options { durable: true, ..options })
    }
}

#[test]
fn the_head_is_dropped_and_unacked_messages_do_not_count() {
    // Semantics 19.1 and 19.2.
    let mut bench = bench(max_length(2));
    bench.publish(&["a", "b"]).get(1, false).expect(&["got a remaining 1"]);
    bench.publish(&["c"]).expect(&[]);
    bench.publish(&["d", "e"]).expect(&["maxlen b", "maxlen c"]);
    assert_eq!(bench.queue.ready_count(), 2);
}

#[test]
fn what_comes_back_pushes_over_the_limit_again() {
    // Semantics 19.3: it stands first, so it goes first, before anybody gets anything.
    let mut bench = bench(max_length(1));
    bench.publish(&["a"]).get(1, false).publish(&["b"]).told();
    bench.settle(1, &[1], Settlement::Requeue).expect(&["maxlen a"]);
}

#[test]
fn a_limit_of_0_leaves_what_a_consumer_takes_at_once() {
    // Semantics 19.2.
    let mut bench = bench(max_length(0));
    bench.publish(&["a"]).expect(&["maxlen a"]);
    bench.consume_prefetch(1, 1).publish(&["b", "c"]).expect(&["Consuming", "1<b#1", "maxlen c"]);
}

#[test]
fn bodies_count_and_one_that_alone_is_too_large_goes_too() {
    // Semantics 19.1 and 19.6.
    let mut bench = bench(max_bytes(4));
    bench.publish(&["aa", "bb"]).expect(&[]);
    bench.publish(&["ccc"]).expect(&["maxlen aa", "maxlen bb"]);
    bench.publish(&["ddddd"]).expect(&["maxlen ccc", "maxlen ddddd"]);
    bench.publish(&["", ""]).expect(&[]);
}

#[test]
fn publishes_are_refused_before_they_are_in_whoever_waits() {
    // Semantics 19.4.
    let options = Options { overflow: Overflow::RejectPublish, ..max_length(1) };
    let mut bench = bench(options);
    bench.publish_with(&TRANSIENT, &["a", "b"]).expect(&["refused 2-2", "confirmed 1-1"]);
    let mut bench = super::bench(Options { max_length: Some(0), ..options });
    bench.consume(1).publish_with(&TRANSIENT, &["a"]).expect(&["Consuming", "refused 1-1"]);
}

#[test]
fn refused_publishes_are_dead_lettered_where_that_is_asked_for() {
    // Semantics 19.5.
    let mut bench = bench(Options { overflow: Overflow::RejectPublishDlx, ..max_bytes(3) });
    bench.publish_with(&PERSISTENT, &["aa", "bb"]).expect(&["refused 2-2", "confirmed 1-1", "maxlen bb"]);
    assert_eq!(bench.unburied[0].place.stored, Stored::Nowhere);
}

#[test]
fn lowering_a_limit_trims_at_once_but_only_where_the_head_is_dropped() {
    // Semantics 19.7.
    let mut bench = bench(max_length(9));
    bench.publish(&["a", "b", "c"]).input(Input::Reconfigure(max_length(1))).expect(&["maxlen a", "maxlen b"]);
    let refusing = Options { overflow: Overflow::RejectPublish, ..max_length(0) };
    bench.input(Input::Reconfigure(refusing)).expect(&[]);
    assert_eq!(bench.queue.ready_count(), 1);
}

#[test]
fn a_backlog_is_trimmed_by_count_without_reading_it() {
    let mut bench = backlog(Options { dead_letters: false, ..max_length(3) }, 9);
    bench.at(0);
    assert_eq!((bench.queue.ready_count(), bench.settled.as_slice()), (3, &[1, 2, 3, 4, 5, 6][..]));
}

#[test]
fn what_is_trimmed_from_a_backlog_is_fetched_for_its_dead_letters_in_order() {
    // Semantics 20.14.
    let mut bench = backlog(max_length(2), 5);
    bench.at(0);
    assert_eq!((bench.queue.ready_count(), bench.wanted()), (2, vec![(1, 3)]));
    bench.get(7, true);
    bench.load(2, &[(1, "a"), (2, "b")]).expect(&["maxlen a", "maxlen b"]);
    assert_eq!(bench.wanted(), [(4, 5)], "who waits gets a turn");
    bench.load(5, &[(4, "d"), (5, "e")]).expect(&["got d remaining 1"]);
    assert_eq!(bench.wanted(), [(3, 3)]);
    bench.load(3, &[(3, "c")]).expect(&["maxlen c"]);
}

#[test]
fn the_sizes_of_a_backlog_are_learned_where_bytes_are_limited() {
    let mut bench = backlog(max_bytes(5), 4);
    bench.at(0);
    assert_eq!(bench.wanted(), [(1, 1)], "the deadline of the head");
    bench.load(1, &[(1, "aa")]);
    assert_eq!(bench.wanted(), [(1, 4)]);
    bench.load(2, &[(1, "aa"), (2, "bb")]);
    assert_eq!(bench.wanted(), [(3, 4)]);
    bench.load(4, &[(3, "cc"), (4, "d")]);
    // Seven bytes are two too many, and what goes has to be read.
    assert_eq!(bench.wanted(), [(1, 4)]);
    bench.load(4, &[(1, "aa"), (2, "bb"), (3, "cc"), (4, "d")]).expect(&["maxlen aa"]);
    assert_eq!((bench.queue.ready_count(), bench.loads.len()), (3, 0));
}
