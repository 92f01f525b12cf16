//! The machine of one connection (semantics 2, 3, 5 to 7).
//!
//! ```text
//! header ─▶ await start-ok ─▶ authenticating* ─▶ await tune-ok ─▶ await open ─▶ opening* ─▶ open
//!    └────────────┴── refused: silence, then the end ──┴────────────┘              │
//!      open ──client closes──▶ stopping* ──close-ok──▶ ended                       │
//!      open ──error──▶ stopping* ──close sent──▶ await close-ok ──▶ ended ◀────────┘
//! ```
//! In the states with a star the driver has work to do and no input is taken. The driver calls [`Connection::next_event`] until
//! it returns nothing, carries out each event before it asks for the next, and answers through the methods below it.

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;

use super::channel::confirms::Confirms;
use super::channel::content::{self, Assembled};
use super::channel::{Channel, Consumer, State as ChannelState};
use super::frame::{self, Frame, FrameKind};
use super::handshake::{self, Client, Hello, Identity, Limits};
use super::heartbeat::{Due, Heartbeat};
use super::method::*;
use super::out::OutBuffer;
use super::reply_code::{ProtocolError, ReplyCode, Scope};
use super::wire::WireError;
use super::{ChannelId, Outstanding, PublishFlags, SourceId};
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
    /// A method that is not the connection's own business.
    Command {
        /// Where to answer.
        channel: ChannelId,
        /// What to do.
        method: Method<'i>,
    },
    /// A whole message. `number` is set on a channel in confirm mode; it is unique on its connection and channel number.
    Publish {
        /// Where it came from.
        channel: ChannelId,
        /// What the method said.
        flags: PublishFlags,
        /// Its number for [`Connection::expect_confirms`] and [`Connection::confirm`].
        number: Option<u64>,
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
    assembling_bytes: usize,
    /// Channels that went on and have held frames.
    resumable: Vec<u16>,
    /// Frames that came behind a channel.close whose answer had to wait.
    orphans: Vec<(ChannelId, Vec<u8>, usize)>,
    is_framing_lost: bool,
    /// Channels whose confirms have news.
    confirming: Vec<u16>,
    /// The last number for confirms of any channel that was closed.
    confirms_base: u64,
    /// An alarm keeps the socket unread.
    is_blocked: bool,
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
            assembling_bytes: 0,
            resumable: Vec::new(),
            orphans: Vec::new(),
            is_framing_lost: false,
            confirming: Vec::new(),
            confirms_base: 0,
            is_blocked: false,
            identity,
            limits,
        }
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
        !matches!(self.state, State::Open | State::Stopping | State::AwaitCloseOk { .. } | State::Ended)
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

    /// Numbers of the open channels.
    pub fn channel_ids(&self) -> Vec<ChannelId> {
        self.channels.keys().copied().map(ChannelId).collect()
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
            State::AwaitCloseOk { until, .. } | State::Silent { until } => Some(until),
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
            State::AwaitCloseOk { .. } | State::Silent { .. } | State::Ended => None,
            _ if now >= self.handshake_until => self.end("handshake timeout"),
            _ => None,
        }
    }

    fn end(&mut self, reason: &'static str) -> Option<&'static str> {
        self.state = State::Ended;
        Some(reason)
    }

    fn on_header<'i>(&mut self, input: &mut &'i [u8]) -> Option<Event<'i>> {
        let (&bytes, rest) = input.split_first_chunk::<8>()?;
        *input = rest;
        match handshake::hello(bytes) {
            Hello::Amqp { version_minor } => {
                let server_properties = self.identity.server_properties();
                let start = ConnectionStart {
                    version_major: 0,
                    version_minor,
                    server_properties: plugin_api::value::TableRef::new(&server_properties),
                    mechanisms: self.identity.mechanisms.as_bytes(),
                    locales: b"en_US",
                };
                frame::write_method(self.out.tail(), 0, start);
                self.state = State::AwaitStartOk;
                None
            }
            Hello::Other(what) => {
                self.out.tail().extend_from_slice(&handshake::PROTOCOL_HEADER);
                self.state = State::Ended;
                *input = &[];
                Some(Event::WrongProtocol(what))
            }
        }
    }

    fn on_frame<'i>(&mut self, now: Instant, frame: Frame<'i>, raw: &[u8]) -> Option<Event<'i>> {
        match (frame.kind, frame.channel) {
            (FrameKind::Heartbeat, 0) => None,
            (FrameKind::Method, 0) => self.on_connection_method(now, frame.payload),
            (FrameKind::Heartbeat, _) | (_, 0) => {
                let text = format!("unexpected frame of type {} on channel {}", frame.kind as u8, frame.channel);
                let error = ProtocolError::new(ReplyCode::UnexpectedFrame, text);
                self.fail(now, ChannelId(0), error, Framing::Kept)
            }
            (_, channel) if self.state == State::Open => self.on_channel_frame(now, ChannelId(channel), frame, raw),
            (_, channel) if matches!(self.state, State::AwaitCloseOk { .. }) => {
                tracing::trace!(channel, "frame behind connection.close thrown away");
                None
            }
            (_, channel) => {
                let text = format!("frame on channel {channel} before connection.open");
                self.fail(now, ChannelId(0), ProtocolError::new(ReplyCode::ChannelError, text), Framing::Kept)
            }
        }
    }

    /// Ends the connection over a broken rule: by the driver's clean-up and a close frame when it is open, in silence before.
    fn fail<'i>(
        &mut self,
        now: Instant,
        channel: ChannelId,
        error: ProtocolError,
        framing: Framing,
    ) -> Option<Event<'i>> {
        match self.state {
            State::Open if error.code.scope() == Scope::Channel && channel.0 != 0 => {
                self.stop_channel(channel);
                Some(Event::Failed { channel, error })
            }
            State::Open => {
                self.state = State::Stopping;
                self.is_framing_lost = framing == Framing::Lost;
                Some(Event::Failed { channel: ChannelId(0), error })
            }
            // Our close is on its way, whatever else the peer says.
            State::AwaitCloseOk { until, .. } => {
                self.state = State::AwaitCloseOk { until, is_deaf: framing == Framing::Lost };
                None
            }
            _ => {
                self.state = State::Silent { until: now + handshake::SILENCE };
                Some(Event::Refused(error.to_string()))
            }
        }
    }

    // Channel 0

    fn on_connection_method<'i>(&mut self, now: Instant, payload: &'i [u8]) -> Option<Event<'i>> {
        let method = match Method::decode(payload) {
            Ok(method) => method,
            Err(error) => return self.fail(now, ChannelId(0), decode_error(error), Framing::Kept),
        };
        match (self.state, method) {
            (State::AwaitStartOk, Method::ConnectionStartOk(start_ok)) => {
                self.client = Client::from_properties(start_ok.client_properties);
                self.state = State::Authenticating;
                Some(Event::Authenticate { mechanism: start_ok.mechanism, response: start_ok.response })
            }
            (State::AwaitTuneOk, Method::ConnectionTuneOk(tune_ok)) => self.on_tune_ok(now, tune_ok),
            (State::AwaitOpen, Method::ConnectionOpen(open)) => {
                self.state = State::Opening;
                Some(Event::Open { vhost: open.virtual_host })
            }
            (State::AwaitCloseOk { .. }, Method::ConnectionCloseOk(_)) => {
                self.state = State::Ended;
                None
            }
            // Both sides closed at once: answer, and go on waiting for the answer to ours (semantics 3.16).
            (State::AwaitCloseOk { .. }, Method::ConnectionClose(_)) => {
                frame::write_method(self.out.tail(), 0, ConnectionCloseOk {});
                None
            }
            (State::AwaitCloseOk { .. }, _) => None,
            (State::Open, Method::ConnectionClose(_)) => {
                self.state = State::Stopping;
                Some(Event::Close)
            }
            (_, Method::ConnectionClose(_)) => {
                frame::write_method(self.out.tail(), 0, ConnectionCloseOk {});
                self.state = State::Ended;
                None
            }
            (State::Open, Method::ConnectionUpdateSecret(_)) => {
                // Backends whose credentials do not expire ignore the new one (semantics 4.12).
                frame::write_method(self.out.tail(), 0, ConnectionUpdateSecretOk {});
                None
            }
            (state, method) => {
                let text = format!("unexpected method in connection state {}", state_name(state));
                let error = ProtocolError::new(ReplyCode::ChannelError, text).in_method(method.id());
                self.fail(now, ChannelId(0), error, Framing::Kept)
            }
        }
    }

    fn on_tune_ok<'i>(&mut self, now: Instant, tune_ok: ConnectionTuneOk) -> Option<Event<'i>> {
        if let Err(error) = handshake::check_tune(&self.limits, &tune_ok) {
            // This one has an answer although the connection is not open (semantics 5.2).
            let error = error.in_method(ConnectionTune::ID);
            let reason = error.to_string();
            self.close(now, &error);
            return Some(Event::Refused(reason));
        }
        self.frame_max_bytes = tune_ok.frame_max;
        self.channel_max = tune_ok.channel_max;
        self.heartbeat_secs = tune_ok.heartbeat;
        self.state = State::AwaitOpen;
        None
    }

    /// The credentials are good.
    pub fn authenticated(&mut self) {
        if self.state != State::Authenticating {
            return;
        }
        let tune = ConnectionTune {
            channel_max: self.limits.channel_max,
            frame_max: self.limits.frame_max_bytes,
            heartbeat: self.limits.heartbeat_secs,
        };
        frame::write_method(self.out.tail(), 0, tune);
        self.state = State::AwaitTuneOk;
    }

    /// The credentials are not good: a close frame for clients that understand it, and silence (semantics 4.6, 4.7).
    pub fn refuse_login(&mut self, now: Instant, mechanism: &str) {
        if self.client.authentication_failure_close {
            let text = format!(
                "ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
            );
            let close = ConnectionClose {
                reply_code: ReplyCode::AccessRefused as u16,
                reply_text: &text,
                class_id: 0,
                method_id: 0,
            };
            frame::write_method(self.out.tail(), 0, close);
            self.state = State::AwaitCloseOk { until: now + handshake::SILENCE, is_deaf: false };
        } else {
            self.refuse_silently(now);
        }
    }

    /// The handshake cannot go on and the wire has no word for it (semantics 5.12).
    pub fn refuse_silently(&mut self, now: Instant) {
        self.state = State::Silent { until: now + handshake::SILENCE };
    }

    /// The vhost was entered.
    pub fn opened(&mut self, now: Instant) {
        if self.state != State::Opening {
            return;
        }
        frame::write_method(self.out.tail(), 0, ConnectionOpenOk { known_hosts: "" });
        self.state = State::Open;
        self.heartbeat.start(now, self.heartbeat_secs);
    }

    /// Everything is stopped: answer the client's close, and end.
    pub fn close_ok(&mut self) {
        frame::write_method(self.out.tail(), 0, ConnectionCloseOk {});
        self.channels.clear();
        self.state = State::Ended;
    }

    /// Sends connection.close and waits for the answer, but not for ever (semantics 3.15).
    pub fn close(&mut self, now: Instant, error: &ProtocolError) {
        if matches!(self.state, State::AwaitCloseOk { .. } | State::Silent { .. } | State::Ended) {
            return;
        }
        let text = error.reply_text();
        let method = error.method.unwrap_or(NO_METHOD);
        let close = ConnectionClose {
            reply_code: error.code as u16,
            reply_text: &text,
            class_id: method.class,
            method_id: method.method,
        };
        frame::write_method(self.out.tail(), 0, close);
        self.channels.clear();
        self.held_bytes = 0;
        let is_deaf = self.is_framing_lost;
        let heartbeat = std::time::Duration::from_secs(u64::from(self.heartbeat_secs));
        let wait =
            if is_deaf || heartbeat.is_zero() { handshake::SILENCE } else { heartbeat.min(handshake::CLOSE_WAIT_MAX) };
        self.state = State::AwaitCloseOk { until: now + wait, is_deaf };
    }

    /// The driver failed an event of the whole connection, such as an open.
    pub fn stop(&mut self) {
        if matches!(self.state, State::Open | State::Opening) {
            self.state = State::Stopping;
        }
    }

    // Channels

    fn on_channel_frame<'i>(&mut self, now: Instant, id: ChannelId, frame: Frame<'i>, raw: &[u8]) -> Option<Event<'i>> {
        let Some(channel) = self.channels.get_mut(&id.0) else {
            // The channel.open of this number may still be among the frames that were held.
            if let Some((_, bytes, _)) = self.orphans.iter_mut().find(|(orphan, ..)| *orphan == id) {
                bytes.extend_from_slice(raw);
                self.held_bytes += raw.len();
                return None;
            }
            return self.on_new_channel(now, id, frame);
        };
        if channel.holds_frames() {
            channel.held.push(raw);
            self.held_bytes += raw.len();
            return None;
        }
        if channel.state == ChannelState::AwaitCloseOk {
            self.on_frame_of_closing_channel(id, frame);
            return None;
        }
        let kept_before = channel.content.kept_bytes();
        let result = match frame.kind {
            FrameKind::Method => return self.on_channel_method(now, id, frame.payload),
            FrameKind::Header => channel.content.header(frame.payload, self.limits.message_bytes_max),
            // Heartbeats on a channel were refused before.
            FrameKind::Body | FrameKind::Heartbeat => channel.content.body(frame.payload),
        };
        self.assembling_bytes = self.assembling_bytes + channel.content.kept_bytes() - kept_before;
        match result {
            Ok(None) if self.assembling_bytes > ASSEMBLING_BYTES_MAX => {
                let text = format!("more than {ASSEMBLING_BYTES_MAX} bytes of unfinished messages");
                let error = ProtocolError::new(ReplyCode::ResourceError, text).in_method(BasicPublish::ID);
                self.fail(now, ChannelId(0), error, Framing::Kept)
            }
            Ok(None) => None,
            Ok(Some(Assembled::Message(flags, message))) => {
                let number = channel.confirms.as_mut().map(|confirms| confirms.number());
                Some(Event::Publish { channel: id, flags, number, parts: None, message })
            }
            Ok(Some(Assembled::TooLarge { flags: PublishFlags { immediate: true, .. }, .. })) => {
                // Judged before the size (semantics 12.1).
                let error = ProtocolError::new(ReplyCode::NotImplemented, "immediate=true").in_method(BasicPublish::ID);
                self.fail(now, id, error, Framing::Kept)
            }
            Ok(Some(Assembled::TooLarge { body_bytes, .. })) => {
                let text = format!(
                    "message size {body_bytes} is larger than configured max size {}",
                    self.limits.message_bytes_max
                );
                let error = ProtocolError::new(ReplyCode::PreconditionFailed, text).in_method(BasicPublish::ID);
                self.fail(now, id, error, Framing::Kept)
            }
            Err(error) => self.fail(now, id, error, Framing::Kept),
        }
    }

    /// The common publish: method, header and one body frame stand behind each other in the input. Everything else, and everything
    /// that is wrong, takes the way frame by frame.
    #[inline]
    fn publish_in_place<'i>(&mut self, frame: Frame<'i>, input: &mut &'i [u8]) -> Option<Event<'i>> {
        if frame.kind != FrameKind::Method || !BasicPublish::is(frame.payload) || self.state != State::Open {
            return None;
        }
        let channel = self.channels.get_mut(&frame.channel)?;
        if channel.holds_frames() || channel.state != ChannelState::Open {
            return None;
        }
        let mut rest = *input;
        let next = |rest: &mut &'i [u8]| {
            frame::decode(rest, self.frame_max_bytes).ok().flatten().filter(|next| next.channel == frame.channel)
        };
        let header = next(&mut rest).filter(|header| header.kind == FrameKind::Header)?;
        let (total, properties) = content::split_header(header.payload, self.limits.message_bytes_max)?;
        let body = match total {
            0 => &[][..],
            _ => next(&mut rest).filter(|body| body.kind == FrameKind::Body)?.payload,
        };
        if body.len() != total {
            return None;
        }
        let Ok(Method::BasicPublish(publish)) = Method::decode(frame.payload) else { return None };
        let flags = channel.content.begin_in_place(&publish)?;
        let parts = Parts { exchange: publish.exchange, routing_key: publish.routing_key, properties };
        let number = channel.confirms.as_mut().map(|confirms| confirms.number());
        *input = rest;
        let message = Message::new(parts, body);
        Some(Event::Publish { channel: ChannelId(frame.channel), flags, number, parts: Some(parts), message })
    }

    fn on_new_channel<'i>(&mut self, now: Instant, id: ChannelId, frame: Frame<'i>) -> Option<Event<'i>> {
        let is_open =
            frame.kind == FrameKind::Method && matches!(Method::decode(frame.payload), Ok(Method::ChannelOpen(_)));
        if !is_open {
            let method = match Method::decode(frame.payload) {
                Ok(method) if frame.kind == FrameKind::Method => method.id(),
                _ => NO_METHOD,
            };
            let error = ProtocolError::new(ReplyCode::ChannelError, "expected 'channel.open'").in_method(method);
            return self.fail(now, id, error, Framing::Kept);
        }
        if self.channel_max != 0 && self.channels.len() >= usize::from(self.channel_max) {
            let text = format!(
                "number of channels opened ({}) has reached the negotiated channel_max ({})",
                self.channels.len(),
                self.channel_max
            );
            let error = ProtocolError::new(ReplyCode::NotAllowed, text).in_method(ChannelOpen::ID);
            return self.fail(now, id, error, Framing::Kept);
        }
        self.channels.insert(id.0, Box::new(Channel::new()));
        frame::write_method(self.out.tail(), id.0, ChannelOpenOk { channel_id: b"" });
        None
    }

    fn on_frame_of_closing_channel(&mut self, id: ChannelId, frame: Frame<'_>) {
        if frame.kind != FrameKind::Method {
            return;
        }
        match Method::decode(frame.payload) {
            Ok(Method::ChannelCloseOk(_)) => {
                self.channels.remove(&id.0);
            }
            Ok(Method::ChannelClose(_)) => frame::write_method(self.out.tail(), id.0, ChannelCloseOk {}),
            _ => {}
        }
    }

    fn on_channel_method<'i>(&mut self, now: Instant, id: ChannelId, payload: &'i [u8]) -> Option<Event<'i>> {
        let channel = self.channels.get_mut(&id.0)?;
        let method = match Method::decode(payload) {
            Ok(method) => method,
            Err(error) => return self.fail(now, id, decode_error(error), Framing::Kept),
        };
        if let Some(error) = channel.content.refuse_method() {
            return self.fail(now, id, error, Framing::Kept);
        }
        let outcome_of = |requeue| if requeue { Outcome::Requeue } else { Outcome::Discard };
        match method {
            Method::BasicPublish(publish) => {
                channel.content.begin(&publish);
                None
            }
            Method::BasicAck(ack) => self.on_settle(now, id, &method, ack.delivery_tag, ack.multiple, Outcome::Ack),
            Method::BasicNack(nack) => {
                self.on_settle(now, id, &method, nack.delivery_tag, nack.multiple, outcome_of(nack.requeue))
            }
            Method::BasicReject(reject) => {
                self.on_settle(now, id, &method, reject.delivery_tag, false, outcome_of(reject.requeue))
            }
            Method::ConfirmSelect(select) => {
                channel.confirms.get_or_insert_with(|| Confirms::after(self.confirms_base));
                if !select.nowait {
                    frame::write_method(self.out.tail(), id.0, ConfirmSelectOk {});
                }
                None
            }
            Method::ChannelClose(_) => {
                self.stop_channel(id);
                Some(Event::ChannelClose { channel: id })
            }
            Method::ChannelFlow(ChannelFlow { active: true }) => {
                frame::write_method(self.out.tail(), id.0, ChannelFlowOk { active: true });
                None
            }
            Method::AccessRequest(_) => {
                frame::write_method(self.out.tail(), id.0, AccessRequestOk { ticket: 1 });
                None
            }
            Method::ChannelFlowOk(_) | Method::ChannelCloseOk(_) => None,
            other => match refusal(&other) {
                Some(error) => self.fail(now, id, error.in_method(other.id()), Framing::Kept),
                None => Some(Event::Command { channel: id, method: other }),
            },
        }
    }

    fn on_settle<'i>(
        &mut self,
        now: Instant,
        id: ChannelId,
        method: &Method<'i>,
        tag: u64,
        multiple: bool,
        outcome: Outcome,
    ) -> Option<Event<'i>> {
        let channel = self.channels.get_mut(&id.0)?;
        self.settled.clear();
        self.settled.shrink_to(SETTLED_KEEP_MAX);
        match channel.unacked.settle(tag, multiple, &mut self.settled) {
            Ok(()) if self.settled.is_empty() => None,
            Ok(()) => Some(Event::Settle { channel: id, outcome }),
            Err(error) => self.fail(now, id, error.in_method(method.id()), Framing::Kept),
        }
    }

    /// The deliveries of the last [`Event::Settle`], in delivery order.
    pub fn settled(&self) -> &[Outstanding] {
        &self.settled
    }

    /// Takes every unacked delivery of a channel into [`Self::settled`]: basic.recover, in delivery order.
    pub fn recover(&mut self, id: ChannelId) {
        self.settled.clear();
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.unacked.drain(&mut self.settled);
        }
    }

    /// Holds a channel's frames until [`Self::resume`]: the driver is carrying a method out.
    pub fn wait(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.is_waiting = true;
        }
    }

    /// The method is carried out; frames that were held can be taken with [`Self::take_held`].
    pub fn resume(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id.0)
            && std::mem::take(&mut channel.is_waiting)
            && channel.held.len() > 0
        {
            self.resumable.push(id.0);
        }
    }

    /// Held frames of a channel that goes on, and how many bytes at their front are done with. To be fed to [`Self::next_event`]; when
    /// the channel waits again or the driver stops, the rest goes back by [`Self::put_back`].
    pub fn take_held(&mut self) -> Option<(ChannelId, Vec<u8>, usize)> {
        if self.state == State::Stopping {
            return None;
        }
        loop {
            if let Some((id, bytes, start)) = self.orphans.pop() {
                self.held_bytes = self.held_bytes.saturating_sub(bytes.len() - start);
                return Some((id, bytes, start));
            }
            let id = self.resumable.pop()?;
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            if channel.is_waiting || channel.held.len() == 0 {
                continue;
            }
            self.held_bytes = self.held_bytes.saturating_sub(channel.held.len());
            let (bytes, start) = channel.held.take();
            return Some((ChannelId(id), bytes, start));
        }
    }

    /// See [`Self::take_held`].
    pub fn put_back(&mut self, id: ChannelId, bytes: Vec<u8>, start: usize) {
        self.held_bytes += bytes.len() - start;
        match self.channels.get_mut(&id.0) {
            Some(channel) => {
                channel.held.put_back(bytes, start);
                if !channel.is_waiting {
                    self.resumable.push(id.0);
                }
            }
            None => self.orphans.push((id, bytes, start)),
        }
    }

    fn stop_channel(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.state = ChannelState::Stopping;
            channel.is_waiting = true;
        }
    }

    /// The driver failed a method: the channel holds its frames until [`Self::close_channel`].
    pub fn stop_failed_channel(&mut self, id: ChannelId) {
        self.stop_channel(id);
    }

    /// Everything of the channel is stopped: tell the client why (semantics 5.19).
    pub fn close_channel(&mut self, id: ChannelId, error: &ProtocolError) {
        let Some(channel) = self.channels.get_mut(&id.0) else { return };
        // What was confirmed or refused before the error is said before it.
        if let Some(confirms) = &mut channel.confirms {
            confirms.flush(id, self.out.tail());
            self.confirms_base = self.confirms_base.max(confirms.last());
        }
        let (text, method) = (error.reply_text(), error.method.unwrap_or(NO_METHOD));
        let close = ChannelClose {
            reply_code: error.code as u16,
            reply_text: &text,
            class_id: method.class,
            method_id: method.method,
        };
        frame::write_method(self.out.tail(), id.0, close);
        self.assembling_bytes -= channel.content.kept_bytes();
        let mut closed = Channel::new();
        closed.state = ChannelState::AwaitCloseOk;
        closed.held = std::mem::take(&mut channel.held);
        closed.is_waiting = true;
        **channel = closed;
        self.resume(id);
    }

    /// Everything of the channel is stopped: its number may be used again (semantics 7.4).
    pub fn close_channel_ok(&mut self, id: ChannelId) {
        let Some(mut channel) = self.channels.remove(&id.0) else { return };
        self.assembling_bytes -= channel.content.kept_bytes();
        if let Some(confirms) = &mut channel.confirms {
            confirms.flush(id, self.out.tail());
            self.confirms_base = self.confirms_base.max(confirms.last());
        }
        frame::write_method(self.out.tail(), id.0, ChannelCloseOk {});
        if channel.held.len() > 0 {
            // A client that did not wait for close-ok; what it sent belongs to a new channel of this number.
            let (bytes, start) = channel.held.take();
            self.orphans.push((id, bytes, start));
        }
    }

    // Consumers and deliveries

    /// Whether a consumer tag is taken on a channel.
    pub fn has_consumer(&self, id: ChannelId, tag: &str) -> bool {
        self.channels.get(&id.0).is_some_and(|channel| channel.tags.contains_key(tag))
    }

    /// The source behind a consumer tag.
    pub fn consumer_source(&self, id: ChannelId, tag: &str) -> Option<SourceId> {
        self.channels.get(&id.0)?.tags.get(tag).copied()
    }

    /// Registers a consumer before its first delivery.
    pub fn add_consumer(&mut self, id: ChannelId, source: SourceId, tag: &str, no_ack: bool) {
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.tags.insert(tag.into(), source);
            channel.consumers.insert(source, Consumer { tag: tag.into(), no_ack });
        }
    }

    /// Forgets a consumer; returns its tag.
    pub fn remove_consumer(&mut self, id: ChannelId, source: SourceId) -> Option<Box<str>> {
        let channel = self.channels.get_mut(&id.0)?;
        let consumer = channel.consumers.remove(&source)?;
        channel.tags.remove(&consumer.tag);
        Some(consumer.tag)
    }

    /// Writes a method to a channel.
    pub fn send<'m>(&mut self, id: ChannelId, method: impl Into<Method<'m>>) {
        frame::write_method(self.out.tail(), id.0, method);
    }

    /// Writes deliveries of one consumer; returns whether the client had it still (else the driver drops them: the queue takes
    /// them back with the consumer).
    pub fn deliver<'m>(
        &mut self,
        id: ChannelId,
        source: SourceId,
        deliveries: impl Iterator<Item = Delivery<'m>>,
    ) -> bool {
        let Some(channel) = self.channels.get_mut(&id.0) else { return false };
        let Some(consumer) = channel.consumers.get(&source) else { return false };
        for delivery in deliveries {
            let outstanding = (!consumer.no_ack).then_some(Outstanding { source, ticket: delivery.ticket });
            let delivery_tag = channel.unacked.tag(outstanding);
            frame::write(self.out.tail(), FrameKind::Method, id.0, |out| {
                encode_deliver(out, &consumer.tag, delivery_tag, &delivery);
            });
            write_content(&mut self.out, id, delivery.message, self.frame_max_bytes);
        }
        true
    }

    /// Answers basic.get with a message. `outstanding` is none with no-ack.
    pub fn get_ok(
        &mut self,
        id: ChannelId,
        outstanding: Option<Outstanding>,
        redelivered: bool,
        message_count: u32,
        message: &Arc<Message>,
    ) {
        let Some(channel) = self.channels.get_mut(&id.0) else { return };
        let get_ok = BasicGetOk {
            delivery_tag: channel.unacked.tag(outstanding),
            redelivered,
            exchange: message.exchange(),
            routing_key: message.routing_key(),
            message_count,
        };
        frame::write_method(self.out.tail(), id.0, get_ok);
        write_content(&mut self.out, id, message, self.frame_max_bytes);
    }

    /// Hands an unroutable mandatory message back (semantics 12.7).
    pub fn return_message(&mut self, id: ChannelId, code: ReplyCode, message: &Arc<Message>) {
        let method = BasicReturn {
            reply_code: code as u16,
            reply_text: code.name(),
            exchange: message.exchange(),
            routing_key: message.routing_key(),
        };
        frame::write_method(self.out.tail(), id.0, method);
        write_content(&mut self.out, id, message, self.frame_max_bytes);
    }

    /// How many deliveries of a channel wait to be settled.
    pub fn unacked_count(&self, id: ChannelId) -> usize {
        self.channels.get(&id.0).map_or(0, |channel| channel.unacked.len())
    }

    // Confirms

    /// A publish went to so many queues; each will answer.
    pub fn expect_confirms(&mut self, id: ChannelId, number: u64, queue_count: u32) {
        self.with_confirms(id, |confirms| confirms.expect(number, queue_count));
    }

    /// A queue has taken the messages with these numbers, or refused them.
    pub fn confirm(&mut self, id: ChannelId, numbers: std::ops::RangeInclusive<u64>, is_taken: bool) {
        self.with_confirms(id, |confirms| {
            for number in numbers {
                confirms.answer(number, is_taken);
            }
        });
    }

    fn with_confirms(&mut self, id: ChannelId, change: impl FnOnce(&mut Confirms)) {
        let Some(confirms) = self.channels.get_mut(&id.0).and_then(|channel| channel.confirms.as_mut()) else { return };
        let had_answers = confirms.has_answers();
        change(confirms);
        if !had_answers && confirms.has_answers() {
            self.confirming.push(id.0);
        }
    }

    /// Writes the confirms that this turn brought.
    pub fn flush_confirms(&mut self) {
        for id in std::mem::take(&mut self.confirming) {
            if let Some(confirms) = self.channels.get_mut(&id).and_then(|channel| channel.confirms.as_mut()) {
                confirms.flush(ChannelId(id), self.out.tail());
            }
        }
    }
}

/// A message on its way to a consumer.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'m> {
    /// The queue's number for it, see [`Outstanding`].
    pub ticket: u64,
    /// It was handed out before.
    pub redelivered: bool,
    /// What.
    pub message: &'m Arc<Message>,
}

/// Whether more frames can be told apart behind an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Kept,
    Lost,
}

/// Class and method of a close that belongs to no method (semantics 5.14).
const NO_METHOD: MethodId = MethodId { class: 0, method: 0 };

/// The payload of basic.deliver, straight from the message's bytes: the one method that is written per message.
#[inline]
fn encode_deliver(out: &mut Vec<u8>, consumer_tag: &str, delivery_tag: u64, delivery: &Delivery<'_>) {
    let short_string = |out: &mut Vec<u8>, bytes: &[u8]| {
        // Tags and names are short strings, so their length fits.
        out.push(bytes.len() as u8);
        out.extend_from_slice(bytes);
    };
    let (exchange, routing_key) = delivery.message.raw_names();
    out.extend_from_slice(&BasicDeliver::PREFIX);
    short_string(out, consumer_tag.as_bytes());
    out.extend_from_slice(&delivery_tag.to_be_bytes());
    out.push(u8::from(delivery.redelivered));
    short_string(out, exchange);
    short_string(out, routing_key);
}

/// Header and body frames of a message.
fn write_content(out: &mut OutBuffer, channel: ChannelId, message: &Arc<Message>, frame_max_bytes: u32) {
    let body = message.body();
    let tail = out.tail();
    frame::write(tail, FrameKind::Header, channel.0, |tail| {
        tail.extend_from_slice(&[0, 60, 0, 0]);
        tail.extend_from_slice(&(body.len() as u64).to_be_bytes());
        tail.extend_from_slice(message.properties().raw());
    });
    let piece_bytes_max = match frame_max_bytes as usize {
        0 => usize::MAX,
        limit => limit - frame::OVERHEAD_BYTES,
    };
    if body.len() < super::out::BORROW_BYTES_MIN {
        for piece in body.chunks(piece_bytes_max) {
            frame::write(tail, FrameKind::Body, channel.0, |tail| tail.extend_from_slice(piece));
        }
        return;
    }
    let mut start = 0;
    while start < body.len() {
        let end = body.len().min(start.saturating_add(piece_bytes_max));
        let [high, low] = channel.0.to_be_bytes();
        let tail = out.tail();
        tail.extend_from_slice(&[FrameKind::Body as u8, high, low]);
        tail.extend_from_slice(&((end - start) as u32).to_be_bytes());
        out.push_body(message, start..end);
        out.tail().push(frame::END);
        start = end;
    }
}

fn decode_error(error: MethodError) -> ProtocolError {
    match error {
        MethodError::NoId => ProtocolError::new(ReplyCode::FrameError, error.to_string()),
        MethodError::Unknown(id) => ProtocolError::new(ReplyCode::CommandInvalid, error.to_string()).in_method(id),
        MethodError::Arguments(id, WireError::NotUtf8) => {
            ProtocolError::new(ReplyCode::FrameError, WireError::NotUtf8.to_string()).in_method(id)
        }
        MethodError::Arguments(id, WireError::Table) => {
            ProtocolError::new(ReplyCode::SyntaxError, WireError::Table.to_string()).in_method(id)
        }
        MethodError::Arguments(id, cause) => {
            let text = format!("cannot decode method {}.{}: {cause}", id.class, id.method);
            ProtocolError::new(ReplyCode::FrameError, text).in_method(id)
        }
    }
}

/// Why a method is refused whatever its arguments; none when the driver carries it out.
fn refusal(method: &Method<'_>) -> Option<ProtocolError> {
    Some(match method {
        Method::ChannelOpen(_) => ProtocolError::new(ReplyCode::ChannelError, "second 'channel.open' seen"),
        Method::ChannelFlow(_) => ProtocolError::new(ReplyCode::NotImplemented, "active=false"),
        Method::TxSelect(_) | Method::TxCommit(_) | Method::TxRollback(_) => {
            ProtocolError::new(ReplyCode::NotImplemented, "transactions are not supported by this version")
        }
        Method::ExchangeDeclare(_)
        | Method::ExchangeDelete(_)
        | Method::ExchangeBind(_)
        | Method::ExchangeUnbind(_)
        | Method::QueueDeclare(_)
        | Method::QueueBind(_)
        | Method::QueuePurge(_)
        | Method::QueueDelete(_)
        | Method::QueueUnbind(_)
        | Method::BasicQos(_)
        | Method::BasicConsume(_)
        | Method::BasicCancel(_)
        | Method::BasicCancelOk(_)
        | Method::BasicGet(_)
        | Method::BasicRecover(_)
        | Method::BasicRecoverAsync(_) => return None,
        _ => ProtocolError::new(ReplyCode::CommandInvalid, "unimplemented method"),
    })
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Header => "pre_init",
        State::AwaitStartOk => "starting",
        State::Authenticating => "securing",
        State::AwaitTuneOk => "tuning",
        State::AwaitOpen | State::Opening => "opening",
        State::Open => "running",
        State::Stopping | State::AwaitCloseOk { .. } => "closing",
        State::Silent { .. } | State::Ended => "closed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliver_is_encoded_as_the_table_of_methods_says() {
        let parts = Parts { exchange: "orders", routing_key: "order.eu", properties: &[0, 0] };
        let message = Message::new(parts, b"body");
        for redelivered in [false, true] {
            let (mut quick, mut table) = (Vec::new(), Vec::new());
            encode_deliver(&mut quick, "tag", 7, &Delivery { ticket: 1, redelivered, message: &message });
            BasicDeliver {
                consumer_tag: "tag",
                delivery_tag: 7,
                redelivered,
                exchange: parts.exchange,
                routing_key: parts.routing_key,
            }
            .encode(&mut table);
            assert_eq!(quick, table);
        }
    }
}
