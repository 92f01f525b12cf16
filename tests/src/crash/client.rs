//! A plain client that waits on its own thread: it says at once what it has received, which is what a confirm is judged by.
//!
//! A connection splits into a half that sends and a half that receives, so that a publisher's confirms are read while it
//! publishes. Bytes are those of [`crate::wire`]; nothing is retried and nothing reconnects.

use crate::wire::value::Value;
use crate::wire::{self, FRAME_BODY, FRAME_HEADER, FRAME_METHOD, Field, Frame, Properties, spec};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a broker may say nothing where it owes an answer. Generous, because disks and cores are shared.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Frames of this size are what both sides agree on.
const FRAME_MAX_BYTES: usize = 131_072;

/// Something whole that came from the broker.
#[derive(Debug)]
pub struct Event {
    pub channel: u16,
    pub name: &'static str,
    pub fields: Vec<Field>,
    pub content: Option<(Properties, Vec<u8>)>,
}

impl Event {
    /// A number among the fields; 0 when it is none.
    pub fn number(&self, place: usize) -> u64 {
        match self.fields.get(place) {
            Some(Field::Number(number)) => *number,
            _ => 0,
        }
    }

    /// A bit among the fields.
    pub fn bit(&self, place: usize) -> bool {
        matches!(self.fields.get(place), Some(Field::Bit(true)))
    }
}

/// The half that sends.
#[derive(Debug)]
pub struct Sender {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The half that receives.
#[derive(Debug)]
pub struct Receiver {
    stream: TcpStream,
    input: Vec<u8>,
    /// What of `input` has been used.
    used: usize,
    partial: HashMap<u16, (Event, Option<u64>)>,
}

/// Both halves together.
#[derive(Debug)]
pub struct Client {
    pub sender: Sender,
    pub receiver: Receiver,
}

impl Client {
    /// Connects and logs in as guest on `/`.
    ///
    /// # Errors
    /// When the broker is not there, or does not want to.
    pub fn connect(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).map_err(|error| format!("connecting: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let other = stream.try_clone().map_err(|error| error.to_string())?;
        let receiver = Receiver { stream: other, input: Vec::new(), used: 0, partial: HashMap::new() };
        let mut client = Self { sender: Sender { stream, buffer: Vec::new() }, receiver };
        client.receiver.patience(Some(DEADLINE))?;
        client.sender.buffer.extend_from_slice(&wire::PROTOCOL_HEADER);
        client.sender.flush()?;
        client.receiver.wait_for(0, "connection.start")?;
        let blocked = vec![(b"connection.blocked".to_vec(), Value::Bool(true))];
        let properties = Field::Table(vec![(b"capabilities".to_vec(), Value::Table(blocked))]);
        let start = [
            ("client-properties", properties),
            ("mechanism", Field::String(b"PLAIN".to_vec())),
            ("response", Field::String(b"\0guest\0guest".to_vec())),
            ("locale", Field::String(b"en_US".to_vec())),
        ];
        client.sender.call(0, "connection.start-ok", &start)?;
        client.receiver.wait_for(0, "connection.tune")?;
        let frame_max = ("frame-max", Field::Number(FRAME_MAX_BYTES as u64));
        client.sender.call(0, "connection.tune-ok", &[("channel-max", Field::Number(2047)), frame_max])?;
        client.call(0, "connection.open", &[("virtual-host", Field::String(b"/".to_vec()))], "connection.open-ok")?;
        Ok(client)
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// When the broker does not answer with channel.open-ok.
    pub fn open(&mut self, channel: u16) -> Result<(), String> {
        self.call(channel, "channel.open", &[], "channel.open-ok").map(drop)
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// When something else comes on that channel, or nothing.
    pub fn call(
        &mut self,
        channel: u16,
        name: &str,
        fields: &[(&str, Field)],
        answer: &'static str,
    ) -> Result<Event, String> {
        self.sender.call(channel, name, fields)?;
        self.receiver.wait_for(channel, answer)
    }
}

impl Sender {
    /// Sends a method with these fields, the others at their defaults.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn call(&mut self, channel: u16, name: &str, fields: &[(&str, Field)]) -> Result<(), String> {
        self.add(channel, name, fields);
        self.flush()
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn publish(
        &mut self,
        channel: u16,
        fields: &[(&str, Field)],
        properties: &Properties,
        body: &[u8],
    ) -> Result<(), String> {
        self.add(channel, "basic.publish", fields);
        let payload = wire::encode_header(60, 0, body.len() as u64, properties);
        Frame { kind: FRAME_HEADER, channel, payload }.encode(&mut self.buffer);
        for part in body.chunks(FRAME_MAX_BYTES - 8) {
            Frame { kind: FRAME_BODY, channel, payload: part.to_vec() }.encode(&mut self.buffer);
        }
        self.flush()
    }

    /// Ends the connection for both halves, as a client that dies does.
    pub fn hang_up(&self) {
        // It may be over already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn add(&mut self, channel: u16, name: &str, given: &[(&str, Field)]) {
        let method = spec::by_name(name).expect("the suite calls methods that exist");
        let fields: Vec<Field> = method
            .arguments
            .iter()
            .map(|(field, kind)| {
                let found = given.iter().find(|(name, _)| name == field);
                found.map_or_else(|| Field::default_of(*kind), |(_, field)| field.clone())
            })
            .collect();
        let payload = wire::encode_method(method, &fields);
        Frame { kind: FRAME_METHOD, channel, payload }.encode(&mut self.buffer);
    }

    fn flush(&mut self) -> Result<(), String> {
        let sent = self.stream.write_all(&self.buffer).map_err(|error| format!("sending: {error}"));
        self.buffer.clear();
        sent
    }
}

impl Receiver {
    /// How long [`Self::next_event`] waits; `None` is for ever.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn patience(&self, patience: Option<Duration>) -> Result<(), String> {
        self.stream.set_read_timeout(patience).map_err(|error| error.to_string())
    }

    /// The next event, or `None` when the broker has hung up.
    ///
    /// # Errors
    /// When nothing comes in time, or what comes is no AMQP.
    pub fn next_event(&mut self) -> Result<Option<Event>, String> {
        loop {
            match self.take_frame()? {
                Some(frame) => {
                    if let Some(event) = self.assemble(frame)? {
                        return Ok(Some(event));
                    }
                }
                None if !self.receive()? => return Ok(None),
                None => {}
            }
        }
    }

    /// The next event that is not about alarms.
    ///
    /// # Errors
    /// As [`Self::next_event`].
    pub fn next_answer(&mut self) -> Result<Option<Event>, String> {
        loop {
            match self.next_event()? {
                Some(Event { name: "connection.blocked" | "connection.unblocked", .. }) => {}
                other => return Ok(other),
            }
        }
    }

    /// The next event on `channel`, which has to be `name`. Connection.blocked and heartbeats are passed over.
    ///
    /// # Errors
    /// When it is something else, or nothing comes.
    pub fn wait_for(&mut self, channel: u16, name: &'static str) -> Result<Event, String> {
        let event = self.next_answer()?.ok_or_else(|| format!("the broker hung up where {name} was due"))?;
        if event.channel == channel && event.name == name {
            return Ok(event);
        }
        Err(format!("{} {:?} came where {name} was due", event.name, event.fields))
    }

    /// Reads more; false at the end of the stream, however it ends.
    fn receive(&mut self) -> Result<bool, String> {
        self.input.drain(..self.used);
        self.used = 0;
        let start = self.input.len();
        self.input.resize(start + READ_BYTES, 0);
        let read = self.stream.read(&mut self.input[start..]);
        self.input.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(count) => Ok(count > 0),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err("the broker says nothing".to_owned())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            // A broker that is killed resets its connections.
            Err(_) => Ok(false),
        }
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, String> {
        let rest = &self.input[self.used..];
        let Some(size) = rest.get(3..7) else { return Ok(None) };
        let size = u32::from_be_bytes(size.try_into().expect("four bytes")) as usize;
        if size > FRAME_MAX_BYTES {
            return Err(format!("the broker sent a frame of {size} bytes"));
        }
        let Some(bytes) = rest.get(..size + 8) else { return Ok(None) };
        self.used += size + 8;
        Frame::take(&mut bytes.to_vec())
    }

    fn assemble(&mut self, frame: Frame) -> Result<Option<Event>, String> {
        let channel = frame.channel;
        let (mut event, size) = match (frame.kind, self.partial.remove(&channel)) {
            (wire::FRAME_HEARTBEAT, None) => return Ok(None),
            (FRAME_METHOD, None) => {
                let (method, fields) = wire::decode_method(&frame.payload)?;
                let event = Event { channel, name: method.name, fields, content: None };
                if !method.has_content() {
                    return Ok(Some(event));
                }
                (event, None)
            }
            (FRAME_HEADER, Some((mut event, None))) => {
                let (size, properties) = wire::decode_header(&frame.payload)?;
                event.content = Some((properties, Vec::new()));
                (event, Some(size))
            }
            (FRAME_BODY, Some((event, Some(size)))) => (event, Some(size)),
            (kind, _) => return Err(format!("the broker's frame of type {kind} is out of place")),
        };
        if let (FRAME_BODY, Some((_, body))) = (frame.kind, &mut event.content) {
            body.extend(frame.payload);
        }
        let has_all =
            event.content.as_ref().is_some_and(|(_, body)| size.is_some_and(|size| body.len() as u64 >= size));
        if has_all {
            return Ok(Some(event));
        }
        self.partial.insert(channel, (event, size));
        Ok(None)
    }
}

const READ_BYTES: usize = 64 << 10;

/// Text as a field.
pub fn text(value: &str) -> Field {
    Field::String(value.as_bytes().to_vec())
}
