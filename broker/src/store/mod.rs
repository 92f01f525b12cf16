//! Between the queues and the storage plugin.
//!
//! [`Committer`] gathers what all queues want stored and hands it over in batches; it is the only source of confirms for persistent
//! messages.

mod committer;

pub use committer::{Committer, Failure};
