//! The state of one channel: what it waits for, delivers, confirms (semantics 7).

pub(crate) mod confirms;
pub(crate) mod content;
pub(crate) mod transaction;
pub(crate) mod unacked;

use hashbrown::HashMap;

use self::confirms::Confirms;
use self::content::Content;
use self::transaction::Transaction;
use self::unacked::Unacked;
use super::{PublishMode, SourceId};

/// ```text
/// open ──error──▶ stopping ──driver has cleaned up, close sent──▶ await close-ok ──▶ gone
///   └────channel.close from the client──▶ stopping ──close-ok sent──▶ gone
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Methods are carried out.
    Open,
    /// The driver takes its consumers and unacked messages away; frames are held.
    Stopping,
    /// Everything but close and close-ok is thrown away (semantics 5.18).
    AwaitCloseOk,
}

/// What the channel promises its publishers. A channel has one mode, and keeps it (semantics 14.1, 15.1).
#[derive(Debug, Default)]
pub(crate) enum Mode {
    #[default]
    Plain,
    Confirm(Confirms),
    Tx(Transaction),
}

impl Mode {
    /// Numbers a publish, where publishes have numbers.
    #[inline]
    pub(crate) fn publish(&mut self) -> PublishMode {
        match self {
            Self::Plain => PublishMode::Plain,
            Self::Confirm(confirms) => PublishMode::Confirm(confirms.number()),
            Self::Tx(transaction) => PublishMode::Transaction(transaction.number()),
        }
    }

    /// The last number that was given; 0 for none.
    pub(crate) fn last_number(&self) -> u64 {
        match self {
            Self::Plain => 0,
            Self::Confirm(confirms) => confirms.last(),
            Self::Tx(transaction) => transaction.last(),
        }
    }

    pub(crate) fn confirms(&mut self) -> Option<&mut Confirms> {
        match self {
            Self::Confirm(confirms) => Some(confirms),
            Self::Plain | Self::Tx(_) => None,
        }
    }

    pub(crate) fn transaction(&mut self) -> Option<&mut Transaction> {
        match self {
            Self::Tx(transaction) => Some(transaction),
            Self::Plain | Self::Confirm(_) => None,
        }
    }

    /// Whether tx.commit has not been answered.
    #[inline]
    pub(crate) fn is_committing(&self) -> bool {
        matches!(self, Self::Tx(transaction) if transaction.is_committing())
    }
}

/// A consumer as its channel knows it.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) tag: Box<str>,
    pub(crate) no_ack: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) state: State,
    pub(crate) content: Content,
    pub(crate) unacked: Unacked,
    pub(crate) mode: Mode,
    pub(crate) consumers: HashMap<SourceId, Consumer>,
    pub(crate) tags: HashMap<Box<str>, SourceId>,
    /// The driver is still carrying out a method: what comes behind it is held, so that replies keep their order
    /// (semantics 7.7).
    pub(crate) is_waiting: bool,
    pub(crate) held: Held,
}

impl Channel {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Open,
            content: Content::default(),
            unacked: Unacked::default(),
            mode: Mode::Plain,
            consumers: HashMap::new(),
            tags: HashMap::new(),
            is_waiting: false,
            held: Held::default(),
        }
    }

    /// Whether a new frame must be held: the channel waits, or goes on but has not done what was held before.
    #[inline]
    pub(crate) fn holds_frames(&self) -> bool {
        self.is_waiting || self.held.len() > 0
    }
}

/// Whole frames that wait for an earlier method of their channel.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: Vec<u8>,
    start: usize,
}

impl Held {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
    }

    /// What waits, and how much of the buffer is already done with.
    pub(crate) fn take(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.bytes), std::mem::take(&mut self.start))
    }

    /// The channel waits again: everything from `start` on is still to be done, before what was pushed meanwhile.
    pub(crate) fn put_back(&mut self, bytes: Vec<u8>, start: usize) {
        let newer = std::mem::replace(&mut self.bytes, bytes);
        let newer_start = std::mem::replace(&mut self.start, start);
        self.bytes.extend_from_slice(newer.get(newer_start..).unwrap_or_default());
    }
}
