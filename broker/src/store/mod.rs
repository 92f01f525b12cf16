//! Between the queues and the storage plugin.
//!
//! [`Committer`] gathers what all queues want stored and hands it over in batches; it is the only source of confirms for persistent
//! messages. [`definitions`] says how durable exchanges, queues and bindings are written down.

mod committer;
pub mod definitions;
mod ledger;
pub mod recovery;

pub use committer::{Committer, Failure};
pub use ledger::StoreLedger;
pub use recovery::{RecoverError, Recovery};
