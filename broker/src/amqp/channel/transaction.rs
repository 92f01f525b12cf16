//! The transaction of one channel (semantics 15): what it holds back until tx.commit, and what the commit waits for.
//!
//! ```text
//! open ──tx.commit──▶ committing ──every queue has answered──▶ open (commit-ok), or the channel fails
//!   └──tx.rollback──▶ open
//! ```
//! Here are the settlements; the held publishes are the driver's, because only it knows where they go. Numbers are given as for confirms:
//! they go on where an earlier channel of the same number ended, so that late answers for that one are told apart.

use crate::amqp::{Outcome, Outstanding};

/// Settlements of one kind that came behind each other, with their delivery tags.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) outcome: Outcome,
    pub(crate) deliveries: Vec<(u64, Outstanding)>,
}

#[derive(Debug)]
struct Commit {
    answers_missing: u64,
    is_refused: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// The last number of earlier transactions and channels.
    base: u64,
    next: u64,
    settlements: Vec<Run>,
    commit: Option<Commit>,
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// Every queue has taken its messages.
    Whole,
    /// At least one has refused one (semantics 15.5).
    Partly,
}

impl Transaction {
    /// Numbers publishes from `base` + 1 on.
    pub(crate) fn after(base: u64) -> Self {
        Self { base, next: base + 1, settlements: Vec::new(), commit: None }
    }

    /// The last number that was given.
    pub(crate) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Numbers a publish.
    pub(crate) fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Between tx.commit and its answer no command may come (semantics 15.7).
    pub(crate) fn is_committing(&self) -> bool {
        self.commit.is_some()
    }

    /// Holds settlements back.
    pub(crate) fn hold(&mut self, outcome: Outcome, deliveries: impl IntoIterator<Item = (u64, Outstanding)>) {
        match self.settlements.last_mut() {
            Some(run) if run.outcome == outcome => run.deliveries.extend(deliveries),
            _ => self.settlements.push(Run { outcome, deliveries: deliveries.into_iter().collect() }),
        }
    }

    /// How many settlements are held.
    pub(crate) fn settlement_count(&self) -> usize {
        self.settlements.iter().map(|run| run.deliveries.len()).sum()
    }

    /// Everything that was held, in order.
    pub(crate) fn take_settlements(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.settlements)
    }

    /// The publishes are on their way to queues, which owe so many answers; `is_refused` when one of them is known to have failed.
    pub(crate) fn commit(&mut self, answers_missing: u64, is_refused: bool) {
        self.commit = Some(Commit { answers_missing, is_refused });
    }

    /// A queue has taken the message with this number, or refused it.
    pub(crate) fn answer(&mut self, number: u64, is_taken: bool) {
        if let Some(commit) = self.commit.as_mut().filter(|_| number > self.base) {
            commit.is_refused |= !is_taken;
            commit.answers_missing = commit.answers_missing.saturating_sub(1);
        }
    }

    /// Ends a commit for which every answer has come; the next transaction begins by itself (semantics 15.6).
    pub(crate) fn take_committed(&mut self) -> Option<Committed> {
        let commit = self.commit.take_if(|commit| commit.answers_missing == 0)?;
        self.base = self.last();
        Some(if commit.is_refused { Committed::Partly } else { Committed::Whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::SourceId;

    fn delivery(tag: u64) -> (u64, Outstanding) {
        (tag, Outstanding { source: SourceId(0), ticket: tag })
    }

    #[test]
    fn settlements_of_one_kind_are_one_run_and_keep_their_order() {
        let mut transaction = Transaction::after(0);
        transaction.hold(Outcome::Ack, [delivery(1), delivery(2)]);
        transaction.hold(Outcome::Ack, [delivery(3)]);
        transaction.hold(Outcome::Requeue, [delivery(5)]);
        transaction.hold(Outcome::Ack, [delivery(4)]);
        let runs: Vec<(Outcome, Vec<u64>)> = transaction
            .take_settlements()
            .into_iter()
            .map(|run| (run.outcome, run.deliveries.into_iter().map(|(tag, _)| tag).collect()))
            .collect();
        let expected = [(Outcome::Ack, vec![1, 2, 3]), (Outcome::Requeue, vec![5]), (Outcome::Ack, vec![4])];
        assert_eq!(runs, expected);
        assert!(transaction.take_settlements().is_empty());
    }

    #[test]
    fn a_commit_waits_for_every_answer_and_one_refusal_is_enough() {
        let mut transaction = Transaction::after(7);
        assert_eq!((transaction.number(), transaction.number()), (8, 9));
        transaction.commit(3, false);
        transaction.answer(7, false);
        assert_eq!(transaction.take_committed(), None, "number 7 is an earlier channel's");
        transaction.answer(8, true);
        transaction.answer(9, false);
        assert!(transaction.take_committed().is_none() && transaction.is_committing());
        transaction.answer(9, true);
        assert_eq!(transaction.take_committed(), Some(Committed::Partly));
        assert!(!transaction.is_committing());
        assert_eq!(transaction.number(), 10);
        transaction.commit(1, false);
        transaction.answer(9, false);
        assert_eq!(transaction.take_committed(), None, "number 9 is of the transaction before");
        transaction.answer(10, true);
        assert_eq!(transaction.take_committed(), Some(Committed::Whole));
    }
}
