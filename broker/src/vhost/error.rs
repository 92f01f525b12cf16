//! Why a declaration, a binding or a publish was refused, in RabbitMQ's words.

use crate::access::Permission;
use crate::amqp::{ProtocolError, ReplyCode};
use crate::plugin_host::TypeError;

/// What an error is about, as texts spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `exchange`.
    Exchange,
    /// `queue`.
    Queue,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exchange => "exchange",
            Self::Queue => "queue",
        })
    }
}

/// See the module.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No permission (semantics 25.2).
    #[error("{permission} access to {kind} '{name}' in vhost '{vhost}' refused for user '{user}'")]
    Refused {
        /// Which is missing.
        permission: Permission,
        /// On what.
        kind: Kind,
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
        /// Who.
        user: String,
    },
    /// It does not exist (semantics 8.9, 9.17, 10.4).
    #[error("no {kind} '{name}' in vhost '{vhost}'")]
    NotFound {
        /// What.
        kind: Kind,
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
    },
    /// Neither durable nor exclusive, where such queues are refused (semantics 9.15).
    #[error(
        "Feature `transient_nonexcl_queues` is not permitted: queue '{name}' in vhost '{vhost}' is neither durable nor exclusive, and 'transient_queues: refuse' under 'node' refuses that"
    )]
    TransientQueue {
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
    },
    /// No plugin offers the type (semantics 8.5).
    #[error("unknown exchange type '{0}'")]
    UnknownExchangeType(String),
    /// No plugin offers it any more, but there are exchanges of that type (semantics 8.6).
    #[error("invalid exchange type '{0}'")]
    ExchangeTypeIsGone(String),
    /// The default exchange cannot be declared, deleted or bound (semantics 8.8).
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
    /// Names that begin with `amq.` are the server's (semantics 8.7, 9.3).
    #[error("{kind} name '{name}' contains reserved prefix 'amq.*'")]
    ReservedPrefix {
        /// What.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// Declared differently before (semantics 8.10, 9.8).
    #[error(
        "inequivalent arg '{argument}' for {kind} '{name}' in vhost '{vhost}': received {received} but current is {current}"
    )]
    Inequivalent {
        /// The first difference.
        argument: String,
        /// What.
        kind: Kind,
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
        /// The new value.
        received: String,
        /// The old value.
        current: String,
    },
    /// `amq.*` exchanges stay (semantics 8.14).
    #[error("deletion of system exchange '{name}' in vhost '{vhost}' not allowed")]
    SystemExchange {
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
    },
    /// if-unused (semantics 8.14, 9.19).
    #[error("{kind} '{name}' in vhost '{vhost}' in use")]
    InUse {
        /// What.
        kind: Kind,
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
    },
    /// if-empty (semantics 9.19).
    #[error("queue '{name}' in vhost '{vhost}' not empty")]
    NotEmpty {
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
    },
    /// Another connection's exclusive queue (semantics 9.6).
    #[error(
        "cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."
    )]
    Locked {
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
    },
    /// Another consumer has the queue for itself (semantics 13.5).
    #[error("queue '{name}' in vhost '{vhost}' in exclusive use")]
    ExclusiveUse {
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
    },
    /// There are as many queues as there may be (semantics 9.21).
    #[error("cannot declare queue '{name}': queue limit in vhost '{vhost}' ({limit}) is reached")]
    QueueLimit {
        /// The queue that would be one too many.
        name: String,
        /// Where.
        vhost: String,
        /// How many there may be.
        limit: u64,
    },
    /// The vhost was deleted meanwhile (semantics 24.2); its connections are being closed.
    #[error("vhost '{0}' is deleted")]
    VhostDeleted(String),
    /// No topic permission (semantics 25.7).
    #[error(
        "{permission} access to topic '{routing_key}' in exchange '{exchange}' in vhost '{vhost}' refused for user '{user}'"
    )]
    TopicRefused {
        /// Which is missing.
        permission: Permission,
        /// For which key.
        routing_key: String,
        /// On which exchange.
        exchange: String,
        /// Where.
        vhost: String,
        /// Who.
        user: String,
    },
    /// So many bindings lead to it already (`limits.bindings_per_queue_max`).
    #[error("cannot bind {kind} '{name}' in vhost '{vhost}': binding limit ({max}) is reached")]
    BindingLimit {
        /// What.
        kind: Kind,
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
        /// The limit.
        max: usize,
    },
    /// Nothing leads to a reply queue but the default exchange (semantics 22.3).
    #[error("cannot bind or unbind to a volatile (direct reply-to) queue")]
    ReplyQueueBinding,
    /// An argument's value is wrong (semantics 8.11, 9.13).
    #[error("{0}")]
    Argument(String),
    /// An internal exchange (semantics 8.12).
    #[error("cannot publish to internal exchange '{name}' in vhost '{vhost}'")]
    InternalExchange {
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
    },
    /// The exchange's type refused, or has failed.
    #[error("{0}")]
    Type(#[from] TypeError),
    /// A route met an exchange whose type has failed.
    #[error("Cannot route message through exchange '{name}' in vhost '{vhost}': {error}")]
    RouteFailed {
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
        /// What the plugin host says.
        error: TypeError,
    },
    /// Something that queues of a type do not do (semantics 9.20, 13.16).
    #[error("{0}")]
    NotImplemented(String),
    /// A queue that cannot be got from (semantics 13.28).
    #[error("{0}")]
    NoGet(String),
    /// A hook of the operator's refused the declaration.
    #[error("declaration of {kind} '{name}' in vhost '{vhost}' refused by hook '{hook}': {reason}")]
    HookRefused {
        /// What, in a word.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where.
        vhost: String,
        /// Which hook.
        hook: String,
        /// What it says.
        reason: String,
    },
    /// A property of a published message is wrong (semantics 11.12, 12.5, 12.6).
    #[error("{0}")]
    Message(String),
}

impl Error {
    /// The code that tells a client.
    pub fn reply_code(&self) -> ReplyCode {
        match self {
            Self::VhostDeleted(_) => ReplyCode::ConnectionForced,
            Self::Refused { .. }
            | Self::TopicRefused { .. }
            | Self::HookRefused { .. }
            | Self::DefaultExchange
            | Self::ReservedPrefix { .. }
            | Self::SystemExchange { .. }
            | Self::InternalExchange { .. }
            | Self::ReplyQueueBinding
            | Self::ExclusiveUse { .. } => ReplyCode::AccessRefused,
            Self::NotFound { .. } => ReplyCode::NotFound,
            Self::Locked { .. } | Self::NoGet(_) => ReplyCode::ResourceLocked,
            Self::NotImplemented(_) => ReplyCode::NotImplemented,
            Self::TransientQueue { .. }
            | Self::Type(TypeError::Faulted(_))
            | Self::RouteFailed { error: TypeError::Faulted(_), .. } => ReplyCode::InternalError,
            Self::UnknownExchangeType(_)
            | Self::ExchangeTypeIsGone(_)
            | Self::QueueLimit { .. }
            | Self::Inequivalent { .. }
            | Self::InUse { .. }
            | Self::NotEmpty { .. }
            | Self::BindingLimit { .. }
            | Self::Argument(_)
            | Self::Type(TypeError::Refused(_))
            | Self::RouteFailed { error: TypeError::Refused(_), .. }
            | Self::Message(_) => ReplyCode::PreconditionFailed,
        }
    }
}

impl From<Error> for ProtocolError {
    fn from(error: Error) -> Self {
        Self::new(error.reply_code(), error.to_string())
    }
}
