//! The machine of one connection (semantics 2, 3, 5 to 7).
//!
//! ```text
//! header ─▶ await start-ok ─▶ authenticating* ─▶ await tune-ok ─▶ await open ─▶ opening* ─▶ open
//!    └────────────┴── refused: silence, then the end ──┴────────────┘              │
//!      open ──client closes──▶ stopping* ──close-ok──▶ closed ──▶ ended             │
//!      open ──error──▶ stopping* ──close sent──▶ await close-ok ──▶ ended ◀────────┘
//! ```
//! In the states with a star the driver has work to do and no input is taken. The driver calls [`Connection::next_event`] until
//! it returns nothing, carries out each event before it asks for the next, and answers through the methods below it.

mod channels;
mod closing;
mod deliveries;
mod event;
mod opening;
mod transactions;

pub use self::deliveries::{ChannelGauges, Confirmed, Delivery};
pub use self::event::{Event, Outcome};

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;

use super::channel::confirms::Confirms;
use super::channel::content::{self, Assembled};
use super::channel::transaction::{Committed, Transaction};
use super::channel::{Channel, Consumer, Mode, State as ChannelState};
use super::frame::{self, Frame, FrameKind};
use super::handshake::{self, Client, Identity, Limits};
use super::heartbeat::{Due, Heartbeat};
use super::method::*;
use super::out::OutBuffer;
use super::reply_code::{ProtocolError, ReplyCode};
use super::wire::WireError;
use super::{ChannelId, Outstanding, PublishFlags, SourceId};
use crate::message::{Arriving, Message, Parts};
use crate::metrics::sizes::BodySizes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    AwaitStartOk,
    Authenticating,
    AwaitTuneOk,
    AwaitOpen,
    Opening,
    Open,
    /// The driver cleans up before a close or close-ok is sent.
    Stopping,
    /// close was sent. `is_deaf`: the framing is lost, nothing more can be read.
    AwaitCloseOk {
        until: Instant,
        is_deaf: bool,
    },
    /// The client's close was answered. It closes the socket, or we do when the time is over: threads of a client may
    /// close one connection several times at once, and each of them waits for an answer.
    Closed {
        until: Instant,
    },
    /// Cut without a word when the time is over (semantics 5.12).
    Silent {
        until: Instant,
    },
    /// To be closed once everything is written.
    Ended,
}

/// The frames of one channel that wait for an earlier method may take so much before the socket is left unread.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// Messages that are still arriving may take so much on all channels of a connection together: a client sends few at a time, and one
/// may be as large as 512 MiB.
const ASSEMBLING_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// The list of settled deliveries keeps room for so many between two acks.
const SETTLED_KEEP_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Connection {
    identity: Arc<Identity>,
    limits: Arc<Limits>,
    offers_external: bool,
    state: State,
    handshake_until: Instant,
    frame_max_bytes: u32,
    channel_max: u16,
    heartbeat: Heartbeat,
    heartbeat_secs: u16,
    channels: HashMap<u16, Box<Channel>>,
    client: Client,
    settled: Vec<Outstanding>,
    out: OutBuffer,
    held_bytes: usize,
    /// Kept of messages whose bodies are still arriving, over all channels.
    arriving: Arriving,
    /// A content header or body frame has come since the driver last asked.
    has_content: bool,
    /// Channels that went on and have held frames.
    resumable: Vec<u16>,
    /// Frames that came behind a channel.close whose answer had to wait.
    orphans: Vec<(ChannelId, Vec<u8>, usize)>,
    is_framing_lost: bool,
    /// Channels whose confirms have news.
    confirming: Vec<u16>,
    /// The last number that a publish had on any channel that was closed.
    numbers_base: u64,
    /// An alarm keeps the socket unread.
    is_blocked: bool,
    /// Publishes that were confirmed, for statistics.
    confirmed: Vec<Confirmed>,
    /// How large publishes were, for statistics.
    sizes: BodySizes,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(identity: Arc<Identity>, limits: Arc<Limits>, now: Instant) -> Self {
        Self {
            state: State::Header,
            handshake_until: now + limits.handshake_timeout,
            frame_max_bytes: handshake::FRAME_BYTES_BEFORE_TUNE,
            channel_max: limits.channel_max,
            heartbeat: Heartbeat::off(now),
            heartbeat_secs: limits.heartbeat_secs,
            channels: HashMap::new(),
            client: Client::default(),
            settled: Vec::new(),
            out: OutBuffer::default(),
            held_bytes: 0,
            arriving: Arriving::default(),
            has_content: false,
            resumable: Vec::new(),
            orphans: Vec::new(),
            is_framing_lost: false,
            confirming: Vec::new(),
            numbers_base: 0,
            is_blocked: false,
            confirmed: Vec::new(),
            sizes: BodySizes::default(),
            offers_external: false,
            identity,
            limits,
        }
    }

    /// The client has a verified certificate that names a user. Call it before the first byte.
    pub fn offer_external(&mut self) {
        self.offers_external = true;
    }

    /// What the client said of itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Bytes for the peer.
    pub fn out(&mut self) -> &mut OutBuffer {
        &mut self.out
    }

    /// How many bytes wait to be written.
    pub fn unsent_bytes(&self) -> usize {
        self.out.len()
    }

    /// The connection is over: close the socket once [`Self::out`] is empty.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether open-ok was sent and neither side has begun to close.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether the client has not got as far as open-ok.
    pub fn is_in_handshake(&self) -> bool {
        !matches!(
            self.state,
            State::Open | State::Stopping | State::AwaitCloseOk { .. } | State::Closed { .. } | State::Ended
        )
    }

    /// The client closed the connection and has its answer; nothing but the socket is left of it.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// No more input is taken for now: the driver is busy with an earlier event, or too much is held back.
    pub fn is_saturated(&self) -> bool {
        matches!(self.state, State::Authenticating | State::Opening | State::Stopping)
            || self.held_bytes > HELD_BYTES_MAX
    }

    /// The socket is left unread because of an alarm. One that closes is read: it publishes nothing any more.
    pub fn is_blocked(&self) -> bool {
        self.is_blocked && self.state == State::Open
    }

    /// The client publishes while an alarm is raised: it is told once, if it can hear it (semantics 26.3).
    pub fn block(&mut self, now: Instant, reason: &str) {
        if self.is_blocked || self.state != State::Open {
            return;
        }
        self.is_blocked = true;
        self.heartbeat.set_deaf(now, true);
        if self.client.connection_blocked {
            frame::write_method(self.out.tail(), 0, ConnectionBlocked { reason });
        }
    }

    /// Whether a part of a message has come since this was last asked: the client publishes (semantics 26.2).
    pub fn take_has_content(&mut self) -> bool {
        std::mem::take(&mut self.has_content)
    }

    /// No alarm is raised any more (semantics 26.4).
    pub fn unblock(&mut self, now: Instant) {
        if !std::mem::take(&mut self.is_blocked) {
            return;
        }
        self.heartbeat.set_deaf(now, false);
        if self.client.connection_blocked && self.state == State::Open {
            frame::write_method(self.out.tail(), 0, ConnectionUnblocked {});
        }
    }

    /// Whether a channel still waits for the driver, so that its frames are held.
    pub fn is_waiting(&self, channel: ChannelId) -> bool {
        self.channels.get(&channel.0).is_some_and(|c| c.is_waiting)
    }

    // Input

    /// Takes frames off `input` until one of them needs the driver.
    ///
    /// What is left in `input` when nothing is returned is an incomplete frame, or waits for the driver.
    pub fn next_event<'i>(&mut self, now: Instant, input: &mut &'i [u8]) -> Option<Event<'i>> {
        loop {
            match self.state {
                State::Header => match self.on_header(input) {
                    // Clients may send start-ok right behind the header.
                    None if self.state == State::AwaitStartOk => continue,
                    event => return event,
                },
                State::Authenticating | State::Opening | State::Stopping => return None,
                State::Ended | State::Silent { .. } | State::AwaitCloseOk { is_deaf: true, .. } => {
                    *input = &[];
                    return None;
                }
                _ => {}
            }
            let before = *input;
            let frame = match frame::decode(input, self.frame_max_bytes) {
                Ok(Some(frame)) => frame,
                Ok(None) => return None,
                Err(error) => {
                    *input = &[];
                    return self.fail(now, ChannelId(0), error, Framing::Lost);
                }
            };
            if let Some(event) = self.publish_in_place(frame, input) {
                return Some(event);
            }
            let raw = before.get(..before.len() - input.len()).unwrap_or_default();
            if let Some(event) = self.on_frame(now, frame, raw) {
                return Some(event);
            }
        }
    }

    /// Bytes have arrived.
    pub fn on_received(&mut self, now: Instant) {
        self.heartbeat.on_received(now);
    }

    /// Whether [`Self::on_deadline`] would give the peer up for not being heard of.
    pub fn is_peer_overdue(&self, now: Instant) -> bool {
        matches!(self.state, State::Open | State::Stopping) && self.heartbeat.due(now) == Some(Due::PeerGone)
    }

    /// Bytes have been written.
    pub fn on_sent(&mut self, now: Instant) {
        self.heartbeat.on_sent(now);
    }

    /// When to call [`Self::on_deadline`] at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Open | State::Stopping => self.heartbeat.deadline(),
            State::AwaitCloseOk { until, .. } | State::Closed { until } | State::Silent { until } => Some(until),
            State::Ended => None,
            _ => Some(self.handshake_until),
        }
    }

    /// Time has passed; returns the reason when the connection ends by it.
    pub fn on_deadline(&mut self, now: Instant) -> Option<&'static str> {
        match self.state {
            State::Open | State::Stopping => match self.heartbeat.due(now)? {
                Due::Send => {
                    // Behind bytes that the client does not read, a heartbeat would say nothing and only pile up.
                    if self.out.is_empty() {
                        self.out.tail().extend_from_slice(&frame::HEARTBEAT);
                    }
                    self.heartbeat.on_sent(now);
                    None
                }
                Due::PeerGone => self.end("missed heartbeats from client"),
            },
            State::AwaitCloseOk { until, .. } if now >= until => self.end("the client did not answer connection.close"),
            State::Silent { until } if now >= until => self.end("refused"),
            State::Closed { until } if now >= until => {
                self.state = State::Ended;
                None
            }
            State::AwaitCloseOk { .. } | State::Closed { .. } | State::Silent { .. } | State::Ended => None,
            _ if now >= self.handshake_until => self.end("handshake timeout"),
            _ => None,
        }
    }

    fn end(&mut self, reason: &'static str) -> Option<&'static str> {
        self.state = State::Ended;
        Some(reason)
    }

    fn on_frame<'i>(&mut self, now: Instant, frame: Frame<'i>, raw: &[u8]) -> Option<Event<'i>> {
        match (frame.kind, frame.channel) {
            (FrameKind::Heartbeat, 0) => None,
            (FrameKind::Method, 0) => self.on_connection_method(now, frame.payload),
            (FrameKind::Heartbeat, _) | (_, 0) => {
                self.fail(now, ChannelId(0), frame::unexpected(&frame), Framing::Kept)
            }
            (_, channel) if self.state == State::Open => self.on_channel_frame(now, ChannelId(channel), frame, raw),
            (_, channel) if matches!(self.state, State::AwaitCloseOk { .. } | State::Closed { .. }) => {
                tracing::trace!(channel, "frame behind connection.close thrown away");
                None
            }
            (_, channel) => {
                let text = format!("frame on channel {channel} before connection.open");
                self.fail(now, ChannelId(0), ProtocolError::new(ReplyCode::ChannelError, text), Framing::Kept)
            }
        }
    }
}

/// Whether more frames can be told apart behind an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Kept,
    Lost,
}

fn decode_error(error: MethodError) -> ProtocolError {
    match error {
        MethodError::NoId => ProtocolError::new(ReplyCode::FrameError, error.to_string()),
        MethodError::Unknown(id) => ProtocolError::new(ReplyCode::CommandInvalid, error.to_string()).in_method(id),
        MethodError::Arguments(id, WireError::NotUtf8) => {
            ProtocolError::new(ReplyCode::FrameError, WireError::NotUtf8.to_string()).in_method(id)
        }
        MethodError::Arguments(id, cause @ WireError::Table(_)) => {
            ProtocolError::new(ReplyCode::SyntaxError, cause.to_string()).in_method(id)
        }
        MethodError::Arguments(id, cause) => {
            let text = format!("cannot decode method {}.{}: {cause}", id.class, id.method);
            ProtocolError::new(ReplyCode::FrameError, text).in_method(id)
        }
    }
}
