//! What was seen of an object at each look, for rates and charts.
//!
//! A row of numbers is looked at every [`LOOK_MS`]. Rows are kept as differences from the row before, in a few bytes each, and rows
//! that say nothing new are not kept at all: so a quiet object costs nothing, and ten thousand busy ones some tens of megabytes.
//! What was kept for how long is RabbitMQ's `sample_retention_policies`: each five seconds for ten minutes, each minute for an hour; for
//! what there is few of also each ten minutes for eight hours and each half hour for a day.

use std::collections::VecDeque;

/// Between two looks, as in RabbitMQ (`collect_statistics_interval`).
pub const LOOK_MS: u64 = 5_000;
/// After so long without a look, a rate says nothing any more and is 0.
const STALE_MS: u64 = 2 * LOOK_MS + LOOK_MS / 2;
/// A range has at most so many samples, as in RabbitMQ.
pub const SAMPLES_MAX: u64 = 500;

/// Each interval with how long it is kept, in milliseconds.
type Retention = &'static [(u64, u64)];

/// For each queue, exchange, channel and connection.
pub const BASIC: Retention = &[(LOOK_MS, 600_000), (60_000, 3_600_000)];
/// For vhosts and the node.
pub const GLOBAL: Retention =
    &[(LOOK_MS, 600_000), (60_000, 3_600_000), (600_000, 28_800_000), (1_800_000, 86_400_000)];

/// Samples that somebody asks for: of the last `age_secs`, one each `incr_secs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    age_secs: u64,
    incr_secs: u64,
}

impl Range {
    /// None for what RabbitMQ refuses with `Invalid range parameters: age AGE, incr INCR`.
    pub fn new(age_secs: u64, incr_secs: u64) -> Option<Self> {
        let is_valid = age_secs > 0 && incr_secs > 0 && age_secs / incr_secs <= SAMPLES_MAX;
        is_valid.then_some(Self { age_secs, incr_secs })
    }

    /// The times of its samples in milliseconds, ascending; they are multiples of the increment.
    fn times(self, now_ms: u64) -> impl Iterator<Item = u64> {
        let incr_ms = self.incr_secs.saturating_mul(1000);
        let last = now_ms / incr_ms;
        let first = last.saturating_sub(self.age_secs / self.incr_secs);
        (first..=last).map(move |slot| slot * incr_ms)
    }
}

/// Change in a second.
pub type Rate = f64;

/// A counter or gauge over a range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampled {
    /// Milliseconds since the epoch with what was seen then, newest first. 0 where nothing had been seen yet.
    pub samples: Vec<(u64, u64)>,
    /// Mean change in a second, of two samples or more.
    pub avg_rate: Option<Rate>,
    /// Mean of the samples, of two or more.
    pub avg: Option<f64>,
}

impl Sampled {
    fn of(samples: Vec<(u64, u64)>) -> Self {
        let (mut avg_rate, mut avg) = (None, None);
        if let ([newest, .., oldest], count) = (&*samples, samples.len()) {
            let secs = (newest.0 - oldest.0) as f64 / 1000.0;
            avg_rate = Some((newest.1 as f64 - oldest.1 as f64) / secs);
            avg = Some(samples.iter().map(|(_, value)| *value as f64).sum::<f64>() / count as f64);
        }
        Self { samples, avg_rate, avg }
    }

    /// With what another was at the same times.
    pub(super) fn add(&mut self, other: &Self) {
        let samples = self.samples.iter().zip(&other.samples);
        *self = Self::of(samples.map(|((at_ms, value), (_, other))| (*at_ms, value + other)).collect());
    }
}

/// See the module. `N` numbers are looked at together.
#[derive(Debug)]
pub struct History<const N: usize> {
    looked_ms: u64,
    current: [u64; N],
    rates: [f32; N],
    has_rates: bool,
    tiers: Vec<Tier<N>>,
}

impl<const N: usize> History<N> {
    /// Nothing was seen yet.
    pub fn new(retention: Retention) -> Self {
        let tiers = retention.iter().map(|&(every_ms, keep_ms)| Tier::new(every_ms, keep_ms)).collect();
        Self { looked_ms: 0, current: [0; N], rates: [0.0; N], has_rates: false, tiers }
    }

    /// Keeps what is seen at a time, which must not go back.
    pub fn push(&mut self, now_ms: u64, row: [u64; N]) {
        let is_first = self.looked_ms == 0;
        let passed_ms = now_ms.saturating_sub(self.looked_ms);
        if passed_ms == 0 {
            return;
        }
        // Something that is new has had no rate yet; what it counted came in an unknown time.
        let has_changed = !is_first && row != self.current;
        if has_changed {
            self.rates = std::array::from_fn(|at| {
                ((row[at] as f64 - self.current[at] as f64) * 1000.0 / passed_ms as f64) as f32
            });
        } else if self.has_rates {
            self.rates = [0.0; N];
        }
        self.has_rates = has_changed;
        (self.looked_ms, self.current) = (now_ms, row);
        for tier in &mut self.tiers {
            tier.push(now_ms, &row);
        }
    }

    /// The change in a second of each number between the last two looks; 0 when the last one is long ago.
    pub fn rates(&self, now_ms: u64) -> [Rate; N] {
        let is_stale = !self.has_rates || now_ms.saturating_sub(self.looked_ms) > STALE_MS;
        if is_stale { [0.0; N] } else { self.rates.map(|rate| (f64::from(rate) * 10_000.0).round() / 10_000.0) }
    }

    /// The last row that was seen.
    pub fn current(&self) -> &[u64; N] {
        &self.current
    }

    /// Each number over a range.
    pub fn sampled(&self, range: Range, now_ms: u64) -> [Sampled; N] {
        let age_ms = range.age_secs.saturating_mul(1000);
        let tier = self.tiers.iter().find(|tier| tier.keep_ms >= age_ms).or(self.tiers.last());
        let times: Vec<u64> = range.times(now_ms).collect();
        let rows = tier.map(|tier| tier.rows(&times)).unwrap_or_default();
        std::array::from_fn(|at| {
            let samples = times.iter().zip(&rows).rev().map(|(&time, row)| (time, row[at]));
            Sampled::of(samples.collect())
        })
    }
}

/// Rows of one interval.
#[derive(Debug)]
struct Tier<const N: usize> {
    every_ms: u64,
    keep_ms: u64,
    /// The oldest row, by slot: a slot is `every_ms` long. What follows is in `later`.
    oldest: Option<(u64, [u64; N])>,
    newest: (u64, [u64; N]),
    /// For each row: slots since the one before, a bit for each number that changed, and by how much.
    later: VecDeque<u8>,
}

impl<const N: usize> Tier<N> {
    fn new(every_ms: u64, keep_ms: u64) -> Self {
        Self { every_ms, keep_ms, oldest: None, newest: (0, [0; N]), later: VecDeque::new() }
    }

    fn push(&mut self, now_ms: u64, row: &[u64; N]) {
        let slot = now_ms / self.every_ms;
        match self.oldest {
            None => {
                self.oldest = Some((slot, *row));
                self.newest = (slot, *row);
            }
            Some(_) if slot > self.newest.0 && *row != self.newest.1 => {
                put(&mut self.later, slot - self.newest.0);
                let changed = row.iter().zip(&self.newest.1).enumerate().filter(|(_, (new, old))| new != old);
                put(&mut self.later, changed.clone().fold(0, |mask, (at, _)| mask | 1 << at));
                for (_, (new, old)) in changed {
                    put(&mut self.later, zigzag(new.wrapping_sub(*old)));
                }
                self.newest = (slot, *row);
            }
            Some(_) => {}
        }
        // A row holds until the next, so the last one before what is kept stays.
        let kept_from = slot.saturating_sub(self.keep_ms / self.every_ms);
        while let Some((slot, row)) = &mut self.oldest {
            let mut bytes = self.later.iter().copied();
            let Some((next_slot, next_row)) = next_row(&mut bytes, *slot, row).filter(|(next, _)| *next <= kept_from)
            else {
                break;
            };
            let used = self.later.len() - bytes.len();
            (*slot, *row) = (next_slot, next_row);
            self.later.drain(..used);
        }
    }

    /// The rows at ascending times; zeros before the first.
    fn rows(&self, times: &[u64]) -> Vec<[u64; N]> {
        let mut bytes = self.later.iter().copied();
        let mut current = [0; N];
        let mut next = self.oldest;
        let mut rows = Vec::with_capacity(times.len());
        for time in times {
            while let Some((slot, row)) = next.filter(|(slot, _)| slot.saturating_mul(self.every_ms) <= *time) {
                current = row;
                next = next_row(&mut bytes, slot, &row);
            }
            rows.push(current);
        }
        rows
    }
}

fn next_row<const N: usize>(
    bytes: &mut impl Iterator<Item = u8>,
    slot: u64,
    row: &[u64; N],
) -> Option<(u64, [u64; N])> {
    let slot = slot + take(bytes)?;
    let mask = take(bytes)?;
    let mut row = *row;
    for (at, value) in row.iter_mut().enumerate() {
        if mask & 1 << at != 0 {
            *value = value.wrapping_add(unzigzag(take(bytes)?));
        }
    }
    Some((slot, row))
}

/// Seven bits a byte, the lowest first.
fn put(bytes: &mut VecDeque<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push_back(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push_back(value as u8);
}

fn take(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let byte = bytes.next()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

/// Small differences of either sign become small numbers.
fn zigzag(difference: u64) -> u64 {
    let signed = difference as i64;
    ((signed << 1) ^ (signed >> 63)) as u64
}

fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look each five seconds from second 1000 on, with these values of one counter and of a gauge that falls.
    fn history(values: &[u64]) -> History<2> {
        let mut history = History::new(BASIC);
        for (at, &value) in values.iter().enumerate() {
            history.push(1_000_000 + at as u64 * LOOK_MS, [value, 1000 - value]);
        }
        history
    }

    fn range(age_secs: u64, incr_secs: u64) -> Range {
        Range::new(age_secs, incr_secs).expect("a valid range")
    }

    #[test]
    fn what_several_were_at_one_time_is_added() {
        let mut sum = Sampled::of(vec![(10_000, 7), (5_000, 2)]);
        sum.add(&Sampled::of(vec![(10_000, 20), (5_000, 10)]));
        let expected = Sampled { samples: vec![(10_000, 27), (5_000, 12)], avg_rate: Some(3.0), avg: Some(19.5) };
        assert_eq!(sum, expected);
    }

    #[test]
    fn a_rate_is_the_change_in_a_second_between_the_last_two_looks() {
        let now_ms = 1_010_000;
        assert_eq!(history(&[7, 17, 117]).rates(now_ms), [20.0, -20.0]);
        assert_eq!(history(&[7, 17, 17]).rates(now_ms), [0.0, 0.0]);
        assert_eq!(history(&[500]).rates(1_000_000), [0.0, 0.0], "nobody knows when that came");
        assert_eq!(history(&[7, 17, 117]).rates(now_ms + 12_000), [20.0, -20.0], "the next look may be late");
        assert_eq!(history(&[7, 17, 117]).rates(now_ms + 13_000), [0.0, 0.0], "it is stale");
    }

    #[test]
    fn samples_stand_on_multiples_of_the_increment_newest_first() {
        let [counter, gauge] = history(&[5, 10, 10, 40]).sampled(range(20, 5), 1_017_000);
        let samples = vec![(1_015_000, 40), (1_010_000, 10), (1_005_000, 10), (1_000_000, 5), (995_000, 0)];
        assert_eq!(counter, Sampled { samples, avg_rate: Some(2.0), avg: Some(13.0) });
        assert_eq!(gauge.samples.first(), Some(&(1_015_000, 960)));
        let [coarse, _] = history(&[5, 10, 10, 40]).sampled(range(10, 10), 1_017_000);
        assert_eq!(coarse.samples, [(1_010_000, 10), (1_000_000, 5)]);
        let [one, _] = history(&[5]).sampled(range(1, 5), 1_002_000);
        assert_eq!((one.samples.len(), one.avg, one.avg_rate), (1, None, None));
    }

    #[test]
    fn ranges_beyond_rabbitmqs_limits_are_refused() {
        let is_valid = |(age, incr)| Range::new(age, incr).is_some();
        let cases = [(60, 0), (0, 5), (2501, 5), (2505, 5), (86_400, 1800)];
        assert_eq!(cases.map(is_valid), [false, false, true, false, true]);
    }

    #[test]
    fn old_rows_go_and_the_one_that_still_holds_stays() {
        let mut history = History::<1>::new(GLOBAL);
        let start = 1_800_000_000;
        for look in 0..40_000_u64 {
            history.push(start + look * LOOK_MS, [look]);
        }
        let sizes: Vec<usize> = history.tiers.iter().map(|tier| tier.later.len()).collect();
        assert!(sizes.iter().all(|&bytes| bytes <= 120 * 5), "{sizes:?}");
        let now_ms = start + 39_999 * LOOK_MS;
        let [minutes] = history.sampled(range(3600, 60), now_ms);
        assert_eq!((minutes.samples.len(), minutes.avg_rate), (61, Some(0.2)));
        let [day] = history.sampled(range(86_400, 1800), now_ms);
        assert_eq!((day.samples.len(), day.avg_rate), (49, Some(0.2)));
        // Unchanged from here on, for longer than rows are kept.
        for look in 40_000..41_000_u64 {
            history.push(start + look * LOOK_MS, [7]);
        }
        assert_eq!(history.tiers[0].later.len(), 0);
        let [quiet] = history.sampled(range(60, 5), start + 40_999 * LOOK_MS);
        assert!(quiet.samples.iter().all(|&(_, value)| value == 7));
    }

    #[test]
    fn every_row_comes_back_as_it_was() {
        let mut tier = Tier::<3>::new(1, 1_000_000);
        let values = [0, 1, 127, 128, u64::MAX, 1 << 63, u64::MAX - 1, 5];
        let rows: Vec<[u64; 3]> = (0..values.len()).map(|at| [values[at], 3, values[values.len() - 1 - at]]).collect();
        rows.iter().enumerate().for_each(|(at, row)| tier.push(at as u64 + 1, row));
        let times: Vec<u64> = (1..=rows.len() as u64).collect();
        assert_eq!(tier.rows(&times), rows);
    }
}
