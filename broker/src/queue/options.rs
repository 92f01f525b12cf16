//! What a queue is told to do: its declaration and policies, resolved to plain values.
//!
//! Who resolves them is `vhost/queue_settings.rs`; here nothing is a name or a pattern any more.

use super::Durability;

/// What a queue was declared with and what policies say about it now, as far as the machine cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Persistent messages go to the store.
    pub durable: bool,
    /// It is deleted when its last consumer goes (semantics 9.16).
    pub auto_delete: bool,
    /// What the confirms of persistent messages wait for.
    pub durability: Durability,
    /// How long a message may wait, in milliseconds (semantics 18.1).
    pub message_ttl_ms: Option<u64>,
    /// How long the queue may be unused, in milliseconds (semantics 18.8).
    pub expires_ms: Option<u64>,
    /// Ready messages at most (semantics 19.1).
    pub max_length: Option<u64>,
    /// Bytes of ready bodies at most (semantics 19.1).
    pub max_length_bytes: Option<u64>,
    /// What happens beyond these limits.
    pub overflow: Overflow,
    /// Messages that die are wanted elsewhere (semantics 20); otherwise they are dropped.
    pub dead_letters: bool,
    /// So often a message may come back before it dies (semantics 20.1, 30.2).
    pub delivery_limit: Option<u32>,
    /// Messages that come back say how often (semantics 13.22).
    pub counts_deliveries: bool,
    /// Levels of priority; none is one level for all messages. Fixed when the queue is made.
    pub priorities: Option<Priorities>,
    /// It is of the type quorum, which statistics tell apart. Fixed when the queue is made.
    pub is_quorum: bool,
    /// Only one consumer is served at a time (semantics 13.26). Fixed when the queue is made.
    pub single_active_consumer: bool,
    /// How long a delivery may stay unacked, in milliseconds (semantics 13.29).
    pub consumer_timeout_ms: Option<u64>,
}

/// The levels of a queue with priorities (semantics 21.1, 21.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priorities {
    /// The highest level; the lowest is 0.
    pub max: u8,
    /// The level of messages without a priority.
    pub default: u8,
}

/// What a queue does beyond its length limits (semantics 19.2 to 19.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest messages go.
    #[default]
    DropHead,
    /// New messages are refused.
    RejectPublish,
    /// New messages are refused, and dead-lettered.
    RejectPublishDlx,
}

impl Overflow {
    /// The names of arguments and policies.
    pub const NAMES: &[&str] = &["drop-head", "reject-publish", "reject-publish-dlx"];

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "drop-head" => Some(Self::DropHead),
            "reject-publish" => Some(Self::RejectPublish),
            "reject-publish-dlx" => Some(Self::RejectPublishDlx),
            _ => None,
        }
    }
}
