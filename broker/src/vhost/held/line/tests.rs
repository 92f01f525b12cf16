//! A line by itself, and against a plain list with a store that answers late and in part.

use std::collections::BTreeMap;
use std::sync::Weak;

use plugin_api::exchange::ExchangeSpec;
use plugin_api::message::PropertiesBuf;
use plugin_api::testing::Random;

use super::*;
use crate::message::Parts;
use crate::routing::Exchange;
use crate::vhost::held::Why;

fn message(key: &str, is_persistent: bool, body_bytes: usize) -> Arc<Message> {
    let delivery_mode = Some(if is_persistent { 2 } else { 1 });
    let properties = PropertiesBuf { delivery_mode, ..PropertiesBuf::default() }.encode();
    Message::new(Parts { exchange: "x", routing_key: key, properties: &properties }, &vec![7; body_bytes])
}

fn held(key: &str, is_persistent: bool, body_bytes: usize) -> Held {
    let spec = ExchangeSpec { name: "x".into(), durable: true, ..ExchangeSpec::default() };
    Held {
        vhost: Weak::new(),
        exchange: Arc::new(Exchange::restore(1, spec, None)),
        why: Why::Later { delay_ms: 0 },
        message: message(key, is_persistent, body_bytes),
        channel: 1,
        number: 1,
        durability: Durability::Synced,
    }
}

fn keys(due: &[Due]) -> Vec<&str> {
    due.iter().map(|due| due.message.routing_key()).collect()
}

/// What the store has of a line: due time and message by place.
type Kept = BTreeMap<u64, (u64, Arc<Message>)>;

fn hold(line: &mut Line, kept: &mut Kept, due_ms: u64, held: Held) {
    let mut appends = Vec::new();
    line.hold(due_ms, held, None, &mut appends);
    kept.extend(appends.into_iter().map(|append| (append.place.seq, (append.came_ms, append.message))));
}

/// What the store answers to a load if it gives at most so many messages.
fn answer(line: &mut Line, kept: &Kept, load: &Load, count_max: usize, budget_bytes: usize) -> u64 {
    let wanted = load.ranges.iter().flat_map(|range| kept.range(range.first..=range.last));
    let messages: Vec<LoadedMessage> = wanted
        .take(count_max)
        .map(|(seq, (came_ms, message))| LoadedMessage { seq: *seq, came_ms: *came_ms, message: Arc::clone(message) })
        .collect();
    let last = load.ranges.last().map_or(0, |range| range.last);
    let through = if messages.len() < count_max { last } else { messages.last().map_or(last, |loaded| loaded.seq) };
    line.loaded(load.id, through, messages, budget_bytes)
}

fn ranges(kept: &Kept) -> Vec<(u64, u64)> {
    let mut ranges: Vec<SeqRange> = Vec::new();
    kept.keys().for_each(|seq| SeqRange::add(&mut ranges, LEVEL, *seq, Stored::Lasting));
    ranges.into_iter().map(|range| (range.first, range.last)).collect()
}

#[test]
fn messages_come_back_by_due_time_and_then_in_their_order() {
    let (mut line, mut kept) = (Line::restore(1, &[], false), Kept::new());
    for (due_ms, key, is_persistent) in
        [(30, "d", true), (10, "a", false), (20, "b", true), (20, "c", false), (40, "e", false)]
    {
        hold(&mut line, &mut kept, due_ms, held(key, is_persistent, 0));
    }
    assert_eq!((line.next_deadline(), line.count(), kept.len()), (Some(10), 5, 2));
    assert_eq!(keys(&line.take_due(9)), [""; 0]);
    let due = line.take_due(30);
    assert_eq!(keys(&due), ["a", "b", "c", "d"]);
    let stored: Vec<bool> = due.iter().map(|due| due.place.stored == Stored::Lasting).collect();
    assert_eq!(stored, [false, true, false, true]);
    assert_eq!((line.count(), line.next_deadline()), (1, Some(40)));
}

#[test]
fn a_message_says_to_the_store_when_it_is_due_and_who_waits_for_that() {
    let mut line = Line::restore(7, &[], false);
    let mut appends = Vec::new();
    line.hold(500, held("a", true, 0), None, &mut appends);
    line.hold(400, Held { durability: Durability::Os, ..held("b", true, 0) }, None, &mut appends);
    let said: Vec<(u64, u64, bool, u64)> =
        appends.iter().map(|append| (append.place.seq, append.came_ms, append.is_synced, append.number)).collect();
    assert_eq!(said, [(7, 500, true, 1), (8, 400, false, 1)]);
}

#[test]
fn bodies_beyond_the_budget_leave_memory_and_come_back_in_time() {
    let (mut line, mut kept) = (Line::restore(1, &[], false), Kept::new());
    for number in 0..100_u64 {
        hold(&mut line, &mut kept, 10_000 + number * 1_000, held(&number.to_string(), true, 1_000));
        line.cool(10_000);
    }
    assert!(line.memory_bytes() <= 10_000 && line.count() == 100);
    let mut released = Vec::new();
    let mut now_ms = 0;
    while let Some(due_ms) = line.next_deadline() {
        assert!(due_ms >= now_ms || line.wanted(now_ms).is_some(), "it never wants to be asked for nothing");
        now_ms = now_ms.max(due_ms);
        if let Some(load) = line.wanted(now_ms) {
            assert_eq!(answer(&mut line, &kept, &load, usize::MAX, 10_000), 0);
        }
        for due in line.take_due(now_ms) {
            line.arrived(due.message.weight());
            released.push((now_ms, due.message.routing_key().to_owned()));
        }
    }
    let expected: Vec<(u64, String)> = (0..100).map(|number| (10_000 + number * 1_000, number.to_string())).collect();
    assert_eq!(released, expected, "each exactly when it is due, since it was fetched ahead");
}

#[test]
fn nothing_of_an_earlier_run_comes_back_before_all_due_times_are_known() {
    let kept: Kept = (1..=20_000).map(|seq| (seq, (30_000 - seq, message(&seq.to_string(), true, 0)))).collect();
    let mut line = Line::restore(1 << 44, &ranges(&kept), false);
    let mut later = Kept::new();
    hold(&mut line, &mut later, 5, held("new", true, 0));
    assert_eq!((line.count(), line.next_deadline()), (20_001, None));
    let mut loads = 0;
    while let Some(load) = line.wanted(0) {
        assert!(line.take_due(u64::MAX).is_empty());
        loads += 1;
        answer(&mut line, &kept, &load, 5_000, 1_000);
    }
    assert_eq!(loads, 4);
    assert!(line.memory_bytes() <= 1_000);
    assert_eq!((line.count(), line.next_deadline()), (20_001, Some(5)));
    let due = line.take_due(u64::MAX);
    assert_eq!(keys(&due)[..3], ["new", "20000", "19999"], "the last one published is due first");
    let load = line.wanted(u64::MAX).expect("the rest is in the store");
    assert_eq!(load.ranges.last().map(|range| range.last), Some(20_001 - due.len() as u64));
}

#[test]
fn what_the_store_has_lost_is_counted_and_holds_nothing_up() {
    let mut kept: Kept = (1..=10).map(|seq| (seq, (100 + seq, message(&seq.to_string(), true, 0)))).collect();
    let mut line = Line::restore(1 << 44, &ranges(&kept), false);
    kept.remove(&3);
    let load = line.wanted(0).unwrap();
    assert_eq!(answer(&mut line, &kept, &load, usize::MAX, 0), 1);
    assert_eq!(line.count(), 9);
    kept.remove(&5);
    let load = line.wanted(200).unwrap();
    assert_eq!(answer(&mut line, &kept, &load, usize::MAX, 0), 1);
    assert_eq!(keys(&line.take_due(200)), ["1", "2", "4", "6", "7", "8", "9", "10"]);
    assert_eq!((line.count(), line.next_deadline()), (0, None));
}

#[test]
fn while_too_much_is_on_its_way_nothing_more_is_sent() {
    let (mut line, mut kept) = (Line::restore(1, &[], false), Kept::new());
    for _ in 0..10 {
        hold(&mut line, &mut kept, 1, held("k", true, 1024 * 1024));
    }
    let due = line.take_due(1);
    assert_eq!(due.len(), 4);
    assert!(line.take_due(1).is_empty() && line.next_deadline().is_none());
    line.arrived(due.iter().map(|due| due.message.weight()).sum());
    assert_eq!((line.next_deadline(), line.take_due(1).len()), (Some(1), 4));
}

#[test]
fn a_line_that_is_still_keeps_everything() {
    let mut line = Line::restore(1 << 44, &[(1, 10)], true);
    assert_eq!((line.count(), line.next_deadline(), line.wanted(u64::MAX).is_none()), (10, None, true));
    assert!(line.take_due(u64::MAX).is_empty());
}

#[test]
fn a_clock_that_jumps_moves_due_times_and_nothing_else() {
    let (mut line, mut kept) = (Line::restore(1, &[], false), Kept::new());
    for (due_ms, key) in [(2_000, "b"), (1_000, "a"), (3_000, "c")] {
        hold(&mut line, &mut kept, due_ms, held(key, true, 0));
    }
    assert_eq!(keys(&line.take_due(2_500)), ["a", "b"], "forward");
    // Back: what is published now is due before what was published earlier.
    hold(&mut line, &mut kept, 500, held("d", true, 0));
    assert_eq!(keys(&line.take_due(400)), [""; 0]);
    assert_eq!(keys(&line.take_due(600)), ["d"]);
    assert_eq!(keys(&line.take_due(3_000)), ["c"]);
}

#[test]
fn what_an_ended_line_is_given_back_is_forgotten() {
    let kept: Kept = (1..=10).map(|seq| (seq, (seq, message("k", true, 0)))).collect();
    let mut line = Line::restore(1 << 44, &ranges(&kept), false);
    let load = line.wanted(0).unwrap();
    assert_eq!(line.end().count(), 10);
    assert_eq!(answer(&mut line, &kept, &load, usize::MAX, 0), 0);
    assert_eq!((line.count(), line.next_deadline(), line.wanted(99).is_none()), (0, None, true));
}

/// Everything at once: a line with a small budget, a store that answers in part, and restarts.
#[test]
fn every_message_comes_back_once_and_in_order() {
    for seed in 0..300 {
        run(seed);
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let budget_bytes = *random.pick(&[0, 500, 3_000, usize::MAX]);
    let (mut line, mut kept) = (Line::restore(1, &[], false), Kept::new());
    // Due time and key, by place.
    let mut expected: BTreeMap<Turn, String> = BTreeMap::new();
    let (mut now_ms, mut number, mut run) = (1_000_u64, 0_u64, 1_u64);
    let mut place = 1;
    for _ in 0..400 {
        match random.below(20) {
            0..10 => {
                let is_persistent = random.below(4) > 0;
                let due_ms = now_ms + u64::from(random.below(5_000));
                let body_bytes = random.below(600) as usize;
                expected.insert((due_ms, place), format!("{is_persistent} {number}"));
                hold(
                    &mut line,
                    &mut kept,
                    due_ms,
                    held(&format!("{is_persistent} {number}"), is_persistent, body_bytes),
                );
                (number, place) = (number + 1, place + 1);
                line.cool(budget_bytes);
            }
            10 => {
                // What lives in memory alone ends with the process.
                expected.retain(|_, key| key.starts_with("true"));
                run += 1;
                place = run << 44;
                line = Line::restore(place, &ranges(&kept), false);
            }
            11..13 => now_ms += u64::from(random.below(1_000)),
            _ => step(&mut line, &mut kept, &mut expected, now_ms, 1 + random.below(20) as usize, budget_bytes, seed),
        }
        assert_eq!(line.count(), expected.len(), "seed {seed}");
    }
    let mut rounds = 0;
    while line.count() > 0 {
        now_ms = now_ms.max(line.next_deadline().unwrap_or(0));
        step(&mut line, &mut kept, &mut expected, now_ms, 2, budget_bytes, seed);
        rounds += 1;
        assert!(rounds < 10_000, "seed {seed}: it gets on");
    }
    assert!(expected.is_empty() && kept.is_empty(), "seed {seed}");
}

/// Loads what is wanted and takes what is due, as a shell does.
fn step(
    line: &mut Line,
    kept: &mut Kept,
    expected: &mut BTreeMap<Turn, String>,
    now_ms: u64,
    count_max: usize,
    budget_bytes: usize,
    seed: u64,
) {
    if let Some(load) = line.wanted(now_ms) {
        assert_eq!(answer(line, kept, &load, count_max, budget_bytes), 0, "seed {seed}");
    }
    for due in line.take_due(now_ms) {
        let ((due_ms, seq), key) = expected.pop_first().expect("it was published");
        assert_eq!((due.place.first, due.message.routing_key()), (seq, key.as_str()), "seed {seed}");
        assert!(due_ms <= now_ms, "seed {seed}: never early");
        line.arrived(due.message.weight());
        kept.remove(&seq);
    }
}
