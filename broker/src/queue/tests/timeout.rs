//! Deliveries that nobody acks (semantics 13.29).

use super::*;

fn timed(consumer_timeout_ms: Option<u64>) -> Options {
    Options { consumer_timeout_ms, ..Options::default() }
}

impl Bench {
    /// The queue is woken when it wanted to be.
    fn tick(&mut self) -> &mut Self {
        self.now_ms = self.queue.next_deadline().expect("somebody holds something");
        self.input(Input::Tick)
    }
}

#[test]
fn who_holds_a_delivery_for_too_long_is_told_once() {
    let mut bench = bench(timed(Some(1000)));
    bench.consume(1).consume(2).at(5000).publish(&["a", "b"]).told();
    assert_eq!(bench.wants(), Some(6000));
    bench.at(5500).settle(1, &[1], Settlement::Remove).publish(&["c"]).expect(&["1<c#2"]);
    bench.at(5999).input(Input::Tick).expect(&[]);
    bench.tick().expect(&["2 timed out after 1000"]);
    assert_eq!(bench.wants(), Some(6500), "that of the other");
    bench.tick().expect(&["1 timed out after 1000"]);
    assert_eq!(bench.wants(), None);
    bench.at(9000).input(Input::Tick).expect(&[]);
    // Their connections end the channels.
    bench.detach(2).detach(1).expect(&["1<b!#3", "Detached", "Detached"]);
}

#[test]
fn an_ack_in_time_starts_the_time_of_the_next_oldest() {
    let mut bench = bench(timed(Some(1000)));
    bench.consume(1);
    for second in 1..=10 {
        bench.at(second * 900).publish(&["m"]);
        bench.settle(1, &[second.saturating_sub(1)], Settlement::Remove);
        bench.input(Input::Tick);
    }
    assert!(!bench.told().iter().any(|line| line.contains("timed out")));
    assert_eq!(bench.tick().tick().told(), ["1 timed out after 1000"]);
    assert_eq!(bench.now_ms, 1_000_000 + 9000 + 1000);
}

#[test]
fn who_gets_must_ack_in_time_too_and_who_need_not_ack_need_not() {
    let mut bench = bench(timed(Some(1000)));
    let no_ack = NewConsumer { no_ack: true, ..bench.consumer(1) };
    bench.publish(&["a"]).get(2, false).get(3, true).input(Input::Consume(no_ack)).publish(&["b"]).told();
    bench.tick().expect(&["2 timed out after 1000"]);
    assert_eq!(bench.wants(), None);
}

#[test]
fn without_a_timeout_nobody_is_looked_at_and_it_may_come_and_go() {
    let mut bench = bench(timed(None));
    bench.consume(1).publish(&["a"]).told();
    assert_eq!(bench.wants(), None);
    bench.at(50_000).input(Input::Reconfigure(timed(Some(1000))));
    bench.tick().expect(&[]);
    assert_eq!(bench.wants(), Some(51_000), "what is unacked now has all the time");
    bench.input(Input::Reconfigure(timed(Some(300)))).tick().expect(&[]);
    assert_eq!(bench.wants(), Some(50_300));
    bench.input(Input::Reconfigure(timed(None)));
    assert_eq!(bench.wants(), None);
    bench.at(99_000).input(Input::Tick).expect(&[]);
}
