//! Between the queues and the storage plugin.
//!
//! [`Committer`] gathers what all queues want stored and hands it over in batches; it is the only source of confirms for persistent
//! messages. [`batch`] shapes a batch, [`pager`] brings messages back into memory, [`definitions`] says how durable exchanges, queues and bindings
//! are written down.

mod batch;
mod committer;
pub mod definitions;
mod gathered;
mod ledger;
mod pager;
pub mod recovery;
mod room;
#[cfg(test)]
mod tests;
mod turns;

use plugin_api::storage::QueueKey;

pub use committer::{Committer, Failure, Submission};
pub use gathered::Barrier;
pub use ledger::StoreLedger;
pub use recovery::{RecoverError, Recovery};
pub use turns::{Storing, Turns, has_woken};

use crate::queue::Stored;

/// A queue has two keys in the store: its number for lasting messages, and one with this bit for those that are only out of memory. What
/// stands under the second is forgotten at a start.
const PAGED_BIT: u64 = 1 << 63;

/// Under which key a queue's messages stand.
fn key(number: u64, stored: Stored) -> QueueKey {
    QueueKey(if stored == Stored::Paged { number | PAGED_BIT } else { number })
}

fn is_paged(key: QueueKey) -> bool {
    key.0 & PAGED_BIT != 0
}

fn number_of(key: QueueKey) -> u64 {
    key.0 & !PAGED_BIT
}
