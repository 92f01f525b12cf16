//! Policies: settings for queues and exchanges by their names (semantics 23).
//!
//! [`Policy`] is one of them, [`Policies`] all of a vhost, [`Applied`] the two that a queue has: of those who run applications and of those who run the
//! broker. Nothing here changes a queue; `vhost/policies.rs` does that.

mod applied;
pub mod keys;
mod spec;

use std::sync::Arc;

pub use self::applied::{Applied, Policies};
pub use self::spec::{ApplyTo, InvalidPolicy, NAME_BYTES_MAX, Policy, PolicyKind, PolicySpec, QueueType};
use crate::queue::Overflow;

/// The merged values for one queue; nothing where no policy says anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// `message-ttl`, milliseconds.
    pub message_ttl_ms: Option<u64>,
    /// `expires`, milliseconds.
    pub expires_ms: Option<u64>,
    /// `max-length`, messages.
    pub max_length: Option<u64>,
    /// `max-length-bytes`.
    pub max_length_bytes: Option<u64>,
    /// `overflow`.
    pub overflow: Option<Overflow>,
    /// `dead-letter-exchange`.
    pub dead_letter_exchange: Option<Arc<str>>,
    /// `dead-letter-routing-key`.
    pub dead_letter_routing_key: Option<Arc<str>>,
    /// `delivery-limit`; negative is unlimited.
    pub delivery_limit: Option<i64>,
    /// `consumer-timeout`, milliseconds.
    pub consumer_timeout_ms: Option<u64>,
}
