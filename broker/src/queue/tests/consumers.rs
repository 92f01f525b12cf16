//! Who is served: priorities, exclusive and single active consumers, and the end of many at once.

use super::*;

fn single() -> Options {
    Options { single_active_consumer: true, ..Options::default() }
}

fn consume_priority(bench: &mut Bench, source: u32, priority: i64) {
    let consumer = NewConsumer { priority, ..bench.consumer(source) };
    bench.input(Input::Consume(consumer)).expect(&["Consuming"]);
}

/// Semantics 13.6, 13.8.
#[test]
fn a_negative_priority_is_below_none() {
    let mut bench = bench(Options::default());
    consume_priority(&mut bench, 1, -3);
    let first = NewConsumer { prefetch_count: 1, ..bench.consumer(2) };
    bench.input(Input::Consume(first)).publish(&["a", "b", "c"]).expect(&["Consuming", "1<b#1", "1<c#2", "2<a#1"]);
}

/// Semantics 13.8.
#[test]
fn a_higher_priority_that_is_free_again_is_first_again() {
    let mut bench = bench(Options::default());
    let high = NewConsumer { priority: 1, prefetch_count: 1, ..bench.consumer(2) };
    bench.consume(1).input(Input::Consume(high)).told();
    bench.publish(&["a"]).publish(&["b"]).expect(&["2<a#1", "1<b#1"]);
    bench.settle(2, &[1], Settlement::Remove).publish(&["c"]).publish(&["d"]).expect(&["2<c#2", "1<d#2"]);
}

/// Semantics 13.8: also a connection that is behind holds nobody back.
#[test]
fn a_higher_priority_without_credit_is_passed_over() {
    let mut bench = bench(Options::default());
    let high = NewConsumer { priority: 1, credit_bytes: 1, ..bench.consumer(2) };
    bench.consume(1).input(Input::Consume(high)).told();
    bench.publish(&["a", "b"]).expect(&["1<b#1", "2<a#1"]);
    bench.input(Input::Credit { holder: holder(2), bytes: 1_000 }).publish(&["c"]).expect(&["2<c#2"]);
}

/// Semantics 13.26, 13.27.
#[test]
fn only_the_active_consumer_is_served() {
    let mut bench = bench(single());
    bench.consume_prefetch(1, 1).consume(2).consume(3).told();
    assert_eq!(bench.queue.active_consumer(), Some(holder(1)));
    bench.publish(&["a", "b", "c"]).expect(&["1<a#1"]);
    bench.settle(1, &[1], Settlement::Remove).expect(&["1<b#2"]);
    assert_eq!(bench.queue.ready_count(), 1, "its prefetch is full, and nobody else is served");
}

/// Semantics 13.26.
#[test]
fn the_next_active_consumer_is_the_oldest_of_the_highest_priority() {
    let mut bench = bench(single());
    for (source, priority) in [(1, 0), (2, 1), (3, 5), (4, 5), (5, -1)] {
        consume_priority(&mut bench, source, priority);
    }
    bench.publish(&["a"]).expect(&["1<a#1"]);
    bench.cancel(1).publish(&["b"]).expect(&["Cancelled", "3<b#1"]);
    bench.detach(3).expect(&["4<b!#1", "Detached"]);
    bench.cancel(2).cancel(4).publish(&["c"]).expect(&["Cancelled", "Cancelled", "5<c#1"]);
    bench.cancel(5).publish(&["d"]).expect(&["Cancelled"]);
    assert_eq!((bench.queue.active_consumer(), bench.queue.ready_count()), (None, 1));
    bench.consume(6).expect(&["Consuming", "6<d#1"]);
    assert_eq!(bench.queue.active_consumer(), Some(holder(6)));
}

/// Semantics 13.26: cancelling is no reason to take anything back, ending is.
#[test]
fn what_the_old_active_consumer_holds_comes_back_before_the_next_is_served() {
    let mut bench = bench(single());
    bench.consume_prefetch(1, 2).consume(2).told();
    bench.publish(&["a", "b", "c", "d"]).expect(&["1<a#1", "1<b#2"]);
    bench.cancel(1).expect(&["Cancelled", "2<c#1", "2<d#2"]);
    bench.settle(1, &[1], Settlement::Remove).detach(1).expect(&["2<b!#3", "Detached"]);

    let mut bench = super::bench(single());
    bench.consume_prefetch(1, 2).consume(2).told();
    bench.publish(&["a", "b", "c", "d"]).told();
    bench.detach(1).expect(&["2<a!#1", "2<b!#2", "2<c#3", "2<d#4", "Detached"]);
}

/// Semantics 13.5.
#[test]
fn a_single_active_queue_has_no_exclusive_consumers() {
    let mut bench = bench(single());
    let exclusive = NewConsumer { is_exclusive: true, ..bench.consumer(1) };
    bench.input(Input::Consume(exclusive)).expect(&["ExclusiveUse"]);
    bench.consume(1).consume(2).expect(&["Consuming", "Consuming"]);
}

/// Semantics 13.28.
#[test]
fn getting_goes_beside_the_active_consumer() {
    let mut bench = bench(single());
    bench.consume_prefetch(1, 1).publish(&["a", "b", "c"]).get(2, false);
    bench.expect(&["Consuming", "1<a#1", "got b remaining 1"]);
    bench.detach(2).get(3, true).expect(&["Detached", "got b! remaining 1"]);
}

/// Semantics 13.5.
#[test]
fn after_an_exclusive_consumer_has_gone_others_may_come() {
    let mut bench = bench(Options::default());
    for _ in 0..2 {
        let exclusive = NewConsumer { is_exclusive: true, ..bench.consumer(1) };
        bench.input(Input::Consume(exclusive)).consume(2).expect(&["Consuming", "ExclusiveUse"]);
        bench.detach(1).consume(2).detach(2).expect(&["Detached", "Consuming", "Detached"]);
    }
}

/// What a consumer held must not be handed to others that end with it, only to come back from them as delivered again.
#[test]
fn consumers_that_end_together_hand_nothing_to_each_other() {
    let mut bench = bench(Options::default());
    bench.consume_prefetch(1, 1).consume_prefetch(2, 0).consume_prefetch(3, 0).publish(&["a"]).told();
    let (holders, reply_to) = (vec![holder(1), holder(2)], bench.reply_to());
    bench.input(Input::Detach { holders, reply_to }).expect(&["3<a!#1", "Detached"]);
    let (holders, reply_to) = (vec![holder(3), holder(7)], bench.reply_to());
    bench.input(Input::Detach { holders, reply_to }).publish(&["b"]).get(4, true).get(4, true);
    bench.expect(&["Detached", "got a! remaining 1", "got b remaining 0"]);
}

/// Work that grew with the square of their number would take minutes here.
#[test]
fn many_consumers_come_and_go_in_any_order() {
    const COUNT: u32 = 50_000;
    for single_active_consumer in [false, true] {
        let mut bench = bench(Options { single_active_consumer, ..Options::default() });
        for source in 0..COUNT {
            let consumer = NewConsumer { priority: i64::from(source % 3), prefetch_count: 1, ..bench.consumer(source) };
            bench.input(Input::Consume(consumer));
        }
        bench.publish(&["a", "b"]).told();
        // The oldest first, the newest first, and from the middle.
        let order = (0..COUNT / 3).chain((COUNT * 2 / 3..COUNT).rev()).chain(COUNT / 3..COUNT * 2 / 3);
        for source in order {
            match source % 2 {
                0 => bench.cancel(source),
                _ => bench.detach(source),
            };
        }
        assert_eq!(bench.queue.consumer_count(), 0);
    }
}
