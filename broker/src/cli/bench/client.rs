//! A client that sends a method and waits for the answer: what a benchmark does before, after and beside the flow of messages.
//!
//! Its frames are those of `crate::amqp`. What arrives behind an answer stays in its buffer, for whoever takes the connection over.

use std::io::{Read as _, Write as _};

use plugin_api::value::{Table, TableRef};

use super::error::{BenchError, lost_connection};
use super::target::{Stream, Target};
use crate::amqp::frame::{self, FrameKind};
use crate::amqp::handshake::PROTOCOL_HEADER;
use crate::amqp::method::*;

/// What clients commonly take, and what RabbitMQ offers.
const FRAME_BYTES_MAX: u32 = 131_072;
const READ_BYTES: usize = 16 * 1024;

/// A connection with one channel, the first.
pub(super) struct Client {
    pub(super) stream: Stream,
    /// What has arrived and nobody has looked at.
    pub(super) input: Vec<u8>,
    pub(super) frame_max: u32,
}

/// The number of the channel that everything here uses.
pub(super) const CHANNEL: u16 = 1;

/// What a queue is declared as.
#[derive(Clone, Copy)]
pub(super) struct QueueKind<'a> {
    pub(super) durable: bool,
    pub(super) exclusive: bool,
    pub(super) arguments: &'a Table,
}

impl Client {
    /// A connection with a channel.
    pub(super) fn open(target: &Target) -> Result<Self, BenchError> {
        let mut client = Self::connect(target)?;
        client.open_channel()?;
        Ok(client)
    }

    /// A connection without channels.
    pub(super) fn connect(target: &Target) -> Result<Self, BenchError> {
        let stream = target.connect()?;
        let mut client = Self { stream, input: Vec::new(), frame_max: FRAME_BYTES_MAX };
        match client.shake_hands(target) {
            Err(BenchError::Closed { code: code @ (403 | 530), text, .. }) => Err(BenchError::Refused { code, text }),
            result => result.map(|()| client),
        }
    }

    fn shake_hands(&mut self, target: &Target) -> Result<(), BenchError> {
        self.write(&PROTOCOL_HEADER)?;
        self.wait_for(0, |method| matches!(method, Method::ConnectionStart(_)).then_some(()))?;
        let capabilities = ["authentication_failure_close", "publisher_confirms", "basic.nack", "connection.blocked"]
            .into_iter()
            .chain(["consumer_cancel_notify"])
            .fold(Table::default(), |table, name| table.with(name, true));
        let mut properties = Vec::new();
        let product = Table::default().with("product", "broker bench").with("version", env!("CARGO_PKG_VERSION"));
        product.with("capabilities", capabilities).encode(&mut properties);
        let response = format!("\0{}\0{}", target.user, target.password);
        let start_ok = ConnectionStartOk {
            client_properties: TableRef::new(&properties),
            mechanism: "PLAIN",
            response: response.as_bytes(),
            locale: "en_US",
        };
        let tune = |method: &Method<'_>| match method {
            Method::ConnectionTune(tune) => Some(*tune),
            _ => None,
        };
        let tune = self.call(0, start_ok, tune)?;
        let offered = if tune.frame_max == 0 { FRAME_BYTES_MAX } else { tune.frame_max };
        self.frame_max = offered.min(FRAME_BYTES_MAX);
        // Without heartbeats: they are neither measured nor wanted among what is.
        self.send(0, ConnectionTuneOk { channel_max: tune.channel_max, frame_max: self.frame_max, heartbeat: 0 })?;
        let open = ConnectionOpen { virtual_host: &target.vhost, capabilities: "", insist: false };
        self.call(0, open, |method| matches!(method, Method::ConnectionOpenOk(_)).then_some(()))
    }

    pub(super) fn open_channel(&mut self) -> Result<(), BenchError> {
        let is_open = |method: &Method<'_>| matches!(method, Method::ChannelOpenOk(_)).then_some(());
        self.call(CHANNEL, ChannelOpen { out_of_band: "" }, is_open)
    }

    pub(super) fn close_channel(&mut self) -> Result<(), BenchError> {
        let close = ChannelClose { reply_code: 200, reply_text: "done", class_id: 0, method_id: 0 };
        self.call(CHANNEL, close, |method| matches!(method, Method::ChannelCloseOk(_)).then_some(()))
    }

    /// Says goodbye and waits until the broker has heard it, and with it everything that was sent before.
    pub(super) fn close(mut self) -> Result<(), BenchError> {
        let close = ConnectionClose { reply_code: 200, reply_text: "done", class_id: 0, method_id: 0 };
        self.call(0, close, |method| matches!(method, Method::ConnectionCloseOk(_)).then_some(()))
    }

    /// Declares a queue and gives the name that the broker has for it.
    pub(super) fn declare_queue(&mut self, queue: &str, kind: QueueKind<'_>) -> Result<String, BenchError> {
        let mut arguments = Vec::new();
        kind.arguments.encode(&mut arguments);
        let declare = QueueDeclare {
            ticket: 0,
            queue,
            passive: false,
            durable: kind.durable,
            exclusive: kind.exclusive,
            auto_delete: false,
            nowait: false,
            arguments: TableRef::new(&arguments),
        };
        self.call(CHANNEL, declare, |method| match method {
            Method::QueueDeclareOk(ok) => Some(ok.queue.to_owned()),
            _ => None,
        })
    }

    /// Ready messages of a queue.
    pub(super) fn message_count(&mut self, queue: &str) -> Result<u64, BenchError> {
        let (durable, exclusive, auto_delete, nowait) = (false, false, false, false);
        let arguments = TableRef::default();
        let declare =
            QueueDeclare { ticket: 0, queue, passive: true, durable, exclusive, auto_delete, nowait, arguments };
        self.call(CHANNEL, declare, |method| match method {
            Method::QueueDeclareOk(ok) => Some(u64::from(ok.message_count)),
            _ => None,
        })
    }

    pub(super) fn delete_queue(&mut self, queue: &str) -> Result<(), BenchError> {
        let delete = QueueDelete { ticket: 0, queue, if_unused: false, if_empty: false, nowait: false };
        self.call(CHANNEL, delete, |method| matches!(method, Method::QueueDeleteOk(_)).then_some(()))
    }

    pub(super) fn declare_exchange(&mut self, exchange: &str, kind: &str, durable: bool) -> Result<(), BenchError> {
        let (passive, auto_delete, internal, nowait) = (false, false, false, false);
        let arguments = TableRef::default();
        let declare =
            ExchangeDeclare { ticket: 0, exchange, kind, passive, durable, auto_delete, internal, nowait, arguments };
        self.call(CHANNEL, declare, |method| matches!(method, Method::ExchangeDeclareOk(_)).then_some(()))
    }

    pub(super) fn delete_exchange(&mut self, exchange: &str) -> Result<(), BenchError> {
        let delete = ExchangeDelete { ticket: 0, exchange, if_unused: false, nowait: false };
        self.call(CHANNEL, delete, |method| matches!(method, Method::ExchangeDeleteOk(_)).then_some(()))
    }

    pub(super) fn bind(&mut self, queue: &str, exchange: &str, key: &str, arguments: &Table) -> Result<(), BenchError> {
        let mut table = Vec::new();
        arguments.encode(&mut table);
        let arguments = TableRef::new(&table);
        let bind = QueueBind { ticket: 0, queue, exchange, routing_key: key, nowait: false, arguments };
        self.call(CHANNEL, bind, |method| matches!(method, Method::QueueBindOk(_)).then_some(()))
    }

    pub(super) fn unbind(&mut self, queue: &str, exchange: &str, key: &str) -> Result<(), BenchError> {
        let unbind = QueueUnbind { ticket: 0, queue, exchange, routing_key: key, arguments: TableRef::default() };
        self.call(CHANNEL, unbind, |method| matches!(method, Method::QueueUnbindOk(_)).then_some(()))
    }

    pub(super) fn qos(&mut self, prefetch_count: u16) -> Result<(), BenchError> {
        let qos = BasicQos { prefetch_size: 0, prefetch_count, global: false };
        self.call(CHANNEL, qos, |method| matches!(method, Method::BasicQosOk(_)).then_some(()))
    }

    pub(super) fn consume(&mut self, queue: &str, no_ack: bool) -> Result<(), BenchError> {
        let (no_local, exclusive, nowait, arguments) = (false, false, false, TableRef::default());
        let consume =
            BasicConsume { ticket: 0, queue, consumer_tag: "c", no_local, no_ack, exclusive, nowait, arguments };
        self.call(CHANNEL, consume, |method| matches!(method, Method::BasicConsumeOk(_)).then_some(()))
    }

    pub(super) fn select_confirms(&mut self) -> Result<(), BenchError> {
        let select = ConfirmSelect { nowait: false };
        self.call(CHANNEL, select, |method| matches!(method, Method::ConfirmSelectOk(_)).then_some(()))
    }

    fn call<'m, T>(
        &mut self,
        channel: u16,
        method: impl Into<Method<'m>>,
        answer: impl Fn(&Method<'_>) -> Option<T>,
    ) -> Result<T, BenchError> {
        self.send(channel, method)?;
        self.wait_for(channel, answer)
    }

    fn send<'m>(&mut self, channel: u16, method: impl Into<Method<'m>>) -> Result<(), BenchError> {
        let mut bytes = Vec::with_capacity(64);
        frame::write_method(&mut bytes, channel, method);
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        let written = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
        written.map_err(|error| lost_connection(&error))
    }

    fn wait_for<T>(&mut self, channel: u16, answer: impl Fn(&Method<'_>) -> Option<T>) -> Result<T, BenchError> {
        loop {
            let mut rest = &self.input[..];
            while let Some(frame) = decode(&mut rest, self.frame_max)? {
                if frame.kind != FrameKind::Method {
                    continue;
                }
                let method = Method::decode(frame.payload).map_err(foreign)?;
                refuse_close(&method)?;
                let found = if frame.channel == channel { answer(&method) } else { None };
                if let Some(found) = found {
                    let left = rest.len();
                    self.input.drain(..self.input.len() - left);
                    return Ok(found);
                }
            }
            let left = rest.len();
            self.input.drain(..self.input.len() - left);
            self.read_more()?;
        }
    }

    fn read_more(&mut self) -> Result<(), BenchError> {
        let start = self.input.len();
        self.input.resize(start + READ_BYTES, 0);
        let count = self.stream.read(self.input.get_mut(start..).unwrap_or_default());
        self.input.truncate(start + *count.as_ref().unwrap_or(&0));
        match count {
            Ok(0) => Err(BenchError::Foreign("what answers has closed the connection without a word".into())),
            Ok(_) => Ok(()),
            Err(error) => Err(lost_connection(&error)),
        }
    }
}

/// Cuts off a frame; what is none is told as such.
pub(super) fn decode<'a>(input: &mut &'a [u8], frame_max: u32) -> Result<Option<frame::Frame<'a>>, BenchError> {
    if input.starts_with(b"AMQP") {
        return Err(BenchError::Foreign("what answers does not speak AMQP 0-9-1, but another version".into()));
    }
    frame::decode(input, frame_max)
        .map_err(|error| BenchError::Foreign(format!("what answers is no AMQP: {}", error.text)))
}

/// A method that ends everything, as an error.
pub(super) fn refuse_close(method: &Method<'_>) -> Result<(), BenchError> {
    let (what, code, text) = match method {
        Method::ConnectionClose(close) => ("connection", close.reply_code, close.reply_text),
        Method::ChannelClose(close) => ("channel", close.reply_code, close.reply_text),
        Method::BasicCancel(_) => return Err(BenchError::Foreign("the broker has cancelled a consumer".into())),
        _ => return Ok(()),
    };
    Err(BenchError::Closed { what, code, text: text.to_owned() })
}

pub(super) fn foreign(error: MethodError) -> BenchError {
    BenchError::Foreign(format!("what answers is no AMQP 0-9-1: {error}"))
}
