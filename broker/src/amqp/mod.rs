//! AMQP 0-9-1 without sockets: bytes in, events and bytes out.
//!
//! [`Connection`] is the machine of one connection with all its channels. Whoever drives it feeds bytes, carries out the
//! [`Event`]s that need the broker, and writes what gathers in its out buffer. Time is an argument. The module knows no queue, no
//! vhost, no socket and no runtime; ids that the driver chose ([`SourceId`]) pass through unread.

pub mod channel;
pub mod connection;
pub mod frame;
pub mod handshake;
pub mod heartbeat;
pub mod method;
pub mod out;
pub mod reply_code;
pub mod wire;

#[cfg(test)]
mod tests;

pub use channel::content::{PublishFlags, PublishMode};
pub use channel::unacked::Outstanding;
pub use connection::{Connection, Event, Outcome};
pub use handshake::{Client, Identity, Limits, Tuned};
pub use reply_code::{ProtocolError, ReplyCode, Scope};

/// The number of a channel on its connection; 0 is the connection itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub u16);

/// A consumer, or the basic.get of a channel on a queue: where deliveries come from. The driver chooses the number; it is
/// unique on its connection while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u32);
