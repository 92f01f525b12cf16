//! Channel 0: the protocol header, logging in, tuning, entering a vhost, and what may come afterwards.

use std::time::Instant;

use super::{Client, Connection, Event, Framing, State, decode_error};
use crate::amqp::ChannelId;
use crate::amqp::frame;
use crate::amqp::handshake::{self, Hello, Tuned};
use crate::amqp::method::*;
use crate::amqp::reply_code::{ProtocolError, ReplyCode};

impl Connection {
    pub(super) fn on_header<'i>(&mut self, input: &mut &'i [u8]) -> Option<Event<'i>> {
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

    pub(super) fn on_connection_method<'i>(&mut self, now: Instant, payload: &'i [u8]) -> Option<Event<'i>> {
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

    pub(super) fn on_tune_ok<'i>(&mut self, now: Instant, tune_ok: ConnectionTuneOk) -> Option<Event<'i>> {
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
