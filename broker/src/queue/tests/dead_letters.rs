//! Semantics 20, as far as a queue decides it, by event.

use super::*;

fn dead_letters() -> Options {
    Options { durable: true, dead_letters: true, ..Options::default() }
}

#[test]
fn rejecting_kills_and_acking_does_not() {
    // Semantics 20.1 and 13.19.
    let mut bench = bench(dead_letters());
    bench.publish(&["a", "b", "c"]).consume(1).told();
    bench
        .settle(1, &[2, 3], Settlement::Reject)
        .settle(1, &[1], Settlement::Remove)
        .expect(&["rejected b", "rejected c"]);
    assert_eq!(bench.queue.unacked_count(), 0);
}

#[test]
fn neither_purge_nor_the_end_of_the_queue_kills() {
    // Semantics 20.1, 9.18 and 9.19.
    let mut bench = bench(dead_letters());
    let reply_to = bench.reply_to();
    bench.publish(&["a"]).input(Input::Purge(reply_to)).expect(&["Purged(1)"]);
    bench.publish(&["b"]).input(Input::Delete { if_unused: false, if_empty: false, reply_to: None }).expect(&[]);
}

#[test]
fn what_was_rejected_without_its_body_in_memory_is_fetched_and_keeps_its_order() {
    // Semantics 20.14.
    let mut bench = bench(dead_letters());
    bench.publish_with(&PERSISTENT, &["a", "b"]).consume(1).told();
    bench.queue.set_budget(0);
    bench.publish_with(&PERSISTENT, &["c"]).told();
    bench.settle(1, &[3, 2, 1], Settlement::Reject).expect(&[]);
    assert_eq!((bench.queue.unacked_count(), bench.wanted()), (0, vec![(3, 3)]));
    bench.load(3, &[(3, "c")]).expect(&["rejected c", "rejected b", "rejected a"]);
}

#[test]
fn a_message_that_comes_back_too_often_dies() {
    // Semantics 20.1, 30.2: one return is allowed.
    let mut bench = bench(Options { delivery_limit: Some(1), counts_deliveries: true, ..dead_letters() });
    bench.consume(1).publish(&["a"]).settle(1, &[1], Settlement::Requeue).told();
    bench.settle(1, &[2], Settlement::Requeue).expect(&["delivery_limit a"]);
    bench.publish(&["b"]).detach(1).consume(1).detach(1).expect(&[
        "1<b#3",
        "Detached",
        "Consuming",
        "1<b!#1",
        "Detached",
        "delivery_limit b",
    ]);
}

#[test]
fn a_message_that_came_back_says_how_often_where_that_is_counted() {
    // Semantics 13.22.
    let count = |bench: &mut Bench| {
        let reply_to = bench.reply_to();
        bench.queue.handle(1, Input::Get { holder: holder(9), no_ack: false, reply_to }, &mut bench.effects);
        let Some((_, Notice::Reply { reply: Reply::Got { message, ticket, .. }, .. })) = bench.effects.notices.pop()
        else {
            panic!("a message is ready")
        };
        let headers = message.properties().headers();
        let count = headers.and_then(|headers| headers.get("x-delivery-count")?.as_i64());
        bench.settle(9, &[ticket], Settlement::Requeue);
        count
    };
    for (counts_deliveries, expected) in [(true, [None, Some(1), Some(2)]), (false, [None; 3])] {
        let mut bench = bench(Options { counts_deliveries, ..Options::default() });
        bench.publish(&["a"]);
        assert_eq!([count(&mut bench), count(&mut bench), count(&mut bench)], expected);
    }
}

#[test]
fn the_credit_of_a_consumer_is_that_of_what_it_gets() {
    // The header makes a redelivered message larger, and the connection gives back what it wrote.
    let mut bench = bench(Options { counts_deliveries: true, ..Options::default() });
    let empty = Message::new(Parts { exchange: "", routing_key: "q", properties: &TRANSIENT }, b"a").weight() as i64;
    let consumer = NewConsumer { credit_bytes: 2 * empty + 1, ..bench.consumer(1) };
    bench.input(Input::Consume(consumer)).publish(&["a"]).settle(1, &[1], Settlement::Requeue).told();
    bench.publish(&["b"]).expect(&[]);
    let delivered_bytes = 30;
    bench.input(Input::Credit { holder: holder(1), bytes: delivered_bytes }).expect(&["1<b#3"]);
}

#[test]
fn publishers_wait_for_their_credit_while_dead_letters_are_under_way() {
    let mut bench = bench(Options { max_length: Some(0), ..dead_letters() });
    let body = "x".repeat(3 * 1024 * 1024);
    bench.publish(&[&body]);
    let credit = |bench: &Bench| *bench.log.processed_bytes.lock();
    let first = credit(&bench);
    bench.publish(&[&body]).publish(&[&body]);
    let both = credit(&bench);
    assert!(first > 3_000_000 && both == first, "the others wait");
    let bytes = bench.unburied.iter().map(|dead| dead.message.weight()).sum();
    bench.input(Input::Buried { bytes });
    assert_eq!(credit(&bench), bytes);
}

#[test]
fn a_backlog_is_not_fetched_faster_than_its_dead_letters_are_buried() {
    let levels = vec![RestoredLevel { level: 0, ranges: vec![(1, 9)], marked: 0 }];
    let options = Options { max_length: Some(0), ..dead_letters() };
    let mut bench = Bench { queue: Queue::restore(options, &Restored { first_seq: 100, levels }), ..bench(options) };
    let body = "x".repeat(3 * 1024 * 1024);
    bench.at(0).load(1, &[(1, &body)]).load(2, &[(2, &body)]);
    assert_eq!((bench.loads.len(), bench.queue.next_deadline()), (0, None));
    let bytes = bench.unburied.iter().map(|dead| dead.message.weight()).sum();
    bench.input(Input::Buried { bytes });
    assert_eq!(bench.wanted(), [(3, 9)]);
}
