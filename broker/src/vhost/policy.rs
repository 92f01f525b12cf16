//! What policies say about a queue: the values of the one policy and the one operator policy that match it, merged (semantics 23).

use std::sync::Arc;

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
