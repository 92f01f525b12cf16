//! What arrived, compared with what was sent: nothing lost, nothing twice, and in order.
//!
//! A publisher counts the messages to each queue; the number stands in the body ([`super::stamp`]). For each pair of publisher and queue a
//! [`Lane`] knows exactly which numbers have come. Order is a matter of each consumer: of one publisher's messages it must see rising
//! numbers, while consumers that share a queue overtake each other.

use std::collections::BTreeMap;

/// The messages of one publisher in one queue.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// One behind the highest number that came.
    next: u64,
    /// Numbers below that have not come: start and end of each run.
    missing: BTreeMap<u64, u64>,
    duplicates: u64,
}

/// What is wrong with what arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    /// Bodies that are not as they were sent, or nobody's of this run.
    pub(super) corrupt: u64,
    /// Messages that the broker has refused.
    pub(super) nacked: u64,
    /// Confirms of what was not sent, or was confirmed before.
    pub(super) wrong_confirms: u64,
    /// Messages that the broker never confirmed.
    pub(super) unconfirmed: u64,
}

impl Lane {
    /// A message came; says whether it had not come before.
    #[inline]
    pub(super) fn arrive(&mut self, number: u64) -> bool {
        if number == self.next {
            self.next += 1;
            return true;
        }
        self.arrive_off_turn(number)
    }

    #[cold]
    fn arrive_off_turn(&mut self, number: u64) -> bool {
        if number > self.next {
            self.missing.insert(self.next, number);
            self.next = number + 1;
            return true;
        }
        let run = self.missing.range(..=number).next_back().map(|(&start, &end)| (start, end));
        let Some((start, end)) = run.filter(|&(_, end)| number < end) else {
            self.duplicates += 1;
            return false;
        };
        self.missing.remove(&start);
        if start < number {
            self.missing.insert(start, number);
        }
        if number + 1 < end {
            self.missing.insert(number + 1, end);
        }
        true
    }

    /// A number of which only the lower half is known, completed to the one that is nearest to what is expected.
    #[inline]
    pub(super) fn whole(&self, low: u32) -> u64 {
        let distance = i64::from(low.wrapping_sub(self.next as u32).cast_signed());
        self.next.saturating_add_signed(distance)
    }

    /// Adds what is wrong, when so many were sent.
    pub(super) fn judge(&self, sent: u64, faults: &mut Faults) {
        let missing: u64 = self.missing.iter().map(|(start, end)| end - start).sum();
        faults.lost += missing + sent.saturating_sub(self.next);
        // A number that was never sent can only come from a body that was changed.
        faults.corrupt += self.next.saturating_sub(sent);
        faults.duplicated += self.duplicates;
    }
}

impl Faults {
    /// `ok`, or everything that is wrong in one line.
    pub(super) fn verdict(&self) -> String {
        let kinds = [
            (self.lost, "lost"),
            (self.duplicated, "duplicated"),
            (self.out_of_order, "out of order"),
            (self.corrupt, "corrupt"),
            (self.nacked, "refused"),
            (self.wrong_confirms, "confirmed wrongly"),
            (self.unconfirmed, "never confirmed"),
        ];
        let found: Vec<String> =
            kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
        if found.is_empty() { "ok".to_owned() } else { found.join(", ") }
    }

    /// Whether nothing is wrong.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.corrupt += other.corrupt;
        self.nacked += other.nacked;
        self.wrong_confirms += other.wrong_confirms;
        self.unconfirmed += other.unconfirmed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sent: u64, arrived: &[u64], expected: Faults) {
        let mut lane = Lane::default();
        for &number in arrived {
            lane.arrive(number);
        }
        let mut faults = Faults::default();
        lane.judge(sent, &mut faults);
        assert_eq!(faults, expected, "{arrived:?}");
        assert_eq!(faults.is_none(), faults.verdict() == "ok");
    }

    #[test]
    fn every_loss_is_found() {
        let lost = |lost| Faults { lost, ..Faults::default() };
        check(3, &[0, 1, 2], Faults::default());
        check(0, &[], Faults::default());
        check(3, &[0, 1], lost(1));
        check(3, &[1, 2], lost(1));
        check(5, &[0, 2, 4], lost(2));
        check(5, &[], lost(5));
    }

    #[test]
    fn overtaking_consumers_lose_nothing() {
        check(6, &[3, 4, 0, 5, 2, 1], Faults::default());
        check(6, &[5, 4, 3, 2, 1, 0], Faults::default());
        check(6, &[5, 2], Faults { lost: 4, ..Faults::default() });
    }

    #[test]
    fn a_duplicate_does_not_make_up_for_a_loss() {
        // Count and sum are those of 0..5.
        check(5, &[0, 2, 2, 2, 4], Faults { lost: 2, duplicated: 2, ..Faults::default() });
        check(2, &[0, 1, 1], Faults { duplicated: 1, ..Faults::default() });
        check(4, &[0, 3, 1, 1, 2, 2], Faults { duplicated: 2, ..Faults::default() });
    }

    #[test]
    fn what_was_never_sent_is_corrupt() {
        check(2, &[0, 1, 2], Faults { corrupt: 1, ..Faults::default() });
    }

    #[test]
    fn random_losses_and_duplicates_are_counted_exactly() {
        let mut seed = 7_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        };
        for _ in 0..200 {
            let (mut arrived, mut expected) = (Vec::new(), Faults::default());
            for number in 0..50 {
                let copies = [1, 1, 1, 0, 2, 3][(random() % 6) as usize];
                arrived.extend(std::iter::repeat_n(number, copies));
                expected.lost += u64::from(copies == 0);
                expected.duplicated += copies.saturating_sub(1) as u64;
            }
            for place in (1..arrived.len()).rev() {
                arrived.swap(place, (random() % (place as u64 + 1)) as usize);
            }
            check(50, &arrived, expected);
        }
    }

    #[test]
    fn numbers_beyond_32_bits_are_completed() {
        let lane = Lane { next: (1 << 32) + 5, ..Lane::default() };
        assert_eq!(lane.whole(5), (1 << 32) + 5);
        assert_eq!(lane.whole(9), (1 << 32) + 9);
        assert_eq!(lane.whole(u32::MAX), (1 << 32) - 1);
        assert_eq!(Lane::default().whole(3), 3);
    }

    #[test]
    fn the_verdict_names_everything() {
        let faults = Faults { lost: 2, out_of_order: 1, ..Faults::default() };
        assert_eq!(faults.verdict(), "2 lost, 1 out of order");
    }
}
