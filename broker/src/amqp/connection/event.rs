//! What a connection has its driver carry out.

use std::sync::Arc;

use crate::amqp::method::Method;
use crate::amqp::reply_code::ProtocolError;
use crate::amqp::{ChannelId, PublishFlags, PublishMode};
use crate::message::{Message, Parts};

/// What the driver has to carry out.
#[derive(Debug)]
pub enum Event<'i> {
    /// The peer speaks something else; worth a line in the log. The connection has answered and ended.
    WrongProtocol(&'static str),
    /// Check the credentials; answer with [`Connection::authenticated`] or [`Connection::refuse_login`].
    Authenticate {
        /// The SASL mechanism, as the client named it.
        mechanism: &'i str,
        /// Its response, unread.
        response: &'i [u8],
    },
    /// Enter a vhost; answer with [`Connection::opened`], or fail.
    Open {
        /// The name as the client sent it.
        vhost: &'i str,
    },
    /// The client has a new secret, such as a token in place of one that expires: judge it, then [`Connection::secret_updated`], or fail
    /// (semantics 4.12).
    UpdateSecret {
        /// Unread.
        new_secret: &'i [u8],
        /// The client's words, for the log.
        reason: &'i str,
    },
    /// A method that is not the connection's own business.
    Command {
        /// Where to answer.
        channel: ChannelId,
        /// What to do.
        method: Method<'i>,
    },
    /// A whole message.
    Publish {
        /// Where it came from.
        channel: ChannelId,
        /// What the method said.
        flags: PublishFlags,
        /// What the publisher is promised.
        mode: PublishMode,
        /// Names and properties where they stand in the input, when the whole message did. The message has them, too, but it has
        /// just been written, and reading it at once would wait for the caches.
        parts: Option<Parts<'i>>,
        /// Names, properties and body.
        message: Arc<Message>,
    },
    /// Deliveries that the client has settled; which ones stands in [`Connection::settled`].
    Settle {
        /// Where they had been delivered.
        channel: ChannelId,
        /// What is to become of them.
        outcome: Outcome,
    },
    /// tx.commit: publish what was held and settle what stands in [`Connection::take_held_settlements`], and say by
    /// [`Connection::commit`] how many answers that will bring.
    Commit {
        /// Where.
        channel: ChannelId,
    },
    /// tx.rollback: drop what was held. The client has its answer already.
    Rollback {
        /// Where.
        channel: ChannelId,
    },
    /// The client opens a channel: answer with [`Connection::channel_opened`], or fail.
    ChannelOpen {
        /// Which.
        channel: ChannelId,
    },
    /// The client closes a channel: stop its consumers, give its unacked messages back, then [`Connection::close_channel_ok`].
    ChannelClose {
        /// Which.
        channel: ChannelId,
    },
    /// The client closes the connection: stop everything, then [`Connection::close_ok`].
    Close,
    /// The client broke a rule. Channel scope: clean up as for [`Event::ChannelClose`], then [`Connection::close_channel`].
    /// Connection scope: stop everything, then [`Connection::close`].
    Failed {
        /// Where.
        channel: ChannelId,
        /// What.
        error: ProtocolError,
    },
    /// The handshake broke a rule that has no answer on the wire: a reason for the log (semantics 5.12).
    Refused(String),
}

/// What settling does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was processed.
    Ack,
    /// It goes back to its place.
    Requeue,
    /// It is thrown away.
    Discard,
}
