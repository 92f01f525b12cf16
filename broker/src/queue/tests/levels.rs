//! Priorities of messages (semantics 21), as far as the machine of a queue goes.

use super::*;

fn levels(max: u8) -> Options {
    Options { priorities: Some(Priorities { max, default: 0 }), ..Options::default() }
}

impl Bench {
    fn publish_at(&mut self, priority: u8, bodies: &[&str]) -> &mut Self {
        // Delivery mode 1 and a priority.
        self.publish_with(&[0x18, 0, 1, priority], bodies);
        self.log.lines.lock().retain(|line| !line.starts_with("confirmed"));
        self
    }

    fn wanted_at(&self) -> Vec<(u8, u64, u64)> {
        let [load] = self.loads.as_slice() else { return Vec::new() };
        load.ranges.iter().map(|range| (range.level, range.first, range.last)).collect()
    }
}

/// Semantics 21.1, 21.2.
#[test]
fn the_highest_level_is_served_first() {
    let mut bench = bench(levels(5));
    bench.publish(&["none"]).publish_at(3, &["c", "d"]).publish_at(9, &["above"]).publish_at(5, &["e"]);
    bench.publish_at(0, &["zero"]).publish_at(1, &["b"]);
    bench.consume(1).expect(&["Consuming", "1<above#1", "1<e#2", "1<c#3", "1<d#4", "1<b#5", "1<none#6", "1<zero#7"]);
}

/// Semantics 21.2.
#[test]
fn what_a_consumer_has_is_not_recalled() {
    let mut bench = bench(levels(9));
    bench.consume_prefetch(1, 1).publish_at(1, &["low", "lower"]).publish_at(9, &["high"]);
    bench.expect(&["Consuming", "1<low#1"]);
    bench.settle(1, &[1], Settlement::Remove).settle(1, &[2], Settlement::Remove).expect(&["1<high#2", "1<lower#3"]);
}

/// Semantics 13.20, 21.2.
#[test]
fn a_returned_message_goes_back_to_its_level_and_place() {
    let mut bench = bench(levels(9));
    bench.publish_at(1, &["a", "b"]).publish_at(5, &["c"]);
    bench.get(1, false).get(1, false).expect(&["got c remaining 2", "got a remaining 1"]);
    bench.publish_at(5, &["d"]).settle(1, &[1, 2], Settlement::Requeue).consume(2);
    bench.expect(&["Consuming", "2<c!#1", "2<d#2", "2<a!#3", "2<b#4"]);
}

#[test]
fn counts_purge_and_delete_go_over_all_levels() {
    let mut bench = bench(Options { durable: true, ..levels(9) });
    bench.publish_with(&[0x18, 0, 2, 1], &["a", "b"]).publish_with(&[0x18, 0, 2, 7], &["c"]).get(1, false);
    bench.expect(&["got c remaining 2"]);
    let reply_to = bench.reply_to();
    bench.input(Input::Status(reply_to.clone())).input(Input::Purge(reply_to.clone()));
    bench.expect(&["Status { ready: 2, consumers: 0 }", "Purged(2)"]);
    assert_eq!(bench.settled, [1, 2]);
    bench.publish_at(3, &["d"]).publish_at(4, &["e"]);
    bench.input(Input::Delete { if_unused: false, if_empty: true, reply_to: Some(reply_to.clone()) });
    bench.input(Input::Delete { if_unused: false, if_empty: false, reply_to: Some(reply_to) });
    bench.expect(&["NotEmpty", "ended for 1", "Deleted(2)"]);
}

#[test]
fn each_level_leaves_memory_and_comes_back_for_itself() {
    let mut bench = bench(levels(9));
    bench.queue.set_budget(0);
    bench.publish_at(1, &["first", "a", "b"]).publish_at(7, &["second", "x", "y"]);
    assert_eq!(bench.stored, [2, 3, 1, 2, 3], "each level counts its own places");
    bench.get(1, true).expect(&[]);
    assert_eq!(bench.wanted_at(), [(7, 1, 3)]);
    bench.load(3, &[(1, "second"), (2, "x"), (3, "y")]).expect(&["got second remaining 5"]);
    bench.consume(2).expect(&["Consuming", "2<x#1", "2<y#2"]);
    assert_eq!(bench.wanted_at(), [(1, 1, 3)], "what was in memory has made room for what was needed first");
    bench.load(3, &[(1, "first"), (2, "a"), (3, "b")]).expect(&["2<first#3", "2<a#4", "2<b#5"]);
}

#[test]
fn a_higher_message_overtakes_what_is_being_loaded() {
    let mut bench = bench(levels(9));
    bench.queue.set_budget(0);
    bench.publish_at(1, &["a", "b"]).get(1, true).get(1, true).expect(&["got a remaining 1"]);
    assert_eq!(bench.wanted_at(), [(1, 2, 2)]);
    bench.queue.set_budget(10_000);
    bench.publish_at(8, &["high"]).expect(&["got high remaining 1"]);
    bench.load(2, &[(2, "b")]).consume(2).expect(&["Consuming", "2<b#1"]);

    // The same for consumers, also over the budget: it need not be kept for them.
    let mut bench = super::bench(levels(9));
    bench.queue.set_budget(0);
    bench.publish_at(1, &["a", "b"]).consume_prefetch(1, 3).expect(&["Consuming", "1<a#1"]);
    bench.publish_at(8, &["high", "higher"]).expect(&["1<high#2", "1<higher#3"]);
    bench.load(2, &[(2, "b")]).expect(&[]);
    bench.settle(1, &[1], Settlement::Remove).expect(&["1<b#4"]);
}

#[test]
fn what_is_loaded_for_high_levels_takes_the_room_of_low_ones() {
    let mut bench = bench(levels(9));
    let weight = Message::new(Parts { exchange: "", routing_key: "q", properties: &[0x18, 0, 1, 1] }, b"a").weight();
    bench.queue.set_budget(2 * weight);
    bench.publish_at(1, &["a", "b", "c"]).publish_at(7, &["x", "y"]);
    bench.get(1, true).expect(&[]);
    bench.load(2, &[(1, "x"), (2, "y")]).expect(&["got x remaining 4"]);
    assert!(bench.queue.memory_bytes() <= 2 * weight, "{} for {weight}", bench.queue.memory_bytes());
    bench.get(1, true).get(1, true).expect(&["got y remaining 3", "got a remaining 2"]);
}

#[test]
fn a_restored_queue_serves_by_level_and_marks_for_each() {
    let level = |level, marked| RestoredLevel { level, ranges: vec![(1, 2)], marked };
    let restored = Restored { first_seq: 100, levels: vec![level(0, 0), level(4, 1), level(9, 2)] };
    let options = Options { durable: true, ..levels(9) };
    let mut bench = Bench { queue: Queue::restore(options, &restored), ..bench(options) };
    assert_eq!(bench.queue.ready_count(), 6);
    bench.consume(1);
    assert_eq!(bench.wanted_at(), [(9, 1, 2)]);
    bench.load(2, &[(1, "a"), (2, "b")]).expect(&["Consuming", "1<a!#1", "1<b!#2"]);
    assert!(bench.effects.marks.is_empty(), "that is known");
    assert_eq!(bench.wanted_at(), [(4, 1, 1), (4, 2, 2)]);
    bench.load(2, &[(1, "c"), (2, "d")]).expect(&["1<c!#3", "1<d#4"]);
    bench.load(2, &[(1, "e"), (2, "f")]).expect(&["1<e#5", "1<f#6"]);
    assert_eq!(bench.effects.marks, [Place { level: 4, seq: 2 }, Place { level: 0, seq: 2 }]);
    bench.publish_with(&[0x18, 0, 2, 4], &["new"]);
    assert_eq!(bench.stored, [100]);
}
