//! What clients were told, against what a broker has after its accident.
//!
//! The ledger counts over all rounds of a run. For each queue it knows which messages have to be there, and which may:
//!
//! - confirmed before the accident, and no ack was sent: must be there, as published;
//! - in the queue that wants no sync, only what the operating system could keep;
//! - acked: may be there again, since an ack is not synced; it is counted;
//! - published, but never confirmed: may be there; what is found once has to stay, and what is missing once must not come;
//! - transient: must not be there after a restart (semantics 27.2);
//! - in a queue, messages of one channel stand in the order of their publishing, and none stands twice; where the queue has
//!   priorities, this holds for each level, and higher levels stand first. Where messages come through an exchange that puts them off,
//!   neither holds.

use super::message::{Identity, QUEUES, UNSYNCED, keeps_order};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::AddAssign;
use std::time::Instant;

/// What became of one publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was heard.
    Open,
    /// The confirm was in the client's hands at this moment.
    Confirmed(Instant),
    /// The broker did not take it.
    Nacked,
}

/// What one channel published: one outcome for each number from 1.
#[derive(Debug, Default)]
pub struct ChannelLog {
    pub outcomes: Vec<Outcome>,
    open: BTreeSet<u64>,
}

impl ChannelLog {
    /// Books a publish before it is sent, and returns its number.
    pub fn publish(&mut self) -> u32 {
        self.outcomes.push(Outcome::Open);
        let number = self.outcomes.len();
        self.open.insert(number as u64);
        u32::try_from(number).expect("a round publishes less")
    }

    /// How many are without an outcome.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Books basic.ack or basic.nack; answers how many numbers it settled.
    ///
    /// # Errors
    /// When a number was never published or is settled a second time (semantics 14.9).
    pub fn settle(&mut self, tag: u64, is_multiple: bool, outcome: Outcome) -> Result<usize, String> {
        let numbers: Vec<u64> = if is_multiple { self.open.range(..=tag).copied().collect() } else { vec![tag] };
        if numbers.is_empty() || (is_multiple && !numbers.contains(&tag)) {
            return Err(format!("{tag} and all before it are settled, but {tag} is not open"));
        }
        for number in &numbers {
            if !self.open.remove(number) {
                return Err(format!("number {number} is settled, but is not open"));
            }
            let place = usize::try_from(number - 1).expect("numbers count messages");
            self.outcomes[place] = outcome;
        }
        Ok(numbers.len())
    }
}

/// What one publisher knows at the end of a round.
#[derive(Debug, Default)]
pub struct PublisherLog {
    pub round: u32,
    pub publisher: u16,
    pub channels: BTreeMap<u16, ChannelLog>,
    pub violations: Vec<Violation>,
}

/// What one consumer knows at the end of a round.
#[derive(Debug, Default)]
pub struct ConsumerLog {
    /// Place in [`QUEUES`].
    pub queue: usize,
    pub received: HashSet<Identity>,
    /// An ack was sent, and may have arrived.
    pub acked: HashSet<Identity>,
    pub violations: Vec<Violation>,
}

/// What a round of work leaves with its clients.
#[derive(Debug, Default)]
pub struct RoundLog {
    pub publishers: Vec<PublisherLog>,
    pub consumers: Vec<ConsumerLog>,
}

impl RoundLog {
    /// Adds what other clients saw before the same look.
    pub fn extend(&mut self, other: Self) {
        self.publishers.extend(other.publishers);
        self.consumers.extend(other.consumers);
    }
}

/// One message as it was found after the accident.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub identity: Identity,
    pub is_redelivered: bool,
}

/// What an accident spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spared {
    /// All that the operating system had.
    System,
    /// What was synced before this moment.
    Disk(Instant),
    /// What was synced; the broker knew that syncs failed.
    DiskAtAnyTime,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub text: String,
}

impl Violation {
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// What must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Confirmed, and gone.
    Lost,
    /// Not as it was published.
    Corrupt,
    /// Not in the order of its channel.
    Order,
    /// Twice in one queue.
    Twice,
    /// There, and should not be: transient, or missing before.
    Ghost,
    /// A durable definition that was answered for is gone, or one whose end was answered for is there.
    Definition,
    /// Redelivered is false after a delivery, or true without one (semantics 13.21).
    Mark,
    /// A rule of the protocol, or of the end of a process.
    Rule,
}

impl Kind {
    const ALL: [Self; 8] =
        [Self::Lost, Self::Corrupt, Self::Order, Self::Twice, Self::Ghost, Self::Definition, Self::Mark, Self::Rule];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "confirmed lost",
            Self::Corrupt => "corrupt",
            Self::Order => "out of order",
            Self::Twice => "twice",
            Self::Ghost => "ghosts",
            Self::Definition => "definitions",
            Self::Mark => "marks",
            Self::Rule => "other",
        })
    }
}

/// Counts of one round, or of many.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub published: u64,
    /// Confirmed in time, persistent ones alone.
    pub confirmed: u64,
    pub nacked: u64,
    pub received: u64,
    /// Found after the accident.
    pub found: u64,
    /// Acked by a consumer, and found again: allowed.
    pub reappeared: u64,
    /// Received by a client before the accident, and now with redelivered=false.
    pub marks_missing: u64,
    pub violations: Vec<Violation>,
}

impl Figures {
    /// How many violations of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        self.violations.iter().filter(|violation| violation.kind == kind).count()
    }
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.published += other.published;
        self.confirmed += other.confirmed;
        self.nacked += other.nacked;
        self.received += other.received;
        self.found += other.found;
        self.reappeared += other.reappeared;
        self.marks_missing += other.marks_missing;
        self.violations.extend(other.violations);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, confirmed, nacked, received, found, reappeared, marks_missing, .. } = self;
        write!(
            f,
            "published {published}, confirmed {confirmed}, nacked {nacked}, consumed {received}, found {found}; "
        )?;
        for kind in Kind::ALL {
            write!(f, "{kind} {}, ", self.count(kind))?;
        }
        write!(f, "acked and back {reappeared}, redelivered missing {marks_missing}")
    }
}

/// What has to be true of one queue.
#[derive(Debug, Default)]
struct QueueLedger {
    /// Was found at the last look, and with whether a client has received it since it was published.
    kept: HashMap<Identity, Received>,
    /// Settled since the last look that found it.
    settled: HashSet<Identity>,
    /// Published since the last look, by rounds that were not looked at.
    unjudged: HashMap<Identity, Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Yes,
    No,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    queues: Vec<QueueLedger>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { queues: QUEUES.iter().map(|_| QueueLedger::default()).collect() }
    }
}

impl Ledger {
    /// Compares what was found, by queue, with what had to be there. What was found is what has to be there from now on. A queue with `None` was not
    /// looked at: what clients say of it is kept for the next look.
    pub fn judge(&mut self, round: RoundLog, found: &[Option<Vec<Found>>], spared: Spared) -> Figures {
        let mut figures = Figures::default();
        let mut outcomes: HashMap<Identity, Outcome> = HashMap::new();
        for publisher in round.publishers {
            for (channel, log) in &publisher.channels {
                for (number, outcome) in (1..).zip(&log.outcomes) {
                    let PublisherLog { round, publisher, .. } = publisher;
                    let identity = Identity { round, publisher, channel: *channel, number };
                    let outcome = match outcome {
                        Outcome::Confirmed(at) if matches!(spared, Spared::Disk(until) if *at >= until) => {
                            Outcome::Open
                        }
                        outcome => *outcome,
                    };
                    figures.published += 1;
                    figures.nacked += u64::from(outcome == Outcome::Nacked);
                    figures.confirmed +=
                        u64::from(matches!(outcome, Outcome::Confirmed(_)) && identity.is_persistent());
                    outcomes.insert(identity, outcome);
                }
            }
            figures.violations.extend(publisher.violations);
        }
        let (mut received, mut acked) = (HashSet::new(), HashSet::new());
        let consumed: HashSet<usize> = round.consumers.iter().map(|consumer| consumer.queue).collect();
        for consumer in round.consumers {
            figures.received += consumer.received.len() as u64;
            received.extend(consumer.received.into_iter().map(|identity| (consumer.queue, identity)));
            acked.extend(consumer.acked.into_iter().map(|identity| (consumer.queue, identity)));
            figures.violations.extend(consumer.violations);
        }
        for (place, found) in found.iter().enumerate() {
            let queue = &mut self.queues[place];
            let Some(found) = found else {
                let is_mine = |identity: &Identity| identity.route().queues.contains(&place);
                queue.unjudged.extend(outcomes.iter().filter(|(identity, _)| is_mine(identity)).map(|(i, o)| (*i, *o)));
                continue;
            };
            outcomes.extend(std::mem::take(&mut queue.unjudged));
            let is_synced = QUEUES[place].0 != UNSYNCED || spared == Spared::System;
            let is_consumed = consumed.contains(&place);
            let context =
                Context { place, is_synced, is_consumed, outcomes: &outcomes, received: &received, acked: &acked };
            queue.judge(&context, found, &mut figures);
        }
        figures
    }

    /// Everything that was found last has been acked since then.
    pub fn on_drained(&mut self) {
        for queue in &mut self.queues {
            queue.settled.extend(std::mem::take(&mut queue.kept).into_keys());
        }
    }

    /// Everything that was found last has been received by a client, and was given back.
    pub fn on_looked_at(&mut self) {
        self.queues.iter_mut().flat_map(|queue| queue.kept.values_mut()).for_each(|received| *received = Received::Yes);
    }

    /// The broker has ended as it should, which settles for good what was settled.
    pub fn on_clean_end(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.settled.clear());
    }
}

/// What clients of this round say about one queue.
struct Context<'a> {
    place: usize,
    /// Whether what was confirmed has to be there.
    is_synced: bool,
    /// Whether deliveries may have been on their way when the accident came.
    is_consumed: bool,
    outcomes: &'a HashMap<Identity, Outcome>,
    received: &'a HashSet<(usize, Identity)>,
    acked: &'a HashSet<(usize, Identity)>,
}

impl QueueLedger {
    fn judge(&mut self, context: &Context<'_>, found: &[Found], figures: &mut Figures) {
        let (name, _) = QUEUES[context.place];
        let mut there = HashSet::new();
        let mut last_of: HashMap<(u32, u16, u16, u8), u32> = HashMap::new();
        let (mut last_level, mut last_round) = (u8::MAX, 0);
        let mut say = |kind, text: String| figures.violations.push(Violation::new(kind, format!("{name}: {text}")));
        for Found { identity, is_redelivered } in found {
            let is_new_here = there.insert(*identity);
            if !keeps_order(name) {
                // Nothing more is promised of these.
            } else if !is_new_here {
                say(Kind::Twice, format!("{identity} stands twice in the queue"));
                continue;
            }
            if keeps_order(name) {
                let level = identity.level(name);
                if last_level < level {
                    say(Kind::Order, format!("{identity} of level {level} stands behind level {last_level}"));
                }
                if last_level != level {
                    (last_level, last_round) = (level, 0);
                }
                let last = last_of.entry((identity.round, identity.publisher, identity.channel, level)).or_default();
                if *last > identity.number {
                    say(Kind::Order, format!("{identity} stands behind number {last} of its channel"));
                }
                *last = identity.number.max(*last);
                if last_round > identity.round {
                    say(Kind::Order, format!("{identity} stands behind messages of round {last_round}"));
                }
                last_round = identity.round.max(last_round);
            }
            let key = (context.place, *identity);
            let is_new = context.outcomes.contains_key(identity);
            if !is_new && !self.kept.contains_key(identity) && !self.settled.contains(identity) {
                say(Kind::Ghost, format!("{identity} is there, but was not at the last look"));
            } else if is_new && !identity.is_persistent() {
                say(Kind::Ghost, format!("{identity} is there, but is transient"));
            } else if is_new && !identity.route().queues.contains(&context.place) {
                say(Kind::Ghost, format!("{identity} is there, but was published elsewhere"));
            }
            figures.found += 1;
            figures.reappeared += u64::from(context.acked.contains(&key) || self.settled.contains(identity));
            let was_received = context.received.contains(&key) || self.kept.get(identity) == Some(&Received::Yes);
            figures.marks_missing += u64::from(was_received && !is_redelivered);
            if !context.is_consumed && is_new && *is_redelivered {
                say(Kind::Mark, format!("{identity} was never delivered, and is marked as redelivered"));
            }
        }
        let must_stay = self.kept.keys().filter(|identity| !context.acked.contains(&(context.place, **identity)));
        for identity in must_stay.filter(|identity| !there.contains(*identity)) {
            say(Kind::Lost, format!("{identity} was there at the last look, and is lost"));
        }
        for (identity, outcome) in context.outcomes {
            let is_wanted = context.is_synced
                && matches!(outcome, Outcome::Confirmed(_))
                && identity.is_persistent()
                && identity.route().queues.contains(&context.place)
                && !context.acked.contains(&(context.place, *identity));
            if is_wanted && !there.contains(identity) {
                say(Kind::Lost, format!("{identity} was confirmed, and is lost"));
            }
        }
        // Reading them for this judgement was a delivery; on_looked_at books it when they have been given back.
        let was_received = |identity: &Identity| {
            context.received.contains(&(context.place, *identity)) || self.kept.get(identity) == Some(&Received::Yes)
        };
        let kept =
            there.iter().map(|identity| (*identity, if was_received(identity) { Received::Yes } else { Received::No }));
        self.kept = kept.collect();
        self.settled.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some messages for the queue `untouched`, all confirmed.
    fn round() -> (RoundLog, Vec<Identity>) {
        let mut log = ChannelLog::default();
        let wanted = |identity: &Identity| identity.route().queues == [UNTOUCHED] && identity.is_persistent();
        let numbers: Vec<u32> = (0..200).map(|_| log.publish()).collect();
        log.settle(200, true, Outcome::Confirmed(Instant::now())).unwrap();
        let identities = numbers.into_iter().map(|number| Identity { round: 1, publisher: 1, channel: 1, number });
        let identities = identities.filter(wanted).collect();
        let publisher = PublisherLog { round: 1, publisher: 1, channels: [(1, log)].into(), violations: Vec::new() };
        (RoundLog { publishers: vec![publisher], consumers: Vec::new() }, identities)
    }

    const UNTOUCHED: usize = 3;

    /// What is seen where only one queue has messages.
    fn only(place: usize, found: Vec<Found>) -> Vec<Option<Vec<Found>>> {
        let mut all: Vec<_> = QUEUES.iter().map(|_| Some(Vec::new())).collect();
        all[place] = Some(found);
        all
    }

    fn judge(change: impl FnOnce(&mut Vec<Found>), spared: Spared) -> Vec<Kind> {
        let (round, identities) = round();
        let mut untouched =
            identities.iter().map(|identity| Found { identity: *identity, is_redelivered: false }).collect();
        change(&mut untouched);
        let figures = Ledger::default().judge(round, &only(UNTOUCHED, untouched), spared);
        let of_queue = figures.violations.into_iter().filter(|violation| violation.text.starts_with("untouched:"));
        of_queue.map(|violation| violation.kind).collect()
    }

    #[test]
    fn what_was_confirmed_and_is_there_is_right() {
        assert_eq!(judge(|_| {}, Spared::System), []);
    }

    #[test]
    fn each_defect_is_named() {
        assert_eq!(judge(|found| found.truncate(found.len() - 1), Spared::System), [Kind::Lost]);
        assert_eq!(judge(|found| found.swap(3, 4), Spared::System), [Kind::Order]);
        assert_eq!(judge(|found| found.push(found[found.len() - 1]), Spared::System), [Kind::Twice]);
        assert_eq!(
            judge(|found| found.last_mut().unwrap().identity.round = 9, Spared::System),
            [Kind::Ghost, Kind::Lost]
        );
    }

    /// Some messages for the queue `levels.untouched` in the order in which they must stand.
    fn levels() -> Vec<Found> {
        let (name, _) = QUEUES[LEVELS_UNTOUCHED];
        let identities = (1..400).map(|number| Identity { round: 1, publisher: 1, channel: 1, number });
        let mut found: Vec<Found> = identities
            .filter(|identity| identity.route().queues == [LEVELS_UNTOUCHED] && identity.is_persistent())
            .map(|identity| Found { identity, is_redelivered: false })
            .collect();
        found.sort_by_key(|found| (u8::MAX - found.identity.level(name), found.identity.number));
        found
    }

    const LEVELS_UNTOUCHED: usize = 8;

    #[test]
    fn levels_stand_one_above_the_other_and_each_is_in_order() {
        let (name, _) = QUEUES[LEVELS_UNTOUCHED];
        let judge = |found: Vec<Found>| {
            let mut log = ChannelLog::default();
            let _numbers: Vec<u32> = (1..400).map(|_| log.publish()).collect();
            let publisher =
                PublisherLog { round: 1, publisher: 1, channels: [(1, log)].into(), violations: Vec::new() };
            let round = RoundLog { publishers: vec![publisher], consumers: Vec::new() };
            Ledger::default().judge(round, &only(LEVELS_UNTOUCHED, found), Spared::System).count(Kind::Order)
        };
        assert_eq!(judge(levels()), 0);
        let level = |found: &Found| found.identity.level(name);
        let border = levels().windows(2).position(|pair| level(&pair[0]) != level(&pair[1])).expect("two levels");
        let mut found = levels();
        found.swap(border, border + 1);
        assert!(judge(found) > 0, "a lower level in front of a higher");
        let same = levels().windows(2).position(|pair| level(&pair[0]) == level(&pair[1])).expect("two of a level");
        let mut found = levels();
        found.swap(same, same + 1);
        assert!(judge(found) > 0, "a later number in front of an earlier");
    }

    #[test]
    fn confirms_after_the_moment_do_not_count() {
        assert_eq!(judge(Vec::clear, Spared::Disk(Instant::now() - std::time::Duration::from_secs(1))), []);
    }

    #[test]
    fn what_was_drained_may_come_back_once_and_not_after_a_clean_end() {
        let (first, identities) = round();
        let one = Found { identity: identities[0], is_redelivered: true };
        let mut ledger = Ledger::default();
        let all = only(UNTOUCHED, vec![one]);
        ledger.judge(first, &all, Spared::System);
        ledger.on_drained();
        let again = ledger.judge(RoundLog::default(), &all, Spared::System);
        assert_eq!((again.reappeared, again.violations.len()), (1, 0));
        ledger.on_drained();
        ledger.on_clean_end();
        let ghost = ledger.judge(RoundLog::default(), &all, Spared::System);
        assert_eq!(ghost.count(Kind::Ghost), 1);
    }

    #[test]
    fn what_was_not_looked_at_is_judged_at_the_next_look() {
        let judge = |missing: usize| {
            let (first, identities) = round();
            let mut ledger = Ledger::default();
            let mut unseen = only(UNTOUCHED, Vec::new());
            unseen[UNTOUCHED] = None;
            let before = ledger.judge(first, &unseen, Spared::System);
            let found =
                identities.iter().skip(missing).map(|identity| Found { identity: *identity, is_redelivered: false });
            let after = ledger.judge(RoundLog::default(), &only(UNTOUCHED, found.collect()), Spared::System);
            let kinds = |figures: Figures| -> Vec<Kind> {
                let of_queue =
                    figures.violations.into_iter().filter(|violation| violation.text.starts_with("untouched:"));
                of_queue.map(|violation| violation.kind).collect()
            };
            (kinds(before), kinds(after))
        };
        assert_eq!(judge(0), (vec![], vec![]));
        assert_eq!(judge(1), (vec![], vec![Kind::Lost]));
    }

    #[test]
    fn number_is_settled_once() {
        let mut log = ChannelLog::default();
        let numbers: Vec<u32> = (0..3).map(|_| log.publish()).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(log.settle(2, true, Outcome::Nacked), Ok(2));
        log.settle(1, false, Outcome::Nacked).unwrap_err();
        log.settle(2, true, Outcome::Nacked).unwrap_err();
        log.settle(4, true, Outcome::Nacked).unwrap_err();
        assert_eq!(log.settle(3, false, Outcome::Nacked), Ok(1));
    }
}
