//! How a connection ends: broken rules, close and close-ok from either side.

use std::time::Instant;

use super::{Connection, Event, Framing, State};
use crate::amqp::ChannelId;
use crate::amqp::frame;
use crate::amqp::handshake;
use crate::amqp::method::*;
use crate::amqp::reply_code::{ProtocolError, Scope};
use crate::message::Arriving;

/// Class and method of a close that belongs to no method (semantics 5.14).
pub(super) const NO_METHOD: MethodId = MethodId { class: 0, method: 0 };

impl Connection {
    /// Ends the connection over a broken rule: by the driver's clean-up and a close frame when it is open, in silence before.
    pub(super) fn fail<'i>(
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

    pub(super) fn forget_channels(&mut self) {
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
