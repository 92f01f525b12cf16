//! What can go wrong with a benchmark, and the exit code of each.

use super::super::exit;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read.
    #[error("{0}")]
    NoInput(String),
    /// Nobody answers.
    #[error("no AMQP broker at {address}: {reason}; start one, or name another place with --url")]
    Unreachable { address: String, reason: String },
    /// The login, or the vhost, is refused.
    #[error("the broker refuses the connection: {code} {text}; user, password and vhost come from --url")]
    Refused { code: u16, text: String },
    /// The broker has closed a connection or a channel.
    #[error("the broker has closed the {what}: {code} {text}")]
    Closed { what: &'static str, code: u16, text: String },
    /// What answers speaks something else, or broke the protocol.
    #[error("{0}")]
    Foreign(String),
    /// It took too long.
    #[error("{0}")]
    Timeout(String),
    /// The operating system has refused something.
    #[error("{0}")]
    System(String),
}

impl BenchError {
    /// Of sysexits(3).
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::NoInput(_) => exit::NO_INPUT,
            Self::Unreachable { .. } => exit::UNAVAILABLE,
            Self::Refused { .. } => exit::NO_PERMISSION,
            Self::Closed { .. } | Self::Foreign(_) => exit::PROTOCOL,
            Self::Timeout(_) => exit::TRY_AGAIN,
            Self::System(_) => exit::OS,
        }
    }
}

/// What became of an operation on a socket of a connection that stood.
pub(super) fn lost_connection(error: &std::io::Error) -> BenchError {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    match error.kind() {
        TimedOut | WouldBlock => BenchError::Timeout("the broker has not answered in time; it may be blocked".into()),
        _ => BenchError::Foreign(format!("the connection to the broker broke: {error}")),
    }
}
