//! A client's connection: the handshake, frames in and out, heartbeats, and its end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tests::wire::incoming::Assembler;
use tests::wire::value::{Table, Value};
use tests::wire::{self, FRAME_HEARTBEAT, Field, Frame, PROTOCOL_HEADER, Properties, spec};

use super::channel::{Channel, Request, Slot};
use super::{Client, Context, Mode, setup};
use crate::facts::{ConnectionId, Step};
use crate::history::Event;
use crate::network::{Arrived, Link};
use crate::plan::Work;

/// The channel on which a client declares what it needs.
pub(super) const SETUP_CHANNEL: u16 = 1;
/// What a client has written and the broker has not read, before the client waits: the buffers of a system.
const UNREAD_BYTES_MAX: usize = 100_000;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Start,
    Tune,
    Open,
    Ready,
    Closing,
}

/// See the module.
pub(super) struct Conn {
    pub(super) id: ConnectionId,
    pub(super) link: Rc<RefCell<Link>>,
    pub(super) phase: Phase,
    pub(super) input: Vec<u8>,
    pub(super) assembler: Assembler,
    pub(super) frame_max: usize,
    pub(super) channels: BTreeMap<u16, Channel>,
    pub(super) is_blocked: bool,
    pub(super) is_set_up: bool,
    heartbeat_ms: u64,
    last_sent_ms: u64,
}

impl Conn {
    pub(super) fn wants_turn(&self, mode: Mode) -> bool {
        match (self.phase, mode) {
            (Phase::Ready, Mode::Leave) => true,
            (Phase::Ready, _) => self.link.borrow().unread_bytes() < UNREAD_BYTES_MAX,
            _ => false,
        }
    }

    pub(super) fn next_act_ms(&self, slots: &[Slot], mode: Mode) -> Option<u64> {
        if mode == Mode::Leave {
            return Some(0);
        }
        let can_act = |channel: &&Channel| {
            let rests = channel.request.is_none() && !channel.is_closing && !channel.is_doomed;
            rests && (mode == Mode::Work || !channel.setup.is_empty())
        };
        let channels = self
            .channels
            .iter()
            .filter(|(number, channel)| can_act(channel) && (**number != SETUP_CHANNEL || !channel.setup.is_empty()));
        let channels = channels.map(|(_, channel)| channel.next_act_ms);
        let is_open = self.is_set_up && mode == Mode::Work;
        let slots = slots.iter().filter(|slot| is_open && slot.channel.is_none()).map(|slot| slot.open_at_ms);
        channels.chain(slots).min()
    }

    pub(super) fn next_heartbeat_ms(&self) -> Option<u64> {
        (self.heartbeat_ms > 0 && self.phase == Phase::Ready).then_some(self.last_sent_ms + self.heartbeat_ms / 2)
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.phase == Phase::Ready && self.is_set_up && self.channels.values().all(Channel::is_at_rest)
    }

    pub(super) fn waits_for(&self) -> String {
        let mut text = format!("{:?}", self.phase);
        for (number, channel) in &self.channels {
            if let Some((request, _)) = &channel.request {
                text.push_str(&format!(", channel {number}: {request:?}"));
            }
            if !channel.unconfirmed.is_empty() {
                let numbers: Vec<&u64> = channel.unconfirmed.keys().take(5).collect();
                text.push_str(&format!(", channel {number}: confirms of {numbers:?}"));
            }
            if channel.is_doomed {
                text.push_str(&format!(", channel {number}: its end"));
            }
        }
        text
    }
}

/// Writes the frames of one channel.
pub(super) struct Sender<'a> {
    pub(super) link: &'a RefCell<Link>,
    pub(super) channel: u16,
    pub(super) frame_max: usize,
    pub(super) client: usize,
    pub(super) now_ms: u64,
    pub(super) trace: &'a mut crate::trace::Trace,
}

impl Sender<'_> {
    /// Sends a method; fields that are not given are at their defaults.
    pub(super) fn call(&mut self, name: &str, given: &[(&str, Field)]) {
        self.content(name, given, None);
    }

    /// Sends a method with content.
    pub(super) fn content(&mut self, name: &str, given: &[(&str, Field)], content: Option<(Properties, Vec<u8>)>) {
        let method = spec::by_name(name).expect("clients call methods that exist");
        let fields = wire::arguments(method, given);
        self.trace.line(self.now_ms, &format!("client {}.{}", self.client, self.channel), || {
            let mut line = format!("> {name}");
            for (name, field) in given {
                line.push_str(&format!(" {name}={field}"));
            }
            line
        });
        let mut bytes = Vec::new();
        wire::write_method(&mut bytes, self.channel, method, &fields, content, self.frame_max);
        self.link.borrow_mut().send(&bytes);
    }
}

/// A string of any kind.
pub(super) fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

impl Client {
    /// The connection stands; the client speaks first.
    pub(crate) fn on_connected(&mut self, context: &mut Context<'_>, id: ConnectionId, link: Rc<RefCell<Link>>) {
        link.borrow_mut().send(&PROTOCOL_HEADER);
        self.conn = Some(Conn {
            id,
            link,
            phase: Phase::Start,
            input: Vec::new(),
            assembler: Assembler::default(),
            frame_max: self.plan.frame_max as usize,
            channels: BTreeMap::new(),
            is_blocked: false,
            is_set_up: false,
            heartbeat_ms: u64::from(self.plan.heartbeat_secs) * 1000,
            last_sent_ms: context.now_ms,
        });
        context.history.trace.line(context.now_ms, &self.name(), || format!("connects as connection {}", id.0));
    }

    /// Reads what has arrived.
    pub(crate) fn on_readable(&mut self, context: &mut Context<'_>) {
        let Some(conn) = &mut self.conn else { return };
        let arrived = conn.link.borrow_mut().receive();
        match arrived {
            Arrived::Nothing => {}
            Arrived::Bytes(bytes) => {
                conn.input.extend(bytes);
                if let Err(text) = self.on_bytes(context) {
                    context.history.violate("protocol", format!("client {}: {text}", self.index));
                }
            }
            Arrived::End => self.on_eof(context),
        }
    }

    fn on_bytes(&mut self, context: &mut Context<'_>) -> Result<(), String> {
        while let Some(conn) = &mut self.conn {
            let Some(frame) = Frame::take(&mut conn.input)? else { break };
            if frame.payload.len() + 8 > conn.frame_max {
                return Err(format!(
                    "a frame of {} bytes exceeds frame-max {}",
                    frame.payload.len() + 8,
                    conn.frame_max
                ));
            }
            self.on_frame(context, frame)?;
        }
        Ok(())
    }

    fn on_eof(&mut self, context: &mut Context<'_>) {
        let Some(conn) = self.conn.take() else { return };
        let facts = &context.history.facts;
        let connection = &facts.connections[conn.id.0];
        if connection.end.begun.is_none() {
            let text = format!("client {}: the broker ended connection {} without a reason", self.index, conn.id.0);
            context.history.violate("protocol", text);
        }
        context.history.trace.line(context.now_ms, &self.name(), || format!("finds connection {} ended", conn.id.0));
        context.history.note(Event::ConnectionEnding(conn.id));
        self.die(context.now_ms);
    }

    /// Its turn: one step of one channel, a heartbeat, or the end.
    pub(crate) fn act(&mut self, context: &mut Context<'_>) {
        let Some(conn) = &mut self.conn else { return };
        if conn.next_heartbeat_ms().is_some_and(|at| at <= context.now_ms) {
            let mut bytes = Vec::new();
            Frame { kind: FRAME_HEARTBEAT, channel: 0, payload: Vec::new() }.encode(&mut bytes);
            conn.link.borrow_mut().send(&bytes);
            conn.last_sent_ms = context.now_ms;
        }
        if !conn.wants_turn(context.mode) {
            return;
        }
        if context.mode == Mode::Leave {
            return self.close(context);
        }
        let due = |channel: &Channel| {
            channel.request.is_none()
                && !channel.is_closing
                && !channel.is_doomed
                && channel.next_act_ms <= context.now_ms
        };
        let mut numbers: Vec<u16> = conn.channels.iter().filter(|(_, channel)| due(channel)).map(|(n, _)| *n).collect();
        if context.mode == Mode::Rest || !conn.is_set_up {
            numbers.retain(|number| conn.channels.get(number).is_some_and(|channel| !channel.setup.is_empty()));
        }
        numbers.retain(|number| {
            *number != SETUP_CHANNEL || conn.channels.get(number).is_some_and(|channel| !channel.setup.is_empty())
        });
        let opens = conn.is_set_up && context.mode == Mode::Work;
        let free: Vec<usize> = (0..self.slots.len())
            .filter(|slot| {
                opens && self.slots[*slot].channel.is_none() && self.slots[*slot].open_at_ms <= context.now_ms
            })
            .collect();
        let choices = numbers.len() + free.len();
        if choices == 0 {
            return;
        }
        let choice = self.random.below(choices as u32) as usize;
        match numbers.get(choice) {
            Some(number) => self.act_on_channel(context, *number),
            None => self.open_channel(context, free[choice - numbers.len()]),
        }
    }

    fn act_on_channel(&mut self, context: &mut Context<'_>, number: u16) {
        let pause = self.random.below(self.plan.think_ms_max + 1);
        let Some(channel) = self.conn.as_mut().and_then(|conn| conn.channels.get_mut(&number)) else { return };
        channel.next_act_ms = context.now_ms + u64::from(pause);
        if let Some(step) = channel.setup.pop_front() {
            channel.next_act_ms = context.now_ms;
            channel.request = Some((Request::Setup(step.clone()), context.history.facts.step));
            return self.with_sender(context, number, |context, sender| setup::send(context, sender, &step));
        }
        let Some(slot) = self.slots.iter().position(|slot| slot.channel == Some(number)) else { return };
        match self.slots[slot].work.clone() {
            Work::Publish(plan) => self.publish_step(context, number, &plan),
            Work::Consume(plan) => self.consume_step(context, number, &plan),
            Work::Get(queues) => self.get_step(context, number, &queues),
            Work::Disturb => self.disturb_step(context, number),
        }
    }

    fn open_channel(&mut self, context: &mut Context<'_>, slot: usize) {
        let Some(conn) = &mut self.conn else { return };
        let mut number = SETUP_CHANNEL + 1;
        while conn.channels.contains_key(&number) {
            number += 1;
        }
        self.slots[slot].channel = Some(number);
        self.new_channel(context, number);
    }

    /// Opens a channel under this number.
    pub(super) fn new_channel(&mut self, context: &mut Context<'_>, number: u16) {
        let Some(conn) = &mut self.conn else { return };
        let id = context.history.open_channel(conn.id, number);
        conn.channels.insert(number, Channel::new(id, context.history.facts.step));
        self.call(context, number, "channel.open", &[]);
    }

    /// Sends connection.close.
    pub(super) fn close(&mut self, context: &mut Context<'_>) {
        let Some(conn) = &mut self.conn else { return };
        conn.phase = Phase::Closing;
        let id = conn.id;
        context.history.note(Event::ConnectionEnding(id));
        self.call(context, 0, "connection.close", &[("reply-code", Field::Number(200))]);
    }

    /// Sends channel.close.
    pub(super) fn close_channel(&mut self, context: &mut Context<'_>, number: u16) {
        let Some(channel) = self.channel(number) else { return };
        channel.is_closing = true;
        let id = channel.id;
        context.history.note(Event::ChannelEnding(id));
        self.request(context, number, Request::Close, "channel.close", &[("reply-code", Field::Number(200))]);
    }

    /// What the client does next on this channel makes the broker close it.
    pub(super) fn doom(&mut self, context: &mut Context<'_>, number: u16) {
        let Some(channel) = self.channel(number) else { return };
        channel.is_doomed = true;
        let id = channel.id;
        context.history.note(Event::ChannelEnding(id));
    }

    pub(super) fn channel(&mut self, number: u16) -> Option<&mut Channel> {
        self.conn.as_mut()?.channels.get_mut(&number)
    }

    /// Sends a request and remembers that its answer is awaited.
    pub(super) fn request(
        &mut self,
        context: &mut Context<'_>,
        number: u16,
        request: Request,
        name: &str,
        given: &[(&str, Field)],
    ) {
        let step: Step = context.history.facts.step;
        let is_risky = request.is_risky(context);
        if let Some(channel) = self.channel(number) {
            channel.request = Some((request, step));
            let id = channel.id;
            if is_risky {
                context.history.note(Event::ChannelAtRisk(id));
            }
        }
        self.call(context, number, name, given);
    }

    pub(super) fn call(&mut self, context: &mut Context<'_>, number: u16, name: &str, given: &[(&str, Field)]) {
        self.with_sender(context, number, |_, sender| sender.call(name, given));
    }

    pub(super) fn with_sender(
        &mut self,
        context: &mut Context<'_>,
        number: u16,
        send: impl FnOnce(&Context<'_>, &mut Sender<'_>),
    ) {
        let Some(conn) = &mut self.conn else { return };
        conn.last_sent_ms = context.now_ms;
        // The trace is lent to the sender, so that it can be told of every frame.
        let mut trace = std::mem::take(&mut context.history.trace);
        let mut sender = Sender {
            link: &conn.link,
            channel: number,
            frame_max: conn.frame_max,
            client: self.index,
            now_ms: context.now_ms,
            trace: &mut trace,
        };
        send(context, &mut sender);
        context.history.trace = trace;
    }

    /// What comes of connection.start and connection.tune.
    pub(super) fn on_handshake(&mut self, context: &mut Context<'_>, name: &str) -> Result<(), String> {
        let Some(conn) = &mut self.conn else { return Ok(()) };
        let (heartbeat, frame_max) = (self.plan.heartbeat_secs, self.plan.frame_max);
        match (conn.phase, name) {
            (Phase::Start, "connection.start") => {
                conn.phase = Phase::Tune;
                let capabilities: Table =
                    ["publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked"]
                        .iter()
                        .map(|name| (name.as_bytes().to_vec(), Value::Bool(true)))
                        .collect();
                let properties = vec![(b"capabilities".to_vec(), Value::Table(capabilities))];
                let fields = [
                    ("client-properties", Field::Table(properties)),
                    ("mechanism", text("PLAIN")),
                    ("response", text("\0guest\0guest")),
                    ("locale", text("en_US")),
                ];
                self.call(context, 0, "connection.start-ok", &fields);
            }
            (Phase::Tune, "connection.tune") => {
                conn.phase = Phase::Open;
                let fields = [
                    ("channel-max", Field::Number(100)),
                    ("frame-max", Field::Number(u64::from(frame_max))),
                    ("heartbeat", Field::Number(u64::from(heartbeat))),
                ];
                self.call(context, 0, "connection.tune-ok", &fields);
                self.call(context, 0, "connection.open", &[("virtual-host", text("/"))]);
            }
            (Phase::Open, "connection.open-ok") => {
                conn.phase = Phase::Ready;
                self.new_channel(context, SETUP_CHANNEL);
                let is_passive = self.random.below(2) == 0;
                self.set_up(context, is_passive);
            }
            (phase, name) => return Err(format!("{name} comes in the phase {phase:?} of a connection")),
        }
        Ok(())
    }

    /// Declares everything.
    pub(super) fn set_up(&mut self, context: &mut Context<'_>, is_passive: bool) {
        let steps = setup::everything(context, is_passive);
        if let Some(channel) = self.channel(SETUP_CHANNEL) {
            channel.setup = steps;
        }
    }
}
