//! One connection of a running scenario: frames in, sorted by channel, with their content put together.

use crate::transport::{Received, Transport};
pub use crate::wire::incoming::Incoming;
use crate::wire::incoming::{Assembled, Assembler};
use crate::wire::value::{Table, Value};
use crate::wire::{self, Field, Frame, Properties, spec};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How long an expectation may take. Generous, because the oracle shares two cores with everything else.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the next expectation on a channel meets.
#[derive(Debug)]
pub enum Event {
    Method(Incoming),
    Heartbeat,
    Eof,
    Nothing,
}

pub struct Connection {
    transport: Box<dyn Transport>,
    input: Vec<u8>,
    channels: HashMap<u16, VecDeque<Event>>,
    assembler: Assembler,
    is_eof: bool,
    pub(super) frame_max: usize,
    /// Channels that were opened by the scenario or for it.
    pub(super) opened: Vec<u16>,
    /// Whether the scenario does the handshake itself; nothing is opened or closed on its behalf then.
    pub(super) is_manual: bool,
    /// Whether either side has begun to close.
    pub(super) is_closing: bool,
    /// Everything that went over the connection, for reports.
    pub(super) transcript: Vec<String>,
}

impl Connection {
    pub fn new(transport: Box<dyn Transport>) -> Self {
        Self {
            transport,
            input: Vec::new(),
            channels: HashMap::new(),
            assembler: Assembler::default(),
            is_eof: false,
            frame_max: 131_072,
            opened: Vec::new(),
            is_manual: false,
            is_closing: false,
            transcript: Vec::new(),
        }
    }

    /// The bare transport, for what no frame can say.
    pub fn into_transport(self) -> Box<dyn Transport> {
        self.transport
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        // A server that has closed already may refuse the bytes; what it said before is what the scenario looks at.
        let _ = self.transport.send(bytes);
    }

    pub fn send_frame(&mut self, kind: u8, channel: u16, payload: Vec<u8>) {
        let mut bytes = Vec::new();
        Frame { kind, channel, payload }.encode(&mut bytes);
        self.send_raw(&bytes);
    }

    /// Sends a method with all its fields, and its content cut into frames of the negotiated size.
    pub fn send_method(
        &mut self,
        channel: u16,
        method: &spec::Method,
        fields: &[Field],
        content: Option<(Properties, Vec<u8>)>,
    ) {
        self.note(">", channel, method, fields);
        let mut bytes = Vec::new();
        wire::write_method(&mut bytes, channel, method, fields, content, self.frame_max);
        self.send_raw(&bytes);
    }

    fn note(&mut self, direction: &str, channel: u16, method: &spec::Method, fields: &[Field]) {
        let mut line = format!(".{channel} {direction} {}", method.name);
        for ((name, _), field) in method.arguments.iter().zip(fields) {
            line.push_str(&format!(" {name}={field}"));
        }
        line.truncate(line.floor_char_boundary(400));
        self.transcript.push(line);
    }

    /// Takes exactly `count` bytes as they come, before any frame is cut.
    pub fn take_raw(&mut self, count: usize) -> Result<Vec<u8>, String> {
        let deadline = Instant::now() + DEADLINE;
        while self.input.len() < count && !self.is_eof {
            if !self.receive(deadline)? {
                break;
            }
        }
        let count = count.min(self.input.len());
        Ok(self.input.drain(..count).collect())
    }

    /// The next event on `channel`; the end of the stream is an event of every channel.
    pub fn next(&mut self, channel: u16) -> Result<Event, String> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.cut_frames()?;
            if let Some(event) = self.channels.get_mut(&channel).and_then(VecDeque::pop_front) {
                return Ok(event);
            }
            if self.is_eof {
                return Ok(Event::Eof);
            }
            if !self.receive(deadline)? {
                return Ok(Event::Nothing);
            }
        }
    }

    /// A frame that nobody expected, if one has been received.
    pub fn leftover(&mut self) -> Result<Option<String>, String> {
        self.cut_frames()?;
        for (channel, events) in &mut self.channels {
            while let Some(event) = events.pop_front() {
                match event {
                    Event::Heartbeat | Event::Nothing => {}
                    Event::Method(incoming) => {
                        return Ok(Some(format!("{} on channel {channel}", incoming.method.name)));
                    }
                    Event::Eof => return Ok(Some("the end of the stream".to_owned())),
                }
            }
        }
        Ok(None)
    }

    fn receive(&mut self, deadline: Instant) -> Result<bool, String> {
        match self.transport.receive(deadline).map_err(|error| format!("receiving failed: {error}"))? {
            Received::Bytes(bytes) => self.input.extend(bytes),
            Received::Eof => self.is_eof = true,
            Received::Nothing => return Ok(false),
        }
        Ok(true)
    }

    fn cut_frames(&mut self) -> Result<(), String> {
        while let Some(frame) = Frame::take(&mut self.input)? {
            // A header cannot be cut, so RabbitMQ sends one that is larger than the client wanted as it is.
            if frame.payload.len() + 8 > self.frame_max && frame.kind != wire::FRAME_HEADER {
                return Err(format!(
                    "a frame of {} bytes exceeds frame-max {}",
                    frame.payload.len() + 8,
                    self.frame_max
                ));
            }
            let channel = frame.channel;
            let event = match self.assembler.take(frame)? {
                Assembled::Partial => continue,
                Assembled::Heartbeat => Event::Heartbeat,
                Assembled::Method(incoming) => {
                    self.note("<", channel, incoming.method, &incoming.fields);
                    Event::Method(incoming)
                }
            };
            self.channels.entry(channel).or_default().push_back(event);
        }
        Ok(())
    }

    /// Sends `name` with these fields, the others at their defaults.
    pub fn call(&mut self, channel: u16, name: &str, given: &[(&str, Field)]) {
        let method = spec::by_name(name).expect("the harness calls methods that exist");
        let fields = wire::arguments(method, given);
        self.send_method(channel, method, &fields, None);
    }

    /// Waits for `name` as the next method on `channel`.
    ///
    /// # Errors
    /// When anything else comes first.
    pub fn wait_for(&mut self, channel: u16, name: &str) -> Result<Vec<Field>, String> {
        loop {
            match self.next(channel)? {
                Event::Heartbeat => {}
                Event::Method(incoming) if incoming.method.name == name => return Ok(incoming.fields),
                other => return Err(format!("{name} was expected on channel {channel}, not {}", describe(&other))),
            }
        }
    }

    /// Opens the connection the way ordinary clients do.
    pub fn login(&mut self, login: &Login) -> Result<(), String> {
        let response = [b"\0", login.user.as_bytes(), b"\0", login.password.as_bytes()].concat();
        self.login_by("PLAIN", response, login)
    }

    /// As [`Self::login`], by another mechanism.
    ///
    /// # Errors
    /// As there.
    pub fn login_by(&mut self, mechanism: &str, response: Vec<u8>, login: &Login) -> Result<(), String> {
        self.send_raw(&wire::PROTOCOL_HEADER);
        self.wait_for(0, "connection.start")?;
        let properties: Table = vec![(b"capabilities".to_vec(), Value::Table(login.capabilities.clone()))];
        let fields = [
            ("client-properties", Field::Table(properties)),
            ("mechanism", Field::String(mechanism.as_bytes().to_vec())),
            ("response", Field::String(response)),
            ("locale", Field::String(b"en_US".to_vec())),
        ];
        self.call(0, "connection.start-ok", &fields);
        self.wait_for(0, "connection.tune")?;
        let fields = [
            ("channel-max", Field::Number(login.channel_max)),
            ("frame-max", Field::Number(login.frame_max)),
            ("heartbeat", Field::Number(login.heartbeat)),
        ];
        self.call(0, "connection.tune-ok", &fields);
        self.frame_max = login.frame_max as usize;
        self.call(0, "connection.open", &[("virtual-host", Field::String(login.vhost.clone().into_bytes()))]);
        self.wait_for(0, "connection.open-ok")?;
        Ok(())
    }

    /// Two round trips that have no effect: whatever was on its way to this channel before the second one has arrived.
    pub fn barrier(&mut self, channel: u16) -> Result<(), String> {
        for _ in 0..2 {
            self.call(channel, "channel.flow", &[("active", Field::Bit(true))]);
            self.wait_for(channel, "channel.flow-ok")?;
        }
        Ok(())
    }
}

/// What [`Connection::login`] says about itself.
pub struct Login {
    pub user: String,
    pub password: String,
    pub vhost: String,
    pub channel_max: u64,
    pub frame_max: u64,
    pub heartbeat: u64,
    pub capabilities: Table,
}

impl Login {
    /// Guest in `vhost`, without heartbeats, with the capabilities of a modern client.
    pub fn guest(vhost: &str) -> Self {
        let capabilities = [
            "publisher_confirms",
            "exchange_exchange_bindings",
            "basic.nack",
            "consumer_cancel_notify",
            "connection.blocked",
            "authentication_failure_close",
        ];
        Self {
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            vhost: vhost.to_owned(),
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 0,
            capabilities: capabilities.iter().map(|name| (name.as_bytes().to_vec(), Value::Bool(true))).collect(),
        }
    }
}

/// An event in the words of a scenario line.
pub fn describe(event: &Event) -> String {
    match event {
        Event::Eof => "the end of the stream".to_owned(),
        Event::Nothing => "silence".to_owned(),
        Event::Heartbeat => "heartbeat".to_owned(),
        Event::Method(incoming) => {
            let mut text = incoming.method.name.to_owned();
            for ((name, _), field) in incoming.method.arguments.iter().zip(&incoming.fields) {
                text.push_str(&format!(" {name}={field}"));
            }
            if let Some((properties, body)) = &incoming.content {
                text.push_str(" |");
                for (name, field) in properties {
                    text.push_str(&format!(" {name}={field}"));
                }
                let shown = &body[..body.len().min(100)];
                text.push_str(&format!(" | body={}", wire::value::quote(shown)));
                if shown.len() < body.len() {
                    text.push_str(&format!("… ({} bytes)", body.len()));
                }
            }
            text
        }
    }
}
