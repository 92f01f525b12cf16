//! What a channel does that is transactional: it selects, commits and rolls back (semantics 15).

use super::channel::{Request, Transaction};
use super::{Client, Context};
use crate::facts::{Answer, Transaction as State};
use crate::history::Event;

impl Client {
    /// Makes the channel transactional.
    pub(super) fn select_transactions(&mut self, context: &mut Context<'_>, number: u16) {
        let Some(channel) = self.channel(number) else { return };
        channel.transaction = Some(Transaction::new(context.history.begin_transaction()));
        self.request(context, number, Request::TxSelect, "tx.select", &[]);
    }

    /// Ends the transaction, for now or for ever; false where there is nothing to end.
    pub(super) fn end_transaction(&mut self, context: &mut Context<'_>, number: u16) -> bool {
        let rolls_back = self.random.below(5) == 0;
        let Some(channel) = self.channel(number) else { return false };
        let Some(transaction) = channel.transaction.as_mut().filter(|transaction| !transaction.is_empty()) else {
            return false;
        };
        let id = transaction.id;
        if rolls_back {
            context.history.note(Event::Transaction { id, state: State::RollingBack });
            self.request(context, number, Request::Rollback, "tx.rollback", &[]);
            return true;
        }
        for (how, settled) in std::mem::take(&mut transaction.settled) {
            let deliveries = settled.into_iter().map(|(_, id)| id).collect();
            context.history.note(Event::Settled { deliveries, how });
        }
        context.history.note(Event::Transaction { id, state: State::Committing });
        self.request(context, number, Request::Commit, "tx.commit", &[]);
        true
    }

    /// The answer to tx.commit has come; the next transaction begins by itself.
    pub(super) fn on_committed(&mut self, context: &mut Context<'_>, number: u16) {
        let Some(ended) = self.next_transaction(context, number) else { return };
        context.history.note(Event::Transaction { id: ended.id, state: State::Committed });
        for publish in ended.publishes {
            context.history.answer(publish, Answer::Acked);
        }
    }

    /// The answer to tx.rollback has come: what was settled is as it was.
    pub(super) fn on_rolled_back(&mut self, context: &mut Context<'_>, number: u16) {
        let Some(ended) = self.next_transaction(context, number) else { return };
        context.history.note(Event::Transaction { id: ended.id, state: State::RolledBack });
        if let Some(channel) = self.channel(number) {
            channel.unacked.extend(ended.settled.into_iter().flat_map(|(_, settled)| settled));
        }
    }

    /// The broker has closed the channel over a commit.
    pub(super) fn on_refused(&mut self, context: &mut Context<'_>, number: u16) {
        let transaction = self.channel(number).and_then(|channel| channel.transaction.as_ref());
        if let Some(id) = transaction.map(|transaction| transaction.id) {
            context.history.note(Event::Transaction { id, state: State::Refused });
        }
    }

    fn next_transaction(&mut self, context: &mut Context<'_>, number: u16) -> Option<Transaction> {
        let channel = self.channel(number)?;
        channel.transaction.replace(Transaction::new(context.history.begin_transaction()))
    }
}
