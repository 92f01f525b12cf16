//! The reply codes of AMQP 0-9-1 and the error that carries one.
//!
//! A code by itself says whom it closes (semantics 5.15, 5.16): the channel, or the whole connection. The text that a
//! client sees is `NAME - explanation`, cut to 255 bytes (semantics 5.13).

use std::fmt;

use super::method::MethodId;

macro_rules! reply_codes {
    ($($variant:ident = $code:literal $name:literal $scope:ident;)*) => {
        /// A reply code; displays as the specification spells it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ReplyCode {
            $(#[doc = concat!($name, ", closes the ", stringify!($scope), ".")] $variant = $code,)*
        }

        impl ReplyCode {
            /// The name of the specification, such as `NOT_FOUND`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What an error with this code closes (semantics 5.15, 5.16).
            pub fn scope(self) -> Scope {
                match self { $(Self::$variant => Scope::$scope,)* }
            }
        }
    };
}

reply_codes! {
    ContentTooLarge = 311 "CONTENT_TOO_LARGE" Channel;
    NoRoute = 312 "NO_ROUTE" Channel;
    NoConsumers = 313 "NO_CONSUMERS" Channel;
    ConnectionForced = 320 "CONNECTION_FORCED" Connection;
    InvalidPath = 402 "INVALID_PATH" Connection;
    AccessRefused = 403 "ACCESS_REFUSED" Channel;
    NotFound = 404 "NOT_FOUND" Channel;
    ResourceLocked = 405 "RESOURCE_LOCKED" Channel;
    PreconditionFailed = 406 "PRECONDITION_FAILED" Channel;
    FrameError = 501 "FRAME_ERROR" Connection;
    SyntaxError = 502 "SYNTAX_ERROR" Connection;
    CommandInvalid = 503 "COMMAND_INVALID" Connection;
    ChannelError = 504 "CHANNEL_ERROR" Connection;
    UnexpectedFrame = 505 "UNEXPECTED_FRAME" Connection;
    ResourceError = 506 "RESOURCE_ERROR" Connection;
    NotAllowed = 530 "NOT_ALLOWED" Connection;
    NotImplemented = 540 "NOT_IMPLEMENTED" Connection;
    InternalError = 541 "INTERNAL_ERROR" Connection;
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an error closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The channel on which the method came.
    Channel,
    /// The connection with all its channels.
    Connection,
}

/// A fault of the peer (or of the broker, 541) that closes a channel or the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} - {text}")]
pub struct ProtocolError {
    /// Says also whom it closes, see [`ReplyCode::scope`].
    pub code: ReplyCode,
    /// The explanation, without the code's name.
    pub text: String,
    /// The method that failed; none for faults that belong to no method (semantics 5.14).
    pub method: Option<MethodId>,
}

impl ProtocolError {
    /// An error that belongs to no method yet; the channel machine fills in the one that it is working on.
    pub fn new(code: ReplyCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), method: None }
    }

    /// The same error with its method, unless it has one.
    #[must_use]
    pub fn in_method(mut self, method: MethodId) -> Self {
        self.method.get_or_insert(method);
        self
    }

    /// The reply text of the close frame: `NAME - explanation`, at most 255 bytes. A longer one is cut at a character and
    /// ends with three dots, as RabbitMQ's do.
    pub fn reply_text(&self) -> String {
        let mut text = self.to_string();
        if text.len() > SHORT_STRING_BYTES_MAX {
            let kept_max = SHORT_STRING_BYTES_MAX - CUT_MARK.len();
            let end = (0..=kept_max).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
            text.truncate(end);
            text.push_str(CUT_MARK);
        }
        text
    }
}

/// What stands where a reply text goes on.
const CUT_MARK: &str = "...";

/// The length of a short string is one octet (AMQP 0-9-1, section 4.2.5.3).
pub const SHORT_STRING_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_text_is_cut_at_255_bytes_between_characters() {
        let error = ProtocolError::new(ReplyCode::NotFound, "ä".repeat(200));
        let text = error.reply_text();
        assert!(text.starts_with("NOT_FOUND - ä"));
        assert!(text.ends_with("ä..."));
        assert!(text.len() <= 255 && text.len() >= 254);
    }
}
