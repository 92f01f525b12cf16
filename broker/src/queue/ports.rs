//! What a queue takes in and gives out.
//!
//! Inputs and notices are plain data, so that a shell, a test or a simulator can carry them as it likes.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::channel_limit::ChannelLimit;
use super::{Options, Report, SharedCredit};
use crate::message::Message;
use crate::metrics::QueueStats;

/// Where notices go: the mailbox of a connection. Posting never waits.
pub trait Outlet: fmt::Debug + Send + Sync {
    /// Leaves a notice; notices of one queue arrive in order.
    fn post(&self, notice: Notice);

    /// Publishes of so many bytes have left the queue's mailbox (or reached the store): the publisher's credit.
    fn publishes_processed(&self, bytes: usize);
}

/// A queue as others reach it. It may be another node's one day.
pub trait Handle: fmt::Debug + Send + Sync {
    /// Leaves an input; never waits. Inputs of one poster are handled in order.
    fn post(&self, input: Input);

    /// How the queue is, without waiting for it; none for what people do not see as a queue.
    fn report(&self) -> Option<Report> {
        None
    }

    /// What was seen of it over time.
    fn stats(&self) -> Option<&QueueStats> {
        None
    }
}

/// Who holds deliveries: a consumer, or a channel's basic.get. Unique in the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HolderId {
    /// The connection's number.
    pub connection: u64,
    /// The source's number on that connection.
    pub source: u32,
}

/// Where the answer to a request goes.
#[derive(Clone, Debug)]
pub struct ReplyTo {
    /// The connection.
    pub outlet: Arc<dyn Outlet>,
    /// Its channel; comes back with the reply.
    pub channel: u16,
}

/// Where the store has a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// Nowhere; it lives in memory.
    Nowhere,
    /// To stay: it survives a restart.
    Lasting,
    /// To be out of memory: it does not survive a restart (semantics 27.2).
    Paged,
}

/// Where a message stands in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its level of priority; 0 in a queue without priorities (semantics 21.1).
    pub level: u8,
    /// Its place in the level: ascending in publication order. Each level counts for itself, so that neighbours stay neighbours.
    pub seq: u64,
}

/// Neighbouring places of a level that the store knows in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    /// The level; 0 in a queue without priorities.
    pub level: u8,
    /// The first place.
    pub first: u64,
    /// The last, which is part of it.
    pub last: u64,
    /// Not [`Stored::Nowhere`], where it comes out of a queue.
    pub stored: Stored,
}

impl SeqRange {
    /// A single place.
    pub fn one(level: u8, seq: u64, stored: Stored) -> Self {
        Self { level, first: seq, last: seq, stored }
    }

    /// How many places.
    pub fn len(&self) -> usize {
        usize::try_from(self.last + 1 - self.first).unwrap_or(usize::MAX)
    }

    /// Whether there are none, which no range of a queue is.
    pub fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// Adds a place to a list of ranges, extending the last range where it fits.
    #[inline]
    pub fn add(ranges: &mut Vec<Self>, level: u8, seq: u64, stored: Stored) {
        Self::join(ranges, Self::one(level, seq, stored));
    }

    /// Adds a range to a list of ranges, extending the last one where it fits.
    #[inline]
    pub fn join(ranges: &mut Vec<Self>, range: Self) {
        match ranges.last_mut() {
            Some(last) if last.last + 1 == range.first && last.stored == range.stored && last.level == range.level => {
                last.last = range.last;
            }
            _ => ranges.push(range),
        }
    }
}

/// Stored messages that a queue wants back in memory. Answer: [`Input::Loaded`].
#[derive(Debug)]
pub struct Load {
    /// Comes back with the answer.
    pub id: u64,
    /// What, in ascending order, all of one level.
    pub ranges: Vec<SeqRange>,
    /// About so many bytes; at least one message.
    pub bytes_max: usize,
}

/// A message as the store had it.
#[derive(Clone, Debug)]
pub struct LoadedMessage {
    /// Its place in the level that was read.
    pub seq: u64,
    /// When it came to the queue, in milliseconds since the epoch; 0 where the store does not know.
    pub came_ms: u64,
    /// What.
    pub message: Arc<Message>,
}

/// A message that is published to a queue.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// What.
    pub message: Arc<Message>,
    /// The channel that published it.
    pub channel: u16,
    /// Its number for the confirm; 0 when none is wanted.
    pub number: u64,
}

/// Why a message died (semantics 20.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeathReason {
    /// Its time was up (semantics 18).
    Expired,
    /// A consumer rejected it without requeue.
    Rejected,
    /// The queue was too long (semantics 19).
    MaxLength,
    /// It came back too often (semantics 30.2).
    DeliveryLimit,
}

impl DeathReason {
    /// As headers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// A message that died in a queue whose dead messages are wanted elsewhere.
#[derive(Debug)]
pub struct Dead {
    /// What.
    pub message: Arc<Message>,
    /// Why.
    pub reason: DeathReason,
    /// When, in milliseconds since the epoch.
    pub died_ms: u64,
    /// Its place, for the store to forget once whoever gets the message has it; [`Stored::Nowhere`] where the store has nothing of it.
    pub place: SeqRange,
}

/// A new consumer.
#[derive(Debug)]
pub struct NewConsumer {
    /// Who.
    pub holder: HolderId,
    /// Where deliveries go.
    pub outlet: Arc<dyn Outlet>,
    /// Its channel.
    pub channel: u16,
    /// Deliveries are settled when they are handed over (semantics 13.12).
    pub no_ack: bool,
    /// Nobody else may consume (semantics 13.5).
    pub is_exclusive: bool,
    /// Unacked deliveries at most; 0 is no limit (semantics 13.13).
    pub prefetch_count: u16,
    /// Higher is served first (semantics 13.8).
    pub priority: i64,
    /// Bytes that may be on their way to the connection at a time.
    pub credit_bytes: i64,
    /// What it shares with other consumers of the connection beside that.
    pub shared_credit: Option<Arc<SharedCredit>>,
    /// The limit that the channel's consumers share (semantics 13.15).
    pub limit: Option<Arc<ChannelLimit>>,
}

/// What settling does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is done with: acked.
    Remove,
    /// It dies: rejected without requeue (semantics 13.19).
    Reject,
    /// It goes back to its place (semantics 13.20).
    Requeue,
}

/// What happens to a queue.
#[derive(Debug)]
pub enum Input {
    /// Messages from one connection, in order.
    Publish {
        /// Who gets the confirms; none for messages from inside.
        origin: Option<Arc<dyn Outlet>>,
        /// The messages.
        messages: Burst<Incoming>,
    },
    /// basic.consume. Answer: [`Reply::Consuming`] or [`Reply::ExclusiveUse`].
    Consume(NewConsumer),
    /// basic.cancel; unacked deliveries stay. Answer: [`Reply::Cancelled`].
    Cancel {
        /// Who.
        holder: HolderId,
        /// For the answer.
        reply_to: ReplyTo,
    },
    /// basic.get. Answer: [`Reply::Got`] or [`Reply::Empty`].
    Get {
        /// Who will hold the message.
        holder: HolderId,
        /// It is settled at once.
        no_ack: bool,
        /// For the answer.
        reply_to: ReplyTo,
    },
    /// Deliveries are settled, named by their tickets in delivery order.
    Settle {
        /// Who had them.
        holder: HolderId,
        /// Which.
        tickets: Burst<u64>,
        /// How.
        settlement: Settlement,
    },
    /// A channel or connection ends: its consumers go, its unacked messages come back. Answer: [`Reply::Detached`].
    Detach {
        /// All that it had here, so that nothing is handed to one of them that comes back from another.
        holders: Vec<HolderId>,
        /// For the answer.
        reply_to: ReplyTo,
    },
    /// So many bytes of deliveries have been written to the consumer's socket; 0 when there is room again in what it shares.
    Credit {
        /// Who.
        holder: HolderId,
        /// How many.
        bytes: i64,
    },
    /// The consumer's channel has a limit now, or has none any more.
    SetLimit {
        /// Who.
        holder: HolderId,
        /// Which.
        limit: Option<Arc<ChannelLimit>>,
    },
    /// The limit of the consumer's channel has room again, for it and for the channel's other consumers of this queue.
    LimitLifted {
        /// Who.
        holder: HolderId,
    },
    /// Messages that were asked for by a [`Load`].
    Loaded {
        /// Its number.
        id: u64,
        /// The ranges that were asked for have been read up to here; what is missing no longer exists.
        through: u64,
        /// The messages, by ascending place.
        messages: Vec<LoadedMessage>,
    },
    /// The budget has shrunk: messages leave memory until it is kept.
    Shrink,
    /// Policies have changed: what it is told to do from now on.
    Reconfigure(Options),
    /// The time of [`Queue::next_deadline`](super::Queue::next_deadline) has come.
    Tick,
    /// Dead messages of so many bytes have arrived where they were wanted.
    Buried {
        /// As [`Message::weight`] counts.
        bytes: usize,
    },
    /// How full it is. Answer: [`Reply::Status`].
    Status(ReplyTo),
    /// Which messages are next in line, at most so many; nothing changes by it. Answer: [`Reply::Browsed`].
    Browse {
        /// At most.
        count: usize,
        /// For the answer.
        reply_to: ReplyTo,
    },
    /// Throws ready messages away. Answer: [`Reply::Purged`].
    Purge(ReplyTo),
    /// Deletes the queue. Answer: [`Reply::Deleted`], [`Reply::InUse`] or [`Reply::NotEmpty`].
    Delete {
        /// Only without consumers.
        if_unused: bool,
        /// Only without ready messages.
        if_empty: bool,
        /// For the answer, if somebody waits for one.
        reply_to: Option<ReplyTo>,
    },
}

/// What a request is answered with.
#[derive(Debug)]
pub enum Reply {
    /// Ready messages and consumers.
    Status {
        /// Ready messages.
        ready: usize,
        /// Consumers.
        consumers: usize,
    },
    /// The consumer is registered; deliveries follow.
    Consuming,
    /// Another consumer has the queue for itself, or this one wanted to (semantics 13.5).
    ExclusiveUse,
    /// The consumer is gone, or never was.
    Cancelled,
    /// A message for basic.get.
    Got {
        /// Who holds it.
        source: u32,
        /// To settle it with.
        ticket: u64,
        /// It was handed out before.
        redelivered: bool,
        /// What.
        message: Arc<Message>,
        /// Ready messages that are left.
        remaining: usize,
        /// It is settled already.
        no_ack: bool,
    },
    /// No message for basic.get.
    Empty,
    /// The next in line that are in memory, and how many messages are ready in all.
    Browsed {
        /// Each with whether it was handed out before.
        messages: Vec<(Arc<Message>, bool)>,
        /// Ready messages, wherever they are.
        ready: usize,
    },
    /// So many were thrown away.
    Purged(usize),
    /// The queue is gone; it had so many ready messages.
    Deleted(usize),
    /// It has consumers (if-unused).
    InUse,
    /// It has messages (if-empty).
    NotEmpty,
    /// Consumer and unacked messages were taken back.
    Detached,
    /// The queue was deleted before it saw the request.
    Gone,
    /// Everything that was submitted before is stored; the answer of the store, not of a queue.
    Stored,
    /// The store has failed, so nothing can be promised.
    StoreFailed,
}

/// One message for a consumer.
#[derive(Debug)]
pub struct Delivery {
    /// To settle it with.
    pub ticket: u64,
    /// It was handed out before.
    pub redelivered: bool,
    /// What.
    pub message: Arc<Message>,
}

/// What goes between a connection and a queue at a time. Where many queues are busy it is one message most often, which needs no memory of
/// its own.
pub type Burst<T> = SmallVec<[T; 1]>;

/// Publish numbers of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The channel.
    pub channel: u16,
    /// The first.
    pub first: u64,
    /// The last, which is part of it.
    pub last: u64,
}

impl Numbers {
    /// Adds a number to a list of ranges, extending the last range where it fits.
    pub fn add(ranges: &mut Vec<Self>, channel: u16, number: u64) {
        match ranges.last_mut() {
            Some(range) if range.channel == channel && range.last + 1 == number => range.last = number,
            _ => ranges.push(Self { channel, first: number, last: number }),
        }
    }
}

/// What a connection is told.
#[derive(Debug)]
pub enum Notice {
    /// Messages for a consumer, in order.
    Delivered {
        /// Its source number.
        source: u32,
        /// The messages.
        deliveries: Burst<Delivery>,
        /// Their bytes were taken from the connection's [`SharedCredit`].
        takes_shared_credit: bool,
    },
    /// Publishes that a queue or the store has taken responsibility for, or refused.
    Confirmed {
        /// Which.
        numbers: Vec<Numbers>,
        /// Whether they were taken.
        is_taken: bool,
    },
    /// The answer to a request of a channel.
    Reply {
        /// The channel.
        channel: u16,
        /// The answer.
        reply: Reply,
    },
    /// The queue was deleted under a consumer (semantics 13.30).
    ConsumerCancelled {
        /// Its source number.
        source: u32,
        /// The queue is not there any more, so nobody needs to hear what becomes of the deliveries.
        has_queue_ended: bool,
    },
    /// The queue has ended, and somebody who is no consumer has messages of it: nobody needs to hear what becomes of them.
    QueueEnded {
        /// Its source number.
        source: u32,
    },
    /// A delivery has been unacked for too long (semantics 13.29).
    DeliveryTimedOut {
        /// The source number of who holds it.
        source: u32,
        /// The time that it had, in milliseconds.
        timeout_ms: u64,
    },
    /// The limit of a channel has room again and some of its consumers were waiting for that.
    LimitLifted {
        /// The channel.
        channel: u16,
    },
    /// Auth backends have answered what the connection asked.
    Judged,
    /// No alarm is raised any more (semantics 26.4).
    AlarmsCleared,
    /// The broker ends the connection (semantics 5.20).
    CloseConnection {
        /// The reason for the client.
        reason: String,
    },
}
