//! Which mode a channel is in, and its transactions (semantics 14.1, 15).

use super::*;
use crate::amqp::channel::transaction::Run;

impl Connection {
    pub(super) fn on_confirm_select<'i>(
        &mut self,
        now: Instant,
        id: ChannelId,
        select: ConfirmSelect,
    ) -> Option<Event<'i>> {
        let channel = self.channels.get_mut(&id.0)?;
        match &channel.mode {
            Mode::Plain => channel.mode = Mode::Confirm(Confirms::after(self.numbers_base)),
            Mode::Confirm(_) => {}
            Mode::Tx(_) => {
                let error = precondition_failed("cannot switch from tx to confirm mode", ConfirmSelect::ID);
                return self.fail(now, id, error, Framing::Kept);
            }
        }
        if !select.nowait {
            frame::write_method(self.out.tail(), id.0, ConfirmSelectOk {});
        }
        None
    }

    pub(super) fn on_tx_select<'i>(&mut self, now: Instant, id: ChannelId) -> Option<Event<'i>> {
        let channel = self.channels.get_mut(&id.0)?;
        match &channel.mode {
            Mode::Plain => channel.mode = Mode::Tx(Transaction::after(self.numbers_base)),
            Mode::Tx(_) => {}
            Mode::Confirm(_) => {
                let error = precondition_failed("cannot switch from confirm to tx mode", TxSelect::ID);
                return self.fail(now, id, error, Framing::Kept);
            }
        }
        frame::write_method(self.out.tail(), id.0, TxSelectOk {});
        None
    }

    pub(super) fn on_tx_commit<'i>(&mut self, now: Instant, id: ChannelId) -> Option<Event<'i>> {
        match self.channels.get_mut(&id.0)?.mode.transaction() {
            Some(_) => Some(Event::Commit { channel: id }),
            None => self.fail(now, id, not_transactional(TxCommit::ID), Framing::Kept),
        }
    }

    pub(super) fn on_tx_rollback<'i>(&mut self, now: Instant, id: ChannelId) -> Option<Event<'i>> {
        let channel = self.channels.get_mut(&id.0)?;
        let Some(transaction) = channel.mode.transaction() else {
            return self.fail(now, id, not_transactional(TxRollback::ID), Framing::Kept);
        };
        for (tag, outstanding) in transaction.take_settlements().into_iter().flat_map(|run| run.deliveries) {
            channel.unacked.restore(tag, outstanding);
        }
        frame::write_method(self.out.tail(), id.0, TxRollbackOk {});
        Some(Event::Rollback { channel: id })
    }

    /// The settlements that [`Event::Commit`] is about, in the order in which they came: runs of one kind.
    pub fn take_held_settlements(&mut self, id: ChannelId) -> Vec<(Outcome, Vec<Outstanding>)> {
        let without_tags = |run: Run| {
            let deliveries = run.deliveries.into_iter().map(|(_, outstanding)| outstanding).collect();
            (run.outcome, deliveries)
        };
        let transaction = self.channels.get_mut(&id.0).and_then(|channel| channel.mode.transaction());
        transaction.map(Transaction::take_settlements).unwrap_or_default().into_iter().map(without_tags).collect()
    }

    /// The publishes of a commit are on their way, and that many answers will come by [`Self::confirm`]; `is_refused` when it is known
    /// already that one of them failed.
    ///
    /// # Errors
    /// As of [`Self::confirm`], when there is nothing to wait for.
    pub fn commit(&mut self, id: ChannelId, answers_missing: u64, is_refused: bool) -> Result<(), ProtocolError> {
        if let Some(transaction) = self.channels.get_mut(&id.0).and_then(|channel| channel.mode.transaction()) {
            transaction.commit(answers_missing, is_refused);
        }
        self.finish_commit(id)
    }

    pub(super) fn finish_commit(&mut self, id: ChannelId) -> Result<(), ProtocolError> {
        let Some(channel) = self.channels.get_mut(&id.0).filter(|channel| channel.state == ChannelState::Open) else {
            return Ok(());
        };
        match channel.mode.transaction().and_then(Transaction::take_committed) {
            None => Ok(()),
            Some(Committed::Whole) => {
                frame::write_method(self.out.tail(), id.0, TxCommitOk {});
                Ok(())
            }
            Some(Committed::Partly) => Err(precondition_failed("partial tx completion", TxCommit::ID)),
        }
    }
}

fn not_transactional(method: MethodId) -> ProtocolError {
    precondition_failed("channel is not transactional", method)
}

fn precondition_failed(text: &str, method: MethodId) -> ProtocolError {
    ProtocolError::new(ReplyCode::PreconditionFailed, text).in_method(method)
}
