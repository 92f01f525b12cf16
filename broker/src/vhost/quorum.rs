//! Queues of type `quorum`, as far as one node can be one (semantics 30).
//!
//! A quorum queue is kept by several nodes. This one has no others yet, so such a queue is a durable one that counts its deliveries: it honours
//! what a quorum queue honours, refuses what a quorum queue refuses, and its declaration is logged. Who would rather not have a promise
//! kept by one node alone has them refused ([`QuorumQueues::Refused`]).

use plugin_api::exchange::Takes;
use plugin_api::value::Value;

use super::declare::QueueSpec;
use super::error::Error;
use super::policy::QueueType;
use super::queue_arguments::{DEAD_LETTER_STRATEGY, QUEUE_TYPE};
use super::{QueueRecord, Vhost};
use crate::plugin_host::TypeError;

/// What becomes of declarations of quorum queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuorumQueues {
    /// This node alone keeps them.
    #[default]
    Local,
    /// They are refused.
    Refused,
}

impl QueueRecord {
    /// Whether it was declared as a quorum queue.
    pub fn is_quorum(&self) -> bool {
        QueueType::of(&self.arguments) == QueueType::Quorum
    }
}

impl Vhost {
    /// A quorum queue has a name of the client's choice (semantics 9.2).
    pub(super) fn check_generated_name(spec: &QueueSpec) -> Result<(), Error> {
        match QueueType::of(&spec.arguments) {
            QueueType::Classic => Ok(()),
            kind => {
                let text = format!("Cannot declare a server-named queue for type rabbit_{}_queue", kind.name());
                Err(Error::Argument(text))
            }
        }
    }

    /// A quorum queue lasts, and belongs to nobody (semantics 30.1).
    pub(super) fn check_quorum(&self, spec: &QueueSpec) -> Result<(), Error> {
        if QueueType::of(&spec.arguments) != QueueType::Quorum {
            return Ok(());
        }
        let (name, vhost) = (&spec.name, &self.name);
        if let Some(property) = wrong_property(spec.durable, spec.auto_delete, spec.exclusive) {
            return Err(Error::Argument(format!(
                "invalid property '{property}' for queue '{name}' in vhost '{vhost}'"
            )));
        }
        if self.strict.quorum_queues == QuorumQueues::Refused {
            return Err(Error::Argument(format!(
                "invalid arg '{QUEUE_TYPE}' for queue '{name}' in vhost '{vhost}': quorum queues are refused, because this \
                 node would keep them alone"
            )));
        }
        tracing::warn!(vhost = %vhost, queue = name,
            "a quorum queue was declared, and only this node keeps it until there are clusters; \
             'quorum_queues: refuse' under 'node' refuses such queues");
        if spec.arguments.get(DEAD_LETTER_STRATEGY).and_then(Value::as_str) == Some("at-least-once") {
            tracing::warn!(vhost = %vhost, queue = name,
                "dead-letter-strategy at-least-once: dead letters of every queue are kept until all queues that get them have confirmed \
                 them, but one that has no route, or that a full queue refuses, is dropped, as with at-most-once");
        }
        Ok(())
    }

    /// What basic.consume on a channel with a limit of its own needs (semantics 13.16).
    ///
    /// # Errors
    /// 540.
    pub fn check_channel_limit(&self, queue: &QueueRecord) -> Result<(), Error> {
        match queue.is_quorum() {
            false => Ok(()),
            true => Err(Error::NotImplemented(format!("{} does not support global qos", self.shown(queue)))),
        }
    }

    /// What basic.get needs (semantics 13.28).
    ///
    /// # Errors
    /// 405.
    pub fn check_get(&self, queue: &QueueRecord) -> Result<(), Error> {
        if queue.is_quorum() && queue.settings.read().options.single_active_consumer {
            return Err(Error::NoGet(format!(
                "cannot obtain access to locked {}. basic.get operations are not supported by quorum queues with single \
                 active consumer",
                self.shown(queue)
            )));
        }
        Ok(())
    }

    /// What queue.delete with conditions needs (semantics 9.20).
    ///
    /// # Errors
    /// 540.
    pub fn check_delete(&self, queue: &QueueRecord, if_unused: bool, if_empty: bool) -> Result<(), Error> {
        let flag = match (if_unused, if_empty) {
            (true, _) => "if-unused",
            (_, true) => "if-empty",
            _ => return Ok(()),
        };
        match queue.is_quorum() {
            false => Ok(()),
            true => Err(Error::NotImplemented(format!(
                "cannot delete {}. queue.delete operations with {flag} flag set are not supported by quorum queues",
                self.shown(queue)
            ))),
        }
    }

    fn shown(&self, queue: &QueueRecord) -> String {
        format!("queue '{}' in vhost '{}'", queue.name, self.name)
    }
}

/// Whether an exchange type that takes these queues takes one of that type (semantics 10.12).
///
/// # Errors
/// The refusal, in RabbitMQ's words.
pub fn check_taken(takes: Takes, kind: QueueType) -> Result<(), TypeError> {
    match takes {
        Takes::ClassicQueues if kind != QueueType::Classic => {
            let name = kind.name();
            Err(TypeError::Refused(format!("Queue type rabbit_{name}_queue not valid for this exchange type")))
        }
        Takes::ClassicQueues | Takes::AllQueues => Ok(()),
    }
}

/// The property of a declaration that no quorum queue has, in RabbitMQ's order and words.
pub fn wrong_property(durable: bool, auto_delete: bool, exclusive: bool) -> Option<&'static str> {
    let wrong = [(auto_delete, "auto-delete"), (exclusive, "exclusive-owner"), (!durable, "non-durable")];
    wrong.into_iter().find(|(is_wrong, _)| *is_wrong).map(|(_, property)| property)
}
