//! What a node refuses on request, although it could do it: strict modes.
//!
//! They concern new queues alone. What is there already, and what a store brings back, is used as before.

use super::Vhost;
use super::declare::QueueSpec;
use super::error::Error;
use super::quorum::QuorumQueues;

/// The strict modes of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strict {
    /// Quorum queues (semantics 30.4).
    pub quorum_queues: QuorumQueues,
    /// Queues that are neither durable nor exclusive (semantics 9.15).
    pub transient_queues: TransientQueues,
}

/// What becomes of declarations of queues that neither survive a restart nor end with their connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransientQueues {
    /// They are declared, as by RabbitMQ up to 4.2.
    #[default]
    Allowed,
    /// They are refused, as by RabbitMQ 4.3.
    Refused,
}

impl Vhost {
    /// # Errors
    /// 541, which closes the connection, as in RabbitMQ.
    pub(super) fn check_transient(&self, spec: &QueueSpec) -> Result<(), Error> {
        match self.strict.transient_queues {
            TransientQueues::Refused if !spec.durable && !spec.exclusive => {
                Err(Error::TransientQueue { name: spec.name.clone(), vhost: self.name.to_string() })
            }
            TransientQueues::Refused | TransientQueues::Allowed => Ok(()),
        }
    }
}
