//! What a transaction brings comes when it is committed, and never when it is not (semantics 15.2, 15.6); a commit is refused only where
//! a queue may refuse (semantics 15.5).

use super::Oracle;
use crate::facts::{Facts, Transaction, TransactionId};
use crate::history::Event;

pub(crate) struct Transactions;

impl Oracle for Transactions {
    fn name(&self) -> &'static str {
        "transactions"
    }

    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Delivered(id) => {
                let message = facts.delivery(*id).publish;
                let state = facts.publish(message).transaction.map(|id| facts.transactions[id.0]);
                match state {
                    Some(Transaction::Open | Transaction::RollingBack | Transaction::RolledBack) => {
                        Err(format!("message {} comes, but its transaction is {state:?}", message.0))
                    }
                    _ => Ok(()),
                }
            }
            Event::Quiet => {
                let mut all = facts.transactions.iter().enumerate();
                match all
                    .find(|(id, state)| **state == Transaction::Refused && !may_be_refused(facts, TransactionId(*id)))
                {
                    Some((id, _)) => Err(format!("transaction {id} was refused without a reason")),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// Whether a queue may have refused something of it, or the store failed.
fn may_be_refused(facts: &Facts, id: TransactionId) -> bool {
    facts.publishes.iter().filter(|publish| publish.transaction == Some(id)).any(|publish| {
        let refuses = publish.targets.iter().any(|(queue, _)| facts.queue(*queue).plan.may_refuse());
        refuses || facts.node_end_since(publish.at).is_some()
    })
}
