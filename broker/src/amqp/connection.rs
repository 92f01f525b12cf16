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
mod deliveries;
mod transactions;

pub use self::deliveries::{ChannelGauges, Confirmed, Delivery};

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;

use super::channel::confirms::Confirms;
use super::channel::content::{self, Assembled};
use super::channel::transaction::{Committed, Transaction};
use super::channel::{Channel, Consumer, Mode, State as ChannelState};
use super::frame::{self, Frame, FrameKind};
use super::handshake::Tuned;
use super::handshake::{self, Client, Hello, Identity, Limits};
use super::heartbeat::{Due, Heartbeat};
use super::method::*;
use super::out::OutBuffer;
use super::reply_code::{ProtocolError, ReplyCode, Scope};
use super::wire::WireError;
use super::{ChannelId, Outstanding, PublishFlags, PublishMode, SourceId};
use crate::message::{Arriving, Message, Parts};
use crate::metrics::sizes::BodySizes;

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

    fn on_header<'i>(&mut self, input: &mut &'i [u8]) -> Option<Event<'i>> {
        let (&bytes, rest) = input.split_first_chunk::<8>()?;
        *input = rest;
        match handshake::hello(bytes) {
            Hello::Amqp { version_minor } => {
                let server_properties = self.identity.server_properties();
                let mechanisms = self.identity.mechanisms(self.offers_external);
                let start = ConnectionStart {
                    version_major: 0,
                    version_minor,
                    server_properties: plugin_api::value::TableRef::new(&server_properties),
                    mechanisms: mechanisms.as_bytes(),
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
            // Nobody is left to hear of it.
            State::Closed { .. } => {
                self.state = State::Ended;
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
            (State::AwaitCloseOk { .. } | State::Closed { .. }, Method::ConnectionClose(_)) => {
                frame::write_method(self.out.tail(), 0, ConnectionCloseOk {});
                None
            }
            (State::AwaitCloseOk { .. } | State::Closed { .. }, _) => None,
            (State::Open, Method::ConnectionClose(_)) => {
                self.state = State::Stopping;
                Some(Event::Close)
            }
            (_, Method::ConnectionClose(_)) => {
                frame::write_method(self.out.tail(), 0, ConnectionCloseOk {});
                self.state = State::Ended;
                None
            }
            (State::Open, Method::ConnectionUpdateSecret(update)) => {
                Some(Event::UpdateSecret { new_secret: update.new_secret, reason: update.reason })
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

    /// What client and server have agreed on; before that, what the server offers.
    pub fn tuned(&self) -> Tuned {
        Tuned {
            channel_max: self.channel_max,
            frame_max_bytes: self.frame_max_bytes,
            heartbeat_secs: self.heartbeat_secs,
        }
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

    /// The new secret is good.
    pub fn secret_updated(&mut self) {
        if self.state == State::Open {
            frame::write_method(self.out.tail(), 0, ConnectionUpdateSecretOk {});
        }
    }

    /// Everything is stopped: answer the client's close, and leave it to the client to close the socket.
    pub fn close_ok(&mut self, now: Instant) {
        frame::write_method(self.out.tail(), 0, ConnectionCloseOk {});
        self.forget_channels();
        self.held_bytes = 0;
        self.state = State::Closed { until: now + handshake::SILENCE };
    }

    /// Sends connection.close and waits for the answer, but not for ever (semantics 3.15).
    pub fn close(&mut self, now: Instant, error: &ProtocolError) {
        if matches!(self.state, State::AwaitCloseOk { .. } | State::Closed { .. } | State::Silent { .. } | State::Ended)
        {
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
        self.forget_channels();
        self.held_bytes = 0;
        let is_deaf = self.is_framing_lost;
        let heartbeat = std::time::Duration::from_secs(u64::from(self.heartbeat_secs));
        let wait =
            if is_deaf || heartbeat.is_zero() { handshake::SILENCE } else { heartbeat.min(handshake::CLOSE_WAIT_MAX) };
        self.state = State::AwaitCloseOk { until: now + wait, is_deaf };
    }

    fn forget_channels(&mut self) {
        self.channels.clear();
        self.arriving = Arriving::default();
    }

    /// The driver failed an event of the whole connection, such as an open.
    pub fn stop(&mut self) {
        if matches!(self.state, State::Open | State::Opening) {
            self.state = State::Stopping;
        }
    }

    /// Closes the socket of a connection that is closed, without waiting for the client to do it.
    pub fn cut_if_closed(&mut self) {
        if self.is_closed() {
            self.state = State::Ended;
        }
    }
}

/// Whether more frames can be told apart behind an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Kept,
    Lost,
}

/// Class and method of a close that belongs to no method (semantics 5.14).
const NO_METHOD: MethodId = MethodId { class: 0, method: 0 };

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

fn state_name(state: State) -> &'static str {
    match state {
        State::Header => "pre_init",
        State::AwaitStartOk => "starting",
        State::Authenticating => "securing",
        State::AwaitTuneOk => "tuning",
        State::AwaitOpen | State::Opening => "opening",
        State::Open => "running",
        State::Stopping | State::AwaitCloseOk { .. } => "closing",
        State::Closed { .. } | State::Silent { .. } | State::Ended => "closed",
    }
}
