//! Stands on the wire and changes methods as a faulty broker would have treated them.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::testing::Random;
use tests::wire::spec::{self, Method};
use tests::wire::{self, FRAME_METHOD, Field, Frame, PROTOCOL_HEADER};

use crate::network::Direction;

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trick {
    /// basic.nack and basic.reject do not put back.
    DiscardRequeued,
    /// A publish takes the place of the one before it.
    SwapPublishes,
    /// basic.qos has no effect.
    IgnorePrefetch,
    ConfirmTwice,
    ForgetConfirm,
    ForgetDelivery,
    ForgetAck,
    /// On channels without confirms, whose numbers would tell.
    DoublePublish,
    SwallowPublish,
    HideRedelivered,
    InventRedelivered,
    /// tx.rollback commits.
    CommitAlways,
    /// A queue is declared without this argument.
    StripArgument(&'static str),
    /// basic.ack rejects.
    RejectAcked,
}

/// A method with the frames of its content.
struct Unit {
    channel: u16,
    method: &'static Method,
    fields: Vec<Field>,
    /// Those behind the method's.
    content: Vec<Frame>,
    content_bytes_left: Option<u64>,
}

impl Unit {
    fn encode(&self, out: &mut Vec<u8>) {
        let payload = wire::encode_method(self.method, &self.fields);
        Frame { kind: FRAME_METHOD, channel: self.channel, payload }.encode(out);
        self.content.iter().for_each(|frame| frame.encode(out));
    }

    /// Makes it another method with the same fields.
    fn rename(&mut self, name: &str) {
        if let Some(method) = spec::by_name(name) {
            self.method = method;
        }
    }

    fn is_whole(&self) -> bool {
        !self.method.has_content() || self.content_bytes_left == Some(0)
    }
}

#[derive(Default)]
struct Stream {
    input: Vec<u8>,
    is_past_header: bool,
    partial: BTreeMap<u16, Unit>,
}

/// See the module.
pub(crate) struct Meddler {
    trick: Trick,
    random: Random,
    to_broker: Stream,
    to_client: Stream,
    /// A publish that waits for the next one of its channel.
    held: BTreeMap<u16, Unit>,
    confirms: BTreeMap<u16, bool>,
    /// Channels that wait for the answer to a rollback.
    rollbacks: BTreeSet<u16>,
}

impl Meddler {
    pub(crate) fn new(trick: Trick, random: Random) -> Self {
        Self {
            trick,
            random,
            to_broker: Stream::default(),
            to_client: Stream::default(),
            held: BTreeMap::new(),
            confirms: BTreeMap::new(),
            rollbacks: BTreeSet::new(),
        }
    }

    /// What becomes of bytes on their way.
    pub(crate) fn pass(&mut self, direction: Direction, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let stream = self.stream(direction);
        stream.input.extend(bytes);
        if direction == Direction::ToBroker && !stream.is_past_header {
            if stream.input.len() < PROTOCOL_HEADER.len() {
                return out;
            }
            stream.is_past_header = true;
            out.extend(stream.input.drain(..PROTOCOL_HEADER.len()));
        }
        while let Ok(Some(frame)) = Frame::take(&mut self.stream(direction).input) {
            self.on_frame(direction, frame, &mut out);
        }
        out
    }

    fn stream(&mut self, direction: Direction) -> &mut Stream {
        match direction {
            Direction::ToBroker => &mut self.to_broker,
            Direction::ToClient => &mut self.to_client,
        }
    }

    fn on_frame(&mut self, direction: Direction, frame: Frame, out: &mut Vec<u8>) {
        let partial = &mut self.stream(direction).partial;
        let channel = frame.channel;
        let unit = match partial.remove(&channel) {
            Some(mut unit) => {
                unit.content_bytes_left = match unit.content_bytes_left {
                    None => wire::decode_header(&frame.payload).ok().map(|(bytes, _)| bytes),
                    Some(left) => Some(left.saturating_sub(frame.payload.len() as u64)),
                };
                unit.content.push(frame);
                unit
            }
            None if frame.kind == FRAME_METHOD => {
                let Ok((method, fields)) = wire::decode_method(&frame.payload) else { return frame.encode(out) };
                Unit { channel, method, fields, content: Vec::new(), content_bytes_left: None }
            }
            None => return frame.encode(out),
        };
        if unit.is_whole() {
            self.on_unit(direction, unit, out);
        } else {
            partial.insert(channel, unit);
        }
    }

    /// Now and then, so that something works, too.
    fn is_time(&mut self) -> bool {
        self.random.below(8) == 0
    }

    fn on_unit(&mut self, direction: Direction, mut unit: Unit, out: &mut Vec<u8>) {
        let channel = unit.channel;
        if direction == Direction::ToBroker {
            match unit.method.name {
                "confirm.select" => drop(self.confirms.insert(channel, true)),
                "channel.open" => drop(self.confirms.insert(channel, false)),
                _ => {}
            }
            // What waited must not come behind anything else.
            if unit.method.name != "basic.publish"
                && let Some(held) = self.held.remove(&channel)
            {
                held.encode(out);
            }
        }
        let confirms = self.confirms.get(&channel).copied().unwrap_or(false);
        match (self.trick, unit.method.name) {
            (Trick::DiscardRequeued, "basic.nack" | "basic.reject") => {
                if let Some(Field::Bit(requeue)) = unit.fields.last_mut() {
                    *requeue = false;
                }
            }
            (Trick::SwapPublishes, "basic.publish") => {
                if let Some(held) = self.held.remove(&channel) {
                    unit.encode(out);
                    return held.encode(out);
                }
                if self.is_time() {
                    self.held.insert(channel, unit);
                    return;
                }
            }
            (Trick::IgnorePrefetch, "basic.qos") => {
                if let Some(count) = unit.fields.get_mut(1) {
                    *count = Field::Number(0);
                }
            }
            (Trick::ConfirmTwice, "basic.ack") if direction == Direction::ToClient && self.is_time() => {
                unit.encode(out);
            }
            (Trick::ForgetConfirm, "basic.ack") if direction == Direction::ToClient && self.is_time() => return,
            (Trick::ForgetAck, "basic.ack") if direction == Direction::ToBroker && self.is_time() => return,
            (Trick::DoublePublish, "basic.publish") if !confirms && self.is_time() => unit.encode(out),
            (Trick::SwallowPublish, "basic.publish") if !confirms && self.is_time() => return,
            (Trick::ForgetDelivery, "basic.deliver") if self.is_time() => return,
            (Trick::HideRedelivered, "basic.deliver") => {
                if let Some(redelivered) = unit.fields.get_mut(2) {
                    *redelivered = Field::Bit(false);
                }
            }
            (Trick::InventRedelivered, "basic.deliver") if self.is_time() => {
                if let Some(redelivered) = unit.fields.get_mut(2) {
                    *redelivered = Field::Bit(true);
                }
            }
            (Trick::CommitAlways, "tx.rollback") => {
                self.rollbacks.insert(channel);
                unit.rename("tx.commit");
            }
            (Trick::CommitAlways, "tx.commit-ok") if self.rollbacks.remove(&channel) => unit.rename("tx.rollback-ok"),
            (Trick::StripArgument(unwanted), "queue.declare") => {
                if let Some(Field::Table(arguments)) = unit.fields.last_mut() {
                    arguments.retain(|(name, _)| name != unwanted.as_bytes());
                }
            }
            (Trick::RejectAcked, "basic.ack") if direction == Direction::ToBroker && self.is_time() => {
                // One alone: only those can be rejected in the same way.
                if let [tag, Field::Bit(false)] = unit.fields.as_slice() {
                    unit.fields = vec![tag.clone(), Field::Bit(false)];
                    unit.rename("basic.reject");
                }
            }
            _ => {}
        }
        unit.encode(out);
    }
}
